"""What the network's output means: noise, noise and its variance, velocity, or the shape itself.

A preconditioning scales what the network is shown and turns what it answers into an estimate of the clean data and of
the noise, which is all that losses and samplers see. `Denoiser` ties it to a network and a process.

References
----------
Ho et al. 2020, arXiv 2006.11239 (noise).
Nichol & Dhariwal, Improved denoising diffusion probabilistic models, ICML 2021, arXiv 2102.09672, eq. 15 (variance).
Salimans & Ho 2022, arXiv 2202.00512; Liu et al. 2023, arXiv 2209.03003 (velocity).
Karras et al., Elucidating the design space of diffusion-based generative models, NeurIPS 2022, arXiv 2206.00364,
table 1 (scaling of the data prediction).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from cytovox.diffusion.processes import Process
from cytovox.errors import InputError

#: Networks are shown times from 0 to this, whatever the process counts in: sinusoidal embeddings are made for it.
#: DDPM's t is 1 to 1000 here as in its paper; the published code counts from 0, one less.
NETWORK_TIME = 1000.0

Network = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class Estimate:
    """What a denoiser makes of a noisy sample."""

    data_BCZYX: torch.Tensor
    """The clean data, x_0."""
    noise_BCZYX: torch.Tensor
    """The noise, eps: x_t = alpha data + sigma noise."""
    variance_BCZYX: torch.Tensor | None = None
    """Where the log variance of a step lies between its lower (0) and its upper limit (1); may go beyond them."""


class Preconditioning(Protocol):
    """What a preconditioning offers."""

    outputs: int
    """Output channels of the network for each channel of the data."""

    def scale(self, process: Process, x_BCZYX: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What the network is shown of x_t; t is (B, 1, 1, 1, 1)."""

    def estimate(self, process: Process, output: torch.Tensor, x_BCZYX: torch.Tensor, t: torch.Tensor) -> Estimate:
        """What the output, (B, C x outputs, Z, Y, X), says of x_t."""


class Denoiser:
    """A network that tells data from noise; no parameters of its own.

    Parameters
    ----------
    network : callable
        (x_BCZYX, t_B, condition_BCYX) to (B, C x outputs, Z, Y, X); t runs from 0 to 1000 (`NETWORK_TIME`).
    process : Process
        How the data became noise.
    preconditioning : Preconditioning
        What the network's output means.
    """

    def __init__(self, network: Network, process: Process, preconditioning: Preconditioning) -> None:
        self.network, self.process, self.preconditioning = network, process, preconditioning

    def __call__(self, x_BCZYX: torch.Tensor, t_B: torch.Tensor, condition_BCYX: torch.Tensor) -> Estimate:
        """Estimate data and noise, in the precision of x whatever the network computes in.

        Parameters
        ----------
        x_BCZYX : float tensor
            Noisy data, x_t.
        t_B : float tensor
            The process's own times.
        condition_BCYX : float tensor
            Handed to the network as it is.
        """
        t = t_B.to(x_BCZYX)[:, None, None, None, None]
        shown = self.preconditioning.scale(self.process, x_BCZYX, t)
        output = self.network(shown, t_B * (NETWORK_TIME / self.process.end), condition_BCYX)
        return self.preconditioning.estimate(self.process, output.to(x_BCZYX.dtype), x_BCZYX, t)


