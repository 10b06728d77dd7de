"""Which channel of a mask file is meant, and how its axes lie on the tomogram's grid."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cytovox.errors import InputError
from cytovox.io.label_volume import LabelVolume
from cytovox.io.labels import LabelError
from cytovox.io.spacing import StoredSpacing, match_spacing
from cytovox.io.volume import ZYX

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
    series: int | str | None = None
    """Image in files of masks that hold several."""


def place(label_volume: LabelVolume, grid: Grid, own_frame: bool, notes: list[str]) -> Slices:
    """Where the slices of a file lie that must fit a grid.

    Parameters
    ----------
    label_volume : LabelVolume
    grid : Grid
    own_frame : bool
        Whether the file is of one frame that is known, by its name or by a config: it may have one frame only.
    notes : list of str
        Given what was decided for the user.

    Raises
    ------
    LabelFault
        Another shape, another number of frames, or another spacing.
    """
    t, c, *zyx = label_volume.shape
    slices = _slices(label_volume, grid)
    if slices is None:
        raise LabelError(
            "mask-shape",
            f"{label_volume.path}: mask of shape {tuple(zyx)} (z, y, x), but {grid.owner} has {grid.shape}: the file "
            "holds "
            f"{label_volume.holds()}; save both on one grid",
        )
    if slices != "z":
        axis = "channels" if slices == "c" else "frames"
        notes.append(
            f"{label_volume.path.name}: its {c if slices == 'c' else t} {axis} of one slice are read as the slices"
        )
    count = 1 if slices == "t" else t
    if count != grid.frames and not (own_frame and count == 1):
        hint = "; one file a frame is named by {frame}" if count == 1 else ""
        raise LabelError(
            "mask-shape",
            f"{label_volume.path}: masks of {count} frame{'s' * (count != 1)}, but {grid.owner} has {grid.frames}: "
            "expected "
            f"one for each{hint}",
        )
    _check_spacing(label_volume, grid, slices, notes)
    return slices


def _slices(label_volume: LabelVolume, grid: Grid) -> Slices | None:
    t, c, z, y, x = label_volume.shape
    if (z, y, x) == grid.shape:
        return "z"
    if z != 1 or (y, x) != grid.shape[1:]:
        return None
    if c == grid.shape[0] and unnamed(label_volume) and not label_volume.colour:
        return "c"
    return "t" if t == grid.shape[0] and c == 1 else None


def _check_spacing(label_volume: LabelVolume, grid: Grid, slices: Slices, notes: list[str]) -> None:
    if grid.spacing_um is None or not grid.check_spacing:
        return
    stored = label_volume.stored_spacing
    if slices != "z":  # a file of one slice has no distance of slices
        flat = (replace(one, lengths_um=(None, *one.lengths_um[1:])) for one in stored.readings)
        stored = StoredSpacing(tuple(flat))
    try:
        notes.extend(match_spacing(label_volume.path, stored, grid.spacing_um, grid.owner, grid.advice))
    except InputError as error:
        raise LabelError("mask-spacing", str(error)) from None


def stored_frame(label_volume: LabelVolume, t: int, c: int, slices: Slices) -> np.ndarray:
    """Values (Z, Y, X) of one frame as they are in the file, wherever its slices lie."""
    if slices == "z":
        return label_volume.stored(t, c)
    count = label_volume.shape[1] if slices == "c" else label_volume.shape[0]
    return np.concatenate(
        [label_volume.stored(t, k) if slices == "c" else label_volume.stored(k, c) for k in range(count)]
    )


def meaning(name: str) -> str:
    """What a channel's name means: "membrane", "nucleus", "cells", ..., else the name without case and fillers."""
    text = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", name).casefold())
    words = [word for word in text.split() if word not in _FILLERS]
    plain = " ".join(words)
    return next((standard for standard, names in SYNONYMS.items() if plain in names), plain)


def unnamed(label_volume: LabelVolume) -> bool:
    """Whether the channels have no names, or names such as "Channel 1" that say nothing."""
    if label_volume.channels is None:
        return True
    return all(_UNNAMED.fullmatch(name.strip().casefold()) or not meaning(name) for name in label_volume.channels)


