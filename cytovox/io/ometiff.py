"""Read the XML metadata of OME-TIFF, and write OME-TIFF frame by frame."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cytovox.io.atomic import atomic_path
from cytovox.io.output_frames import check_image_shape, iterate_volumes, stored_dtype
from cytovox.io.spacing import StoredSpacing
from cytovox.io.units import all_known, in_seconds, micrometres
from cytovox.io.volume import ZYX, check_spacing

#: Voxel types of OME-XML.
_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")

#: Number of bytes above which the 32-bit offsets of a classic TIFF are too small.
_BIG = 3_900_000_000


@dataclass(frozen=True)
class TiffMetadata:
    """Metadata of a TIFF file; None for values that are missing."""

    spacing: StoredSpacing = field(default_factory=StoredSpacing)
    channels: tuple[str, ...] | None = None
    times_s: tuple[float, ...] | None = None
    origin_um: ZYX = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class OmeImage:
    """One image of OME-XML."""

    name: str
    sizes: dict[str, int]
    """SizeT, SizeC, SizeZ, SizeY, SizeX, by axis."""
    xml: dict[str, Any]
    """The XML element as nested dictionaries."""


def ome_images(text: str) -> list[OmeImage]:
    """Return all images of OME-XML in order; ParseError if it is no XML."""
    found = []
    for image in _all(tifffile.xml2dict(text).get("OME", {}).get("Image")):
        pixels = _first(image.get("Pixels"))
        sizes = {axis: int(pixels.get(f"Size{axis}", 1)) for axis in "TCZYX"}
        found.append(OmeImage(str(image.get("Name", "")), sizes, image))
    return found


def ome_metadata(image: dict[str, Any], flat: bool) -> TiffMetadata:
    """Read one image of OME-XML.

    Parameters
    ----------
    image : dict
        The XML element as nested dictionaries.
    flat : bool
        Whether the image has one slice, so that it needs no PhysicalSizeZ.
    """
    pixels = _first(image.get("Pixels"))
    lengths = [
        micrometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "um")) for axis in "ZYX"
    ]
    if flat and lengths[0] is None:
        lengths[0] = lengths[1]
    names = [channel.get("Name") for channel in _all(pixels.get("Channel"))]
    planes = {(p.get("TheT"), p.get("TheC"), p.get("TheZ")): p for p in _all(pixels.get("Plane"))}
    first = planes.get((0, 0, 0), {})
    position = [micrometres(first.get(f"Position{axis}"), first.get(f"Position{axis}Unit", "")) for axis in "ZYX"]
    origin = all_known(position)
    return TiffMetadata(
        spacing=StoredSpacing.of(lengths),
        channels=tuple(str(name) for name in names) if names and None not in names else None,
        times_s=_times(pixels, planes),
        origin_um=(0.0, 0.0, 0.0) if origin is None else (origin[0], origin[1], origin[2]),
    )


def _times(pixels: dict[str, Any], planes: dict[tuple[Any, Any, Any], dict[str, Any]]) -> tuple[float, ...] | None:
    """Return the seconds since the first frame: DeltaT of each frame's first plane, else TimeIncrement."""
    count = int(pixels.get("SizeT", 1))
    starts = [planes.get((t, 0, 0), {}) for t in range(count)]
    known = all_known([in_seconds(p.get("DeltaT"), p.get("DeltaTUnit", "s")) for p in starts])
    if known is not None:
        return tuple(s - known[0] for s in known)
    step = in_seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    return None if step is None else tuple(t * step for t in range(count))


def _all(item: Any) -> list[dict[str, Any]]:
    """Return XML elements as a list; tifffile returns a single element without a list, and None for no element."""
    items = item if isinstance(item, list) else [item]
    return [i for i in items if isinstance(i, dict)]


def _first(item: Any) -> dict[str, Any]:
    return next(iter(_all(item)), {})


