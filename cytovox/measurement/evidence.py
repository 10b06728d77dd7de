"""What the picture shows of a mask: contrast and edges at its surface, and the network's certainty.

A network draws a nucleus where nuclei usually are, also if none can be seen. The columns of this measurement state for
each organelle of each cell whether the refractive index changes where the mask ends, and how certain the network was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.ndimage as ndi

from cytovox.measurement.morphometry import ZYX
from cytovox.measurement.region import Box, Column, Frame, Measurement, Region
from cytovox.organelles import WHOLE
from cytovox.shells import SHELL_UM, Shells, shells_of

#: Distance in µm from the surface at which the index is compared along its normal.
STEP_UM = 0.6
#: Largest number of places on a surface that are compared.
MAX_PLACES = 3000
#: Share of the mean difference that a place must reach to count as an edge.
EDGE_SHARE = 0.3

#: Organelles inside of another one; all others lie in the cell.
PARENTS: Mapping[str, str] = {"nucleolus": "nucleus"}
#: Organelles whose voxels do not count for the contrast of another one, on both sides of its surface.
CONTENTS: Mapping[str, tuple[str, ...]] = {
    WHOLE: (),
    "nucleus": ("nucleolus", "lipid"),
    "nucleolus": ("lipid",),
    "lipid": (),
}

_column = partial(Column, since="0.1.0")


#: The picture does not support a mask whose contrast and whose share of edges are both below these.
NO_CONTRAST, NO_EDGES = 0.2, 0.6


@dataclass(frozen=True)
class Surface:
    """What the picture shows at the surface of a mask. All are nan where one side of the surface is empty."""

    contrast: float
    """Mean index within `SHELL_UM` inside minus that outside, over the root of the mean of both variances."""
    edge_share: float
    """Share of the surface, 0 to 1, across which the index changes in the same direction as the mean does, by at least
    `EDGE_SHARE` of the mean difference."""


def surface_evidence(ri_ZYX: np.ndarray, inside_ZYX: np.ndarray, outside_ZYX: np.ndarray, spacing_um: ZYX) -> Surface:
    """Return what the picture shows at the surface of a mask.

    Parameters
    ----------
    ri_ZYX : float array, (Z, Y, X)
        Refractive index.
    inside_ZYX : bool array, (Z, Y, X)
        Mask, without voxels that do not count.
    outside_ZYX : bool array, (Z, Y, X)
        Voxels around it that count, such as those of the cytoplasm.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    """
    shells = shells_of(ri_ZYX, inside_ZYX, outside_ZYX, spacing_um)
    if math.isnan(shells.difference):
        return Surface(math.nan, math.nan)
    return Surface(shells.contrast, _edge_share(ri_ZYX, shells, inside_ZYX, outside_ZYX, spacing_um))


def _edge_share(ri: np.ndarray, shells: Shells, inside: np.ndarray, outside: np.ndarray, spacing_um: ZYX) -> float:
    """Return the share of places on the surface at which the index changes as the mean does."""
    places = np.flatnonzero(inside & (shells.inner_um_ZYX < 1.5 * max(spacing_um)))
    places = places[:: -(-len(places) // MAX_PLACES) or 1]
    position = np.stack(np.unravel_index(places, ri.shape)).astype(np.float64)
    outwards = (shells.outer_um_ZYX - shells.inner_um_ZYX).astype(np.float32)
    depth = ndi.gaussian_filter(outwards, [0.4 / s for s in spacing_um])
    normal = np.stack([_slope(depth, places, axis, step) for axis, step in enumerate(spacing_um)])
    normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-9)
    step = STEP_UM * normal / np.array(spacing_um)[:, None]
    ends = [np.rint(position + sign * step).astype(int) for sign in (-1, 1)]
    valid = np.all([(end >= 0).all(0) & (end < np.array(ri.shape)[:, None]).all(0) for end in ends], axis=0)
    within, beyond = (tuple(end[:, valid]) for end in ends)
    counted = inside[within] & outside[beyond]
    if not counted.any():
        return math.nan
    smooth = ndi.gaussian_filter(ri.astype(np.float32), [0.2 / s for s in spacing_um])
    change = (smooth[within] - smooth[beyond])[counted]
    return float(np.mean(change * np.sign(shells.difference) >= EDGE_SHARE * abs(shells.difference)))


def _slope(values: np.ndarray, places: np.ndarray, axis: int, step_um: float) -> np.ndarray:
    """Return the central difference along an axis at flat indices; values beyond the border repeat."""
    index = list(np.unravel_index(places, values.shape))
    sides = []
    for shift in (-1, 1):
        moved = list(index)
        moved[axis] = np.clip(index[axis] + shift, 0, values.shape[axis] - 1)
        sides.append(values[tuple(moved)])
    return (sides[1] - sides[0]) / (2 * step_um)


def expected_dice(probability_ZYX: np.ndarray, mask_ZYX: np.ndarray) -> float:
    """Return the Dice that a mask is expected to have if the probabilities of the voxels are right.

    Parameters
    ----------
    probability_ZYX : float array, (Z, Y, X)
        Probability of being inside, 0 to 1, in a region that contains the true mask.
    mask_ZYX : bool array, (Z, Y, X)
        Predicted mask.

    Returns
    -------
    float
        2 sum of p in the mask / (sum of p + number of voxels of the mask); nan if both are empty.

    References
    ----------
    Nordström, Bao, Löfman, Hult, Maki and Strömblad 2020, MICCAI, LNCS 12264:256, for the score of soft segmentations.
    """
    total = float(probability_ZYX.sum(dtype=np.float64)) + float(np.count_nonzero(mask_ZYX))
    return 2 * float(probability_ZYX[mask_ZYX].sum(dtype=np.float64)) / total if total > 1e-6 else math.nan


def evidence_of(contrast: float, edge_share: float) -> str:
    """Return whether the picture shows anything at a mask's surface: "some" or "none"; empty if it is unknown.

    Parameters
    ----------
    contrast, edge_share : float
        Of the mask's surface (`Surface`); nan for an empty mask.
    """
    if math.isnan(contrast):
        return ""
    return "none" if abs(contrast) < NO_CONTRAST and not edge_share >= NO_EDGES else "some"


def _widened(box: Box, shape: tuple[int, ...], spacing_um: ZYX) -> Box:
    """Return a box with a margin of the shell and of one voxel."""
    margins = [math.ceil(SHELL_UM / s) + 1 for s in spacing_um]
    z, y, x = (
        slice(max(0, part.start - m), min(n, part.stop + m)) for part, m, n in zip(box, margins, shape, strict=True)
    )
    return z, y, x


def _around(region: Region) -> tuple[Frame, np.ndarray, np.ndarray]:
    """Return the frame around a region, the mask of the region, and the parent in which it lies.

    The parent of a cell is everything outside of other cells.
    """
    frame = region.whole_frame
    own = ndi.find_objects(region.mask_ZYX.view(np.uint8))
    box = region.box
    if own and own[0] is not None:
        z, y, x = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(region.box, own[0], strict=True))
        box = (z, y, x)
    near = frame.crop(_widened(box, frame.cells_ZYX.shape, frame.spacing_um))
    cell = near.cells_ZYX == region.cell
    if region.compartment == WHOLE:
        return near, cell, cell | (near.cells_ZYX == 0)
    mask = (near.organelles[region.compartment] != 0) & cell
    parent = near.organelles.get(PARENTS.get(region.compartment, ""))
    return near, mask, cell if parent is None else cell & ((parent != 0) | mask)


def _evidence(region: Region) -> dict[str, Any]:
    row: dict[str, Any] = {**dict.fromkeys(EVIDENCE.columns, math.nan), "evidence": ""}
    if region.cell == 0:
        return row
    frame, mask, parent = _around(region)
    probability = frame.probabilities.get("membrane" if region.compartment == WHOLE else region.compartment)
    if probability is not None:
        row["expected_dice"] = expected_dice(np.where(parent, probability, 0) / np.float32(255), mask)
    if not mask.any():
        return row
    ignored = np.zeros(mask.shape, bool)
    for name in CONTENTS.get(region.compartment, ()):
        if name in frame.organelles:
            ignored |= frame.organelles[name] != 0
    surface = surface_evidence(frame.ri_ZYX, mask & ~ignored, parent & ~mask & ~ignored, frame.spacing_um)
    row["boundary_contrast"], row["edge_share"] = surface.contrast, surface.edge_share
    row["evidence"] = evidence_of(surface.contrast, surface.edge_share)
    return row


EVIDENCE = Measurement(
    "evidence",
    1,
    {
        "boundary_contrast": _column(
            "",
            f"mean index within {SHELL_UM:g} µm inside the surface minus that outside, over the root of the mean of "
            "both variances; negative if the inside is darker. Contents such as nucleoli do not count",
        ),
        "edge_share": _column(
            "",
            "share of the surface across which the index changes as the mean does, by at least "
            f"{EDGE_SHARE:g} of its difference",
        ),
        "expected_dice": _column(
            "",
            "Dice that the mask has if the network's probabilities are right; empty for existing and corrected masks",
        ),
        "evidence": _column(
            "",
            f"`none` if the size of `boundary_contrast` is below {NO_CONTRAST:g} and `edge_share` below {NO_EDGES:g}, "
            "else `some`; see [quality.md](quality.md#evidence)",
            "text",
        ),
    },
    _evidence,
    defined_for_empty=True,
    uses_ri=True,
)
