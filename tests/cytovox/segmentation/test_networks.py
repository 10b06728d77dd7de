"""Both methods of segmenting cells with a network, with networks whose output is known."""

import numpy as np
import pytest
import scipy.ndimage as ndi
import torch
from torch import nn

from cytovox.inference.tiling import SlidingWindow
from cytovox.preprocess.resampling import ResampleTo
from cytovox.segmentation.centre_offsets import UNIT_UM
from cytovox.segmentation.field import CellField, SeedRule, WatershedCells, resize_labels
from cytovox.segmentation.networks import CentreOffsetCells, ConditionedCells, conditioned

SHAPE, SPACING = (16, 48, 64), (0.5, 0.5, 0.5)


def true_cells():
    """Three slabs that touch, each with a nucleus; and a fourth without one."""
    cells = np.zeros(SHAPE, np.int32)
    for k, first in enumerate((2, 18, 34, 50)):
        cells[2:14, 4:44, first : first + 16 if k < 3 else 62] = k + 1
    nuclei = np.zeros_like(cells)
    for label, x in ((1, 10), (2, 26), (3, 42)):
        nuclei[5:11, 18:30, x - 4 : x + 4] = label
    return cells, nuclei


CELLS, NUCLEI = true_cells()


class Oracle(nn.Module):
    """Offsets to the true centres, whichever window it is shown: it reads where it is from a map in the image."""

    def __init__(self, own: dict[int, tuple[float, float, float]]) -> None:
        super().__init__()
        self.own = own

    def forward(self, x):
        label = torch.round(x[:, 0] * 10).long()  # the RI channel holds the label
        places = torch.stack([torch.round(x[:, 0] * 0), x[:, 1] * 0, x[:, 2] * 0], 1)
        z, y, xx = torch.meshgrid(*(torch.arange(n) * 0.5 for n in x.shape[2:]), indexing="ij")
        for k, centre in self.own.items():
            for axis, (grid, c) in enumerate(zip((z, y, xx), centre, strict=True)):
                places[:, axis] += torch.where(label == k, (c - grid) / UNIT_UM, torch.zeros(()))
        return places


def field(**more):
    # an index that the normalisation maps to label / 10
    ri = (1.337 + (1.390 - 1.337) * CELLS / 10).astype(np.float32)
    return CellField(CELLS > 0, NUCLEI > 0, SPACING, ri, **more)


CENTRES = {1: (3.75, 11.75, 4.75), 2: (3.75, 11.75, 12.75), 3: (3.75, 11.75, 20.75), 4: (3.75, 11.75, 60.0)}
WHOLE = SlidingWindow(window=SHAPE, stride=SHAPE, pad_yx=(0, 0), skip_below=None, weight="constant")


def by_offsets(**more):
    return CentreOffsetCells(Oracle(CENTRES), ResampleTo(spacing_um=SPACING), tiling=WHOLE, **more)


def relabelled(found, truth):
    """Found labels by the truth's, through the nuclei."""
    names = {int(found[k == NUCLEI][0]): k for k in (1, 2, 3)}
    return np.vectorize(lambda label: names.get(int(label), 0))(found)


def test_perfect_offsets_give_the_true_cells_and_leave_the_one_without_a_nucleus():
    found = by_offsets()(field())
    assert np.array_equal(relabelled(found.cells_ZYX, CELLS), np.where(CELLS == 4, 0, CELLS))
    assert np.array_equal(found.seeds_ZYX > 0, NUCLEI > 0)
    for k in np.unique(found.seeds_ZYX)[1:]:
        assert set(np.unique(found.cells_ZYX[found.seeds_ZYX == k])) == {k}


def test_given_seeds_keep_their_labels():
    seeds = np.where(NUCLEI > 0, NUCLEI * 7, 0)
    found = by_offsets()(field(seeds_ZYX=seeds))
    assert set(np.unique(found.cells_ZYX)) == {0, 7, 14, 21}


def test_a_finer_grid_than_the_networks_is_followed_to_the_masks_edge():
    def fine(a):
        return a.repeat(2, 0).repeat(2, 1).repeat(2, 2)

    ri = (1.337 + (1.390 - 1.337) * fine(CELLS) / 10).astype(np.float32)
    given = CellField(fine(CELLS > 0), fine(NUCLEI > 0), (0.25, 0.25, 0.25), ri, fine(NUCLEI))
    found = CentreOffsetCells(Oracle(CENTRES), ResampleTo(spacing_um=SPACING), tiling=WHOLE)(given)
    truth = np.where(fine(CELLS) == 4, 0, fine(CELLS))
    # where the oracle reads a label between two of them, it is wrong: two fine voxels on either side of every border
    far = ndi.minimum_filter(fine(CELLS), 7) == ndi.maximum_filter(fine(CELLS), 7)
    assert np.array_equal(found.cells_ZYX[far], truth[far])
    assert np.mean(found.cells_ZYX[truth > 0] > 0) > 0.98
    assert not found.cells_ZYX[fine(CELLS) == 0].any()


def test_nuclei_that_touch_are_two_cells_by_their_offsets_and_one_without():
    joined = np.where(NUCLEI > 0, 1, 0)
    joined[7:9, 22:26, 14:22] = 1  # a bridge between the first two
    given = CellField(CELLS > 0, joined > 0, SPACING, field().ri_ZYX)
    assert len(np.unique(by_offsets()(given).cells_ZYX)) == 4
    assert len(np.unique(by_offsets(split=False)(given).cells_ZYX)) == 3


