"""Processes that turn data into noise: x_t = alpha(t) x_0 + sigma(t) eps, from data at t = 0 to noise at the end.

A process is independent of networks, losses and samplers. Besides alpha and sigma it defines a velocity, the derivative
of x_t with respect to the process's `clock`:

    v = dx / dclock = a x_0 + b eps, and inversely x_0 = b x_t - sigma v, eps = -a x_t + alpha v

The clock of the rectified flow is t, with (a, b) = (-1, 1). The clock of a variance-preserving process is the angle
arctan(sigma / alpha), with (a, b) = (-sigma, alpha). Both have alpha b - sigma a = 1, which makes the inverse simple.

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
from cytovox.options import NoOptions, option_errors, raise_errors


class Process(Protocol):
    """Interface of a process; times and results are float tensors of the same shape."""

    @property
    def end(self) -> float:
        """The last time, where only noise is left. Clean data are at 0."""

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Return the factor of the data."""

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Return the standard deviation of the noise."""

    def velocity(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (a, b) of the velocity a x_0 + b eps."""

    def clock(self, t: torch.Tensor) -> torch.Tensor:
        """Return the quantity that the velocity is a derivative with respect to."""

    def training_times(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> torch.Tensor:
        """Return n random times, float32 (n,), on the generator's device or, without a generator, on `device`."""

    def sampling_times(self, n: int) -> torch.Tensor:
        """Return the decreasing times of n steps, followed by 0, float32 (n + 1,)."""


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
        # starts with t = 0; float64, because 1 - alpha^2 of the first steps loses most digits in float32
        table = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)])
        self._alpha_squared = {table.device: table}

    def alpha_squared(self, t: torch.Tensor) -> torch.Tensor:
        """Return the data's fraction of the variance, float64; t holds whole numbers from 0 to steps."""
        if t.device not in self._alpha_squared:  # copied once, so that steps do not wait for a copy
            with torch.inference_mode(False):  # or training could not use a copy that was made during validation
                self._alpha_squared[t.device] = upload(self._alpha_squared[torch.device("cpu")], t.device)
        return self._alpha_squared[t.device].take(t.round().long())  # indexing with a scalar tensor would synchronise

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Return the factor of the data."""
        return self.alpha_squared(t).sqrt().to(t.dtype)

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Return the standard deviation of the noise."""
        return (1 - self.alpha_squared(t)).sqrt().to(t.dtype)

    def velocity(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (-sigma, alpha)."""
        return -self.sigma(t), self.alpha(t)

    def clock(self, t: torch.Tensor) -> torch.Tensor:
        """Return the angle, 0 to nearly pi / 2."""
        return torch.atan2((1 - self.alpha_squared(t)).sqrt(), self.alpha_squared(t).sqrt()).to(t.dtype)

    def training_times(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> torch.Tensor:
        """Return times that are uniform over 1 ... steps; see `Process`."""
        device = generator.device if generator else device
        return torch.randint(1, self.steps + 1, (n,), generator=generator, device=device).float()

    def sampling_times(self, n: int) -> torch.Tensor:
        """Return trailing times: the first is the end of the process, where training has pure noise, for any n.

        Lin et al., Common diffusion noise schedules and sample steps are flawed, WACV 2024, arXiv 2305.08891.
        """
        self._check(n)
        return (self.steps - torch.arange(n + 1, dtype=torch.float64) * self.steps / n).round().float()

    def respaced_times(self, n: int) -> torch.Tensor:
        """Return evenly spaced times from the last step to the first, then 0, as improved-diffusion's respacing."""
        self._check(n)
        used = torch.linspace(self.steps, 1, n, dtype=torch.float64).round()
        return torch.cat([used, torch.zeros(1, dtype=torch.float64)]).float()

    def posterior(self, t: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the posterior q(x_s | x_t, x_0) of the reverse step from t to an earlier s.

        A chain that uses only some of its times is a shorter chain: the beta of the step from s to t is
        1 - alpha_t^2 / alpha_s^2 (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 19).

        Parameters
        ----------
        t, s : float tensor
            Whole numbers, 0 <= s < t.

        Returns
        -------
        weight of x_0, weight of x_t, variance, beta : float tensor
            The two weights of the mean and the variance (eq. 10 and 11 there); beta is the variance's upper limit.
        """
        alpha_t, alpha_s = self.alpha_squared(t), self.alpha_squared(s)
        kept = alpha_t / alpha_s
        data = alpha_s.sqrt() * (1 - kept) / (1 - alpha_t)
        state = kept.sqrt() * (1 - alpha_s) / (1 - alpha_t)
        variance = (1 - kept) * (1 - alpha_s) / (1 - alpha_t)
        return data.to(t.dtype), state.to(t.dtype), variance.to(t.dtype), (1 - kept).to(t.dtype)

    def _check(self, n: int) -> None:
        if not 1 <= n <= self.steps:
            raise InputError(f"sampler: {n} steps: expected 1 to {self.steps}, the steps of the process")


class _LinearTime:
    """Data that decrease linearly from t = 0 to t = 1."""

    end = 1.0

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Return the factor of the data, 1 - t."""
        return 1 - t

    def clock(self, t: torch.Tensor) -> torch.Tensor:
        """Return the time itself."""
        return t


class RectifiedFlow(_LinearTime):
    """Straight lines from data to noise: x_t = (1 - t) x_0 + t eps, 0 <= t <= 1.

    Parameters
    ----------
    config : RectifiedFlowConfig
        Valid options.
    """

    def __init__(self, config: "RectifiedFlowConfig") -> None:
        self.config = config

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Return the standard deviation of the noise, t."""
        return t

    def velocity(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (-1, 1): the velocity is eps - x_0 at all times."""
        return -torch.ones_like(t), torch.ones_like(t)

    def training_times(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> torch.Tensor:
        """Return times in (0, 1] with the density of the config; see `Process`."""
        device = generator.device if generator else device
        if self.config.density == "uniform":
            return 1 - torch.rand(n, generator=generator, device=device)
        normal = torch.randn(n, generator=generator, device=device)
        return torch.sigmoid(self.config.mean + self.config.std * normal).clamp(min=1e-5)

    def sampling_times(self, n: int) -> torch.Tensor:
        """Return evenly spaced times from 1 to 0."""
        if n < 1:
            raise InputError(f"sampler: {n} steps: expected 1 or more")
        return torch.linspace(1, 0, n + 1)


class Direct(_LinearTime):
    """Regression without noise: the shape is predicted from its condition in one step, from x_t = 0 at t = 1."""

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Return 0."""
        return torch.zeros_like(t)

    def velocity(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (-1, 0)."""
        return -torch.ones_like(t), torch.zeros_like(t)

    def training_times(
        self, n: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> torch.Tensor:
        """Return 1 for every sample; see `Process`."""
        return torch.ones(n, device=generator.device if generator else device)

    def sampling_times(self, n: int) -> torch.Tensor:
        """Return 1 and 0."""
        if n != 1:
            raise InputError(f"sampler: {n} steps: a direct regressor has 1; use the sampler one_step")
        return torch.tensor([1.0, 0.0])


@dataclass
class LinearBetasConfig:
    """Markov chain of DDPM and DISPR, whose betas increase linearly."""

    steps: int = 1000
    """Number of steps from data to noise."""
    beta_first: float = 1e-4
    """Variance of the noise added by the first step."""
    beta_last: float = 0.02
    """Variance of the noise added by the last step."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        errors = option_errors(self, ("steps", self.steps >= 2, "2 or more"))
        if not 0 < self.beta_first <= self.beta_last < 1:
            errors.append(f"beta_first, beta_last: {self.beta_first}, {self.beta_last}: expected 0 < first <= last < 1")
        return errors

    def build(self) -> LinearBetas:
        """Return the process; raise `InputError` if an option is out of range."""
        raise_errors("linear_betas", self.errors())
        return LinearBetas(self)


@dataclass
class RectifiedFlowConfig:
    """Straight lines from data to noise."""

    density: str = "uniform"
    """Density of the training times: uniform, or logit_normal, which favours times in the middle."""
    mean: float = 0.0
    """Mean of log(t / (1 - t)) in logit_normal; a value above 0 favours noisier times."""
    std: float = 1.0
    """Standard deviation of log(t / (1 - t)) in logit_normal."""

    def errors(self) -> list[str]:
        """Return what is wrong with the options, one line per error."""
        return option_errors(
            self,
            ("density", self.density in ("uniform", "logit_normal"), "uniform or logit_normal"),
            ("std", 0 < self.std < float("inf"), "more than 0"),
            ("mean", abs(self.mean) < float("inf"), "a number"),
        )

    def build(self) -> RectifiedFlow:
        """Return the process; raise `InputError` if an option is out of range."""
        raise_errors("rectified_flow", self.errors())
        return RectifiedFlow(self)


@dataclass
class DirectConfig(NoOptions):
    """Regression in one step without noise. No options."""

    def build(self) -> Direct:
        """Return the process."""
        return Direct()


#: The processes, by name.
PROCESSES: dict[str, type[LinearBetasConfig | RectifiedFlowConfig | DirectConfig]] = {
    "linear_betas": LinearBetasConfig,
    "rectified_flow": RectifiedFlowConfig,
    "direct": DirectConfig,
}
