"""Where the phantoms of the full-wave set lie, and how they are written. numpy and the standard library only."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from benchmarks.full_wave.cells import Cell

NAME = "full_wave"
COUNT = 12
HERE = Path(__file__).resolve().parent
SOURCES = ("cells.py", "microscope.py", "solver.py", "make_phantoms.py", "requirements.txt")
CACHE = Path.home() / ".cache" / "cytovox" / "phantoms"
COMMAND = "benchmarks/full_wave/make_environment.sh"


def digest() -> str:
    """Return a hash of the sources and of the versions of packages that the phantoms depend on."""
    return hashlib.sha256(b"".join((HERE / source).read_bytes() for source in SOURCES)).hexdigest()[:16]


def phantom_paths(cache: Path, count: int = COUNT) -> list[Path]:
    """Return the files of the first phantoms in a cache, whether they exist or not."""
    return [cache / f"{NAME}_{digest()}" / f"{NAME}_{number:03d}.npz" for number in range(count)]


def write_phantom(path: Path, ri_ZYX: np.ndarray, spacing_um: float, cell: Cell) -> None:
    """Write a phantom as `benchmarks._phantom_sets.load_case` reads it.

    Parameters
    ----------
    path : Path
        File; its folder is made where needed. It is complete or absent.
    ri_ZYX : float array, (Z, Y, X)
        Reconstructed refractive index.
    spacing_um : float
        Size of the cubic voxels.
    cell : Cell
        True masks on the same grid.

    Raises
    ------
    ValueError
        Shapes differ.
    """
    if ri_ZYX.shape != cell.ri_ZYX.shape:
        raise ValueError(f"{path.name}: the index has shape {ri_ZYX.shape}, the masks {cell.ri_ZYX.shape}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            ri=np.rint((ri_ZYX - 1.3) * 1e5).clip(0, 65535).astype(np.uint16),
            spacing=np.full(3, spacing_um),
            cells=cell.cell_ZYX.astype(np.uint16),
            nuclei=cell.nucleus_ZYX.astype(np.uint16),
            nucleolus=cell.nucleolus_ZYX,
            lipid=cell.lipid_ZYX,
            owners=np.array([[1, 1]]),
            contrasts=np.array([cell.contrast]),
        )
    os.replace(temporary, path)
