"""Samplers, which turn noise into data.

A sample depends on the seed and on its number, not on how many samples are drawn at once (`cytovox.diffusion.noise`).
The last step of every sampler returns the denoiser's estimate of the data. A constraint of the estimates, such as a
known slice, therefore holds exactly in the result.

References
----------
Ho et al. 2020, arXiv 2006.11239, algorithm 2; Nichol & Dhariwal 2021, arXiv 2102.09672, section 4 (ancestral).
Song et al., Denoising diffusion implicit models, ICLR 2021, arXiv 2010.02502, eq. 12 (ddim).
Karras et al. 2022, arXiv 2206.00364, algorithm 1 (heun; euler is its first half).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from cytovox.diffusion.noise import Draws
from cytovox.diffusion.preconditioning import Denoiser, Estimate
from cytovox.diffusion.processes import LinearBetas, Process
from cytovox.diffusion.transfer import upload
from cytovox.diffusion.variational import learned_log_variance
from cytovox.errors import InputError
from cytovox.options import option_errors, raise_errors

#: Changes an estimate of the data, (B, C, Z, Y, X), and keeps its shape.
Constraint = Callable[[torch.Tensor], torch.Tensor]
#: A denoiser with a fixed condition: from (x_BCZYX, t) to an estimate.
Denoise = Callable[[torch.Tensor, torch.Tensor], Estimate]


class Sampler:
    """Base of all samplers: independent noise for each sample, and estimates within limits."""

    def __init__(self, steps: int, clip: Sequence[float]) -> None:
        self.steps, self.clip = steps, tuple(clip)

    @property
    def evaluations(self) -> int:
        """Number of network evaluations per sample."""
        return self.steps

    @torch.no_grad()
    def __call__(
        self,
        denoiser: Denoiser,
        shape_CZYX: Sequence[int],
        condition_BCYX: torch.Tensor,
        generator: torch.Generator,
        constrain: Constraint | None = None,
    ) -> torch.Tensor:
        """Draw one sample for each condition.

        Parameters
        ----------
        denoiser : Denoiser
            Denoiser with its network in evaluation mode.
        shape_CZYX : sequence of int
            Shape of one sample.
        condition_BCYX : float tensor
            Conditions; samples are computed on their device.
        generator : torch.Generator
            Generator of the samples' seeds.
        constrain : callable, optional
            Function that changes every estimate of the data; its constraint holds exactly in the result.

        Returns
        -------
        float32 tensor, (B, C, Z, Y, X)
        """
        process = denoiser.process

        def denoise(x_BCZYX: torch.Tensor, t: torch.Tensor) -> Estimate:
            estimate = denoiser(x_BCZYX, t.expand(len(x_BCZYX)), condition_BCYX)
            if not self.clip and not constrain:
                return estimate
            data = estimate.data_BCZYX.clamp(*self.clip) if self.clip else estimate.data_BCZYX
            data = constrain(data) if constrain else data
            noise = (x_BCZYX - process.alpha(t) * data) / process.sigma(t).clamp(min=1e-12)
            return Estimate(data, noise, estimate.variance_BCZYX)

        return self.sampling_loop(process, denoise, Draws(condition_BCYX, shape_CZYX, generator))

    def sampling_loop(self, process: Process, denoise: Denoise, noise: Draws) -> torch.Tensor:
        """Return the data, starting from noise.

        The host never waits for the device: it recognises the last step by its number, not by its time of 0.
        """
        raise NotImplementedError


class Ancestral(Sampler):
    """DDPM's reverse chain of all steps, or of evenly spaced steps with adapted betas (Ho et al., algorithm 2)."""

    def __init__(self, config: "AncestralConfig") -> None:
        super().__init__(config.steps, config.clip)
        self.variance = config.variance

    def sampling_loop(self, process: Process, denoise: Denoise, noise: Draws) -> torch.Tensor:
        """See `Sampler.sampling_loop`."""
        if not isinstance(process, LinearBetas):
            raise InputError("ancestral: expected the process linear_betas; use ddim, euler or heun for others")
        times = upload(process.respaced_times(self.steps), noise.device)
        x = noise()
        for t, s in pairwise(times[:-1]):
            estimate = denoise(x, t)
            data, state, *_ = process.posterior(t, s)
            deviation = (0.5 * self._log_variance(process, t, s, estimate)).exp()
            x = data * estimate.data_BCZYX + state * x + deviation * noise()
        return denoise(x, times[-2]).data_BCZYX

    def _log_variance(self, process: LinearBetas, t: torch.Tensor, s: torch.Tensor, estimate: Estimate) -> torch.Tensor:
        if self.variance == "learned":
            if estimate.variance_BCZYX is None:
                raise InputError("ancestral: variance learned: expected the preconditioning noise_and_variance")
            return learned_log_variance(process, t, s, estimate.variance_BCZYX)
        *_, lower, upper = process.posterior(t, s)
        return lower.log() if self.variance == "small" else upper.log()


