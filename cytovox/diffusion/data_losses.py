"""Losses of the clean data that a denoiser estimates: squared, absolute, and absolute with an overlap.

References
----------
Karras et al. 2022, arXiv 2206.00364, table 1 (edm weighting).
Hang et al., Efficient diffusion training via min-SNR weighting, ICCV 2023, arXiv 2303.09556 (min_snr weighting).
Milletari et al., V-Net, 3DV 2016, arXiv 1606.04797 (soft Dice with squares).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cytovox.diffusion.denoising import noised
from cytovox.diffusion.preconditioning import Denoiser
from cytovox.diffusion.processes import Process
from cytovox.errors import InputError


class DataError:
    """Weighted mean error of the clean data.

    Parameters
    ----------
    config : DataMSEConfig or DataL1Config
        Valid options.
    name : str
        Of the unweighted error in the logs.
    error : callable
        Of a difference, voxel by voxel.
    """

    def __init__(self, config: "_DataErrorConfig", name: str, error: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.config, self.name, self.error = config, name, error

    def __call__(
        self,
        denoiser: Denoiser,
        x0_BCZYX: torch.Tensor,
        condition_BCYX: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `DenoisingLoss`."""
        batch = noised(denoiser, x0_BCZYX, condition_BCYX, generator)
        error = self.error(batch.estimate.data_BCZYX - x0_BCZYX)
        loss = (self.weight(denoiser.process, batch.t) * error).mean()
        return loss, {self.name: error.mean().detach()}

    def weight(self, process: Process, t: torch.Tensor) -> torch.Tensor:
        """Of a time: 1, the signal-to-noise ratio up to a limit, or the inverse square of EDM's c_out."""
        config = self.config
        if config.weighting == "uniform":
            return torch.ones_like(t)
        alpha2, sigma2 = process.alpha(t).square(), process.sigma(t).square()
        if config.weighting == "min_snr":
            return (alpha2 / sigma2).clamp(max=config.limit)
        variance = config.data_std**2
        return ((alpha2 * variance + sigma2) / (sigma2 * variance)).clamp(max=config.limit)


@dataclass
class _DataErrorConfig:
    """Options that both errors of the data have."""

    weighting: str = "uniform"
    """Of times: uniform; min_snr, the signal-to-noise ratio; edm, which gives all times the same share at the start."""
    limit: float = 5.0
    """The most a time weighs, of min_snr and edm."""
    data_std: float = 1.0
    """Of edm: standard deviation of the data; as in the preconditioning."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        errors = []
        if self.weighting not in ("uniform", "min_snr", "edm"):
            errors.append(f"weighting: {self.weighting!r}: expected uniform, min_snr or edm")
        errors += [
            f"{name}: {value}: expected more than 0"
            for name, value in (("limit", self.limit), ("data_std", self.data_std))
            if not value > 0
        ]
        return errors

    def _check(self, name: str) -> None:
        if errors := self.errors():
            raise InputError(f"{name}: {'; '.join(errors)}")


@dataclass
class DataMSEConfig(_DataErrorConfig):
    """Mean squared error of the clean data."""

    def build(self) -> DataError:
        """The loss; `InputError` if an option is out of range."""
        self._check("data_mse")
        return DataError(self, "data_mse", torch.square)


@dataclass
class DataL1Config(_DataErrorConfig):
    """Mean absolute error of the clean data: a regressor so trained gives the median, not the mean."""

    def build(self) -> DataError:
        """The loss; `InputError` if an option is out of range."""
        self._check("data_l1")
        return DataError(self, "data_l1", torch.abs)


class DataL1Dice:
    """Mean absolute error of a field, and the soft Dice error of the shapes inside its zeros.

    The distance alone weighs a voxel far from the surface as much as one beside it; the overlap alone has no gradient
    there. Of a regressor, the overlap's share decides for the side of the surface that more of the plausible shapes
    are on.

    Parameters
    ----------
    config : DataL1DiceConfig
        Valid options.
    """

    def __init__(self, config: "DataL1DiceConfig") -> None:
        self.dice_weight, self.sharpness = config.dice_weight, config.sharpness

    def __call__(
        self,
        denoiser: Denoiser,
        x0_BCZYX: torch.Tensor,
        condition_BCYX: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `DenoisingLoss`."""
        data = noised(denoiser, x0_BCZYX, condition_BCYX, generator).estimate.data_BCZYX
        l1 = (data - x0_BCZYX).abs().mean()
        inside, truth = (torch.sigmoid(self.sharpness * field).flatten(1) for field in (data, x0_BCZYX))
        overlap_B = (inside * truth).sum(1)
        # one voxel more in both: two empty shapes agree
        dice = 1 - ((2 * overlap_B + 1) / (inside.square().sum(1) + truth.square().sum(1) + 1)).mean()
        return l1 + self.dice_weight * dice, {"data_l1": l1.detach(), "dice": dice.detach()}


@dataclass
class DataL1DiceConfig:
    """Mean absolute error of the clean data and the soft Dice error of what is above 0 in them."""

    dice_weight: float = 1.0
    """Weight of the Dice error beside the absolute one."""
    sharpness: float = 12.0
    """Slope of the sigmoid that makes a field a shape: at 12, a truncation of 6 voxels changes from .12 to .88 within
    two."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        return [
            f"{name}: {value}: expected more than 0"
            for name, value in (("dice_weight", self.dice_weight), ("sharpness", self.sharpness))
            if not 0 < value < float("inf")
        ]

    def build(self) -> DataL1Dice:
        """The loss; `InputError` if an option is out of range."""
        if errors := self.errors():
            raise InputError(f"data_l1_dice: {'; '.join(errors)}")
        return DataL1Dice(self)


DataLossConfig = DataMSEConfig | DataL1Config | DataL1DiceConfig
