"""Simulated single cells: complete, inside the volume, and neither trivial nor impossible to learn."""

from __future__ import annotations

import time

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.simulation import PRESETS
from cytovox.simulation.shapes import SIDE, SLICE, SimulatedShape, simulate_shape


@pytest.fixture(scope="module")
def cells() -> list[SimulatedShape]:
    return [simulate_shape(preset, seed) for seed in range(14) for preset in PRESETS]


def heights(cells: list[SimulatedShape]) -> np.ndarray:
    return np.array([np.ptp(np.flatnonzero(c.obj_ZYX.any((1, 2)))) + 1 for c in cells], float)


@settings(max_examples=25, deadline=None)
@given(preset=st.sampled_from(sorted(PRESETS)), seed=st.integers(0, 2**31))
def test_a_cell_is_one_component_inside_the_volume_and_crosses_slice_32(preset: str, seed: int) -> None:
    cell = simulate_shape(preset, seed)
    assert cell.obj_ZYX.shape == (SIDE, SIDE, SIDE)
    assert scipy.ndimage.label(cell.obj_ZYX)[1] == 1
    assert cell.mask_YX.sum() > 60
    inner = cell.obj_ZYX[1:-1, 1:-1, 1:-1]
    assert inner.sum() == cell.obj_ZYX.sum()
    assert (cell.image_YX.dtype, cell.image_YX.shape) == (np.uint8, (SIDE, SIDE))


def test_a_seed_determines_the_cell() -> None:
    one, again, other = simulate_shape("HeLa", 4), simulate_shape("HeLa", 4), simulate_shape("HeLa", 5)
    assert np.array_equal(one.obj_ZYX, again.obj_ZYX)
    assert np.array_equal(one.image_YX, again.image_YX)
    assert not np.array_equal(one.obj_ZYX, other.obj_ZYX)
    assert one.name == "HeLa_000004"


def test_the_imaged_slice_is_in_the_lower_half_of_the_cell(cells: list[SimulatedShape]) -> None:
    for cell in cells:
        levels = np.flatnonzero(cell.obj_ZYX.any((1, 2)))
        assert levels[0] <= SLICE <= levels[-1]
        assert 0.1 < (SLICE - levels[0] + 0.5) / len(levels) < 0.65
        assert cell.spacing_um > 0.1


def test_the_image_is_bright_inside_the_cell_and_dark_far_from_it(cells: list[SimulatedShape]) -> None:
    for cell in cells:
        far = ~scipy.ndimage.binary_dilation(cell.mask_YX, iterations=6)
        assert cell.image_YX[cell.mask_YX].mean() > 3 * cell.image_YX[far].mean()
        assert (cell.image_YX == 255).mean() < 0.02


def test_the_image_explains_more_of_the_height_than_the_area_does(cells: list[SimulatedShape]) -> None:
    height = heights(cells)
    area = np.array([c.mask_YX.sum() for c in cells], float)
    inside = [c.image_YX[c.mask_YX].astype(float) for c in cells]
    light, spread = np.array([v.mean() for v in inside]), np.array([v.std() for v in inside])

    def explained(*columns: np.ndarray) -> float:
        matrix = np.stack([np.ones_like(height), *columns], axis=1)
        rest = height - matrix @ np.linalg.lstsq(matrix, height, rcond=None)[0]
        return 1 - rest.var() / height.var()

    shape = (area, np.sqrt(area), area**2)
    assert explained(*shape) < 0.75
    assert explained(*shape, light, spread, light * area) > explained(*shape) + 0.04


def test_presets_differ_in_height_like_their_cell_lines(cells: list[SimulatedShape]) -> None:
    flatness = {p: np.median(heights([c for c in cells if c.preset == p])) for p in PRESETS}
    assert flatness["RAW264.7"] > flatness["HeLa"] > flatness["A549"]
    assert flatness["HeLa"] > flatness["NIH3T3"]


def test_an_unknown_preset_and_a_negative_seed_are_refused() -> None:
    with pytest.raises(InputError, match="preset 'HeLo': no such cell line"):
        simulate_shape("HeLo", 0)
    with pytest.raises(InputError, match="seed -1"):
        simulate_shape("HeLa", -1)


def test_a_cell_is_simulated_in_a_quarter_of_a_second() -> None:
    begin = time.process_time()
    for seed in range(5):
        simulate_shape("MDA-MB-231", seed)
    assert (time.process_time() - begin) / 5 < 0.25  # 30 ms on a quiet core
