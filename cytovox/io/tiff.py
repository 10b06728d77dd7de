"""Read TIFF: OME-TIFF and ImageJ stacks with their own metadata, plain TIFF with a given spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cytovox.errors import InputError
from cytovox.io.channels import as_slices, name_channels, require_slices
from cytovox.io.file_format import Format, ImageWriter
from cytovox.io.label_volume import LabelVolume
from cytovox.io.limits import require_memory
from cytovox.io.ometiff import TiffMetadata, write_ometiff_slabs
from cytovox.io.regions import Box, CachedReader, FrameReader, StoredReader
from cytovox.io.series import Series
from cytovox.io.spacing import SpacingFrom, resolve_spacing
from cytovox.io.tiff_file import Layout, choose_image, layout_of, metadata_of, open_tiff
from cytovox.io.values import unscaled_ri
from cytovox.io.volume import Volume, to_tczyx


def read_tiff(
    path: str | Path,
    spacing_um: Sequence[float] | None = None,
    spacing_from: SpacingFrom = "file",
    series: Series = None,
) -> Volume:
    """Open a TIFF of any kind; its voxels are read when they are accessed.

    Axes may have any order; the axis of a stack without axis names is z. A colour image is read if its colours are
    equal, because some programs store grey images like this; else it is refused. Five or more unnamed channels of one
    slice each are slices. A refractive index stored times 1000 or times 10 000 is converted (see `unscaled_ri`).

    Parameters
    ----------
    path : str or Path
    spacing_um, spacing_from
        As for `formats.read_volume`.
    series : int or str, optional
        Number or name of the image if the file has several.

    Returns
    -------
    Volume
        A single channel without a name is "RI"; several are "CH0", "CH1", ...

    Raises
    ------
    InputError
        The file is missing, empty or damaged, or a file of its set is missing. Or it has no spacing, several images,
        axes that are not t, c, z, y, x, or frames of one slice each.
    """
    path = Path(path)
    frames, metadata, notes = _describe(path, series)
    t, c, z = frames.shape[:3]
    if z == 1 and t == 1 and c > 1:
        frames, turned = as_slices(path, frames, metadata.channels)
        metadata, notes = (replace(metadata, channels=None), (*notes, turned)) if turned else (metadata, notes)
    require_slices(path, frames.shape, metadata.times_s, metadata.channels)
    size = resolve_spacing(path, metadata.spacing, spacing_um, spacing_from)
    t_count, c_count = frames.shape[:2]
    channels, ri, said = name_channels(path, metadata.channels, c_count)
    return Volume(
        frames=replace(frames, ri=ri),
        spacing_um=size.spacing_um,
        channels=channels,
        origin_um=metadata.origin_um,
        times_s=metadata.times_s if metadata.times_s and len(metadata.times_s) == t_count else None,
        source=path,
        notes=(*notes, *size.notes, *said),
    )


def open_tiff_labels(path: str | Path, series: Series = None) -> LabelVolume:
    """Return the labels of all frames and channels of a TIFF."""
    path = Path(path)
    frames, metadata, notes = _describe(path, series, accept_single=True)
    return LabelVolume(
        *(path, frames.shape, metadata.spacing.spacing_um, metadata.channels, frames.read),
        stored_spacing=metadata.spacing,
        origin_um=metadata.origin_um,
        notes=notes,
    )


@dataclass(frozen=True)
class TiffFrames:
    """Frames of one image in a TIFF file or in its OME-TIFF set.

    Attributes
    ----------
    number : int
        Number of the image.
    layout : Layout
        Layout of its voxels.
    ri : int or None
        Channel of the refractive index, which may be scaled.
    """

    path: Path
    number: int
    layout: Layout
    ri: int | None = None

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        t, c, z, y, x = (self._size(axis) for axis in "tczyx")
        return t, c, z, y, x

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32) if self.ri is not None else self.layout.dtype

    def read(self, t: int, c: int) -> np.ndarray:
        samples = max(1, self._size("s"))
        require_memory(self.path, samples * math.prod(self.shape[2:]), self.layout.dtype.itemsize + 4)
        with open_tiff(self.path) as tiff:
            image = tiff.series[self.number]
            stored = self._mapped(tiff, image)
            if stored is not None:
                values_ZYXs = np.array(self._pick(stored, self.layout.axes, t, c))
                del stored  # closes the file
            else:
                values_ZYXs = self._read_pages(tiff, image, t, c)
        values_ZYX = self._grey(values_ZYXs)
        values_ZYX = values_ZYX.astype(values_ZYX.dtype.newbyteorder("="), copy=False)
        return unscaled_ri(values_ZYX) if c == self.ri else values_ZYX

    def reader(self, t: int, c: int) -> FrameReader:
        """Return a reader: uncompressed voxels are mapped, compressed pages are read at the first call and kept."""
        with open_tiff(self.path) as tiff:
            image = tiff.series[self.number]
            dtype, start = tiff.byteorder + image.dtype.char, image.dataoffset
        if start is None or self.layout.colours:
            return CachedReader(self, t, c)

        def stored(box: Box) -> np.ndarray:
            try:
                mapped = np.memmap(self.path, dtype, "r", start, self.layout.shape)
                return np.array(self._pick(mapped, self.layout.axes, t, c)[..., 0][box])
            except (OSError, ValueError) as error:
                raise InputError(f"{self.path}: not a TIFF file that can be read ({error})") from error

        return StoredReader(self.shape[2:], stored, is_ri=c == self.ri)

    def _mapped(self, tiff: tifffile.TiffFile, image: Any) -> np.ndarray | None:
        if image.dataoffset is None:
            return None
        return np.memmap(self.path, tiff.byteorder + image.dtype.char, "r", image.dataoffset, self.layout.shape)

    def _read_pages(self, tiff: tifffile.TiffFile, image: Any, t: int, c: int) -> np.ndarray:
        """Return the pages of one frame, found by their position in the leading axes."""
        layout = self.layout
        split = len(layout.axes) - layout.page_axes
        lead, page = layout.axes[:split], layout.axes[split:]
        numbers = np.arange(math.prod(layout.shape[:split])).reshape(layout.shape[:split])
        numbers = numbers[tuple({"t": t, "c": c}.get(axis, slice(None)) for axis in lead)]
        for k in numbers.flat:
            if k >= len(image.pages) or not _is_whole(image.pages[int(k)]):
                raise InputError(f"{self.path}: page {k} of frame {t} is missing or cut off: copy the file again")
        values = tiff.asarray(key=[int(k) for k in numbers.flat], series=self.number)
        kept = "".join(axis for axis in lead if axis not in "tc")
        values = values.reshape(numbers.shape + layout.shape[split:])
        return self._pick(values, kept + page, t if "t" in page else 0, c if "c" in page else 0)

    @staticmethod
    def _pick(values: np.ndarray, axes: str, t: int, c: int) -> np.ndarray:
        """Return one frame of one channel, (Z, Y, X, samples)."""
        samples = axes.find("s")
        last = values[..., None] if samples < 0 else np.moveaxis(values, samples, -1)
        axes = axes.replace("s", "")
        order = [last[..., k] for k in range(last.shape[-1])]
        index = (t if "t" in axes else 0), (c if "c" in axes else 0)
        if len(order) == 1:
            return to_tczyx(order[0], axes)[index][..., None]
        return np.stack([to_tczyx(one, axes)[index] for one in order], axis=-1)

    def _grey(self, values_ZYXs: np.ndarray) -> np.ndarray:
        """Return the grey image of a colour image with equal colours."""
        for k in range(1, self.layout.colours):
            if not np.array_equal(values_ZYXs[..., k], values_ZYXs[..., 0]):
                raise InputError(
                    f"{self.path}: a colour image (axes {self.layout.axes.upper()}) whose colours differ: expected "
                    "grey values; save the image itself, not a coloured view or overlay of it"
                )
        return values_ZYXs[..., 0]

    def _size(self, axis: str) -> int:
        return self.layout.shape[self.layout.axes.index(axis)] if axis in self.layout.axes else 1


def _is_whole(page: Any) -> bool:
    """Return whether a page is complete in the file: tifffile fills missing data with zeros."""
    if page is None:
        return False
    size = page.parent.filehandle.size
    return all(o + n <= size for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))


def _describe(
    path: Path, series: Series, accept_single: bool = False
) -> tuple[TiffFrames, TiffMetadata, tuple[str, ...]]:
    with open_tiff(path) as tiff:
        number, notes = choose_image(path, tiff, series, accept_single)
        layout = layout_of(path, tiff.series[number])
        if layout.colours > 1:
            notes = (*notes, f"{path.name}: a grey colour image: one of its {layout.colours} equal colours is read")
        return TiffFrames(path, number, layout), metadata_of(tiff, number, layout), notes


FORMAT = Format(
    "tiff",
    (".ome.tif", ".ome.tiff", ".tif", ".tiff"),
    read_tiff,
    open_tiff_labels,
    shown=(".ome.tif", ".tif"),
    writer=ImageWriter("ome-tiff", (".ome.tif", ".ome.tiff", ".tif", ".tiff"), write_ometiff_slabs),
)
