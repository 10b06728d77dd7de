"""From noise to data: each sampler a loop that fits a screen, and all called alike.

A sample depends on the seed and on its number, never on how many are made at once (`cytovox.diffusion.noise`). The last
step of every sampler gives the denoiser's estimate of the data itself, so what `constrain` does to an estimate (enforce
a known slice, say) holds exactly in the result.

References
----------
Ho et al. 2020, arXiv 2006.11239, algorithm 2; Nichol & Dhariwal 2021, arXiv 2102.09672, section 4 (ancestral).
Song et al., Denoising diffusion implicit models, ICLR 2021, arXiv 2010.02502, eq. 12 (ddim).
Karras et al. 2022, arXiv 2206.00364, algorithm 1 (heun; euler is its first half).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from cytovox.diffusion.noise import Draws
from cytovox.diffusion.preconditioning import Denoiser, Estimate
from cytovox.diffusion.processes import LinearBetas, Process
from cytovox.diffusion.transfer import upload
from cytovox.diffusion.variational import learned_log_variance
from cytovox.errors import InputError

#: Changes an estimate of the data, (B, C, Z, Y, X) to the same.
Constraint = Callable[[torch.Tensor], torch.Tensor]
#: A denoiser tied to its condition: (x_BCZYX, t) to an estimate.
Denoise = Callable[[torch.Tensor, torch.Tensor], Estimate]


class Sampler:
    """What all samplers share: noise of their own for each sample, and estimates that keep to their limits."""

    def __init__(self, steps: int, clip: Sequence[float]) -> None:
        self.steps, self.clip = steps, tuple(clip)

    @property
    def evaluations(self) -> int:
        """How often the network is asked for a sample."""
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
            Its network in evaluation mode.
        shape_CZYX : sequence of int
            Of one sample.
        condition_BCYX : float tensor
            Samples are made on its device.
        generator : torch.Generator
            Seeds the samples, one number each.
        constrain : callable, optional
            Changes every estimate of the data, (B, C, Z, Y, X) to the same; holds exactly in the result.

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
        """From the first noise to the data: what makes a sampler that sampler.

        Nothing is read back from the device: the host knows the last step by its number, not by its time of 0.
        """
        raise NotImplementedError


class Ancestral(Sampler):
    """DDPM's random walk back, all steps or evenly chosen ones with the betas of those (Ho et al., algorithm 2)."""

    def __init__(self, config: "AncestralConfig") -> None:
        super().__init__(config.steps, config.clip)
        self.variance = config.variance

    def sampling_loop(self, process: Process, denoise: Denoise, noise: Draws) -> torch.Tensor:
        """See `Sampler.sampling_loop`."""
        if not isinstance(process, LinearBetas):
            raise InputError("ancestral: expected the process linear_betas; use ddim, euler or heun for others")
        times = upload(process.respaced_times(self.steps), noise.device)
        x = noise()
        for i in range(self.steps):
            t, s = times[i], times[i + 1]
            estimate = denoise(x, t)
            if i + 1 == self.steps:
                break
            data, state, *_ = process.posterior(t, s)
            deviation = (0.5 * self._log_variance(process, t, s, estimate)).exp()
            x = data * estimate.data_BCZYX + state * x + deviation * noise()
        return estimate.data_BCZYX

    def _log_variance(self, process: LinearBetas, t: torch.Tensor, s: torch.Tensor, estimate: Estimate) -> torch.Tensor:
        if self.variance == "learned":
            if estimate.variance_BCZYX is None:
                raise InputError("ancestral: variance learned: expected the preconditioning noise_and_variance")
            return learned_log_variance(process, t, s, estimate.variance_BCZYX)
        *_, lower, upper = process.posterior(t, s)
        return lower.log() if self.variance == "small" else upper.log()


class DDIM(Sampler):
    """Steps that keep the estimated noise, or renew a share of it (Song et al., eq. 12 and 16, for any process)."""

    def __init__(self, config: "DDIMConfig") -> None:
        super().__init__(config.steps, config.clip)
        self.eta = config.eta

    def sampling_loop(self, process: Process, denoise: Denoise, noise: Draws) -> torch.Tensor:
        """See `Sampler.sampling_loop`."""
        times = upload(process.sampling_times(self.steps), noise.device)
        alpha, sigma = process.alpha(times), process.sigma(times)
        x = sigma[0] * noise()
        for i in range(self.steps):
            estimate = denoise(x, times[i])
            if i + 1 == self.steps:
                break
            fresh = (1 - (alpha[i] * sigma[i + 1] / (alpha[i + 1] * sigma[i])) ** 2).clamp(min=0).sqrt()
            renewed = self.eta * sigma[i + 1] * fresh
            kept = (sigma[i + 1] ** 2 - renewed**2).sqrt()
            x = alpha[i + 1] * estimate.data_BCZYX + kept * estimate.noise_BCZYX
            if self.eta:
                x = x + renewed * noise()
        return estimate.data_BCZYX


class Euler(Sampler):
    """First-order steps along the velocity; the rectified flow's clock is t itself."""

    def sampling_loop(self, process: Process, denoise: Denoise, noise: Draws) -> torch.Tensor:
        """See `Sampler.sampling_loop`."""
        times = upload(process.sampling_times(self.steps), noise.device)
        x = process.sigma(times[0]) * noise()
        for i in range(self.steps):
            t, s = times[i], times[i + 1]
            estimate = denoise(x, t)
            if i + 1 < self.steps:
                step = process.clock(s) - process.clock(t)
                x = x + step * velocity(process, t, estimate)
        return estimate.data_BCZYX


