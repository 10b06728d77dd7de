"""Input sizes that a network accepts."""

from collections.abc import Sequence

from cytovox.options import raise_errors


def nearest_sizes(size: int, divisor: int, minimum: int) -> list[int]:
    """Return the valid sizes just below and above an invalid one: multiples of ``divisor``, at least ``minimum``."""
    least = -(-minimum // divisor) * divisor
    below, above = size // divisor * divisor, -(-size // divisor) * divisor
    return sorted({max(below, least), max(above, least)})


def size_errors(shape_ZYX: Sequence[int], divisor: Sequence[int], minimum: Sequence[int]) -> list[str]:
    """Return what is wrong with a size in voxels, one line per axis, with the nearest valid sizes."""
    if len(shape_ZYX) != 3:
        return [f"a size of {list(shape_ZYX)}: expected three axes (z, y, x)"]
    errors = []
    for axis, size, div, least in zip("zyx", shape_ZYX, divisor, minimum, strict=True):
        if size % div or size < least:
            near = " or ".join(map(str, nearest_sizes(size, div, least)))
            errors.append(f"{size} voxels along {axis}: expected a multiple of {div}, at least {least}; use {near}")
    return errors


def check_size(name: str, shape_ZYX: Sequence[int], divisor: Sequence[int], minimum: Sequence[int]) -> None:
    """Raise `InputError` unless a network accepts this size.

    Parameters
    ----------
    name : str
        Name of the network, for the message.
    shape_ZYX, divisor, minimum : sequence of int, (z, y, x)
        Size, divisor and minimum in voxels.
    """
    raise_errors(name, size_errors(shape_ZYX, divisor, minimum))
