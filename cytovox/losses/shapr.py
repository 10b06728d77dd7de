"""What SHAPR is trained to minimise: Dice + cross-entropy, and in a second stage a discriminator's verdict beside it.

The published Dice is summed over the last axis of its tensors, which is the single channel: voxel by voxel. Here it is
that of a whole shape, which is what the paper names. The verdict weighs a tenth of the shape's error, as published.

References
----------
Waibel et al., SHAPR predicts 3D cell shapes from 2D microscopic images, iScience 25:105298, 2022.
Milletari et al., V-Net, 3DV 2016, arXiv 1606.04797 (Dice with squares below the fraction).
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from cytovox.errors import InputError


class SHAPRLoss:
    """The losses of both stages.

    Parameters
    ----------
    config : SHAPRLossConfig
        Valid options.
    """

    def __init__(self, config: "SHAPRLossConfig") -> None:
        self.config = config

    def shape(self, logits_BCZYX: torch.Tensor, obj_BCZYX: torch.Tensor) -> torch.Tensor:
        """First stage: Dice + binary cross-entropy.

        Parameters
        ----------
        logits_BCZYX, obj_BCZYX : float tensor, (B, 1, Z, Y, X)
            The prediction before the sigmoid, and the true shape, 0 or 1.
        """
        return _dice(logits_BCZYX.float(), obj_BCZYX.float()) + F.binary_cross_entropy_with_logits(
            logits_BCZYX.float(), obj_BCZYX.float()
        )

    def generator(
        self, logits_BCZYX: torch.Tensor, obj_BCZYX: torch.Tensor, verdict_B1: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Second stage: be right, and be taken for true.

        Parameters
        ----------
        logits_BCZYX, obj_BCZYX : float tensor
            See `shape`.
        verdict_B1 : float tensor, (B, 1)
            The discriminator's logits of the predicted shapes, with their gradient.

        Returns
        -------
        loss, parts by name
        """
        shape, fooled = self.shape(logits_BCZYX, obj_BCZYX), _cross_entropy(verdict_B1, 1.0)
        loss = self.config.shape_weight * shape + self.config.adversarial_weight * fooled
        return loss, {"shape": shape.detach(), "adversarial": fooled.detach()}

    def discriminator(self, true_B1: torch.Tensor, predicted_B1: torch.Tensor) -> torch.Tensor:
        """Second stage: tell true shapes from predicted ones. Logits of both; detach the predicted shapes before."""
        return (_cross_entropy(true_B1, 1.0) + _cross_entropy(predicted_B1, 0.0)) / 2


def _dice(logits_BCZYX: torch.Tensor, truth_BCZYX: torch.Tensor) -> torch.Tensor:
    """Soft Dice error with squares, a voxel added to both sides; the mean over the batch."""
    axes, probability = (2, 3, 4), torch.sigmoid(logits_BCZYX)
    overlap_BC = (probability * truth_BCZYX).sum(axes)
    sizes_BC = probability.square().sum(axes) + truth_BCZYX.square().sum(axes)
    return (1 - (2 * overlap_BC + 1) / (sizes_BC + 1)).mean()


def _cross_entropy(logits: torch.Tensor, truth: float) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, truth, dtype=torch.float32))


@dataclass
class SHAPRLossConfig:
    """Weights of SHAPR's second stage."""

    shape_weight: float = 10.0
    """Of Dice + cross-entropy, beside the discriminator's verdict."""
    adversarial_weight: float = 1.0
    """Of the discriminator's verdict."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        weights = {"shape_weight": self.shape_weight, "adversarial_weight": self.adversarial_weight}
        return [
            f"{name}: {value}: expected more than 0" for name, value in weights.items() if not 0 < value < float("inf")
        ]

    def build(self) -> SHAPRLoss:
        """The losses; `InputError` if an option is out of range."""
        if errors := self.errors():
            raise InputError(f"shapr_loss: {'; '.join(errors)}")
        return SHAPRLoss(self)
