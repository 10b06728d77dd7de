"""Which channel of a mask file is meant, and how its axes lie on the tomogram's grid."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from formats import open_labels
from formats.errors import InputError
from formats.label_film import LabelFilm
from formats.labels import LabelFault
from formats.nifti_grid import turn_notes
from formats.series import Series
from formats.spacing import StoredSpacing, match_spacing
from formats.turns import PLAIN, MaskAxes, Turn, between, reorders, told, turned, turned_lengths
from formats.volume import ZYX

#: Where the slices of a mask lie: along z; or, in files of one slice, along the channels or the frames.
Slices = Literal["z", "c", "t"]

#: Other names of what a channel may hold, without case, punctuation and words such as "mask".
SYNONYMS: dict[str, tuple[str, ...]] = {
    "membrane": (
        *("membrane", "membranes", "plasma membrane", "cell membrane", "cell body", "whole cell", "cytomembrane"),
        "plasmalemma",
    ),
    "nucleus": ("nucleus", "nuclei", "nuclear", "cell nucleus", "cell nuclei", "dapi", "hoechst", "dna"),
    "nucleolus": ("nucleolus", "nucleoli", "nucleolar"),
    "lipid": ("lipid", "lipids", "lipid droplet", "lipid droplets", "droplet", "droplets", "ld", "lds", "bodipy"),
    "cells": ("cell", "cells", "cell instance", "cell instances"),
}
#: What a channel of another name may be read as: labels of cells, as one mask, are filled cells, and the reverse.
_ALSO = {"membrane": ("cells",), "cells": ("membrane",)}
_FILLERS = {"mask", "masks", "label", "labels", "seg", "segmentation", "segmented", "binary", "image", "channel"}
_UNNAMED = re.compile(r"(?:(?:ch|channel|c|image|series)?[\s:_#-]*\d*(?:[\s:_-]+\d+)*|ri|gr[ae]y|grayscale)")


@dataclass(frozen=True)
class Opening:
    """How files of masks are opened, so that they lie as their tomogram does."""

    series: Series = None
    """Image in files that hold several."""
    turn: Turn | None = None
    """The tomogram's; None where its file states no directions."""
    mask_axes: MaskAxes = "auto"
    """What decides where either states directions and the other none; see `Grid`."""

    @property
    def key(self) -> str:
        """What the voxels read depend on beside the content of the file."""
        return f"{self.series} stored {self.turn}" if self.mask_axes == "stored" else f"{self.series}"

    def opened(self, path: str | Path) -> LabelFilm:
        """Open labels of any number of frames and channels.

        With `mask_axes` "stored", where either the file or the tomogram's states directions and the other none, their
        stored arrays lie voxel on voxel. Otherwise the file lies as its own header says.

        Raises
        ------
        InputError
            An unknown kind of file, or one that cannot be read.
        """
        film = open_labels(path, self.series)
        doubtful = self.mask_axes == "stored" and in_doubt(film.turn, self.turn)
        return _as_stored(film, self.turn) if doubtful else film


def in_doubt(one: Turn | None, other: Turn | None) -> bool:
    """Whether two files may lie in two ways: one states no directions, and the other's reorder its voxels."""
    return (one is None) != (other is None) and (reorders(one) or reorders(other))


def _as_stored(film: LabelFilm, turn: Turn | None) -> LabelFilm:
    """A film whose stored axes are turned as a tomogram's were, whatever its own header says."""
    step = between(film.turn or PLAIN, turn or PLAIN)
    said = turn_notes(film.path, film.turn)

    def stored(t: int, c: int) -> np.ndarray:
        return np.ascontiguousarray(turned(film.stored(t, c), step))

    readings = (replace(r, lengths_um=turned_lengths(r.lengths_um, step)) for r in film.stored_spacing.readings)
    note = f"{film.path.name}: its stored array is laid voxel on voxel, whatever headers say of directions"
    return replace(
        film,
        shape=(*film.shape[:2], *turned_lengths(film.shape[2:], step)),
        spacing_um=None if film.spacing_um is None else turned_lengths(film.spacing_um, step),
        stored=stored,
        stored_spacing=StoredSpacing(tuple(readings)),
        origin_um=(0.0, 0.0, 0.0),  # the header's is that of another voxel
        notes=(*(known for known in film.notes if known not in said), f"{note} (mask_axes=stored)"),
        turn=turn,
    )


