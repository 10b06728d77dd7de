"""Reading TIFF: OME-TIFF and ImageJ stacks by their own metadata, plain ones with the spacing given."""

import logging
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
import tifffile

from formats.errors import InputError
from formats.label_film import LabelFilm
from formats.ometiff import TiffFacts, ome_facts
from formats.regions import Box, FrameReader, KeptReader, StoredReader
from formats.units import in_seconds, micrometres
from formats.values import as_labels, unscaled_ri
from formats.volume import ZYX, Mask, Volume, check_spacing, default_channels, to_tczyx

#: What tifffile raises on damaged files, and Python on OME-XML that is no XML.
_FAULTS = (
    *(tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError, RuntimeError),
    *(ArithmeticError, TypeError, struct.error, zlib.error, ParseError),
)


def read_tiff(path: str | Path, spacing_um: Sequence[float] | None = None) -> Volume:
    """Open a TIFF of any kind; voxels are read when asked for.

    Axes may come in any order; a stack whose axis has no name is taken for z, samples of a colour image for channels,
    and the first image of a file of several. Refractive index stored x 10 000 is recognised (see `unscaled_ri`).

    Parameters
    ----------
    path : str or Path
    spacing_um : (z, y, x), optional
        For files that tell none, which is every plain TIFF. Where the file tells its own, both must agree.

    Returns
    -------
    Volume
        A single channel without a name is called "RI", several "CH0", "CH1", ...

    Raises
    ------
    InputError
        Missing, empty, damaged, no spacing, or axes that are not t, c, z, y, x.
    """
    path = Path(path)
    frames, facts = _describe(path)
    spacing = settle_spacing(path, facts.spacing_um, spacing_um)
    t_count, c_count = frames.shape[:2]
    channels = facts.channels if facts.channels and len(facts.channels) == c_count else default_channels(c_count)
    return Volume(
        frames=frames if "RI" not in channels else TiffFrames(**{**vars(frames), "ri": channels.index("RI")}),
        spacing_um=spacing,
        channels=channels,
        origin_um=facts.origin_um,
        times_s=facts.times_s if facts.times_s and len(facts.times_s) == t_count else None,
        source=path,
    )


def read_tiff_mask(path: str | Path) -> Mask:
    """Labels from a TIFF of one frame and one channel; `spacing_um` is None where the file tells none."""
    path = Path(path)
    frames, facts = _describe(path)
    if frames.shape[:2] != (1, 1):
        t, c = frames.shape[:2]
        raise InputError(f"{path}: {t} frames and {c} channels: expected a mask of one frame in one channel")
    return Mask(as_labels(frames.read(0, 0), path), facts.spacing_um, facts.origin_um, path)


def open_tiff_labels(path: str | Path) -> LabelFilm:
    """Labels of every frame and channel of a TIFF."""
    path = Path(path)
    frames, facts = _describe(path)
    return LabelFilm(path, frames.shape, facts.spacing_um, facts.channels, frames.read)


def settle_spacing(path: Path, stored: ZYX | None, given: Sequence[float] | None) -> ZYX:
    """The file's spacing, else the one given; InputError where there is neither, or where they contradict."""
    if stored is None and given is None:
        raise InputError(
            f"{path}: the file tells no voxel size: give it as z, y, x in micrometres "
            "(data.spacing_um for training, predict.spacing_um for prediction)"
        )
    if stored is None:
        return check_spacing(given or (), path)
    if given is not None and not np.allclose(check_spacing(given, path), stored, rtol=0.02, atol=0):
        raise InputError(
            f"{path}: the file's own spacing is {stored} um (z, y, x), the one given {tuple(given)}: "
            "drop the given one (spacing_um), or correct the file"
        )
    return stored


