"""What the test leaves in the run folder: tables, and the best, median and worst case to look at."""

from __future__ import annotations

import csv
import io
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
from training.rundir import RunFolder, write_text


def write_test_tables(scores: TestScores, folder: RunFolder, seen: Sequence[str]) -> None:
    """`test_cases.csv`, `test_groups.csv` and `test_windows.csv`; `seen` says of every case if weights know it."""
    dice = [f"dice_{name}" for name in scores.organelles]
    cases = [
        {
            "case": c.name, "group": c.cell_line, **{f"dice_{k}": v for k, v in c.dice.items()}, "dice_mean": c.mean,
            COLUMN: seen[c.index],
        }
        for c in scores.cases
    ]  # fmt: skip
    write_table(folder.tables / "test_cases.csv", ["case", "group", *dice, "dice_mean", COLUMN], cases)
    groups = [
        {"group": line, "n": len(found), **mean_dice(scores.organelles, found)}
        for line, found in scores.groups().items()
    ]
    write_table(folder.tables / "test_groups.csv", ["group", "n", *dice, "dice_mean"], groups)
    windows = [
        {"organelle": w.organelle, "ri_low": w.ri_low, "ri_high": w.ri_high, "dice": w.dice}
        for w in scores.fit_windows().values()
    ]
    write_table(folder.tables / "test_windows.csv", ["organelle", "ri_low", "ri_high", "dice"], windows)


def write_table(path: Path, columns: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV, whole or not at all; numbers with five digits, nan as a blank."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.5g}"
    return value


def draw_examples(module: OrganelleModule, scores: TestScores, cases: list[Case], folder: RunFolder) -> None:
    """Predict the best, the median and the worst case once more and draw them; the median in 3D, too."""
    infer = module.inferer()
    for label, score in scores.examples().items():
        raw = cases[score.index].load()
        pred_KZYX = infer(raw.ri_ZYX, raw.spacing_um) >= module.threshold
        truth = {n: raw.masks_KZYX[k].astype(bool) for k, n in enumerate(scores.organelles) if raw.labelled_K[k]}
        pred = {n: np.asarray(pred_KZYX[k]) for k, n in enumerate(scores.organelles)}
        title = f"{label}: {score.name} (mean Dice {score.mean:.2f})"
        overlay_figure(folder.figures / f"test_{label}.png", raw.ri_ZYX, truth, pred, raw.spacing_um, title)
        if label == "median" or len(scores.cases) == 1:
            write_glb(folder.figures / f"test_{label}.glb", pred, raw.spacing_um)
