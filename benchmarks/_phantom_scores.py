"""Scores of predicted organelles against the truth of phantoms, by what the picture shows.

The unit of the nucleus' scores is a cell: its true nuclei against the predicted nucleus mask inside the true cell. So a
nucleus that is drawn in a cell without one is counted, and a wrong outline of one cell does not blur its neighbour's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice

from benchmarks._phantom_sets import Case
from cytovox.organelles import ORGANELLES
from cytovox.shells import shells_of

#: Distance below which two surfaces agree in the normalized surface Dice, in µm.
TOLERANCE_UM = 0.4


@dataclass(frozen=True)
class MaskScores:
    """Agreement of one organelle's mask in one phantom. Each is nan where the truth is empty."""

    dice: float
    surface_dice: float
    """Normalized surface Dice at `TOLERANCE_UM` (Nikolov et al. 2018)."""
    hausdorff_um: float
    """95th percentile of the distances between surfaces, in µm; infinite where nothing is predicted."""
    volume_error: float
    """Predicted over true volume, minus 1."""


@dataclass(frozen=True)
class CellScore:
    """The nucleus of one cell."""

    phantom: str
    nuclei: int
    """True nuclei in the cell."""
    found: int
    """Predicted components inside the cell of at least a twentieth of the true nuclei's volume (of the cell's, if it
    has none)."""
    dice: float
    """Of the nucleus inside the cell; nan where the cell has none."""
    predicted_share: float
    """Predicted nucleus over the volume of the cell."""
    visibility: float
    """d' of the nucleus in the picture, the size of `cytovox.shells.Shells.contrast`; nan without a nucleus."""
    contrast: float
    """True index of the nucleus minus that of the cytoplasm; nan without a nucleus."""
    offset: float
    """Distance between the centres of nucleus and cell over the radius of a ball of the cell's volume; nan without."""


def mask_scores(truth_ZYX: np.ndarray, predicted_ZYX: np.ndarray, spacing_um: tuple[float, float, float]) -> MaskScores:
    """Compare two masks.

    Parameters
    ----------
    truth_ZYX, predicted_ZYX : bool array, (Z, Y, X)
    spacing_um : three floats
        Voxel size z, y, x.
    """
    true, predicted = int(truth_ZYX.sum()), int(predicted_ZYX.sum())
    if not true:
        return MaskScores(math.nan, math.nan, math.nan, math.nan)
    if not predicted:
        return MaskScores(0.0, 0.0, math.inf, -1.0)
    dice = 2 * int((truth_ZYX & predicted_ZYX).sum()) / (true + predicted)
    box = ndi.find_objects((truth_ZYX | predicted_ZYX).astype(np.uint8))[0]
    found, wanted = (torch.from_numpy(np.pad(mask[box], 1))[None, None] for mask in (predicted_ZYX, truth_ZYX))
    spacing = list(spacing_um)
    surface = compute_surface_dice(found, wanted, [TOLERANCE_UM], include_background=True, spacing=spacing)
    distance = compute_hausdorff_distance(found, wanted, include_background=True, percentile=95, spacing=spacing)
    return MaskScores(dice, float(surface), float(distance), predicted / true - 1)


def organelle_scores(case: Case, masks: Mapping[str, np.ndarray]) -> dict[str, MaskScores]:
    """Return the scores of the four organelles of a phantom."""
    truths = (case.cells_ZYX > 0, case.nuclei_ZYX > 0, case.nucleolus_ZYX, case.lipid_ZYX)
    return {
        name: mask_scores(truth, np.asarray(masks[name], bool), case.spacing_um)
        for name, truth in zip(ORGANELLES, truths, strict=True)
    }


def cell_scores(case: Case, nucleus_ZYX: np.ndarray) -> list[CellScore]:
    """Return the scores of the predicted nuclei of every cell of a phantom.

    Parameters
    ----------
    case : Case
        Truth.
    nucleus_ZYX : bool array, (Z, Y, X)
        Predicted nuclei.
    """
    found = []
    spacing = np.array(case.spacing_um)
    for label, box in enumerate(ndi.find_objects(case.cells_ZYX), start=1):
        if box is None:
            continue
        cell = case.cells_ZYX[box] == label
        nuclei = np.where(cell, case.nuclei_ZYX[box], 0)
        truth, predicted = nuclei > 0, cell & nucleus_ZYX[box]
        numbers = [n for n in np.unique(nuclei) if n]
        dice = seen = contrast = offset = math.nan
        if numbers:
            dice = 2 * int((truth & predicted).sum()) / int(truth.sum() + predicted.sum())
            organelles = case.nucleolus_ZYX[box] | case.lipid_ZYX[box]
            plasm = cell & ~truth & ~organelles
            seen = abs(shells_of(case.ri_ZYX[box], truth & ~organelles, plasm, case.spacing_um).contrast)
            contrast = float(np.mean([case.contrast[int(n)] for n in numbers]))
            apart = (np.array(ndi.center_of_mass(truth)) - ndi.center_of_mass(cell)) * spacing
            radius = math.cbrt(3 * cell.sum() * spacing.prod() / (4 * math.pi))
            offset = float(np.linalg.norm(apart)) / radius
        pieces, _ = ndi.label(predicted)
        least = 0.05 * (truth.sum() if numbers else cell.sum())
        components = int((np.bincount(pieces.ravel())[1:] >= max(1, least)).sum())
        share = float(predicted.sum() / cell.sum())
        found.append(CellScore(case.name, len(numbers), components, dice, share, seen, contrast, offset))
    return found
