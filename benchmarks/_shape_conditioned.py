"""Errors of shapes when the network is conditioned on true traits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from benchmarks._common import Table
from benchmarks._shape_runs import outer_runs
from benchmarks._shape_train import config_of, fold_cells
from cytovox.diffusion.traits import measure_traits
from cytovox.metrics.shapes import ERRORS, ShapeErrors, score_rows, shape_errors
from cytovox.models.shape import condition
from cytovox.preprocess.shape_fields import signed_distance
from cytovox.preprocess.square_symmetries import VIEWS, unview, view
from datamodules.shape.cases import ShapeCell
from datamodules.shape.dataset import shape_sample
from experiments.build import build_from_weights
from experiments.weights import read_weights
from lightning_modules.shape import ShapeModule
from training.rundir import RunFolder


def conditioned_table(cells: Sequence[ShapeCell], data: Path, work: Path) -> tuple[Table, dict[str, Any]]:
    """Mean errors over the cells of all folds when the network is conditioned on no traits, or on some true ones.

    Parameters
    ----------
    cells : sequence of ShapeCell
        All of them.
    data : Path
        Their folder.
    work : Path
        Where the trainings are.
    """
    found: dict[str, list[ShapeErrors]] = {}
    groups: list[str] = []
    for run in outer_runs():
        config = config_of("traits", data, 1)
        weights = read_weights(config, [RunFolder(work / "runs" / "traits" / run).last_checkpoint])
        module = build_from_weights(config, weights).eval()
        assert isinstance(module, ShapeModule)
        for cell in track(fold_cells(cells, run)[1], f"true traits, {run}"):
            groups.append(cell.group)
            for what, errors in _answers(module, cell).items():
                found.setdefault(what, []).append(errors)
    rows = score_rows(found, strata=groups)
    table = Table("The same network with true traits", ["traits", "1 - IoU", "volume", "surface", "roughness"])
    for row in rows:
        shown = [f"{row[e]:.3f} [{row[f'{e}_low']:.3f}, {row[f'{e}_high']:.3f}]" for e in ERRORS]
        table.rows.append([str(row["model"]), *shown])
    return table, {str(row["model"]): row for row in rows}


@torch.no_grad()
def _answers(module: ShapeModule, cell: ShapeCell) -> dict[str, ShapeErrors]:
    """Errors of the mean over the eight views, by what is given."""
    traits, size = module.traits, module.field.size
    assert traits is not None
    assert cell.obj_ZYX is not None
    sample = shape_sample(cell, 0)
    condition_1CYX = condition(sample["image"][None], sample["mask"][None])
    distance_1ZYX = torch.from_numpy(signed_distance(cell.obj_ZYX).astype(np.float32))[None]
    field_BCZYX = torch.cat([view(module.field.encode(distance_1ZYX), turn) for turn in range(VIEWS)])
    conditioned_BCYX = torch.cat([view(condition_1CYX, turn) for turn in range(VIEWS)])

    def answer(condition_BCYX: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return module.parts.sampler(module.denoiser, (1, size, size, size), condition_BCYX, generator)

    nothing = answer(traits.without_traits(conditioned_BCYX))
    own, true = measure_traits(nothing), measure_traits(field_BCZYX)
    answers = {
        "nothing": nothing,
        "the true thickness": answer(traits.with_traits(conditioned_BCYX, own._replace(thickness=true.thickness))),
        "the true tilt and height": answer(
            traits.with_traits(conditioned_BCYX, true._replace(thickness=own.thickness))
        ),
        "all of them": answer(traits.with_traits(conditioned_BCYX, true)),
    }
    errors = {}
    for what, fields_BCZYX in answers.items():
        mean = torch.stack([unview(one, turn) for turn, one in enumerate(fields_BCZYX)]).mean(0, keepdim=True)
        errors[what] = shape_errors(module.field.decode(mean, sample["mask"] > 0.5)[0].numpy(), cell.obj_ZYX)
    return errors
