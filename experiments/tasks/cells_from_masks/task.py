"""Task cells_from_masks: label cells from masks of membrane and nucleus; a tomogram is optional."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cytovox.errors import InputError
from cytovox.io import LabelVolume, Volume, open_labels, read_volume, write_ometiff
from cytovox.io.deletion import Manifest
from cytovox.io.label_layout import Opening
from cytovox.io.spacing import resolve_spacing
from cytovox.measurement.measurements import Rules, measure_frame
from cytovox.measurement.refractive import PAPER_MEDIUM_RI
from cytovox.measurement.registry import columns_of_ri
from cytovox.organelles import WHOLE
from cytovox.plots.cells import cells_figure
from cytovox.plots.charts import read_rows
from cytovox.quality.control import cell_state, frame_flags
from cytovox.quality.rules import QualityRules, as_text
from cytovox.segmentation.checks import nuclei_outside_note
from cytovox.segmentation.field import CellField, CellFinder
from cytovox.segmentation.holes import fill_cells
from cytovox.segmentation.watershed import unassigned
from datamodules.cases import checked_ri
from datamodules.label_source import Grid, LabelSource, label_sources
from experiments.preflight import require_room
from experiments.progress import Bars, print_notes
from experiments.report.data import link, shown_number
from experiments.report.parts import picture, sections
from experiments.schema import to_yaml
from experiments.session import RunRequest, Work, now
from experiments.tasks.analyze.outputs import write_cells_scene
from experiments.tasks.analyze.predictors import cell_finder, cell_weights
from experiments.tasks.analyze.results import write_table
from experiments.tasks.base import Task
from experiments.tasks.cells_from_masks.config import CellsFromMasksConfig, cells_from_masks_errors
from training.environment import describe_environment
from training.rundir import RunFolder, read_json, write_json, write_text
from training.signals import StopSignals

#: Files in `out`.
RESULTS = ("cells.ome.tif", "cells.csv", "cells.png")
#: Most rows in the report; the table has all.
MAX_ROWS = 200
#: Columns of the report: column of the table, heading, decimals.
REPORT_COLUMNS = (
    ("volume_um3", "volume, µm³", None),
    ("surface_area_um2", "area, µm²", None),
    ("sphericity", "sphericity", 3),
    ("mean_ri", "mean RI", 4),
    ("dry_mass_pg", "dry mass, pg", None),
)


def cells_from_masks_report(folder: Path) -> dict[str, Any]:
    """Return the contents of the sections of the report."""
    rows = [row for row in read_rows(folder / "tables" / "cells.csv") if row.get("compartment") == "cell"]
    columns = [column for column in REPORT_COLUMNS if any(row.get(column[0]) for row in rows)]
    return {
        "sections": {
            **sections("cells_from_masks", "Cells", "µm"),
            "trained": False,
            "parts": [("scores", "Cells")],
            "predictions": "cells_predictions.html",
        },
        "found": read_json(folder / "metrics.json"),
        "first_frame": picture(folder / "figures" / "cells.png"),
        "table": link(folder, "tables/cells.csv"),
        "heads": [head for _, head, _ in columns],
        "rows": [
            {
                "frame": row.get("frame", ""),
                "cell": row.get("cell", ""),
                "values": [shown_number(row.get(key), digits) for key, _, digits in columns],
                "flags": ", ".join(row.get("flags", "").replace("_", " ").split()),
            }
            for row in rows[:MAX_ROWS]
        ],
        "more": max(0, len(rows) - MAX_ROWS),
    }


@dataclass(frozen=True)
class Inputs:
    """Opened input files."""

    membrane: dict[int, LabelSource]
    """Masks of the membrane by frame."""
    nucleus: dict[int, LabelSource]
    """Masks or labels of nuclei by frame."""
    volume: Volume | None
    spacing_um: tuple[float, float, float]


class CellsFromMasksTask(Task):
    """See `Task`."""

    name = "cells_from_masks"
    config = CellsFromMasksConfig
    paths = (("membrane",), ("nucleus",), ("ri",), ("out",), ("cell_weights",))
    errors = staticmethod(cells_from_masks_errors)
    report = staticmethod(cells_from_masks_report)

    def check(self, request: RunRequest) -> None:
        """See `Task`."""
        config, parts = request.config, 0
        cell_weights(config.method, config.cell_weights)
        inputs = open_inputs(config)
        for t, nucleus in inputs.nucleus.items():
            parts += len(np.unique(nucleus.objects())) - 1
            inputs.membrane[t].mask()
            if inputs.volume is not None:
                checked_ri(inputs.volume.frame(t), f"{config.ri}, frame {t}")
        z, y, x = inputs.spacing_um
        kind = "labels" if inputs.nucleus[0].instances else "connected parts"
        print("the config is valid; it would find cells in")
        print(
            f"  {config.membrane} (membrane) and {config.nucleus} (nucleus, {parts} {kind}): {len(inputs.membrane)} "
            f"frame{'s' * (len(inputs.membrane) != 1)}, {z:.4g}, {y:.4g}, {x:.4g} um (z, y, x)", flush=True,
        )  # fmt: skip

    def begin(self, request: RunRequest, signals: StopSignals) -> Work:
        """See `Task`."""
        config = request.config
        finder = cell_finder(config.method, cell_weights(config.method, config.cell_weights), config.seeds.rule())
        inputs, out = open_inputs(config), Path(config.out)
        require_room(out, "out")
        Manifest(out, self.name).require_free([out / name for name in RESULTS])
        require_room(Path(config.runs_dir) / config.name, "runs_dir")
        folder = request.folder or RunFolder.create(Path(config.runs_dir), config.name)
        return CellsFromMasksRun(request, folder, self.resolved(config), finder, inputs)


class CellsFromMasksRun(Work):
    """Run that labels the cells of every frame and writes them to `out`."""

    report = staticmethod(cells_from_masks_report)

    def __init__(
        self, request: RunRequest, folder: RunFolder, tree: dict[str, Any], finder: CellFinder, inputs: Inputs
    ) -> None:
        super().__init__(request, folder)
        self.tree, self.finder, self.inputs = tree, finder, inputs
        self._printed: list[str] = []

    def record(self) -> None:
        """See `Work`."""
        self.folder.update_status(status="running", started=self.folder.status().get("started") or now())
        write_text(self.folder.path / "config.yaml", to_yaml({**self.tree, "resume": None}))
        write_json(self.folder.path / "environment.json", describe_environment(0))

    def run_stage(self, stage: str) -> None:
        """Find the cells of every frame and measure them."""
        inputs, out = self.inputs, Path(self.config.out)
        rows, frames, unassigned_um3 = list[dict[str, object]](), list[np.ndarray](), 0.0
        with Bars() as bars:
            for t in inputs.membrane:
                cells_ZYX, found = self._frame(t)
                rows += found
                frames.append(cells_ZYX)
                outside = unassigned(inputs.membrane[t].mask(), cells_ZYX)
                unassigned_um3 += float(outside.sum()) * float(np.prod(inputs.spacing_um))
                bars("finding cells", len(frames), len(inputs.membrane), f"frame {t}")
        kind = np.uint16 if max(int(cells.max(initial=0)) for cells in frames) < 2**16 else np.uint32
        write_ometiff(out / "cells.ome.tif", np.stack(frames)[:, None].astype(kind), inputs.spacing_um, ["cells"])
        table = pd.DataFrame(rows)
        if "original_label" in table:
            table = table.astype({"original_label": "UInt64"})
        write_table(table, out / "cells.csv")
        write_table(table, self.folder.tables / "cells.csv")
        self._draw(frames[0], out)
        written = Manifest(out, CellsFromMasksTask.name)
        for name in RESULTS:
            written.add(out / name)
        count = int((table["compartment"] == WHOLE).sum()) if len(table) else 0
        self.folder.update_metrics({"cells": count, "frames": len(frames), "unassigned_um3": unassigned_um3})
        self._printed = [
            f"cells: {count} in {len(frames)} frames; {unassigned_um3:.1f} um3 of the membrane mask are in no cell",
            f"labels: {out / 'cells.ome.tif'}",
            f"table: {out / 'cells.csv'}",
        ]

    def _frame(self, t: int) -> tuple[np.ndarray, list[dict[str, object]]]:
        """Return the labels of the cells of a frame, and its rows of the table."""
        inputs, volume = self.inputs, self.inputs.volume
        nucleus, inside = inputs.nucleus[t], inputs.membrane[t].mask()
        nuclei = nucleus.mask()
        ri = checked_ri(volume.frame(t), f"{self.config.ri}, frame {t}") if volume is not None else None
        seeds = nucleus.objects() if nucleus.instances else None
        if warning := nuclei_outside_note(nuclei, inside):
            print(f"note: frame {t}: {warning}", file=sys.stderr)
        found = self.finder(CellField(inside, nuclei, inputs.spacing_um, ri, seeds))
        if not (found.seeds_ZYX > 0).any():
            print(f"note: frame {t}: no nucleus, so no cells were separated", file=sys.stderr)
        cells_ZYX = fill_cells(found.cells_ZYX)
        if added := int(np.count_nonzero(cells_ZYX != found.cells_ZYX)):
            print(f"note: frame {t}: {added} voxels in holes of cells are filled", file=sys.stderr)
        return cells_ZYX, _rows(cells_ZYX, nuclei, inside, ri, inputs.spacing_um, t, volume, nucleus)

    def _draw(self, cells_ZYX: np.ndarray, out: Path) -> None:
        """Draw the first frame, next to the labels and for the report."""
        inputs, t = self.inputs, next(iter(self.inputs.membrane))
        image = inputs.membrane[t].mask().astype(np.float32) if inputs.volume is None else inputs.volume.frame(t)
        for path in (out / "cells.png", self.folder.figures / "cells.png"):
            cells_figure(path, image, cells_ZYX, inputs.spacing_um, Path(self.config.membrane).name)
        write_cells_scene(self.folder.figures / "cells.glb", cells_ZYX, inputs.spacing_um)

    def finished(self) -> int:
        """See `Work`."""
        print("\n".join(self._printed))
        print(f"report: {self.folder.path / 'report.html'}")
        print(f"run: {self.folder.path}", flush=True)
        return 0


def open_inputs(config: CellsFromMasksConfig) -> Inputs:
    """Open the masks and the tomogram, determine their grid, and print notes about them.

    Raises
    ------
    InputError
        Files that cannot be read, or whose grids do not match.
    """
    notes: list[str] = []
    files, volume = (config.membrane, config.nucleus), None
    if config.ri is not None:
        volume = read_volume(config.ri, config.spacing_um, config.spacing_from, config.series)
        notes += volume.notes
        orientation = volume.orientation
        label_volumes = [open_labels(path, config.series) for path in files]
        owner, frames, shape, spacing = Path(config.ri).name, volume.shape[0], volume.shape[2:], volume.spacing_um
    else:
        orientation = _owner(*(open_labels(path, config.series) for path in files)).orientation
        opening = Opening(config.series, orientation, config.mask_axes)
        label_volumes = [opening.opened(path) for path in files]
        owner, frames, shape = _shape(*label_volumes)
        # voxel size of the first mask that states one
        sized = next((mask for mask in label_volumes if mask.stored_spacing.readings), label_volumes[0])
        size = resolve_spacing(sized.path, sized.stored_spacing, config.spacing_um, config.spacing_from)
        notes += size.notes
        spacing = size.spacing_um
    grid = Grid(
        owner, frames, shape, spacing, config.spacing_from == "file", series=config.series, orientation=orientation,
        mask_axes=config.mask_axes,
    )  # fmt: skip
    names = ("membrane", "nucleus")
    labels = dict.fromkeys(names, config.labels) if isinstance(config.labels, str) else config.labels
    membrane, nucleus = (
        label_sources(dict.fromkeys(range(frames), mask.path), name, grid, notes, labels=str(labels.get(name, "auto")))
        for mask, name in zip(label_volumes, names, strict=True)
    )
    print_notes(dict.fromkeys(notes))
    return Inputs(membrane, nucleus, volume, spacing)


def _owner(membrane: LabelVolume, nucleus: LabelVolume) -> LabelVolume:
    """Return the mask that defines the grid: the one with several slices along z."""
    return membrane if membrane.shape[2] > 1 or nucleus.shape[2] == 1 else nucleus


def _shape(membrane: LabelVolume, nucleus: LabelVolume) -> tuple[str, int, tuple[int, int, int]]:
    """Return the name of the file that defines the grid, its number of frames and its shape (z, y, x)."""
    label_volume = _owner(membrane, nucleus)
    t, c, z, y, x = label_volume.shape
    if z == 1 and (t > 1 or (c > 4 and not label_volume.colour)):
        axis = "frames" if t > 1 else "channels"
        raise InputError(
            f"{label_volume.path}: holds {label_volume.holds()}: are the slices of one volume stored as {axis}? save "
            "them along z, or give the tomogram (ri)"
        )
    return label_volume.path.name, t, (z, y, x)


def _rows(
    cells: np.ndarray, nucleus: np.ndarray, membrane: np.ndarray, ri: np.ndarray | None,
    spacing: tuple[float, float, float], t: int, volume: Volume | None, seeds: LabelSource,
) -> list[dict[str, object]]:  # fmt: skip
    """Return the measurements of a frame; columns that need a tomogram are left out without one."""
    medium = getattr(volume, "medium_ri", None) or PAPER_MEDIUM_RI
    image = np.full(cells.shape, math.nan, np.float32) if ri is None else ri
    measured = measure_frame(image, cells, {"membrane": membrane, "nucleus": nucleus}, spacing, Rules(medium))
    flags = {
        row["cell"]: as_text(frame_flags(cell_state({"frame": t, **row}), QualityRules()))
        for row in measured.compartments
        if row["compartment"] == WHOLE
    }
    left_out = columns_of_ri() if ri is None else set()
    rows: list[dict[str, object]] = []
    for row in measured.compartments:
        values = {name: value for name, value in row.items() if name not in left_out}
        contrast = {name: values.pop(name) for name in ("contrast_ri",) if name in values}
        # cell k grew from nucleus k
        original = {"original_label": seeds.reading.original(row["cell"]) if row["cell"] > 0 else None}
        rows.append(
            {"frame": t, **values, **(original if seeds.instances else {}), **contrast,
             "flags": flags.get(row["cell"], "")}
        )  # fmt: skip
    return rows