class DDIM(Sampler):
    """Steps that keep the estimated noise or replace a part of it (Song et al., eq. 12 and 16, for any process)."""

    def __init__(self, config: "DDIMConfig") -> None:
        super().__init__(config.steps, config.clip)
        self.eta = config.eta

    def sampling_loop(self, process: Process, denoise: Denoise, noise: Draws) -> torch.Tensor:
        """See `Sampler.sampling_loop`."""
        times = upload(process.sampling_times(self.steps), noise.device)
        alpha, sigma = process.alpha(times), process.sigma(times)
        x = sigma[0] * noise()
        for i in range(self.steps - 1):
            estimate = denoise(x, times[i])
            fresh = (1 - (alpha[i] * sigma[i + 1] / (alpha[i + 1] * sigma[i])) ** 2).clamp(min=0).sqrt()
            renewed = self.eta * sigma[i + 1] * fresh
            kept = (sigma[i + 1] ** 2 - renewed**2).sqrt()
            x = alpha[i + 1] * estimate.data_BCZYX + kept * estimate.noise_BCZYX
            if self.eta:
                x = x + renewed * noise()
        return denoise(x, times[-2]).data_BCZYX


class Euler(Sampler):
    """First-order steps along the velocity."""

    def sampling_loop(self, process: Process, denoise: Denoise, noise: Draws) -> torch.Tensor:
        """See `Sampler.sampling_loop`."""
        times = upload(process.sampling_times(self.steps), noise.device)
        x = process.sigma(times[0]) * noise()
        for t, s in pairwise(times[:-1]):
            x = x + (process.clock(s) - process.clock(t)) * velocity(process, t, denoise(x, t))
        return denoise(x, times[-2]).data_BCZYX


class Heun(Sampler):
    """Second-order steps: the mean of the velocities at both ends of an Euler step (Karras et al., algorithm 1)."""

    @property
    def evaluations(self) -> int:
        """Number of network evaluations per sample: two per step, one for the last."""
        return 2 * self.steps - 1

    def sampling_loop(self, process: Process, denoise: Denoise, noise: Draws) -> torch.Tensor:
        """See `Sampler.sampling_loop`."""
        times = upload(process.sampling_times(self.steps), noise.device)
        x = process.sigma(times[0]) * noise()
        for t, s in pairwise(times[:-1]):
            step = process.clock(s) - process.clock(t)
            first = velocity(process, t, denoise(x, t))
            second = velocity(process, s, denoise(x + step * first, s))
            x = x + step * (first + second) / 2
        return denoise(x, times[-2]).data_BCZYX


class OneStep(Sampler):
    """The estimate from pure noise: the prediction of a regressor, or the first step of another sampler."""

    def sampling_loop(self, process: Process, denoise: Denoise, noise: Draws) -> torch.Tensor:
        """See `Sampler.sampling_loop`."""
        t = upload(process.sampling_times(1), noise.device)[0]
        return denoise(process.sigma(t) * noise(), t).data_BCZYX


