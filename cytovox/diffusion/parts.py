"""The four parts of a shape model: their names, and which parts fit together.

Process, preconditioning, loss and sampler are chosen independently, as in k-diffusion and EDM (Karras et al. 2022,
arXiv 2206.00364). A regressor has the process direct and the sampler one_step.
"""

from collections.abc import Mapping

from cytovox.diffusion.denoising import (
    DataL1Config,
    DataL1DiceConfig,
    DataLossConfig,
    DataMSEConfig,
    NoiseMSEConfig,
    NoiseMSEVLBConfig,
    VelocityMSEConfig,
)
from cytovox.diffusion.preconditioning import PRECONDITIONINGS, DataConfig
from cytovox.diffusion.processes import PROCESSES
from cytovox.diffusion.samplers import SAMPLERS, AncestralConfig
from cytovox.options import entry_of

#: The losses, by name.
DENOISING_LOSSES: dict[str, type[NoiseMSEConfig | NoiseMSEVLBConfig | VelocityMSEConfig | DataLossConfig]] = {
    "noise_mse": NoiseMSEConfig,
    "noise_mse_vlb": NoiseMSEVLBConfig,
    "velocity_mse": VelocityMSEConfig,
    "data_mse": DataMSEConfig,
    "data_l1": DataL1Config,
    "data_l1_dice": DataL1DiceConfig,
}

#: The config classes of each part of a shape model, by name.
PARTS: dict[str, Mapping[str, type]] = {
    "process": PROCESSES,
    "preconditioning": PRECONDITIONINGS,
    "loss": DENOISING_LOSSES,
    "sampler": SAMPLERS,
}


def part_config(part: str, name: str) -> type:
    """Return the config class of a part.

    Parameters
    ----------
    part : str
        One of `PARTS`.
    name : str
        Name of the process, preconditioning, loss or sampler.

    Raises
    ------
    InputError
        No such name. The message gives the most similar name and all names.
    """
    return entry_of(PARTS[part], name, part)


def combination_errors(process: object, preconditioning: object, loss: object, sampler: object) -> list[str]:
    """Return the reasons why parts do not fit together.

    Parameters
    ----------
    process, preconditioning, loss, sampler : config
        Valid configs of the classes in `PARTS`, or of their subclasses.

    Returns
    -------
    list of str
        One line per error: the part, the reason, and what to use instead.
    """
    names = {
        part: next(name for kind in type(config).__mro__ for name, known in PARTS[part].items() if kind is known)
        for part, config in zip(PARTS, (process, preconditioning, loss, sampler), strict=True)
    }
    checks = _direct_checks(names, preconditioning, loss) if names["process"] == "direct" else _noise_checks(names)
    learned = isinstance(sampler, AncestralConfig) and sampler.variance == "learned"
    checks.append(
        (
            learned and names["preconditioning"] != "noise_and_variance",
            "sampler: variance learned: expected the preconditioning noise_and_variance; use small or large",
        )
    )
    if isinstance(preconditioning, DataConfig) and isinstance(loss, DataMSEConfig | DataL1Config):
        scaled, std = preconditioning.scaling == loss.weighting == "edm", preconditioning.data_std
        message = f"loss: data_std: {loss.data_std}: expected {std}, as in the preconditioning"
        checks.append((scaled and loss.data_std != std, message))
    return [message for wrong, message in checks if wrong]


def _direct_checks(names: dict[str, str], preconditioning: object, loss: object) -> list[tuple[bool, str]]:
    """Return errors of a regressor, which has neither noise nor times, and whether each of them applies."""
    unscaled = isinstance(preconditioning, DataConfig) and preconditioning.scaling == "none"
    weighted = isinstance(loss, DataMSEConfig | DataL1Config) and loss.weighting != "uniform"
    return [
        (
            not unscaled,
            "preconditioning: the process direct has no noise to scale by: expected data with scaling none",
        ),
        (
            not isinstance(loss, DataLossConfig) or weighted,
            "loss: the process direct has a single time: expected data_mse, data_l1 or data_l1_dice, weighting uniform",
        ),
        (
            names["sampler"] != "one_step",
            f"sampler: {names['sampler']}: expected one_step, as the process direct has one step",
        ),
    ]


def _noise_checks(names: dict[str, str]) -> list[tuple[bool, str]]:
    """Return errors of a process with noise, and whether each of them applies.

    Some parts need the chain of DDPM; the variance must be both predicted and trained, or neither.
    """
    process, preconditioning, loss, sampler = (names[part] for part in PARTS)
    chain, predicted, trained = (
        process == "linear_betas", preconditioning == "noise_and_variance", loss == "noise_mse_vlb",
    )  # fmt: skip
    return [
        (
            preconditioning in ("noise", "noise_and_variance") and not chain,
            f"preconditioning: {preconditioning}: pure noise contains no information about the data, and {process} "
            "starts from it: expected velocity or data, or the process linear_betas",
        ),
        (
            sampler == "ancestral" and not chain,
            "sampler: ancestral: expected the process linear_betas; use ddim, euler or heun",
        ),
        (
            trained and not predicted,
            "loss: noise_mse_vlb: expected the preconditioning noise_and_variance; use noise_mse",
        ),
        (predicted and not trained, f"loss: {loss}: would not train the variance: expected noise_mse_vlb"),
    ]
