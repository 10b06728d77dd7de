"""Errors of predicted 3D shapes (the four errors of SHAPR's evaluation), and tables of them.

There are two definitions of the surface: the number of boundary voxels and the area of a mesh. SHAPR's evaluation (the
script of its PyTorch repository that also computes this roughness) counts boundary voxels, which reproduces the
published scores of its baselines. On 101 real red blood cells the cylinder's surface error is 0.39 by voxels and 0.28
by mesh.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np
import scipy.ndimage as ndi
from skimage.measure import marching_cubes, mesh_surface_area

from cytovox.metrics.overlap import check_same_shape
from cytovox.statistics.bootstrap import interval, mean_of

#: Standard deviation, in voxels, of the Gaussian filter that defines roughness.
ROUGHNESS_SIGMA = 2.0

Surface = Literal["voxels", "mesh"]
Row = dict[str, str | int | float]


@dataclass(frozen=True)
class ShapeErrors:
    """Errors of one predicted shape; all 0 for a perfect and 1 for an empty prediction."""

    iou_error: float
    """1 - intersection over union, 0 to 1."""
    volume_error: float
    """|Vp - Vt| / Vt; above 1 if the predicted volume is more than twice the true one."""
    surface_error: float
    """|Ap - At| / At."""
    roughness_error: float
    """|Rp - Rt| / Rt; 0 if both are 0, nan if only Rt is."""


ERRORS = tuple(field.name for field in fields(ShapeErrors))


@dataclass(frozen=True)
class SampleErrors:
    """Errors of several predictions for one cell."""

    single: ShapeErrors
    """Mean of each error over all samples: the expected errors of one sample."""
    mean_shape: ShapeErrors
    """Errors of the majority of the samples; see `mean_shape`."""
    best: ShapeErrors
    """Errors of that one of the first k samples with the lowest 1 - IoU."""


def shape_errors(pred_ZYX: np.ndarray, truth_ZYX: np.ndarray, *, surface: Surface = "voxels") -> ShapeErrors:
    """Return the four errors of one predicted object.

    Parameters
    ----------
    pred_ZYX, truth_ZYX : bool array, (Z, Y, X)
        True inside. Voxels are assumed to be cubes.
    surface : {"voxels", "mesh"}
        Measure of the surface: `boundary_voxels`, as in the published scores, or `mesh_area`.

    Returns
    -------
    ShapeErrors
        All 1 if the prediction is empty.

    Raises
    ------
    ValueError
        The truth is empty, or the two differ in shape.

    References
    ----------
    Waibel et al. 2022, SHAPR, iScience 25:105298; Waibel et al. 2022, DISPR, arXiv 2208.14125, table 1.
    """
    return errors_of_each([pred_ZYX], truth_ZYX, surface=surface)[0]


def errors_of_each(
    preds: Sequence[np.ndarray] | np.ndarray, truth_ZYX: np.ndarray, *, surface: Surface = "voxels"
) -> list[ShapeErrors]:
    """Return the `shape_errors` of several predictions of one object, which is measured once."""
    truth_ZYX = np.asarray(truth_ZYX) != 0
    if not truth_ZYX.any():
        raise ValueError("errors relative to an empty object are undefined: leave the cell out")
    truth = _measure(truth_ZYX, surface)
    found = []
    for pred_ZYX in (np.asarray(pred) != 0 for pred in preds):
        check_same_shape("objects", pred_ZYX, truth_ZYX)
        iou = np.count_nonzero(pred_ZYX & truth_ZYX) / np.count_nonzero(pred_ZYX | truth_ZYX)
        relative = (abs(_ratio(p, t) - 1) for p, t in zip(_measure(pred_ZYX, surface), truth, strict=True))
        found.append(ShapeErrors(1 - iou, *relative))
    return found


def sample_errors(
    samples_SZYX: np.ndarray, truth_ZYX: np.ndarray, *, k: int = 5, surface: Surface = "voxels"
) -> SampleErrors:
    """Return the mean errors of single samples, those of the mean shape, and those of the best of k samples.

    Parameters
    ----------
    samples_SZYX : bool array, (S, Z, Y, X)
        Independent predictions for one cell; a deterministic model has one.
    truth_ZYX : bool array, (Z, Y, X)
        The true object.
    k : int
        Number of samples from which the best is chosen. The choice uses the truth, so that these errors are not those
        of a prediction for an unknown cell.
    surface : {"voxels", "mesh"}
        See `shape_errors`.

    Raises
    ------
    ValueError
        Fewer than `k` samples, an empty truth, or arrays that differ in shape.
    """
    if len(samples_SZYX) < max(k, 1):
        raise ValueError(
            f"best of {k} from {len(samples_SZYX)} samples: draw at least {max(k, 1)}, or choose a lower k"
        )
    *each, mean = errors_of_each([*samples_SZYX, mean_shape(samples_SZYX)], truth_ZYX, surface=surface)
    return SampleErrors(
        single=ShapeErrors(*(float(np.mean([getattr(errors, name) for errors in each])) for name in ERRORS)),
        mean_shape=mean,
        best=min(each[:k], key=lambda errors: errors.iou_error),
    )


def mean_shape(samples_SZYX: np.ndarray) -> np.ndarray:
    """Return where the mean of masks or probabilities (S, Z, Y, X) over the samples exceeds 0.5, bool (Z, Y, X)."""
    return np.asarray(samples_SZYX, dtype=np.float32).mean(axis=0) > 0.5


def boundary_voxels(obj_ZYX: np.ndarray) -> int:
    """Return the number of object voxels with background among their 26 neighbours, or at the volume's border."""
    inside = np.asarray(obj_ZYX) != 0
    interior = ndi.minimum_filter(inside.astype(np.uint8), size=3, mode="constant", cval=0)
    return int(np.count_nonzero(inside)) - int(np.count_nonzero(interior))


