"""Options whose default depends on the device: batch sizes and compilation."""

from typing import Any

from cytovox.errors import InputError
from cytovox.inference.compiled import Compile
from cytovox.inference.device import uses_cuda


def is_batch_size(value: Any) -> bool:
    """Return whether a value is `auto` or a whole number."""
    return value == "auto" or (isinstance(value, int) and not isinstance(value, bool))


#: Metadata of a config field that holds a batch size.
BATCH_SIZE = {"accepts": is_batch_size, "expects": "a whole number or auto"}


def batch_size_errors(wanted: int | str) -> list[str]:
    """Return the error of `predict.batch_size`, if any."""
    valid = wanted == "auto" or int(wanted) >= 1
    return [] if valid else [f"predict.batch_size: expected auto, 1 or more, got {wanted}"]


def compile_errors(compile: Compile, accelerator: str) -> list[str]:
    """Return the error of `predict.compile` for this accelerator, if any."""
    valid = compile != "cuda_graphs" or accelerator not in ("cpu", "mps")
    return [] if valid else [_needs_cuda("predict.compile", f"trainer.accelerator is {accelerator}")]


def require_compilable(compile: Compile, accelerator: str, key: str) -> None:
    """Raise `InputError` if CUDA graphs are requested without a CUDA device.

    Parameters
    ----------
    compile : str
        One of `cytovox.inference.compiled.Compile`.
    accelerator : str
        Value of `trainer.accelerator`.
    key : str
        Key path of the option, for the message.

    Raises
    ------
    InputError
        `compile` is `cuda_graphs` and no CUDA device would be used.
    """
    if compile == "cuda_graphs" and not uses_cuda(accelerator):
        raise InputError(_needs_cuda(key, "this machine has none"))


def _needs_cuda(key: str, why: str) -> str:
    return f"{key}: cuda_graphs needs a CUDA device, but {why}; choose none or default"
