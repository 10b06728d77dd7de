"""Limits on the sizes in a file header, so that the data fit into memory."""

from __future__ import annotations

import psutil

from cytovox.errors import InputError

#: Part of the free memory that one frame may take.
_SHARE = 0.9


#: Frames, or channels, beyond which a header is wrong.
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
        How many are to be read at once.
    bytes_each : int
        Of one voxel, copies included.

    Raises
    ------
    InputError
        More than the free memory.
    """
    needed, free = voxels * bytes_each, psutil.virtual_memory().available
    if needed > _SHARE * free:
        raise InputError(
            f"{path}: {voxels} voxels in one frame need {needed / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB are "
            "free: its header is wrong, or the frame must be cut smaller"
        )
