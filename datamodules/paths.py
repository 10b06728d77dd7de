"""Paths, names and globs of volumes on disk."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar
from unicodedata import normalize

from cytovox.errors import InputError
from cytovox.io import one_of_each_set
from cytovox.io.csv_files import existing, read_text
from cytovox.io.formats import container_of, find_suffix, is_volume, names_container, suffixes
from datamodules.errors import OnError, refuse

Item = TypeVar("Item")


def expand(patterns: str | Iterable[str], root: Path, key: str, on_error: OnError = refuse) -> list[Path]:
    """Return the files and OME-Zarr folders that globs, files or folders of tomograms name.

    Raises
    ------
    InputError
        A pattern names nothing, unless `on_error` continues.
    """
    found: dict[str, Path] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        full = existing(root / pattern)
        if full.suffix == ".txt" and full.is_file():
            paths = [Path(line) for line in listed(full)]
            if missing := [path for path in paths if not path.exists()]:
                on_error(InputError(f"{key}: {full}: {len(missing)} of its files do not exist, such as {missing[0]}"))
        elif full.is_dir() and not is_volume(full):
            paths = sorted(p for p in full.iterdir() if is_volume(p))
        elif full.exists():
            paths = [full]
        else:
            inside = names_container(full)  # otherwise a Zarr store is one file, even if it has several groups
            paths = sorted(p for p in matching(full) if is_volume(p) and (inside or not container_of(p)[1]))
        if not paths:
            on_error(
                InputError(
                    f"{key}: {pattern}: no such file, and no file of a known format matches ({', '.join(suffixes())})"
                )
            )
        for path in paths:  # two patterns may name one file by different paths
            found.setdefault(os.path.abspath(path), path)
    return one_of_each_set(found.values())


def listed(manifest: Path) -> list[str]:
    """Return the absolute paths listed in a text file, relative to its own folder."""
    lines = [line.strip() for line in read_text(manifest).splitlines()]
    return [os.path.abspath(existing(manifest.parent / line)) for line in lines if line and not line.startswith("#")]


def shard_of(items: Sequence[Item], shard: str | None) -> list[Item]:
    """Return every N-th item from the I-th one, for the shard I/N; all of them for None."""
    if shard is None:
        return list(items)
    index, count = map(int, shard.split("/"))
    return list(items)[index::count]


def shard_error(shard: str | None) -> str | None:
    """Return the error of a shard's name; None if it is valid."""
    parts = (shard or "0/1").split("/")
    if len(parts) == 2 and all(part.isdigit() for part in parts) and int(parts[0]) < int(parts[1]):
        return None
    return f"shard: expected I/N with I from 0 to N - 1, such as 0/16, got {shard!r}"


def split_pattern(full: Path) -> tuple[Path, str]:
    """Return the leading folders of a glob that exist literally (`dish[1]` may be a name), and the rest as a glob."""
    base, rest = Path(full.anchor), list(full.parts[1:] if full.anchor else full.parts)
    while len(rest) > 1 and existing(base / rest[0]).is_dir():
        base = existing(base / rest.pop(0))
    return base, "/".join(rest)


def matching(full: Path) -> list[Path]:
    """Return the paths that a glob matches, without hidden files and folders that it does not name."""
    base, rest = split_pattern(full)
    # accents as Linux or as macOS stores them
    forms = dict.fromkeys((rest, normalize("NFC", rest), normalize("NFD", rest)))
    found = [Path(p) for form in forms for p in glob.glob(str(Path(glob.escape(str(base))) / form), recursive=True)]
    return list(dict.fromkeys(found))


def below(path: Path, root: Path) -> str:
    """Return a path relative to a root folder; the path itself if it is outside."""
    full, root = path.absolute(), root.absolute()
    return (full.relative_to(root) if full.is_relative_to(root) else path).as_posix()


def first_names(names: Sequence[str]) -> str:
    """Return the first five names, and an ellipsis if there are more."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def stem_of(path: Path) -> str:
    """Return a file's name without its known suffixes: `0007.ome.tif` -> `0007`."""
    root, inner = container_of(path)
    if inner:
        return f"{stem_of(root)}_{inner.replace('/', '_')}"
    known = find_suffix(path.name)
    return path.name[: len(path.name) - len(path.suffix if known is None else known)]
