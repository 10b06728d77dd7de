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
        """Map `image` (1, Z, Y, X) float32 and `mask` (K, Z, Y, X) uint8 or uint16, and read the small arrays.

        Returns
        -------
        dict
            `image` and `mask` are tensors on the file's own memory map: only what is sliced is read, and what is
            sliced must be copied before it is changed. The others are numpy arrays.
        """
        handle = safe_open(str(self.path), framework="pt")
        tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
        mapped = {key: tensors.pop(key) for key in ("image", "mask")}
        return {**mapped, **{key: tensor.numpy().copy() for key, tensor in tensors.items()}}

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
