"""Read the layout of a TCF file (Tomocube Common Format): stacks of numbered frames, as a whole or in tiles.

The layout was learned from files, and from the MIT-licensed readers TCFile, tomocube-tools and bioio-tomocube.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np

from cytovox.errors import InputError
from cytovox.io.hdf5 import attribute, locate, names_like, number
from cytovox.io.regions import Box, Shape
from cytovox.io.volume import ZYX, check_spacing


@dataclass(frozen=True)
class Stack:
    """Metadata of a group of frames, read from attributes only.

    Attributes
    ----------
    frames : tuple of str
        Paths inside the file.
    shape_ZYX, spacing_um
        Grid of all frames.
    clock_s, recorded : tuple
        Attributes Time and RecordingTime per frame; None if absent.
    interval_s : float or None
        Attribute TimeInterval.
    stage_um : tuple of (z, y, x), or None
        Attributes PositionZ/Y/X per frame; None if a frame has none of them.
    """

    frames: tuple[str, ...]
    shape_ZYX: Shape
    spacing_um: ZYX
    clock_s: tuple[float | None, ...]
    recorded: tuple[datetime | None, ...]
    interval_s: float | None
    stage_um: tuple[ZYX, ...] | None

    def times_s(self) -> tuple[float, ...] | None:
        """Seconds since the first frame: by Time, else RecordingTime, else TimeInterval; None if none is given."""
        for clock in (self.clock_s, seconds(self.recorded)):
            if ticks(clock):
                return tuple(float(s) - float(clock[0] or 0) for s in clock if s is not None)
        if len(self.frames) == 1:
            return (0.0,)
        if self.interval_s:
            return tuple(t * self.interval_s for t in range(len(self.frames)))
        return None

    def recorded_at(self, file_time: datetime | None) -> tuple[str, ...] | None:
        """ISO date and time per frame; if frames have none, computed from the RecordingTime of the file."""
        known = [parse_time.isoformat() for parse_time in self.recorded if parse_time is not None]
        if len(known) == len(self.frames):
            return tuple(known)
        times = self.times_s()
        if file_time is None or times is None:
            return None
        return tuple((file_time + timedelta(seconds=s)).isoformat() for s in times)


def read_stack(file: h5py.File, path: Path, where: str, described_by: str | None = None) -> Stack | None:
    """Return the metadata of the frames of a group, whose names are numbers of six digits.

    Parameters
    ----------
    where : str
        Group of the frames, "Data/3D" or "Data/3DFL/CH0".
    described_by : str, optional
        Group with the attributes Size*, Resolution* and TimeInterval; `where` by default.

    Returns
    -------
    Stack or None
        None if there is no such group.

    Raises
    ------
    InputError
        There is no frame, or fewer than DataCount, or no resolution, or the shape of a frame differs from the metadata.
    """
    group, about = locate(file, where), locate(file, described_by or where)
    if not isinstance(group, h5py.Group):
        return None
    names = names_like(group, r"\d{6}")
    if described_by is not None and not names:
        return None  # a fluorescence channel that was not recorded
    expected = number(group, "DataCount") or number(about, "DataCount") or 1
    if len(names) < (expected if described_by is None else 1):
        raise InputError(f"{path}: {where} holds {len(names)} of {expected:.0f} frames: the recording is incomplete")
    resolution = [number(about, f"Resolution{axis}") for axis in "ZYX"]
    if None in resolution:
        raise InputError(f"{path}: {where}: no voxel size: expected attributes ResolutionX, ResolutionY, ResolutionZ")
    spacing = check_spacing([float(r or 0) for r in resolution], f"{path}: {where}")
    nodes = [locate(file, f"{where}/{name}") for name in names]
    sizes = [number(about, f"Size{axis}") for axis in "ZYX"]
    stated = None if None in sizes else tuple(int(s or 0) for s in sizes)
    shapes = [_shape(node, stated) for node in nodes]
    for name, shape in zip(names, shapes, strict=True):
        if len(shape) != 3 or 0 in shape or shape != (stated or shapes[0]):
            raise InputError(f"{path}: {where}/{name} has shape {shape}: expected (z, y, x) = {stated or shapes[0]}")
    return Stack(
        frames=tuple(f"{where}/{name}" for name in names),
        shape_ZYX=(shapes[0][0], shapes[0][1], shapes[0][2]),
        spacing_um=spacing,
        clock_s=tuple(number(node, "Time") for node in nodes),
        recorded=tuple(parse_time(attribute(node, "RecordingTime")) for node in nodes),
        interval_s=number(about, "TimeInterval"),
        stage_um=_positions(nodes),
    )


#: Region of each tile of full resolution in its frame, by the path of the tile inside the file.
Tiles = tuple[tuple[str, Box], ...]


def read_voxels(
    file: h5py.File, path: Path, where: str, shape_ZYX: Shape, box: Box | None = None, tiles: Tiles | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the stored voxels of one frame, which may be composed of tiles.

    Parameters
    ----------
    box : Box, optional
        The region to read; the whole frame by default.
    tiles : Tiles, optional
        Result of `find_tiles` for this frame, if it was called before.

    Returns
    -------
    array, (z, y, x)
        Stored values, unscaled.
    bool array, (z, y, x), or None
        True for voxels that a tile covers; None for a frame without tiles.
    """
    z, y, x = shape_ZYX
    box = (slice(0, z), slice(0, y), slice(0, x)) if box is None else box
    node = locate(file, where)
    if isinstance(node, h5py.Dataset) and node.shape == shape_ZYX:
        return node[box], None
    if not isinstance(node, h5py.Group):
        raise InputError(f"{path}: {where}: the file changed since it was opened")
    tiles = find_tiles(file, path, where, shape_ZYX) if tiles is None else tiles
    size = tuple(b.stop - b.start for b in box)
    voxels, covered = np.zeros(size, dtype=_tile(file, path, tiles[0][0]).dtype), np.zeros(size, dtype=bool)
    for name, span in tiles:
        both = [slice(max(s.start, b.start), min(s.stop, b.stop)) for s, b in zip(span, box, strict=True)]
        if any(s.start >= s.stop for s in both):
            continue
        # Neighbours may overlap: a voxel without data (0) of one must not replace the value of the other.
        inside = tuple(slice(c.start - s.start, c.stop - s.start) for c, s in zip(both, span, strict=True))
        piece = _tile(file, path, name)[inside]
        here = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(both, box, strict=True))
        voxels[here] = np.where(piece != 0, piece, voxels[here])
        covered[here] = True
    return voxels, covered


