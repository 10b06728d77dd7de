"""Any masks of membrane and nucleus in, labels of cells out; no refractive index is needed."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.cell_figures import cells_figure
from analysis.measurements import WHOLE, Compartment, Rules, measure_frame
from analysis.refractive import PAPER_MEDIUM_RI
from experiments.pipelines.config import CellsFromMasksConfig
from experiments.pipelines.predictors import cell_finder, cell_weights
from experiments.pipelines.results import write_table
from experiments.preflight import require_room
from formats import LabelFilm, open_labels, read_volume, spacing_agrees, write_ometiff
from formats.deletion import Manifest
from formats.errors import InputError
from transforms.cell_field import CellField
from transforms.cell_watershed import unclaimed
from transforms.holes import fill_cells

#: Columns that only a tomogram can fill.
_OF_RI = ("mean_ri", "sd_ri", "concentration_g_per_ml", "dry_mass_pg")


def cells_from_masks(config: CellsFromMasksConfig) -> int:
    """Label the cells of every frame; see the config.

    Raises
    ------
    InputError
        Files that cannot be read, or do not fit each other.
    """
    membrane, nucleus = open_labels(config.membrane, config.series), open_labels(config.nucleus, config.series)
    spacing = _spacing(config, membrane, nucleus)
    if membrane.shape != nucleus.shape:
        raise InputError(
            f"nucleus: {nucleus.path}: shape {nucleus.shape} (t, c, z, y, x), but {membrane.path} has "
            f"{membrane.shape}; save both on one grid"
        )
    volume = None
    if config.ri is not None:
        volume = read_volume(config.ri, config.spacing_um, config.spacing_from, config.series)
        if (volume.shape[0], *volume.shape[2:]) != (membrane.shape[0], *membrane.shape[2:]):
            raise InputError(f"ri: {config.ri}: shape {volume.shape}, but the masks have {membrane.shape}")
    finder = cell_finder(config.method, cell_weights(config.method, config.cell_weights), config.seeds.rule())
    out = Path(config.out)
    require_room(out, "out")
    written, results = (
        Manifest(out, "cells_from_masks"),
        [out / name for name in ("cells.ome.tif", "cells.csv", "cells.png")],
    )
    written.require_free(results)
    rows, frames, lone = [], [], 0.0
    for t in range(membrane.shape[0]):
        inside, nuclei = membrane.frame(t) != 0, nucleus.frame(t)
        ri = volume.frame(t) if volume is not None else None
        seeds = nuclei.astype(np.int32) if nuclei.max(initial=0) > 1 else None
        found = finder(CellField(inside, nuclei != 0, spacing, ri, seeds))
        if not (found.seeds_ZYX > 0).any():
            print(f"note: frame {t}: no nucleus, so no cell was told from another", file=sys.stderr)
        cells_ZYX = fill_cells(found.cells_ZYX)
        if added := int(np.count_nonzero(cells_ZYX != found.cells_ZYX)):
            print(f"note: frame {t}: {added} voxels in holes of cells are filled", file=sys.stderr)
        rows += _rows(cells_ZYX, nuclei != 0, inside, ri, spacing, t, volume)
        frames.append(cells_ZYX)
        lone += float(unclaimed(inside, cells_ZYX).sum()) * float(np.prod(spacing))
        if t == 0:
            shown = ri if ri is not None else inside.astype(np.float32)
            cells_figure(out / "cells.png", shown, cells_ZYX, spacing, Path(config.membrane).name)
    kind = np.uint16 if max(int(cells.max(initial=0)) for cells in frames) < 2**16 else np.uint32
    write_ometiff(out / "cells.ome.tif", np.stack(frames)[:, None].astype(kind), spacing, ["cells"])
    table = pd.DataFrame(rows)
    write_table(table, out / "cells.csv")
    cells = table[(table["compartment"] == WHOLE)] if len(table) else table
    print(f"cells: {len(cells)} in {len(frames)} frames; {lone:.1f} um3 of the membrane mask are in none")
    print(f"labels: {out / 'cells.ome.tif'}")
    for path in results:
        written.add(path)
    print(f"table: {out / 'cells.csv'}", flush=True)
    return 0


def _spacing(config: CellsFromMasksConfig, membrane: LabelFilm, nucleus: LabelFilm) -> tuple[float, float, float]:
    told = [film for film in (membrane, nucleus) if film.spacing_um is not None]
    if config.spacing_um is not None:
        z, y, x = config.spacing_um
        return z, y, x
    if not told:
        raise InputError(f"spacing_um: {membrane.path} tells no voxel size; give it as z, y, x in um")
    first = told[0].spacing_um
    assert first is not None
    for film in told[1:]:
        if film.spacing_um is not None and spacing_agrees(film.spacing_um, first) == "differs":
            raise InputError(
                f"nucleus: {film.path}: spacing {film.spacing_um} um (z, y, x), but {told[0].path} has {first}; save "
                "both with one spacing, or give spacing_um"
            )
    return first


def _rows(
    cells: np.ndarray, nucleus: np.ndarray, membrane: np.ndarray, ri: np.ndarray | None,
    spacing: tuple[float, float, float], t: int, volume: object,
) -> list[dict[str, object]]:  # fmt: skip
    """Measurements; what only a tomogram tells is left out without one."""
    medium = getattr(volume, "medium_ri", None) or PAPER_MEDIUM_RI
    image = np.full(cells.shape, math.nan, np.float32) if ri is None else ri
    measured = measure_frame(image, cells, {"membrane": membrane, "nucleus": nucleus}, spacing, Rules(medium))
    names = [field.name for field in dataclasses.fields(Compartment)]
    return [
        {"frame": t, **{name: getattr(row, name) for name in names if ri is not None or name not in _OF_RI}}
        for row in measured.compartments
    ]
