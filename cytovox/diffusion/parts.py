"""The four parts of a shape model together: names, and which go with which.

A process, a preconditioning, a loss and a sampler are chosen apart, the way k-diffusion and EDM (Karras et al. 2022,
arXiv 2206.00364) separate them. A regressor is the same with the process direct and the sampler one_step.
"""

import difflib
from collections.abc import Mapping

from cytovox.diffusion.data_losses import DataL1Config, DataL1DiceConfig, DataLossConfig, DataMSEConfig
from cytovox.diffusion.denoising import NoiseMSEConfig, NoiseMSEVLBConfig, VelocityMSEConfig
from cytovox.diffusion.preconditioning import PRECONDITIONINGS, DataConfig
from cytovox.diffusion.processes import PROCESSES
from cytovox.diffusion.samplers import SAMPLERS, AncestralConfig
from cytovox.errors import InputError

#: The losses, by name.
DENOISING_LOSSES: dict[str, type[NoiseMSEConfig | NoiseMSEVLBConfig | VelocityMSEConfig | DataLossConfig]] = {
    "noise_mse": NoiseMSEConfig,
    "noise_mse_vlb": NoiseMSEVLBConfig,
    "velocity_mse": VelocityMSEConfig,
    "data_mse": DataMSEConfig,
    "data_l1": DataL1Config,
    "data_l1_dice": DataL1DiceConfig,
}

#: The parts of a shape model and, of each, the config classes by name.
PARTS: dict[str, Mapping[str, type]] = {
    "process": PROCESSES,
    "preconditioning": PRECONDITIONINGS,
    "loss": DENOISING_LOSSES,
    "sampler": SAMPLERS,
}


def part_config(part: str, name: str) -> type:
    """The config class of a part.

    Parameters
    ----------
    part : str
        One of `PARTS`.
    name : str
        Of the process, preconditioning, loss or sampler.

    Raises
    ------
    InputError
        No such name; the message gives the nearest and all known ones.
    """
    known = PARTS[part]
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"{part} {name!r}: no such {part}; {hint}known: {', '.join(known)}")
    return known[name]


def combination_errors(process: object, preconditioning: object, loss: object, sampler: object) -> list[str]:
    """What is wrong between parts, each of which is valid alone.

    Parameters
    ----------
    process, preconditioning, loss, sampler : config
        Of the classes in `PARTS`, or of their subclasses.

    Returns
    -------
    list of str
        One line a error: which part, why, and what to use; empty where all is well.
    """
    names = {
        part: next(name for kind in type(config).__mro__ for name, known in PARTS[part].items() if kind is known)
        for part, config in zip(PARTS, (process, preconditioning, loss, sampler), strict=True)
    }
    if names["process"] == "direct":
        errors = _direct_errors(names, preconditioning, loss)
    else:
        errors = _noise_errors(names)
    learned = isinstance(sampler, AncestralConfig) and sampler.variance == "learned"
    if learned and names["preconditioning"] != "noise_and_variance":
        errors.append("sampler: variance learned: expected the preconditioning noise_and_variance; use small or large")
    return errors + _scale_errors(preconditioning, loss)


def _scale_errors(preconditioning: object, loss: object) -> list[str]:
    """EDM's scaling and EDM's weighting are of the same data."""
    if not (isinstance(preconditioning, DataConfig) and isinstance(loss, DataMSEConfig | DataL1Config)):
        return []
    stds, both = (preconditioning.data_std, loss.data_std), preconditioning.scaling == loss.weighting == "edm"
    same = stds[0] == stds[1] or not both
    return [] if same else [f"loss: data_std: {stds[1]}: expected {stds[0]}, as in the preconditioning"]


def _direct_errors(names: dict[str, str], preconditioning: object, loss: object) -> list[str]:
    """A regressor has neither noise nor times."""
    errors = []
    if not (isinstance(preconditioning, DataConfig) and preconditioning.scaling == "none"):
        errors.append("preconditioning: the process direct has no noise to scale by: expected data with scaling none")
    weighted = isinstance(loss, DataMSEConfig | DataL1Config) and loss.weighting != "uniform"
    if not isinstance(loss, DataLossConfig) or weighted:
        errors.append(
            "loss: the process direct has a single time: expected data_mse, data_l1 or data_l1_dice, weighting uniform"
        )
    if names["sampler"] != "one_step":
        errors.append(f"sampler: {names['sampler']}: expected one_step, as the process direct has one step")
    return errors


def _noise_errors(names: dict[str, str]) -> list[str]:
    """What asks for DDPM's chain, and what asks for its variance."""
    errors, chain = [], names["process"] == "linear_betas"
    if names["preconditioning"] in ("noise", "noise_and_variance") and not chain:
        errors.append(
            f"preconditioning: {names['preconditioning']}: pure noise says nothing of the data, and {names['process']} "
            "starts from it: expected velocity or data, or the process linear_betas"
        )
    if names["sampler"] == "ancestral" and not chain:
        errors.append("sampler: ancestral: expected the process linear_betas; use ddim, euler or heun")
    learns = names["loss"] == "noise_mse_vlb"
    if learns and names["preconditioning"] != "noise_and_variance":
        errors.append("loss: noise_mse_vlb: expected the preconditioning noise_and_variance; use noise_mse")
    if names["preconditioning"] == "noise_and_variance" and not learns:
        errors.append(f"loss: {names['loss']}: would not train the variance: expected noise_mse_vlb")
    return errors
