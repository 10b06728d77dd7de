"""Limit the sizes in a file header, so that the data fit into memory."""

from __future__ import annotations

import psutil

from cytovox.errors import InputError

#: Fraction of the free memory that one frame may take.
_SHARE = 0.9


#: Number of frames or channels above which a header is wrong.
_MOST = 1_000_000


def require_count(path: object, frames: int, channels: int) -> None:
    """Raise InputError if a header has more frames or channels than any recording."""
    if max(frames, channels) > _MOST:
        raise InputError(f"{path}: its header states {frames} frames and {channels} channels: it is wrong")


def require_memory(path: object, voxels: int, bytes_each: int) -> None:
    """Raise InputError if the data do not fit into memory: the header is wrong, or the file is too large.

    Parameters
    ----------
    path : Path or str
        Named in the message.
    voxels : int
        Number of voxels to read at once.
    bytes_each : int
        Bytes per voxel, including copies.

    Raises
    ------
    InputError
        The data need more than the free memory.
    """
    needed, free = voxels * bytes_each, psutil.virtual_memory().available
    if needed > _SHARE * free:
        raise InputError(
            f"{path}: {voxels} voxels in one frame need {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are "
            "free: its header is wrong, or the frame must be cut smaller"
        )
