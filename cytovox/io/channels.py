"""Find the channel of the refractive index, and channels that are slices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cytovox.errors import InputError
from cytovox.io.volume import default_channels

#: Number of unnamed channels of one slice each from which they are read as slices: no microscope has so many channels.
LEAST_SLICES = 5

#: Names of the refractive index in lower case, without punctuation.
_RI_NAMES = {"ri", "refractiveindex", "ht", "ht3d", "tomogram", "holotomography", "n"}

#: Names that programs give to channels that have none.
_NO_NAME = re.compile(r"(?:channel|chan|ch|c|image|gr[ae]ys?|default|none|undefined)?[\s:_\-#\d]*", re.IGNORECASE)


def name_channels(
    path: object, stored: Sequence[str] | None, count: int
) -> tuple[tuple[str, ...], int | None, tuple[str, ...]]:
    """Return the channel names, the number of the refractive-index channel, and notes for the user on this choice.

    Parameters
    ----------
    path : Path or str
        Named in the notes.
    stored : sequence of str or None
        Names in the file; None if it has none. They are ignored if their number is not `count`.
    count : int
        Number of channels.

    Returns
    -------
    names : tuple of str
        A channel named "refractive index", "HT" and the like is called "RI".
    ri : int or None
        A single channel is taken for the refractive index, independent of its name.
    notes : tuple of str
        Reports this if the channel has another name.
    """
    names = tuple(stored) if stored and len(stored) == count else default_channels(count)
    alike = [k for k, name in enumerate(names) if re.sub(r"[^a-z0-9]", "", name.lower()) in _RI_NAMES]
    if "RI" in names:
        return names, names.index("RI"), ()
    if len(alike) == 1:
        k = alike[0]
        return (*names[:k], "RI", *names[k + 1 :]), k, ()
    if count > 1:
        return names, None, ()
    if _NO_NAME.fullmatch(names[0]):
        return ("RI",), 0, ()
    note = f"{getattr(path, 'name', path)}: its only channel, {names[0]}, is read as the refractive index"
    return names, 0, (note,)


def as_slices(path: object, frames: Any, stored: Sequence[str] | None) -> tuple[Any, str]:
    """Return the frames of a TIFF, with channels converted to slices if they are slices, and a note on the conversion.

    Parameters
    ----------
    path : Path or str
        Named in the note.
    frames : TiffFrames
        Frames with one time point, several channels and one slice.
    stored : sequence of str or None
        Names of the channels.
    """
    count = frames.shape[1]
    named = stored is not None and len(stored) == count and not all(_NO_NAME.fullmatch(name) for name in stored)
    if count < LEAST_SLICES or named or "z" in frames.layout.axes:
        return frames, ""
    layout = replace(frames.layout, axes=frames.layout.axes.replace("c", "z"))
    note = f"{getattr(path, 'name', path)}: its {count} unnamed channels of one slice each are read as slices (z)"
    return replace(frames, layout=layout), note


def require_slices(
    path: object, shape: tuple[int, int, int, int, int], times_s: Sequence[float] | None, stored: Sequence[str] | None
) -> None:
    """Refuse frames of one slice each, because they may be the slices of one image.

    They are accepted if the file states times, or names several channels.

    Raises
    ------
    InputError
        The frames may be slices; the message says what to do.
    """
    t, c, z = shape[:3]
    if t > 1 and z == 1 and times_s is None and not (c > 1 and stored is not None and len(stored) == c):
        raise InputError(
            f"{path}: holds {t} frames of one slice each and states no times: if they are the slices of one image, "
            "save them as slices (Z; in ImageJ: Image > Properties); if they are frames, save their times with them"
        )
