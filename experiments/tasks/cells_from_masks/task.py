"""Any masks of membrane and nucleus in, labels of cells out; no refractive index is needed."""

from __future__ import annotations

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
from cytovox.io.spacing import Resolved, resolve_spacing
from cytovox.measurement.measurements import Rules, measure_frame
from cytovox.measurement.refractive import PAPER_MEDIUM_RI
from cytovox.measurement.registry import columns_of_ri
from cytovox.organelles import WHOLE
from cytovox.plots.cells import cells_figure
from cytovox.quality.control import cell_state, frame_flags
from cytovox.quality.rules import QualityRules, as_text
from cytovox.segmentation.checks import nuclei_outside_note
from cytovox.segmentation.field import CellField, CellFinder
from cytovox.segmentation.holes import fill_cells
from cytovox.segmentation.watershed import unassigned
from datamodules.cases import checked_ri
from datamodules.label_source import Grid, LabelSource, label_sources
from experiments.preflight import require_room
from experiments.progress import Bars
from experiments.schema import to_yaml
from experiments.session import RunRequest, Work, now
from experiments.tasks.analyze.outputs import write_cells_scene
from experiments.tasks.analyze.predictors import cell_finder, cell_weights
from experiments.tasks.analyze.results import write_table
from experiments.tasks.base import Task
from experiments.tasks.cells_from_masks.config import CellsFromMasksConfig, cells_from_masks_errors
from experiments.tasks.cells_from_masks.report import cells_from_masks_report
from training.environment import describe_environment
from training.rundir import RunFolder, write_json, write_text
from training.signals import StopSignals

#: Files that are written to `out`.
RESULTS = ("cells.ome.tif", "cells.csv", "cells.png")


@dataclass(frozen=True)
class Inputs:
    """Everything that is read, opened."""

    membrane: dict[int, LabelSource]
    """By frame."""
    nucleus: dict[int, LabelSource]
    volume: Volume | None
    spacing_um: tuple[float, float, float]
    notes: list[str]


class CellsFromMasksTask(Task):
    """See `Task`."""

    name = "cells_from_masks"
    config = CellsFromMasksConfig
    paths = (("membrane",), ("nucleus",), ("ri",), ("out",), ("cell_weights",))

    def errors(self, config: CellsFromMasksConfig) -> list[str]:
        """See `Task`."""
        return cells_from_masks_errors(config)

    def report(self, folder: Path) -> dict[str, Any]:
        """See `Task`."""
        return cells_from_masks_report(folder)

    def check(self, request: RunRequest) -> None:
        """See `Task`."""
        config = request.config
        cell_weights(config.method, config.cell_weights)
        _check(config, _open(config))

    def begin(self, request: RunRequest, signals: StopSignals) -> CellsFromMasksRun:
        """See `Task`."""
        config = request.config
        finder = cell_finder(config.method, cell_weights(config.method, config.cell_weights), config.seeds.rule())
        inputs, out = _open(config), Path(config.out)
        require_room(out, "out")
        Manifest(out, self.name).require_free([out / name for name in RESULTS])
        require_room(Path(config.runs_dir) / config.name, "runs_dir")
        folder = request.folder or RunFolder.create(Path(config.runs_dir), config.name)
        return CellsFromMasksRun(request, folder, self.resolved(config), finder, inputs)


class CellsFromMasksRun(Work):
    """Labels of the cells of every frame, written to `out`."""

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

    def report(self, folder: Path) -> dict[str, Any]:
        """See `Work`."""
        return cells_from_masks_report(folder)

    def run_stage(self, stage: str) -> None:
        """Find the cells of every frame and measure them."""
        inputs, out = self.inputs, Path(self.config.out)
        written = Manifest(out, CellsFromMasksTask.name)
        rows: list[dict[str, object]] = []
        frames, unassigned_um3 = [], 0.0
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
        for name in RESULTS:
            written.add(out / name)
        count = int((table["compartment"] == WHOLE).sum()) if len(table) else 0
        self.folder.update_metrics({"cells": count, "frames": len(frames), "unassigned_um3": unassigned_um3})
        self._printed = [
            f"cells: {count} in {len(frames)} frames; {unassigned_um3:.1f} um3 of the membrane mask are in none",
            f"labels: {out / 'cells.ome.tif'}",
            f"table: {out / 'cells.csv'}",
        ]

    def _frame(self, t: int) -> tuple[np.ndarray, list[dict[str, object]]]:
        """Return the cells of a frame and its rows of the table."""
        inputs, volume = self.inputs, self.inputs.volume
        inside, nuclei = inputs.membrane[t].mask(), inputs.nucleus[t].mask()
        ri = checked_ri(volume.frame(t), f"{self.config.ri}, frame {t}") if volume is not None else None
        seeds = inputs.nucleus[t].objects() if inputs.nucleus[t].instances else None
        if warning := nuclei_outside_note(nuclei, inside):
            print(f"note: frame {t}: {warning}", file=sys.stderr)
        found = self.finder(CellField(inside, nuclei, inputs.spacing_um, ri, seeds))
        if not (found.seeds_ZYX > 0).any():
            print(f"note: frame {t}: no nucleus, so no cells were separated", file=sys.stderr)
        cells_ZYX = fill_cells(found.cells_ZYX)
        if added := int(np.count_nonzero(cells_ZYX != found.cells_ZYX)):
            print(f"note: frame {t}: {added} voxels in holes of cells are filled", file=sys.stderr)
        return cells_ZYX, _rows(cells_ZYX, nuclei, inside, ri, inputs.spacing_um, t, volume, inputs.nucleus[t])

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


