"""Reading OME-Zarr (OME-NGFF), versions 0.4 and 0.5."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import BaseZarrError
from zarr.storage import LocalStore

from formats.errors import InputError
from formats.label_film import LabelFilm
from formats.regions import Box, FrameReader, StoredReader
from formats.tiff import settle_spacing
from formats.units import all_known, in_seconds, micrometres
from formats.values import as_labels, unscaled_ri
from formats.volume import ZYX, Mask, Volume, default_channels, to_tczyx

_FAULTS = (BaseZarrError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError)

#: Codecs that may be decoded. Zarr 2 knows one that unpickles, which would run code from the file.
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

#: Attribute for what OME-NGFF has no place for.
OWN = "cytovox"


def read_omezarr(path: str | Path, spacing_um: Sequence[float] | None = None) -> Volume:
    """Open an OME-Zarr image at full resolution; voxels are read when asked for.

    Parameters
    ----------
    path : str or Path
        Folder with the image, or with the collection that bioformats2raw makes, whose first image is taken.
    spacing_um : (z, y, x), optional
        Where the file names no unit of length. Where it does, both must agree.

    Raises
    ------
    InputError
        Missing, damaged, no OME-NGFF of version 0.4 or 0.5, or voxels behind a codec that is not plain compression.
    """
    path = Path(path)
    frames, facts = _describe(path)
    c_count = frames.shape[1]
    channels = facts.channels if facts.channels and len(facts.channels) == c_count else default_channels(c_count)
    return Volume(
        frames=frames if "RI" not in channels else ZarrFrames(**{**vars(frames), "ri": channels.index("RI")}),
        spacing_um=settle_spacing(path, facts.spacing_um, spacing_um),
        channels=channels,
        origin_um=facts.origin_um,
        medium_ri=facts.medium_ri,
        times_s=facts.times_s if facts.times_s and len(facts.times_s) == frames.shape[0] else None,
        source=path,
    )


def read_omezarr_mask(path: str | Path) -> Mask:
    """Labels from an OME-Zarr image or label of one frame and one channel."""
    path = Path(path)
    frames, facts = _describe(path)
    if frames.shape[:2] != (1, 1):
        t, c = frames.shape[:2]
        raise InputError(f"{path}: {t} frames and {c} channels: expected a mask of one frame in one channel")
    return Mask(as_labels(frames.read(0, 0), path), facts.spacing_um, facts.origin_um, path)


def open_omezarr_labels(path: str | Path) -> LabelFilm:
    """Labels of every frame and channel of an OME-Zarr."""
    path = Path(path)
    frames, facts = _describe(path)
    return LabelFilm(path, frames.shape, facts.spacing_um, facts.channels, frames.read)


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
        Channel that holds a refractive index, perhaps x 10 000.
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
        index = tuple({"t": slice(t, t + 1), "c": slice(c, c + 1)}.get(axis, slice(None)) for axis in self.axes)
        with _faults(self.path):
            values = np.asarray(_array(self.path, self.node)[index])
        values_ZYX = to_tczyx(values, self.axes)[0, 0]
        return unscaled_ri(values_ZYX) if c == self.ri else values_ZYX

    def reader(self, t: int, c: int) -> FrameReader:
        opened: list[zarr.Array] = []

        def stored(box: Box) -> np.ndarray:
            spans = dict(zip("tczyx", (slice(t, t + 1), slice(c, c + 1), *box), strict=True))
            with _faults(self.path):
                if not opened:
                    opened.append(_array(self.path, self.node))
                values = np.asarray(opened[0][tuple(spans[axis] for axis in self.axes)])
            return to_tczyx(values, self.axes)[0, 0]

        return StoredReader(self.shape[2:], stored, is_ri=c == self.ri)


@dataclass(frozen=True)
class _Facts:
    spacing_um: ZYX | None
    origin_um: ZYX
    channels: tuple[str, ...] | None
    times_s: tuple[float, ...] | None
    medium_ri: float | None


def _describe(path: Path) -> tuple[ZarrFrames, _Facts]:
    if not path.exists():
        raise InputError(f"{path}: no such folder")
    if not path.is_dir() or not is_zarr(path):
        raise InputError(f"{path}: not an OME-Zarr: expected a folder with zarr.json or .zgroup")
    with _faults(path):
        root, where = zarr.open_group(LocalStore(path, read_only=True), mode="r"), ""
        about = _ome(root.attrs.asdict())
        if "multiscales" not in about and "0" in root and isinstance(root["0"], zarr.Group):
            where, about = "0/", _ome(root["0"].attrs.asdict())
        if not about.get("multiscales") or not about["multiscales"][0].get("axes"):
            raise InputError(f"{path}: no OME-NGFF metadata (multiscales with axes): expected version 0.4 or 0.5")
        image = about["multiscales"][0]
        node = where + str(image["datasets"][0]["path"])
        array = _array(path, node)
        axes = "".join(str(axis["name"]) for axis in image["axes"])
        if len(axes) != array.ndim or not set(axes) <= set("tczyx") or len(set(axes)) != len(axes):
            raise InputError(
                f"{path}: axes {axes} of {array.ndim} dimensions: expected each of t, c, z, y, x at most once"
            )
        frames = ZarrFrames(path, node, axes, array.shape, np.dtype(array.dtype))
        return frames, _facts(about, image, axes, frames.shape[0])


def _facts(about: Mapping[str, Any], image: Mapping[str, Any], axes: str, t_count: int) -> _Facts:
    """Spacing and origin: the transformations of the dataset, then those of all datasets."""
    scale, shift = np.ones(len(axes)), np.zeros(len(axes))
    for level in (image["datasets"][0], image):
        for step in level.get("coordinateTransformations", ()):
            if step["type"] == "scale":
                scale, shift = scale * step["scale"], shift * step["scale"]
            elif step["type"] == "translation":
                shift = shift + step["translation"]
    units = [axis.get("unit") for axis in image["axes"]]
    flat = "y" if "z" not in axes else "z"
    places = [axes.index(axis) for axis in (flat, "y", "x")]
    spacing = all_known([micrometres(float(scale[i]), units[i]) for i in places])
    origin = all_known([micrometres(float(shift[i]), units[i]) for i in places])
    own = about.get(OWN, {})
    times = own.get("times_s")
    if times is None and "t" in axes:
        step_s = in_seconds(float(scale[axes.index("t")]), units[axes.index("t")])
        times = None if step_s is None else [t * step_s for t in range(t_count)]
    labels = [channel.get("label") for channel in about.get("omero", {}).get("channels", ())]
    medium = own.get("medium_ri")
    return _Facts(
        spacing_um=None if spacing is None or min(spacing) <= 0 else (spacing[0], spacing[1], spacing[2]),
        origin_um=(0.0, 0.0, 0.0) if origin is None else (0.0 if "z" not in axes else origin[0], origin[1], origin[2]),
        channels=tuple(str(label) for label in labels) if labels and None not in labels else None,
        times_s=None if times is None else tuple(float(s) - float(times[0]) for s in times),
        medium_ri=None if medium is None else float(medium),
    )


def _ome(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """OME-NGFF metadata with our own beside it: under "ome" since 0.5, at the top before."""
    ome = attributes.get("ome", attributes)
    return {**ome, OWN: attributes.get(OWN) or {}}


def _array(path: Path, node: str) -> zarr.Array:
    array = zarr.open_array(LocalStore(path, read_only=True), path=node, mode="r")
    strange = _codec_names(array.metadata.to_dict()) - _CODECS
    if strange or array.dtype.kind not in "biuf":
        what = f"codec {', '.join(sorted(strange))}" if strange else f"voxels of type {array.dtype}"
        raise InputError(f"{path}: {what}: expected numbers in plain compression; save it again with zstd or blosc")
    return array


def _codec_names(about: Any) -> set[str]:
    """Names of all codecs in an array's metadata, those inside a sharding codec too."""
    names = set()
    for key in ("codecs", "index_codecs", "filters", "compressor"):
        found = about.get(key) or ()
        for codec in [found] if isinstance(found, Mapping) else found:
            names.add(str(codec.get("name", codec.get("id"))).removeprefix("numcodecs."))
            names |= _codec_names(codec.get("configuration") or {})
    return names


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group of either version."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs"))


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise InputError(f"{path}: not an OME-Zarr that can be read, incomplete or damaged ({reason})") from error
