"""Training losses of a denoiser: errors of the noise, the velocity or the clean data at random times.

Every loss is called as ``loss(denoiser, x0_BCZYX, condition_BCYX, generator)`` and returns the value to minimise and
its terms. Losses compare estimates. They therefore work with every preconditioning, except the bound of the variance,
which needs a preconditioning that predicts the variance.

References
----------
Ho et al. 2020, arXiv 2006.11239, eq. 14 (noise_mse).
Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 16 (noise_mse_vlb).
Karras et al. 2022, arXiv 2206.00364, table 1 (edm weighting).
Hang et al., Efficient diffusion training via min-SNR weighting, ICCV 2023, arXiv 2303.09556 (min_snr weighting).
Milletari et al., V-Net, 3DV 2016, arXiv 1606.04797 (soft Dice with squares).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from cytovox.diffusion.preconditioning import Denoiser, Estimate
from cytovox.diffusion.processes import LinearBetas, Process
from cytovox.diffusion.transfer import upload
from cytovox.diffusion.variational import bound_bits
from cytovox.errors import InputError
from cytovox.options import NoOptions, option_errors, raise_errors

#: A loss with its gradient, and its terms by name, without gradient.
LossAndTerms = tuple[torch.Tensor, dict[str, torch.Tensor]]


class DenoisingLoss(Protocol):
    """Interface of a loss."""

    def __call__(
        self,
        denoiser: Denoiser,
        x0_BCZYX: torch.Tensor,
        condition_BCYX: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> LossAndTerms:
        """Return the loss of a batch of clean data, and its terms by name."""


@dataclass
class Noised:
    """A batch at random times, and a denoiser's estimate of it."""

    x_BCZYX: torch.Tensor
    noise_BCZYX: torch.Tensor
    t: torch.Tensor
    """(B, 1, 1, 1, 1)"""
    estimate: Estimate


def noised(
    denoiser: Denoiser, x0_BCZYX: torch.Tensor, condition_BCYX: torch.Tensor, generator: torch.Generator | None
) -> Noised:
    """Add noise to a batch, each sample at a random time of its own, and denoise it."""
    process, n = denoiser.process, len(x0_BCZYX)
    device = generator.device if generator else x0_BCZYX.device
    t_B = upload(process.training_times(n, generator, device), x0_BCZYX.device, x0_BCZYX.dtype)
    noise = torch.randn(x0_BCZYX.shape, generator=generator, device=device)
    noise = upload(noise, x0_BCZYX.device, x0_BCZYX.dtype)
    t = t_B[:, None, None, None, None]
    x = process.alpha(t) * x0_BCZYX + process.sigma(t) * noise
    return Noised(x, noise, t, denoiser(x, t_B, condition_BCYX))


def noise_mse(
    denoiser: Denoiser,
    x0_BCZYX: torch.Tensor,
    condition_BCYX: torch.Tensor,
    generator: torch.Generator | None = None,
) -> LossAndTerms:
    """Return the mean squared error of the noise; see `DenoisingLoss`."""
    batch = noised(denoiser, x0_BCZYX, condition_BCYX, generator)
    loss = (batch.estimate.noise_BCZYX - batch.noise_BCZYX).square().mean()
    return loss, {"noise_mse": loss.detach()}


def velocity_mse(
    denoiser: Denoiser,
    x0_BCZYX: torch.Tensor,
    condition_BCYX: torch.Tensor,
    generator: torch.Generator | None = None,
) -> LossAndTerms:
    """Return the mean squared error of the velocity; see `DenoisingLoss`."""
    batch = noised(denoiser, x0_BCZYX, condition_BCYX, generator)
    a, b = denoiser.process.velocity(batch.t)
    data_error, noise_error = batch.estimate.data_BCZYX - x0_BCZYX, batch.estimate.noise_BCZYX - batch.noise_BCZYX
    loss = (a * data_error + b * noise_error).square().mean()
    return loss, {"velocity_mse": loss.detach()}