class Heun(Sampler):
    """Second-order steps: the mean of the velocities at both ends of an Euler step (Karras et al., algorithm 1)."""

    @property
    def evaluations(self) -> int:
        """Two a step, one for the last."""
        return 2 * self.steps - 1

    def sampling_loop(self, process: Process, denoise: Denoise, noise: Draws) -> torch.Tensor:
        """See `Sampler.sampling_loop`."""
        times = upload(process.sampling_times(self.steps), noise.device)
        x = process.sigma(times[0]) * noise()
        for i in range(self.steps):
            t, s = times[i], times[i + 1]
            estimate = denoise(x, t)
            if i + 1 < self.steps:
                step = process.clock(s) - process.clock(t)
                first = velocity(process, t, estimate)
                second = velocity(process, s, denoise(x + step * first, s))
                x = x + step * (first + second) / 2
        return estimate.data_BCZYX


class OneStep(Sampler):
    """The estimate from noise alone: all of a regressor, and the first step of any other sampler."""

    def sampling_loop(self, process: Process, denoise: Denoise, noise: Draws) -> torch.Tensor:
        """See `Sampler.sampling_loop`."""
        t = upload(process.sampling_times(1), noise.device)[0]
        return denoise(process.sigma(t) * noise(), t).data_BCZYX


def velocity(process: Process, t: torch.Tensor, estimate: Estimate) -> torch.Tensor:
    """Rate at which x_t moves with the process's clock, (B, C, Z, Y, X)."""
    a, b = process.velocity(t)
    return a * estimate.data_BCZYX + b * estimate.noise_BCZYX


@dataclass
class _Shared:
    """Options that every sampler has."""

    clip: list[float] = field(default_factory=list)
    """Lowest and highest value of the data, [low, high], that every estimate is cut to; empty: no limits."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        steps = getattr(self, "steps", 1)
        errors = [] if steps >= 1 else [f"steps: {steps}: expected 1 or more"]
        if self.clip and not (len(self.clip) == 2 and self.clip[0] < self.clip[1]):
            errors.append(f"clip: {list(self.clip)}: expected [low, high], or []")
        return errors

    def _check(self, name: str) -> None:
        if errors := self.errors():
            raise InputError(f"{name}: {'; '.join(errors)}")


@dataclass
class _Stepwise(_Shared):
    """Options of samplers that take steps."""

    validation_steps: int | None = None
    """Steps of the samples that training is validated by; null for as many as `steps`."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        few = self.validation_steps is not None and self.validation_steps < 1
        return super().errors() + (
            [f"validation_steps: {self.validation_steps}: expected 1 or more, or null"] if few else []
        )


@dataclass
class AncestralConfig(_Stepwise):
    """DDPM's sampler, DISPR's too."""

    steps: int = 1000
    """Steps from noise to data: all of the process, or fewer, evenly chosen."""
    variance: str = "learned"
    """Of each step: learned (noise_and_variance), small or large (the limits, for data without and with spread)."""

    def errors(self) -> list[str]:
        """What is wrong with the options; see the base."""
        good = self.variance in ("learned", "small", "large")
        return super().errors() + ([] if good else [f"variance: {self.variance!r}: expected learned, small or large"])

    def build(self) -> Ancestral:
        """The sampler; `InputError` if an option is out of range."""
        self._check("ancestral")
        return Ancestral(self)


@dataclass
class DDIMConfig(_Stepwise):
    """Deterministic steps along DDPM's marginals, trailing: the first starts at the very end."""

    steps: int = 50
    """Steps from noise to data."""
    eta: float = 0.0
    """Share of new noise: 0 deterministic, 1 as ancestral with small variance."""

    def errors(self) -> list[str]:
        """What is wrong with the options; see the base."""
        return super().errors() + ([] if 0 <= self.eta <= 1 else [f"eta: {self.eta}: expected 0 to 1"])

    def build(self) -> DDIM:
        """The sampler; `InputError` if an option is out of range."""
        self._check("ddim")
        return DDIM(self)


@dataclass
class EulerConfig(_Stepwise):
    """First-order steps along the velocity."""

    steps: int = 8
    """Steps from noise to data, an evaluation each."""

    def build(self) -> Euler:
        """The sampler; `InputError` if an option is out of range."""
        self._check("euler")
        return Euler(self.steps, self.clip)


@dataclass
class HeunConfig(_Stepwise):
    """Second-order steps along the velocity."""

    steps: int = 4
    """Steps from noise to data, two evaluations each, one for the last."""

    def build(self) -> Heun:
        """The sampler; `InputError` if an option is out of range."""
        self._check("heun")
        return Heun(self.steps, self.clip)


@dataclass
class OneStepConfig(_Shared):
    """One evaluation: the sampler of a regressor."""

    def build(self) -> OneStep:
        """The sampler; `InputError` if an option is out of range."""
        self._check("one_step")
        return OneStep(1, self.clip)


#: The samplers, by name.
SAMPLERS: dict[str, type[AncestralConfig | DDIMConfig | EulerConfig | HeunConfig | OneStepConfig]] = {
    "ancestral": AncestralConfig,
    "ddim": DDIMConfig,
    "euler": EulerConfig,
    "heun": HeunConfig,
    "one_step": OneStepConfig,
}
