"""How data become noise: x_t = alpha(t) x_0 + sigma(t) eps, from clean data at t = 0 to (nearly) pure noise at the end.

A process is independent of networks, losses and samplers. Besides alpha and sigma it gives the velocity, the rate at
which x_t moves with the process's own `clock`:

    v = dx / dclock = a x_0 + b eps, and back: x_0 = b x_t - sigma v, eps = -a x_t + alpha v

The clock of the rectified flow is t, with (a, b) = (-1, 1); that of a variance-preserving process is the angle
arctan(sigma / alpha), with (a, b) = (-sigma, alpha). In both alpha b - sigma a = 1, hence the short way back.

References
----------
Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020, arXiv 2006.11239.
Liu et al., Flow straight and fast, ICLR 2023, arXiv 2209.03003 (rectified flow).
Salimans & Ho, Progressive distillation, ICLR 2022, arXiv 2202.00512, appendix D (velocity and angle).
Esser et al., Scaling rectified flow transformers, ICML 2024, arXiv 2403.03206 (logit-normal times).
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from cytovox.diffusion.transfer import upload
from cytovox.errors import InputError


class Process(Protocol):
    """What a process offers; times and results are float tensors of one shape."""

    @property
    def end(self) -> float:
        """The last time, where only noise is left. Clean data are at 0."""

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """The share of the data."""

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """The standard deviation of the noise."""

    def velocity(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(a, b) of the velocity a x_0 + b eps."""

    def clock(self, t: torch.Tensor) -> torch.Tensor:
        """The quantity with which x_t moves at that velocity."""

    def training_times(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> torch.Tensor:
        """So many random times, float32 (n,), on the generator's device or, without one, on the device given."""

    def sampling_times(self, n: int) -> torch.Tensor:
        """The falling times of n steps and the 0 behind them, float32 (n + 1,)."""


class LinearBetas:
    """The variance-preserving Markov chain of DDPM: alpha(t)^2 = product of (1 - beta) up to step t.

    Parameters
    ----------
    config : LinearBetasConfig
        Valid options.
    """

    def __init__(self, config: "LinearBetasConfig") -> None:
        self.steps, self.end = config.steps, float(config.steps)
        beta = torch.linspace(config.beta_first, config.beta_last, config.steps, dtype=torch.float64)
        # float64, and t = 0 in front: 1 - alpha^2 of the first steps has few digits left in float32
        table = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)])
        self._alpha_squared = {table.device: table}

    def alpha_squared(self, t: torch.Tensor) -> torch.Tensor:
        """The signal's share of the variance, float64; t holds whole numbers 0 to steps."""
        if t.device not in self._alpha_squared:  # copied once, or every step would wait for it
            with torch.inference_mode(False):  # else a copy made in a validation could not be used in training
                self._alpha_squared[t.device] = upload(self._alpha_squared[torch.device("cpu")], t.device)
        return self._alpha_squared[t.device].take(t.round().long())  # an index without axes would be read back

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """The share of the data."""
        return self.alpha_squared(t).sqrt().to(t.dtype)

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """The standard deviation of the noise."""
        return (1 - self.alpha_squared(t)).sqrt().to(t.dtype)

    def velocity(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(-sigma, alpha)."""
        return -self.sigma(t), self.alpha(t)

    def clock(self, t: torch.Tensor) -> torch.Tensor:
        """The angle, 0 to nearly pi / 2."""
        return torch.atan2((1 - self.alpha_squared(t)).sqrt(), self.alpha_squared(t).sqrt()).to(t.dtype)

    def training_times(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> torch.Tensor:
        """Uniform over 1 ... steps; see `Process`."""
        device = generator.device if generator else device
        return torch.randint(1, self.steps + 1, (n,), generator=generator, device=device).float()

    def sampling_times(self, n: int) -> torch.Tensor:
        """Trailing: always from the very end, so that few steps start where training says there is only noise.

        Lin et al., Common diffusion noise schedules and sample steps are flawed, WACV 2024, arXiv 2305.08891.
        """
        self._check(n)
        return (self.steps - torch.arange(n + 1, dtype=torch.float64) * self.steps / n).round().float()

    def respaced_times(self, n: int) -> torch.Tensor:
        """Evenly from the last step to the first, both used, and 0: improved-diffusion's respacing."""
        self._check(n)
        used = torch.linspace(self.steps, 1, n, dtype=torch.float64).round()
        return torch.cat([used, torch.zeros(1, dtype=torch.float64)]).float()

    def posterior(self, t: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The step back from t to an earlier s when x_0 is known: q(x_s | x_t, x_0), with the betas of that very step.

        Where a chain uses only some of its times, the step from s to t is one step of a shorter chain whose beta is
        1 - alpha_t^2 / alpha_s^2 (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 19).

        Parameters
        ----------
        t, s : float tensor
            Whole numbers, 0 <= s < t.

        Returns
        -------
        weight of x_0, weight of x_t, variance, beta : float tensor
            The mean's two weights and the variance of eq. 10 and 11 there; beta is the variance's upper limit.
        """
        alpha_t, alpha_s = self.alpha_squared(t), self.alpha_squared(s)
        kept = alpha_t / alpha_s
        data = alpha_s.sqrt() * (1 - kept) / (1 - alpha_t)
        state = kept.sqrt() * (1 - alpha_s) / (1 - alpha_t)
        variance = (1 - kept) * (1 - alpha_s) / (1 - alpha_t)
        return data.to(t.dtype), state.to(t.dtype), variance.to(t.dtype), (1 - kept).to(t.dtype)

    def _check(self, n: int) -> None:
        if not 1 <= n <= self.steps:
            raise InputError(f"sampler: {n} steps: expected 1 to {self.steps}, the process's own")


class RectifiedFlow:
    """The straight line from data to noise: x_t = (1 - t) x_0 + t eps, 0 <= t <= 1.

    Parameters
    ----------
    config : RectifiedFlowConfig
        Valid options.
    """

    end = 1.0

    def __init__(self, config: "RectifiedFlowConfig") -> None:
        self.config = config

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """The share of the data: 1 - t."""
        return 1 - t

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """The standard deviation of the noise: t."""
        return t

    def velocity(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(-1, 1): the velocity is eps - x_0, the same along the whole line."""
        return -torch.ones_like(t), torch.ones_like(t)

    def clock(self, t: torch.Tensor) -> torch.Tensor:
        """The time itself."""
        return t

    def training_times(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> torch.Tensor:
        """In (0, 1], by the config's density; see `Process`."""
        device = generator.device if generator else device
        if self.config.density == "uniform":
            return 1 - torch.rand(n, generator=generator, device=device)
        normal = torch.randn(n, generator=generator, device=device)
        return torch.sigmoid(self.config.mean + self.config.std * normal).clamp(min=1e-5)

    def sampling_times(self, n: int) -> torch.Tensor:
        """Evenly from 1 to 0."""
        if n < 1:
            raise InputError(f"sampler: {n} steps: expected 1 or more")
        return torch.linspace(1, 0, n + 1)


class Direct:
    """No noise at all: the shape from its condition in one step, as a regressor does. x_t is 0 at the only time, 1."""

    end = 1.0

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """1 at t = 0, 0 at t = 1."""
        return 1 - t

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """0."""
        return torch.zeros_like(t)

    def velocity(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(-1, 0)."""
        return -torch.ones_like(t), torch.zeros_like(t)

    def clock(self, t: torch.Tensor) -> torch.Tensor:
        """The time itself."""
        return t

    def training_times(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> torch.Tensor:
        """1 for every sample; see `Process`."""
        return torch.ones(n, device=generator.device if generator else device)

    def sampling_times(self, n: int) -> torch.Tensor:
        """1, then 0."""
        if n != 1:
            raise InputError(f"sampler: {n} steps: a direct regressor has 1; use the sampler one_step")
        return torch.tensor([1.0, 0.0])


@dataclass
class LinearBetasConfig:
    """DDPM's chain, DISPR's too: betas that grow linearly."""

    steps: int = 1000
    """Steps from data to noise."""
    beta_first: float = 1e-4
    """Variance of the noise added by the first step."""
    beta_last: float = 0.02
    """Variance of the noise added by the last step."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        errors = [] if self.steps >= 2 else [f"steps: {self.steps}: expected 2 or more"]
        if not 0 < self.beta_first <= self.beta_last < 1:
            errors.append(f"beta_first, beta_last: {self.beta_first}, {self.beta_last}: expected 0 < first <= last < 1")
        return errors

    def build(self) -> LinearBetas:
        """The process; `InputError` if an option is out of range."""
        if errors := self.errors():
            raise InputError(f"linear_betas: {'; '.join(errors)}")
        return LinearBetas(self)


@dataclass
class RectifiedFlowConfig:
    """Straight lines from data to noise."""

    density: str = "uniform"
    """Of the training times: uniform, or logit_normal, which trains the middle more than the ends."""
    mean: float = 0.0
    """Of logit_normal: the mean of log(t / (1 - t)); above 0 turns to noisier times."""
    std: float = 1.0
    """Of logit_normal: the standard deviation of log(t / (1 - t))."""

    def errors(self) -> list[str]:
        """What is wrong with the options; empty where all is well."""
        errors = []
        if self.density not in ("uniform", "logit_normal"):
            errors.append(f"density: {self.density!r}: expected uniform or logit_normal")
        if not 0 < self.std < float("inf"):
            errors.append(f"std: {self.std}: expected more than 0")
        if not abs(self.mean) < float("inf"):
            errors.append(f"mean: {self.mean}: expected a number")
        return errors

    def build(self) -> RectifiedFlow:
        """The process; `InputError` if an option is out of range."""
        if errors := self.errors():
            raise InputError(f"rectified_flow: {'; '.join(errors)}")
        return RectifiedFlow(self)


@dataclass
class DirectConfig:
    """One step without noise: a regressor. It has no options."""

    def errors(self) -> list[str]:
        """Nothing can be wrong."""
        return []

    def build(self) -> Direct:
        """The process."""
        return Direct()


#: The processes, by name.
PROCESSES: dict[str, type[LinearBetasConfig | RectifiedFlowConfig | DirectConfig]] = {
    "linear_betas": LinearBetasConfig,
    "rectified_flow": RectifiedFlowConfig,
    "direct": DirectConfig,
}