@dataclass(frozen=True)
class TiffFrames:
    """Frames of the first image in a TIFF file.

    Attributes
    ----------
    axes : str
        One letter of "tczyx" per axis of the image as stored.
    stored_shape : tuple of int
    page_axes : int
        How many of the last axes lie within one page of the file.
    ri : int or None
        Channel that holds a refractive index, perhaps x 10 000.
    """

    path: Path
    axes: str
    stored_shape: tuple[int, ...]
    stored_dtype: np.dtype
    page_axes: int
    ri: int | None = None

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        t, c, z, y, x = (self._size(axis) for axis in "tczyx")
        return t, c, z, y, x

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32) if self.ri is not None else self.stored_dtype

    def read(self, t: int, c: int) -> np.ndarray:
        with _open_tiff(self.path) as tiff:
            series = tiff.series[0]
            if series.dataoffset is not None:
                stored = np.memmap(
                    self.path, tiff.byteorder + series.dtype.char, "r", series.dataoffset, self.stored_shape
                )
                values_ZYX = np.array(to_tczyx(stored, self.axes)[self._index(self.axes, t, c)])
                del stored  # closes the file
            else:
                values_ZYX = self._read_pages(tiff, t, c)
        values_ZYX = values_ZYX.astype(values_ZYX.dtype.newbyteorder("="), copy=False)
        return unscaled_ri(values_ZYX) if c == self.ri else values_ZYX

    def reader(self, t: int, c: int) -> FrameReader:
        """Uncompressed voxels are mapped into memory; compressed pages are read at the first call, and kept."""
        with _open_tiff(self.path) as tiff:
            series = tiff.series[0]
            dtype, start = tiff.byteorder + series.dtype.char, series.dataoffset
        if start is None:
            return KeptReader(self, t, c)

        def stored(box: Box) -> np.ndarray:
            try:
                mapped = np.memmap(self.path, dtype, "r", start, self.stored_shape)
                return np.array(to_tczyx(mapped, self.axes)[self._index(self.axes, t, c)][box])
            except (OSError, ValueError) as error:
                raise InputError(f"{self.path}: not a TIFF file that can be read ({error})") from error

        return StoredReader(self.shape[2:], stored, is_ri=c == self.ri)

    def _read_pages(self, tiff: tifffile.TiffFile, t: int, c: int) -> np.ndarray:
        """The pages of one frame, found by their place in the leading axes."""
        split = len(self.axes) - self.page_axes
        lead, page = self.axes[:split], self.axes[split:]
        numbers = np.arange(int(np.prod(self.stored_shape[:split]))).reshape(self.stored_shape[:split])
        numbers = numbers[tuple({"t": t, "c": c}.get(axis, slice(None)) for axis in lead)]
        series = tiff.series[0]
        for k in numbers.flat:
            if k >= len(series.pages) or not _is_whole(series.pages[int(k)]):
                raise InputError(f"{self.path}: page {k} of frame {t} is missing or cut off: copy the file again")
        values = tiff.asarray(key=[int(k) for k in numbers.flat], series=0)
        kept = "".join(axis for axis in lead if axis not in "tc")
        values = values.reshape(numbers.shape + self.stored_shape[split:])
        return to_tczyx(values, kept + page)[self._index(page, t, c)]

    @staticmethod
    def _index(axes: str, t: int, c: int) -> tuple[int, int]:
        return (t if "t" in axes else 0), (c if "c" in axes else 0)

    def _size(self, axis: str) -> int:
        return self.stored_shape[self.axes.index(axis)] if axis in self.axes else 1


def _is_whole(page: Any) -> bool:
    """Whether a page is there and ends before the file does: tifffile fills what is missing with zeros."""
    if page is None:
        return False
    size = page.parent.filehandle.size
    return all(o + n <= size for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))


@contextmanager
def _open_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
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
            if tiff.series and damage.said:
                raise InputError(f"{path}: truncated or damaged ({damage.said[0]}): copy it again")
            yield tiff
    except _FAULTS as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a TIFF file that can be read ({reason})") from error
    finally:
        tifffile.logger().removeFilter(damage)


class _Damage(logging.Filter):
    """Hears what tifffile only logs: that pages are cut off. It would go on with those that are left."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        damaged = "page offset" in said or "corrupted" in said
        if not damaged or record.thread != self.thread:
            return True
        self.said.append(said.partition("> ")[2] or said)
        return False


def _describe(path: Path) -> tuple[TiffFrames, TiffFacts]:
    with _open_tiff(path) as tiff:
        if not tiff.series:
            raise InputError(f"{path}: holds no image")
        series = tiff.series[0]
        page_axes = len(series.keyframe.shape)
        frames = TiffFrames(path, _axes(path, series.axes), series.shape, np.dtype(series.dtype), page_axes)
        flat = frames.shape[2] == 1
        if tiff.ome_metadata:
            return frames, ome_facts(tifffile.xml2dict(tiff.ome_metadata), flat)
        if tiff.is_imagej:
            return frames, _imagej_facts(tiff, frames.shape[0], flat)
        return frames, TiffFacts()


def _axes(path: Path, stored: str) -> str:
    """tifffile's letters as ours: S (samples) are channels, Q and I (unknown, sequence) the first free of z, t."""
    axes = stored.lower()
    if "c" not in axes:
        axes = axes.replace("s", "c")
    for letter in "qi":
        free = next((axis for axis in "zt" if axis not in axes), letter)
        axes = axes.replace(letter, free)
    if not set(axes) <= set("tczyx") or len(set(axes)) != len(axes):
        raise InputError(f"{path}: axes {stored}: expected no others than T, C, Z, Y, X; export it as OME-TIFF")
    return axes


def _imagej_facts(tiff: tifffile.TiffFile, frames: int, flat: bool) -> TiffFacts:
    """ImageJ counts pixels per unit in x and y, and the unit between slices."""
    about = tiff.imagej_metadata or {}
    unit = about.get("unit", "")
    lengths: list[float | None] = [micrometres(about.get("spacing"), unit)]
    for name in ("YResolution", "XResolution"):
        tag = tiff.pages.first.tags.get(name)
        pixels, units = tag.value if tag is not None else (0, 1)
        lengths.append(micrometres(units / pixels, unit) if pixels else None)
    if flat and lengths[0] is None:
        lengths[0] = lengths[1]
    known = [length for length in lengths if length]
    spacing = check_spacing(known, tiff.filename) if len(known) == 3 else None
    interval = in_seconds(about.get("finterval"), about.get("tunit", "s"))
    return TiffFacts(spacing, None, tuple(t * interval for t in range(frames)) if interval else None)
