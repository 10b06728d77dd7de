"""Read and write NIfTI like ITK-SNAP: millimetres, x first, axes that an affine may flip or swap.

Reading and writing follow ITK's convention. A tomogram's x, y and z run along ITK's first, second and third physical
axis (left, posterior, superior). In NIfTI, right and anterior are positive, so that an unflipped volume has the affine
diag(-x, -y, z). `write_nifti` writes this affine. ITK-SNAP writes it for a mask drawn on such a volume, or on a TIFF of
it. Reading reverses the flips and swaps of any other affine, so that the mask has the orientation of the tomogram.
"""

import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.io.channels import require_slices
from cytovox.io.file_format import Format, ImageWriter
from cytovox.io.label_volume import LabelVolume
from cytovox.io.limits import require_memory
from cytovox.io.nifti_grid import Grid, grid_of, orientation_notes
from cytovox.io.orientation import AxisOrientation, oriented
from cytovox.io.output_frames import stored_dtype
from cytovox.io.regions import CachedReader, FrameReader
from cytovox.io.series import Series, only_series
from cytovox.io.spacing import SpacingFrom, resolve_spacing
from cytovox.io.units import in_seconds
from cytovox.io.values import unscaled_ri
from cytovox.io.volume import ZYX, Volume, check_spacing, default_channels

_FAULTS = (
    *(ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, ValueError, KeyError, zlib.error),
    *(MemoryError, OverflowError),
)

#: Micrometres in a millimetre, the unit of the files that are written.
_MM_UM = 1e3

#: Bytes before the voxels of a single file, and the longest axis that a 16-bit size can state.
_HEADER, _LONGEST = 352, 32767

#: Largest number of bytes from one byte of deflate.
_MOST_DEFLATED = 1040


def read_nifti(
    path: str | Path, spacing_um: Sequence[float] | None = None, spacing_from: SpacingFrom = "file"
) -> Volume:
    """Open a NIfTI volume, .nii, .nii.gz or .hdr with .img; its voxels are read when they are accessed.

    The fourth dimension is time, the fifth is channels. A refractive index stored times 1000 or times 10 000 is
    converted (see `unscaled_ri`).

    Parameters
    ----------
    path : str or Path
    spacing_um, spacing_from
        As for `formats.read_volume`.

    Raises
    ------
    InputError
        The file is missing or damaged, its grid is rotated, its affines contradict each other, or its voxels are no
        plain numbers.
    """
    path = Path(path)
    frames, grid, times_s = _describe(path)
    require_slices(path, frames.shape, times_s, None)
    size = resolve_spacing(path, grid.spacing, spacing_um, spacing_from)
    return Volume(
        frames=frames,
        spacing_um=size.spacing_um,
        channels=default_channels(frames.shape[1]),
        origin_um=grid.origin_um,
        times_s=times_s,
        source=path,
        notes=(*size.notes, *orientation_notes(path, grid.orientation)),
        orientation=grid.stated_orientation,
    )


def open_nifti_labels(path: str | Path) -> LabelVolume:
    """Return the labels of all frames and channels of a NIfTI, in the orientation of the tomogram."""
    path = Path(path)
    frames, grid, _ = _describe(path)
    return LabelVolume(
        *(path, frames.shape, grid.spacing.spacing_um, None),
        lambda t, c: np.ascontiguousarray(frames.read_stored(t, c)),
        stored_spacing=grid.spacing,
        origin_um=grid.origin_um,
        notes=orientation_notes(path, grid.orientation),
        orientation=grid.stated_orientation,
    )


