"""Losses of the organelle task: one number an organelle, from the samples where that organelle is annotated.

Choi et al. minimise, per organelle, Dice + binary cross-entropy and add up the organelles. A biologist annotates one
organelle and skips the others: an unlabelled one adds nothing, not even to the gradient.

References
----------
Choi et al. 2021, bioRxiv 2021.05.23.445351.
Milletari et al., V-Net, 3DV 2016, arXiv 1606.04797 (Dice).
Lin et al., Focal loss for dense object detection, ICCV 2017, arXiv 1708.02002.
Salehi et al., Tversky loss function, MLMI 2017, arXiv 1706.05721.
"""

import difflib
from dataclasses import dataclass, field
from typing import Protocol

import torch
from monai.losses import FocalLoss
from torch import nn
from torch.nn import functional as F

from cytovox.errors import InputError


def tversky_loss(
    probability_BCZYX: torch.Tensor,
    target_BCZYX: torch.Tensor,
    false_positives: float = 0.5,
    false_negatives: float = 0.5,
    smooth: float = 1.0,
    pool: bool = False,
) -> torch.Tensor:
    """1 - (2 TP + s) / (2 TP + 2 a FP + 2 b FN + s); with a = b = 0.5 the Dice loss.

    Parameters
    ----------
    probability_BCZYX, target_BCZYX : float tensor
        0 to 1. Voxels where both are 0 count nothing.
    false_positives, false_negatives : float
        The weights a and b.
    smooth : float
        s, in voxels: makes empty against empty 0 instead of 0 / 0.
    pool : bool
        One overlap over the whole batch instead of one per sample.

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
    """A weighted sum of an overlap term and a voxel term, per organelle. Built by the configs below.

    Parameters
    ----------
    config : DiceBCEConfig, DiceFocalConfig or TverskyConfig
        Valid options.
    overlap_weight, voxel_weight : float
        Of the two terms.
    voxel : nn.Module
        (logits, target) to a loss of every voxel, same shape.
    false_positives, false_negatives : float
        See `tversky_loss`.
    """

    organelle_weights: torch.Tensor | None
    """float32 (C,); None: 1 for each."""

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
        """The loss of each organelle, in float32 whatever the precision around it.

        Parameters
        ----------
        logits_BCZYX : float tensor
            The network's output, before the sigmoid.
        target_BCZYX : tensor, 0 or 1
            The masks; where unlabelled, anything, even NaN.
        labelled_BC : bool tensor
            False where sample b has no annotation of organelle c.

        Returns
        -------
        float32 tensor, (C,)
            The mean over the labelled samples; 0, without gradient, where there is none. Add up for the paper's loss.
        """
        if logits_BCZYX.shape != target_BCZYX.shape or labelled_BC.shape != logits_BCZYX.shape[:2]:
            shapes = (tuple(tensor.shape) for tensor in (logits_BCZYX, target_BCZYX, labelled_BC))
            raise ValueError(
                "logits {}, target {}, labelled {}: expected (B, C, Z, Y, X) twice and (B, C)".format(*shapes)
            )
        with torch.autocast(logits_BCZYX.device.type, enabled=False):
            known = labelled_BC.bool()
            mask = known[:, :, None, None, None]
            zero = torch.zeros((), device=logits_BCZYX.device)
            # selected, not multiplied: 0 x NaN is NaN, and so would be the gradient
            logits, target = (
                torch.where(mask, logits_BCZYX.float(), zero),
                torch.where(mask, target_BCZYX.float(), zero),
            )
            loss_C = self.overlap_weight * self._overlap(logits, target, mask) if self.overlap_weight else zero
            if self.voxel_weight:
                voxel_BC = self.voxel(logits, target).mean((2, 3, 4))
                loss_C = loss_C + self.voxel_weight * _labelled_mean(voxel_BC, known)
            if self.organelle_weights is not None:
                loss_C = loss_C * self.organelle_weights.to(loss_C.device)
            return loss_C

    def _overlap(self, logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        probability = torch.sigmoid(logits) * mask
        loss = tversky_loss(
            probability, target, self.false_positives, self.false_negatives, self.smooth, pool=self.pool
        )
        known = mask[:, :, 0, 0, 0]
        return _labelled_mean(loss, known.any(0, keepdim=True) if self.pool else known)


def _labelled_mean(loss_BC: torch.Tensor, labelled_BC: torch.Tensor) -> torch.Tensor:
    """Mean over the labelled samples, 0 where there is none."""
    return (loss_BC * labelled_BC).sum(0) / labelled_BC.sum(0).clamp(min=1)


class _BinaryCrossEntropy(nn.Module):
    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


@dataclass
class _Shared:
    """Options that every loss has."""

    organelle_weights: list[float] = field(default_factory=list)
    """Weight of each organelle's loss, in their order; empty: 1 for each."""
    batch: bool = False
    """One Dice over the whole batch instead of one per sample: steadier where small organelles miss many patches."""
    smooth: float = 1.0
    """Voxels added above and below the fraction, so that an organelle absent from a patch has a Dice."""

    def errors(self, organelles: int | None = None) -> list[str]:
        """What is wrong with the options, and with them for so many organelles; empty where all is well."""
        errors = [
            f"{name}: {value}: expected a number of 0 or more"
            for name, value in vars(self).items()
            if isinstance(value, float | int) and not 0 <= value < float("inf")
        ]
        weights = list(self.organelle_weights)
        if any(not 0 <= weight < float("inf") for weight in weights) or (weights and not any(weights)):
            errors.append(f"organelle_weights: {weights}: expected numbers of 0 or more, not all 0")
        if weights and organelles is not None and len(weights) != organelles:
            errors.append(f"organelle_weights: {len(weights)} given: expected {organelles}, one an organelle, or []")
        if self.smooth == 0:
            errors.append("smooth: 0: expected more, or an absent organelle is 0 / 0")
        return errors

    def _check(self, name: str) -> None:
        if errors := self.errors():
            raise InputError(f"{name}: {'; '.join(errors)}")


