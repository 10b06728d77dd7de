"""The slab of `z: center` lies on the cells, and is found from the refractive index alone."""

import functools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cytovox.inference.cell_layer import LEAST_HELD, Layer, find_layer, find_slab, layer_profile, middle_slab
from cytovox.inference.predictor import DenseInferer
from cytovox.inference.regions import RegionSource
from cytovox.inference.tiling import SlidingWindow
from cytovox.inference.windows import TensorSource, read_padded
from cytovox.io import read_volume
from cytovox.io.regions import ArrayReader
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.preprocess.resampling import ResampleTo, resize_mask
from cytovox.segmentation.field import CellField
from cytovox.segmentation.networks import ConditionedCells
from cytovox.simulation import PRESETS
from cytovox.simulation.draw import draw_scene
from cytovox.simulation.tomogram import simulate

#: The field of organelle_choi, 28.8 x 64 x 64 µm, on a coarser grid; the slab is half of its depth, as there.
SHAPE, SPACING_UM, DEPTH = (36, 80, 80), (0.8, 0.8, 0.8), 18


@functools.lru_cache(maxsize=32)
def tomogram(preset: str, seed: int):
    return simulate(preset, seed, SHAPE, SPACING_UM)


def normalised(ri_ZYX: np.ndarray) -> np.ndarray:
    return NormaliseRI()(ri_ZYX)


def layer_of(image_ZYX: np.ndarray, depth: int = DEPTH) -> Layer:
    return find_layer(TensorSource(torch.from_numpy(np.ascontiguousarray(image_ZYX))[None]), depth)


def dice(mask_ZYX: np.ndarray, start: int, depth: int = DEPTH) -> float:
    """Dice of a prediction that is perfect inside the slab and empty outside."""
    held = mask_ZYX[start : start + depth].sum()
    return float(2 * held / (held + mask_ZYX.sum()))


def best_dice(mask_ZYX: np.ndarray, depth: int = DEPTH) -> float:
    return max(dice(mask_ZYX, start, depth) for start in range(len(mask_ZYX) - depth + 1))


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(sorted(PRESETS)),
    st.integers(0, 1),
    st.integers(0, 24),
    st.booleans(),
    st.sampled_from([0.0, 0.004, 0.012]),
    st.sampled_from([0.0, 0.0005, 0.0015]),
)
def test_the_slab_holds_as_much_as_the_best_slab(preset, seed, lift, upside_down, medium, noise):
    """For every cell line, height above the coverslip, orientation, medium and noise."""
    made = tomogram(preset, seed)
    empty = made.ri_ZYX[len(made.ri_ZYX) - lift :]
    ri = np.concatenate([empty, made.ri_ZYX[: len(made.ri_ZYX) - lift]])
    mask = np.concatenate([np.zeros(empty.shape, bool), made.masks["membrane"][: len(made.ri_ZYX) - lift]])
    ri = ri + medium + noise * np.random.default_rng(lift).normal(size=ri.shape).astype(np.float32)
    step = -1 if upside_down else 1
    found = layer_of(normalised(ri[::step]))
    assert found.found
    assert found.stop - found.start == DEPTH
    assert dice(mask[::step], found.start) >= best_dice(mask) - 0.012


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_slab_holds_the_cells_of_simulated_fields(preset):
    made = tomogram(preset, 0)
    mask = made.masks["membrane"]
    assert dice(mask, layer_of(normalised(made.ri_ZYX)).start) >= 0.99
    assert dice(mask, middle_slab(len(mask), DEPTH)[0]) < 0.75  # what the slab in the middle of the field would reach


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_slab_begins_below_the_coverslip_and_ends_above_the_cells(preset):
    """Compared with the coverslip and the cells' heights of the simulated scene."""
    extent = (SHAPE[0] * SPACING_UM[0], SHAPE[1] * SPACING_UM[1], SHAPE[2] * SPACING_UM[2])
    scene = draw_scene(PRESETS[preset], 0, extent)
    usual = float(np.median([cell.lift_um + cell.height_um / (2 if cell.lift_um else 1) for cell in scene.cells]))
    found = layer_of(normalised(tomogram(preset, 0).ri_ZYX))
    assert found.start * SPACING_UM[0] <= scene.coverslip_um
    assert found.stop * SPACING_UM[0] >= scene.coverslip_um + usual


