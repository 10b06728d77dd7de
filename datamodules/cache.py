"""Cache of prepared volumes: one file per case, named by the fingerprint of its inputs, read box by box."""

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

#: Key of an entry's metadata for the parts of its fingerprint.
MADE_FROM = "made_from"


def cache_root(given: str | None) -> Path:
    """Return the given folder, else CYTOVOX_CACHE, else the user's cache folder."""
    return Path(given or os.environ.get("CYTOVOX_CACHE") or platformdirs.user_cache_dir("cytovox", appauthor=False))


@dataclass(frozen=True)
class PreparedCase:
    """A case on the common grid, stored in one safetensors file."""

    path: Path

    def arrays(self) -> dict[str, Any]:
        """Return memory-mapped `image` (1, Z, Y, X) float32 and `mask` (K, Z, Y, X), uint8 or uint16, and small arrays.

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
        """Return whether the file exists, is complete and, if a fingerprint is given, was made from the same inputs."""
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
    """Write an entry atomically, with the parts of its fingerprint if they are given."""
    about = {MADE_FROM: json.dumps(provenance, sort_keys=True)} if provenance is not None else None
    with atomic_path(path) as temporary:
        try:
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, str(temporary), metadata=about)
        except SafetensorError as error:  # its text alone names the system's error, such as a full disk
            if (match := re.search(r"os error (\d+)", str(error))) is None:
                raise
            number = int(match[1])
            raise OSError(number, os.strerror(number), str(temporary)) from error
