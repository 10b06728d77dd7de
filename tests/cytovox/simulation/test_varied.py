"""The preset `any`: variation of its cells, and consistency of masks and index."""

import numpy as np
import pytest
import scipy.ndimage as ndi

from cytovox.errors import InputError
from cytovox.simulation import ANY, Options, Request, Tomogram, load, simulate, simulate_many
from cytovox.simulation.cells import Grid
from cytovox.simulation.varied import grow_any
from cytovox.simulation.visibility import unseen_parts

SHAPE, SPACING = (40, 72, 72), (0.4, 0.4, 0.4)
SEEDS = range(30)


@pytest.fixture(scope="module")
def volumes() -> list[Tomogram]:
    return [simulate(ANY, seed, SHAPE, SPACING, Options(noise_ri=(0, 0))) for seed in SEEDS]


def test_a_seed_determines_the_volume(volumes):
    again = simulate(ANY, 3, SHAPE, SPACING, Options(noise_ri=(0, 0)))
    assert np.array_equal(again.ri_ZYX, volumes[3].ri_ZYX)
    assert np.array_equal(again.nuclei_ZYX, volumes[3].nuclei_ZYX)
    assert not np.array_equal(volumes[3].ri_ZYX, volumes[4].ri_ZYX)


def test_organelles_lie_inside_their_cells(volumes):
    for volume in volumes:
        inside = volume.nuclei_ZYX > 0
        assert np.array_equal(volume.nuclei_ZYX[inside], volume.cells_ZYX[inside])
        assert not (volume.masks["nucleolus"] & ~inside).any()
        assert not (volume.masks["lipid"] & (inside | (volume.cells_ZYX == 0))).any()


def test_each_cell_is_one_component():
    for seed in range(8):
        grown = grow_any(seed, Grid.around(SHAPE, SPACING, (0, 0, 0)), 1.337)
        for label in range(1, int(grown.cells_ZYX.max()) + 1):
            assert ndi.label(grown.cells_ZYX == label)[1] == 1


def test_nuclei_vary_in_position_size_and_sign_of_contrast(volumes):
    offsets, shares, contrasts, without = [], [], [], 0
    for volume in volumes:
        for label in np.unique(volume.cells_ZYX)[1:]:
            cell = volume.cells_ZYX == label
            nucleus = volume.nuclei_ZYX == label
            if min(np.argwhere(cell).min(0)) == 0 or (np.argwhere(cell).max(0) == np.array(SHAPE) - 1).any():
                continue  # cut by the field
            if not nucleus.any():
                without += 1
                continue
            radius = np.cbrt(3 * cell.sum() / (4 * np.pi))
            offsets.append(np.linalg.norm(np.argwhere(cell).mean(0) - np.argwhere(nucleus).mean(0)) / radius)
            shares.append(nucleus.sum() / cell.sum())
            plasm = cell & ~nucleus & ~volume.masks["lipid"]
            inner = nucleus & ~volume.masks["nucleolus"]
            contrasts.append(np.median(volume.ri_true_ZYX[inner]) - np.median(volume.ri_true_ZYX[plasm]))
    assert without >= 2
    assert np.percentile(offsets, 10) < 0.25
    assert np.percentile(offsets, 90) > 0.4
    assert np.percentile(shares, 10) < 0.08
    assert np.percentile(shares, 90) > 0.25
    assert 0.2 < np.mean(np.array(contrasts) > 0) < 0.8
    assert np.percentile(np.abs(contrasts), 90) > 0.005


def test_unseen_voxels_belong_to_their_organelle(volumes):
    marked = [name for volume in volumes for name in volume.unseen]
    assert {"nucleus", "nucleolus", "lipid"} <= set(marked)
    for volume in volumes:
        for name, unseen in volume.unseen.items():
            assert unseen.any()
            assert not (unseen & ~volume.masks[name]).any()
    assert any("nucleus" not in volume.unseen and volume.nuclei_ZYX.any() for volume in volumes)


def test_most_of_what_has_contrast_is_seen(volumes):
    nuclei = sum(volume.masks["nucleus"].sum() for volume in volumes)
    unseen = sum(volume.unseen["nucleus"].sum() for volume in volumes if "nucleus" in volume.unseen)
    assert 0.1 < unseen / nuclei < 0.7


def test_faint_and_tiny_parts_are_unseen():
    z, y, x = np.mgrid[-20:20, -30:30, -30:30] * 0.3

    def ball(radius, shift):
        return z**2 + y**2 + (x - shift) ** 2 < radius**2

    cell, nucleolus = ball(8.5, 0.0), np.zeros(z.shape, bool)
    nucleus, bright, tiny = ball(2.0, -4.0), ball(1.0, 3.0), ball(0.35, 6.0)
    ri = np.where(cell, 1.355, 1.337) + 0.0002 * nucleus + 0.04 * (bright | tiny)
    ri += np.random.default_rng(0).normal(0, 0.001, ri.shape)
    masks = {"membrane": cell, "nucleus": nucleus, "nucleolus": nucleolus, "lipid": bright | tiny}
    unseen = unseen_parts(ri, masks, {}, (0.3, 0.3, 0.3))
    assert set(unseen) == {"nucleus", "lipid"}
    assert np.array_equal(unseen["nucleus"], nucleus)
    assert np.array_equal(unseen["lipid"], tiny)


def test_a_low_density_gives_fewer_cells():
    def number(density: float) -> int:
        grid = Grid.around((16, 72, 72), SPACING, (0, 0, 0))
        return sum(int(grow_any(seed, grid, 1.337, density).cells_ZYX.max()) for seed in range(12))

    assert number(0.3) < 0.6 * number(1.0)


def test_the_cache_stores_what_is_unseen(volumes, tmp_path):
    seed = next(volume.seed for volume in volumes if len(volume.unseen) > 1)
    (path,) = simulate_many([Request(ANY, seed, SHAPE, SPACING, Options(noise_ri=(0, 0)))], tmp_path)
    stored = load(path).unseen
    assert set(stored) == set(volumes[seed].unseen)
    assert all(np.array_equal(stored[name], mask) for name, mask in volumes[seed].unseen.items())


def test_a_time_lapse_of_the_preset_any_is_refused():
    from cytovox.simulation import time_lapse

    with pytest.raises(InputError, match="preset 'any'"):
        next(time_lapse(ANY, 0, "control", [0.0, 60.0]))
