"""Learned variance of DDPM's reverse steps, and the variational bound that trains it.

References
----------
Ho et al. 2020, arXiv 2006.11239, eq. 13.
Nichol & Dhariwal, Improved denoising diffusion probabilistic models, ICML 2021, arXiv 2102.09672, eq. 4 to 7 and 15.
"""

import math

import torch

from cytovox.diffusion.preconditioning import Estimate
from cytovox.diffusion.processes import LinearBetas
from cytovox.errors import InputError

#: Half the width of one of 256 levels between -1 and 1. The likelihood of the last step is that of such a level.
HALF_LEVEL = 1 / 255


def learned_log_variance(
    process: LinearBetas, t: torch.Tensor, s: torch.Tensor, variance_BCZYX: torch.Tensor
) -> torch.Tensor:
    """Return the log variance of the reverse step from t to s, interpolated between its limits (eq. 15).

    Parameters
    ----------
    process : LinearBetas
        The chain.
    t, s : float tensor
        Times, 0 <= s < t, that broadcast against the variance.
    variance_BCZYX : float tensor
        0 is the lower limit, 1 the upper; `Estimate.variance_BCZYX`.

    Returns
    -------
    float tensor, (B, C, Z, Y, X)
        The step to 0 has no lower limit; the limit of the step from t + 1 to t is used instead, as published.
    """
    *_, upper = process.posterior(t, s)
    last = s == 0
    *_, lower, _ = process.posterior(torch.where(last, t + 1, t), torch.where(last, t, s))
    return variance_BCZYX * upper.log() + (1 - variance_BCZYX) * lower.log()


def bound_bits(
    process: LinearBetas, x_BCZYX: torch.Tensor, x0_BCZYX: torch.Tensor, t: torch.Tensor, estimate: Estimate
) -> torch.Tensor:
    """Return one term of the variational bound for every voxel, differentiable in the learned variance only.

    Parameters
    ----------
    process : LinearBetas
        The chain, all of whose steps are used.
    x_BCZYX, x0_BCZYX : float tensor
        Noisy and clean data; the clean data in -1..1.
    t : float tensor, (B, 1, 1, 1, 1)
        The times of x, 1 or more.
    estimate : Estimate
        Estimate of x, with its variance.

    Returns
    -------
    float tensor, (B, C, Z, Y, X)
        Divergence in bits between learned and true reverse step (eq. 5); at t = 1 the negative log likelihood (eq. 4).
    """
    if estimate.variance_BCZYX is None:
        raise InputError("noise_mse_vlb: expected the preconditioning noise_and_variance; this one has no variance")
    data, state, variance, _ = process.posterior(t, t - 1)
    log_learned = learned_log_variance(process, t, t - 1, estimate.variance_BCZYX)
    mean = data * estimate.data_BCZYX.detach() + state * x_BCZYX
    true_mean = data * x0_BCZYX + state * x_BCZYX
    log_true = variance.clamp(min=1e-20).log()  # the variance is 0 at t = 1, where the likelihood is used instead
    divergence = 0.5 * (
        log_learned - log_true - 1 + (log_true - log_learned).exp() + (true_mean - mean).square() / log_learned.exp()
    )
    nats = torch.where(t > 1, divergence, -level_log_likelihood(x0_BCZYX, mean, log_learned))
    return nats / math.log(2)


def level_log_likelihood(x_BCZYX: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Return the log probability that a Gaussian variable lies in the level of x (Ho et al., eq. 13).

    Parameters
    ----------
    x_BCZYX : float tensor
        Data in -1..1; the first and the last of the 256 levels extend to infinity.
    mean, log_variance : float tensor
        Parameters of the Gaussian, same shape.

    Returns
    -------
    float tensor, same shape
        Natural logarithm, never below log 1e-12.
    """
    precision = (-0.5 * log_variance).exp()
    above = torch.special.ndtr((x_BCZYX - mean + HALF_LEVEL) * precision)
    below = torch.special.ndtr((x_BCZYX - mean - HALF_LEVEL) * precision)
    above = torch.where(x_BCZYX > 1 - HALF_LEVEL, torch.ones_like(above), above)
    below = torch.where(x_BCZYX < -1 + HALF_LEVEL, torch.zeros_like(below), below)
    return (above - below).clamp(min=1e-12).log()
