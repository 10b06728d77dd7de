"""Prepared volumes on disk: one file a case, named by what went in, read a box at a time."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from formats.atomic import atomic_path

#: Part of every key: raise it when the preparation changes.
CACHE_VERSION = 1


def cache_root(given: str | None) -> Path:
    """The folder asked for, else CYTOVOX_CACHE, else the user's cache folder."""
    chosen = given or os.environ.get("CYTOVOX_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("cytovox", appauthor=False))


class ContentDigests:
    """SHA-256 of files, remembered by path, size and time of change: a folder of 100 GB is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root / "digests"

    def of(self, path: Path) -> str:
        """Digest of a file, or of every file of a folder (OME-Zarr)."""
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        state = [f"{p.relative_to(path).as_posix()}:{(s := p.stat()).st_size}:{s.st_mtime_ns}" for p in files]
        # one note a volume, not one a chunk: clusters count files
        name = hashlib.sha256("\n".join([str(path.absolute()), *state]).encode()).hexdigest()
        note = self._root / name[:2] / name
        if note.is_file() and len(known := note.read_text()) == 64:
            return known
        if path.is_dir():
            text = "".join(f"{p.relative_to(path).as_posix()}:{_sha256(p)}\n" for p in files)
            digest = hashlib.sha256(text.encode()).hexdigest()
        else:
            digest = _sha256(path)
        with atomic_path(note) as temporary:
            Path(temporary).write_text(digest)
        return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class PreparedCase:
    """A case on the common grid, in one safetensors file."""

    path: Path

    def arrays(self) -> dict[str, Any]:
        """Lazy `image` (1, Z, Y, X) float32 and `mask` (K, Z, Y, X) uint8, and small arrays read whole."""
        handle = safe_open(str(self.path), framework="numpy")
        whole = {key: handle.get_tensor(key) for key in handle.keys() if key not in ("image", "mask")}  # noqa: SIM118
        return {"image": LazyArray(handle, "image"), "mask": LazyArray(handle, "mask"), **whole}

    def usable(self) -> bool:
        """Whether the file is there and whole."""
        if not self.path.is_file():
            return False
        try:
            self.arrays()
        except (SafetensorError, OSError, ValueError):
            return False
        return True


class LazyArray:
    """An array of a safetensors file that reads only the box asked for."""

    def __init__(self, handle: Any, key: str) -> None:
        self._slice = handle.get_slice(key)
        self.shape: tuple[int, ...] = tuple(self._slice.get_shape())
        self.ndim = len(self.shape)

    def __getitem__(self, box: Any) -> np.ndarray:
        return np.asarray(self._slice[box])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self._slice[:]
        return np.asarray(whole, dtype=dtype)  # a new array either way: nothing here lies in memory

    def __len__(self) -> int:
        return self.shape[0]


def key_of(parts: dict[str, Any]) -> str:
    """Name of a cache entry: what went in and how it was prepared."""
    text = json.dumps({"version": CACHE_VERSION, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def store(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an entry whole or not at all."""
    with atomic_path(path) as temporary:
        try:
            save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, str(temporary))
        except SafetensorError as fault:  # names the system's error, such as a full disk, in its text only
            number = re.search(r"os error (\d+)", str(fault))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(temporary)) from fault
