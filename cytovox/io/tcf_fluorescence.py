"""Read the fluorescence in a TCF file, whose grid and time points differ from the tomogram's."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy import ndimage

from cytovox.io.hdf5 import locate, names_like, number, open_hdf5
from cytovox.io.regions import CachedReader, FrameReader
from cytovox.io.tcf_layout import Shape, Stack, read_stack, read_voxels, seconds, ticks
from cytovox.io.volume import ZYX

_GROUP = "Data/3DFL"


@dataclass(frozen=True)
class FluorescenceFrames:
    """Frames (T, C, Z, Y, X) of Data/3DFL on their own grid; T is that of the channel with most frames.

    Attributes
    ----------
    origins_um : tuple of (z, y, x)
        Per channel: centre of its first voxel in the tomogram's coordinates.
    """

    path: Path
    names: tuple[str, ...]
    stacks: tuple[Stack, ...]
    origins_um: tuple[ZYX, ...]

    @property
    def longest(self) -> Stack:
        return max(self.stacks, key=lambda stack: len(stack.frames))

    @property
    def spacing_um(self) -> ZYX:
        return self.stacks[0].spacing_um

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        return len(self.longest.frames), len(self.stacks), *self.stacks[0].shape_ZYX

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def read(self, t: int, c: int) -> np.ndarray:
        return self.read_own(match_frames(self.longest, self.stacks[c])[t], c)

    def reader(self, t: int, c: int) -> FrameReader:
        return CachedReader(self, t, c)

    def read_own(self, t: int, c: int) -> np.ndarray:
        """Return frame `t` of channel `c`, counted in this channel, as float32 (Z, Y, X)."""
        stack = self.stacks[c]
        with open_hdf5(self.path, "TCF") as file:
            return read_voxels(file, self.path, stack.frames[t], stack.shape_ZYX)[0].astype(np.float32)


def describe_fluorescence(
    file: h5py.File, path: Path, shape_ZYX: Shape | None, spacing_um: ZYX | None
) -> FluorescenceFrames | None:
    """Return the content of Data/3DFL from its attributes; None if there is no fluorescence.

    Parameters
    ----------
    shape_ZYX, spacing_um
        The tomogram's grid. None if the file has no tomogram; the fluorescence then starts at 0.
    """
    group = locate(file, _GROUP)
    if not isinstance(group, h5py.Group):
        return None
    names = sorted(names_like(group, r"CH\d+"), key=lambda name: int(name[2:]))
    found = [(name, read_stack(file, path, f"{_GROUP}/{name}", described_by=_GROUP)) for name in names]
    channels = [(name, stack) for name, stack in found if stack is not None]
    if not channels:
        return None
    origins = []
    for name, stack in channels:
        offset_z = number(locate(file, f"{_GROUP}/{name}"), "OffsetZ")
        offset_z = number(group, "OffsetZ") if offset_z is None else offset_z
        origins.append(_origin(stack, shape_ZYX, spacing_um, offset_z))
    return FluorescenceFrames(path, tuple(n for n, _ in channels), tuple(s for _, s in channels), tuple(origins))


def _origin(stack: Stack, shape_ZYX: Shape | None, spacing_um: ZYX | None, offset_z_um: float | None) -> ZYX:
    if shape_ZYX is None or spacing_um is None:
        return (0.0, 0.0, 0.0)
    z, y, x = (
        ((n - 1) * s - (n_own - 1) * s_own) / 2
        for n, s, n_own, s_own in zip(shape_ZYX, spacing_um, stack.shape_ZYX, stack.spacing_um, strict=True)
    )
    return (z if offset_z_um is None else offset_z_um), y, x


def match_frames(tomogram: Stack, other: Stack) -> tuple[int, ...]:
    """Return, for each frame of `tomogram`, the index of the matching frame in `other`.

    It is the nearest in time, by RecordingTime or else by Time, if both have this time for every frame. Else it is the
    frame of the same number, or the last one if `other` has fewer frames.
    """
    for own, others in (
        (seconds(tomogram.recorded), seconds(other.recorded)),
        (tomogram.clock_s, other.clock_s),
    ):
        if ticks(own) and ticks(others):
            times, candidates = np.array(own, dtype=float), np.array(others, dtype=float)
            return tuple(int(i) for i in np.abs(times[:, None] - candidates).argmin(axis=1))
    return tuple(min(t, len(other.frames) - 1) for t in range(len(tomogram.frames)))


def resample_linear(
    values_ZYX: np.ndarray, spacing_um: ZYX, origin_um: ZYX, target_shape: Shape, target_spacing_um: ZYX
) -> np.ndarray:
    """Return values on another grid, whose first voxel is at 0.

    Parameters
    ----------
    values_ZYX : float array, (Z, Y, X)
    spacing_um, origin_um : (z, y, x)
        Voxel size of the values, and the centre of their first voxel in the coordinates of the target.
    target_shape, target_spacing_um : (z, y, x)

    Returns
    -------
    float32 array of `target_shape`
        Linear between voxel centres, constant in the outer half voxel, 0 outside the field.
    """
    ratio = np.divide(target_spacing_um, spacing_um)
    offset = -np.divide(origin_um, spacing_um)
    result = ndimage.affine_transform(
        values_ZYX, ratio, offset, output_shape=target_shape, output=np.float32, order=1, mode="nearest"
    )
    result[~covered_ZYX(values_ZYX.shape, spacing_um, origin_um, target_shape, target_spacing_um)] = 0
    return result


def covered_ZYX(
    shape: tuple[int, ...], spacing_um: ZYX, origin_um: ZYX, target_shape: Shape, target_spacing_um: ZYX
) -> np.ndarray:
    """Return where a grid covers the voxels of another one, whose first voxel lies at 0: bool of `target_shape`.

    Parameters
    ----------
    shape, spacing_um, origin_um : (z, y, x)
        The grid: its shape, its voxel size, and the centre of its first voxel in the coordinates of the target.
    target_shape, target_spacing_um : (z, y, x)
    """
    covered = np.ones(target_shape, bool)
    for axis, size in enumerate(shape):
        index = (target_spacing_um[axis] * np.arange(target_shape[axis]) - origin_um[axis]) / spacing_um[axis]
        outside = (index < -0.5 - 1e-6) | (index > size - 0.5 + 1e-6)
        covered[(slice(None),) * axis + (outside,)] = False
    return covered
