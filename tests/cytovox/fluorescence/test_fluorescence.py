"""Masks and offsets from a simulated stain, whose nuclei, offset and brightness are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage as ndi

import cytovox
from cytovox.errors import InputError
from cytovox.fluorescence import LabelRules, estimate_cells, label_from_channel, registration_offset, undrawn_cells
from cytovox.io import Volume, read_volume, write_tcf
from cytovox.io.fluorescence import background_level, fluorescence_channels, read_channel
from cytovox.metrics.overlap import dice
from cytovox.organelles import UNDRAWN
from cytovox.simulation import simulate
from cytovox.simulation.fluorescence import Stain, stained

SHAPE, SPACING = (48, 96, 96), (0.3, 0.3, 0.3)
#: Half a voxel of the tomogram.
HALF_UM = 0.15
OFFSET = (0.45, -0.75, 0.6)


@pytest.fixture(scope="module")
def tomogram():
    return simulate("HeLa", 1, SHAPE, SPACING)


@pytest.fixture(scope="module")
def path(tomogram, tmp_path_factory):
    """A TCF file with a displaced channel on a grid of its own, two of whose cells are not stained."""
    made = stained(tomogram, unstained=(1, 2), offset_um=OFFSET, spacing_um=(0.5, 0.25, 0.25))
    folder = tmp_path_factory.mktemp("tcf")
    return write_tcf(folder / "a.TCF", tomogram.ri_ZYX, SPACING, tomogram.medium_ri, fluorescence=made.volume)


def test_the_offset_is_recovered_within_half_a_voxel_of_the_tomogram(tomogram, path):
    volume = read_volume(path)
    read = read_channel(volume, 0, "CH0")
    assert (read.slices, read.voxel_um3) == (29, pytest.approx(0.5 * 0.25 * 0.25))
    coarse = (0.25, HALF_UM, HALF_UM)  # half a voxel of the channel, whose slices are 0.5 µm apart
    for reference, limit in ((tomogram.ri_ZYX, coarse), (tomogram.masks["membrane"], HALF_UM)):
        found = registration_offset(reference, read.values_ZYX, SPACING, medium_ri=tomogram.medium_ri)
        assert found.reliable
        assert not found.reason
        assert (np.abs(np.subtract(found.offset_um, OFFSET)) <= limit).all()
        assert found.reliability > 0.6


def test_without_an_offset_none_is_found(tomogram):
    values = stained(tomogram).volume.frame(0, "CH0")
    found = registration_offset(tomogram.cells_ZYX, values, SPACING)
    assert found.reliable
    assert np.abs(found.offset_um).max() <= HALF_UM


@pytest.mark.parametrize("what", ["no cytoplasm", "noise", "another field", "constant", "too far"])
def test_an_offset_that_cannot_be_known_is_called_unreliable_with_a_reason(tomogram, what):
    other = simulate("A549", 2, SHAPE, SPACING) if what == "another field" else tomogram
    made = stained(other, Stain(bleed_through=0.0 if what == "no cytoplasm" else 30.0), offset_um=(0, 1.5, 0))
    values = made.volume.frame(0, "CH0")
    if what == "noise":
        values = np.random.default_rng(0).poisson(100, SHAPE).astype(np.float32)
    if what == "constant":
        values = np.full(SHAPE, 100, np.float32)
    limit = 1.0 if what == "too far" else 3.0
    found = registration_offset(tomogram.ri_ZYX, values, SPACING, max_offset_um=limit, medium_ri=tomogram.medium_ri)
    assert not found.reliable
    assert found.reason
    if what == "too far":
        assert found.reason == "more than 1 µm"


@pytest.mark.parametrize("cells", ["given", "estimated"])
@pytest.mark.parametrize("threshold", ["cell", "field"])
def test_the_mask_agrees_with_the_true_nuclei_and_unstained_cells_are_not_drawn(tomogram, path, cells, threshold):
    volume = read_volume(path)
    read = read_channel(volume, 0, "CH0", OFFSET)
    labels = tomogram.cells_ZYX.astype(np.int32)
    given = labels if cells == "given" else estimate_cells(tomogram.ri_ZYX, SPACING, tomogram.medium_ri)
    rules = LabelRules(threshold=threshold)
    label = label_from_channel(read.values_ZYX, SPACING, given, field_ZYX=read.field_ZYX, rules=rules)
    assert label.dtype == np.uint8
    assert set(np.unique(label)) == {0, 1, UNDRAWN}
    truth = (tomogram.nuclei_ZYX > 0) & ~np.isin(labels, (1, 2)) & read.field_ZYX
    assert dice(label == 1, truth & (label != UNDRAWN)) >= 0.97  # 0.980 to 0.985
    assert (label[np.isin(tomogram.nuclei_ZYX, (1, 2))] == UNDRAWN).all()
    assert (label[~read.field_ZYX] == UNDRAWN).all()
    if cells == "given":
        undrawn, count = undrawn_cells(label, given)
        large = {k for k in range(1, labels.max() + 1) if (truth & (labels == k)).sum() * np.prod(SPACING) >= 20}
        without = set(range(1, labels.max() + 1)) - large
        assert (undrawn, count) == (len(without), labels.max())
        assert all((label[labels == k] == UNDRAWN).all() for k in without)


def test_a_channel_without_any_signal_draws_nothing(tomogram):
    everyone = [int(k) for k in np.unique(tomogram.cells_ZYX) if k > 0]
    values = stained(tomogram, unstained=everyone).volume.frame(0, "CH0")
    cells = tomogram.cells_ZYX.astype(np.int32)
    label = label_from_channel(values, SPACING, cells)
    assert (label == UNDRAWN).all()
    assert undrawn_cells(label, cells) == (len(everyone), len(everyone))
    assert (label_from_channel(np.full(SHAPE, 7, np.float32), SPACING, cells) == UNDRAWN).all()


def ball(centre, radius_um, shape=(40, 60, 60)):
    grid = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, SPACING, strict=True)), indexing="ij"), -1)
    return ((grid - centre) ** 2).sum(-1) <= radius_um**2


def test_holes_are_filled_small_parts_left_out_and_bright_debris_outside_cells_is_not_drawn():
    cells = ball((6, 9, 5.5), 5.0).astype(np.int32)
    nucleus, hole, speck, debris = (
        ball((6, 9, 5.5), 2.8), ball((6, 9, 5.5), 1.0), ball((6, 12.9, 5.5), 0.6), ball((6, 9, 14), 1.5),
    )  # fmt: skip
    values = 100 + 20.0 * (cells > 0) + 300.0 * ((nucleus & ~hole) | speck | debris)
    values = ndi.gaussian_filter(values, 0.5).astype(np.float32)
    label = label_from_channel(values, SPACING, cells)
    assert dice(label == 1, nucleus) > 0.97
    assert (label[hole] == 1).all()
    assert not (label[speck] == 1).any()
    assert (label[ball((6, 9, 14), 1.0)] == UNDRAWN).all()
    assert (label[0] == 0).all()
    small = LabelRules(min_volume_um3=0)
    assert (label_from_channel(values, SPACING, cells, rules=small)[ball((6, 12.9, 5.5), 0.3)] == 1).all()


def test_what_is_far_from_the_mask_is_not_drawn_since_it_may_be_another_cell():
    cells = ball((6, 5, 6), 4.0) | ball((6, 12, 9), 4.0)  # one label of two cells, one of which is not stained
    nucleus = ball((6, 5, 6), 2.4)
    values = ndi.gaussian_filter(100 + 20.0 * cells + 300.0 * nucleus, 0.5).astype(np.float32)
    label = label_from_channel(values, SPACING, cells.astype(np.int32), rules=LabelRules(reach_um=3.0))
    assert (label[ball((6, 12, 9), 2.0)] == UNDRAWN).all()
    distance = ndi.distance_transform_edt(label != 1, sampling=SPACING)
    assert (label[cells & (distance > 3)] == UNDRAWN).all()
    assert (label[~cells | ((distance > 0) & (distance <= 3))] == 0).all()


def test_a_nucleus_that_fills_its_cell_counts_as_stained_beside_others():
    cells = ball((6, 5, 5), 4.0) + 2 * ball((6, 13, 13), 3.6).astype(np.int32)
    nuclei = ball((6, 5, 5), 2.4) | ball((6, 13, 13), 3.4)
    values = ndi.gaussian_filter(100 + 20.0 * (cells > 0) + 300.0 * nuclei, 0.5).astype(np.float32)
    values += np.random.default_rng(0).normal(0, 3, values.shape).astype(np.float32)
    label = label_from_channel(values, SPACING, cells)
    assert undrawn_cells(label, cells) == (0, 2)
    assert dice(label == 1, nuclei) > 0.95


def test_the_same_mask_whatever_gain_and_background_of_the_camera(tomogram):
    values = stained(tomogram).volume.frame(0, "CH0")
    cells = tomogram.cells_ZYX.astype(np.int32)
    first = label_from_channel(values, SPACING, cells)
    assert (first == label_from_channel(4 * values + 512, SPACING, cells)).mean() > 0.9999


def test_arrays_of_different_shapes_are_refused():
    image, cells = np.zeros((4, 5, 6), np.float32), np.zeros((4, 5, 5), np.int32)
    with pytest.raises(ValueError, match="one shape"):
        label_from_channel(image, SPACING, cells)
    with pytest.raises(ValueError, match="one shape"):
        registration_offset(cells, image, SPACING)


def test_cells_are_estimated_and_an_empty_field_has_none(tomogram):
    found = estimate_cells(tomogram.ri_ZYX, SPACING, tomogram.medium_ri)
    assert dice(found > 0, tomogram.masks["membrane"]) > 0.9
    assert dice(estimate_cells(tomogram.ri_ZYX, SPACING) > 0, found > 0) > 0.9
    noise = np.random.default_rng(0).normal(1.337, 3e-4, SHAPE).astype(np.float32)
    for empty in (noise, np.full(SHAPE, 1.337, np.float32)):
        assert not estimate_cells(empty, SPACING, 1.337).any()


def test_the_field_of_a_smaller_channel_is_known_and_a_shift_is_undone(tomogram, tmp_path):
    made = stained(tomogram, Stain(read_noise=0.0), offset_um=(0.6, -0.9, 0.3))
    part = Volume(made.volume.frame(0, "CH0")[None, None, 8:40, 10:86, 10:86].astype(np.uint16), SPACING, ("CH0",),
                  origin_um=(8 * 0.3, 3.0, 3.0))  # fmt: skip
    path = write_tcf(tmp_path / "b.TCF", tomogram.ri_ZYX, SPACING, tomogram.medium_ri, fluorescence=part)
    volume = read_volume(path)
    assert fluorescence_channels(volume) == ("CH0",)
    read = read_channel(volume, 0, "CH0")
    field = np.zeros(SHAPE, bool)
    field[8:40, 10:86, 10:86] = True
    assert (read.field_ZYX == field).all()
    np.testing.assert_array_equal(read.values_ZYX, np.where(field, volume.frame(0, "CH0"), 0))
    moved = read_channel(volume, 0, "CH0", (0.6, -0.9, 0.3))
    inside = ndi.binary_erosion(moved.field_ZYX, iterations=2)
    assert np.abs(moved.values_ZYX - 100 - made.signal_ZYX)[inside].max() < 1.5  # rounded counts, cubic interpolation
    with pytest.raises(InputError, match="no channel CH1"):
        read_channel(volume, 0, "CH1")


def test_fluorescence_of_each_nucleus_is_what_was_put_in(tomogram, tmp_path):
    """Sum above background; the tolerance is shot noise and the bleed-through that reaches the background's voxels."""
    for spacing in (SPACING, (0.6, 0.2, 0.2)):
        made = stained(tomogram, unstained=(1,), spacing_um=spacing)
        path = write_tcf(
            tmp_path / "c.TCF", tomogram.ri_ZYX, SPACING, tomogram.medium_ri, fluorescence=made.volume
        )  # fmt: skip
        table = cytovox.measure(read_volume(path), tomogram.masks, tomogram.cells_ZYX)
        rows = table[table["compartment"] == "nucleus"].set_index("cell")
        ratio = np.prod(SPACING) / np.prod(spacing)
        for k in np.unique(tomogram.nuclei_ZYX[tomogram.nuclei_ZYX > 0]):
            inside = tomogram.nuclei_ZYX == k
            put_in = float(made.signal_ZYX[inside].sum(dtype=np.float64))
            tolerance = 0.02 * put_in + 3 * inside.sum()
            assert rows.loc[k, "fluorescence_sum_CH0"] == pytest.approx(put_in * ratio, abs=tolerance * ratio)
            assert rows.loc[k, "fluorescence_mean_CH0"] == pytest.approx(put_in / inside.sum(), rel=0.05, abs=3)


