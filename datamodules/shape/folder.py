"""Search for the images, masks and objects of single cells, and reading of all; errors are reported together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cytovox.errors import InputError
from cytovox.preprocess.shape_fields import SLICE
from datamodules.paths import first_names
from datamodules.shape.cases import ShapeCell, ShapeFiles, read_cell
from datamodules.shape.config import ShapeFolderData
from datamodules.shape.files import IMAGE_SUFFIXES, OBJECT_SUFFIXES

#: IoU of a mask and slice 32 of its object below which it is noted. The published red blood cells have 0.98 to 1.
MIN_SLICE_IOU = 0.9

_KINDS = ("image", "mask", "obj")

#: Largest number of errors in a report.
_LISTED = 20


def find_shapes(config: ShapeFolderData) -> list[ShapeFiles]:
    """Return the files of every cell, in order of name.

    Parameters
    ----------
    config : ShapeFolderData
        Config with `root`, `layout` and `class_pattern`.

    Raises
    ------
    InputError
        The layout is another one, cells have missing files, two files of the same name or a name without a class; one
        line per error.
    """
    root, pattern = Path(config.root), config.class_pattern
    errors: list[str] = []
    cells: list[ShapeFiles] = []
    for split in (None,) if _layout(root, config.layout) == "flat" else ("train", "test"):
        cells += [
            ShapeFiles(name, _class_of(name, pattern), image, mask, obj, split)
            for name, (image, mask, obj) in _partners(root / (split or ""), _KINDS, errors).items()
        ]
    tested = {cell.name for cell in cells if cell.split == "test"}
    if both := [cell.name for cell in cells if cell.split == "train" and cell.name in tested]:
        errors.append(f"data.root: {root}: {_some(both)} in train and in test, so they cannot be tested; keep one")
    if unmatched := [cell.name for cell in cells if not cell.group]:
        errors.append(
            f"data.class_pattern: {_some(unmatched)} of {len(cells)} cells do not match {pattern}; give a pattern "
            "whose first group is the class, or null for one class"
        )
    _refuse_all(errors)
    if not cells:
        raise InputError(f"data.root: {root.absolute()}: no cell found in image, mask and obj")
    return sorted(cells, key=lambda c: (c.name, c.split or ""))


def find_inputs(folder: str | Path) -> list[ShapeFiles]:
    """Return the files of cells whose shape is to be predicted, from the folders `image` and `mask` of a folder.

    Raises
    ------
    InputError
        A folder does not exist, or cells have missing files; one line per error.
    """
    folder = Path(folder)
    if not all((folder / kind).is_dir() for kind in ("image", "mask")):
        raise InputError(f"{folder}: expected a folder with the folders image and mask")
    errors: list[str] = []
    partners = _partners(folder, ("image", "mask"), errors)
    _refuse_all(errors)
    if not partners:
        raise InputError(
            f"{folder}: no image found; expected {', '.join(IMAGE_SUFFIXES)} in its folders image and mask"
        )
    return [ShapeFiles(name, "", image, mask) for name, (image, mask) in partners.items()]


def read_shapes(found: Sequence[ShapeFiles], progress: Callable[[int, int], None] | None = None) -> list[ShapeCell]:
    """Return all cells, checked.

    Parameters
    ----------
    found : sequence of ShapeFiles
        Files of each cell.
    progress : callable, optional
        Called with (done, all).

    Raises
    ------
    InputError
        Files cannot be read or used; one line per error.
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
    """Return notes about the cells' files: what was accepted but should be reported, one line per kind of note."""
    named: dict[str, list[str]] = {}
    apart: list[str] = []
    for cell in cells:
        for note in cell.notes:
            named.setdefault(note, []).append(cell.name)
        if cell.slice_iou is not None and cell.slice_iou < MIN_SLICE_IOU:
            apart.append(f"{cell.name} (IoU {cell.slice_iou:.2f})")
    lines = [f"{note}: {_some(names)}" for note, names in named.items()]
    if apart:
        lines.append(f"slice {SLICE} of the object is not the mask; are its axes z, y, x? {_some(apart)}")
    return sorted(lines)


def _layout(root: Path, wanted: str) -> str:
    if not root.is_dir():
        raise InputError(f"data.root: {root.absolute()}: no such folder")
    folders = {"flat": list(_KINDS), "train_test": [f"{s}/{kind}" for s in ("train", "test") for kind in _KINDS]}
    found = {layout: [f for f in expected if (root / f).is_dir()] for layout, expected in folders.items()}
    if wanted == "auto" and found["flat"] != folders["flat"] and found["train_test"] != folders["train_test"]:
        raise InputError(
            f"data.root: {root.absolute()}: expected the folders image, mask and obj, or train and test with these "
            f"three each; found {', '.join(found['flat'] or found['train_test']) or 'none of them'}"
        )
    layout = wanted if wanted != "auto" else "flat" if found["flat"] == folders["flat"] else "train_test"
    if missing := [folder for folder in folders[layout] if folder not in found[layout]]:
        raise InputError(f"data.root: {root.absolute()}: no folder {', '.join(missing)}; data.layout is {wanted}")
    return layout


def _partners(folder: Path, kinds: Sequence[str], errors: list[str]) -> dict[str, tuple[Path, ...]]:
    """Return the files with the same name in all folders, in order of name."""
    files = {kind: _by_stem(folder / kind, kind, errors) for kind in kinds}
    names = sorted(set().union(*files.values()))
    for kind in kinds:
        if missing := [name for name in names if name not in files[kind]]:
            others = " or ".join(k for k in kinds if k != kind)
            errors.append(
                f"{folder / kind}: no file for {_some(missing)} of {len(names)} cells named in {others}; "
                "add it, or remove its partners"
            )
    return {name: tuple(files[kind][name] for kind in kinds) for name in names if all(name in files[k] for k in kinds)}


def _by_stem(folder: Path, kind: str, errors: list[str]) -> dict[str, Path]:
    suffixes = OBJECT_SUFFIXES if kind == "obj" else IMAGE_SUFFIXES
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes or not path.is_file():
            continue
        if (other := found.setdefault(path.stem, path)) is not path:
            errors.append(f"{path}: {other.name} has the same name; keep one of them")
    return found


def _class_of(name: str, pattern: str | None) -> str:
    """Return the class in a cell's name, an empty text if it does not match; without a pattern there is one class."""
    if pattern is None:
        return "cell"
    match = re.fullmatch(pattern, name)
    return match[1] or "" if match else ""


def _some(names: Sequence[str]) -> str:
    """Return the number of names, and the first of them."""
    return f"{len(names)} ({first_names(names)})"


def _refuse_all(errors: Sequence[str]) -> None:
    if errors:
        more = [f"... and {len(errors) - _LISTED} more"] if len(errors) > _LISTED else []
        raise InputError("\n".join([*errors[:_LISTED], *more]))
