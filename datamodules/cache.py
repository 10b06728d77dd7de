"""Prepared volumes on disk: one file a case, named by what went in, read a box at a time."""

from __future__ import annotations

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

from cytovox.io.atomic import atomic_path
from cytovox.io.provenance import Fingerprint

#: Key of an entry's metadata that holds the parts of its fingerprint.
MADE_FROM = "made_from"


def cache_root(given: str | None) -> Path:
    """The folder asked for, else CYTOVOX_CACHE, else the user's cache folder."""
    chosen = given or os.environ.get("CYTOVOX_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("cytovox", appauthor=False))


@dataclass(frozen=True)
class PreparedCase:
    """A case on the common grid, in one safetensors file."""

    path: Path

    def arrays(self) -> dict[str, Any]:
        """Lazy `image` (1, Z, Y, X) float32 and `mask` (K, Z, Y, X) uint8, and small arrays read whole."""
        handle = safe_open(str(self.path), framework="numpy")
        whole = {key: handle.get_tensor(key) for key in handle.keys() if key not in ("image", "mask")}  # noqa: SIM118
        return {"image": LazyArray(handle, "image"), "mask": LazyArray(handle, "mask"), **whole}

    def usable(self, fingerprint: Fingerprint | None = None) -> bool:
        """Whether the file is there, whole and, where a fingerprint is given, made from just that."""
        if not self.path.is_file():
            return False
        try:
            self.arrays()
            with safe_open(str(self.path), framework="numpy") as handle:
                provenance = json.loads((handle.metadata() or {}).get(MADE_FROM, "null"))
        except (SafetensorError, OSError, ValueError):
            return False
        return fingerprint is None or fingerprint.agrees(provenance)


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


def store(path: Path, arrays: dict[str, np.ndarray], provenance: dict[str, Any] | None = None) -> None:
    """Write an entry whole or not at all, with the parts of its fingerprint if they are given."""
    about = {MADE_FROM: json.dumps(provenance, sort_keys=True)} if provenance is not None else None
    with atomic_path(path) as temporary:
        try:
            whole = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
            save_file(whole, str(temporary), metadata=about)
        except SafetensorError as error:  # names the system's error, such as a full disk, in its text only
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(temporary)) from error