def velocity(process: Process, t: torch.Tensor, estimate: Estimate) -> torch.Tensor:
    """Return the derivative of x_t with respect to the process's clock, (B, C, Z, Y, X)."""
    a, b = process.velocity(t)
    return a * estimate.data_BCZYX + b * estimate.noise_BCZYX


@dataclass
class _Shared:
    """Options of every sampler."""

    clip: list[float] = field(default_factory=list)
    """Lowest and highest value of the data, [low, high]; every estimate is clipped to them. Empty: no limits."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        valid = not self.clip or (len(self.clip) == 2 and self.clip[0] < self.clip[1])
        return option_errors(
            self, ("steps", getattr(self, "steps", 1) >= 1, "1 or more"), ("clip", valid, "[low, high], or []")
        )


@dataclass
class _Stepwise(_Shared):
    """Options of samplers with several steps."""

    validation_steps: int | None = None
    """Number of steps for the samples of a validation during training; null: `steps`."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        valid = self.validation_steps is None or self.validation_steps >= 1
        return super().errors() + option_errors(self, ("validation_steps", valid, "1 or more, or null"))


@dataclass
class AncestralConfig(_Stepwise):
    """Sampler of DDPM and DISPR."""

    steps: int = 1000
    """Number of steps from noise to data: all of the process, or fewer, evenly spaced."""
    variance: str = "learned"
    """Variance of each step: learned (noise_and_variance), or its lower (small) or upper (large) limit."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        valid = self.variance in ("learned", "small", "large")
        return super().errors() + option_errors(self, ("variance", valid, "learned, small or large"))

    def build(self) -> Ancestral:
        """Return the sampler; raise `InputError` if an option is out of range."""
        raise_errors("ancestral", self.errors())
        return Ancestral(self)


@dataclass
class DDIMConfig(_Stepwise):
    """Deterministic steps along the marginals of DDPM, starting at the last time of the process."""

    steps: int = 50
    """Number of steps from noise to data."""
    eta: float = 0.0
    """Fraction of new noise: 0 is deterministic, 1 is the same as ancestral with small variance."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        return super().errors() + option_errors(self, ("eta", 0 <= self.eta <= 1, "0 to 1"))

    def build(self) -> DDIM:
        """Return the sampler; raise `InputError` if an option is out of range."""
        raise_errors("ddim", self.errors())
        return DDIM(self)


@dataclass
class EulerConfig(_Stepwise):
    """First-order steps along the velocity."""

    steps: int = 8
    """Number of steps from noise to data, with one network evaluation each."""

    def build(self) -> Euler:
        """Return the sampler; raise `InputError` if an option is out of range."""
        raise_errors("euler", self.errors())
        return Euler(self.steps, self.clip)


@dataclass
class HeunConfig(_Stepwise):
    """Second-order steps along the velocity."""

    steps: int = 4
    """Number of steps from noise to data, with two network evaluations each and one for the last."""

    def build(self) -> Heun:
        """Return the sampler; raise `InputError` if an option is out of range."""
        raise_errors("heun", self.errors())
        return Heun(self.steps, self.clip)


@dataclass
class OneStepConfig(_Shared):
    """Sampler of a regressor, with one network evaluation."""

    def build(self) -> OneStep:
        """Return the sampler; raise `InputError` if an option is out of range."""
        raise_errors("one_step", self.errors())
        return OneStep(1, self.clip)


#: The samplers, by name.
SAMPLERS: dict[str, type[AncestralConfig | DDIMConfig | EulerConfig | HeunConfig | OneStepConfig]] = {
    "ancestral": AncestralConfig,
    "ddim": DDIMConfig,
    "euler": EulerConfig,
    "heun": HeunConfig,
    "one_step": OneStepConfig,
}