def channel_of(label_volume: LabelVolume, organelle: str, notes: list[str]) -> int:
    """The channel of one organelle, or of cells.

    Raises
    ------
    LabelFault
        Several channels, none or more than one of that name; or one channel that is named as another organelle.
    """
    count, wanted = label_volume.shape[1], meaning(organelle)
    if unnamed(label_volume) or label_volume.channels is None:
        return 0 if count == 1 else _grey(label_volume, organelle, notes)
    meanings = [meaning(name) for name in label_volume.channels]
    for accepted in (wanted, *_ALSO.get(wanted, ())):
        found = [c for c, what in enumerate(meanings) if what == accepted]
        if len(found) > 1:
            raise _not_one(label_volume, organelle)
        if found:
            if count > 1:
                notes.append(
                    f"{label_volume.path.name}: channel {label_volume.channels[found[0]]} of {count} is read as "
                    f"{organelle}"
                )
            return found[0]
    if count == 1 and meanings[0] not in (*SYNONYMS, "agreement"):
        return 0  # a name of its own, such as "Otsu"
    raise _not_one(label_volume, organelle)


def _not_one(label_volume: LabelVolume, organelle: str) -> LabelError:
    return LabelError(
        "labels",
        f"{label_volume.path}: expected one channel of {organelle}; the file holds {label_volume.holds()}: name its "
        "channels, or save "
        "that organelle alone",
    )


def _grey(label_volume: LabelVolume, organelle: str, notes: list[str]) -> int:
    """Colours that are all the same are a mask; alpha says nothing."""
    t, c = label_volume.shape[:2]
    if c not in (3, 4) and not label_volume.colour:
        raise _not_one(label_volume, organelle)
    colours = range(1, 3 if c >= 3 else 1)
    if any(
        not np.array_equal(label_volume.stored(k, 0), label_volume.stored(k, colour))
        for k in range(t)
        for colour in colours
    ):
        raise _not_one(label_volume, organelle)
    notes.append(f"{label_volume.path.name}: its {c} channels are equal (a grey colour image): one is read")
    return 0


def channels_of(label_volume: LabelVolume, organelles: Sequence[str], notes: list[str]) -> dict[str, int]:
    """Channels of a file that holds one mask an organelle, by their names; without names in the order of `organelles`.

    Raises
    ------
    LabelFault
        No channel of these organelles, two of one, or more channels than organelles.
    """
    count, name = label_volume.shape[1], label_volume.path.name
    if label_volume.colour:
        return {organelles[0]: _grey(label_volume, organelles[0], notes)}
    if unnamed(label_volume) or label_volume.channels is None:
        if count > len(organelles):
            raise LabelError(
                "labels",
                f"{label_volume.path}: {count} channels without names for {len(organelles)} organelles "
                f"({', '.join(organelles)}): name the channels, or give organelle_names",
            )
        if count > 1 or len(organelles) > 1:
            pairs = ", ".join(f"{c} {organelle}" for c, organelle in enumerate(organelles[:count]))
            notes.append(f"{name}: its channels have no names; read as {pairs} (organelle_names)")
        return {organelle: c for c, organelle in enumerate(organelles[:count])}
    by_meaning: dict[str, list[int]] = {}
    for c, channel in enumerate(label_volume.channels):
        by_meaning.setdefault(meaning(channel), []).append(c)
    found = {organelle: by_meaning.pop(meaning(organelle), []) for organelle in organelles}
    if any(len(channels) > 1 for channels in found.values()) or not any(found.values()):
        raise LabelError(
            "labels",
            f"{label_volume.path}: expected one channel each of some of {', '.join(organelles)}; the file holds "
            f"{label_volume.holds()}",
        )
    if by_meaning:
        others = ", ".join(label_volume.channels[c] for channels in by_meaning.values() for c in channels)
        notes.append(f"{name}: channels that are none of {', '.join(organelles)} are left out: {others}")
    return {organelle: channels[0] for organelle, channels in found.items() if channels}
