"""Losses of SHAPR: Dice + cross-entropy, and an adversarial loss in the second stage of the training.

The published code sums its Dice over the last axis of its tensors, which is the single channel, so that it is computed
for each voxel. Here the Dice is that of the whole shape, as the paper describes it. The adversarial loss has a tenth of
the weight of the shape's error, as published.

References
----------
Waibel et al., SHAPR predicts 3D cell shapes from 2D microscopic images, iScience 25:105298, 2022.
Milletari et al., V-Net, 3DV 2016, arXiv 1606.04797 (Dice with squares in the denominator).
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from cytovox.options import option_errors, raise_errors


class SHAPRLoss:
    """Losses of both training stages.

    Parameters
    ----------
    config : SHAPRLossConfig
        Valid options.
    """

    def __init__(self, config: "SHAPRLossConfig") -> None:
        self.config = config

    def shape(self, logits_BCZYX: torch.Tensor, obj_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return the loss of the first stage: Dice + binary cross-entropy.

        Parameters
        ----------
        logits_BCZYX, obj_BCZYX : float tensor, (B, 1, Z, Y, X)
            The prediction before the sigmoid, and the true shape, 0 or 1.
        """
        logits, truth = logits_BCZYX.float(), obj_BCZYX.float()
        return _dice(logits, truth) + F.binary_cross_entropy_with_logits(logits, truth)

    def generator(
        self, logits_BCZYX: torch.Tensor, obj_BCZYX: torch.Tensor, verdict_B1: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the generator's loss in the second stage: shape error and adversarial loss.

        Parameters
        ----------
        logits_BCZYX, obj_BCZYX : float tensor
            See `shape`.
        verdict_B1 : float tensor, (B, 1)
            The discriminator's logits of the predicted shapes, with their gradient.

        Returns
        -------
        loss : scalar tensor
        parts : dict of str to scalar tensor
            Terms of the loss, without gradient.
        """
        shape, fooled = self.shape(logits_BCZYX, obj_BCZYX), _cross_entropy(verdict_B1, 1.0)
        loss = self.config.shape_weight * shape + self.config.adversarial_weight * fooled
        return loss, {"shape": shape.detach(), "adversarial": fooled.detach()}

    def discriminator(self, true_B1: torch.Tensor, predicted_B1: torch.Tensor) -> torch.Tensor:
        """Return the discriminator's loss in the second stage.

        Parameters
        ----------
        true_B1, predicted_B1 : float tensor, (B, 1)
            The discriminator's logits of true shapes, and of predicted shapes that were detached.
        """
        return (_cross_entropy(true_B1, 1.0) + _cross_entropy(predicted_B1, 0.0)) / 2


def _dice(logits_BCZYX: torch.Tensor, truth_BCZYX: torch.Tensor) -> torch.Tensor:
    """Return the batch mean of the soft Dice error with squares, smoothed by one voxel."""
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
    """Weight of Dice + cross-entropy."""
    adversarial_weight: float = 1.0
    """Weight of the adversarial loss."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        return option_errors(
            self,
            ("shape_weight", 0 < self.shape_weight < float("inf"), "more than 0"),
            ("adversarial_weight", 0 < self.adversarial_weight < float("inf"), "more than 0"),
        )

    def build(self) -> SHAPRLoss:
        """Return the losses; raise `InputError` if an option is out of range."""
        raise_errors("shapr_loss", self.errors())
        return SHAPRLoss(self)
