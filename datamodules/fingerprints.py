"""Fingerprints of cells and volumes by content, which identify the training data of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cytovox.io.provenance import ContentDigests
from datamodules.cases import Case

#: Hexadecimal digits of a fingerprint: 64 bits, so that a collision among a million cells has a probability of 3e-8.
DIGITS = 16


def cell_fingerprint(image_YX: np.ndarray, mask_YX: np.ndarray) -> str:
    """Return the fingerprint of a cell's image and mask, independent of its file.

    Parameters
    ----------
    image_YX : float array, (Y, X)
        Values 0 to 1; rounded to 8 bits, so that a copy in another data type has the same fingerprint.
    mask_YX : bool array, (Y, X)
        True inside the cell.

    Returns
    -------
    str
        `DIGITS` hexadecimal digits.
    """
    content = hashlib.sha256(f"cell {image_YX.shape}".encode())
    content.update(np.rint(np.clip(image_YX, 0, 1) * 255).astype(np.uint8).tobytes())
    content.update(np.packbits(np.asarray(mask_YX) != 0).tobytes())
    return content.hexdigest()[:DIGITS]


def volume_fingerprints(paths: Iterable[Path], cache: Path) -> list[str]:
    """Return the fingerprint of each volume: a digest of its file, or of all files of its folder.

    Parameters
    ----------
    paths : iterable of Path
        Files of tomograms; a copy in another format has another fingerprint.
    cache : Path
        Folder that stores digests of large files, see `cytovox.io.provenance.ContentDigests`.
    """
    digests = ContentDigests(cache)
    return [digests.of(path)[:DIGITS] for path in paths]


def case_fingerprints(cases: Iterable[Case], cache: Path) -> list[str]:
    """Return the fingerprint of each case: a digest of its tomogram's file, or of its simulation parameters."""
    return [
        volume_fingerprints(case.files[:1], cache)[0]
        if case.files
        else hashlib.sha256(f"simulated {case.settings}".encode()).hexdigest()[:DIGITS]
        for case in cases
    ]
