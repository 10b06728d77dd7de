"""Masks and labels of the frames of a tomogram, fitted to its grid; all commands read them by the same rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from cytovox.io.label_layout import Grid, Opening, Slices, channel_of, place, stored_frame
from cytovox.io.label_volume import LabelVolume
from cytovox.io.labels import LabelContent, LabelError, LabelReading, LabelUse, decide, merged, scan
from cytovox.io.provenance import stamp_of
from cytovox.organelles import CELLS

__all__ = ["Grid", "LabelSource", "class_source", "label_sources", "values_of"]

#: Uses of files by organelle; a file of any other organelle is a mask.
_USES: dict[str, LabelUse] = {CELLS: "cells", "nucleus": "nucleus"}


@dataclass(frozen=True)
class LabelSource:
    """Location and reading of the mask, or the labels of objects, of one organelle in one frame."""

    path: Path
    frame: int
    """Frame within the file."""
    channel: int
    slices: Slices
    reading: LabelReading
    values: tuple[int, ...] | None = None
    """Values of this organelle in a multi-label file."""
    opening: Opening = field(default_factory=Opening)
    """Options for opening the file."""
    ignore: int | None = None
    """Value of voxels without annotation."""

    def mask(self) -> np.ndarray:
        """Return the mask, a bool array (Z, Y, X).

        Raises
        ------
        InputError
            The file can no longer be read.
        """
        return self._mask_of(self._stored())

    def annotation(self, annotated_slices: str = "all") -> tuple[np.ndarray, np.ndarray | None]:
        """Return the mask and the voxels without annotation, each a bool array (Z, Y, X); None if all are annotated.

        Parameters
        ----------
        annotated_slices : "all" or "labelled"
            Annotated z slices: all, or those that hold a label in any channel of the file.

        Raises
        ------
        InputError
            The file can no longer be read.
        """
        stored = _frame_values(self.opening.opened(self.path), self.frame, self.channel, self.slices, self.opening)
        mask, unannotated = self._mask_of(without_ignored(stored, self.ignore)), np.zeros(stored.shape, bool)
        if self.ignore is not None:
            unannotated |= stored == self.ignore
        if annotated_slices == "labelled":
            unannotated[~self._labelled_slices()] = True
        return (mask & ~unannotated, unannotated) if unannotated.any() else (mask, None)

    def _labelled_slices(self) -> np.ndarray:
        """Return which z slices hold a label in any channel of the file, a bool array (Z,)."""
        label_volume = self.opening.opened(self.path)
        several = self.slices != "c" and not label_volume.colour
        found = np.zeros(1, bool)
        for channel in range(label_volume.shape[1]) if several else (self.channel,):
            stored = _frame_values(label_volume, self.frame, channel, self.slices, self.opening)
            found = found | self.reading.mask(without_ignored(stored, self.ignore)).any(axis=(1, 2))
        return found

    def _mask_of(self, stored: np.ndarray) -> np.ndarray:
        return self.reading.mask(stored) if self.values is None else np.isin(stored, self.values)

    def objects(self) -> np.ndarray:
        """Return the labels of objects, an int32 array (Z, Y, X), 0 outside; errors as of `mask`."""
        return self.reading.objects(self._stored())

    @property
    def instances(self) -> bool:
        """Whether the file has a different value for each object."""
        return self.reading.kind == "instances" and self.values is None

    @property
    def key(self) -> str:
        """Options on which a result depends, in addition to the content of the file."""
        ignore = "" if self.ignore is None else f" {self.ignore}"
        return f"{self.frame} {self.channel} {self.slices} {self.reading.key} {self.values} {self.opening.key}{ignore}"

    def _stored(self) -> np.ndarray:
        stored = _frame_values(self.opening.opened(self.path), self.frame, self.channel, self.slices, self.opening)
        return without_ignored(stored, self.ignore)


def without_ignored(stored_ZYX: np.ndarray, ignore: int | None) -> np.ndarray:
    """Return stored values with the background in place of the value of voxels without annotation."""
    if ignore is None or not (ignored_ZYX := stored_ZYX == ignore).any():
        return stored_ZYX
    background = -1 if (stored_ZYX == -1).any() and not (stored_ZYX == 0).any() else 0
    return np.where(ignored_ZYX, np.asarray(background, stored_ZYX.dtype), stored_ZYX)


def label_sources(
    files: Mapping[int, Path],
    organelle: str,
    grid: Grid,
    notes: list[str],
    *,
    labels: str = "auto",
    own_frame: bool = False,
    channel: int | None = None,
    use: LabelUse | None = None,
    quiet: bool = False,
    ignore: int | None = None,
) -> dict[int, LabelSource]:
    """Return the sources of one organelle by frame of the tomogram; the values of all frames are read by one rule.

    Parameters
    ----------
    files : mapping of int -> Path
        File of each frame that has one; all frames may have the same file.
    organelle : str
        Name of an organelle, or "cells".
    grid : Grid
        Grid of the tomogram.
    notes : list of str
        Gets one line for each automatic decision.
    labels : "auto", "binary" or "instances"
        Meaning of the values.
    own_frame : bool
        Whether the frame of each file is known from its name or a config, so that the file may have a single frame.
    channel : int, optional
        Channel of the files; by default it is found by its name.
    use : str, optional
        Use of the values: "mask", "nucleus", "cells" or "classes"; by default that of the organelle.
    quiet : bool
        Leave the usual decision out of `notes`: several values in a file of cells.
    ignore : int, optional
        Value of voxels without annotation; the meaning of the other values does not depend on it.

    Raises
    ------
    InputError
        A file cannot be read, does not fit the grid, or has neither a mask nor labels.
    """
    opened: dict[Path, tuple[LabelVolume, int, Slices, LabelContent]] = {}
    for path in dict.fromkeys(files.values()):
        label_volume = grid.opened(path)
        notes.extend(note for note in label_volume.notes if note not in notes)
        slices = place(label_volume, grid, own_frame, notes)
        c = 0 if slices == "c" else channel_of(label_volume, organelle, notes) if channel is None else channel
        opened[path] = (label_volume, c, slices, _content(label_volume, c, slices, grid.opening, ignore))
    paths = list(opened)
    if not paths:
        return {}
    where = paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more"
    content, most = merged([opened[path][3] for path in paths], where)

    def richest() -> np.ndarray:
        label_volume, c, slices, _ = opened[paths[most]]
        return without_ignored(stored_frame(label_volume, content.richest, c, slices), ignore)

    def frames() -> Iterator[np.ndarray]:
        for label_volume, c, slices, _ in opened.values():
            for t in range(1 if slices == "t" else label_volume.shape[0]):
                yield without_ignored(stored_frame(label_volume, t, c, slices), ignore)

    reading = decide(content, use or _USES.get(organelle, "mask"), labels, where, richest, frames, notes, quiet=quiet)
    return {t: _source(path, t, opened[path], reading, grid.opening, ignore) for t, path in sorted(files.items())}


def _source(
    path: Path, t: int, opened: tuple[LabelVolume, int, Slices, LabelContent], reading: LabelReading, opening: Opening,
    ignore: int | None,
) -> LabelSource:  # fmt: skip
    label_volume, channel, slices, _ = opened
    several = slices != "t" and label_volume.shape[0] > 1
    return LabelSource(path, t if several else 0, channel, slices, reading, opening=opening, ignore=ignore)


def class_source(
    path: Path, organelles: Mapping[str, Sequence[int]], grid: Grid, notes: list[str], own_frame: bool, t: int,
    ignore: int | None = None,
) -> dict[str, LabelSource]:  # fmt: skip
    """Return the source of each organelle in a multi-label file: one channel, whose values encode the organelles.

    Parameters
    ----------
    path : Path
        Multi-label file.
    organelles : mapping of str -> sequence of int
        Values inside each organelle (`label_values`).
    grid, notes, own_frame, ignore
        See `label_sources`.
    t : int
        Frame of the tomogram.

    Raises
    ------
    InputError
        An error of `label_sources`, or a value that is in no organelle.
    """
    label_volume = grid.opened(path)
    notes.extend(note for note in label_volume.notes if note not in notes)
    slices = place(label_volume, grid, own_frame, notes)
    if label_volume.shape[1] != 1 and slices != "c":
        raise LabelError(
            "labels", f"{path}: expected one channel of several labels; the file holds {label_volume.holds()}"
        )
    content = _content(label_volume, 0, slices, grid.opening, ignore)
    known = {int(v) for values in organelles.values() for v in values}
    strange = [int(v) for v in content.values if int(v) not in known]
    reading = decide(content, "classes", "auto", path.name, lambda: np.empty(0), list, notes)
    if strange:
        raise LabelError("labels", f"{path}: label {strange[0]} is in no organelle of label_values; add it there")
    source = _source(path, t, (label_volume, 0, slices, content), reading, grid.opening, ignore)
    return {k: dataclasses.replace(source, values=tuple(int(v) for v in values)) for k, values in organelles.items()}


def values_of(label_volume: LabelVolume, slices: Slices, opening: Opening) -> np.ndarray:
    """Return the different values of the first channel of a file, without the background."""
    return _content(label_volume, 0, slices, opening).values


def _content(
    label_volume: LabelVolume, channel: int, slices: Slices, opening: Opening, ignore: int | None = None
) -> LabelContent:
    return _scanned(label_volume.path.absolute(), str(stamp_of(label_volume.path)), channel, slices, opening, ignore)


@lru_cache(maxsize=256)
def _scanned(
    path: Path, stamp: str, channel: int, slices: Slices, opening: Opening, ignore: int | None
) -> LabelContent:
    """Return the content of a channel, cached until the file changes, since frames and organelles may share a file."""
    label_volume = opening.opened(path)
    frames = 1 if slices == "t" else label_volume.shape[0]
    names = (f"{path}, frame {t}" if frames > 1 else str(path) for t in range(frames))
    return scan(
        (name, without_ignored(_frame_values(label_volume, t, channel, slices, opening, frames == 1), ignore))
        for t, name in enumerate(names)
    )


#: Last scanned frame, if it is the only one of its file: it is usually read next.
_last_scanned: dict[tuple[object, ...], np.ndarray] = {}


def _frame_values(
    label_volume: LabelVolume, t: int, channel: int, slices: Slices, opening: Opening, keep: bool = False
) -> np.ndarray:
    """Return the values (Z, Y, X) of a frame as stored in the file."""
    key = (label_volume.path.absolute(), str(stamp_of(label_volume.path)), t, channel, slices, opening)
    if (scanned := _last_scanned.pop(key, None)) is not None:
        return scanned
    stored = stored_frame(label_volume, t, channel, slices)
    if keep:
        _last_scanned.clear()
        _last_scanned[key] = stored
    return stored
