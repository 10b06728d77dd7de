"""Write OME-Zarr (OME-NGFF 0.5) as a whole or region by region."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.io.deletion import remove_file
from cytovox.io.omezarr_find import OWN, is_zarr
from cytovox.io.output_frames import check_image_shape, iterate_volumes, stored_dtype
from cytovox.io.volume import ZYX, check_spacing


@contextmanager
def create_omezarr(
    path: str | Path,
    shape: Sequence[int],
    dtype: Any,
    spacing_um: Sequence[float],
    channels: Sequence[str],
    times_s: Sequence[float] | None = None,
    origin_um: Sequence[float] | None = None,
    *,
    medium_ri: float | None = None,
    chunks: Sequence[int] | None = None,
) -> Iterator[zarr.Array]:
    """Yield an array to write regions to; the folder gets its final name on success, and is removed after an error.

    Parameters
    ----------
    path : str or Path
        Name, which usually ends in .ome.zarr. An existing OME-Zarr is replaced; any other folder is refused.
    shape : (T, C, Z, Y, X)
    dtype : dtype
        Type of the voxels; bool is stored as uint8.
    spacing_um, origin_um : (float, float, float)
        z, y, x.
    channels : sequence of str
        Names of the channels.
    times_s : sequence of float, optional
        Time of each frame in seconds.
    medium_ri : float, optional
        Refractive index of the medium.
    chunks : (t, c, z, y, x), optional
        Size of the chunk in one file; at most (1, 1, 32, 256, 256) by default.

    Yields
    ------
    zarr.Array
        Array to write to, such as ``array[t, c, 0:16] = ...``; regions of whole chunks are fastest.

    Raises
    ------
    InputError
        No space is left, or `path` may not be written.
    """
    path = Path(path)
    if path.is_dir() and not is_zarr(path):
        raise InputError(f"{path}: is a folder that holds something else: it will not be replaced; choose another name")
    with atomic_path(path) as part:
        yield begin_omezarr(
            part, shape, dtype, spacing_um, channels, times_s, origin_um, medium_ri=medium_ri, chunks=chunks, name=path
        )


def begin_omezarr(
    folder: Path,
    shape: Sequence[int],
    dtype: Any,
    spacing_um: Sequence[float],
    channels: Sequence[str],
    times_s: Sequence[float] | None = None,
    origin_um: Sequence[float] | None = None,
    *,
    medium_ri: float | None = None,
    chunks: Sequence[int] | None = None,
    name: Path | None = None,
) -> zarr.Array:
    """Create an OME-Zarr in a temporary folder, to be written region by region and moved to its final path later.

    Parameters are those of `create_omezarr`, and the final `name`. `resume_omezarr` opens it again.
    """
    name = folder if name is None else name
    spacing, full = check_spacing(spacing_um, name), check_image_shape(shape, channels, times_s)
    kept = stored_dtype(dtype)
    about = _metadata(name.name, full, kept, spacing, channels, times_s, origin_um, medium_ri)
    size = tuple(chunks) if chunks else (1, 1, 32, 256, 256)
    group = zarr.create_group(LocalStore(folder), zarr_format=3, attributes=about)
    return group.create_array(
        "0",
        shape=full,
        dtype=kept,
        chunks=tuple(min(n, m) for n, m in zip(full, size, strict=True)),
        dimension_names=list("tczyx"),
    )


def resume_omezarr(folder: Path) -> zarr.Array:
    """Open the array of a folder that `begin_omezarr` created, perhaps in another process, to continue writing."""
    for torn in folder.rglob("*.partial"):  # incomplete files of a killed process
        remove_file(torn, folder)
    return zarr.open_array(LocalStore(folder), path="0", mode="r+")


def write_omezarr(
    path: str | Path,
    data: np.ndarray | Iterable[np.ndarray],
    spacing_um: Sequence[float],
    channels: Sequence[str],
    times_s: Sequence[float] | None = None,
    origin_um: Sequence[float] | None = None,
    *,
    shape: Sequence[int] | None = None,
    medium_ri: float | None = None,
) -> Path:
    """Write an OME-Zarr of an array (T, C, Z, Y, X) or, with `shape`, of an iterable of (C, Z, Y, X) frames.

    Parameters and errors are those of `create_omezarr`.
    """
    full, dtype, volumes = iterate_volumes(data, shape, times_s)
    return write_omezarr_slabs(
        path, volumes, full, dtype, spacing_um, channels, times_s, origin_um, medium_ri=medium_ri
    )


def write_omezarr_slabs(
    path: str | Path,
    slabs: Iterable[np.ndarray],
    shape: Sequence[int],
    dtype: Any,
    spacing_um: Sequence[float],
    channels: Sequence[str],
    times_s: Sequence[float] | None = None,
    origin_um: Sequence[float] | None = None,
    *,
    medium_ri: float | None = None,
) -> Path:
    """Write an OME-Zarr from slabs (z, Y, X) in the order of t, c, z.

    The other parameters and the errors are those of `create_omezarr`.
    """
    path = Path(path)
    with create_omezarr(path, shape, dtype, spacing_um, channels, times_s, origin_um, medium_ri=medium_ri) as array:
        place, depth = 0, array.shape[2]
        for slab_ZYX in slabs:
            frame, z = divmod(place, depth)
            t, c = divmod(frame, array.shape[1])
            if t >= array.shape[0] or z + len(slab_ZYX) > depth:
                raise ValueError(f"more slices than {array.shape} has")
            array[t, c, z : z + len(slab_ZYX)] = slab_ZYX.astype(array.dtype, copy=False)
            place += len(slab_ZYX)
        if place != (expected := math.prod(array.shape[:3])):
            raise ValueError(f"{place} slices: expected {expected}")
    return path


def _metadata(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    spacing: ZYX,
    channels: Sequence[str],
    times_s: Sequence[float] | None,
    origin_um: Sequence[float] | None,
    medium_ri: float | None,
) -> dict[str, Any]:
    step = float(times_s[-1] - times_s[0]) / (len(times_s) - 1) if times_s is not None and len(times_s) > 1 else 0.0
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    time: dict[str, str] = {"name": "t", "type": "time"} | ({"unit": "second"} if step > 0 else {})
    scale = {"type": "scale", "scale": [step if step > 0 else 1.0, 1.0, *spacing]}
    shift = {"type": "translation", "translation": [0.0, 0.0, *(float(o) for o in origin_um or (0, 0, 0))]}
    image = {
        "name": name.split(".")[0],
        "axes": [time, {"name": "c", "type": "channel"}, *space],
        "datasets": [{"path": "0", "coordinateTransformations": [scale, shift]}],
    }
    about: dict[str, Any] = {
        "ome": {
            "version": "0.5",
            "multiscales": [image],
            "omero": {"channels": [_channel(label, dtype) for label in channels]},
        }
    }
    own: dict[str, Any] = {} if times_s is None else {"times_s": [float(s) for s in times_s]}
    own |= {} if medium_ri is None else {"medium_ri": float(medium_ri)}
    return about | ({OWN: own} if own else {})


def _channel(label: str, dtype: np.dtype) -> dict[str, Any]:
    """Return the initial display range of a channel: refractive indices of cells, 0 to 1, or the full 16-bit range."""
    low, high = (1.33, 1.40) if label == "RI" else (0.0, 1.0 if dtype.itemsize == 1 or dtype.kind == "f" else 65535.0)
    return {
        "label": label,
        "color": "FFFFFF",
        "active": True,
        "window": {"min": low, "max": high, "start": low, "end": high},
    }
