"""OME-TIFF sets: images whose planes lie in several files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import tifffile


def set_members(path: Path) -> tuple[Path, ...]:
    """All files that an OME-TIFF's images need, in the order of their names; the file alone where it needs no other.

    The files of such a set are one input: each of them opens the whole image, and what is read depends on them all.

    Parameters
    ----------
    path : Path
        A file of any kind.

    Returns
    -------
    tuple of Path
        Those that are there, `path` among them.
    """
    if not path.name.lower().endswith((".tif", ".tiff")) or not path.is_file():
        return (path,)
    try:
        with tifffile.TiffFile(path) as tiff:
            text = tiff.ome_metadata
        root = ElementTree.fromstring(text) if text and "FileName" in text else None  # noqa: S314
    except Exception:  # errors are reported when it is read
        return (path,)
    if root is None:
        return (path,)
    mine: set[str] = set()
    for image in root.iter():
        if image.tag.endswith("}Image") or image.tag == "Image":
            names = {_own(uuid, root.get("UUID"), path.name) for uuid in image.iter() if uuid.tag.endswith("UUID")}
            mine |= names if path.name in names or not names else set()
    members = {path.parent / name for name in mine if Path(name).name == name and name != path.name}
    return tuple(sorted({path, *(member for member in members if member.is_file())}))


def _own(uuid: ElementTree.Element, root_uuid: str | None, name: str) -> str:
    """Return the file of a plane; the opened file is recognised by its UUID, even if it was renamed."""
    written = str(uuid.get("FileName", ""))
    return name if root_uuid is not None and uuid.text == root_uuid else written


def one_of_each_set(paths: Iterable[Path]) -> list[Path]:
    """The paths without those that are a part of an OME-TIFF set whose first file is among them already."""
    kept: list[Path] = []
    taken: set[str] = set()
    for path in paths:
        if os.path.abspath(path) not in taken:
            kept.append(path)
            taken.update(os.path.abspath(member) for member in set_members(path))
    return kept
