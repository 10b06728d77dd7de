"""Any masks of membrane and nucleus in, labels of cells out; no refractive index is needed."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cytovox.errors import InputError
from cytovox.io import LabelVolume, Volume, open_labels, read_volume, write_ometiff
from cytovox.io.deletion import Manifest
from cytovox.io.label_layout import Opening
from cytovox.io.spacing import Resolved, resolve_spacing
from cytovox.measure.cell_contrast import cell_contrasts
from cytovox.measure.measurements import WHOLE, Compartment, Rules, measure_frame
from cytovox.measure.refractive import PAPER_MEDIUM_RI
from cytovox.plots.cells import cells_figure
from cytovox.quality.control import CellState, frame_flags
from cytovox.quality.rules import QualityRules, as_text
from cytovox.segmentation.field import CellField
from cytovox.segmentation.holes import fill_cells
from cytovox.segmentation.watershed import unassigned
from cytovox.tracking.tracking import Detection
from datamodules.cases import checked_ri
from datamodules.label_source import Grid, LabelSource, label_sources
from experiments.preflight import require_room
from experiments.tasks.analyze.config import CellsFromMasksConfig
from experiments.tasks.analyze.outside import outside_note
from experiments.tasks.analyze.predictors import cell_finder, cell_weights
from experiments.tasks.analyze.results import write_table

#: Columns that only a tomogram can fill.
_OF_RI = ("mean_ri", "sd_ri", "concentration_g_per_ml", "dry_mass_pg")


@dataclass(frozen=True)
class Inputs:
    """Everything that is read, opened."""

    membrane: dict[int, LabelSource]
    """By frame."""
    nucleus: dict[int, LabelSource]
    volume: Volume | None
    spacing_um: tuple[float, float, float]
    notes: list[str]


def cells_from_masks(config: CellsFromMasksConfig, check: bool = False) -> int:
    """Label the cells of every frame; see the config.

    Parameters
    ----------
    config : CellsFromMasksConfig
    check : bool
        Only open and read everything, and say how it is read; nothing is written.

    Raises
    ------
    InputError
        Files that cannot be read, or do not fit each other.
    """
    weights = cell_weights(config.method, config.cell_weights)
    inputs = open_inputs(config)
    for note in dict.fromkeys(inputs.notes):
        print(f"note: {note}", file=sys.stderr)
    if check:
        return _check(config, inputs)
    finder, out = cell_finder(config.method, weights, config.seeds.rule()), Path(config.out)
    require_room(out, "out")
    written = Manifest(out, "cells_from_masks")
    results = [out / name for name in ("cells.ome.tif", "cells.csv", "cells.png")]
    written.require_free(results)
    spacing, volume = inputs.spacing_um, inputs.volume
    rows, frames, unassigned_um3 = [], [], 0.0
    for t in inputs.membrane:
        inside, nuclei = inputs.membrane[t].mask(), inputs.nucleus[t].mask()
        ri = checked_ri(volume.frame(t), f"{config.ri}, frame {t}") if volume is not None else None
        seeds = inputs.nucleus[t].objects() if inputs.nucleus[t].instances else None
        if said := outside_note(nuclei, inside):
            print(f"note: frame {t}: {said}", file=sys.stderr)
        found = finder(CellField(inside, nuclei, spacing, ri, seeds))
        if not (found.seeds_ZYX > 0).any():
            print(f"note: frame {t}: no nucleus, so no cell was told from another", file=sys.stderr)
        cells_ZYX = fill_cells(found.cells_ZYX)
        if added := int(np.count_nonzero(cells_ZYX != found.cells_ZYX)):
            print(f"note: frame {t}: {added} voxels in holes of cells are filled", file=sys.stderr)
        rows += _rows(cells_ZYX, nuclei, inside, ri, spacing, t, volume, inputs.nucleus[t])
        frames.append(cells_ZYX)
        unassigned_um3 += float(unassigned(inside, cells_ZYX).sum()) * float(np.prod(spacing))
        if t == 0:
            shown = ri if ri is not None else inside.astype(np.float32)
            cells_figure(out / "cells.png", shown, cells_ZYX, spacing, Path(config.membrane).name)
    kind = np.uint16 if max(int(cells.max(initial=0)) for cells in frames) < 2**16 else np.uint32
    write_ometiff(out / "cells.ome.tif", np.stack(frames)[:, None].astype(kind), spacing, ["cells"])
    table = pd.DataFrame(rows)
    if "original_label" in table:
        table = table.astype({"original_label": "UInt64"})
    write_table(table, out / "cells.csv")
    cells = table[(table["compartment"] == WHOLE)] if len(table) else table
    print(f"cells: {len(cells)} in {len(frames)} frames; {unassigned_um3:.1f} um3 of the membrane mask are in none")
    print(f"labels: {out / 'cells.ome.tif'}")
    for path in results:
        written.add(path)
    print(f"table: {out / 'cells.csv'}", flush=True)
    return 0


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


def _check(config: CellsFromMasksConfig, inputs: Inputs) -> int:
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
    return 0


def _rows(
    cells: np.ndarray, nucleus: np.ndarray, membrane: np.ndarray, ri: np.ndarray | None,
    spacing: tuple[float, float, float], t: int, volume: Volume | None, seeds: LabelSource,
) -> list[dict[str, object]]:  # fmt: skip
    """Measurements; what only a tomogram tells is left out without one."""
    medium = getattr(volume, "medium_ri", None) or PAPER_MEDIUM_RI
    image = np.full(cells.shape, math.nan, np.float32) if ri is None else ri
    measured = measure_frame(image, cells, {"membrane": membrane, "nucleus": nucleus}, spacing, Rules(medium))
    contrasts = {} if ri is None else cell_contrasts(ri, cells, spacing)
    flags = {
        row.cell: as_text(frame_flags(_state(t, row, contrasts.get(row.cell, math.nan)), QualityRules()))
        for row in measured.compartments
        if row.compartment == WHOLE
    }
    rows: list[dict[str, object]] = []
    for row in measured.compartments:
        values = {name: value for name, value in row.as_dict().items() if ri is not None or name not in _OF_RI}
        # cell k grew from nucleus k
        original = {"original_label": seeds.reading.original(row.cell) if row.cell > 0 else None}
        contrast = {"contrast_ri": contrasts.get(row.cell) if row.compartment == WHOLE else None}
        rows.append(
            {"frame": t, **values, **(original if seeds.instances else {}), **(contrast if ri is not None else {}),
             "flags": flags.get(row.cell, "")}
        )  # fmt: skip
    return rows


def _state(t: int, row: Compartment, contrast_ri: float) -> CellState:
    detection = Detection(t, row.cell, (row.z_um, row.y_um, row.x_um), row.volume_um3)
    return CellState(detection, row.dry_mass_pg, row.border, row.nuclei, contrast_ri)