class _Unscaled:
    outputs = 1

    def scale(self, process: Process, x_BCZYX: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Nothing but x_t as it is."""
        return x_BCZYX


class Noise(_Unscaled):
    """The output is the noise."""

    def estimate(self, process: Process, output: torch.Tensor, x_BCZYX: torch.Tensor, t: torch.Tensor) -> Estimate:
        """By x_0 = (x_t - sigma eps) / alpha."""
        return Estimate((x_BCZYX - process.sigma(t) * output) / process.alpha(t), output)


class NoiseAndVariance(_Unscaled):
    """The output is the noise, then as many channels v of variance, -1 (lower limit) to 1 (upper limit)."""

    outputs = 2

    def estimate(self, process: Process, output: torch.Tensor, x_BCZYX: torch.Tensor, t: torch.Tensor) -> Estimate:
        """As `Noise`; the variance's place between its limits is (v + 1) / 2."""
        noise, variance = output.chunk(2, dim=1)
        return Estimate((x_BCZYX - process.sigma(t) * noise) / process.alpha(t), noise, (variance + 1) / 2)


class Velocity(_Unscaled):
    """The output is the velocity, a x_0 + b eps; for the rectified flow eps - x_0."""

    def estimate(self, process: Process, output: torch.Tensor, x_BCZYX: torch.Tensor, t: torch.Tensor) -> Estimate:
        """By x_0 = b x_t - sigma v and eps = -a x_t + alpha v."""
        a, b = process.velocity(t)
        return Estimate(b * x_BCZYX - process.sigma(t) * output, process.alpha(t) * output - a * x_BCZYX)


class Data:
    """The output is the clean data, or what is left of it to say beyond the best linear guess from x_t.

    Parameters
    ----------
    config : DataConfig
        Valid options.
    """

    outputs = 1

    def __init__(self, config: "DataConfig") -> None:
        self.config = config

    def scale(self, process: Process, x_BCZYX: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The noisy x_t, brought to unit variance if the scaling is edm."""
        return x_BCZYX / self._deviation(process, t) if self.config.scaling == "edm" else x_BCZYX

    def estimate(self, process: Process, output: torch.Tensor, x_BCZYX: torch.Tensor, t: torch.Tensor) -> Estimate:
        """By x_0 = output, or c_skip x_t + c_out output; eps is what remains of x_t."""
        alpha, sigma, data = process.alpha(t), process.sigma(t), output
        if self.config.scaling == "edm":
            std, total = self.config.data_std, self._deviation(process, t)
            data = alpha * std**2 / total**2 * x_BCZYX + sigma * std / total * output
        return Estimate(data, (x_BCZYX - alpha * data) / sigma.clamp(min=1e-12))

    def _deviation(self, process: Process, t: torch.Tensor) -> torch.Tensor:
        """Of x_t, where the data have mean 0 and deviation data_std."""
        return (process.alpha(t).square() * self.config.data_std**2 + process.sigma(t).square()).sqrt()


@dataclass
class NoiseConfig:
    """The network predicts the noise. It has no options."""

    outputs = 1

    def errors(self) -> list[str]:
        """Nothing can be wrong."""
        return []

    def build(self) -> Noise:
        """The preconditioning."""
        return Noise()


@dataclass
class NoiseAndVarianceConfig:
    """The network predicts the noise and the variance of the step back, as DISPR's does. It has no options."""

    outputs = 2

    def errors(self) -> list[str]:
        """Nothing can be wrong."""
        return []

    def build(self) -> NoiseAndVariance:
        """The preconditioning."""
        return NoiseAndVariance()


@dataclass
class VelocityConfig:
    """The network predicts the direction from data to noise. It has no options."""

    outputs = 1

    def errors(self) -> list[str]:
        """Nothing can be wrong."""
        return []

    def build(self) -> Velocity:
        """The preconditioning."""
        return Velocity()


@dataclass
class DataConfig:
    """The network predicts the clean data."""

    outputs = 1

    scaling: str = "none"
    """none: x_t in, x_0 out. edm: input and target of the network have unit variance at every time."""
    data_std: float = 1.0
    """Of edm: standard deviation of the data, whose mean should be near 0."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        errors = [] if self.scaling in ("none", "edm") else [f"scaling: {self.scaling!r}: expected none or edm"]
        if not 0 < self.data_std < float("inf"):
            errors.append(f"data_std: {self.data_std}: expected more than 0")
        return errors

    def build(self) -> Data:
        """The preconditioning; `InputError` if an option is out of range."""
        if errors := self.errors():
            raise InputError(f"data: {'; '.join(errors)}")
        return Data(self)


#: The preconditionings, by name.
PRECONDITIONINGS: dict[str, type[NoiseConfig | NoiseAndVarianceConfig | VelocityConfig | DataConfig]] = {
    "noise": NoiseConfig,
    "noise_and_variance": NoiseAndVarianceConfig,
    "velocity": VelocityConfig,
    "data": DataConfig,
}