def write_nifti(
    path: str | Path,
    data: np.ndarray | Iterable[np.ndarray],
    spacing_um: Sequence[float],
    origin_um: ZYX = (0.0, 0.0, 0.0),
    *,
    shape: Sequence[int] | None = None,
    dtype: Any = None,
) -> Path:
    """Write NIfTI atomically, compressed if the name ends in .gz.

    Parameters
    ----------
    path : str or Path
        .nii or .nii.gz.
    data : array (Z, Y, X), or iterable of (z, Y, X)
        Bool is written as uint8. An iterable yields slabs along z in order, and is never in memory as a whole.
    spacing_um : (float, float, float)
        z, y, x.
    origin_um : (float, float, float)
        Centre of the first voxel, z, y, x.
    shape, dtype
        Shape (Z, Y, X) and type of the image; required for an iterable.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        No space is left, `path` may not be written, or an axis is too long for the format.
    """
    path = Path(path)
    if isinstance(data, np.ndarray):
        shape, dtype, data = data.shape, data.dtype, [data]
    if shape is None or dtype is None or len(shape) != 3:
        raise ValueError(f"shape {shape}, type {dtype}: expected (z, y, x) and the type of the voxels")
    kept = stored_dtype(dtype)
    if max(shape) > _LONGEST:
        raise InputError(
            f"{path}: an image of {tuple(shape)} voxels (z, y, x): NIfTI stores at most {_LONGEST} along an axis; "
            "choose another format"
        )
    z, y, x = (s / _MM_UM for s in check_spacing(spacing_um, path))
    affine = np.diag([-x, -y, z, 1.0])
    affine[:3, 3] = np.array([-origin_um[2], -origin_um[1], origin_um[0]]) / _MM_UM
    header = nib.Nifti1Image(np.broadcast_to(kept.type(0), tuple(shape)[::-1]), affine, dtype=kept).header
    header.set_xyzt_units("mm", "sec")
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_slope_inter(1, 0)
    header["magic"], header["vox_offset"] = b"n+1", _HEADER
    with atomic_path(path) as part, part.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # without name and time, so that the same mask gives the same file
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                _write_slabs(packed, header, data, tuple(shape), kept)
        else:
            _write_slabs(file, header, data, tuple(shape), kept)
    return path


