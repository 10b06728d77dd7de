"""What is minimised and sampled. No parameters in this room."""

from objectives.diffusion import DENOISING_LOSSES, PARTS, combination_faults, part_config
from objectives.preconditioning import PRECONDITIONINGS, Denoiser
from objectives.processes import PROCESSES
from objectives.samplers import SAMPLERS
from objectives.segmentation import LOSSES, loss_config

__all__ = [
    "DENOISING_LOSSES",
    "LOSSES",
    "PARTS",
    "PRECONDITIONINGS",
    "PROCESSES",
    "SAMPLERS",
    "Denoiser",
    "combination_faults",
    "loss_config",
    "part_config",
]
