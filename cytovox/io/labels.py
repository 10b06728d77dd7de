"""Interpret the values of mask and label files. Training, analysis, evaluation and the audit use the same rules.

* One value besides the background is a mask: {0, 1}, {0, 255}, bool. If objects are needed (cells, nuclei), they are
  its connected parts (26 neighbours). Another single value, in one large part in every frame, is the label of the only
  cell.
* Several values are labels, with one object per value. They are refused if they look like organelles in one file (one
  value lies inside another, or has several parts), or like grey levels (values scattered over the image).
* Values between 0 and 1 are probabilities: inside from 0.5.
* The background is 0, or -1 if no voxel is 0. Other negative values, NaN, infinity and other fractions are refused.
* Labels above 65 535 are renumbered in order of value; the original values are kept.

All frames of a time-lapse are examined together, because one frame of a label image may have a single label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.ndimage as ndi

from cytovox.errors import InputError
from cytovox.io.values import check_finite

#: Setting for the meaning of the values: decide by content, one mask, or one object per value.
LABEL_KINDS: tuple[str, ...] = ("auto", "binary", "instances")
#: Use of the values: mask of an organelle, nuclei as objects, cells as objects, or several organelles by their values.
LabelUse = Literal["mask", "nucleus", "cells", "classes"]

#: Labels up to this are kept, so that label images fit 16 bits; larger ones are renumbered.
LARGEST_LABEL = 65_535
#: Number of different values from which a file is no label image.
MOST_VALUES = 1_000_000
#: Number of values from which a file cannot be organelles by their values.
_MOST_CLASSES = 12
#: Largest number of labels whose form is examined.
_SAMPLED = 12
#: Fraction of a label's neighbours with one other label from which it lies inside that one.
_ENCLOSED = 0.7
#: A label inside another counts from this fraction of the other's size; a smaller one is a speck.
_SPECK = 0.005
#: Size of a label's second largest part, relative to its largest, from which the label is scattered.
_SECOND_PART = 0.25
#: Fraction of the voxels on the four sides of a field that are inside from which a mask may be inverted.
_WALLED = 0.95
#: Neighbours of a voxel: those that touch it at least by a corner.
_TOUCHING = np.ones((3, 3, 3), bool)
#: Values that programs write into masks. Another single value may be the label of the only cell.
_MASK_VALUES = (1, 127, 255, 32_767, 65_535, 2**31 - 1, 2**32 - 1)
_OBJECTS = {"mask": "parts", "nucleus": "nuclei", "cells": "cells", "classes": "values"}


class LabelError(InputError):
    """Error in a file of masks or labels.

    Parameters
    ----------
    kind : str
        Name in the audit: `labels`, `mask-shape`, `mask-spacing`, `mask-axes` or `unreadable-mask`.
    text : str
        Message of one line.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, eq=False)
class LabelContent:
    """Values of some frames of a mask or label image."""

    everything: np.ndarray
    """Different values in increasing order: int64, or uint64 if one is 2^63 or more."""
    background: int
    """Value of the background: 0 or -1."""
    fractional: bool
    """Whether values lie between 0 and 1."""
    richest: int
    """Number of the frame that holds the most values."""
    walled: bool = False
    """Whether hardly any voxel on the four sides (y and x) of any frame is 0, though others are."""

    @property
    def values(self) -> np.ndarray:
        """Different values except the background, in increasing order."""
        return self.everything[self.everything != self.background]

    @property
    def filled(self) -> bool:
        """Whether no voxel of any frame is background."""
        return bool(self.everything.size) and self.background not in self.everything and not self.fractional


def scan(frames: Iterable[tuple[str, np.ndarray]]) -> LabelContent:
    """Return the values of all frames.

    Parameters
    ----------
    frames : iterable of (str, array (Z, Y, X))
        Name of each frame for messages, and its values as they are in the file.

    Raises
    ------
    LabelError
        NaN, infinity, fractions outside 0..1, negative values other than -1, or floats too large to be exact.
    """
    found: list[np.ndarray] = []
    fractional, most, richest, walled, where = False, -1, 0, True, "labels"
    for number, (where, stored) in enumerate(frames):
        values, soft = _values_of(stored, where)
        fractional |= soft
        if len(values) > most:
            most, richest = len(values), number
        walled = walled and _is_walled(stored)
        found.append(values)
    return replace(_content(found, fractional, richest, where), walled=walled and bool(found))


def _is_walled(stored_ZYX: np.ndarray) -> bool:
    sides = [stored_ZYX[:, [0, -1]], stored_ZYX[:, :, [0, -1]]]
    inside = sum(int(np.count_nonzero(side)) for side in sides)
    return bool(inside > _WALLED * sum(side.size for side in sides) and np.count_nonzero(stored_ZYX) < stored_ZYX.size)


