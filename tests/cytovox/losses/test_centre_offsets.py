"""Loss of the centre offsets, on all voxels of small patches and on samples of large ones."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from cytovox.losses.centre_offsets import CentreOffsetLossConfig, _nucleus_of, _sample_voxels

SHAPE = (6, 7, 9)
SPACING = torch.tensor([0.5, 0.4, 0.3])
#: Labels out of order, and one (4) that no voxel has.
NUCLEI = torch.tensor([[7.0, 1.0, 1.0, 0.5], [2.0, 1.2, 0.8, 2.0], [4.0, 9.0, 9.0, 9.0]])


def patch() -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets, and labels 2, 7 and 9, of which 9 has no nucleus."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.tensor([0, 2, 7, 9])[torch.randint(4, SHAPE, generator=generator)]
    return torch.randn(3, *SHAPE, generator=generator), cells


def voxel_by_voxel(offsets: torch.Tensor, cells: torch.Tensor) -> tuple[float, float]:
    """Return the loss and the fraction of right assignments by their definitions."""
    losses, right = [], []
    for z, y, x in torch.nonzero((cells == 2) | (cells == 7)).tolist():
        end = torch.tensor([z, y, x]) * SPACING + offsets[:, z, y, x]
        distance = (end - NUCLEI[:, 1:]).norm(dim=1)
        own = NUCLEI[:, 0].tolist().index(int(cells[z, y, x]))
        losses.append(cross_entropy(-distance[None] / 2.0, torch.tensor([own])) + 0.1 * distance[own])
        right.append(float(distance.argmin() == own))
    return float(torch.stack(losses).mean()), sum(right) / len(right)


@pytest.mark.parametrize("voxels", [30_000, 300])
def test_where_voxels_are_few_all_of_them_count_once(voxels: int) -> None:
    offsets, cells = patch()
    known = int(((cells == 2) | (cells == 7)).sum())
    assert known < 300 < cells.numel()  # the second limit lies between the voxels of cells and those of the patch
    loss, right = CentreOffsetLossConfig(voxels=voxels).build()(offsets, cells, NUCLEI, SPACING)
    expected = voxel_by_voxel(offsets, cells)
    assert float(loss) == pytest.approx(expected[0], rel=1e-5)
    assert float(right) == pytest.approx(expected[1], rel=1e-6)


def test_a_draw_of_many_is_unbiased_and_takes_no_voxel_without_a_nucleus() -> None:
    known = torch.rand(5000, generator=torch.Generator().manual_seed(1)) < 0.3
    taken = torch.zeros(5000)
    torch.manual_seed(2)
    for _ in range(400):
        where, used = _sample_voxels(known, 200)
        assert used.all()
        assert known[where].all()
        taken.index_add_(0, where, torch.ones(200))
    expected = 400 * 200 / int(known.sum())
    assert not taken[~known].any()
    # binomial, 1500 voxels: five deviations
    assert (taken[known] - expected).abs().max() < 5 * expected**0.5
    assert taken[known].mean() == pytest.approx(expected)


def test_a_large_patch_has_the_loss_of_all_its_voxels_in_the_mean() -> None:
    offsets, cells = patch()
    expected, share = voxel_by_voxel(offsets, cells)
    loss = CentreOffsetLossConfig(voxels=40).build()
    torch.manual_seed(3)
    found = torch.tensor([loss(offsets, cells, NUCLEI, SPACING) for _ in range(400)])
    assert float(found[:, 0].mean()) == pytest.approx(expected, rel=0.01)
    assert float(found[:, 1].mean()) == pytest.approx(share, abs=0.02)


def test_labels_find_their_nuclei_whatever_their_order() -> None:
    own, known = _nucleus_of(torch.tensor([0, 2, 7, 9, 4, 3]), torch.tensor([7, 2, 4]))
    assert known.tolist() == [False, True, True, False, True, False]
    assert own[known].tolist() == [1, 0, 2]


@pytest.mark.parametrize("nuclei", [NUCLEI[:0], NUCLEI[2:]])
@pytest.mark.parametrize("voxels", [10, 30_000])
def test_without_a_nucleus_the_loss_is_0_with_a_gradient_of_0_and_the_share_is_nan(
    nuclei: torch.Tensor, voxels: int
) -> None:
    offsets, cells = patch()
    offsets.requires_grad_()
    loss, right = CentreOffsetLossConfig(voxels=voxels).build()(offsets, cells, nuclei, SPACING)
    loss.backward()
    assert float(loss) == 0
    assert right.isnan()
    assert offsets.grad is not None
    assert not offsets.grad.any()
