"""Precisions of prediction."""

from contextlib import AbstractContextManager, nullcontext

import torch

from cytovox.errors import InputError

#: Lightning's names of precisions, with the type that autocast computes in.
PRECISIONS: dict[str, torch.dtype | None] = {
    "32-true": None,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}


def autocast(device: str, precision: str, cache: bool = True) -> AbstractContextManager:
    """Return the context in which a network computes in a precision, given by Lightning's name.

    Parameters
    ----------
    device : str
        Type of the device: cpu, cuda.
    precision : str
        One of `PRECISIONS`.
    cache : bool
        Keep cast weights until the context ends.

    Raises
    ------
    InputError
        Another precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device, dtype=dtype, cache_enabled=cache)