def find_tiles(file: h5py.File, path: Path, where: str, shape_ZYX: Shape) -> Tiles:
    """Return the tiles of a frame; InputError if none has full resolution, or one is outside the frame."""
    found, node = [], locate(file, where)
    for name in names_like(node, r"TILE_\d+") if isinstance(node, h5py.Group) else ():
        tile = locate(file, f"{where}/{name}")
        if isinstance(tile, h5py.Dataset) and number(tile, "SamplingStep") in (1, None):
            # tiles with larger steps repeat the same region at lower resolution
            found.append((f"{where}/{name}", _span(tile, path, shape_ZYX)))
    if not found:
        raise InputError(f"{path}: {where} holds no tile of SamplingStep 1")
    return tuple(found)


def _tile(file: h5py.File, path: Path, name: str) -> h5py.Dataset:
    tile = locate(file, name)
    if not isinstance(tile, h5py.Dataset):
        raise InputError(f"{path}: {name}: the file changed since it was opened")
    return tile


def _span(tile: h5py.Dataset, path: Path, shape_ZYX: Shape) -> tuple[slice, slice, slice]:
    """Return the region of a tile in its frame; its first and last index are counted from 0 and included."""
    first = [number(tile, f"DataIndexOffsetPoint{axis}") for axis in "ZYX"]
    last = [number(tile, f"DataIndexLastPoint{axis}") for axis in "ZYX"]
    if None in first or None in last or tile.ndim != 3:
        raise InputError(f"{path}: {tile.name}: expected a 3D tile with DataIndexOffsetPoint* and DataIndexLastPoint*")
    spans = [slice(int(a or 0), int(b or 0) + 1) for a, b in zip(first, last, strict=True)]
    for span, size, held in zip(spans, shape_ZYX, tile.shape, strict=True):
        if not 0 <= span.start < span.stop <= size or span.stop - span.start > held:
            raise InputError(f"{path}: {tile.name} does not lie inside its frame of {shape_ZYX} voxels: damaged")
    return spans[0], spans[1], spans[2]


def _shape(node: h5py.Group | h5py.Dataset | None, stated: tuple[int, ...] | None) -> tuple[int, ...]:
    if isinstance(node, h5py.Dataset):
        return node.shape
    sizes = [number(node, f"DataSize{axis}") for axis in "ZYX"]
    if None in sizes:
        return stated or ()
    return tuple(int(s or 0) for s in sizes)


def _positions(nodes: Sequence[h5py.Group | h5py.Dataset | None]) -> tuple[ZYX, ...] | None:
    found = []
    for node in nodes:
        z, y, x = (number(node, f"Position{axis}") for axis in "ZYX")
        if z is None and y is None and x is None:
            return None
        found.append((z or 0.0, y or 0.0, x or 0.0))
    return tuple(found)


def parse_time(text: object) -> datetime | None:
    """Return a date and time of TCF, such as "2024-01-31 13:37:00.123"; None if the text is none."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def seconds(moments: Sequence[datetime | None]) -> tuple[float | None, ...]:
    """Return the seconds of a date and time on a common clock."""
    zero = datetime(2000, 1, 1)
    return tuple(None if m is None else (m.replace(tzinfo=None) - zero).total_seconds() for m in moments)


def ticks(clock: Sequence[float | None]) -> bool:
    """Return whether every frame has a time and times increase; some writers set every Time to 0."""
    known = [s for s in clock if s is not None]
    return len(known) == len(clock) > 0 and all(b > a for a, b in pairwise(known))
