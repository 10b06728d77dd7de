"""Cells from masks, and touching nuclei from their union, on data that our simulator did not make."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import cytovox
from benchmarks._common import Table
from benchmarks._phantom_sets import Case
from cytovox.io import read_mask
from cytovox.metrics.cells import CellScores, score_cells, summary
from cytovox.metrics.matching import average_precision, overlaps
from cytovox.segmentation.seeds import SPLIT_DEPTH_UM, nucleus_seeds

METHODS = ("watershed", "offsets", "network")


def cells_table(cases: Sequence[Case]) -> Table:
    """Return scores of cells from true masks of membrane and nucleus in fields of several cells.

    Cells without a nucleus have no seed and are left out of the scores.
    """
    table = Table(
        f"cells from true masks, {len(cases)} phantoms of two to five cells, those with a nucleus",
        ["method", "Dice, unmatched as 0", "AP 0.5", "AP 0.7"],
    )
    scores: dict[str, list[CellScores]] = {}
    for case in cases:
        volume = cytovox.Volume(case.ri_ZYX, spacing_um=case.spacing_um)
        masks = {"membrane": case.cells_ZYX > 0, "nucleus": case.nuclei_ZYX > 0}
        without = set(range(1, int(case.cells_ZYX.max()) + 1)) - set(case.owner.values())
        if not case.owner:
            continue
        for method in METHODS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", cytovox.QualityWarning)
                found = cytovox.find_cells(masks, method, volume=volume)
            scores.setdefault(method, []).append(score_cells(case.cells_ZYX.astype(np.int32), found, without))
    for method, found_scores in scores.items():
        means = summary(found_scores)
        shown = [f"{means[k].value:.3f} [{means[k].low:.3f}, {means[k].high:.3f}]" for k in ("dice", "ap_50", "ap_70")]
        table.rows.append([method, *shown])
    return table


def nuclei_table(data: Path) -> Table:
    """Return counts and precision of nuclei that are separated from the union of their masks, real images.

    Parameters
    ----------
    data : Path
        Folder with `embryo/*_label.tif` (BBBC050) and `stardist/`.
    """
    table = Table(
        "touching nuclei from the union of their masks, real images",
        ["images", "rule", "true", "found", "count error", "AP 0.5"],
    )
    sets = {
        "embryo": sorted((data / "embryo").glob("*_label.tif")),
        "stardist": sorted((data / "stardist").glob("*label*.tif*")) or sorted((data / "stardist").glob("*mask*.tif*")),
    }
    for name, paths in sets.items():
        for rule, depth in (("components", None), ("split at necks", SPLIT_DEPTH_UM)):
            true = found = 0
            precisions = []
            for path in paths:
                labels, spacing = _labels(path, name)
                seeds = nucleus_seeds(labels > 0, spacing, min_volume_um3=0.0, split_depth_um=depth)
                true += len(np.unique(labels)) - 1
                found += len(np.unique(seeds)) - 1
                precisions.append(average_precision(overlaps(labels, seeds), [0.5])[0.5])
            if paths:
                error, mean = f"{found / true - 1:+.3f}", f"{np.mean(precisions):.3f}"
                table.rows.append([f"{name}, {len(paths)}", rule, str(true), str(found), error, mean])
    return table


def _labels(path: Path, name: str) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Read the labels of an image, and its voxel size: in the embryos z is 2.18 times y and x (BBBC050)."""
    mask = read_mask(path)
    spacing = mask.spacing_um or ((1.74, 0.8, 0.8) if name == "embryo" else (1.0, 1.0, 1.0))
    return mask.labels_ZYX.astype(np.int32), spacing
