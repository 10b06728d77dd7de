"""Losses of organelle segmentation: one value per organelle, from the samples in which it is annotated.

Choi et al. minimise Dice + binary cross-entropy for each organelle and add up the organelles. Annotators often mark one
organelle and leave out the others. An organelle without annotation contributes neither to the loss nor to the gradient.

References
----------
Choi et al. 2021, bioRxiv 2021.05.23.445351.
Milletari et al., V-Net, 3DV 2016, arXiv 1606.04797 (Dice).
Lin et al., Focal loss for dense object detection, ICCV 2017, arXiv 1708.02002.
Salehi et al., Tversky loss function, MLMI 2017, arXiv 1706.05721.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from monai.losses import FocalLoss
from torch import nn

from cytovox.options import entry_of, option_errors, raise_errors
from cytovox.organelles import UNDRAWN


def tversky_loss(
    probability_BCZYX: torch.Tensor,
    target_BCZYX: torch.Tensor,
    false_positives: float = 0.5,
    false_negatives: float = 0.5,
    smooth: float = 1.0,
    pool: bool = False,
) -> torch.Tensor:
    """Return 1 - (2 TP + s) / (2 TP + 2 a FP + 2 b FN + s), the Dice loss where a = b = 0.5.

    Parameters
    ----------
    probability_BCZYX, target_BCZYX : float tensor
        0 to 1. Voxels where both are 0 contribute nothing.
    false_positives, false_negatives : float
        The weights a and b.
    smooth : float
        s, in voxels. The loss of an empty prediction of an empty mask is 0 instead of 0 / 0.
    pool : bool
        Compute one overlap over the whole batch instead of one per sample.

    Returns
    -------
    float tensor, (B, C), or (1, C) if pooled
    """
    axes = (2, 3, 4)
    hit = (probability_BCZYX * target_BCZYX).sum(axes)
    predicted, true = probability_BCZYX.sum(axes), target_BCZYX.sum(axes)
    if pool:
        hit, predicted, true = (count.sum(0, keepdim=True) for count in (hit, predicted, true))
    wrong = false_positives * (predicted - hit) + false_negatives * (true - hit)
    return 1 - (2 * hit + smooth) / (2 * hit + 2 * wrong + smooth)


class SegmentationLoss(nn.Module):
    """Weighted sum of an overlap term and a voxel term for each organelle.

    Parameters
    ----------
    config : DiceBCEConfig, DiceFocalConfig or TverskyConfig
        Valid options.
    overlap_weight, voxel_weight : float
        Weights of the two terms.
    voxel : nn.Module
        Computes the loss of every voxel from (logits, target), in the same shape.
    false_positives, false_negatives : float
        See `tversky_loss`.
    """

    organelle_weights: torch.Tensor | None
    """Weights, float32 (C,); None where all are 1."""

    def __init__(
        self,
        config: "_Shared",
        overlap_weight: float,
        voxel_weight: float,
        voxel: nn.Module,
        false_positives: float = 0.5,
        false_negatives: float = 0.5,
    ) -> None:
        super().__init__()
        self.pool, self.smooth = config.batch, config.smooth
        weights = torch.tensor(list(config.organelle_weights), dtype=torch.float32)
        self.register_buffer("organelle_weights", weights if len(weights) else None, persistent=False)
        self.overlap_weight, self.voxel_weight, self.voxel = overlap_weight, voxel_weight, voxel
        self.false_positives, self.false_negatives = false_positives, false_negatives

    def forward(
        self, logits_BCZYX: torch.Tensor, target_BCZYX: torch.Tensor, labelled_BC: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of each organelle, computed in float32 also under autocast.

        Parameters
        ----------
        logits_BCZYX : float tensor
            The network's output, before the sigmoid.
        target_BCZYX : tensor, 0, 1 or `UNDRAWN`
            The masks. Voxels that are `UNDRAWN` (255) are left out. Values of organelles without annotation do not
            matter and may be NaN.
        labelled_BC : bool tensor
            False where sample b has no annotation of organelle c. A sample of which every voxel is `UNDRAWN` has none
            either.

        Returns
        -------
        float32 tensor, (C,)
            The mean over the labelled samples; 0, without gradient, where there is none. The sum is the paper's loss.
        """
        if logits_BCZYX.shape != target_BCZYX.shape or labelled_BC.shape != logits_BCZYX.shape[:2]:
            shapes = (tuple(tensor.shape) for tensor in (logits_BCZYX, target_BCZYX, labelled_BC))
            raise ValueError(
                "logits {}, target {}, labelled {}: expected (B, C, Z, Y, X) twice and (B, C)".format(*shapes)
            )
        with torch.autocast(logits_BCZYX.device.type, enabled=False):
            known = labelled_BC.bool()
            mask = known[:, :, None, None, None] & (target_BCZYX != UNDRAWN)
            known = known & mask.any(4).any(3).any(2)
            zero = torch.zeros((), device=logits_BCZYX.device)
            # torch.where instead of a product: 0 x NaN is NaN, also in the gradient
            logits, target = (torch.where(mask, one.float(), zero) for one in (logits_BCZYX, target_BCZYX))
            loss_C = zero
            if self.overlap_weight:
                overlap_BC = tversky_loss(
                    torch.sigmoid(logits) * mask, target, self.false_positives, self.false_negatives, self.smooth,
                    pool=self.pool,
                )  # fmt: skip
                counted_BC = known.any(0, keepdim=True) if self.pool else known
                loss_C = self.overlap_weight * _labelled_mean(overlap_BC, counted_BC)
            if self.voxel_weight:
                drawn_BC = mask.sum((2, 3, 4)).clamp(min=1)
                voxel_BC = (self.voxel(logits, target) * mask).sum((2, 3, 4)) / drawn_BC
                loss_C = loss_C + self.voxel_weight * _labelled_mean(voxel_BC, known)
            return loss_C if self.organelle_weights is None else loss_C * self.organelle_weights.to(loss_C.device)


