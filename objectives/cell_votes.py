"""What votes for nuclei are taught: to come near the right centre, and nearer to it than to any other."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy


@dataclass
class VoteLossConfig:
    """Options of `VoteLoss`."""

    softness_um: float = 2.0
    """How much nearer the right centre must be: distances are divided by this before the softmax."""
    distance_weight: float = 0.1
    """Weight of the mean distance (per um) beside the cross-entropy."""
    voxels: int = 30_000
    """Voxels of cells that are looked at in a patch, drawn at random."""

    def faults(self) -> list[str]:
        """What cannot be."""
        faults = [] if self.softness_um > 0 else [f"softness_um: expected a length above 0, got {self.softness_um}"]
        if not self.distance_weight >= 0:
            faults.append(f"distance_weight: expected 0 or more, got {self.distance_weight}")
        return faults + ([] if self.voxels >= 1 else [f"voxels: expected 1 or more, got {self.voxels}"])

    def build(self) -> "VoteLoss":
        """The loss."""
        return VoteLoss(self)


class VoteLoss(nn.Module):
    """Mean distance of votes from their nuclei's centres, and the cross-entropy of choosing by distance.

    Of voxel v with offset o(v) and centres c_k, the probability of nucleus k is softmax(-|v + o(v) - c_k| / softness)
    (after Neven et al. 2019, arXiv 1906.11109, with one softness for all). Voxels of cells whose nucleus is not known
    are not taught.
    """

    def __init__(self, config: VoteLossConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, offsets_um_3ZYX: torch.Tensor, cells_ZYX: torch.Tensor, nuclei_N4: torch.Tensor, spacing_um: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of one patch, and the share of its voxels whose vote is right.

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
        places = torch.nonzero(torch.isin(cells_ZYX, nuclei_N4[:, 0].long()))
        if not len(places):
            return 0 * offsets_um_3ZYX.float().sum(), offsets_um_3ZYX.new_full((), torch.nan)
        if len(places) > self.config.voxels:
            places = places[torch.randint(len(places), (self.config.voxels,), device=places.device)]
        z, y, x = places.unbind(1)
        votes_V3 = places * spacing_um + offsets_um_3ZYX[:, z, y, x].float().T
        distance_VN = torch.linalg.vector_norm(votes_V3[:, None] - nuclei_N4[None, :, 1:], dim=2)
        own_V = torch.argmax((cells_ZYX[z, y, x][:, None] == nuclei_N4[None, :, 0]).byte(), dim=1)
        loss = cross_entropy(-distance_VN / self.config.softness_um, own_V)
        loss = loss + self.config.distance_weight * distance_VN.gather(1, own_V[:, None]).mean()
        return loss, (distance_VN.argmin(dim=1) == own_V).float().mean().detach()