def test_a_table_has_columns_of_fluorescence_only_where_there_is_a_channel(tomogram):
    volume = Volume(tomogram.ri_ZYX, SPACING, medium_ri=tomogram.medium_ri)
    plain = cytovox.measure(volume, tomogram.masks, tomogram.cells_ZYX)
    assert not [name for name in plain if "fluorescence" in name]
    both = np.stack([tomogram.ri_ZYX, tomogram.ri_ZYX * 0 + 100])[None]
    volume = Volume(both, SPACING, ("RI", "DAPI"), medium_ri=tomogram.medium_ri)
    table = cytovox.measure(volume, tomogram.masks, tomogram.cells_ZYX)
    assert set(table) - set(plain) == {"fluorescence_mean_DAPI", "fluorescence_sum_DAPI"}
    assert table["fluorescence_mean_DAPI"].dropna().eq(0).all()
    rest = list(plain)
    assert table[rest].equals(plain)


def test_the_background_needs_voxels_away_from_cells():
    values, field = np.full((10, 30, 30), 5.0, np.float32), np.ones((10, 30, 30), bool)
    cells = np.zeros(values.shape, np.int32)
    cells[:, 10:20, 10:20] = 1
    values[:, 8:22, 8:22] = 50
    assert background_level(values, cells, field, SPACING) == (5.0, 0.0)
    cells[:, 2:28, 2:28] = 1
    assert background_level(values, cells, field, SPACING) is None


def test_a_simulated_stain_is_seeded_and_refuses_an_unknown_cell(tomogram):
    first, again = stained(tomogram, seed=5), stained(tomogram, seed=5)
    np.testing.assert_array_equal(first.volume.frame(0, "CH0"), again.volume.frame(0, "CH0"))
    assert (stained(tomogram, seed=6).volume.frame(0, "CH0") != first.volume.frame(0, "CH0")).any()
    clean = stained(tomogram, replace(Stain(), read_noise=0.0, bleed_through=0.0, background=0.0))
    amount = clean.signal_ZYX.sum(dtype=np.float64)
    assert clean.volume.frame(0, "CH0").sum(dtype=np.float64) == pytest.approx(amount, rel=0.01)
    with pytest.raises(InputError, match="unstained: no cell 99"):
        stained(tomogram, unstained=(99,))
    with pytest.raises(InputError, match="spacing"):
        stained(tomogram, spacing_um=(0, 1, 1))