def noise_mse_vlb(
    denoiser: Denoiser,
    x0_BCZYX: torch.Tensor,
    condition_BCYX: torch.Tensor,
    generator: torch.Generator | None = None,
    vlb_weight: float = 1e-3,
) -> LossAndTerms:
    """Return the mean squared error of the noise plus the variational bound; see `DenoisingLoss`.

    The bound's term of one time is the divergence between the learned and the true reverse step, in bits per voxel.
    For the last step it is the likelihood of data in -1..1, discretised to 256 levels. The term is multiplied by the
    number of steps, because it stands for all of them. Its gradient reaches the variance only. DISPR, like DDPM,
    expects data in -1..1.
    """
    process = denoiser.process
    if not isinstance(process, LinearBetas):
        raise InputError("noise_mse_vlb: expected the process linear_betas, because the bound is a sum over its steps")
    batch = noised(denoiser, x0_BCZYX, condition_BCYX, generator)
    mse = (batch.estimate.noise_BCZYX - batch.noise_BCZYX).square().mean()
    vlb = process.steps * bound_bits(process, batch.x_BCZYX, x0_BCZYX, batch.t, batch.estimate).mean()
    return mse + vlb_weight * vlb, {"noise_mse": mse.detach(), "vlb_bits": vlb.detach()}


def weighted_data_error(
    denoiser: Denoiser,
    x0_BCZYX: torch.Tensor,
    condition_BCYX: torch.Tensor,
    generator: torch.Generator | None = None,
    *,
    name: str,
    error: Callable[[torch.Tensor], torch.Tensor],
    weight: Callable[[Process, torch.Tensor], torch.Tensor],
) -> LossAndTerms:
    """Return the weighted mean error of the clean data; see `DenoisingLoss`.

    Parameters
    ----------
    name : str
        Name of the unweighted error in the logs.
    error : callable
        Error of each voxel from the difference.
    weight : callable
        Weight of times (B, 1, 1, 1, 1) of a process.
    """
    batch = noised(denoiser, x0_BCZYX, condition_BCYX, generator)
    error_BCZYX = error(batch.estimate.data_BCZYX - x0_BCZYX)
    loss = (weight(denoiser.process, batch.t) * error_BCZYX).mean()
    return loss, {name: error_BCZYX.mean().detach()}


def data_l1_dice(
    denoiser: Denoiser,
    x0_BCZYX: torch.Tensor,
    condition_BCYX: torch.Tensor,
    generator: torch.Generator | None = None,
    dice_weight: float = 1.0,
    sharpness: float = 12.0,
) -> LossAndTerms:
    """Return the mean absolute error of a field plus the soft Dice error of the shapes where it is above 0.

    The absolute error weights all voxels equally, however far they are from the surface. The Dice error has no gradient
    far from the surface. With the Dice error, a regressor places a voxel inside where most of the plausible shapes
    contain it. See `DenoisingLoss`, and `DataL1DiceConfig` for the options.
    """
    data = noised(denoiser, x0_BCZYX, condition_BCYX, generator).estimate.data_BCZYX
    l1 = (data - x0_BCZYX).abs().mean()
    inside, truth = (torch.sigmoid(sharpness * field).flatten(1) for field in (data, x0_BCZYX))
    overlap_B = (inside * truth).sum(1)
    # smoothed by one voxel, so that the Dice of two empty shapes is 1
    dice = 1 - ((2 * overlap_B + 1) / (inside.square().sum(1) + truth.square().sum(1) + 1)).mean()
    return l1 + dice_weight * dice, {"data_l1": l1.detach(), "dice": dice.detach()}


@dataclass
class NoiseMSEConfig(NoOptions):
    """Mean squared error of the noise (DDPM). No options."""

    def build(self) -> DenoisingLoss:
        """Return the loss."""
        return noise_mse