@dataclass
class DiceBCEConfig(_Shared):
    """Dice + binary cross-entropy: the paper's loss."""

    dice_weight: float = 1.0
    """Weight of the Dice term."""
    bce_weight: float = 1.0
    """Weight of the binary cross-entropy, the mean over voxels."""

    def errors(self, organelles: int | None = None) -> list[str]:
        """What is wrong with the options; see the base."""
        nothing = (
            [] if self.dice_weight or self.bce_weight else ["dice_weight and bce_weight: both 0: nothing to learn"]
        )
        return super().errors(organelles) + nothing

    def build(self) -> SegmentationLoss:
        """The loss; `InputError` if an option is out of range."""
        self._check("dice_bce")
        return SegmentationLoss(self, self.dice_weight, self.bce_weight, _BinaryCrossEntropy())


@dataclass
class DiceFocalConfig(_Shared):
    """Dice + focal loss (MONAI's): turns from the many easy voxels to the few hard ones."""

    dice_weight: float = 1.0
    """Weight of the Dice term."""
    focal_weight: float = 1.0
    """Weight of the focal term, the mean over voxels."""
    gamma: float = 2.0
    """How strongly well-classified voxels are turned down; 0 is the binary cross-entropy."""
    alpha: float | None = None
    """Share of the foreground in the focal term, 0 to 1; null: foreground and background weigh the same."""

    def errors(self, organelles: int | None = None) -> list[str]:
        """What is wrong with the options; see the base."""
        errors = super().errors(organelles)
        if not (self.dice_weight or self.focal_weight):
            errors.append("dice_weight and focal_weight: both 0: nothing to learn")
        if self.alpha is not None and self.alpha > 1:
            errors.append(f"alpha: {self.alpha}: expected 0 to 1, or null")
        return errors

    def build(self) -> SegmentationLoss:
        """The loss; `InputError` if an option is out of range."""
        self._check("dice_focal")
        focal = FocalLoss(gamma=self.gamma, alpha=self.alpha, reduction="none")
        return SegmentationLoss(self, self.dice_weight, self.focal_weight, focal)


@dataclass
class TverskyConfig(_Shared):
    """Tversky loss: Dice with its two kinds of error weighed apart."""

    false_positives: float = 0.3
    """Weight of a voxel wrongly inside; 0.5 and 0.5 are the Dice loss."""
    false_negatives: float = 0.7
    """Weight of a voxel wrongly outside: more than the other finds more of a small organelle."""
    bce_weight: float = 0.0
    """Weight of a binary cross-entropy beside it."""

    def errors(self, organelles: int | None = None) -> list[str]:
        """What is wrong with the options; see the base."""
        nothing = self.false_positives == 0 and self.false_negatives == 0
        return super().errors(organelles) + (["false_positives and false_negatives: both 0"] if nothing else [])

    def build(self) -> SegmentationLoss:
        """The loss; `InputError` if an option is out of range."""
        self._check("tversky")
        voxel = _BinaryCrossEntropy()
        return SegmentationLoss(self, 1.0, self.bce_weight, voxel, self.false_positives, self.false_negatives)


class LossConfig(Protocol):
    """What a loss's config offers."""

    def errors(self, organelles: int | None = None) -> list[str]:
        """What is wrong with the options, and with them for so many organelles."""

    def build(self) -> nn.Module:
        """(logits_BCZYX, target_BCZYX, labelled_BC) to (C,)."""


#: The losses, by name.
LOSSES: dict[str, type[LossConfig]] = {
    "dice_bce": DiceBCEConfig,
    "dice_focal": DiceFocalConfig,
    "tversky": TverskyConfig,
}


def loss_config(name: str) -> type[LossConfig]:
    """The config class of a loss; `InputError` that names the nearest and all known ones if there is none."""
    if name not in LOSSES:
        near = difflib.get_close_matches(str(name), LOSSES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"loss {name!r}: no such loss; {hint}known: {', '.join(LOSSES)}")
    return LOSSES[name]