def textured(centre: float, thickness: float, size: int = 60, seed: int = 0) -> np.ndarray:
    """A sheet of speckle, soft along z as a missing cone makes it, in faint noise."""
    rng = np.random.default_rng(seed)
    weight = np.clip(thickness / 2 + 1 - np.abs(np.arange(size) + 0.5 - centre), 0, 1)
    sheet = weight[:, None, None] * rng.uniform(0, 0.8, (1, 64, 64))
    return (sheet + 0.005 * rng.normal(size=(size, 64, 64))).clip(0, 1).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(st.floats(14, 46), st.integers(4, 11), st.integers(14, 25))
def test_the_slab_is_centred_on_the_layer(centre, thickness, depth):
    found = layer_of(textured(centre, thickness), depth)
    assert found.found
    assert found.share > 0.999
    assert abs((found.start + found.stop) / 2 - centre) <= 1.0


def test_at_the_border_the_slab_begins_with_the_volume():
    assert (layer_of(textured(2.0, 4), 20).start, layer_of(textured(58.0, 4), 20).stop) == (0, 60)


def test_the_slab_holds_both_layers_or_the_larger_one_with_a_note():
    two = np.maximum(textured(12.0, 6, seed=1), textured(28.0, 6, seed=2))
    both = layer_of(two, 24)
    assert (both.start <= 9, both.stop >= 31, both.notes) == (True, True, [])
    one = layer_of(np.maximum(textured(10.0, 10, seed=1), textured(45.0, 6, seed=2)), 14)
    assert one.start <= 5
    assert one.stop >= 15
    assert one.share < LEAST_HELD
    assert f"{100 * one.share:.0f} %" in one.notes[0]


@pytest.mark.parametrize("shape", [(128, 256, 256), (40, 64, 64), (16, 32, 32), (12, 16, 16)])
@pytest.mark.parametrize("level", [0.0, 0.2])
def test_noise_and_constant_volumes_give_the_slab_in_the_middle_with_a_note(shape, level):
    noise = 0.02 * np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32) + np.float32(level)
    for image in (noise.clip(0), np.full(shape, level, np.float32)):
        found = layer_of(image, 8)
        assert (found.start, found.stop, found.found) == (*middle_slab(shape[0], 8), False)
        assert "no layer of cells" in found.notes[0]


def test_one_small_cell_in_a_wide_empty_field_is_found():
    image = 0.01 * np.random.default_rng(3).normal(size=(60, 320, 320)).astype(np.float32)
    z, y, x = np.ogrid[:60, :320, :320]
    image += 0.4 * (((z - 44) / 5) ** 2 + ((y - 60) / 12) ** 2 + ((x - 250) / 12) ** 2 < 1)
    found = layer_of(image.clip(0, 1), 20)
    assert found.found
    assert abs((found.start + found.stop) / 2 - 44.5) <= 1


def test_a_shallow_volume_is_taken_whole():
    assert layer_of(textured(8.0, 4, size=16), 18) == Layer(0, 16, True, 1.0)
    assert (middle_slab(10, 10), middle_slab(11, 4), middle_slab(3, 4)) == ((0, 10), (3, 7), (0, 3))


def test_the_profile_does_not_depend_on_the_storage_of_the_volume():
    image = np.random.default_rng(0).random((40, 300, 270)).astype(np.float32)
    image *= textured(20.0, 8, 40).max(2)[:, :1, None]
    whole = layer_profile(TensorSource(torch.from_numpy(image)[None]))
    normalise = NormaliseRI(1.0, 2.0)
    pieces = RegionSource(ArrayReader(1 + image), image.shape, normalise, (7, 50, 60), 1e5)
    np.testing.assert_allclose(layer_profile(pieces), whole, atol=1e-4)
    assert find_layer(pieces, 12) == pytest.approx(find_layer(TensorSource(torch.from_numpy(image)[None]), 12))


