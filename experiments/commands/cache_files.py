"""The files of the cache: which are the program's own, which are in use, and which may be removed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from cytovox.io.deletion import NotOurs, remove_file

#: Seconds of a day. A run reads its files at least this often, and file systems note a read at least this often.
DAY_S = 86_400.0


@dataclass(frozen=True)
class Kind:
    """One folder of the cache."""

    name: str
    """Of the folder."""
    about: str
    """What its files are."""
    files: re.Pattern[str]
    """Paths of the program's own files, below the folder."""


#: All that Cytovox keeps outside of run folders.
KINDS = (
    Kind("simulated", "simulated volumes", re.compile(r"[^/]+-\d{5,}-[0-9a-f]{16}\.npz")),
    Kind("shapes", "simulated shapes", re.compile(r"[0-9a-f]{32}\.safetensors")),
    Kind("prepared", "training volumes on the common grid", re.compile(r"[0-9a-f]{2}/[0-9a-f]{32}\.safetensors")),
    Kind("digests", "digests of input files", re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")),
    Kind("benchmarks", "volumes of the benchmarks", re.compile(r"benchmark-[^/]+-[0-9a-f]{16}\.npz")),
)

#: What a process that was killed left half-written.
_UNFINISHED = re.compile(r"(?:[0-9a-f]{2}/)?\.part-[0-9a-f]{12}[^/]*")


@dataclass(frozen=True)
class CacheFile:
    """A file below the cache folder."""

    path: Path
    kind: str
    """Folder of the cache that it lies in."""
    size: int
    """Bytes."""
    last_used: float
    """When it was last read or written, in seconds since 1970."""
    identity: tuple[int, int, int, int]
    """Device, inode, size and time of writing (ns): another file of the same name has another."""


def find_files(root: Path) -> tuple[list[CacheFile], list[CacheFile]]:
    """Return the program's own files in a cache, and the others, which are never removed.

    Links are neither followed nor listed as the program's own.
    """
    own, others = list[CacheFile](), list[CacheFile]()
    for kind in KINDS:
        folder = root / kind.name
        if folder.is_symlink():
            continue
        for here, _, names in os.walk(folder, followlinks=False):
            for name in names:
                path = Path(here) / name
                relative = path.relative_to(folder).as_posix()
                named = kind.files.fullmatch(relative) or _UNFINISHED.fullmatch(relative)
                with contextlib.suppress(OSError):  # removed meanwhile
                    found = _described(path, kind.name)
                    (own if named and not path.is_symlink() else others).append(found)
    return own, others


def _described(path: Path, kind: str) -> CacheFile:
    found = path.lstat()
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return CacheFile(path, kind, found.st_size, max(found.st_atime, found.st_mtime), identity)


def choose(files: Sequence[CacheFile], now: float, older_than: float | None, max_size: float | None) -> list[CacheFile]:
    """Choose the files to remove, those last used longest ago first.

    Parameters
    ----------
    files : sequence of CacheFile
        All files of the program.
    now : float
        The time, in seconds since 1970.
    older_than : float, optional
        Days since the last use from which a file is chosen.
    max_size : float, optional
        Gigabytes (1e9 bytes) that may be left. A file that was used within a day is not chosen for this: a run may be
        using it.

    Returns
    -------
    list of CacheFile
    """
    chosen, left = list[CacheFile](), sum(file.size for file in files)
    for file in sorted(files, key=lambda file: file.last_used):
        age_s = now - file.last_used
        old = older_than is not None and age_s > older_than * DAY_S
        large = max_size is not None and left > max_size * 1e9 and age_s > DAY_S
        if old or large:
            chosen.append(file)
            left -= file.size
    return chosen


def open_files(root: Path) -> set[Path]:
    """Return the files below a folder that a process of this machine has open or mapped into its memory.

    Processes of other users are not seen, unless this one is the administrator's.
    """
    found: set[Path] = set()
    real = root.resolve()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            paths = [entry.path for entry in process.open_files()]
            if hasattr(process, "memory_maps"):  # not on every system
                paths += [entry.path for entry in process.memory_maps()]
            found |= {root / Path(path).relative_to(real) for path in paths if Path(path).is_relative_to(real)}
    return found


def remove(files: Sequence[CacheFile], root: Path) -> list[CacheFile]:
    """Remove files of the cache.

    Parameters
    ----------
    files : sequence of CacheFile
        As `find_files` found them. One that was used, or replaced, since then stays.
    root : Path
        The cache folder: what lies elsewhere, or behind a link, stays.

    Returns
    -------
    list of CacheFile
        Those that were removed.
    """
    removed = []
    for file in files:
        with contextlib.suppress(OSError, NotOurs):
            now = _described(file.path, file.kind)
            if now.identity == file.identity and now.last_used == file.last_used:
                remove_file(file.path, root)
                removed.append(file)
    return removed


def records_no_reads(root: Path) -> bool:
    """Whether the file system of a folder is mounted so that reads leave no time stamp."""
    flag = getattr(os, "ST_NOATIME", 0)
    return bool(flag and hasattr(os, "statvfs") and os.statvfs(root).f_flag & flag)
