"""Measurement of all cells of a frame: one row per compartment, and one per nucleus, nucleolus and droplet."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage as ndi

from cytovox.io.fluorescence import Channel
from cytovox.measurement.columns import PART_MEASUREMENTS
from cytovox.measurement.morphometry import AREA_ESTIMATORS, ZYX, parts, volume_um3
from cytovox.measurement.region import Frame, Region, Rules, values_of
from cytovox.measurement.registry import measurements
from cytovox.organelles import WHOLE, in_order

__all__ = ["Measured", "Rules", "measure_frame"]


@dataclass(frozen=True)
class Measured:
    """All rows of a frame."""

    compartments: list[dict[str, Any]]
    """Rows of the compartment table; `cytovox.measurement.registry.columns` describes their columns."""
    parts: list[dict[str, Any]]
    """Rows of the table of parts; `cytovox.measurement.registry.part_columns` describes their columns."""


def measure_frame(
    ri_ZYX: np.ndarray,
    cells_ZYX: np.ndarray,
    organelles: Mapping[str, np.ndarray],
    spacing_um: ZYX,
    rules: Rules,
    origin_um: ZYX = (0.0, 0.0, 0.0),
    probabilities: Mapping[str, np.ndarray] | None = None,
    channels: Mapping[str, Channel] | None = None,
) -> Measured:
    """Measure every cell of a frame.

    A voxel of an organelle belongs to the cell that contains it, so the volumes of the parts of a compartment add up to
    that of the compartment. Voxels of an organelle outside all cells are measured in a row of cell 0.

    Parameters
    ----------
    ri_ZYX : float array, (Z, Y, X)
        Refractive index.
    cells_ZYX : integer array, (Z, Y, X)
        One label per cell, 0 is the background.
    organelles : dict of name -> bool array, (Z, Y, X)
        "nucleus", "nucleolus", "lipid" and any other. "membrane" is the mask of the cells themselves: it has a row only
        for its voxels outside all cells. An organelle that is missing was not segmented and has no rows; without
        "lipid", the increment of lipid is not used.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    rules : Rules
        Medium, increments, estimator of the area.
    origin_um : (z, y, x) floats
        Centre of the first voxel.
    probabilities : dict of name -> uint8 array, (Z, Y, X), optional
        Probability of each organelle that a network predicted, 0 to 255.
    channels : mapping of name -> Channel, optional
        Fluorescence on the same grid.

    Returns
    -------
    Measured
        Rows sorted by label; the cell first, then its organelles in the order of `cytovox.organelles.ORGANELLES`. An
        organelle that a cell does not have is a row with volume 0.

    Raises
    ------
    ValueError
        Arrays of different shapes, or an unknown estimator.
    """
    probabilities = probabilities or {}
    shapes = {"RI": ri_ZYX.shape, "cells": cells_ZYX.shape, **{name: mask.shape for name, mask in organelles.items()}}
    shapes |= {name: channel.values_ZYX.shape for name, channel in (channels or {}).items()}
    shapes |= {f"probability of {name}": values.shape for name, values in probabilities.items()}
    if len(set(shapes.values())) != 1 or len(ri_ZYX.shape) != 3:
        raise ValueError(f"expected arrays of one shape (z, y, x), got {shapes}")
    if rules.area not in AREA_ESTIMATORS:
        raise ValueError(f"area {rules.area!r}: expected one of {', '.join(AREA_ESTIMATORS)}")
    above = {name: one.above_background(cells_ZYX, spacing_um) for name, one in (channels or {}).items()}
    frame = Frame(ri_ZYX, cells_ZYX, organelles, spacing_um, origin_um, rules, probabilities, above)
    inner = [name for name in in_order(organelles) if name != "membrane"]
    rows, all_parts = [_row(region) for region in _regions_outside(frame, organelles)], []
    for label, box in enumerate(ndi.find_objects(cells_ZYX), start=1):
        if box is None:
            continue
        inside = cells_ZYX[box] == label
        own = {name: (organelles[name][box] != 0) & inside for name in inner}
        nuclei = None
        if "nucleus" in own:
            nuclei = sum(v >= rules.min_nucleus_um3 for v in _part_volumes_um3(own["nucleus"], frame.voxel_um3)[0])
        volumes, largest = _part_volumes_um3(inside, frame.voxel_um3)
        area = frame.area_um2(inside)
        largest_area = area if len(volumes) == 1 else frame.area_um2(largest)
        rows.append(_row(Region(frame, box, label, WHOLE, inside, volumes, area, largest_area, nuclei)))
        for name, mask in own.items():
            found = _part_rows(frame.crop(box), label, name, mask)
            all_parts += found
            # parts do not touch, so their areas add up to that of the compartment
            areas = [part["surface_area_um2"] for part in found] or [float("nan")]
            volumes = [part["volume_um3"] for part in found]
            rows.append(_row(Region(frame, box, label, name, mask, volumes, sum(areas), areas[0], nuclei)))
    return Measured(rows, all_parts)


def _row(region: Region) -> dict[str, Any]:
    return {"cell": region.cell, "compartment": region.compartment, **values_of(measurements(), region)}


def _part_volumes_um3(mask: np.ndarray, voxel_um3: float) -> tuple[list[float], np.ndarray]:
    """Return the volume of each connected part, and the mask of the largest part."""
    labels, number = parts(mask)
    sizes = np.bincount(labels.ravel(), minlength=number + 1)[1:]
    return [float(size) * voxel_um3 for size in sizes], labels == (sizes.argmax() + 1 if number else 0)


def _part_rows(frame: Frame, label: int, name: str, mask: np.ndarray) -> list[dict[str, Any]]:
    """Measure the connected parts of a mask; the largest first, parts of equal size in the order of z, y, x."""
    labels, _ = parts(mask)
    boxes, rows = ndi.find_objects(labels), []
    for rank, k in enumerate(np.argsort(-np.bincount(labels.ravel())[1:], kind="stable"), start=1):
        part = labels[boxes[k]] == k + 1
        volume, area = volume_um3(part, frame.spacing_um), frame.area_um2(part)
        region = Region(frame, boxes[k], label, name, part, [volume], area, area)
        rows.append({"cell": label, "compartment": name, "part": rank, **values_of(PART_MEASUREMENTS, region)})
    return rows


def _regions_outside(frame: Frame, organelles: Mapping[str, np.ndarray]) -> Iterator[Region]:
    """Yield the voxels of each organelle and of the membrane that lie outside all cells, as a region of cell 0."""
    for name in in_order(organelles):
        outside = (organelles[name] != 0) & (frame.cells_ZYX == 0)
        for box in ndi.find_objects(outside.astype(np.uint8)):
            yield Region(frame, box, 0, name, outside[box], _part_volumes_um3(outside[box], frame.voxel_um3)[0])
