"""Test and predict stages of the shape tasks: tables, a gallery, and files of every shape."""

import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cytovox.io.provenance import Fingerprint
from cytovox.measurement.shape_features import features_2d, features_3d, in_unit
from cytovox.metrics.volume_spread import samples_needed
from cytovox.models.domain import cell_statistics, outside
from cytovox.plots.charts import reliability_figure
from cytovox.plots.meshes import write_glb
from cytovox.plots.shapes import GalleryCell, gallery_figure
from datamodules.shape.cases import ShapeCell
from datamodules.shape.dataset import shape_sample
from datamodules.shape.folder import find_inputs, read_shapes
from datamodules.steps import STEPS
from experiments.stages import Run
from experiments.tasks.base import predict_each, record_seen
from lightning_modules.seen import COLUMN, counted_seen
from lightning_modules.shape_base import ShapeBase
from lightning_modules.shape_scoring import ERROR_COLUMNS, ShapeScores, volume_columns
from training.results import write_table
from training.rundir import RunFolder
from training.shape_files import ShapeWriter, cell_digest, read_note, read_samples, side_by_side

#: Columns of `predicted_shapes.csv`.
PREDICTED = (
    "cell", "input", COLUMN, "samples", "volume", "volume_low", "volume_high", "volume_interval_coverage", "unit",
    "output", "outside_training",
)  # fmt: skip
#: Cells in the gallery of a prediction.
SHOWN = 4


def test(run: Run) -> None:
    """Score the weights on the test cells, and write tables, a gallery and surfaces to the run folder."""
    cells: Sequence[ShapeCell] = run.data.find()["test"]
    module: ShapeBase = run.module()
    run.trainer.test(module, datamodule=run.data, verbose=False)
    if not run.trainer.is_global_zero:
        return
    scores = module.scores
    _note_few_samples(module.samples)
    seen, _ = counted_seen(module.metadata, [cell.fingerprint for cell in cells])
    _write_tables(scores, cells, seen, run.folder)
    _draw(module, scores, cells, run.folder)
    means = {f"test/{name}": value for name, value in scores.means().items()}
    run.folder.update_metrics({**means, "test/cases": len(scores.cells)})
    scored = [cells[score.index].fingerprint for score in scores.cells]
    record_seen(run, module, scored, "test", "test cells", "their scores say nothing about new cells")


def _note_few_samples(samples: int) -> None:
    """Print a note if several samples are too few for a 90 % interval of volumes."""
    if 1 < samples < samples_needed():
        print(
            f"note: predict.samples={samples} are too few for a 90 % interval of volumes ({samples_needed()} or more "
            "are needed): volume_low and volume_high are empty, and no coverage is scored",
            file=sys.stderr,
        )


def _write_tables(scores: ShapeScores, cells: Sequence[ShapeCell], seen: Sequence[str], folder: RunFolder) -> None:
    rows = scores.rows([cell.name for cell in cells], [cell.group for cell in cells])
    rows = [{**row, COLUMN: seen[score.index]} for row, score in zip(rows, scores.cells, strict=True)]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_table(folder.tables / "test_cells.csv", columns, rows)
    groups = []
    for group in dict.fromkeys(cell.group for cell in cells):
        found = [row for row in rows if row["class"] == group]
        if found:
            means = {name: float(np.nanmean([float(str(row[name])) for row in found])) for name in ERROR_COLUMNS}
            groups.append({"class": group, "n": len(found), **means})
    write_table(folder.tables / "test_classes.csv", ["class", "n", *ERROR_COLUMNS], groups)


def _draw(module: ShapeBase, scores: ShapeScores, cells: Sequence[ShapeCell], folder: RunFolder) -> None:
    """Predict the best, the median and the worst cell again; draw their gallery, and the median's samples in 3D."""
    shown = []
    for label, score in scores.examples().items():
        cell = cells[score.index]
        samples = predict_shapes(module, cell, score.index).samples_NZYX.numpy()
        shown.append(GalleryCell(f"{label}: {cell.name}", cell.image_YX, cell.mask_YX, samples, cell.obj_ZYX))
        if label == "median":
            assert cell.obj_ZYX is not None
            row = side_by_side(np.concatenate([cell.obj_ZYX[None], samples]))
            write_glb(folder.figures / "test_median.glb", row, (1.0, 1.0, 1.0))
    if shown:
        gallery_figure(folder.figures / "test_gallery.png", shown)
    reliability_figure(folder.figures / "test_reliability.png", {"voxels": scores.reliability})


def predict_shapes(module: ShapeBase, cell: ShapeCell, number: int) -> Any:
    """Return the sampled shapes of a cell; the number of the cell seeds the samples."""
    sample = shape_sample(cell, number)
    image, mask = sample["image"].to(module.device), sample["mask"].to(module.device)
    return module.shapes(image, mask, number, module.samples)


