"""Masks and labels of the frames of a tomogram: opened, fitted to its grid and read by one rule for every command."""

from __future__ import annotations

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

__all__ = ["Grid", "LabelSource", "class_source", "label_sources", "use_of", "values_of"]


@dataclass(frozen=True)
class LabelSource:
    """One organelle's mask, or labels of objects, in one frame: where it is, and how it is read."""

    path: Path
    frame: int
    """Within the file."""
    channel: int
    slices: Slices
    reading: LabelReading
    values: tuple[int, ...] | None = None
    """Of a multi-label file: the values of this organelle."""
    opening: Opening = field(default_factory=Opening)
    """How the file is opened."""

    def mask(self) -> np.ndarray:
        """Bool array (Z, Y, X).

        Raises
        ------
        InputError
            The file cannot be read any more.
        """
        stored = self._stored()
        return self.reading.mask(stored) if self.values is None else np.isin(stored, self.values)

    def objects(self) -> np.ndarray:
        """int32 array (Z, Y, X): labels of objects, 0 outside; errors as `mask`."""
        return self.reading.objects(self._stored())

    @property
    def instances(self) -> bool:
        """Whether the file tells objects from each other."""
        return self.reading.kind == "instances" and self.values is None

    @property
    def key(self) -> str:
        """What a result depends on beside the content of the file."""
        return f"{self.frame} {self.channel} {self.slices} {self.reading.key} {self.values} {self.opening.key}"

    def _stored(self) -> np.ndarray:
        label_volume = self.opening.opened(self.path)
        return _kept(label_volume, self.frame, self.channel, self.slices, self.opening)


def use_of(organelle: str) -> LabelUse:
    """What a file of this name is read as."""
    return "cells" if organelle == CELLS else "nucleus" if organelle == "nucleus" else "mask"


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
) -> dict[int, LabelSource]:
    """Open the files of one organelle of a tomogram, all frames together.

    Parameters
    ----------
    files : mapping of int -> Path
        Of each frame of the tomogram that has one; one file may serve all frames.
    organelle : str
        Or "cells".
    grid : Grid
        The tomogram's.
    notes : list of str
        Given whatever was decided for the user, one line each.
    labels : "auto", "binary" or "instances"
        How values are taken.
    own_frame : bool
        Whether the files' frames are known by their names or a config, so that each may hold one frame only.
    channel : int, optional
        Where it is known; else it is found by its name.
    use : str, optional
        "mask", "nucleus", "cells" or "classes"; by default what the organelle needs.
    quiet : bool
        Leave out of `notes` what is usual: several values where cells are read.

    Returns
    -------
    dict of int -> LabelSource
        By the frame of the tomogram.

    Raises
    ------
    InputError
        A file that cannot be read, does not fit the grid, or holds neither a mask nor labels.
    """
    opened: dict[Path, tuple[LabelVolume, int, Slices, LabelContent]] = {}
    for path in dict.fromkeys(files.values()):
        label_volume = grid.opened(path)
        notes.extend(note for note in label_volume.notes if note not in notes)
        slices = place(label_volume, grid, own_frame, notes)
        c = 0 if slices == "c" else channel_of(label_volume, organelle, notes) if channel is None else channel
        opened[path] = (label_volume, c, slices, _content(label_volume, c, slices, grid.opening))
    paths = list(opened)
    if not paths:
        return {}
    where = paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more"
    content, most = merged([opened[path][3] for path in paths], where)

    def richest() -> np.ndarray:
        label_volume, c, slices, _ = opened[paths[most]]
        return stored_frame(label_volume, content.richest, c, slices)

    def frames() -> Iterator[np.ndarray]:
        for label_volume, c, slices, _ in opened.values():
            for t in range(1 if slices == "t" else label_volume.shape[0]):
                yield stored_frame(label_volume, t, c, slices)

    reading = decide(content, use or use_of(organelle), labels, where, richest, frames, notes, quiet=quiet)
    return {t: _source(path, t, opened[path], reading, grid.opening) for t, path in sorted(files.items())}


def _source(
    path: Path, t: int, opened: tuple[LabelVolume, int, Slices, LabelContent], reading: LabelReading, opening: Opening
) -> LabelSource:  # fmt: skip
    label_volume, channel, slices, _ = opened
    frames = 1 if slices == "t" else label_volume.shape[0]
    return LabelSource(path, t if frames > 1 else 0, channel, slices, reading, opening=opening)


def class_source(
    path: Path, organelles: Mapping[str, Sequence[int]], grid: Grid, notes: list[str], own_frame: bool, t: int
) -> dict[str, LabelSource]:
    """A multi-label file, one channel whose values say which organelles a voxel is in.

    Parameters
    ----------
    organelles : mapping of str -> sequence of int
        Values inside each organelle (`label_values`).
    own_frame, grid, notes
        As for `label_sources`.
    t : int
        The frame.

    Raises
    ------
    InputError
        As `label_sources`; or a value that is in no organelle.
    """
    label_volume = grid.opened(path)
    notes.extend(note for note in label_volume.notes if note not in notes)
    slices = place(label_volume, grid, own_frame, notes)
    if label_volume.shape[1] != 1 and slices != "c":
        raise LabelError(
            "labels", f"{path}: expected one channel of several labels; the file holds {label_volume.holds()}"
        )
    content = _content(label_volume, 0, slices, grid.opening)
    known = {int(v) for values in organelles.values() for v in values}
    strange = [int(v) for v in content.values if int(v) not in known]
    reading = decide(content, "classes", "auto", path.name, lambda: np.empty(0), list, notes)
    if strange:
        raise LabelError("labels", f"{path}: label {strange[0]} is in no organelle of label_values; add it there")
    source = _source(path, t, (label_volume, 0, slices, content), reading, grid.opening)
    return {
        organelle: LabelSource(path, source.frame, 0, slices, reading, tuple(int(v) for v in values), grid.opening)
        for organelle, values in organelles.items()
    }


def values_of(label_volume: LabelVolume, slices: Slices, opening: Opening) -> np.ndarray:
    """Different values of the first channel of a file, except the background."""
    return _content(label_volume, 0, slices, opening).values


def _content(label_volume: LabelVolume, channel: int, slices: Slices, opening: Opening) -> LabelContent:
    return _scanned(label_volume.path.absolute(), str(stamp_of(label_volume.path)), channel, slices, opening)


@lru_cache(maxsize=256)
def _scanned(path: Path, stamp: str, channel: int, slices: Slices, opening: Opening) -> LabelContent:
    """Content of a channel, kept for as long as the file is as it was: several frames and organelles ask for it."""
    label_volume = opening.opened(path)
    frames = 1 if slices == "t" else label_volume.shape[0]
    names = (f"{path}, frame {t}" if frames > 1 else str(path) for t in range(frames))
    return scan((name, _kept(label_volume, t, channel, slices, opening, frames == 1)) for t, name in enumerate(names))


#: The frame that was scanned last, where its file has one frame only: it is read next.
_last: dict[tuple[object, ...], np.ndarray] = {}


def _kept(
    label_volume: LabelVolume, t: int, channel: int, slices: Slices, opening: Opening, keep: bool = False
) -> np.ndarray:
    """Values (Z, Y, X) of a frame as they are in the file."""
    key = (label_volume.path.absolute(), str(stamp_of(label_volume.path)), t, channel, slices, opening)
    kept = _last.pop(key, None)
    if kept is not None:
        return kept
    stored = stored_frame(label_volume, t, channel, slices)
    if keep:
        _last.clear()
        _last[key] = stored
    return stored
