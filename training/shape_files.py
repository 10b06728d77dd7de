"""Files of predicted shapes: volumes, surfaces, and rows of the table."""

import hashlib
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
from training.rundir import RunFolder, read_json, write_json

#: Manifest in the folder of a cell: what the shapes were made from, and the rows of the table.
NOTE = "shape.json"
#: Number of samples whose surfaces are drawn side by side.
DRAWN = 4
#: Space between them, as a fraction of the width of the volume.
GAP = 0.1


@dataclass
class ShapeWriter:
    """Write one folder per cell; a cell whose shapes are current is not written again.

    ``NAME/mean.tif``, ``sample_01.tif`` ... hold 0 and 255, ``probability.tif`` float32 0 to 1, all (z, y, x);
    ``mean.ply`` and ``mean.glb`` the surface of the mean shape, ``samples.glb`` those of some samples in a row.
    """

    folder: RunFolder
    """Run folder; without `out`, the shapes are written to its `predictions/`."""
    fingerprint: Callable[[ShapeCell], Fingerprint]
    """Fingerprint of everything that the shapes of a cell depend on; shapes with another one are predicted again."""
    voxel_um: float | None = None
    """Voxel size; lengths are in voxels if it is None."""
    out: Path | None = None
    """Folder of the shapes instead of `predictions/` of the run."""

    @property
    def target(self) -> Path:
        """Folder of the shapes."""
        return self.folder.predictions if self.out is None else self.out.absolute()

    def is_done(self, cell: ShapeCell) -> bool:
        """Return whether the shapes of a cell exist and are current."""
        return self.fingerprint(cell).agrees(read_note(self.target / cell.name).get("made_from"))

    def why(self, cell: ShapeCell) -> str:
        """Return what changed since the shapes of a cell were predicted; empty if there are none."""
        return self.fingerprint(cell).why(read_note(self.target / cell.name).get("made_from"))

    def __call__(self, cell: ShapeCell, shapes: Shapes, rows: Sequence[dict[str, Any]]) -> None:
        """Write the folder of a cell atomically.

        Parameters
        ----------
        cell : ShapeCell
            The input.
        shapes : Shapes
            The predicted shapes.
        rows : sequence of dict
            Rows of the table for this cell.

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
            surface_mesh(mean_ZYX, spacing_um).export(part / "mean.ply")
            for name, masks in (("mean", {"shape": mean_ZYX}), ("samples", side_by_side(samples_NZYX))):
                (part / f"{name}.glb").write_bytes(scene(masks, spacing_um).export(file_type="glb"))
            provenance = self.fingerprint(cell)
            write_json(part / NOTE, {"key": provenance.key, "made_from": provenance.parts, "rows": list(rows)})

    def _write_volume(self, path: Path, volume_ZYX: np.ndarray) -> None:
        data = volume_ZYX.astype(np.uint8) * np.uint8(255) if volume_ZYX.dtype == bool else volume_ZYX
        known = self.voxel_um is not None
        metadata = {"axes": "ZYX", **({"spacing": self.voxel_um, "unit": "um"} if known else {})}
        resolution = (1 / self.voxel_um, 1 / self.voxel_um) if self.voxel_um is not None else None
        tifffile.imwrite(path, data, imagej=True, compression="zlib", metadata=metadata, resolution=resolution)


def cell_digest(cell: ShapeCell) -> str:
    """Return the SHA-256 digest of the image and mask of a cell."""
    content = hashlib.sha256(np.rint(cell.image_YX * 65535).astype("<u2").tobytes())
    content.update(np.packbits(cell.mask_YX).tobytes())
    return content.hexdigest()


def side_by_side(samples_NZYX: np.ndarray, count: int = DRAWN) -> dict[str, np.ndarray]:
    """Return the first samples in one volume, in a row along x, as masks to draw."""
    chosen = samples_NZYX[:count]
    width = chosen.shape[-1]
    step = round(width * (1 + GAP))
    row = np.zeros((*chosen.shape[1:3], step * (len(chosen) - 1) + width), bool)
    for number, sample_ZYX in enumerate(chosen):
        row[..., number * step : number * step + width] = sample_ZYX
    return {"shape": row}


def read_note(folder: Path) -> dict[str, Any]:
    """Return the manifest in the folder of a cell; empty if there is none."""
    return read_json(folder / NOTE)


def read_samples(folder: Path) -> np.ndarray:
    """Return the samples in the folder of a cell, (N, Z, Y, X) bool; an empty array without such a folder."""
    return np.array([tifffile.imread(path) > 0 for path in sorted(folder.glob("sample_*.tif"))])
