"""Read OME-Zarr (OME-NGFF), versions 0.4 and 0.5."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import BaseZarrError
from zarr.storage import LocalStore

from cytovox.errors import InputError
from cytovox.io.channels import name_channels, require_slices
from cytovox.io.file_format import Container, Format, ImageWriter
from cytovox.io.label_volume import LabelVolume
from cytovox.io.limits import require_count, require_memory
from cytovox.io.omezarr_find import OWN, ZarrImage, find_image, is_zarr, zarr_root
from cytovox.io.omezarr_writer import write_omezarr_slabs
from cytovox.io.regions import Box, FrameReader, StoredReader
from cytovox.io.series import Series
from cytovox.io.spacing import SpacingFrom, StoredSpacing, resolve_spacing
from cytovox.io.units import all_known, in_seconds, micrometres
from cytovox.io.values import unscaled_ri
from cytovox.io.volume import ZYX, Volume, to_tczyx

_FAULTS = (BaseZarrError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError)

#: Codecs that may be decoded. Zarr 2 has a codec for pickles, which would run code from the file.
_CODECS = {
    *("bytes", "transpose", "sharding_indexed", "crc32c", "gzip", "zstd", "blosc"),
    *(
        "zlib",
        "lz4",
        "lzma",
        "bz2",
        "shuffle",
        "delta",
        "fixedscaleoffset",
        "quantize",
        "bitround",
        "packbits",
        "astype",
    ),
    *("crc32", "adler32", "fletcher32", "imagecodecs_jpeg2k"),
}


def read_omezarr(
    path: str | Path,
    spacing_um: Sequence[float] | None = None,
    spacing_from: SpacingFrom = "file",
    series: Series = None,
) -> Volume:
    """Open an OME-Zarr image at full resolution; its voxels are read when they are accessed.

    Parameters
    ----------
    path : str or Path
        Folder with one image or with several (from bioformats2raw, a plate or a well). Or a group or an array inside a
        folder, such as `x.zarr/0` or `x.zarr/labels/nuclei`.
    spacing_um, spacing_from
        As for `formats.read_volume`.
    series : int or str, optional
        Number, name or path (`A/1/0`) of the image if there are several.

    Raises
    ------
    InputError
        The folder is missing or damaged, or has several images and `series` is not given. Or it is neither OME-NGFF 0.4
        or 0.5 nor a plain array of z, y, x. Or its voxels have a codec that is not plain compression.
    """
    path = Path(path)
    frames, metadata = _describe(path, series)
    c_count = frames.shape[1]
    require_slices(path, frames.shape, metadata.times_s, metadata.channels)
    size = resolve_spacing(path, metadata.spacing, spacing_um, spacing_from)
    channels, ri, said = name_channels(path, metadata.channels, c_count)
    return Volume(
        frames=replace(frames, ri=ri),
        spacing_um=size.spacing_um,
        channels=channels,
        origin_um=metadata.origin_um,
        medium_ri=metadata.medium_ri,
        times_s=metadata.times_s if metadata.times_s and len(metadata.times_s) == frames.shape[0] else None,
        source=path,
        notes=(*metadata.notes, *size.notes, *said),
    )


def open_omezarr_labels(path: str | Path, series: Series = None) -> LabelVolume:
    """Return the labels of all frames and channels of an OME-Zarr."""
    path = Path(path)
    frames, metadata = _describe(path, series, accept_single=True)
    return LabelVolume(
        *(path, frames.shape, metadata.spacing.spacing_um, metadata.channels, frames.read),
        stored_spacing=metadata.spacing,
        origin_um=metadata.origin_um,
        notes=metadata.notes,
    )


@dataclass(frozen=True)
class ZarrFrames:
    """Frames of one Zarr array.

    Attributes
    ----------
    node : str
        Path of the array inside the folder.
    axes : str
        One letter of "tczyx" per axis as stored.
    ri : int or None
        Channel of the refractive index, which may be stored times 10 000.
    """

    path: Path
    node: str
    axes: str
    stored_shape: tuple[int, ...]
    stored_dtype: np.dtype
    ri: int | None = None

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        t, c, z, y, x = (self.stored_shape[self.axes.index(a)] if a in self.axes else 1 for a in "tczyx")
        return t, c, z, y, x

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32) if self.ri is not None else self.stored_dtype

    def read(self, t: int, c: int) -> np.ndarray:
        require_memory(self.path, math.prod(self.shape[2:]), self.stored_dtype.itemsize + 4)
        index = tuple({"t": slice(t, t + 1), "c": slice(c, c + 1)}.get(axis, slice(None)) for axis in self.axes)
        with _errors(self.path):
            values = np.asarray(_array(self.path, self.node, self.path)[index])
        values_ZYX = to_tczyx(values, self.axes)[0, 0]
        return unscaled_ri(values_ZYX) if c == self.ri else values_ZYX

    def reader(self, t: int, c: int) -> FrameReader:
        opened: list[zarr.Array] = []

        def stored(box: Box) -> np.ndarray:
            spans = dict(zip("tczyx", (slice(t, t + 1), slice(c, c + 1), *box), strict=True))
            with _errors(self.path):
                if not opened:
                    opened.append(_array(self.path, self.node, self.path))
                values = np.asarray(opened[0][tuple(spans[axis] for axis in self.axes)])
            return to_tczyx(values, self.axes)[0, 0]

        return StoredReader(self.shape[2:], stored, is_ri=c == self.ri)


@dataclass(frozen=True)
class _Metadata:
    spacing: StoredSpacing = field(default_factory=StoredSpacing)
    origin_um: ZYX = (0.0, 0.0, 0.0)
    channels: tuple[str, ...] | None = None
    times_s: tuple[float, ...] | None = None
    medium_ri: float | None = None
    notes: tuple[str, ...] = ()


def _describe(path: Path, series: Series, accept_single: bool = False) -> tuple[ZarrFrames, _Metadata]:
    root, inner = zarr_root(path)
    if not root.exists():
        raise InputError(f"{path}: no such folder")
    if not root.is_dir() or not is_zarr(root):
        raise InputError(f"{path}: not an OME-Zarr: expected a folder with zarr.json, .zgroup or .zarray")
    with _errors(path):
        found = find_image(path, LocalStore(root, read_only=True), inner, series, accept_single)
        array = _array(root, found.node, path)
        axes = found.axes or _plain_axes(path, array)
        if len(axes) != array.ndim or not set(axes) <= set("tczyx") or len(set(axes)) != len(axes):
            raise InputError(
                f"{path}: axes {axes} of {array.ndim} dimensions: expected each of t, c, z, y, x at most once"
            )
        frames = ZarrFrames(root, found.node, axes, array.shape, np.dtype(array.dtype))
        require_count(path, *frames.shape[:2])
        if found.multiscale is None:
            return frames, _Metadata(notes=found.notes)
        return frames, replace(_metadata(found, axes, frames.shape[0]), notes=found.notes)


def _plain_axes(path: Path, array: zarr.Array) -> str:
    """Return the axes of an array without OME-NGFF metadata by the names of its dimensions; three are z, y, x."""
    names: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if names:
        return "".join(str(name).lower()[:1] for name in names)
    if array.ndim == 3:
        return "zyx"
    raise InputError(
        f"{path}: an array of shape {array.shape} without OME-NGFF metadata (multiscales with axes) or names of its "
        "dimensions: expected z, y, x; save it as OME-Zarr 0.4 or 0.5"
    )


def _metadata(found: ZarrImage, axes: str, t_count: int) -> _Metadata:
    """Return the metadata; spacing and origin are from the transformations of the dataset and then of all datasets."""
    about, image = found.about, found.multiscale or {}
    scale, shift = np.ones(len(axes)), np.zeros(len(axes))
    for level in (found.dataset, image):
        for step in level.get("coordinateTransformations") or ():
            if step["type"] == "scale":
                scale, shift = scale * step["scale"], shift * step["scale"]
            elif step["type"] == "translation":
                shift = shift + step["translation"]
    units = [axis.get("unit") for axis in image["axes"]]
    flat = "y" if "z" not in axes else "z"
    places = [axes.index(axis) for axis in (flat, "y", "x")]
    origin = all_known([micrometres(float(shift[i]), units[i]) for i in places])
    own = about.get(OWN, {})
    times = own.get("times_s")
    if times is None and "t" in axes:
        step_s = in_seconds(float(scale[axes.index("t")]), units[axes.index("t")])
        times = None if step_s is None else [t * step_s for t in range(t_count)]
    labels = [channel.get("label") for channel in (about.get("omero") or {}).get("channels", ())]
    medium = own.get("medium_ri")
    return _Metadata(
        spacing=_spacing([float(scale[i]) for i in places], [units[i] for i in places]),
        origin_um=(0.0, 0.0, 0.0) if origin is None else (0.0 if "z" not in axes else origin[0], origin[1], origin[2]),
        channels=tuple(str(label) for label in labels) if labels and None not in labels else None,
        times_s=None if times is None else tuple(float(s) - float(times[0]) for s in times),
        medium_ri=None if medium is None else float(medium),
    )


def _spacing(scale_zyx: list[float], units: list[Any]) -> StoredSpacing:
    """Return the spacing from scales with units; without a length unit it is inferred from the numbers."""
    if all(unit is None for unit in units):
        return StoredSpacing.without_unit(scale_zyx, "its scale")
    return StoredSpacing.of([micrometres(s, unit) for s, unit in zip(scale_zyx, units, strict=True)])


def _array(root: Path, node: str, path: Path) -> zarr.Array:
    array = zarr.open_array(LocalStore(root, read_only=True), path=node, mode="r")
    names = _codec_names(array.metadata.to_dict())
    if any(name.startswith("imagecodecs_") for name in names):
        import imagecodecs.numcodecs

        imagecodecs.numcodecs.register_codecs(verbose=False)
    strange = {name for name in names - _CODECS if not name.startswith("imagecodecs_")}
    if strange or array.dtype.kind not in "biuf":
        what = f"codec {', '.join(sorted(strange))}" if strange else f"voxels of type {array.dtype}"
        raise InputError(f"{path}: {what}: expected numbers in plain compression; save it again with zstd or blosc")
    pieces = [n for n in (array.chunks, array.shards) if n is not None]
    require_memory(path, max(math.prod(piece) for piece in pieces), array.dtype.itemsize)
    return array


def _codec_names(about: Any) -> set[str]:
    """Return the names of all codecs in an array's metadata, including those inside a sharding codec."""
    names = set()
    for key in ("codecs", "index_codecs", "filters", "compressor"):
        found = about.get(key) or ()
        for codec in [found] if isinstance(found, Mapping) else found:
            names.add(str(codec.get("name", codec.get("id"))).removeprefix("numcodecs."))
            names |= _codec_names(codec.get("configuration") or {})
    return names


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise InputError(f"{path}: not an OME-Zarr that can be read, incomplete or damaged ({reason})") from error


FORMAT = Format(
    "omezarr",
    (".ome.zarr", ".zarr"),
    read_omezarr,
    open_omezarr_labels,
    container=Container(zarr_root, is_zarr),
    writer=ImageWriter("ome-zarr", (".ome.zarr", ".zarr"), write_omezarr_slabs),
)
