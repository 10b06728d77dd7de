"""What is known of every frame so far, on disk: a killed analysis goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cytovox.io.atomic import atomic_path
from cytovox.io.deletion import remove_file
from cytovox.io.provenance import Fingerprint


class FrameState:
    """The folder of one frame. Every file in it says what it was made from, and appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, what: str, fingerprint: Fingerprint) -> bool:
        """Whether "organelles", "cells" or "rows" are there, made from just this."""
        metadata = self.metadata(what)
        whole = not metadata.get("arrays") or (self.folder / f"{what}.npz").is_file()
        return whole and fingerprint.agrees(metadata.get("made_from"))

    def provenance(self, what: str) -> Any:
        """Parts of the fingerprint of what is there; None where it is not."""
        return self.metadata(what).get("made_from")

    def key(self, what: str, fingerprint: Fingerprint) -> str:
        """What later steps know the result by: as it was stored, where it is current."""
        return str(self.metadata(what)["key"]) if self.has(what, fingerprint) else fingerprint.key

    def metadata(self, what: str) -> dict[str, Any]:
        """What was noted with it; empty where it is not there."""
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((self.folder / f"{what}.json").read_text(encoding="utf-8"))
            if isinstance(content, dict):
                return content
        return {}

    def save(self, what: str, fingerprint: Fingerprint, arrays: Mapping[str, np.ndarray], **metadata: Any) -> None:
        """Arrays first, then the note that makes them count."""
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / f"{what}.json"
        remove_file(note, self.folder)
        if arrays:
            with atomic_path(self.folder / f"{what}.npz") as part, part.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        with atomic_path(note) as part:
            content = {"key": fingerprint.key, "made_from": fingerprint.parts, "arrays": bool(arrays), **metadata}
            part.write_text(json.dumps(content, sort_keys=True), encoding="utf-8")

    def arrays(self, what: str) -> dict[str, np.ndarray]:
        """The arrays that were saved."""
        with np.load(self.folder / f"{what}.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def save_masks(
        self, fingerprint: Fingerprint, masks: Mapping[str, np.ndarray], shape: tuple[int, ...], **metadata: Any
    ) -> None:
        """Masks of organelles, eight voxels a byte."""
        packed = {f"mask_{name}": np.packbits(mask) for name, mask in masks.items()}
        self.save("organelles", fingerprint, packed, names=list(masks), shape=list(shape), **metadata)

    def masks(self) -> dict[str, np.ndarray]:
        """Masks of organelles as predicted or given: name to bool array (Z, Y, X)."""
        metadata = self.metadata("organelles")
        return _unpacked(self.arrays("organelles"), metadata["names"], tuple(metadata["shape"]))

    def final_masks(self) -> dict[str, np.ndarray]:
        """The same with what was corrected."""
        corrected = self.metadata("cells").get("corrected", [])
        shape = tuple(self.metadata("organelles")["shape"])
        return {**self.masks(), **(_unpacked(self.arrays("cells"), corrected, shape) if corrected else {})}

    def member(self, k: int) -> FrameState:
        """The same of mirror image k."""
        return FrameState(self.folder / f"mirror{k}")

    @property
    def said(self) -> Path:
        """Probabilities of membrane and nucleus, until the cells are found: uint8, 0 to 255."""
        return self.folder / "said.npy"

    def has_said(self) -> bool:
        """Whether probabilities are kept."""
        return self.said.is_file()

    def forget_said(self) -> None:
        """Remove them."""
        remove_file(self.said, self.folder)

    def save_said(self, said_2ZYX: np.ndarray) -> None:
        """Keep probabilities for the cells."""
        self.folder.mkdir(parents=True, exist_ok=True)
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
