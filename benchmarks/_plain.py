"""The default network as one would write it with MONAI's and torch's parts: what `ResidualUNet` computes, unhurried."""

from __future__ import annotations

import copy

import torch
from torch import nn

from cytovox.networks.norms import InstanceNorm3d
from cytovox.networks.residual_unet import ResidualUNet


class PlainResidualUNet(nn.Module):
    """Same weights, same function: torch's instance norm, and the head on the full grid.

    Parameters
    ----------
    network : ResidualUNet
        Is copied.
    """

    def __init__(self, network: ResidualUNet) -> None:
        super().__init__()
        self.parts = copy.deepcopy(network)
        for module in list(self.parts.modules()):
            for name, child in module.named_children():
                if isinstance(child, InstanceNorm3d):
                    norm = nn.InstanceNorm3d(child.num_features, child.eps, affine=child.affine)
                    norm.load_state_dict(child.state_dict())
                    setattr(module, name, norm)

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Logits of the input's size."""
        features, skips = x_BCZYX, []
        for level in self.parts.encoder:
            features = level(features)
            skips.append(features)
        for up, level, skip in zip(self.parts.ups, self.parts.decoder, reversed(skips[:-1]), strict=True):
            features = level(torch.cat([up(features), skip], dim=1))
        top = self.parts.top(features)
        return self.parts.head(torch.cat([top, x_BCZYX.to(top.dtype)], dim=1))
