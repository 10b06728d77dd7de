"""What is known of every frame so far, on disk: a killed analysis goes on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from formats.atomic import atomic_path
from formats.deletion import remove_file

#: Part of every key: raise it when a frame would come out different.
STATE_VERSION = 2


def key_of(*parts: Any) -> str:
    """Digest of what a result depends on."""
    return hashlib.sha256(json.dumps([STATE_VERSION, *parts], sort_keys=True).encode()).hexdigest()[:32]


def array_digest(array: np.ndarray) -> str:
    """Digest of an array's content and form."""
    text = hashlib.blake2b(f"{array.shape} {array.dtype.str}".encode(), digest_size=16)
    text.update(np.ascontiguousarray(array).data)
    return text.hexdigest()


class FrameState:
    """The folder of one frame. Every file in it says what it was made from, and appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, what: str, key: str) -> bool:
        """Whether "organelles", "cells" or "rows" are there, made from just this."""
        return self.facts(what).get("key") == key

    def facts(self, what: str) -> dict[str, Any]:
        """What was noted with it; empty where it is not there."""
        with contextlib.suppress(OSError, ValueError):
            told = json.loads((self.folder / f"{what}.json").read_text(encoding="utf-8"))
            if isinstance(told, dict):
                return told
        return {}

    def save(self, what: str, key: str, arrays: Mapping[str, np.ndarray], **facts: Any) -> None:
        """Arrays first, then the note that makes them count."""
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / f"{what}.json"
        remove_file(note, self.folder)
        if arrays:
            with atomic_path(self.folder / f"{what}.npz") as part, part.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        with atomic_path(note) as part:
            part.write_text(json.dumps({"key": key, **facts}, sort_keys=True), encoding="utf-8")

    def arrays(self, what: str) -> dict[str, np.ndarray]:
        """The arrays that were saved."""
        with np.load(self.folder / f"{what}.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def save_masks(self, key: str, masks: Mapping[str, np.ndarray], shape: tuple[int, ...], **facts: Any) -> None:
        """Masks of organelles, eight voxels a byte."""
        packed = {f"mask_{name}": np.packbits(mask) for name, mask in masks.items()}
        self.save("organelles", key, packed, names=list(masks), shape=list(shape), **facts)

    def masks(self) -> dict[str, np.ndarray]:
        """Masks of organelles as predicted or given: name to bool array (Z, Y, X)."""
        facts = self.facts("organelles")
        return _unpacked(self.arrays("organelles"), facts["names"], tuple(facts["shape"]))

    def final_masks(self) -> dict[str, np.ndarray]:
        """The same with what was corrected."""
        corrected = self.facts("cells").get("corrected", [])
        shape = tuple(self.facts("organelles")["shape"])
        return {**self.masks(), **(_unpacked(self.arrays("cells"), corrected, shape) if corrected else {})}

    def member(self, k: int) -> FrameState:
        """The same of mirror image k."""
        return FrameState(self.folder / f"mirror{k}")

    @property
    def said(self) -> Path:
        """Probabilities of membrane and nucleus, until the cells are found: uint8, 0 to 255."""
        return self.folder / "said.npy"

    def save_said(self, said_2ZYX: np.ndarray) -> None:
        """Keep probabilities for the cells."""
        with atomic_path(self.said) as part, part.open("wb") as file:
            np.save(file, np.rint(255 * said_2ZYX).astype(np.uint8))

    def read_said(self) -> np.ndarray | None:
        """float32 (2, Z, Y, X), or None where they are gone."""
        if not self.said.is_file():
            return None
        return np.load(self.said, allow_pickle=False).astype(np.float32) / 255


def _unpacked(arrays: Mapping[str, np.ndarray], names: Sequence[str], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    count = int(np.prod(shape))
    return {name: np.unpackbits(arrays[f"mask_{name}"], count=count).reshape(shape).astype(bool) for name in names}