def write_ometiff(
    path: str | Path,
    data: np.ndarray | Iterable[np.ndarray],
    spacing_um: Sequence[float],
    channels: Sequence[str],
    times_s: Sequence[float] | None = None,
    origin_um: Sequence[float] | None = None,
    *,
    shape: Sequence[int] | None = None,
    compression: str | None = "zlib",
) -> Path:
    """Write an OME-TIFF atomically.

    Parameters
    ----------
    path : str or Path
        Name, which usually ends in .ome.tif.
    data : array (T, C, Z, Y, X), or iterable of (C, Z, Y, X)
        Bool is written as uint8. An iterable is written frame by frame, and is never in memory as a whole.
    spacing_um : (float, float, float)
        z, y, x.
    channels : sequence of str
        Names of the channels.
    times_s : sequence of float, optional
        Time of each frame in seconds.
    origin_um : (float, float, float), optional
        Centre of the first voxel, z, y, x; stored as the position of the planes.
    shape : (T, C, Z, Y, X), optional
        Shape of an iterable; without it, T is the number of `times_s`.
    compression : "zlib" or None

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        No space is left, or `path` may not be written.
    ValueError
        `data` contradicts `shape`, `channels` or `times_s`, or OME has no such voxel type.
    """
    full, dtype, volumes = iterate_volumes(data, shape, times_s)
    return write_ometiff_slabs(
        path, volumes, full, dtype, spacing_um, channels, times_s, origin_um, compression=compression
    )


def write_ometiff_slabs(
    path: str | Path,
    slabs: Iterable[np.ndarray],
    shape: Sequence[int],
    dtype: Any,
    spacing_um: Sequence[float],
    channels: Sequence[str],
    times_s: Sequence[float] | None = None,
    origin_um: Sequence[float] | None = None,
    *,
    compression: str | None = "zlib",
) -> Path:
    """Write an OME-TIFF from slabs (z, Y, X) in the order of t, c, z; only a few planes are held in memory.

    The other parameters and the errors are those of `write_ometiff`; `shape` (T, C, Z, Y, X) and `dtype` are required.
    """
    path, dtype = Path(path), stored_dtype(dtype)
    spacing, full = check_spacing(spacing_um, path), check_image_shape(shape, channels, times_s)
    if dtype.name not in _TYPES:
        raise ValueError(f"voxels of type {dtype}: expected one of {', '.join(_TYPES)}")
    planes = chain.from_iterable(np.ascontiguousarray(slab_ZYX, dtype=dtype) for slab_ZYX in slabs)
    with (
        atomic_path(path) as part,
        tifffile.TiffWriter(part, bigtiff=math.prod(full) * dtype.itemsize > _BIG, ome=True) as tiff,
    ):
        tiff.write(
            planes,
            shape=full,
            dtype=dtype,
            compression=compression,
            compressionargs={"level": 4} if compression == "zlib" else None,  # twice as fast as 6, a quarter larger
            photometric="minisblack",
            metadata=_metadata(path.name, full, spacing, channels, times_s, origin_um),
        )
        if next(planes, None) is not None:
            raise ValueError(f"more planes than {full} has")
    return path


def _metadata(
    name: str,
    shape: tuple[int, ...],
    spacing: ZYX,
    channels: Sequence[str],
    times_s: Sequence[float] | None,
    origin_um: Sequence[float] | None,
) -> dict[str, Any]:
    t_count, c_count, z_count = shape[:3]
    about: dict[str, Any] = {"axes": "TCZYX", "Name": name, "Channel": {"Name": list(channels)}}
    for axis, step in zip("ZYX", spacing, strict=True):
        about |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": "\u00b5m"}
    planes: dict[str, list[float] | list[str]] = {}
    each = c_count * z_count
    if times_s is not None:
        planes["DeltaT"] = [float(s) for s in times_s for _ in range(each)]
        planes["DeltaTUnit"] = ["s"] * (t_count * each)
        steps = np.diff(times_s)
        if len(steps) and steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-6):
            about |= {"TimeIncrement": float(steps[0]), "TimeIncrementUnit": "s"}
    if origin_um is not None:
        z, y, x = (float(o) for o in origin_um)
        planes["PositionX"], planes["PositionY"] = [x] * (t_count * each), [y] * (t_count * each)
        planes["PositionZ"] = [z + k * spacing[0] for k in range(z_count)] * (t_count * c_count)
        planes |= {f"Position{axis}Unit": ["\u00b5m"] * (t_count * each) for axis in "XYZ"}
    return about | ({"Plane": planes} if planes else {})
