"""Fingerprints of cells and volumes by their content: how weights know again what they were trained on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

#: Hexadecimal digits of a fingerprint: 64 bits, so that two of a million cells share one by a chance of 1e-8.
DIGITS = 16


def cell_fingerprint(image_YX: np.ndarray, mask_YX: np.ndarray) -> str:
    """Return the fingerprint of a cell by what a shape network is shown of it, whatever file it comes from.

    Parameters
    ----------
    image_YX : float array, (Y, X)
        0 to 1; taken in 8 bits, so that a copy in another number type has the same fingerprint.
    mask_YX : bool array, (Y, X)
        True inside the cell.

    Returns
    -------
    str
        Of `DIGITS` hexadecimal digits.
    """
    content = hashlib.sha256(f"cell {image_YX.shape}".encode())
    content.update(np.rint(np.clip(image_YX, 0, 1) * 255).astype(np.uint8).tobytes())
    content.update(np.packbits(np.asarray(mask_YX) != 0).tobytes())
    return content.hexdigest()[:DIGITS]


def file_fingerprint(path: Path) -> str:
    """Return the fingerprint of a volume by the content of its file, or of all files of its folder."""
    content = hashlib.sha256(b"volume")
    files = sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]
    for part in files:
        if path.is_dir():
            content.update(str(part.relative_to(path)).encode())
        with part.open("rb") as file:
            content.update(hashlib.file_digest(file, "sha256").digest())
    return content.hexdigest()[:DIGITS]