def _open(config: CellsFromMasksConfig) -> Inputs:
    """Open the inputs, and print how they are read."""
    inputs = open_inputs(config)
    for note in dict.fromkeys(inputs.notes):
        print(f"note: {note}", file=sys.stderr)
    return inputs


def open_inputs(config: CellsFromMasksConfig) -> Inputs:
    """Open the masks and the tomogram, and decide how they are read.

    Raises
    ------
    InputError
        Files that cannot be read, or do not fit each other.
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
        size = _spacing(config, label_volumes)
        notes += size.notes
        spacing = size.spacing_um
    grid = Grid(
        owner, frames, shape, spacing, config.spacing_from == "file", series=config.series, orientation=orientation,
        mask_axes=config.mask_axes,
    )  # fmt: skip
    found = [
        label_sources(
            dict.fromkeys(range(frames), label_volume.path), name, grid, notes, labels=_labels(config, name)
        )
        for label_volume, name in zip(label_volumes, ("membrane", "nucleus"), strict=True)
    ]  # fmt: skip
    return Inputs(found[0], found[1], volume, spacing, notes)


def _labels(config: CellsFromMasksConfig, name: str) -> str:
    return str(config.labels) if isinstance(config.labels, str) else str(config.labels.get(name, "auto"))


def _owner(membrane: LabelVolume, nucleus: LabelVolume) -> LabelVolume:
    """The mask whose grid it is: the one whose slices lie along z."""
    return membrane if membrane.shape[2] > 1 or nucleus.shape[2] == 1 else nucleus


def _shape(membrane: LabelVolume, nucleus: LabelVolume) -> tuple[str, int, tuple[int, int, int]]:
    """Whose grid it is, its frames and its shape."""
    label_volume = _owner(membrane, nucleus)
    t, c, z, y, x = label_volume.shape
    if z == 1 and (t > 1 or (c > 4 and not label_volume.colour)):
        axis = "frames" if t > 1 else "channels"
        raise InputError(
            f"{label_volume.path}: holds {label_volume.holds()}: are the slices of one volume stored as {axis}? save "
            "them along z, or "
            "give the tomogram (ri)"
        )
    return label_volume.path.name, t, (z, y, x)


def _spacing(config: CellsFromMasksConfig, label_volumes: list[LabelVolume]) -> Resolved:
    """Voxel size of the first mask that states one."""
    label_volume = next(
        (label_volume for label_volume in label_volumes if label_volume.stored_spacing.readings), label_volumes[0]
    )
    return resolve_spacing(label_volume.path, label_volume.stored_spacing, config.spacing_um, config.spacing_from)


def _check(config: CellsFromMasksConfig, inputs: Inputs) -> None:
    """Read what a run would read, and print how."""
    parts = 0
    for t, nucleus in inputs.nucleus.items():
        parts += len(np.unique(nucleus.objects())) - 1
        inputs.membrane[t].mask()
        if inputs.volume is not None:
            checked_ri(inputs.volume.frame(t), f"{config.ri}, frame {t}")
    z, y, x = inputs.spacing_um
    print("the config is valid; it would find cells in")
    kind = "labels" if inputs.nucleus[0].instances else "connected parts"
    print(
        f"  {config.membrane} (membrane) and {config.nucleus} (nucleus, {parts} {kind}): {len(inputs.membrane)} "
        f"frame{'s' * (len(inputs.membrane) != 1)}, {z:.4g}, {y:.4g}, {x:.4g} um (z, y, x)", flush=True,
    )  # fmt: skip


def _rows(
    cells: np.ndarray, nucleus: np.ndarray, membrane: np.ndarray, ri: np.ndarray | None,
    spacing: tuple[float, float, float], t: int, volume: Volume | None, seeds: LabelSource,
) -> list[dict[str, object]]:  # fmt: skip
    """Measurements; what only a tomogram tells is left out without one."""
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
