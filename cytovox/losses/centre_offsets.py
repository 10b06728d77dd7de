"""Loss of centre offsets: near the right centre, and nearer to it than to any other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy


@dataclass
class CentreOffsetLossConfig:
    """Options of `CentreOffsetLoss`."""

    softness_um: float = 2.0
    """How much nearer the right centre must be: distances are divided by this before the softmax."""
    distance_weight: float = 0.1
    """Weight of the mean distance (per um) beside the cross-entropy."""
    voxels: int = 30_000
    """Voxels of cells that are looked at in a patch: all where there are at most so many, else so many at random."""

    def errors(self) -> list[str]:
        """What cannot be."""
        errors = [] if self.softness_um > 0 else [f"softness_um: expected a length above 0, got {self.softness_um}"]
        if not self.distance_weight >= 0:
            errors.append(f"distance_weight: expected 0 or more, got {self.distance_weight}")
        return errors + ([] if self.voxels >= 1 else [f"voxels: expected 1 or more, got {self.voxels}"])

    def build(self) -> CentreOffsetLoss:
        """The loss."""
        return CentreOffsetLoss(self)


class CentreOffsetLoss(nn.Module):
    """Mean distance of the offsets' end points from the right centres, and cross-entropy of the choice by distance.

    Of voxel v with offset o(v) and centres c_k, the probability of nucleus k is softmax(-|v + o(v) - c_k| / softness)
    (after Neven et al. 2019, arXiv 1906.11109, with one softness for all). Voxels of cells whose nucleus is not known
    do not count. All shapes are known beforehand, so that nothing is read back from a GPU.
    """

    def __init__(self, config: CentreOffsetLossConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, offsets_um_3ZYX: torch.Tensor, cells_ZYX: torch.Tensor, nuclei_N4: torch.Tensor, spacing_um: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of one patch, and the fraction of its voxels that are assigned to the right nucleus.

        Parameters
        ----------
        offsets_um_3ZYX : tensor, (3, Z, Y, X)
            z, y, x in µm.
        cells_ZYX : int64 tensor, (Z, Y, X)
            Labels.
        nuclei_N4 : tensor, (N, 4)
            Label, then the centre in µm from the first voxel's centre.
        spacing_um : tensor, (3,)
            Size of a voxel.

        Returns
        -------
        loss, right : scalar tensors
            0 and nan for a patch without a cell that has a nucleus.
        """
        if not len(nuclei_N4):
            return 0 * offsets_um_3ZYX.float().sum(), offsets_um_3ZYX.new_full((), torch.nan)
        own_V, known_V = _nucleus_of(cells_ZYX.flatten(), nuclei_N4[:, 0].long())
        where_V, used_V = _drawn(known_V, self.config.voxels)
        own_V, used_V = own_V[where_V], used_V.float()
        places_V3 = torch.stack(_unravelled(where_V, cells_ZYX.shape), dim=1)
        offsets_V3 = places_V3 * spacing_um + offsets_um_3ZYX.flatten(1)[:, where_V].float().T
        distance_VN = torch.linalg.vector_norm(offsets_V3[:, None] - nuclei_N4[None, :, 1:], dim=2)
        loss_V = cross_entropy(-distance_VN / self.config.softness_um, own_V, reduction="none")
        loss_V = loss_V + self.config.distance_weight * distance_VN.gather(1, own_V[:, None])[:, 0]
        right_V = (distance_VN.argmin(dim=1) == own_V).float()
        count = used_V.sum()
        # 0 / 0 is the nan of a patch without any
        return (loss_V * used_V).sum() / count.clamp(min=1), ((right_V * used_V).sum() / count).detach()


def _nucleus_of(labels_V: torch.Tensor, nuclei_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number of each voxel's nucleus, int64 (V,), and whether it has one, bool (V,); any number where it has none."""
    sorted_N, order_N = nuclei_N.sort()
    place_V = torch.searchsorted(sorted_N, labels_V).clamp(max=len(nuclei_N) - 1)
    return order_N[place_V], sorted_N[place_V] == labels_V


def _drawn(known_V: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which voxels are looked at, int64 (W,), and which of them count, bool (W,); W does not depend on the values.

    All that are known where they are at most `most`. Else the known ones are cut into as many runs of equal length, and
    one of each run is drawn: evenly over the patch, each with the same chance.
    """
    if len(known_V) <= most:
        return torch.arange(len(known_V), device=known_V.device), known_V
    rank_V = known_V.cumsum(0)
    count, runs_W = rank_V[-1], torch.arange(most, device=known_V.device)
    chance_W = torch.rand(most, device=known_V.device).double()
    drawn_W = ((runs_W + chance_W) * count / most).long().minimum(count - 1)
    chosen_W = torch.where(count > most, drawn_W, runs_W)
    where_W = torch.searchsorted(rank_V, chosen_W + 1).clamp(max=len(known_V) - 1)
    return where_W, chosen_W.minimum(runs_W) < count


def _unravelled(index_V: torch.Tensor, shape: torch.Size) -> list[torch.Tensor]:
    """Coordinates z, y, x of flat indices."""
    _, height, width = shape
    return [index_V // (height * width), index_V // width % height, index_V % width]