@dataclass(frozen=True)
class Grid:
    """The grid that a mask must lie on."""

    owner: str
    """Whose it is, for messages."""
    frames: int
    shape: tuple[int, int, int]
    """z, y, x."""
    spacing_um: ZYX | None
    """z, y, x; None where it is not known."""
    check_spacing: bool = True
    advice: str = ""
    """What else helps against another spacing."""
    series: Series = None
    """Image in files of masks that hold several."""
    turn: Turn | None = None
    """How the tomogram's stored axes were turned; None where its file states no directions."""
    mask_axes: MaskAxes = "auto"
    """What decides where either the mask's file or the tomogram's states directions, and the other none: nothing, so
    that it is refused where both readings differ; the header; or the order of the stored arrays."""
    axes_key: str = "mask_axes"
    """Of the config, for messages."""

    @property
    def opening(self) -> Opening:
        """How files of masks on this grid are opened."""
        return Opening(self.series, self.turn, self.mask_axes)

    def opened(self, path: str | Path) -> LabelFilm:
        """Open a file of masks that must lie on this grid.

        Raises
        ------
        InputError
            An unknown kind of file, or one that cannot be read; a LabelFault where it could lie in two ways.
        """
        film = self.opening.opened(path)
        if self.mask_axes == "auto" and in_doubt(film.turn, self.turn):
            raise _two_ways(film, self)
        return film


def place(film: LabelFilm, grid: Grid, own_frame: bool, notes: list[str]) -> Slices:
    """Where the slices of a file lie that must fit a grid.

    Parameters
    ----------
    film : LabelFilm
        As `grid.opened` opens it.
    grid : Grid
    own_frame : bool
        Whether the file is of one frame that is known, by its name or by a config: it may have one frame only.
    notes : list of str
        Given what was decided for the user.

    Raises
    ------
    LabelFault
        Another shape, another number of frames, another spacing, or slices whose order is not known.
    """
    t, c, *zyx = film.shape
    slices = _slices(film, grid)
    if slices is None:
        raise LabelFault(
            "mask-shape",
            f"{film.path}: mask of shape {tuple(zyx)} (z, y, x), but {grid.owner} has {grid.shape}: the file holds "
            f"{film.holds()}; save both on one grid",
        )
    if slices != "z":
        axis = "channels" if slices == "c" else "frames"
        if film.turn is not None and film.turn[2] != PLAIN[2]:  # it would reverse or move an axis of length 1
            raise LabelFault(
                "mask-axes",
                f"{film.path}: its slices lie along the {axis}, and a header {told(film.turn)}: their order cannot be "
                "told; save them along z",
            )
        notes.append(f"{film.path.name}: its {c if slices == 'c' else t} {axis} of one slice are read as the slices")
    count = 1 if slices == "t" else t
    if count != grid.frames and not (own_frame and count == 1):
        hint = "; one file a frame is named by {frame}" if count == 1 else ""
        raise LabelFault(
            "mask-shape",
            f"{film.path}: masks of {count} frame{'s' * (count != 1)}, but {grid.owner} has {grid.frames}: expected "
            f"one for each{hint}",
        )
    _check_spacing(film, grid, slices, notes)
    return slices


def _two_ways(film: LabelFilm, grid: Grid) -> LabelFault:
    """Neither reading is certain: such headers come from programs that ignore directions, and from others that mean
    them."""
    if film.turn is not None:
        why = f"its header {told(film.turn)}, but {grid.owner} states no directions"
    else:
        why = f"states no directions, but the header of {grid.owner} {told(grid.turn or PLAIN)}"
    key = grid.axes_key
    return LabelFault(
        "mask-axes",
        f"{film.path}: {why}: the mask could lie in two ways; set {key}=header to read both as ITK-SNAP shows them, or "
        f"{key}=stored to lay the stored arrays voxel on voxel, or save both in one format",
    )


def _slices(film: LabelFilm, grid: Grid) -> Slices | None:
    t, c, z, y, x = film.shape
    if (z, y, x) == grid.shape:
        return "z"
    if z != 1 or (y, x) != grid.shape[1:]:
        return None
    if c == grid.shape[0] and unnamed(film) and not film.colour:
        return "c"
    return "t" if t == grid.shape[0] and c == 1 else None


def _check_spacing(film: LabelFilm, grid: Grid, slices: Slices, notes: list[str]) -> None:
    if grid.spacing_um is None or not grid.check_spacing:
        return
    stored = film.stored_spacing
    if slices != "z":  # a file of one slice has no distance of slices
        flat = (replace(one, lengths_um=(None, *one.lengths_um[1:])) for one in stored.readings)
        stored = StoredSpacing(tuple(flat))
    try:
        notes.extend(match_spacing(film.path, stored, grid.spacing_um, grid.owner, grid.advice))
    except InputError as fault:
        raise LabelFault("mask-spacing", str(fault)) from None


