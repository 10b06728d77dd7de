"""Results of the test stage: tables, and figures of the best, median and worst case."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cytovox.plots.figures import overlay_figure
from cytovox.plots.meshes import write_glb
from datamodules.cases import Case
from lightning_modules.organelle import OrganelleModule
from lightning_modules.scoring import TestScores, mean_dice
from lightning_modules.seen import COLUMN
from training.rundir import RunFolder, write_csv


def write_test_tables(scores: TestScores, folder: RunFolder, seen: Sequence[str]) -> None:
    """Write `test_cases.csv`, `test_groups.csv` and `test_windows.csv`; with `data.labels_from` `test_channels.csv`.

    Parameters
    ----------
    scores : TestScores
        Scores of the test cases.
    folder : RunFolder
        Run folder.
    seen : sequence of str
        For each case, whether the weights were trained on it: yes, no or unknown.
    """
    dice = [f"dice_{name}" for name in scores.organelles]
    write_table(folder.tables / "test_cases.csv", ["case", "group", *dice, "dice_mean", COLUMN], [
        {
            "case": c.name, "group": c.cell_line, **{f"dice_{k}": v for k, v in c.dice.items()}, "dice_mean": c.mean,
            COLUMN: seen[c.index],
        }
        for c in scores.cases
    ])  # fmt: skip
    write_table(folder.tables / "test_groups.csv", ["group", "n", *dice, "dice_mean"], [
        {"group": line, "n": len(found), **mean_dice(scores.organelles, found)}
        for line, found in scores.by_cell_line().items()
    ])  # fmt: skip
    write_table(folder.tables / "test_windows.csv", ["organelle", "ri_low", "ri_high", "dice"], [
        {"organelle": w.organelle, "ri_low": w.ri_low, "ri_high": w.ri_high, "dice": w.dice}
        for w in scores.windows.fit().values()
    ])  # fmt: skip
    rows = [{"case": c.name, **report.row()} for c in scores.cases for report in c.channels]
    if rows:
        write_table(folder.tables / "test_channels.csv", list(rows[0]), rows)


def write_table(path: Path, columns: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV table atomically: numbers with five significant digits, NaN as an empty cell."""
    write_csv(path, columns, ({key: _plain(value) for key, value in row.items()} for row in rows))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.5g}"
    return value


def draw_examples(module: OrganelleModule, scores: TestScores, cases: list[Case], folder: RunFolder) -> None:
    """Predict the best, median and worst case again and draw overlays; of the median also the surfaces."""
    infer = module.inferer()
    for label, score in scores.examples().items():
        raw = cases[score.index].load()
        pred_KZYX = infer(raw.ri_ZYX, raw.spacing_um) >= module.threshold
        truth = {n: raw.masks_KZYX[k] == 1 for k, n in enumerate(scores.organelles) if raw.labelled_K[k]}
        pred = {n: np.asarray(pred_KZYX[k]) for k, n in enumerate(scores.organelles)}
        title = f"{label}: {score.name} (mean Dice {score.mean:.2f})"
        overlay_figure(folder.figures / f"test_{label}.png", raw.ri_ZYX, truth, pred, raw.spacing_um, title)
        if label == "median" or len(scores.cases) == 1:
            write_glb(folder.figures / f"test_{label}.glb", pred, raw.spacing_um)
