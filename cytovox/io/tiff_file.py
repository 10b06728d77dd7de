"""Open a TIFF file: its images, the axes and metadata of one image, and the other files of its OME-TIFF set."""

from __future__ import annotations

import logging
import math
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from cytovox.errors import InputError
from cytovox.io.ometiff import TiffMetadata, ome_images, ome_metadata
from cytovox.io.series import Series, choose_series
from cytovox.io.spacing import StoredSpacing
from cytovox.io.units import in_seconds, micrometres

#: Exceptions of tifffile for damaged files, and of Python for OME-XML that is no XML.
_FAULTS = (
    *(tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError, RuntimeError, MemoryError),
    *(ArithmeticError, TypeError, AttributeError, struct.error, zlib.error, ElementTree.ParseError),
)

#: Largest number of planes in OME-XML. More must be wrong, and tifffile would make a list of all of them.
_MOST_PLANES = 10_000_000

#: Types of extra samples of a plain TIFF that are opacity.
_ALPHA = (1, 2)


@dataclass(frozen=True)
class Layout:
    """Layout of the voxels of one image.

    Attributes
    ----------
    axes : str
        One letter of "tczyxs" per stored axis; s are the samples of a pixel.
    shape : tuple of int
        As stored.
    page_axes : int
        Number of last axes that are within one page.
    dtype : numpy.dtype
    colours : int
        Number of samples that must be equal, because they are the colours of one grey image; 0 without colours.
    """

    axes: str
    shape: tuple[int, ...]
    page_axes: int
    dtype: np.dtype
    colours: int = 0


@contextmanager
def open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a file for reading, and close it; errors of tifffile become an InputError that names the file."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder: expected a TIFF file")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty: expected a TIFF file")
    damage = _Damage()
    tifffile.logger().addFilter(damage)
    try:
        with tifffile.TiffFile(path) as tiff:
            _require_sane_ome(path, tiff)
            images = tiff.series
            if damage.broken:
                raise InputError(
                    f"{path}: not a TIFF file that can be read (its OME-XML is damaged: {damage.broken[0]})"
                )
            if damage.missing:
                raise InputError(
                    f"{path}: is one file of an OME-TIFF set; of its others, {damage.missing[0]} is not there: copy "
                    "all files of the set into one folder"
                )
            if images and damage.said:
                raise InputError(f"{path}: truncated or damaged ({damage.said[0]}): copy it again")
            yield tiff
    except _FAULTS as error:
        raise InputError(_reason(path, error)) from error
    finally:
        tifffile.logger().removeFilter(damage)


def _reason(path: Path, error: BaseException) -> str:
    """Return the error of tifffile in one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    if codec := re.search(r"(?:COMPRESSION|PREDICTOR)\.(\w+)", said):
        if "imagecodecs" in said:
            return f"{path}: compressed by {codec[1]}, which needs a package: pip install imagecodecs"
        return f"{path}: compressed by {codec[1]}, which cannot be read: save it again with LZW, ZIP or no compression"
    if "not a known COMPRESSION" in said:
        return f"{path}: compressed in an unknown way ({said}): save it again with LZW, ZIP or no compression"
    return f"{path}: not a TIFF file that can be read ({said})"


class _Damage(logging.Filter):
    """Collect errors that tifffile only logs (missing pages, missing files of a set), for which it reads zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.missing: list[str] = []
        self.broken: list[str] = []
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        if record.thread != self.thread:
            return True
        if named := re.search(r"failed to read '([^']*)'", said):
            self.missing.append(named[1])
            return False
        if "OME series raised" in said:
            self.broken.append(said.partition("raised ")[2])
            return False
        if not any(word in said for word in ("page offset", "corrupted", "discontiguous", "data are zeroed")):
            return True
        self.said.append(said.partition("> ")[2] or said)
        return False


