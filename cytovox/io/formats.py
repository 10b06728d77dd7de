"""Registry of file formats: the built-in ones and those that installed packages add through entry points."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

from cytovox.errors import InputError
from cytovox.io import nifti, omezarr, tcf, tiff
from cytovox.io.file_format import Format, ImageWriter

#: Entry-point group by which an installed package adds formats: ``name = "module:FORMAT"``.
GROUP = "cytovox.formats"

#: The built-in formats. To add one, write a module that defines `FORMAT`, and list it here.
BUILT_IN: tuple[Format, ...] = (
    tcf.FORMAT,
    tiff.FORMAT,
    nifti.FORMAT,
    omezarr.FORMAT,
)


@functools.cache
def formats() -> tuple[Format, ...]:
    """Return all formats, the built-in ones first. Entry points are looked up once per process.

    Raises
    ------
    InputError
        An entry point that cannot be imported or is not a `Format`, or a suffix or writer name that another format has.
    """
    known = list(BUILT_IN)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        where = f"format {entry.name!r} ({entry.value})"
        try:
            added = entry.load()
        except Exception as error:  # importing another package's module can raise anything
            raise InputError(f"{where}: cannot be imported ({error}): update or uninstall its package") from error
        if not isinstance(added, Format):
            raise InputError(
                f"{where}: expected a cytovox.io.file_format.Format, got {type(added).__name__}: "
                "update or uninstall its package"
            )
        taken = {claim: other.name for other in known for claim in _claims(other)}
        if used := next((claim for claim in _claims(added) if claim in taken), None):
            raise InputError(f"{where}: {used} belongs to the format {taken[used]!r}: uninstall one of the two")
        known.append(added)
    return tuple(known)


def _claims(one: Format) -> list[str]:
    """Return what only one format may have: its suffixes, and the name of its writer."""
    return [f"the suffix {suffix}" for suffix in one.suffixes] + (
        [f"the output format {one.writer.name!r}"] if one.writer else []
    )


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of all formats in lower case, such as ".ome.tif"."""
    return tuple(suffix for one in formats() for suffix in one.suffixes)


def find_suffix(name: str) -> str | None:
    """Return the longest known suffix of a file name in lower case; None if it has no known suffix."""
    return max((suffix for suffix in suffixes() if name.lower().endswith(suffix)), key=len, default=None)


def find_format(path: Path) -> Format | None:
    """Return the format of a path by its name; None for an unknown format."""
    suffix = find_suffix(path.name)
    return next((one for one in formats() if suffix in one.suffixes), None) or _container_format(path)


def writers() -> dict[str, ImageWriter]:
    """Return the writers of all formats by their names, such as "ome-tiff"."""
    return {one.writer.name: one.writer for one in formats() if one.writer}


def find_writer(path: Path) -> ImageWriter | None:
    """Return the writer for a file name; None if no format writes files of that name."""
    found = find_format(path)
    writer = found.writer if found else None
    return writer if writer and path.name.lower().endswith(writer.suffixes) else None


def require_size(writer: ImageWriter, path: Path, shape_ZYX: Sequence[int]) -> None:
    """Refuse an image with an axis that is too long for a format.

    Raises
    ------
    InputError
        The message names the output formats that can store the image.
    """
    longest = max(shape_ZYX)
    if writer.longest_axis is None or longest <= writer.longest_axis:
        return
    fitting = [name for name, other in writers().items() if other.longest_axis is None or longest <= other.longest_axis]
    raise InputError(
        f"{path}: an image of {tuple(shape_ZYX)} voxels (z, y, x): {writer.name} stores at most {writer.longest_axis} "
        f"along an axis; write {' or '.join(fitting)} instead"
    )


def _container_format(path: Path) -> Format | None:
    """Return the format of the folder that a path lies in; None if it lies in no folder of a format."""
    return next((one for one in formats() if one.container and one.container.find_root(path)[1]), None)


def container_of(path: Path) -> tuple[Path, str]:
    """Split a path into the folder of a format and the path inside it.

    Returns
    -------
    (Path, str)
        `x.zarr/labels/nuclei` gives (`x.zarr`, `labels/nuclei`). Any other path is returned with an empty string.
    """
    found = _container_format(path)
    return found.container.find_root(path) if found and found.container else (path, "")


def is_volume(path: Path) -> bool:
    """Return whether a path is a file, folder or image inside a folder of a known format.

    False for names that begin with a dot: such files are hidden, or another program is still writing them.
    """
    if path.name.startswith("."):
        return False
    inside = _container_format(path)
    if inside and inside.container:
        return inside.container.is_node(path)
    found = find_format(path)
    return found is not None and path.is_dir() == (found.container is not None)


def names_container(path: Path) -> bool:
    """Return whether a path or glob refers to something inside a folder of a format, such as `*.zarr/labels/*`."""
    text = path.as_posix().lower()
    return any(f"{suffix}/" in text for one in formats() if one.container for suffix in one.suffixes)


def expected(use: Literal["volumes", "labels", "writing"] = "volumes") -> str:
    """Return the suffixes for a message, such as ".TCF, .tif or .zarr", of the formats that support a use."""
    shown = [
        suffix
        for one in formats()
        if {"volumes": one.open_volume, "labels": one.open_labels, "writing": one.writer}[use]
        for suffix in one.shown or one.suffixes
    ]
    return f"{', '.join(shown[:-1])} or {shown[-1]}"
