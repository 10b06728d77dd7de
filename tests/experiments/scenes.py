"""A field of cells of known volumes, its masks in any form, and the commands that read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from cytovox.io import write_nifti, write_ometiff

SHAPE, SPACING = (10, 30, 44), (0.6, 0.5, 0.5)
VOXEL_UM3 = 0.6 * 0.5 * 0.5
#: First voxel and size of each cell, and of its nucleus within it; nobody touches another.
CELLS = (((2, 2, 2), (7, 12, 12)), ((2, 2, 16), (7, 12, 11)), ((1, 16, 3), (8, 13, 20)))
NUCLEI = (((3, 5, 4), (5, 6, 7)), ((3, 5, 18), (5, 6, 7)), ((2, 18, 8), (5, 8, 9)))
CELLS_UM3 = sorted(float(np.prod(size)) * VOXEL_UM3 for _, size in CELLS)
NUCLEI_UM3 = sorted(float(np.prod(size)) * VOXEL_UM3 for _, size in NUCLEI)
MEMBRANE_UM3, NUCLEUS_UM3 = sum(CELLS_UM3), sum(NUCLEI_UM3)


def filled(boxes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Labels 1, 2, ... of boxes: int64 (Z, Y, X)."""
    labels = np.zeros(shape, np.int64)
    for number, (first, size) in enumerate(boxes, start=1):
        labels[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))] = number
    return labels


def cells() -> np.ndarray:
    """Labels of the three cells."""
    return filled(CELLS)


def nuclei() -> np.ndarray:
    """Labels of their nuclei."""
    return filled(NUCLEI)


def ri() -> np.ndarray:
    """Refractive index: float32 (Z, Y, X)."""
    noise = np.random.default_rng(0).normal(0, 1e-4, SHAPE)
    return (1.337 + 0.02 * (cells() > 0) + 0.005 * (nuclei() > 0) + noise).astype(np.float32)


def tomogram(path: Path, frames: int = 1) -> Path:
    """Write the field as OME-TIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = np.stack([ri()[None]] * frames)
    return write_ometiff(path, stack, SPACING, ["RI"], [60.0 * t for t in range(frames)])


def ome(path: Path, array: np.ndarray, channels: Sequence[str] = ("mask",)) -> Path:
    """Write OME-TIFF of (Z, Y, X), of (C, Z, Y, X) for several channels, else (T, Z, Y, X), or of (T, C, Z, Y, X)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.ndim == 4:
        array = array[None] if len(channels) > 1 else array[:, None]
    return write_ometiff(path, array if array.ndim == 5 else array[None, None], SPACING, list(channels))


def plain(path: Path, array: np.ndarray, **more: object) -> Path:
    """Write a TIFF without a voxel size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **more})  # type: ignore[arg-type]
    return path


def nifti(path: Path, array: np.ndarray, spacing: tuple[float, ...] = SPACING) -> Path:
    """Write NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_nifti(path, array, spacing)


@dataclass(frozen=True)
class Result:
    """What a command answered, and its table."""

    code: int
    err: str
    out: str
    table: pd.DataFrame | None

    def volumes(self, compartment: str = "cell", frame: int = 0, file: str | None = None) -> list[float]:
        """Sorted volumes of a compartment in um3, of all cells of a frame."""
        assert self.table is not None, self.err
        rows = self.table[(self.table["compartment"] == compartment) & (self.table["frame"] == frame)]
        rows = rows[(rows["cell"] > 0) & (rows["file"] == file if file is not None else True)]
        return sorted(rows["volume_um3"].dropna().tolist())

    def total(self, compartment: str, frame: int = 0) -> float:
        """Volume of a compartment in um3, in cells or not."""
        assert self.table is not None, self.err
        table = self.table
        return float(table[(table["compartment"] == compartment) & (table["frame"] == frame)]["volume_um3"].sum())


def quick(monkeypatch: object) -> None:
    """Draw no pictures and write no report: they take longer than the analysis of so small a field."""
    from experiments import session
    from experiments.tasks.analyze import figures, outputs
    from experiments.tasks.cells_from_masks import task as cells_from_masks

    patch: Callable[..., None] = monkeypatch.setattr  # type: ignore[attr-defined]
    patch(figures, "draw_results", lambda *_, **__: None)
    patch(outputs, "_draw", lambda *_, **__: None)
    patch(session, "write_report", lambda *_, **__: None)
    patch(cells_from_masks, "cells_figure", lambda *_, **__: None)


def analyze(cli: Callable[..., object], out: Path, inputs: str | Path, *words: str) -> Result:
    """Run task analyze, cells by watershed, without a report."""
    answer = cli(
        "analyze", f"inputs=[{inputs}]", f"out={out}", "method=watershed", "meshes=none", "workers=0",
        "measure.medium_ri=1.337", *words,
    )  # fmt: skip
    path = out / "tables" / "cells.csv"
    return Result(answer.code, answer.err, answer.out, pd.read_csv(path) if path.is_file() else None)  # type: ignore[attr-defined]


def from_masks(cli: Callable[..., object], out: Path, membrane: Path, nucleus: Path, *words: str) -> Result:
    """Run task cells_from_masks by watershed."""
    answer = cli(
        "cells_from_masks", f"membrane={membrane}", f"nucleus={nucleus}", f"out={out}", "method=watershed",
        f"runs_dir={out.parent / 'runs'}", *words
    )  # fmt: skip
    path = out / "cells.csv"
    return Result(answer.code, answer.err, answer.out, pd.read_csv(path) if path.is_file() else None)  # type: ignore[attr-defined]
