"""Diffusion models of shapes: process, preconditioning, loss and sampler, chosen by name."""

from cytovox.diffusion.parts import DENOISING_LOSSES, PARTS, combination_errors, part_config
from cytovox.diffusion.preconditioning import PRECONDITIONINGS, Denoiser
from cytovox.diffusion.processes import PROCESSES
from cytovox.diffusion.samplers import SAMPLERS

__all__ = [
    "DENOISING_LOSSES",
    "PARTS",
    "PRECONDITIONINGS",
    "PROCESSES",
    "SAMPLERS",
    "Denoiser",
    "combination_errors",
    "part_config",
]