def test_mirror_images_agree_on_a_network_that_sees_no_side():
    class Nothing(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x)

    plain = CentreOffsetCells(Nothing(), ResampleTo(spacing_um=SPACING), tiling=WHOLE)
    mirrored = CentreOffsetCells(
        Nothing(), ResampleTo(spacing_um=SPACING), tiling=WHOLE, flips=((), (1,), (2,), (0, 1, 2))
    )
    a, _ = plain.offsets_um(field())
    b, _ = mirrored.offsets_um(field())
    np.testing.assert_allclose(a, b, atol=1e-5)


class Nearer(nn.Module):
    """The chosen nucleus' cell is what lies nearer to it than to any other, inside the membrane."""

    def forward(self, x):
        out = torch.full((len(x), 1, *x.shape[2:]), -9.0)
        for k, (_, membrane, positive, negative) in enumerate(x.numpy()):
            to_own = ndi.distance_transform_edt(positive < 0.5)
            to_others = ndi.distance_transform_edt(negative < 0.5) if (negative >= 0.5).any() else np.inf
            out[k, 0] = torch.from_numpy(np.where((to_own <= to_others) & (membrane >= 0.5), 9.0, -9.0))
        return out


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_nucleus_by_nucleus_gives_the_nearest_nucleus_whatever_the_batch(batch):
    finder = ConditionedCells(Nearer(), ResampleTo(grid=SHAPE), batch_size=batch)
    found = finder(field(seeds_ZYX=NUCLEI)).cells_ZYX
    assert np.mean((found == CELLS)[CELLS != 4]) > 0.99
    assert set(np.unique(found[CELLS == 0])) == {0}


@pytest.mark.parametrize(("probability", "claimed"), [(0.3, False), (0.49, False), (0.51, True), (0.7, True)])
def test_a_voxel_is_background_where_no_nucleus_reaches_one_half(probability, claimed):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 1, *x.shape[2:]), float(np.log(probability / (1 - probability))))

    found = ConditionedCells(Constant(), ResampleTo(grid=SHAPE))(field(seeds_ZYX=NUCLEI)).cells_ZYX
    assert (found > 0).all() == (found > 0).any() == claimed


@pytest.mark.parametrize(("probability", "inside"), [(0.49, False), (0.5, True), (0.51, True)])
def test_a_voxel_is_membrane_from_one_half(probability, inside):
    given = CellField(np.full(SHAPE, probability, np.float32), (NUCLEI > 0).astype(np.float32), SPACING)
    assert given.inside("membrane").any() == given.inside("membrane").all() == inside


class Falls(nn.Module):
    """A probability above one half everywhere, the higher the nearer to the chosen nucleus along x."""

    def forward(self, x):
        place = torch.arange(x.shape[-1], dtype=torch.float32, device=x.device)
        weights = x[:, 2].sum((1, 2))
        centre = (weights * place).sum(1) / weights.sum(1)
        logits = 5 - 0.05 * (place - centre[:, None]).abs()
        return logits[:, None, None, None].expand(len(x), 1, *x.shape[2:])


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (3, 2, 1)])
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_each_voxel_goes_to_the_highest_probability_whatever_the_order_of_nuclei(order, batch):
    seeds = np.zeros(SHAPE, np.int32)
    for label, x in zip(order, (10, 30, 50), strict=True):
        seeds[5:11, 18:30, x - 2 : x + 3] = label
    given = CellField(np.ones(SHAPE, bool), seeds > 0, SPACING, None, seeds)
    found = ConditionedCells(Falls(), ResampleTo(grid=SHAPE), batch_size=batch)(given).cells_ZYX
    assert [int(found[0, 0, x]) for x in (0, 19, 21, 39, 41, 63)] == [order[k] for k in (0, 0, 1, 1, 2, 2)]


def test_without_a_nucleus_there_is_no_cell():
    empty = CellField(CELLS > 0, np.zeros(SHAPE, bool), SPACING, field().ri_ZYX)
    for finder in (by_offsets(), ConditionedCells(Nearer(), ResampleTo(grid=SHAPE)), WatershedCells()):
        found = finder(empty)
        assert not found.cells_ZYX.any()
        assert not found.seeds_ZYX.any()


def test_the_paper_shows_only_the_central_slices():
    finder = ConditionedCells(Nearer(), ResampleTo(grid=(8, 48, 64)), z="center")
    found = finder(field(seeds_ZYX=NUCLEI)).cells_ZYX
    assert not found[:4].any()
    assert not found[12:].any()
    assert found[4:12].any()


def test_maps_hold_the_probabilities_of_this_nucleus_and_of_all_others():
    images = torch.rand(3, *SHAPE)
    shown = conditioned(images, torch.from_numpy(NUCLEI), 2)
    assert torch.equal(shown[2][NUCLEI == 2], images[2][NUCLEI == 2])
    assert not shown[2][NUCLEI != 2].any()
    assert torch.equal(shown[3][(NUCLEI > 0) & (NUCLEI != 2)], images[2][(NUCLEI > 0) & (NUCLEI != 2)])


def test_small_pieces_of_a_nucleus_mask_are_no_seeds_by_volume_or_by_the_papers_voxels():
    nucleus = NUCLEI > 0
    nucleus[0, 0, 0] = True
    given = CellField(CELLS > 0, nucleus, SPACING)
    assert SeedRule(min_volume_um3=0).seeds(given).max() == 4
    assert SeedRule().seeds(given).max() == 3
    assert SeedRule(min_volume_um3=0, min_voxels=200).seeds(given).max() == 3


def test_labels_take_the_voxel_they_lie_in():
    labels = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    assert np.array_equal(resize_labels(resize_labels(labels, (6, 4, 2)), (2, 2, 2)), labels)
    assert resize_labels(labels, (2, 2, 2)) is labels
