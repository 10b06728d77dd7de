"""Masks and labels of several frames and channels in one file, each read when it is accessed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cytovox.errors import InputError
from cytovox.io.orientation import AxisOrientation
from cytovox.io.spacing import StoredSpacing
from cytovox.io.values import as_labels

ZYX = tuple[float, float, float]


@dataclass(frozen=True)
class LabelVolume:
    """Masks or label images (T, C, Z, Y, X) in a file."""

    path: Path
    shape: tuple[int, int, int, int, int]
    spacing_um: ZYX | None
    """z, y, x; None if the file states none."""
    channels: tuple[str, ...] | None
    """Names of the channels; None if the file states none."""
    stored: Callable[[int, int], np.ndarray]
    """Function of (t, c) that returns the values as they are in the file."""
    stored_spacing: StoredSpacing = field(default_factory=StoredSpacing)
    """All entries of the file about its voxel size, for `resolve_spacing` and `match_spacing`. `spacing_um` is the
    unambiguous one."""
    origin_um: ZYX = (0.0, 0.0, 0.0)
    """Centre of voxel (0, 0, 0), z, y, x."""
    notes: tuple[str, ...] = ()
    """Decisions about entries of the file that are not explicit; the caller must report them."""
    colour: bool = False
    """Whether the channels are those of a colour image (RGB, RGBA)."""
    orientation: AxisOrientation | None = None
    """Reorientation of the stored axes to ITK's; None if the file states no directions."""

    def holds(self) -> str:
        """Return what the file holds, for messages."""
        t, c, *zyx = self.shape
        named = f" ({', '.join(self.channels)})" if self.channels and any(self.channels) else ""
        what = "colours" if self.colour else "channels"
        return f"{t} frame{'s' * (t != 1)} of {c} {what if c != 1 else 'channel'}{named}, z, y, x = {tuple(zyx)}"

    def frame(self, t: int = 0, c: int = 0) -> np.ndarray:
        """Return the labels of one frame of one channel.

        Returns
        -------
        integer array, (Z, Y, X)

        Raises
        ------
        InputError
            No such frame or channel, values that are no whole numbers, or a file that cannot be read.
        """
        if not (0 <= t < self.shape[0] and 0 <= c < self.shape[1]):
            raise InputError(
                f"{self.path}: no frame {t} of channel {c}: it has {self.shape[0]} frames and {self.shape[1]} channels"
            )
        return as_labels(self.stored(t, c), self.path)