def mesh_area(obj_ZYX: np.ndarray) -> float:
    """Return the surface area by marching cubes, in squared voxels; 0 if the object is empty.

    The mesh is closed at the volume's border. The area of a ball is about 8 % too large, because of the steps between
    voxels.
    """
    inside = np.asarray(obj_ZYX) != 0
    if not inside.any():
        return 0.0
    vertices, faces, _, _ = marching_cubes(np.pad(inside, 1).astype(np.float32), level=0.5)
    return float(mesh_surface_area(vertices, faces))


def roughness(obj_ZYX: np.ndarray) -> int:
    """Return the number of voxels that smoothing changes: sum of |(gaussian(obj, sigma 2) > 0.5) - obj|."""
    inside = np.asarray(obj_ZYX) != 0
    if not (boxes := ndi.find_objects(inside.astype(np.uint8))):
        return 0
    margin = math.ceil(4 * ROUGHNESS_SIGMA)  # radius of the truncated filter
    inside = inside[tuple(slice(max(part.start - margin, 0), part.stop + margin) for part in boxes[0])]
    smooth = ndi.gaussian_filter(inside.astype(np.float32), ROUGHNESS_SIGMA) > 0.5
    return int(np.count_nonzero(smooth != inside))


def score_rows(
    errors: Mapping[str, Sequence[ShapeErrors]],
    *,
    strata: Sequence[object] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Row]:
    """Return the mean errors of every model, with bootstrap intervals over cells.

    Parameters
    ----------
    errors : dict of model -> one `ShapeErrors` per cell
        The cells are in the same order for all models, so that the resamples are the same.
    strata : labels, optional
        One per cell. Cells are drawn within their stratum.
    resamples, level, seed
        See `cytovox.statistics.bootstrap.interval`.

    Returns
    -------
    list of dict
        One per model: `model`, `cells`, and for every error its mean `<error>`, `<error>_low` and `<error>_high`.
        Errors that are nan are left out of the mean.
    """
    rows: list[Row] = []
    for model, cells in errors.items():
        row: Row = {"model": model, "cells": len(cells)}
        for name in ERRORS:
            mean = mean_of([getattr(cell, name) for cell in cells])
            found = interval(mean, len(cells), resamples=resamples, level=level, seed=seed, strata=strata)
            row |= found.columns(name)
        rows.append(row)
    return rows


def change_rows(
    errors: Mapping[str, Sequence[ShapeErrors]],
    reference: str,
    *,
    strata: Sequence[object] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Row]:
    """Return the relative change of every model's mean errors from those of a reference model, paired over cells.

    The change is the mean of the model divided by that of the reference, minus 1, both over the same resampled cells.
    Parameters are those of `score_rows`.

    Returns
    -------
    list of dict
        One per model other than the reference: `model`, `reference`, `cells` and the columns of `score_rows`.

    Raises
    ------
    ValueError
        The numbers of cells of a model and the reference differ.
    """
    base = errors[reference]
    rows: list[Row] = []
    for model, cells in errors.items():
        if len(cells) != len(base):
            raise ValueError(f"{model} has {len(cells)} cells, {reference} {len(base)}: expected the same cells")
        if model == reference:
            continue
        row: Row = {"model": model, "reference": reference, "cells": len(cells)}
        for name in ERRORS:
            ours, theirs = (mean_of([getattr(cell, name) for cell in group]) for group in (cells, base))
            found = interval(
                lambda drawn, a=ours, b=theirs: _ratio(a(drawn), b(drawn)) - 1,  # type: ignore[misc]
                len(cells),
                resamples=resamples,
                level=level,
                seed=seed,
                strata=strata,
            )
            row |= found.columns(name)
        rows.append(row)
    return rows


def as_metrics(errors: Sequence[ShapeErrors], prefix: str) -> dict[str, float]:
    """Return the mean errors by metric name, `<prefix>iou_error` and so on; nan values are left out of the means."""
    cells = np.arange(len(errors))
    return {prefix + name: mean_of([asdict(cell)[name] for cell in errors])(cells) for name in ERRORS}


def _measure(obj_ZYX: np.ndarray, surface: Surface) -> tuple[float, float, float]:
    """Return volume, surface and roughness, in voxels."""
    area = boundary_voxels(obj_ZYX) if surface == "voxels" else mesh_area(obj_ZYX)
    return float(np.count_nonzero(obj_ZYX)), float(area), float(roughness(obj_ZYX))


def _ratio(value: float, of: float) -> float:
    """Return value / of; 1 if both are 0, nan if only `of` is."""
    if of:
        return value / of
    return math.nan if value else 1.0