def merged(contents: Sequence[LabelContent], where: str) -> tuple[LabelContent, int]:
    """Return the joint content of files, and the number of the file with the most values; errors as `scan`."""
    most = max(range(len(contents)), key=lambda k: len(contents[k].everything))
    fractional = any(content.fractional for content in contents)
    whole = _content([content.everything for content in contents], fractional, contents[most].richest, where)
    return replace(whole, walled=all(content.walled for content in contents)), most


def _content(found: list[np.ndarray], fractional: bool, richest: int, where: str) -> LabelContent:
    values = _union(found, where)
    if len(values) > MOST_VALUES:
        raise LabelError("labels", f"{where}: more than {MOST_VALUES} different values: expected a mask or labels")
    if fractional and np.any(values > 1):
        raise LabelError(
            "labels",
            f"{where}: fractions in one frame and values up to {values[-1]} in another: expected labels, or "
            "probabilities from 0 to 1 in all frames",
        )
    return LabelContent(values, _background(values, where), fractional, richest)


def _values_of(stored: np.ndarray, where: str) -> tuple[np.ndarray, bool]:
    """Return the different values of a frame as integers, and whether they are fractions from 0 to 1."""
    if stored.dtype.kind == "b":
        return _distinct(stored.view(np.uint8)), False
    if stored.dtype.kind in "iu":
        return _distinct(stored.astype(stored.dtype.newbyteorder("="), copy=False)), False
    if stored.dtype.kind != "f":
        raise LabelError("unreadable-mask", f"{where}: a mask of type {stored.dtype}: expected whole numbers")
    try:
        check_finite(stored, where)
    except InputError as error:
        raise LabelError("unreadable-mask", str(error)) from None
    wrong = stored != np.rint(stored)
    if wrong.any():
        low, high = float(stored.min()), float(stored.max())
        if low < 0 or high > 1:
            example = float(stored[wrong][0])
            raise LabelError(
                "unreadable-mask",
                f"{where}: {int(wrong.sum())} voxels hold no whole number, such as {example:g}: expected a mask, "
                "labels, or probabilities from 0 to 1",
            )
        return np.array([0, 1]), True
    exact = 2 ** (np.finfo(stored.dtype).nmant + 1)
    largest = float(np.abs(stored).max(initial=0))
    if largest > min(exact, 2**62):
        raise LabelError(
            "unreadable-mask",
            f"{where}: label {largest:.0f} in {stored.dtype.name}, which tells whole numbers apart up to {exact} only: "
            "save the labels as integers",
        )
    return _distinct(stored).astype(np.int64), False


def _distinct(values_ZYX: np.ndarray) -> np.ndarray:
    """Return the different values, plane by plane; only the first voxel of each run of equal voxels is examined."""
    found: list[np.ndarray] = []
    for plane in values_ZYX:
        flat = plane.ravel()
        if flat.size:
            found.append(np.unique(flat[np.r_[True, flat[1:] != flat[:-1]]]))
    return np.unique(np.concatenate(found)) if found else np.zeros(0, values_ZYX.dtype)


def _union(found: list[np.ndarray], where: str) -> np.ndarray:
    """Return the sorted union without rounding; numpy converts int64 and uint64 together to float64."""
    huge = any(v.dtype == np.uint64 and v.size and int(v[-1]) >= 2**63 for v in found)
    if huge and any(v.size and int(v[0]) < 0 for v in found):
        raise LabelError(
            "labels", f"{where}: negative values together with values of 2^63 and more: expected labels from 0 on"
        )
    kind = np.uint64 if huge else np.int64
    return np.unique(np.concatenate([v.astype(kind) for v in found])) if found else np.zeros(0, np.int64)


def _background(values: np.ndarray, where: str) -> int:
    negative = values[values < 0]
    if not negative.size:
        return 0
    if negative.size == 1 and negative[0] == -1 and 0 not in values:
        return -1
    some = ", ".join(str(v) for v in values[:4]) + (", ..." if len(values) > 4 else "")
    raise LabelError(
        "labels",
        f"{where}: negative values ({some}): expected 0 as background and labels above 0, or -1 as background where no "
        "voxel is 0",
    )


