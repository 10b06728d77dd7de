"""Loss of the centre offsets that assign each voxel of a cell to a nucleus."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from cytovox.options import option_errors


@dataclass
class CentreOffsetLossConfig:
    """Options of `CentreOffsetLoss`."""

    softness_um: float = 2.0
    """Length that distances are divided by before the softmax; a smaller one separates neighbouring nuclei more."""
    distance_weight: float = 0.1
    """Weight per um of the mean distance, which is added to the cross-entropy."""
    voxels: int = 30_000
    """Largest number of cell voxels that the loss of a patch uses; a random sample where a patch has more."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        return option_errors(
            self,
            ("softness_um", self.softness_um > 0, "a length above 0"),
            ("distance_weight", self.distance_weight >= 0, "0 or more"),
            ("voxels", self.voxels >= 1, "1 or more"),
        )

    def build(self) -> CentreOffsetLoss:
        """Return the loss."""
        return CentreOffsetLoss(self)


class CentreOffsetLoss(nn.Module):
    """Distance of the offsets' end points from the right centres, and cross-entropy over all centres.

    A voxel v with offset o(v) belongs to nucleus k, with centre c_k, with probability
    softmax(-|v + o(v) - c_k| / softness) (after Neven et al. 2019, arXiv 1906.11109, with one softness for all nuclei).
    Voxels of cells without a known nucleus do not count. No tensor's size depends on values, so that the host never
    waits for a GPU.
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
        where_V, used_V = _sample_voxels(known_V, self.config.voxels)
        own_V, used_V = own_V[where_V], used_V.float()
        _, height, width = cells_ZYX.shape
        # not torch.unravel_index, which copies the shape to the device
        place_V3 = torch.stack([where_V // (height * width), where_V // width % height, where_V % width], dim=1)
        end_V3 = place_V3 * spacing_um + offsets_um_3ZYX.flatten(1)[:, where_V].float().T
        distance_VN = torch.linalg.vector_norm(end_V3[:, None] - nuclei_N4[None, :, 1:], dim=2)
        loss_V = cross_entropy(-distance_VN / self.config.softness_um, own_V, reduction="none")
        loss_V = loss_V + self.config.distance_weight * distance_VN.gather(1, own_V[:, None])[:, 0]
        right_V = (distance_VN.argmin(dim=1) == own_V).float()
        count = used_V.sum()
        # the fraction of a patch without such voxels is 0 / 0 = nan
        return (loss_V * used_V).sum() / count.clamp(min=1), ((right_V * used_V).sum() / count).detach()


def _nucleus_of(labels_V: torch.Tensor, nuclei_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the number of each voxel's nucleus, int64 (V,), and whether it has one, bool (V,).

    The number of a voxel without a nucleus is arbitrary.
    """
    sorted_N, order_N = nuclei_N.sort()
    place_V = torch.searchsorted(sorted_N, labels_V).clamp(max=len(nuclei_N) - 1)
    return order_N[place_V], sorted_N[place_V] == labels_V


def _sample_voxels(known_V: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return indices of voxels, int64 (W,), and whether each of them counts, bool (W,).

    W does not depend on the values. All known voxels are taken where there are at most `most`. Otherwise, the known
    voxels are divided into `most` runs of equal length and one voxel is drawn from each run, so that the sample is
    spread over the patch and every voxel has the same probability.
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
