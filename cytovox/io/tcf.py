"""Read TCF files of Tomocube microscopes: tomograms of refractive index, and fluorescence recorded with them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from cytovox.errors import InputError
from cytovox.io.file_format import Format
from cytovox.io.hdf5 import attribute, locate, number, open_hdf5
from cytovox.io.regions import Box, CachedReader, FrameReader, Shape, first_result
from cytovox.io.series import Series, only_series
from cytovox.io.spacing import SpacingFrom, StoredSpacing, resolve_spacing
from cytovox.io.tcf_fluorescence import FluorescenceFrames, describe_fluorescence, match_frames, resample_linear
from cytovox.io.tcf_layout import Stack, Tiles, find_tiles, parse_time, read_stack, read_voxels
from cytovox.io.values import RI_SCALE
from cytovox.io.volume import Volume

#: Value of voxels without data if the file does not state the medium's index (Choi et al. 2021 clip RI from here).
CULTURE_MEDIUM_RI = 1.337

#: Step of the 8-bit encoding: RI = v / 1000 + RIMin.
_BYTE_SCALE = 1e3


def read_tcf(path: str | Path) -> Volume:
    """Open a TCF file; only attributes are read.

    Channel "RI" is the tomogram. If there is fluorescence (Data/3DFL), it follows as "CH0", "CH1", ... on the
    tomogram's grid. It is interpolated linearly, and 0 outside its field. In y and x, the centres of both grids are
    aligned. In z, the position is OffsetZ, the distance in micrometres from the tomogram's first slice to that of the
    fluorescence. Without OffsetZ, the centres are aligned in z, too.

    Each frame of the tomogram has the fluorescence frame that is nearest in time. If one of both has no times, it has
    the frame of the same number, or the last one. The fine registration of newer files (Info/MetaData/FL/Registration)
    is not applied.

    Voxels without data (stored as 0, or not covered by a tile) get the medium's index.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Volume
        Frames (T, C, Z, Y, X) float32; spacing in micrometres; medium, time stamps and stage position of the file.

    Raises
    ------
    InputError
        The file is missing, empty, truncated or not HDF5. Or it has no tomogram, no voxel size, frames of a wrong
        shape, or data outside the file.
    """
    path = Path(path)
    with open_hdf5(path, "TCF") as file:
        stack = read_stack(file, path, "Data/3D")
        if stack is None:
            raise InputError(f"{path}: no tomogram (Data/3D): expected a TCF file of a 3D recording")
        medium_ri = read_medium(file)
        fluorescence = describe_fluorescence(file, path, stack.shape_ZYX, stack.spacing_um)
        file_time = parse_time(attribute(file, "RecordingTime"))
    return Volume(
        frames=TcfFrames(path, stack, medium_ri, fluorescence),
        spacing_um=stack.spacing_um,
        channels=("RI", *(fluorescence.names if fluorescence else ())),
        stage_um=stack.stage_um,
        medium_ri=medium_ri,
        times_s=stack.times_s(),
        recorded_at=stack.recorded_at(file_time),
        source=path,
    )


def read_fluorescence(path: str | Path) -> Volume:
    """Open the fluorescence of a TCF file on its own grid.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Volume
        Channels "CH0", "CH1", ... `origin_um` is the first voxel in the tomogram's coordinates, from the OffsetZ of the
        first channel. Frames are those of the channel with most frames; other channels have the frame nearest in time.

    Raises
    ------
    InputError
        As for `read_tcf`, or the file has no fluorescence.
    """
    path = Path(path)
    with open_hdf5(path, "TCF") as file:
        tomogram = read_stack(file, path, "Data/3D")
        grid = (tomogram.shape_ZYX, tomogram.spacing_um) if tomogram else (None, None)
        frames = describe_fluorescence(file, path, *grid)
        file_time = parse_time(attribute(file, "RecordingTime"))
    if frames is None:
        raise InputError(f"{path}: no fluorescence (Data/3DFL) in this file")
    return Volume(
        frames=frames,
        spacing_um=frames.spacing_um,
        channels=frames.names,
        origin_um=frames.origins_um[0],
        stage_um=frames.longest.stage_um,
        times_s=frames.longest.times_s(),
        recorded_at=frames.longest.recorded_at(file_time),
        source=path,
    )


@dataclass(frozen=True)
class TcfFrames:
    """Frames of a TCF file: channel 0 is the refractive index, the others are fluorescence on its grid."""

    path: Path
    stack: Stack
    medium_ri: float | None
    fluorescence: FluorescenceFrames | None

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        channels = 1 + (len(self.fluorescence.names) if self.fluorescence else 0)
        return len(self.stack.frames), channels, *self.stack.shape_ZYX

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def read(self, t: int, c: int) -> np.ndarray:
        if c == 0 or self.fluorescence is None:
            with open_hdf5(self.path, "TCF") as file:
                return read_ri(file, self.path, self.stack.frames[t], self.stack.shape_ZYX, self.medium_ri)
        partner = match_frames(self.stack, self.fluorescence.stacks[c - 1])[t]
        values_ZYX = self.fluorescence.read_own(partner, c - 1)
        return resample_linear(
            values_ZYX,
            self.fluorescence.spacing_um,
            self.fluorescence.origins_um[c - 1],
            self.stack.shape_ZYX,
            self.stack.spacing_um,
        )

    def reader(self, t: int, c: int) -> FrameReader:
        where = self.stack.frames[t]
        with open_hdf5(self.path, "TCF") as file:
            chunks = getattr(locate(file, where), "chunks", None)
        whole = chunks is not None and 8 * math.prod(chunks) > math.prod(self.stack.shape_ZYX)
        if c > 0 or whole:
            return CachedReader(self, t, c)
        return TcfReader(self.path, where, self.stack.shape_ZYX, self.medium_ri)


class TcfReader:
    """Regions of a tomogram; each call opens the file and reads only the chunks that it needs.

    Floats may be the index times 10 000. The first block of voxels that are not all 0 determines this for all regions.
    """

    def __init__(self, path: Path, where: str, shape: Shape, medium_ri: float | None) -> None:
        self.path, self.where, self.shape, self.medium_ri = path, where, shape, medium_ri
        self._tiles: Tiles | None = None
        self._encoding: tuple[float, float] | None = None

    def read(self, box: Box) -> np.ndarray:
        with open_hdf5(self.path, "TCF") as file:
            if self._encoding is None:
                self._look(file)
            assert self._encoding is not None
            stored, covered = read_voxels(file, self.path, self.where, self.shape, box, self._tiles)
        return _decoded(stored, covered, self._encoding, self.medium_ri)

    def _look(self, file: h5py.File) -> None:
        if isinstance(locate(file, self.where), h5py.Group):
            self._tiles = find_tiles(file, self.path, self.where, self.shape)

        def is_large(box: Box) -> bool | None:
            stored, _ = read_voxels(file, self.path, self.where, self.shape, box, self._tiles)
            return _is_large(stored) if np.any(stored) else None

        one = read_voxels(file, self.path, self.where, self.shape, (slice(0, 1),) * 3, self._tiles)[0]
        self._encoding = read_encoding(
            file, self.path, self.where, one.dtype, lambda: first_result(self.shape, is_large) is True
        )


def read_ri(file: h5py.File, path: Path, where: str, shape_ZYX: Shape, medium_ri: float | None) -> np.ndarray:
    """Return the refractive index of one frame, (Z, Y, X) float32."""
    stored, covered = read_voxels(file, path, where, shape_ZYX)
    encoding = read_encoding(file, path, where, stored.dtype, lambda: _is_large(stored))
    return _decoded(stored, covered, encoding, medium_ri)


def read_encoding(
    file: h5py.File, path: Path, where: str, dtype: np.dtype, is_large: Callable[[], bool]
) -> tuple[float, float]:
    """Return the divisor of stored voxels, and the offset that is then added.

    There are three encodings. Integers are the index times 10 000. Floats are the index itself, or the index times 10
    000 if they exceed 100. 8-bit voxels are thousandths above the frame's RIMin. The type of the voxels distinguishes
    them more reliably than FormatVersion, which some writers set to a wrong value.

    Parameters
    ----------
    is_large : callable
        Function that returns whether floats exceed 100.
    """
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: {where}: voxels of type {dtype}: expected integers or floats")
    node = locate(file, where)
    if number(node, "ScalarType") == 1 or dtype.itemsize == 1:
        lowest = _scaled_ri(number(node, "RIMin") or number(locate(file, "Data/3D"), "RIMin"))
        if lowest is None:
            raise InputError(f"{path}: {where}: 8-bit voxels without RIMin: their refractive index is unknown")
        return _BYTE_SCALE, lowest
    return (RI_SCALE if dtype.kind in "iu" or is_large() else 1.0), 0.0


def _is_large(stored: np.ndarray) -> bool:
    return bool(np.fmax.reduce(stored, axis=None) > 100)


def _decoded(
    stored: np.ndarray, covered: np.ndarray | None, encoding: tuple[float, float], medium_ri: float | None
) -> np.ndarray:
    scale, lowest = encoding
    ri_ZYX = stored.astype(np.float32) if scale == 1 else np.divide(stored, scale, dtype=np.float32)
    if lowest:
        ri_ZYX += np.float32(lowest)
    empty = (stored == 0) & (ri_ZYX < 1)
    if covered is not None:
        empty |= ~covered
    ri_ZYX[empty] = CULTURE_MEDIUM_RI if medium_ri is None else medium_ri
    return ri_ZYX


def read_medium(file: h5py.File) -> float | None:
    """Return the medium's index, Info/Device RI; None if it is absent or outside 1 to 2."""
    medium = _scaled_ri(number(locate(file, "Info/Device"), "RI"))
    return medium if medium is not None and 1.0 <= medium < 2.0 else None


def _scaled_ri(value: float | None) -> float | None:
    """Return the index of an attribute, which may be stored times 10 000."""
    return value / RI_SCALE if value is not None and value > 100 else value


def _open_volume(path: Path, spacing_um: Sequence[float] | None, spacing_from: SpacingFrom, series: Series) -> Volume:
    only_series(path, series)
    volume = read_tcf(path)
    size = resolve_spacing(path, StoredSpacing.of(volume.spacing_um), spacing_um, spacing_from)
    return replace(volume, spacing_um=size.spacing_um, notes=(*volume.notes, *size.notes))


FORMAT = Format("tcf", (".tcf",), _open_volume, shown=(".TCF",))
