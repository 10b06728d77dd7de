"""What is predicted of a cell, in files: volumes for measuring, surfaces for looking at, rows for the table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cytovox.io.atomic import atomic_path
from cytovox.io.provenance import Fingerprint
from cytovox.models.shape import Shapes
from cytovox.plots.meshes import scene, surface_mesh
from datamodules.shape.cases import ShapeCell
from training.rundir import RunFolder, write_json

#: The note in a cell's folder: what it was made from, and its rows of the table.
NOTE = "shape.json"
#: Samples whose surfaces are drawn, side by side.
DRAWN = 4
#: Empty space between them, as a part of the volume's width.
GAP = 0.1


@dataclass
class ShapeWriter:
    """Writes one folder a cell; a cell that is done is not done again.

    ``NAME/mean.tif``, ``sample_01.tif`` ... hold 0 and 255, ``probability.tif`` float32 0 to 1, all (z, y, x);
    ``mean.ply`` and ``mean.glb`` the surface of the mean shape, ``samples.glb`` those of some samples in a row.
    """

    folder: RunFolder
    """Of the run; the shapes go to its `predictions/` if there is no `out`."""
    fingerprint: Callable[[ShapeCell], Fingerprint]
    """Of the shapes of a cell: those that were made from anything else are made again."""
    voxel_um: float | None = None
    """Size of a voxel; lengths are in voxels where it is not known."""
    out: Path | None = None
    """Another folder for the shapes."""

    @property
    def target(self) -> Path:
        """Folder of the shapes."""
        return self.folder.predictions if self.out is None else self.out.absolute()

    def is_done(self, cell: ShapeCell) -> bool:
        """Whether the cell's shapes are there, made from what it is now."""
        return self.fingerprint(cell).agrees(read_note(self.target / cell.name).get("made_from"))

    def why(self, cell: ShapeCell) -> str:
        """What changed since the cell's shapes were made; empty where there are none."""
        return self.fingerprint(cell).why(read_note(self.target / cell.name).get("made_from"))

    def __call__(self, cell: ShapeCell, shapes: Shapes, rows: Sequence[dict[str, Any]]) -> None:
        """Write a cell's folder, whole or not at all.

        Parameters
        ----------
        cell : ShapeCell
            What was predicted from.
        shapes : Shapes
            What was predicted.
        rows : sequence of dict
            The cell's rows of the table.

        Raises
        ------
        InputError
            No space left, or the folder may not be written.
        """
        spacing_um = (self.voxel_um or 1.0,) * 3
        samples_NZYX, mean_ZYX = shapes.samples_NZYX.numpy(), shapes.mean_ZYX.numpy()
        with atomic_path(self.target / cell.name) as part:
            part.mkdir(parents=True)
            self._write_volume(part / "mean.tif", mean_ZYX)
            self._write_volume(part / "probability.tif", shapes.probability_ZYX.numpy())
            for number, sample_ZYX in enumerate(samples_NZYX, start=1):
                self._write_volume(part / f"sample_{number:02d}.tif", sample_ZYX)
            surface = surface_mesh(mean_ZYX, spacing_um)
            surface.export(part / "mean.ply")
            (part / "mean.glb").write_bytes(scene({"shape": mean_ZYX}, spacing_um).export(file_type="glb"))
            (part / "samples.glb").write_bytes(scene(beside(samples_NZYX), spacing_um).export(file_type="glb"))
            provenance = self.fingerprint(cell)
            write_json(part / NOTE, {"key": provenance.key, "made_from": provenance.parts, "rows": list(rows)})

    def _write_volume(self, path: Path, volume_ZYX: np.ndarray) -> None:
        data = volume_ZYX.astype(np.uint8) * np.uint8(255) if volume_ZYX.dtype == bool else volume_ZYX
        metadata: dict[str, Any] = {"axes": "ZYX"}
        if self.voxel_um is None:
            tifffile.imwrite(path, data, imagej=True, compression="zlib", metadata=metadata)
            return
        metadata |= {"spacing": self.voxel_um, "unit": "um"}
        density = 1 / self.voxel_um
        tifffile.imwrite(path, data, imagej=True, compression="zlib", metadata=metadata, resolution=(density, density))


def cell_digest(cell: ShapeCell) -> str:
    """Digest of a cell's image and mask, as they are read."""
    content = hashlib.sha256()
    content.update(np.rint(cell.image_YX * 65535).astype("<u2").tobytes())
    content.update(np.packbits(cell.mask_YX).tobytes())
    return content.hexdigest()


def beside(samples_NZYX: np.ndarray, count: int = DRAWN) -> dict[str, np.ndarray]:
    """Some samples in one row along x, as masks to draw."""
    chosen = samples_NZYX[:count]
    width = chosen.shape[-1]
    step = round(width * (1 + GAP))
    row = np.zeros((*chosen.shape[1:3], step * (len(chosen) - 1) + width), bool)
    for number, sample_ZYX in enumerate(chosen):
        row[..., number * step : number * step + width] = sample_ZYX
    return {"shape": row}


def read_note(folder: Path) -> dict[str, Any]:
    """A cell's note; empty where there is none to be read."""
    try:
        content = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_samples(folder: Path) -> np.ndarray:
    """A cell's samples out of its folder, (N, Z, Y, X) bool; none where there is no such folder."""
    return np.array([tifffile.imread(path) > 0 for path in sorted(folder.glob("sample_*.tif"))])
