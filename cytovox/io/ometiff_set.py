"""Find the files of OME-TIFF sets: images whose planes are in several files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import tifffile


def set_members(path: Path) -> tuple[Path, ...]:
    """Return all files of the images of an OME-TIFF, sorted by name; only the file itself if it needs no other.

    The files of a set are one input: each of them opens the whole image, whose content depends on all files.

    Parameters
    ----------
    path : Path
        A file of any format.

    Returns
    -------
    tuple of Path
        The files that exist, including `path`.
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
    """Return the paths with only the first file of each OME-TIFF set."""
    kept: list[Path] = []
    taken: set[str] = set()
    for path in paths:
        if os.path.abspath(path) not in taken:
            kept.append(path)
            taken.update(os.path.abspath(member) for member in set_members(path))
    return kept