@dataclass(frozen=True)
class LabelReading:
    """Interpretation of the values of a file; returned by `decide` and applied to each frame."""

    kind: Literal["binary", "instances"]
    background: int = 0
    fractional: bool = False
    originals: tuple[int, ...] | None = None
    """Values in the file of labels 1, 2, ...; None if labels are kept."""

    def mask(self, stored: np.ndarray) -> np.ndarray:
        """Return a bool array (Z, Y, X) that is True outside the background."""
        if self.fractional:
            return np.asarray(stored >= 0.5)
        return np.asarray(stored != self.background)

    def objects(self, stored: np.ndarray) -> np.ndarray:
        """Return labels of objects, int32 (Z, Y, X), 0 outside; parts of a mask are numbered in z, y, x."""
        if self.kind == "binary":
            return np.asarray(ndi.label(self.mask(stored), _TOUCHING)[0], np.int32)
        if self.originals is not None:
            known = np.array((self.background, *self.originals), np.uint64 if self._huge() else np.int64)
            return np.searchsorted(known, stored.astype(known.dtype)).astype(np.int32)
        return np.where(stored == self.background, 0, stored).astype(np.int32)

    def original(self, label: int) -> int | None:
        """Return the value in the file of an object's label; None for the parts of a mask."""
        if self.kind == "binary":
            return None
        return label if self.originals is None else self.originals[label - 1]

    @property
    def key(self) -> str:
        """Return a key of everything that a result depends on, besides the file itself."""
        renumbered = "" if self.originals is None else hashlib.sha256(repr(self.originals).encode()).hexdigest()[:16]
        return f"{self.kind} {self.background} {self.fractional} {renumbered}"

    def _huge(self) -> bool:
        return bool(self.originals) and self.originals[-1] >= 2**63  # type: ignore[index]


def decide(
    content: LabelContent, use: LabelUse, labels: str, where: str, richest: Callable[[], np.ndarray],
    frames: Callable[[], Iterable[np.ndarray]], notes: list[str], *, quiet: bool = False,
) -> LabelReading:  # fmt: skip
    """Decide how values are interpreted, and add each automatic decision to `notes`.

    Parameters
    ----------
    content : LabelContent
        Content of all frames.
    use : "mask", "nucleus", "cells" or "classes"
        Use of the values.
    labels : "auto", "binary" or "instances"
        Setting of the user.
    where : str
        Name of the file, for messages.
    richest : callable
        Function that returns the values (Z, Y, X) of the frame with the most values; called if their form decides.
    frames : callable
        Function that yields the values of all frames; called if it matters whether one value is one object.
    notes : list of str
        Automatic decisions are appended.
    quiet : bool
        Omit notes on the usual case (several values of cells), and on findings that an audit reports itself.

    Raises
    ------
    LabelError
        Values that are neither a mask nor labels, or contradict the setting of the user.
    """
    values = content.values
    if content.background == -1:
        notes.append(f"{where}: no voxel is 0; -1 is read as the background")
    if content.fractional:
        if labels == "instances":
            raise LabelError("labels", f"{where}: fractions from 0 to 1: expected labels, since labels=instances")
        if use == "classes":
            raise LabelError("labels", f"{where}: fractions from 0 to 1: expected one value an organelle")
        notes.append(f"{where}: fractions from 0 to 1: read as probabilities, inside from 0.5")
        if use in ("nucleus", "cells"):
            notes.append(_parts_note(where, "probabilities", use))
        return LabelReading("binary", fractional=True)
    if content.filled:
        _check_filled(content, use, labels, where, [] if quiet else notes)
    several = len(values) > 1
    if content.walled and not several and content.background == 0 and not quiet:
        notes.append(
            f"{where}: nearly every voxel on the sides of the field is inside; is the mask inverted? 0 is read as the "
            "background"
        )
    if use != "classes" and several and labels == "auto":
        _refuse_other_images(content, use, richest(), where)
    instances = labels == "instances" or (labels == "auto" and several)
    if use == "cells" and labels == "auto" and len(values) == 1 and int(values[0]) not in _MASK_VALUES:
        instances = all(_is_one_object(stored == values[0]) for stored in frames())
    if use in ("nucleus", "cells") and len(values):
        if instances and quiet and use == "cells":
            pass
        elif instances:
            notes.append(f"{where}: {_count(values)}: read as labels, each one of the {_OBJECTS[use]}")
        else:
            notes.append(_parts_note(where, _count(values), use))
    elif use == "mask" and several:
        notes.append(f"{where}: {_count(values)}: read as one mask of what is not background")
    if not instances:
        return LabelReading("binary", content.background)
    if not len(values) or int(values[-1]) <= LARGEST_LABEL:
        return LabelReading("instances", content.background)
    if use in ("nucleus", "cells"):
        column = "; column original_label holds the file's own" if use == "cells" else ""
        notes.append(f"{where}: labels up to {values[-1]} are renumbered 1 to {len(values)}{column}")
    return LabelReading("instances", content.background, originals=tuple(int(v) for v in values))


