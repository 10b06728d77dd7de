"""Find the channel of a mask file, and the orientation of its axes on the tomogram's grid."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cytovox.errors import InputError
from cytovox.io import open_labels
from cytovox.io.label_volume import LabelVolume
from cytovox.io.labels import LabelError
from cytovox.io.nifti_grid import orientation_notes
from cytovox.io.orientation import (
    PLAIN,
    AxisOrientation,
    MaskAxes,
    between,
    orientation_text,
    oriented,
    oriented_lengths,
    reorders,
)
from cytovox.io.series import Series
from cytovox.io.spacing import StoredSpacing, match_spacing
from cytovox.io.volume import ZYX

#: Axis of the slices of a mask: z or, in files of one slice, the channels or the frames.
Slices = Literal["z", "c", "t"]

#: Other names for the content of a channel, in lower case, without punctuation and words such as "mask".
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
#: Channels that may be read instead: labels of cells are, as one mask, filled cells, and the reverse.
_ALSO = {"membrane": ("cells",), "cells": ("membrane",)}
_FILLERS = {"mask", "masks", "label", "labels", "seg", "segmentation", "segmented", "binary", "image", "channel"}
_UNNAMED = re.compile(r"(?:(?:ch|channel|c|image|series)?[\s:_#-]*\d*(?:[\s:_-]+\d+)*|ri|gr[ae]y|grayscale)")


@dataclass(frozen=True)
class Opening:
    """Options for opening mask files in the orientation of their tomogram."""

    series: Series = None
    """Image in files that hold several."""
    orientation: AxisOrientation | None = None
    """Orientation of the tomogram; None if its file states no directions."""
    mask_axes: MaskAxes = "auto"
    """Rule for a mask or tomogram without directions, if the other file states some; see `Grid`."""

    @property
    def key(self) -> str:
        """Return a key of everything besides the content of the file that the voxels depend on."""
        return f"{self.series} stored {self.orientation}" if self.mask_axes == "stored" else f"{self.series}"

    def opened(self, path: str | Path) -> LabelVolume:
        """Open labels of any number of frames and channels.

        The header of the file determines its orientation. The exception is `mask_axes` "stored" if only one of the file
        and the tomogram states directions: then their stored arrays are overlaid voxel by voxel.

        Raises
        ------
        InputError
            Unknown format, or a file that cannot be read.
        """
        label_volume = open_labels(path, self.series)
        doubtful = self.mask_axes == "stored" and in_doubt(label_volume.orientation, self.orientation)
        return _as_stored(label_volume, self.orientation) if doubtful else label_volume


def in_doubt(one: AxisOrientation | None, other: AxisOrientation | None) -> bool:
    """Return whether the orientation is ambiguous: one file has no directions, and the other's reorder its voxels."""
    return (one is None) != (other is None) and (reorders(one) or reorders(other))


def _as_stored(label_volume: LabelVolume, orientation: AxisOrientation | None) -> LabelVolume:
    """Return labels whose stored axes are reoriented like those of a tomogram, independent of their own header."""
    step = between(label_volume.orientation or PLAIN, orientation or PLAIN)
    said = orientation_notes(label_volume.path, label_volume.orientation)

    def stored(t: int, c: int) -> np.ndarray:
        return np.ascontiguousarray(oriented(label_volume.stored(t, c), step))

    readings = (
        replace(r, lengths_um=oriented_lengths(r.lengths_um, step)) for r in label_volume.stored_spacing.readings
    )
    note = f"{label_volume.path.name}: its stored array is laid voxel on voxel, whatever headers say of directions"
    return replace(
        label_volume,
        shape=(*label_volume.shape[:2], *oriented_lengths(label_volume.shape[2:], step)),
        spacing_um=None if label_volume.spacing_um is None else oriented_lengths(label_volume.spacing_um, step),
        stored=stored,
        stored_spacing=StoredSpacing(tuple(readings)),
        origin_um=(0.0, 0.0, 0.0),  # the header has the origin of another voxel
        notes=(*(known for known in label_volume.notes if known not in said), f"{note} (mask_axes=stored)"),
        orientation=orientation,
    )


@dataclass(frozen=True)
class Grid:
    """Grid that a mask must have."""

    owner: str
    """Name of the tomogram, for messages."""
    frames: int
    shape: tuple[int, int, int]
    """z, y, x."""
    spacing_um: ZYX | None
    """z, y, x; None if it is not known."""
    check_spacing: bool = True
    advice: str = ""
    """Further advice for a different spacing."""
    series: Series = None
    """Image in mask files that hold several."""
    orientation: AxisOrientation | None = None
    """Reorientation of the tomogram's stored axes; None if its file states no directions."""
    mask_axes: MaskAxes = "auto"
    """Rule if only one of the mask and the tomogram states directions. "auto" refuses the mask if both readings differ,
    "header" uses the header, and "stored" the order of the stored arrays."""
    axes_key: str = "mask_axes"
    """Key of `mask_axes` in the config, for messages."""

    @property
    def opening(self) -> Opening:
        """Options for opening mask files on this grid."""
        return Opening(self.series, self.orientation, self.mask_axes)

    def opened(self, path: str | Path) -> LabelVolume:
        """Open a file of masks that must have this grid.

        Raises
        ------
        InputError
            Unknown format, or a file that cannot be read; a LabelError if its orientation is ambiguous.
        """
        label_volume = self.opening.opened(path)
        if self.mask_axes == "auto" and in_doubt(label_volume.orientation, self.orientation):
            raise _two_ways(label_volume, self)
        return label_volume