def stored_frame(film: LabelFilm, t: int, c: int, slices: Slices) -> np.ndarray:
    """Values (Z, Y, X) of one frame as they are in the file, wherever its slices lie."""
    if slices == "z":
        return film.stored(t, c)
    count = film.shape[1] if slices == "c" else film.shape[0]
    return np.concatenate([film.stored(t, k) if slices == "c" else film.stored(k, c) for k in range(count)])


def meaning(name: str) -> str:
    """What a channel's name means: "membrane", "nucleus", "cells", ..., else the name without case and fillers."""
    text = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", name).casefold())
    words = [word for word in text.split() if word not in _FILLERS]
    plain = " ".join(words)
    return next((standard for standard, names in SYNONYMS.items() if plain in names), plain)


def unnamed(film: LabelFilm) -> bool:
    """Whether the channels have no names, or names such as "Channel 1" that say nothing."""
    if film.channels is None:
        return True
    return all(_UNNAMED.fullmatch(name.strip().casefold()) or not meaning(name) for name in film.channels)


def channel_of(film: LabelFilm, organelle: str, notes: list[str]) -> int:
    """The channel of one organelle, or of cells.

    Raises
    ------
    LabelFault
        Several channels, none or more than one of that name; or one channel that is named as another organelle.
    """
    count, wanted = film.shape[1], meaning(organelle)
    if unnamed(film) or film.channels is None:
        return 0 if count == 1 else _grey(film, organelle, notes)
    meanings = [meaning(name) for name in film.channels]
    for accepted in (wanted, *_ALSO.get(wanted, ())):
        found = [c for c, what in enumerate(meanings) if what == accepted]
        if len(found) > 1:
            raise _not_one(film, organelle)
        if found:
            if count > 1:
                notes.append(f"{film.path.name}: channel {film.channels[found[0]]} of {count} is read as {organelle}")
            return found[0]
    if count == 1 and meanings[0] not in (*SYNONYMS, "agreement"):
        return 0  # a name of its own, such as "Otsu"
    raise _not_one(film, organelle)


def _not_one(film: LabelFilm, organelle: str) -> LabelFault:
    return LabelFault(
        "labels",
        f"{film.path}: expected one channel of {organelle}; the file holds {film.holds()}: name its channels, or save "
        "that organelle alone",
    )


def _grey(film: LabelFilm, organelle: str, notes: list[str]) -> int:
    """Colours that are all the same are a mask; alpha says nothing."""
    t, c = film.shape[:2]
    if c not in (3, 4) and not film.colour:
        raise _not_one(film, organelle)
    colours = range(1, 3 if c >= 3 else 1)
    if any(not np.array_equal(film.stored(k, 0), film.stored(k, colour)) for k in range(t) for colour in colours):
        raise _not_one(film, organelle)
    notes.append(f"{film.path.name}: its {c} channels are equal (a grey colour image): one is read")
    return 0


def channels_of(film: LabelFilm, organelles: Sequence[str], notes: list[str]) -> dict[str, int]:
    """Channels of a file that holds one mask an organelle, by their names; without names in the order of `organelles`.

    Raises
    ------
    LabelFault
        No channel of these organelles, two of one, or more channels than organelles.
    """
    count, name = film.shape[1], film.path.name
    if film.colour:
        return {organelles[0]: _grey(film, organelles[0], notes)}
    if unnamed(film) or film.channels is None:
        if count > len(organelles):
            raise LabelFault(
                "labels",
                f"{film.path}: {count} channels without names for {len(organelles)} organelles "
                f"({', '.join(organelles)}): name the channels, or give organelle_names",
            )
        if count > 1 or len(organelles) > 1:
            pairs = ", ".join(f"{c} {organelle}" for c, organelle in enumerate(organelles[:count]))
            notes.append(f"{name}: its channels have no names; read as {pairs} (organelle_names)")
        return {organelle: c for c, organelle in enumerate(organelles[:count])}
    by_meaning: dict[str, list[int]] = {}
    for c, channel in enumerate(film.channels):
        by_meaning.setdefault(meaning(channel), []).append(c)
    found = {organelle: by_meaning.pop(meaning(organelle), []) for organelle in organelles}
    if any(len(channels) > 1 for channels in found.values()) or not any(found.values()):
        raise LabelFault(
            "labels",
            f"{film.path}: expected one channel each of some of {', '.join(organelles)}; the file holds {film.holds()}",
        )
    if by_meaning:
        others = ", ".join(film.channels[c] for channels in by_meaning.values() for c in channels)
        notes.append(f"{name}: channels that are none of {', '.join(organelles)} are left out: {others}")
    return {organelle: channels[0] for organelle, channels in found.items() if channels}
