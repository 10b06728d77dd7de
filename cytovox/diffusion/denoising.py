"""What a denoiser is trained to minimise: an error of its noise or its velocity at random times.

Every loss is called as ``loss(denoiser, x0_BCZYX, condition_BCYX, generator)`` and returns the number to minimise and
what it is made of. It compares estimates, so it goes with any preconditioning, save the one that needs the variance.

References
----------
Ho et al. 2020, arXiv 2006.11239, eq. 14 (noise_mse).
Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 16 (noise_mse_vlb).
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from cytovox.diffusion.preconditioning import Denoiser, Estimate
from cytovox.diffusion.processes import LinearBetas
from cytovox.diffusion.transfer import upload
from cytovox.diffusion.variational import bound_bits
from cytovox.errors import InputError


class DenoisingLoss(Protocol):
    """What a loss offers."""

    def __call__(
        self,
        denoiser: Denoiser,
        x0_BCZYX: torch.Tensor,
        condition_BCYX: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss, a scalar with its gradient, and its parts by name, without."""


@dataclass
class Noised:
    """A batch at random times, and what a denoiser made of it."""

    x_BCZYX: torch.Tensor
    noise_BCZYX: torch.Tensor
    t: torch.Tensor
    """(B, 1, 1, 1, 1)"""
    estimate: Estimate


def noised(
    denoiser: Denoiser, x0_BCZYX: torch.Tensor, condition_BCYX: torch.Tensor, generator: torch.Generator | None
) -> Noised:
    """Noise a batch, each sample at a time of its own, and denoise it."""
    process, n = denoiser.process, len(x0_BCZYX)
    device = generator.device if generator else x0_BCZYX.device
    t_B = upload(process.training_times(n, generator, device), x0_BCZYX.device, x0_BCZYX.dtype)
    noise = torch.randn(x0_BCZYX.shape, generator=generator, device=device)
    noise = upload(noise, x0_BCZYX.device, x0_BCZYX.dtype)
    t = t_B[:, None, None, None, None]
    x = process.alpha(t) * x0_BCZYX + process.sigma(t) * noise
    return Noised(x, noise, t, denoiser(x, t_B, condition_BCYX))


class NoiseMSE:
    """Mean squared error of the noise."""

    def __call__(
        self,
        denoiser: Denoiser,
        x0_BCZYX: torch.Tensor,
        condition_BCYX: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `DenoisingLoss`."""
        batch = noised(denoiser, x0_BCZYX, condition_BCYX, generator)
        loss = (batch.estimate.noise_BCZYX - batch.noise_BCZYX).square().mean()
        return loss, {"noise_mse": loss.detach()}


class VelocityMSE:
    """Mean squared error of the velocity."""

    def __call__(
        self,
        denoiser: Denoiser,
        x0_BCZYX: torch.Tensor,
        condition_BCYX: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `DenoisingLoss`."""
        batch = noised(denoiser, x0_BCZYX, condition_BCYX, generator)
        a, b = denoiser.process.velocity(batch.t)
        wrong_data, wrong_noise = batch.estimate.data_BCZYX - x0_BCZYX, batch.estimate.noise_BCZYX - batch.noise_BCZYX
        loss = (a * wrong_data + b * wrong_noise).square().mean()
        return loss, {"velocity_mse": loss.detach()}


class NoiseMSEVLB:
    """Mean squared error of the noise, and the variational bound of the variance alone.

    The bound's term of a time is the divergence of the learned step back from the true one (of the last step: the
    likelihood of data in -1..1, counted in 256 levels), in bits a voxel. It stands for all steps, so it counts once
    for each; its gradient reaches the variance only. DISPR, like DDPM, expects data in -1..1.

    Parameters
    ----------
    config : NoiseMSEVLBConfig
        Valid options.
    """

    def __init__(self, config: "NoiseMSEVLBConfig") -> None:
        self.vlb_weight = config.vlb_weight

    def __call__(
        self,
        denoiser: Denoiser,
        x0_BCZYX: torch.Tensor,
        condition_BCYX: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `DenoisingLoss`."""
        process = denoiser.process
        if not isinstance(process, LinearBetas):
            raise InputError("noise_mse_vlb: expected the process linear_betas, whose steps the bound is a sum over")
        batch = noised(denoiser, x0_BCZYX, condition_BCYX, generator)
        mse = (batch.estimate.noise_BCZYX - batch.noise_BCZYX).square().mean()
        vlb = process.steps * bound_bits(process, batch.x_BCZYX, x0_BCZYX, batch.t, batch.estimate).mean()
        return mse + self.vlb_weight * vlb, {"noise_mse": mse.detach(), "vlb_bits": vlb.detach()}


@dataclass
class NoiseMSEConfig:
    """Mean squared error of the noise: DDPM's loss. It has no options."""

    def errors(self) -> list[str]:
        """Nothing can be wrong."""
        return []

    def build(self) -> NoiseMSE:
        """The loss."""
        return NoiseMSE()


@dataclass
class NoiseMSEVLBConfig:
    """The same, and the variational bound for the variance: DISPR's loss."""

    vlb_weight: float = 1e-3
    """Weight of the bound, in bits a voxel."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        good = 0 < self.vlb_weight < float("inf")
        return [] if good else [f"vlb_weight: {self.vlb_weight}: expected more than 0; without it, use noise_mse"]

    def build(self) -> NoiseMSEVLB:
        """The loss; `InputError` if an option is out of range."""
        if errors := self.errors():
            raise InputError(f"noise_mse_vlb: {'; '.join(errors)}")
        return NoiseMSEVLB(self)


@dataclass
class VelocityMSEConfig:
    """Mean squared error of the velocity: the rectified flow's loss. It has no options."""

    def errors(self) -> list[str]:
        """Nothing can be wrong."""
        return []

    def build(self) -> VelocityMSE:
        """The loss."""
        return VelocityMSE()
