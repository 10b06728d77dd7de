"""Fluorescence channels of a volume on the grid of its tomogram, and their background."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage as ndi

from cytovox.io.regions import Box
from cytovox.io.tcf import TcfFrames
from cytovox.io.tcf_fluorescence import covered_ZYX, match_frames, resample_linear
from cytovox.io.volume import ZYX, ArrayFrames, Volume

#: Distance from cells within which light of cells is not background, in µm.
AWAY_UM = 1.5
#: Smallest number of background voxels.
MIN_VOXELS = 200


@dataclass(frozen=True, eq=False)
class Channel:
    """One frame of a fluorescence channel on the grid of the tomogram."""

    values_ZYX: np.ndarray
    """float32; 0 outside the field."""
    field_ZYX: np.ndarray
    """bool, where the channel was recorded."""
    voxel_um3: float
    """Volume of a voxel of the grid on which the channel was recorded."""
    slices: int
    """Number of slices that were recorded; 1 for a projection."""

    def crop(self, box: Box) -> Channel:
        """Return the channel inside a box."""
        return replace(self, values_ZYX=self.values_ZYX[box], field_ZYX=self.field_ZYX[box])

    def above_background(self, cells_ZYX: np.ndarray, spacing_um: ZYX) -> Channel:
        """Return the channel minus its background, see `background_level`; NaN where cells leave none."""
        found = background_level(self.values_ZYX, cells_ZYX, self.field_ZYX, spacing_um)
        return replace(self, values_ZYX=self.values_ZYX - np.float32(np.nan if found is None else found[0]))


def fluorescence_channels(volume: Volume) -> tuple[str, ...]:
    """Return the names of a volume's fluorescence channels.

    These are the channels of Data/3DFL of a TCF file, and all channels besides "RI" of a volume that was made of an
    array. Files of other formats do not say what their channels are: none.
    """
    if isinstance(volume.frames, TcfFrames):
        return volume.frames.fluorescence.names if volume.frames.fluorescence is not None else ()
    if isinstance(volume.frames, ArrayFrames) and volume.source is None and "RI" in volume.channels:
        return tuple(name for name in volume.channels if name != "RI")
    return ()


def read_channel(volume: Volume, t: int, name: str, offset_um: ZYX = (0.0, 0.0, 0.0)) -> Channel:
    """Read a fluorescence channel of a frame, linearly interpolated on the tomogram's grid.

    Parameters
    ----------
    volume : Volume
    t : int
        Frame of the tomogram.
    name : str
        One of `fluorescence_channels`.
    offset_um : (z, y, x)
        Displacement to undo: what appears at p + offset in the channel is returned at p.

    Raises
    ------
    InputError
        No such channel or frame, or the file cannot be read.
    """
    c = volume.channel_index(name)
    frames, shape = volume.frames, volume.shape[2:]
    if isinstance(frames, TcfFrames) and frames.fluorescence is not None and c > 0:
        stored, spacing = frames.fluorescence, frames.fluorescence.stacks[c - 1].spacing_um
        values = stored.read_own(match_frames(frames.stack, stored.stacks[c - 1])[t], c - 1)
        first, target = stored.origins_um[c - 1], frames.stack.spacing_um
    else:
        values, spacing, first, target = volume.frame(t, c), volume.spacing_um, (0.0, 0.0, 0.0), volume.spacing_um
    origin = (first[0] - offset_um[0], first[1] - offset_um[1], first[2] - offset_um[2])
    field = covered_ZYX(values.shape, spacing, origin, shape, target)
    resampled = resample_linear(values, spacing, origin, shape, target)
    return Channel(resampled, field, float(np.prod(spacing)), int(values.shape[0]))


def background_level(
    values_ZYX: np.ndarray, cells_ZYX: np.ndarray, field_ZYX: np.ndarray, spacing_um: ZYX
) -> tuple[float, float] | None:
    """Return median and standard deviation of a channel away from cells; None if cells leave too few voxels.

    Parameters
    ----------
    values_ZYX : float array, (Z, Y, X)
        The channel.
    cells_ZYX : integer array, (Z, Y, X)
        0 outside cells.
    field_ZYX : bool array, (Z, Y, X)
        False outside the field of the channel.
    spacing_um : (z, y, x)
        Voxel size in µm.

    Returns
    -------
    (float, float) or None
        The standard deviation is 1.4826 times the median absolute deviation.
    """
    if not (cells_ZYX == 0).any():
        return None
    steps = [2 * max(1, round(AWAY_UM / s)) + 1 for s in spacing_um]
    near = ndi.maximum_filter((cells_ZYX != 0).view(np.uint8), size=steps, mode="constant")
    away = values_ZYX[(near == 0) & field_ZYX]
    if away.size < MIN_VOXELS:
        return None
    level = float(np.median(away))
    return level, 1.4826 * float(np.median(np.abs(away - level)))