@dataclass
class VelocityMSEConfig(NoOptions):
    """Mean squared error of the velocity (rectified flow). No options."""

    def build(self) -> DenoisingLoss:
        """Return the loss."""
        return velocity_mse


@dataclass
class NoiseMSEVLBConfig:
    """Mean squared error of the noise plus the variational bound of the variance (DISPR)."""

    vlb_weight: float = 1e-3
    """Weight of the bound, in bits per voxel."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        valid = 0 < self.vlb_weight < float("inf")
        return option_errors(self, ("vlb_weight", valid, "more than 0; without it, use noise_mse"))

    def build(self) -> DenoisingLoss:
        """Return the loss; raise `InputError` if an option is out of range."""
        raise_errors("noise_mse_vlb", self.errors())
        return partial(noise_mse_vlb, vlb_weight=self.vlb_weight)


@dataclass
class _DataErrorConfig:
    """Options of both errors of the data."""

    weighting: str = "uniform"
    """Weight of times: uniform; min_snr, the signal-to-noise ratio; edm, equal loss of all times in a new network."""
    limit: float = 5.0
    """Largest weight of a time in min_snr and edm."""
    data_std: float = 1.0
    """Standard deviation of the data in edm; the same as in the preconditioning."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        return option_errors(
            self,
            ("weighting", self.weighting in ("uniform", "min_snr", "edm"), "uniform, min_snr or edm"),
            ("limit", self.limit > 0, "more than 0"),
            ("data_std", self.data_std > 0, "more than 0"),
        )

    def weight(self, process: Process, t: torch.Tensor) -> torch.Tensor:
        """Return the weight of times: 1, the signal-to-noise ratio, or the inverse square of EDM's c_out."""
        if self.weighting == "uniform":
            return torch.ones_like(t)
        alpha2, sigma2 = process.alpha(t).square(), process.sigma(t).square()
        if self.weighting == "min_snr":
            return (alpha2 / sigma2).clamp(max=self.limit)
        variance = self.data_std**2
        return ((alpha2 * variance + sigma2) / (sigma2 * variance)).clamp(max=self.limit)


@dataclass
class DataMSEConfig(_DataErrorConfig):
    """Mean squared error of the clean data."""

    def build(self) -> DenoisingLoss:
        """Return the loss; raise `InputError` if an option is out of range."""
        raise_errors("data_mse", self.errors())
        return partial(weighted_data_error, name="data_mse", error=torch.square, weight=self.weight)


@dataclass
class DataL1Config(_DataErrorConfig):
    """Mean absolute error of the clean data; a regressor trained with it predicts the median instead of the mean."""

    def build(self) -> DenoisingLoss:
        """Return the loss; raise `InputError` if an option is out of range."""
        raise_errors("data_l1", self.errors())
        return partial(weighted_data_error, name="data_l1", error=torch.abs, weight=self.weight)


@dataclass
class DataL1DiceConfig:
    """Mean absolute error of the clean data plus the soft Dice error of the shapes where they are above 0."""

    dice_weight: float = 1.0
    """Weight of the Dice error, relative to the absolute error."""
    sharpness: float = 12.0
    """Slope of the sigmoid that turns a field into a shape. With 12 and a truncation of 6 voxels, the sigmoid rises
    from .12 to .88 within two voxels."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        return option_errors(
            self,
            ("dice_weight", 0 < self.dice_weight < float("inf"), "more than 0"),
            ("sharpness", 0 < self.sharpness < float("inf"), "more than 0"),
        )

    def build(self) -> DenoisingLoss:
        """Return the loss; raise `InputError` if an option is out of range."""
        raise_errors("data_l1_dice", self.errors())
        return partial(data_l1_dice, dice_weight=self.dice_weight, sharpness=self.sharpness)


#: Losses of the clean data, which need no noise.
DataLossConfig = DataMSEConfig | DataL1Config | DataL1DiceConfig