def _require_sane_ome(path: Path, tiff: tifffile.TiffFile) -> None:
    """Raise InputError if OME-XML lists more planes than a file can have, or describes only another file."""
    text = tiff.ome_metadata
    if not text:
        return
    images = re.findall(r"<(?:\w+:)?Pixels\b([^>]*)>", text)
    for image in images:
        planes = math.prod(int(count) for count in re.findall(r'\bSize[TCZ]\s*=\s*"(\d+)"', image))
        if planes > _MOST_PLANES:
            raise InputError(f"{path}: its OME-XML states {planes} planes: damaged; export it again")
    if not images and (named := re.search(r'MetadataFile\s*=\s*"([^"]*)"', text)):
        raise InputError(
            f"{path}: is a part of an OME-TIFF set that {named[1]} describes: open that file, or export the set as one "
            "OME-TIFF"
        )


def choose_image(
    path: Path, tiff: tifffile.TiffFile, series: Series, accept_single: bool = False
) -> tuple[int, tuple[str, ...]]:
    """Return the index of the image to read, and a note for the user on the choice."""
    images = tiff.series
    if not images:
        raise InputError(f"{path}: holds no image")
    if series is None and len(images) > 1 and _is_pyramid(images):
        note = f"{path.name}: {len(images) - 1} smaller copies of the image are left out"
        return 0, (note,)
    if series is None and len(images) > 1:  # a set with one file per position: each file has its own image
        own = [k for k, s in enumerate(images) if any(page is not None and page.parent is tiff for page in s.pages)]
        if len(own) == 1:
            return own[0], (f"{path.name}: image {own[0]} of the {len(images)} of its OME-TIFF set",)
    found = [(str(s.name or ""), f"{s.axes} {'x'.join(map(str, s.shape))}") for s in images]
    return choose_series(path, found, series, accept_single=accept_single), ()


def _is_pyramid(images: Sequence[Any]) -> bool:
    """Return whether all later images are the first one reduced by a whole factor."""
    first = images[0]
    for other in images[1:]:
        if other.axes != first.axes or "Y" not in other.axes or "X" not in other.axes:
            return False
        sizes = {a: (n, m) for a, n, m in zip(first.axes, first.shape, other.shape, strict=True)}
        factor = round(sizes["Y"][0] / sizes["Y"][1])
        if any(n != m for a, (n, m) in sizes.items() if a not in "ZYX") or factor < 2:
            return False
        if any(abs(n / factor - m) >= 1 for a, (n, m) in sizes.items() if a in "YX" or (a == "Z" and n != m)):
            return False
    return True


def layout_of(path: Path, series: Any) -> Layout:
    """Return the layout of an image: an axis without a name is z, then t; unknown axes of length 1 are omitted.

    Raises
    ------
    InputError
        The axes are not t, c, z, y, x, or voxels are no plain numbers.
    """
    page = series.keyframe
    letters, shape = series.axes.lower(), tuple(int(n) for n in series.shape)
    split = len(letters) - len(page.shape)
    kept = [k for k, (a, n) in enumerate(zip(letters, shape, strict=True)) if n > 1 or a in "yx"]
    axes, sizes = "".join(letters[k] for k in kept), tuple(shape[k] for k in kept)
    for letter in "qi":  # a sequence of pages, or an unknown axis
        if axes.count(letter) == 1:
            axes = axes.replace(letter, next((axis for axis in "zt" if axis not in axes), letter))
    colours = 0
    if "s" in axes:
        alphas = sum(1 for extra in page.extrasamples if int(extra) in _ALPHA)
        is_colour = page.photometric.name in ("RGB", "YCBCR", "CIELAB", "ICCLAB", "SEPARATED") or alphas > 0
        if is_colour:
            colours = max(1, sizes[axes.index("s")] - alphas)
        elif "c" not in axes:
            axes = axes.replace("s", "c")
    if not set(axes) <= set("tczyxs") or len(set(axes)) != len(axes) or ("s" in axes and not colours):
        raise InputError(
            f"{path}: axes {series.axes} of {'x'.join(map(str, series.shape))}: expected no others than T, C, Z, Y, X; "
            "export it as OME-TIFF"
        )
    if np.dtype(series.dtype).kind not in "biuf":
        raise InputError(f"{path}: voxels of type {series.dtype}: expected plain numbers")
    return Layout(axes, sizes, sum(k >= split for k in kept), np.dtype(series.dtype), colours)