def place(label_volume: LabelVolume, grid: Grid, own_frame: bool, notes: list[str]) -> Slices:
    """Return the axis of the slices of a file that must match a grid.

    Parameters
    ----------
    label_volume : LabelVolume
        Labels from `grid.opened`.
    grid : Grid
    own_frame : bool
        Whether the file may have one frame only, because its name or a config states the frame.
    notes : list of str
        Automatic decisions are appended.

    Raises
    ------
    LabelError
        The shape, the number of frames or the spacing differs, or the order of the slices is not known.
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
        if (
            label_volume.orientation is not None and label_volume.orientation[2] != PLAIN[2]
        ):  # it would reverse or move an axis of length 1
            raise LabelError(
                "mask-axes",
                f"{label_volume.path}: its slices lie along the {axis}, and a header "
                f"{orientation_text(label_volume.orientation)}: their order is "
                "ambiguous; save them along z",
            )
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


def _two_ways(label_volume: LabelVolume, grid: Grid) -> LabelError:
    """Return the error for an ambiguous orientation: some programs write directions, but ignore them."""
    if label_volume.orientation is not None:
        why = f"its header {orientation_text(label_volume.orientation)}, but {grid.owner} states no directions"
    else:
        why = f"states no directions, but the header of {grid.owner} {orientation_text(grid.orientation or PLAIN)}"
    key = grid.axes_key
    return LabelError(
        "mask-axes",
        f"{label_volume.path}: {why}: the mask could lie in two ways; set {key}=header to read both as ITK-SNAP shows "
        "them, or "
        f"{key}=stored to lay the stored arrays voxel on voxel, or save both in one format",
    )


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
    if slices != "z":  # a file of one slice states no distance of slices
        flat = (replace(one, lengths_um=(None, *one.lengths_um[1:])) for one in stored.readings)
        stored = StoredSpacing(tuple(flat))
    try:
        notes.extend(match_spacing(label_volume.path, stored, grid.spacing_um, grid.owner, grid.advice))
    except InputError as error:
        raise LabelError("mask-spacing", str(error)) from None


def stored_frame(label_volume: LabelVolume, t: int, c: int, slices: Slices) -> np.ndarray:
    """Return the stored values (Z, Y, X) of one frame, for any axis of its slices."""
    if slices == "z":
        return label_volume.stored(t, c)
    count = label_volume.shape[1] if slices == "c" else label_volume.shape[0]
    return np.concatenate(
        [label_volume.stored(t, k) if slices == "c" else label_volume.stored(k, c) for k in range(count)]
    )


def meaning(name: str) -> str:
    """Return the standard name of a channel, such as "nucleus"; else its name in lower case without filler words."""
    text = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", name).casefold())
    words = [word for word in text.split() if word not in _FILLERS]
    plain = " ".join(words)
    return next((standard for standard, names in SYNONYMS.items() if plain in names), plain)


def unnamed(label_volume: LabelVolume) -> bool:
    """Return whether the channels have no names or only generic names such as "Channel 1"."""
    if label_volume.channels is None:
        return True
    return all(_UNNAMED.fullmatch(name.strip().casefold()) or not meaning(name) for name in label_volume.channels)


def channel_of(label_volume: LabelVolume, organelle: str, notes: list[str]) -> int:
    """Return the number of the channel of one organelle, or of cells.

    Raises
    ------
    LabelError
        Several channels of which none or more than one has this name; or a single channel with the name of another
        organelle.
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
        return 0  # a name that is no organelle, such as "Otsu"
    raise _not_one(label_volume, organelle)


def _not_one(label_volume: LabelVolume, organelle: str) -> LabelError:
    return LabelError(
        "labels",
        f"{label_volume.path}: expected one channel of {organelle}; the file holds {label_volume.holds()}: name its "
        "channels, or save "
        "that organelle alone",
    )


def _grey(label_volume: LabelVolume, organelle: str, notes: list[str]) -> int:
    """Return channel 0 if all colour channels are equal, and so are a mask; alpha is ignored."""
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
    """Return the channels of a file with one mask per organelle.

    They are found by name, or without names taken in the order of `organelles`.

    Raises
    ------
    LabelError
        No channel of these organelles, two channels of one, or more channels than organelles.
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
