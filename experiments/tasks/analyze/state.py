"""Intermediate results of frames on disk, from which a stopped analysis continues."""

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

#: Files of the probabilities: as the network wrote them, and compressed.
_PROBABILITIES = ("probabilities_raw.npz", "probabilities.npz")


class FrameState:
    """Folder of the results of one frame. Files are written atomically, each with the fingerprint of its inputs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, what: str, fingerprint: Fingerprint) -> bool:
        """Return whether a result ("organelles", "cells", "rows") is stored and has this fingerprint."""
        metadata = self.metadata(what)
        whole = not metadata.get("arrays") or (self.folder / f"{what}.npz").is_file()
        return whole and fingerprint.agrees(metadata.get("made_from"))

    def provenance(self, what: str) -> Any:
        """Return the parts of a stored result's fingerprint; None if there is none."""
        return self.metadata(what).get("made_from")

    def key(self, what: str, fingerprint: Fingerprint) -> str:
        """Return the key of a result for the fingerprints of later steps: the stored key if the result is current."""
        return str(self.metadata(what)["key"]) if self.has(what, fingerprint) else fingerprint.key

    def metadata(self, what: str) -> dict[str, Any]:
        """Return the metadata of a stored result; empty if there is none."""
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((self.folder / f"{what}.json").read_text(encoding="utf-8"))
            if isinstance(content, dict):
                return content
        return {}

    def save(self, what: str, fingerprint: Fingerprint, arrays: Mapping[str, np.ndarray], **metadata: Any) -> None:
        """Write the arrays, then the metadata, without which the arrays are ignored."""
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
        """Return the stored arrays of a result."""
        with np.load(self.folder / f"{what}.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def save_masks(
        self, fingerprint: Fingerprint, masks: Mapping[str, np.ndarray], shape: tuple[int, ...], **metadata: Any
    ) -> None:
        """Write masks of organelles, with eight voxels per byte."""
        packed = {f"mask_{name}": np.packbits(mask) for name, mask in masks.items()}
        self.save("organelles", fingerprint, packed, names=list(masks), shape=list(shape), **metadata)

    def masks(self) -> dict[str, np.ndarray]:
        """Return the predicted or existing masks of organelles: name to bool array (Z, Y, X)."""
        metadata = self.metadata("organelles")
        return _unpacked(self.arrays("organelles"), metadata["names"], tuple(metadata["shape"]))

    def final_masks(self) -> dict[str, np.ndarray]:
        """Return the masks of organelles; corrected masks replace others."""
        if not (corrected := self.metadata("cells").get("corrected", [])):
            return self.masks()
        shape = tuple(self.metadata("organelles")["shape"])
        return {**self.masks(), **_unpacked(self.arrays("cells"), corrected, shape)}

    def member(self, k: int) -> FrameState:
        """Return the state of mirror image k of the frame."""
        return FrameState(self.folder / f"mirror{k}")

    @property
    def has_probabilities(self) -> bool:
        """Whether probabilities are stored."""
        return any((self.folder / name).is_file() for name in _PROBABILITIES)

    def remove_probabilities(self) -> None:
        """Delete stored probabilities."""
        for name in _PROBABILITIES:
            remove_file(self.folder / name, self.folder)

    def save_probabilities(self, probabilities: Mapping[str, np.ndarray]) -> None:
        """Write probabilities, name to uint8 array (Z, Y, X), uncompressed: the network waits for this."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.folder / _PROBABILITIES[0]) as part, part.open("wb") as file:
            np.savez(file, **probabilities)  # type: ignore[arg-type]

    def compress_probabilities(self) -> None:
        """Compress stored probabilities, when nothing waits for it."""
        fast, small = (self.folder / name for name in _PROBABILITIES)
        if not fast.is_file():
            return
        with atomic_path(small) as part, part.open("wb") as file:
            np.savez_compressed(file, **self.probabilities())  # type: ignore[arg-type]
        remove_file(fast, self.folder)

    def probabilities(self) -> dict[str, np.ndarray]:
        """Return the probabilities, name to uint8 array (Z, Y, X), 0 to 255; empty if they are not stored."""
        for name in _PROBABILITIES:
            if (self.folder / name).is_file():
                with np.load(self.folder / name, allow_pickle=False) as file:
                    return {organelle: file[organelle] for organelle in file.files}
        return {}


def _unpacked(arrays: Mapping[str, np.ndarray], names: Sequence[str], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return masks (Z, Y, X) from arrays with eight voxels per byte."""
    count = int(np.prod(shape))
    return {name: np.unpackbits(arrays[f"mask_{name}"], count=count).reshape(shape).astype(bool) for name in names}
