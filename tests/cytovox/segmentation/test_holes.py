"""Holes that are closed in 3D, filled at once or slab by slab."""

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.segmentation.holes import MAX_HOLE_UM3, closed_holes, fill_cells, fill_holes

CUBES = (1.0, 1.0, 1.0)


def by_slabs(mask, depth, most=np.inf):
    parts = [mask[z : z + depth] for z in range(0, len(mask), depth)]
    holes = closed_holes(lambda: iter(parts), most)
    return np.concatenate([part if hole is None else part | hole for part, hole in zip(parts, holes, strict=True)])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.9), st.integers(1, 12))
def test_any_mask_is_filled_as_scipy_fills_it_whatever_the_slabs(seed, share, depth):
    mask = np.random.default_rng(seed).random((12, 9, 10)) < share
    filled = ndi.binary_fill_holes(mask)
    assert (fill_holes(mask, CUBES, np.inf) == filled).all()
    assert (by_slabs(mask, depth) == filled).all()


def hollow(inner):
    z, y, x = np.mgrid[:31, :31, :31] - 15
    radius = np.sqrt(z**2 + y**2 + x**2)
    return (radius <= 13) & (radius > inner)


def test_a_hole_of_a_cell_is_filled_and_a_lumen_is_not():
    assert (fill_holes(hollow(4), CUBES) == ndi.binary_fill_holes(hollow(4))).all()
    assert fill_holes(hollow(4), CUBES).sum() > hollow(4).sum()
    lumen = hollow(8)
    size = ndi.binary_fill_holes(lumen).sum() - lumen.sum()
    assert size > MAX_HOLE_UM3
    assert (fill_holes(lumen, CUBES) == lumen).all()
    # the limit is a volume: with smaller voxels the same lumen is a small hole
    assert fill_holes(lumen, (0.5, 0.5, 0.5)).sum() == lumen.sum() + size
    assert fill_holes(lumen, CUBES, size).sum() == lumen.sum() + size
    assert (fill_holes(lumen, CUBES, size - 1) == lumen).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_open_to_the_border_or_through_a_channel_is_no_hole(axis):
    cut = np.moveaxis(np.moveaxis(hollow(4), axis, 0)[15:], 0, axis)
    assert (fill_holes(cut, CUBES) == cut).all()
    pierced = np.moveaxis(hollow(4), axis, 0).copy()
    pierced[15:, 15, 15] = False
    assert (fill_holes(pierced, CUBES) == pierced).all()


def test_empty_and_full_masks_stay_as_they_are():
    for mask in (np.zeros((4, 5, 6), bool), np.ones((4, 5, 6), bool)):
        assert (fill_holes(mask, CUBES) == mask).all()
        assert (by_slabs(mask, 1) == mask).all()


def test_each_cell_is_filled_and_what_lies_between_cells_is_not():
    cells = np.zeros((31, 31, 70), np.uint16)
    cells[..., :31][hollow(6)] = 3
    cells[..., 35:66][hollow(3)] = 7
    filled = fill_cells(cells)
    assert filled.dtype == np.uint16
    assert (filled[..., :31] == 3 * ndi.binary_fill_holes(cells[..., :31] == 3)).all()
    assert (filled[..., 35:66] == 7 * ndi.binary_fill_holes(cells[..., 35:66] == 7)).all()
    # a cell in a cell keeps its place, and the gap around it, too
    nested = cells.copy()
    nested[13:18, 13:18, 13:18] = 5
    assert (fill_cells(nested)[..., :31] == nested[..., :31]).all()
    # a gap that two cells enclose together belongs to neither
    both = np.where(hollow(4), np.where(np.arange(31) < 15, 1, 2), 0)
    assert (fill_cells(both) == both).all()