@dataclass
class Predictor:
    """Function that predicts one cell and writes its files, called by the trainer for each cell."""

    module: ShapeBase
    writer: ShapeWriter
    sources: dict[str, Path]
    trained_on: dict[str, Any]

    def __call__(self, cell: ShapeCell) -> None:
        """Predict a cell, unless it is finished."""
        if self.writer.is_done(cell):
            return
        if why := self.writer.why(cell):
            print(f"note: {cell.name}: predicted again: {why}", file=sys.stderr)
        # seeded by name, not by position: other cells in the folder do not change the samples of this one
        found = predict_shapes(self.module, cell, zlib.crc32(cell.name.encode()))
        voxel_um = self.writer.voxel_um or 1.0
        size = voxel_um**3
        volumes = size * found.samples_NZYX.flatten(1).sum(1).double().numpy()
        features = {
            **features_2d(cell.image_YX, cell.mask_YX, (voxel_um,) * 2),
            **features_3d(found.mean_ZYX.numpy(), (voxel_um,) * 3),
        }
        row = {
            "cell": cell.name,
            "input": str(self.sources[cell.name]),
            "samples": len(volumes),
            "volume": size * float(found.mean_ZYX.sum()),
            **volume_columns(volumes),
            "unit": "voxels" if self.writer.voxel_um is None else "um3",
            "output": cell.name,
            "outside_training": "; ".join(outside(self.trained_on, cell_statistics(cell.image_YX, cell.mask_YX))),
            "features": {
                "unit": "px" if self.writer.voxel_um is None else "um",
                **in_unit(features, known=self.writer.voxel_um is not None),
            },
        }
        self.writer(cell, found, [row])


def predict(run: Run) -> None:
    """Write the shapes of every cell. Finished cells are not predicted again."""
    module: ShapeBase = run.module()
    predict = run.config.predict
    files = [cell for folder in run.inputs for cell in find_inputs(folder)]
    sources = {cell.name: cell.image for cell in files}
    cells = read_shapes(files)
    weights, precision = run.weights_digests(), str(run.trainer.precision)

    def fingerprint(cell: ShapeCell) -> Fingerprint:
        return STEPS["predict.shapes"].fingerprint(
            run.config, cell=cell_digest(cell), name_of_cell=cell.name, content_of_weights=weights, precision=precision
        )

    writer = ShapeWriter(
        run.folder, fingerprint, predict.voxel_um, Path(predict.out) if predict.out is not None else None
    )
    module.predict_cell = Predictor(module, writer, sources, run.trained_on[0])
    predict_each(run, module, cells)
    if run.trainer.is_global_zero:
        _note_few_samples(predict.samples)
        fingerprints = [cell.fingerprint for cell in cells]
        seen, _ = counted_seen(module.metadata, fingerprints)
        rows = [
            {**row, COLUMN: answer}
            for cell, answer in zip(cells, seen, strict=True)
            for row in read_note(writer.target / cell.name).get("rows", [])
        ]
        features = [_features_row(row) for row in rows]
        strange = [row["cell"] for row in rows if row.get("outside_training")]
        if strange:
            some = ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else "")
            print(
                f"note: {len(strange)} of {len(rows)} cells ({some}) are outside the training data of the weights; see "
                "outside_training in tables/predicted_shapes.csv",
                file=sys.stderr,
            )
        write_table(run.folder.tables / "predicted_shapes.csv", list(PREDICTED), rows)
        write_table(run.folder.tables / "predicted_features.csv", list(features[0]) if features else ["cell"], features)
        _draw_predicted(cells[:SHOWN], writer.target, run.folder)
        run.folder.update_metrics({"predict/files": len(rows)})
        consequence = "their shapes and features are better than those of new cells, and classifiers refuse them"
        record_seen(run, module, fingerprints, "predict", "predicted cells", consequence)


def _features_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of `predicted_features.csv`; the features are removed from the row of the cell."""
    features = row.pop("features")
    unit = features.pop("unit")
    return {"cell": row["cell"], "unit": unit, COLUMN: row[COLUMN], **features}


def _draw_predicted(cells: Sequence[ShapeCell], target: Path, folder: RunFolder) -> None:
    """Draw the first cells from their files."""
    shown = []
    for cell in cells:
        samples = read_samples(target / cell.name)
        if len(samples):
            shown.append(GalleryCell(cell.name, cell.image_YX, cell.mask_YX, samples))
            write_glb(folder.figures / f"predict_{cell.name}.glb", side_by_side(samples), (1.0, 1.0, 1.0))
    if shown:
        gallery_figure(folder.figures / "predict_gallery.png", shown)