def _is_one_object(mask_ZYX: np.ndarray) -> bool:
    """Return whether a mask is one large part, possibly with specks."""
    sizes = np.sort(np.bincount(ndi.label(mask_ZYX, _TOUCHING)[0].ravel())[1:])
    return len(sizes) < 2 or bool(sizes[-2] < _SECOND_PART * sizes[-1])


def _count(values: np.ndarray) -> str:
    return f"one value ({values[0]})" if len(values) == 1 else f"{len(values)} values"


def _parts_note(where: str, what: str, use: LabelUse) -> str:
    return (
        f"{where}: {what}: read as a mask, whose connected parts are the {_OBJECTS[use]}; labels=instances takes each "
        "value as one object"
    )


def _check_filled(content: LabelContent, use: LabelUse, labels: str, where: str, notes: list[str]) -> None:
    """Refuse labels without background: some programs number labels from 1, including an unknown background."""
    if use != "classes" and labels != "instances" and len(content.values) > 1:
        some = ", ".join(str(v) for v in content.values[:4]) + (", ..." if len(content.values) > 4 else "")
        raise LabelError(
            "labels",
            f"{where}: no voxel is 0, and the values are {some}: which one is the background? save it as 0 (ilastik "
            "counts from 1), or set labels=instances if there is none",
        )
    if use != "classes":
        notes.append(f"{where}: no voxel is background")


def _refuse_other_images(content: LabelContent, use: LabelUse, stored: np.ndarray, where: str) -> None:
    values = content.values
    numbered = LabelReading("instances", content.background, originals=tuple(int(v) for v in values))
    labels_ZYX = numbered.objects(stored)
    form: str | None = label_form(labels_ZYX)
    if form is None and use == "mask" and len(values) <= _MOST_CLASSES:
        form = _strokes(labels_ZYX)
    some = ", ".join(str(v) for v in values[:5]) + (", ..." if len(values) > 5 else "")
    if form == "scattered" and len(values) > _MOST_CLASSES:
        raise LabelError(
            "labels",
            f"{where}: {len(values)} different values scattered over the image, like grey levels: expected a mask or "
            "labels; threshold it first, or set labels=instances (each value one object) or labels=binary",
        )
    if form is not None:
        raise LabelError(
            "labels",
            f"{where}: holds {len(values)} different labels ({some}), {_FORMS[form]}, like organelles in one "
            "multi-label file, where a mask of one organelle or labels of objects were expected; leave {organelle} "
            "out of the pattern and set label_values, or set labels=instances (each value one object) or "
            "labels=binary (one mask)",
        )


_FORMS = {
    "nested": "one inside the other",
    "scattered": "each in several parts",
    "strokes": "some of a few voxels and one of many",
}


def _strokes(labels_ZYX: np.ndarray) -> Literal["strokes"] | None:
    """Return "strokes" if a label has a few voxels only: an annotation error, or another organelle."""
    sizes = np.bincount(labels_ZYX.ravel())[1:]
    return "strokes" if sizes[sizes > 0].min() < _SPECK * sizes.max() else None


def label_form(labels_ZYX: np.ndarray) -> Literal["nested", "scattered"] | None:
    """Return the reason why the values cannot be object labels.

    Parameters
    ----------
    labels_ZYX : int array, (Z, Y, X)
        Labels 1, 2, ...; 0 outside.

    Returns
    -------
    "nested", "scattered" or None
        "nested": a label lies inside another, like a nucleus in its cell. "scattered": at least half of the labels have
        several parts, like classes and grey levels. Up to 12 evenly spaced labels are examined.
    """
    padded = np.pad(labels_ZYX, 1)
    boxes = ndi.find_objects(padded)
    present = [label for label, box in enumerate(boxes, start=1) if box is not None]
    chosen = [present[i] for i in np.unique(np.linspace(0, len(present) - 1, min(len(present), _SAMPLED)).astype(int))]
    sizes = np.bincount(padded.ravel(), minlength=len(boxes) + 1) if len(present) <= _MOST_CLASSES else None
    scattered = 0
    for label in chosen:
        box = tuple(slice(part.start - 1, part.stop + 1) for part in boxes[label - 1])
        own = padded[box] == label
        if sizes is not None:
            shell = padded[box][ndi.binary_dilation(own) & ~own]
            neighbours = np.bincount(shell, minlength=len(sizes))
            neighbours[0] = 0
            outer = int(neighbours.argmax())
            if neighbours[outer] > _ENCLOSED * len(shell) and sizes[label] >= _SPECK * sizes[outer]:
                return "nested"
        parts = np.sort(np.bincount(ndi.label(own, _TOUCHING)[0].ravel())[1:])
        scattered += len(parts) > 1 and parts[-2] >= _SECOND_PART * parts[-1]
        if len(chosen) > 1 and 2 * scattered >= len(chosen):
            return "scattered"
    return None
