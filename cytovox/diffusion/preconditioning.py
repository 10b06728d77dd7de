"""Quantity that the network predicts: noise, noise and variance, velocity, or the clean data.

A preconditioning scales the network's input and converts its output into an estimate of the clean data and the noise.
Losses and samplers use this estimate only. A `Denoiser` combines a network, a process and a preconditioning.

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
from cytovox.options import NoOptions, option_errors, raise_errors

#: Largest time given to networks, for every process: sinusoidal embeddings expect this range. The t of DDPM is 1 to
#: 1000, as in its paper; the published code counts from 0.
NETWORK_TIME = 1000.0

Network = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class Estimate:
    """A denoiser's estimate of a noisy sample."""

    data_BCZYX: torch.Tensor
    """The clean data, x_0."""
    noise_BCZYX: torch.Tensor
    """The noise, eps: x_t = alpha data + sigma noise."""
    variance_BCZYX: torch.Tensor | None = None
    """Log variance of a step relative to its lower (0) and upper (1) limit; may lie outside both."""


class Preconditioning(Protocol):
    """Interface of a preconditioning; times t are (B, 1, 1, 1, 1)."""

    def scale(self, process: Process, x_BCZYX: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the network's input for x_t."""

    def estimate(self, process: Process, output: torch.Tensor, x_BCZYX: torch.Tensor, t: torch.Tensor) -> Estimate:
        """Return the estimate for x_t from the network's output, (B, C x outputs, Z, Y, X)."""


class Denoiser:
    """Separates data from noise with a network; has no parameters of its own.

    Parameters
    ----------
    network : callable
        (x_BCZYX, t_B, condition_BCYX) to (B, C x outputs, Z, Y, X); t runs from 0 to 1000 (`NETWORK_TIME`).
    process : Process
        Process that turned the data into noise.
    preconditioning : Preconditioning
        Quantity that the network predicts.
    """

    def __init__(self, network: Network, process: Process, preconditioning: Preconditioning) -> None:
        self.network, self.process, self.preconditioning = network, process, preconditioning

    def __call__(self, x_BCZYX: torch.Tensor, t_B: torch.Tensor, condition_BCYX: torch.Tensor) -> Estimate:
        """Return an estimate of data and noise, in the precision of x also where the network uses another one.

        Parameters
        ----------
        x_BCZYX : float tensor
            Noisy data, x_t.
        t_B : float tensor
            Times of the process.
        condition_BCYX : float tensor
            Condition, which is passed to the network unchanged.
        """
        t = t_B.to(x_BCZYX)[:, None, None, None, None]
        scaled = self.preconditioning.scale(self.process, x_BCZYX, t)
        output = self.network(scaled, t_B * (NETWORK_TIME / self.process.end), condition_BCYX)
        return self.preconditioning.estimate(self.process, output.to(x_BCZYX.dtype), x_BCZYX, t)


class _Unscaled:
    def scale(self, process: Process, x_BCZYX: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return x_t unchanged."""
        return x_BCZYX


class Noise(_Unscaled):
    """The output is the noise."""

    def estimate(self, process: Process, output: torch.Tensor, x_BCZYX: torch.Tensor, t: torch.Tensor) -> Estimate:
        """Return the estimate by x_0 = (x_t - sigma eps) / alpha."""
        return Estimate((x_BCZYX - process.sigma(t) * output) / process.alpha(t), output)


class NoiseAndVariance(_Unscaled):
    """The output is the noise, then as many channels v of variance, from -1 (lower limit) to 1 (upper limit)."""

    def estimate(self, process: Process, output: torch.Tensor, x_BCZYX: torch.Tensor, t: torch.Tensor) -> Estimate:
        """Return the estimate of `Noise`, and (v + 1) / 2 as the variance relative to its limits."""
        noise, variance = output.chunk(2, dim=1)
        return Estimate((x_BCZYX - process.sigma(t) * noise) / process.alpha(t), noise, (variance + 1) / 2)


class Velocity(_Unscaled):
    """The output is the velocity, a x_0 + b eps; for the rectified flow eps - x_0."""

    def estimate(self, process: Process, output: torch.Tensor, x_BCZYX: torch.Tensor, t: torch.Tensor) -> Estimate:
        """Return the estimate by x_0 = b x_t - sigma v and eps = -a x_t + alpha v."""
        a, b = process.velocity(t)
        return Estimate(b * x_BCZYX - process.sigma(t) * output, process.alpha(t) * output - a * x_BCZYX)


class Data:
    """The output is the clean data, or (with edm) its difference from the best linear estimate, in units of c_out.

    Parameters
    ----------
    config : DataConfig
        Valid options.
    """

    def __init__(self, config: "DataConfig") -> None:
        self.config = config

    def scale(self, process: Process, x_BCZYX: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return x_t, scaled to unit variance with edm."""
        return x_BCZYX / self._deviation(process, t) if self.config.scaling == "edm" else x_BCZYX

    def estimate(self, process: Process, output: torch.Tensor, x_BCZYX: torch.Tensor, t: torch.Tensor) -> Estimate:
        """Return the estimate by x_0 = output, or c_skip x_t + c_out output with edm, and eps from x_t and x_0."""
        alpha, sigma, data = process.alpha(t), process.sigma(t), output
        if self.config.scaling == "edm":
            std, total = self.config.data_std, self._deviation(process, t)
            data = alpha * std**2 / total**2 * x_BCZYX + sigma * std / total * output
        return Estimate(data, (x_BCZYX - alpha * data) / sigma.clamp(min=1e-12))

    def _deviation(self, process: Process, t: torch.Tensor) -> torch.Tensor:
        """Return the standard deviation of x_t for data of mean 0 and standard deviation data_std."""
        return (process.alpha(t).square() * self.config.data_std**2 + process.sigma(t).square()).sqrt()


@dataclass
class NoiseConfig(NoOptions):
    """The network predicts the noise. No options."""

    outputs = 1

    def build(self) -> Noise:
        """Return the preconditioning."""
        return Noise()


@dataclass
class NoiseAndVarianceConfig(NoOptions):
    """The network predicts the noise and the variance of the reverse step, as in DISPR. No options."""

    outputs = 2

    def build(self) -> NoiseAndVariance:
        """Return the preconditioning."""
        return NoiseAndVariance()


@dataclass
class VelocityConfig(NoOptions):
    """The network predicts the velocity from data to noise. No options."""

    outputs = 1

    def build(self) -> Velocity:
        """Return the preconditioning."""
        return Velocity()


@dataclass
class DataConfig:
    """The network predicts the clean data."""

    outputs = 1

    scaling: str = "none"
    """none: x_t in, x_0 out. edm: input and target of the network have unit variance at every time."""
    data_std: float = 1.0
    """Standard deviation of the data in edm; their mean should be near 0."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        return option_errors(
            self,
            ("scaling", self.scaling in ("none", "edm"), "none or edm"),
            ("data_std", 0 < self.data_std < float("inf"), "more than 0"),
        )

    def build(self) -> Data:
        """Return the preconditioning; raise `InputError` if an option is out of range."""
        raise_errors("data", self.errors())
        return Data(self)


#: The preconditionings, by name; `outputs` is the number of output channels per channel of the data.
PRECONDITIONINGS: dict[str, type[NoiseConfig | NoiseAndVarianceConfig | VelocityConfig | DataConfig]] = {
    "noise": NoiseConfig,
    "noise_and_variance": NoiseAndVarianceConfig,
    "velocity": VelocityConfig,
    "data": DataConfig,
}