def _write_slabs(file: Any, header: Any, slabs: Iterable[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Write the header and then the voxels; x is the fastest axis, so that slabs along z follow each other."""
    file.write(header.structarr.tobytes().ljust(_HEADER, b"\0"))
    depth = 0
    for slab_ZYX in slabs:
        if slab_ZYX.ndim != 3 or slab_ZYX.shape[1:] != shape[1:]:
            raise ValueError(f"slab of shape {slab_ZYX.shape}: expected (z, {shape[1]}, {shape[2]})")
        depth += len(slab_ZYX)
        file.write(np.ascontiguousarray(slab_ZYX, dtype=dtype).data)
    if depth != shape[0]:
        raise ValueError(f"{depth} slices: expected {shape[0]}")


@dataclass(frozen=True)
class NiftiFrames:
    """Frames of a NIfTI file, in the orientation of a tomogram.

    Attributes
    ----------
    orientation : tuple
        nibabel's orientation, from the stored axes to ITK's.
    """

    path: Path
    stored_shape: tuple[int, ...]
    shape_ZYX: tuple[int, int, int]
    orientation: AxisOrientation
    itemsize: int = 4

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        t, c = (*self.stored_shape[3:], 1, 1)[:2]
        return t, c, *self.shape_ZYX

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def read(self, t: int, c: int) -> np.ndarray:
        values_ZYX = self.read_stored(t, c)
        return unscaled_ri(values_ZYX) if self.shape[1] == 1 else values_ZYX.astype(np.float32)

    def reader(self, t: int, c: int) -> FrameReader:
        return CachedReader(self, t, c)

    def read_stored(self, t: int, c: int) -> np.ndarray:
        """Return the voxels (Z, Y, X) with their stored type."""
        require_memory(self.path, math.prod(self.shape_ZYX), 2 * self.itemsize + 4)
        with _open_nifti(self.path) as image:
            index = (slice(None),) * min(3, len(self.stored_shape)) + (t, c)[: max(0, len(self.stored_shape) - 3)]
            index += (0,) * (len(self.stored_shape) - len(index))
            values_XYZ = np.asanyarray(image.dataobj[index])
        values_XYZ = values_XYZ.reshape((*values_XYZ.shape, 1, 1)[:3])
        return oriented(values_XYZ.T, self.orientation)


@contextmanager
def _open_nifti(path: Path) -> Iterator[Any]:
    if path.is_dir():
        raise InputError(f"{path}: is a folder: expected a NIfTI file")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty: expected a NIfTI file")
    try:
        image = nib.load(path, mmap=False)
        if not isinstance(image, nib.Nifti1Pair):
            raise InputError(f"{path}: not a NIfTI file")
        yield image
    except _FAULTS as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a NIfTI file that can be read, truncated or damaged ({reason})") from error


def _describe(path: Path) -> tuple[NiftiFrames, Grid, tuple[float, ...] | None]:
    """Return the frames, their grid and times_s; only the header is read."""
    with _open_nifti(path) as image:
        header, shape = image.header, tuple(int(n) for n in image.shape)
        stored = header.get_data_dtype()
        if stored.kind not in "biuf":
            raise InputError(f"{path}: voxels of type {stored}: expected plain numbers, not colours or complex ones")
        if 0 in shape or any(n != 1 for n in shape[5:]):
            raise InputError(f"{path}: shape {shape}: expected (x, y, z), and at most time and channels")
        voxels = Path(image.file_map["image"].filename or path)
        _require_whole(voxels, int(header["vox_offset"]) + math.prod(shape) * stored.itemsize)
        grid = grid_of(path, header, (*shape, 1, 1)[:3])
        zooms, time = [float(zoom) for zoom in header.get_zooms()], header.get_xyzt_units()[1]
    sizes = np.empty(3, dtype=int)
    sizes[[int(axis) for axis, _ in grid.orientation]] = (*shape, 1, 1)[:3]
    shape_ZYX = (int(sizes[2]), int(sizes[1]), int(sizes[0]))
    step = in_seconds(zooms[3], time) if len(zooms) > 3 else None
    times_s = tuple(t * step for t in range(shape[3])) if step else None
    return NiftiFrames(path, shape, shape_ZYX, grid.orientation, stored.itemsize), grid, times_s


def _require_whole(voxels: Path, end: int) -> None:
    """Refuse a file that is too short for the voxels of its header."""
    size = voxels.stat().st_size if voxels.exists() else 0
    if voxels.suffix.lower() == ".gz" and _MOST_DEFLATED * size < end:
        raise InputError(f"{voxels}: truncated, or its header is wrong: {size} bytes cannot hold {end}; copy it again")
    if voxels.suffix.lower() != ".gz" and size < end:
        raise InputError(f"{voxels}: truncated: {size} of {end} bytes; copy it again")


def _open_volume(path: Path, spacing_um: Sequence[float] | None, spacing_from: SpacingFrom, series: Series) -> Volume:
    only_series(path, series)
    return read_nifti(path, spacing_um, spacing_from)


def _write_image(
    path: Path,
    slabs: Iterable[np.ndarray],
    shape: Sequence[int],
    dtype: Any,
    spacing_um: Sequence[float],
    channels: Sequence[str],
    times_s: Sequence[float] | None,
    origin_um: ZYX,
) -> Path:
    """Write one channel of one frame; see `ImageWriter.write`. NIfTI stores neither the channel's name nor the time."""
    return write_nifti(path, slabs, spacing_um, origin_um, shape=shape[2:], dtype=dtype)


FORMAT = Format(
    "nifti",
    (".nii", ".nii.gz", ".hdr"),
    _open_volume,
    lambda path, series: open_nifti_labels(path),
    shown=(".nii", ".nii.gz"),
    writer=ImageWriter("nifti", (".nii.gz", ".nii"), _write_image, single=True, longest_axis=_LONGEST),
)