class Perfect(nn.Module):
    """Returns the truth of each window; windows are in raster order."""

    def __init__(self, truth_KZYX: torch.Tensor, tiling: SlidingWindow, slab: tuple[int, int]) -> None:
        super().__init__()
        self.truth, self.tiling = TensorSource(truth_KZYX), tiling
        windows = tiling.windows(self.truth.shape, slab)
        self.starts = iter([windows.start(index) for index in windows])

    def forward(self, x):
        shown = [read_padded(self.truth, next(self.starts), self.tiling.window, self.tiling.pad_mode) for _ in x]
        return 20 * torch.stack(shown) - 10


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_perfect_network_by_the_papers_inference(preset):
    """The protocol of organelle_choi on a smaller grid, compared with prediction of the whole depth."""
    made, grid = tomogram(preset, 1), (48, 96, 96)
    names = list(made.masks)
    masks = np.stack([made.masks[name] for name in names]).astype(np.uint8)
    source = RegionSource(ArrayReader(made.ri_ZYX), grid, NormaliseRI(), (32, 128, 128), 1e9)
    truth = torch.from_numpy(resize_mask(masks, grid)).float()
    scores = {}
    for rule in ("tile", "center"):
        tiling = SlidingWindow((24, 24, 24), (24, 12, 12), z=rule, pad_yx=(12, 12))
        network = Perfect(truth, tiling, tiling.find_slab(source))
        predicted = DenseInferer(network, ResampleTo(grid=grid), tiling)(made.ri_ZYX, SPACING_UM) >= 0.5
        both = (predicted & (masks > 0)).sum(axis=(1, 2, 3))
        found = 2 * both / (predicted.sum(axis=(1, 2, 3)) + masks.sum(axis=(1, 2, 3)))
        scores[rule] = dict(zip(names, map(float, found), strict=True))
    assert scores["center"]["membrane"] >= 0.95
    assert scores["center"] == pytest.approx(scores["tile"], abs=0.01)


def test_cells_one_by_one_see_the_slab_of_the_layer():
    """By the index; where there is none, by the membrane that is given."""

    class Everything(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 1, *x.shape[2:]), 9.0)

    made = tomogram("HeLa", 0)
    ri = np.flip(made.ri_ZYX, 0)
    nuclei = np.flip(made.nuclei_ZYX, 0)
    membrane = np.flip(made.masks["membrane"], 0).astype(np.float32)
    grid = ResampleTo(grid=(DEPTH, 48, 48))
    for image, seen in ((ri, normalised(ri)), (None, membrane)):
        expected = find_slab("center", DEPTH, seen)
        field = CellField(membrane, nuclei > 0, SPACING_UM, image, nuclei.astype(np.int32))
        found = ConditionedCells(Everything(), grid, z="center")(field).cells_ZYX
        assert found[expected.start : expected.stop].all()
        assert not found[: expected.start].any()
        assert not found[expected.stop :].any()
        assert expected.start > (SHAPE[0] - DEPTH) // 2  # upside down, the cells lie above the middle
    middle = ConditionedCells(Everything(), grid, z="middle")(field).cells_ZYX
    assert np.flatnonzero(middle.any((1, 2))).tolist() == list(range(*middle_slab(SHAPE[0], DEPTH)))


def test_a_note_is_printed_once_for_many_volumes(capsys):
    tiling = SlidingWindow((4, 8, 8), (4, 4, 4), z="center", pad_yx=(0, 0))
    for _ in range(3):
        tiling(torch.zeros((2, 1, 9, 8, 8)), lambda windows: windows)
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 1
    assert notes[0].startswith("note: z: center: no layer of cells stands out of the noise")


@pytest.mark.real_data
@pytest.mark.skipif("CYTOVOX_DATA" not in os.environ, reason="CYTOVOX_DATA names no folder of real data")
def test_the_real_cell_lies_in_the_middle_of_its_crop():
    """61 % of the crop is one cell, which touches all six faces; its centre of mass is that of its slab."""
    volume = read_volume(Path(os.environ["CYTOVOX_DATA"]) / "tomograms" / "hl60.TCF")
    for frame, turned in ((0, False), (1, True)):
        ri = volume.frame(frame)
        found = layer_of(normalised(ri), 48)
        inside = ri > 1.345
        centre = (inside.sum((1, 2)) * (np.arange(len(ri)) + 0.5)).sum() / inside.sum()
        assert found.found
        assert abs((found.start + found.stop) / 2 - centre) <= 4, (found, centre, turned)
        assert dice(inside, found.start, 48) >= best_dice(inside, 48) - 0.02
