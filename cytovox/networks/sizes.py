"""Which input sizes a network can take."""

from collections.abc import Sequence

from cytovox.errors import InputError


def nearest_sizes(size: int, divisor: int, minimum: int) -> list[int]:
    """The legal sizes on either side of an illegal one: multiples of ``divisor``, at least ``minimum``."""
    least = -(-minimum // divisor) * divisor
    below, above = size // divisor * divisor, -(-size // divisor) * divisor
    return sorted({max(below, least), max(above, least)})


def size_errors(shape_ZYX: Sequence[int], divisor: Sequence[int], minimum: Sequence[int]) -> list[str]:
    """What is wrong with a size in voxels, one line an axis, with the nearest legal sizes; empty if nothing."""
    if len(shape_ZYX) != 3:
        return [f"a size of {list(shape_ZYX)}: expected three axes (z, y, x)"]
    errors = []
    for axis, size, div, least in zip("zyx", shape_ZYX, divisor, minimum, strict=True):
        if size % div or size < least:
            near = " or ".join(str(legal) for legal in nearest_sizes(size, div, least))
            errors.append(f"{size} voxels along {axis}: expected a multiple of {div}, at least {least}; use {near}")
    return errors


def check_size(name: str, shape_ZYX: Sequence[int], divisor: Sequence[int], minimum: Sequence[int]) -> None:
    """Raise `InputError` unless a network can take this size.

    Parameters
    ----------
    name : str
        The network, for the message.
    shape_ZYX, divisor, minimum : sequence of int, (z, y, x)
        In voxels.
    """
    if errors := size_errors(shape_ZYX, divisor, minimum):
        raise InputError(f"{name}: {'; '.join(errors)}")
