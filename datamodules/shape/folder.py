"""Find the images, masks and objects of single cells, read them, and say all that is wrong at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from cytovox.errors import InputError
from cytovox.preprocess.shape_fields import SLICE
from datamodules.shape.cases import ShapeCell, ShapeFiles, read_cell
from datamodules.shape.config import ShapeFolderData
from datamodules.shape.files import IMAGE_SUFFIXES, OBJECT_SUFFIXES

#: A mask that overlaps slice 32 of its object by less is noted. The published red blood cells overlap by 0.98 to 1.
AGREES = 0.9

_KINDS = ("image", "mask", "obj")

#: Names in one message, errors in one report.
_NAMED, _LISTED = 5, 20


def find_shapes(config: ShapeFolderData) -> list[ShapeFiles]:
    """The files of every cell, in order of name.

    Parameters
    ----------
    config : ShapeFolderData
        Its `root`, `layout` and `class_pattern`.

    Raises
    ------
    InputError
        No such layout, missing partners, two files of one name, names without a class: one line each, all at once.
    """
    root = Path(config.root)
    layout = _layout(root, config.layout)
    errors: list[str] = []
    cells: list[ShapeFiles] = []
    for split in (None,) if layout == "flat" else ("train", "test"):
        folder = root / split if split else root
        partners = _partners(folder, _KINDS, errors)
        cells += [ShapeFiles(name, "", image, mask, obj, split) for name, (image, mask, obj) in partners.items()]
    errors += _twice(cells, root)
    cells, strange = _with_classes(cells, config.class_pattern)
    if strange:
        errors.append(
            f"data.class_pattern: {_some(strange)} of {len(cells) + len(strange)} cells do not match "
            f"{config.class_pattern}; give a pattern whose first group is the class, or null for one class"
        )
    _refuse_all(errors)
    if not cells:
        raise InputError(f"data.root: {root.absolute()}: no cell found in image, mask and obj")
    return sorted(cells, key=lambda c: (c.name, c.split or ""))


def find_inputs(folder: str | Path) -> list[ShapeFiles]:
    """Cells whose shape is to be predicted: the folders `image` and `mask` of a folder, nothing else is looked at.

    Raises
    ------
    InputError
        A folder that is not there, or missing partners: one line each, all at once.
    """
    folder = Path(folder)
    if not all((folder / kind).is_dir() for kind in ("image", "mask")):
        raise InputError(f"{folder}: expected a folder that holds the folders image and mask")
    errors: list[str] = []
    partners = _partners(folder, ("image", "mask"), errors)
    _refuse_all(errors)
    if not partners:
        raise InputError(
            f"{folder}: no image found; expected {', '.join(IMAGE_SUFFIXES)} in its folders image and mask"
        )
    return [ShapeFiles(name, "", image, mask) for name, (image, mask) in partners.items()]


def read_shapes(found: Sequence[ShapeFiles], progress: Callable[[int, int], None] | None = None) -> list[ShapeCell]:
    """Read and check every cell.

    Parameters
    ----------
    found : sequence of ShapeFiles
    progress : callable, optional
        Called with (done, all).

    Raises
    ------
    InputError
        Everything that is wrong with any of them, one line each.
    """
    cells: list[ShapeCell] = []
    errors: list[str] = []
    for done, files in enumerate(found, start=1):
        try:
            cells.append(read_cell(files))
        except InputError as error:
            errors += str(error).splitlines()
        if progress is not None:
            progress(done, len(found))
    _refuse_all(errors)
    return cells


def shape_notes(cells: Iterable[ShapeCell]) -> list[str]:
    """What was accepted in the cells' files, but should be said: one line a kind, with some of the cells."""
    named: dict[str, list[str]] = {}
    apart: list[str] = []
    for cell in cells:
        for note in cell.notes:
            named.setdefault(note, []).append(cell.name)
        if cell.slice_iou is not None and cell.slice_iou < AGREES:
            apart.append(f"{cell.name} (IoU {cell.slice_iou:.2f})")
    lines = [f"{note}: {_some(names)}" for note, names in named.items()]
    if apart:
        lines.append(f"slice {SLICE} of the object is not the mask; are its axes z, y, x? {_some(apart)}")
    return sorted(lines)


def _layout(root: Path, wanted: str) -> str:
    if not root.is_dir():
        raise InputError(f"data.root: {root.absolute()}: no such folder")
    flat = [kind for kind in _KINDS if (root / kind).is_dir()]
    parts = [f"{s}/{kind}" for s in ("train", "test") for kind in _KINDS if (root / s / kind).is_dir()]
    if wanted == "flat" or (wanted == "auto" and len(flat) == 3):
        layout, missing = "flat", [kind for kind in _KINDS if kind not in flat]
    elif wanted == "train_test" or len(parts) == 6:
        layout, missing = (
            "train_test",
            [f"{s}/{k}" for s in ("train", "test") for k in _KINDS if f"{s}/{k}" not in parts],
        )
    else:
        there = ", ".join(flat or parts) or "none of them"
        raise InputError(
            f"data.root: {root.absolute()}: expected the folders image, mask and obj, or train and test with these "
            f"three each; found {there}"
        )
    if missing:
        raise InputError(f"data.root: {root.absolute()}: no folder {', '.join(missing)}; data.layout is {wanted}")
    return layout


def _partners(folder: Path, kinds: Sequence[str], errors: list[str]) -> dict[str, tuple[Path, ...]]:
    """Files of one name in all folders, in order of name."""
    files = {kind: _by_stem(folder / kind, kind, errors) for kind in kinds}
    names = sorted(set().union(*files.values()))
    for kind in kinds:
        bare = [name for name in names if name not in files[kind]]
        if bare:
            others = " or ".join(k for k in kinds if k != kind)
            errors.append(
                f"{folder / kind}: no file for {_some(bare)} of {len(names)} cells named in {others}; "
                "add it, or remove its partners"
            )
    return {name: tuple(files[kind][name] for kind in kinds) for name in names if all(name in files[k] for k in kinds)}


def _by_stem(folder: Path, kind: str, errors: list[str]) -> dict[str, Path]:
    suffixes = OBJECT_SUFFIXES if kind == "obj" else IMAGE_SUFFIXES
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes or not path.is_file():
            continue
        other = found.setdefault(path.stem, path)
        if other is not path:
            errors.append(f"{path}: there is {other.name}, too; keep one of them")
    return found


def _twice(cells: Sequence[ShapeFiles], root: Path) -> list[str]:
    tested = {c.name for c in cells if c.split == "test"}
    both = [c.name for c in cells if c.split == "train" and c.name in tested]
    leak = f"data.root: {root}: {_some(both)} in train and in test, so the test would know the training; keep one"
    return [leak] if both else []


def _with_classes(cells: Sequence[ShapeFiles], pattern: str | None) -> tuple[list[ShapeFiles], list[str]]:
    """Cells with their class, and the names of those whose name tells none."""
    if pattern is None:
        return [replace(cell, group="cell") for cell in cells], []
    matches = [re.fullmatch(pattern, cell.name) for cell in cells]
    known = [replace(cell, group=m[1]) for cell, m in zip(cells, matches, strict=True) if m is not None and m[1]]
    return known, [cell.name for cell, m in zip(cells, matches, strict=True) if m is None or not m[1]]


def _some(names: Sequence[str]) -> str:
    """How many, and the first of them."""
    return f"{len(names)} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"


def _refuse_all(errors: Sequence[str]) -> None:
    if errors:
        more = [f"... and {len(errors) - _LISTED} more"] if len(errors) > _LISTED else []
        raise InputError("\n".join([*errors[:_LISTED], *more]))