def _labelled_mean(loss_BC: torch.Tensor, labelled_BC: torch.Tensor) -> torch.Tensor:
    """Return the mean over the labelled samples, 0 where there is none."""
    return (loss_BC * labelled_BC).sum(0) / labelled_BC.sum(0).clamp(min=1)


@dataclass
class _Shared:
    """Options of every loss."""

    organelle_weights: list[float] = field(default_factory=list)
    """Weight of each organelle's loss, in their order; empty: 1 for each."""
    batch: bool = False
    """One Dice over the whole batch instead of one per sample; steadier where many patches lack small organelles."""
    smooth: float = 1.0
    """Voxels added to numerator and denominator, so that the Dice of an organelle absent from a patch is defined."""

    def errors(self, organelles: int | None = None) -> list[str]:
        """Return what is wrong with the options, also for this number of organelles, one line per error."""
        weights, numbers = (
            list(self.organelle_weights),
            [n for n, v in vars(self).items() if isinstance(v, float | int)],
        )
        valid = all(0 <= weight < float("inf") for weight in weights) and (not weights or any(weights))
        errors = option_errors(
            self,
            *((name, 0 <= getattr(self, name) < float("inf"), "a number of 0 or more") for name in numbers),
            ("organelle_weights", valid, "numbers of 0 or more, not all 0"),
        )
        if weights and organelles is not None and len(weights) != organelles:
            errors.append(f"organelle_weights: {len(weights)} given: expected {organelles}, one per organelle, or []")
        if self.smooth == 0:
            errors.append("smooth: 0: expected more than 0, or the Dice of an absent organelle is 0 / 0")
        return errors


@dataclass
class DiceBCEConfig(_Shared):
    """Dice + binary cross-entropy: the paper's loss."""

    dice_weight: float = 1.0
    """Weight of the Dice term."""
    bce_weight: float = 1.0
    """Weight of the binary cross-entropy, the mean over voxels."""

    def errors(self, organelles: int | None = None) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        empty = [] if self.dice_weight or self.bce_weight else ["dice_weight and bce_weight: both 0: nothing to learn"]
        return super().errors(organelles) + empty

    def build(self) -> SegmentationLoss:
        """Return the loss; raise `InputError` if an option is out of range."""
        raise_errors("dice_bce", self.errors())
        return SegmentationLoss(self, self.dice_weight, self.bce_weight, nn.BCEWithLogitsLoss(reduction="none"))


@dataclass
class DiceFocalConfig(_Shared):
    """Dice + focal loss (MONAI's), which gives voxels that are hard to classify more weight."""

    dice_weight: float = 1.0
    """Weight of the Dice term."""
    focal_weight: float = 1.0
    """Weight of the focal term, the mean over voxels."""
    gamma: float = 2.0
    """Exponent that lowers the weight of well-classified voxels; 0 is the binary cross-entropy."""
    alpha: float | None = None
    """Weight of the foreground in the focal term, 0 to 1; null: equal weights of foreground and background."""

    def errors(self, organelles: int | None = None) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        empty = (
            [] if self.dice_weight or self.focal_weight else ["dice_weight and focal_weight: both 0: nothing to learn"]
        )
        alpha = option_errors(self, ("alpha", self.alpha is None or not self.alpha > 1, "0 to 1, or null"))
        return super().errors(organelles) + empty + alpha

    def build(self) -> SegmentationLoss:
        """Return the loss; raise `InputError` if an option is out of range."""
        raise_errors("dice_focal", self.errors())
        focal = FocalLoss(gamma=self.gamma, alpha=self.alpha, reduction="none")
        return SegmentationLoss(self, self.dice_weight, self.focal_weight, focal)


@dataclass
class TverskyConfig(_Shared):
    """Tversky loss: Dice with separate weights of false positives and false negatives."""

    false_positives: float = 0.3
    """Weight of false positives; with 0.5 for both weights this is the Dice loss."""
    false_negatives: float = 0.7
    """Weight of false negatives; a weight above that of false positives finds more of small organelles."""
    bce_weight: float = 0.0
    """Weight of an additional binary cross-entropy."""

    def errors(self, organelles: int | None = None) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        empty = self.false_positives == 0 and self.false_negatives == 0
        return super().errors(organelles) + (["false_positives and false_negatives: both 0"] if empty else [])

    def build(self) -> SegmentationLoss:
        """Return the loss; raise `InputError` if an option is out of range."""
        raise_errors("tversky", self.errors())
        voxel = nn.BCEWithLogitsLoss(reduction="none")
        return SegmentationLoss(self, 1.0, self.bce_weight, voxel, self.false_positives, self.false_negatives)


class LossConfig(Protocol):
    """Interface of the config of a loss."""

    def errors(self, organelles: int | None = None) -> list[str]:
        """Return what is wrong with the options, also for this number of organelles, one line per error."""

    def build(self) -> nn.Module:
        """Return the loss, which computes (C,) from (logits_BCZYX, target_BCZYX, labelled_BC)."""


#: The losses, by name.
LOSSES: dict[str, type[LossConfig]] = {
    "dice_bce": DiceBCEConfig,
    "dice_focal": DiceFocalConfig,
    "tversky": TverskyConfig,
}


def loss_config(name: str) -> type[LossConfig]:
    """Return the config class of a loss; raise `InputError` with the most similar name if there is none."""
    return entry_of(LOSSES, name, "loss")
