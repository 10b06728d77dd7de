"""Find, select and remove the files of the cache."""

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from cytovox.io.deletion import NotOurs, remove_file

#: Seconds per day. A run reads its files at least daily, and file systems record a read at least daily.
DAY_S = 86_400.0


@dataclass(frozen=True)
class Kind:
    """One folder of the cache."""

    name: str
    """Name of the folder."""
    about: str
    """Description of its files."""
    files: re.Pattern[str]
    """Paths of the files of Cytovox, relative to the folder."""


#: Folders of all files that Cytovox writes outside of run folders.
KINDS = (
    Kind("simulated", "simulated volumes", re.compile(r"[^/]+-\d{5,}-[0-9a-f]{16}\.npz")),
    Kind("shapes", "simulated shapes", re.compile(r"[0-9a-f]{32}\.safetensors")),
    Kind("prepared", "training volumes on the common grid", re.compile(r"[0-9a-f]{2}/[0-9a-f]{32}\.safetensors")),
    Kind("digests", "digests of input files", re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")),
    Kind("benchmarks", "volumes of the benchmarks", re.compile(r"benchmark-[^/]+-[0-9a-f]{16}\.npz")),
)

#: Paths of incomplete files of a killed process.
_UNFINISHED = re.compile(r"(?:[0-9a-f]{2}/)?\.part-[0-9a-f]{12}[^/]*")


@dataclass(frozen=True)
class CacheFile:
    """A file below the cache folder."""

    path: Path
    kind: str
    """Name of its folder in the cache."""
    size: int
    """Size in bytes."""
    last_used: float
    """Time of the last read or write, in seconds since 1970."""
    identity: tuple[int, int, int, int]
    """Device, inode, size and time of writing (ns), which distinguish files of the same name."""


def find_files(root: Path) -> tuple[list[CacheFile], list[CacheFile]]:
    """Return the files of Cytovox in a cache, and other files, which are never removed.

    Links are not followed; they count as other files.
    """
    own, others = list[CacheFile](), list[CacheFile]()
    for kind in KINDS:
        folder = root / kind.name
        for here, _, names in () if folder.is_symlink() else os.walk(folder, followlinks=False):
            for path in (Path(here) / name for name in names):
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
    """Return the files to remove, the least recently used first.

    Parameters
    ----------
    files : sequence of CacheFile
        All files of Cytovox in the cache.
    now : float
        Current time in seconds since 1970.
    older_than : float, optional
        Least age in days, since the last use, of a file to remove.
    max_size : float, optional
        Gigabytes (1e9 bytes) that may remain. A file used within a day is not removed for this, since a run may be
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
    """Return the files below a folder that a process of this machine has open or mapped into memory.

    Processes of other users are visible to the administrator only.
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
        Files from `find_files`. A file that was used or replaced since then is kept.
    root : Path
        Cache folder; files elsewhere or behind a link are kept.

    Returns
    -------
    list of CacheFile
        Removed files.
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
    """Return whether the file system of a folder is mounted without access times."""
    flag = getattr(os, "ST_NOATIME", 0)
    return bool(flag and hasattr(os, "statvfs") and os.statvfs(root).f_flag & flag)