def metadata_of(tiff: tifffile.TiffFile, number: int, layout: Layout) -> TiffMetadata:
    """Return the metadata of one image: OME-XML, ImageJ's, tifffile's, or the resolution of a plain TIFF."""
    sizes = dict(zip(layout.axes, layout.shape, strict=True))
    flat = sizes.get("z", 1) == 1
    if tiff.ome_metadata and tiff.series[number].kind == "ome":
        images = ome_images(tiff.ome_metadata)
        names = [s.name for s in tiff.series]
        if len(images) != len(names):  # OME-XML may describe images without voxels, which are no series
            images = [next((i for i in images if i.name == n), images[0]) for n in names]
        return ome_metadata(images[number].xml, flat)
    series = tiff.series[number]
    if tiff.is_imagej:
        return _imagej_metadata(series.keyframe, tiff.imagej_metadata or {}, sizes, flat)
    about = next(iter(tiff.shaped_metadata or ()), None) or {}
    if micrometres(1, about.get("unit")) is not None:
        return _imagej_metadata(series.keyframe, about, sizes, flat)
    return TiffMetadata(_plain_spacing(series.keyframe, flat))


def _imagej_metadata(page: Any, about: dict[str, Any], sizes: dict[str, int], flat: bool) -> TiffMetadata:
    """Return ImageJ's metadata: pixels per unit in x and y, units between slices; the sign of the depth is ignored."""
    unit = about.get("unit", "")
    units = {"z": about.get("zunit", unit), "y": about.get("yunit", unit), "x": about.get("xunit", unit)}
    depth = micrometres(about.get("spacing"), units["z"])
    lengths = [depth, *(_pixel_um(page, axis, units[axis.lower()]) for axis in "YX")]
    if flat and lengths[0] is None:
        lengths[0] = lengths[1]
    interval = in_seconds(about.get("finterval"), about.get("tunit", "s"))
    frames = sizes.get("t", 1)
    times = tuple(t * interval for t in range(frames)) if interval else None
    return TiffMetadata(StoredSpacing.of(lengths), _label_names(about.get("Labels"), sizes), times)


def _pixel_um(page: Any, axis: str, unit: object) -> float | None:
    """Return the size of a pixel in micrometres, from the tag with the number of pixels per unit."""
    tag = page.tags.get(f"{axis}Resolution")
    pixels, units = tag.value if tag is not None and np.size(tag.value) == 2 else (0, 1)
    return micrometres(units / pixels, unit) if pixels else None


def _label_names(labels: Any, sizes: dict[str, int]) -> tuple[str, ...] | None:
    """Return the names of channels, if ImageJ's labels of the slices are names of channels."""
    count, others = sizes.get("c", 1), sizes.get("z", 1) * sizes.get("t", 1)
    if not isinstance(labels, (list, tuple)) or len(labels) != count * others or count == 1:
        return None
    names = [str(label).strip() for label in labels[:count]]
    repeated = all(str(label).strip() == names[k % count] for k, label in enumerate(labels))
    return tuple(names) if repeated and len(set(names)) == count and all(names) else None


def _plain_spacing(page: Any, flat: bool) -> StoredSpacing:
    """Return the voxel size of a plain TIFF from pixels per length, unless it is that of a printer or screen."""
    unit = {2: "inch", 3: "cm"}.get(int(page.tags.valueof("ResolutionUnit", 1) or 1), "")
    y, x = _pixel_um(page, "Y", unit), _pixel_um(page, "X", unit)
    stored = StoredSpacing.of((y if flat else None, y, x))
    return stored if stored.readings and stored.readings[0].plausible() else StoredSpacing()
