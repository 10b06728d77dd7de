"""Registry of file formats: the built-in ones and those that installed packages add through entry points."""

from __future__ import annotations

import functools
from importlib.metadata import entry_points
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io import nifti, omezarr, tcf, tiff
from cytovox.io.file_format import Format

#: Entry-point group by which an installed package adds formats: ``name = "module:FORMAT"``.
GROUP = "cytovox.formats"

#: The formats of this package. A new one is a file that defines `FORMAT`, and one line here.
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
        An installed package offers an object that is not a `Format`, or a suffix that another format has.
    """
    known = list(BUILT_IN)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        where = f"format {entry.name!r} ({entry.value})"
        try:
            added = entry.load()
        except Exception as error:  # the module is another package's: anything can go wrong in it
            raise InputError(f"{where}: cannot be imported ({error}): update or uninstall its package") from error
        if not isinstance(added, Format):
            raise InputError(
                f"{where}: expected a cytovox.io.file_format.Format, got {type(added).__name__}: "
                "update or uninstall its package"
            )
        taken = {suffix: other.name for other in known for suffix in other.suffixes}
        for suffix in added.suffixes:
            if suffix in taken:
                raise InputError(
                    f"{where}: the suffix {suffix} belongs to the format {taken[suffix]!r}: uninstall one of the two"
                )
        known.append(added)
    return tuple(known)


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of all formats in lower case, such as ".ome.tif"."""
    return tuple(suffix for one in formats() for suffix in one.suffixes)


def find_suffix(name: str) -> str | None:
    """Return the longest known suffix that a file name ends in, in lower case; None where there is none."""
    return max((suffix for suffix in suffixes() if name.lower().endswith(suffix)), key=len, default=None)


def find_format(path: Path) -> Format | None:
    """Return the format that a file's name asks for; None for an unknown one."""
    suffix = find_suffix(path.name)
    if suffix is not None:
        return next(one for one in formats() if suffix in one.suffixes)
    return next((one for one in formats() if one.container and one.container.find_root(path)[1]), None)


def container_of(path: Path) -> tuple[Path, str]:
    """Split a path into the folder of a format and the path inside it.

    Returns
    -------
    (Path, str)
        `x.zarr/labels/nuclei` gives (`x.zarr`, `labels/nuclei`); a path that lies in no such folder is returned whole,
        with an empty string.
    """
    for one in formats():
        if one.container:
            root, inner = one.container.find_root(path)
            if inner:
                return root, inner
    return path, ""


def is_volume(path: Path) -> bool:
    """Return whether a path is of a known format: a file, or a folder where the format is one.

    Names that begin with a dot are not: they are hidden, or another program is still writing them.
    """
    if path.name.startswith("."):
        return False
    inside = [one.container for one in formats() if one.container and one.container.find_root(path)[1]]
    if inside:
        return inside[0].is_node(path)
    found = find_format(path)
    return found is not None and path.is_dir() == (found.container is not None)


def names_container(path: Path) -> bool:
    """Return whether a path or glob names something inside a folder of a format, such as `*.zarr/labels/*`."""
    text = path.as_posix().lower()
    return any(f"{suffix}/" in text for one in formats() if one.container for suffix in one.suffixes)


def expected(labels: bool = False) -> str:
    """Return the suffixes for a message, such as ".TCF, .tif or .zarr"; with `labels` those of formats with masks."""
    shown = [suffix for one in formats() if one.open_labels or not labels for suffix in one.shown or one.suffixes]
    return f"{', '.join(shown[:-1])} or {shown[-1]}"
