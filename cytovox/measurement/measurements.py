"""Every cell of a frame in numbers: each of its compartments a row, each nucleus, nucleolus and droplet a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.ndimage as ndi

from cytovox.measurement.morphometry import (
    AREA_ESTIMATORS,
    ZYX,
    area_flag,
    border_faces,
    centroid_um,
    equivalent_diameter_um,
    parts,
    sphericity,
    volume_um3,
)
from cytovox.measurement.refractive import Increments, concentration_g_per_ml, dry_mass_pg
from cytovox.measurement.registry import Region, measurements
from cytovox.measurement.rows import WHOLE, Compartment, Part
from cytovox.organelles import in_order

NAN = float("nan")
#: Compartments of any number of parts: none of them is a speck.
MANY_PARTS = ("nucleolus", "lipid")


@dataclass(frozen=True)
class Rules:
    """How a frame is measured; they stand in the table, so that a number can be traced."""

    medium_ri: float
    """Index of the medium, n0 of equation 1."""
    increments: Increments = field(default_factory=Increments)
    """Specific refractive increments."""
    area: str = "enclosing"
    """Estimator of the surface area, a name in `AREA_ESTIMATORS`."""
    min_nucleus_um3: float = 20.0
    """Smaller pieces of the nucleus mask count for its volume, but not as a nucleus of their own."""


@dataclass(frozen=True)
class Measured:
    """All rows of a frame."""

    compartments: list[Compartment]
    parts: list[Part]


@dataclass(frozen=True, eq=False)
class _Frame:
    """A box of a frame, or all of it."""

    ri_ZYX: np.ndarray
    concentration_ZYX: np.ndarray
    spacing_um: ZYX
    origin_um: ZYX
    rules: Rules

    @property
    def voxel_um3(self) -> float:
        return float(np.prod(self.spacing_um))

    def area(self, mask_ZYX: np.ndarray) -> float:
        return AREA_ESTIMATORS[self.rules.area](mask_ZYX, self.spacing_um)


@dataclass(frozen=True)
class _Form:
    """Sizes of a compartment's parts, and its surface."""

    sizes: list[float]
    """µm³."""
    area: float
    """µm², of all parts."""
    largest_area: float
    """µm², of the largest part."""


def measure_frame(
    ri_ZYX: np.ndarray,
    cells_ZYX: np.ndarray,
    organelles: Mapping[str, np.ndarray],
    spacing_um: ZYX,
    rules: Rules,
    origin_um: ZYX = (0.0, 0.0, 0.0),
) -> Measured:
    """Measure every cell of a frame.

    A voxel of an organelle belongs to the cell whose label it bears, so that the parts of a compartment add up to it.
    What an organelle has outside of all cells is a row of cell 0: reported, never dropped.

    Parameters
    ----------
    ri_ZYX : float array, (Z, Y, X)
        Refractive index.
    cells_ZYX : integer array, (Z, Y, X)
        One label a cell, 0 is the background.
    organelles : dict of name -> bool array, (Z, Y, X)
        "nucleus", "nucleolus", "lipid" and any other; "membrane", being the cells themselves, has a row only for what
        no cell claims. An organelle that is not named was not segmented: it has no rows, and lipid's increment is used
        nowhere.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    rules : Rules
        Medium, increments, estimator of the area.
    origin_um : (z, y, x) floats
        Centre of the first voxel.

    Returns
    -------
    Measured
        Rows by rising label, the cell first, its organelles in the order of `cytovox.organelles.ORGANELLES`. A cell
        without an organelle has a row of it with volume 0.

    Raises
    ------
    ValueError
        Arrays of different shapes, or an unknown estimator.
    """
    _check(ri_ZYX, cells_ZYX, organelles, rules)
    inner = [name for name in in_order(organelles) if name != "membrane"]
    lipid_ZYX = organelles.get("lipid")
    rows, pieces = [], []
    for label, box in enumerate(ndi.find_objects(cells_ZYX), start=1):
        if box is None:
            continue
        inside = cells_ZYX[box] == label
        own = {name: (organelles[name][box] != 0) & inside for name in inner}
        frame = _boxed(ri_ZYX, lipid_ZYX, box, spacing_um, origin_um, rules)
        nuclei = None
        if "nucleus" in own:
            nuclei = sum(size >= rules.min_nucleus_um3 for size in _sizes(own["nucleus"], frame.voxel_um3))
        border = border_faces(box, cells_ZYX.shape)
        rows.append(_row(frame, label, WHOLE, inside, _body(frame, inside), border, nuclei))
        for name, mask in own.items():
            found = _parts(frame, label, name, mask)
            rows.append(_row(frame, label, name, mask, _together(found), border, nuclei))
            pieces += found
    return Measured(_left_over(ri_ZYX, cells_ZYX, organelles, spacing_um, origin_um, rules) + rows, pieces)


def _check(ri_ZYX: np.ndarray, cells_ZYX: np.ndarray, organelles: Mapping[str, np.ndarray], rules: Rules) -> None:
    shapes = {"RI": ri_ZYX.shape, "cells": cells_ZYX.shape, **{name: mask.shape for name, mask in organelles.items()}}
    if len(set(shapes.values())) != 1 or len(ri_ZYX.shape) != 3:
        raise ValueError(f"arrays of one shape (z, y, x) were expected, got {shapes}")
    if rules.area not in AREA_ESTIMATORS:
        raise ValueError(f"area {rules.area!r}: expected one of {', '.join(AREA_ESTIMATORS)}")


def _boxed(
    ri_ZYX: np.ndarray,
    lipid_ZYX: np.ndarray | None,
    box: tuple[slice, slice, slice],
    spacing_um: ZYX,
    origin_um: ZYX,
    rules: Rules,
) -> _Frame:
    ri = ri_ZYX[box]
    lipid = np.zeros(1, bool) if lipid_ZYX is None else lipid_ZYX[box] != 0
    z, y, x = (o + part.start * s for o, part, s in zip(origin_um, box, spacing_um, strict=True))
    return _Frame(
        ri, concentration_g_per_ml(ri, lipid, rules.medium_ri, rules.increments), spacing_um, (z, y, x), rules
    )


def _row(
    frame: _Frame,
    label: int,
    name: str,
    mask: np.ndarray,
    form: _Form,
    border: str,
    nuclei: int | None,
) -> Compartment:
    sizes, area = form.sizes, form.area
    specks, specks_um3 = _specks(name, sizes, frame.rules.min_nucleus_um3)
    common: dict[str, Any] = {
        "cell": label, "compartment": name, "specks": specks, "specks_um3": specks_um3, "border": border,
        "nuclei": nuclei,
    }  # fmt: skip
    if not sizes:
        return Compartment(
            **common, volume_um3=0.0, surface_area_um2=NAN, area_flag="", sphericity=NAN, mean_ri=NAN, sd_ri=NAN,
            concentration_g_per_ml=NAN, dry_mass_pg=0.0, z_um=NAN, y_um=NAN, x_um=NAN, parts=0, mean_part_um3=NAN,
            median_part_um3=NAN, largest_part_um3=NAN, mean_part_area_um2=NAN, added=_added(None),
        )  # fmt: skip
    ri, concentrations = frame.ri_ZYX[mask].astype(np.float64), frame.concentration_ZYX[mask]
    volume = volume_um3(mask, frame.spacing_um)
    whole = name not in MANY_PARTS or len(sizes) == 1
    z_um, y_um, x_um = centroid_um(mask, frame.spacing_um, frame.origin_um)
    return Compartment(
        **common,
        volume_um3=volume,
        surface_area_um2=area,
        area_flag=area_flag(volume, area, frame.spacing_um),
        sphericity=sphericity(max(sizes), form.largest_area) if whole else NAN,
        mean_ri=float(ri.mean()),
        sd_ri=float(ri.std()),
        concentration_g_per_ml=float(concentrations.mean()),
        dry_mass_pg=dry_mass_pg(concentrations, frame.voxel_um3),
        z_um=z_um,
        y_um=y_um,
        x_um=x_um,
        parts=len(sizes),
        mean_part_um3=float(np.mean(sizes)),
        median_part_um3=float(np.median(sizes)),
        largest_part_um3=float(np.max(sizes)),
        mean_part_area_um2=area / len(sizes),
        added=_added(Region(frame.ri_ZYX, mask, frame.spacing_um, name, frame.rules.medium_ri)),
    )


def _added(region: Region | None) -> dict[str, float]:
    """Return the columns of all added measurements."""
    return {column: value for one in measurements() for column, value in one.of(region).items()}


def _specks(name: str, sizes: list[float], min_nucleus_um3: float) -> tuple[int | None, float]:
    """Number and volume of the parts that do not belong to a compartment of one piece."""
    if name in MANY_PARTS:
        return None, NAN
    others = sorted(sizes)[:-1]
    small = [size for size in others if name != "nucleus" or size < min_nucleus_um3]
    return len(small), float(sum(small))


def _body(frame: _Frame, mask: np.ndarray) -> _Form:
    """The form of a mask whose parts are not measured one by one."""
    labels, number = parts(mask)
    sizes = np.bincount(labels.ravel(), minlength=number + 1)[1:]
    area = frame.area(mask)
    largest = area if number == 1 else frame.area(labels == sizes.argmax() + 1)
    return _Form([float(size) * frame.voxel_um3 for size in sizes], area, largest)


def _together(found: list[Part]) -> _Form:
    """The form of a compartment out of its parts, the largest first; they lie apart, so that their surfaces add up."""
    areas = [part.surface_area_um2 for part in found]
    return _Form([part.volume_um3 for part in found], sum(areas), areas[0] if areas else NAN)


def _sizes(mask: np.ndarray, voxel_um3: float) -> list[float]:
    labels, number = parts(mask)
    return [float(size) * voxel_um3 for size in np.bincount(labels.ravel(), minlength=number + 1)[1:]]


def _parts(frame: _Frame, label: int, name: str, mask: np.ndarray) -> list[Part]:
    """The connected parts of a mask, largest first; of equal ones the first in z, y, x."""
    labels, number = parts(mask)
    sizes = np.bincount(labels.ravel(), minlength=number + 1)[1:]
    boxes = ndi.find_objects(labels)
    return [
        _part(frame, label, name, rank, labels[boxes[k]] == k + 1, boxes[k])
        for rank, k in enumerate(np.argsort(-sizes, kind="stable"), start=1)
    ]


def _part(frame: _Frame, label: int, name: str, rank: int, mask: np.ndarray, box: tuple[slice, slice, slice]) -> Part:
    volume, area = volume_um3(mask, frame.spacing_um), frame.area(mask)
    z, y, x = (o + part.start * s for o, part, s in zip(frame.origin_um, box, frame.spacing_um, strict=True))
    concentrations = frame.concentration_ZYX[box][mask]
    z_um, y_um, x_um = centroid_um(mask, frame.spacing_um, (z, y, x))
    return Part(
        cell=label,
        compartment=name,
        part=rank,
        volume_um3=volume,
        equivalent_diameter_um=equivalent_diameter_um(volume),
        surface_area_um2=area,
        area_flag=area_flag(volume, area, frame.spacing_um),
        sphericity=sphericity(volume, area),
        mean_ri=float(frame.ri_ZYX[box][mask].mean(dtype=np.float64)),
        concentration_g_per_ml=float(concentrations.mean()),
        dry_mass_pg=dry_mass_pg(concentrations, frame.voxel_um3),
        z_um=z_um,
        y_um=y_um,
        x_um=x_um,
    )


def _left_over(
    ri_ZYX: np.ndarray,
    cells_ZYX: np.ndarray,
    organelles: Mapping[str, np.ndarray],
    spacing_um: ZYX,
    origin_um: ZYX,
    rules: Rules,
) -> list[Compartment]:
    """Rows of cell 0: what organelles and the membrane have outside of all cells."""
    rows = []
    for name in in_order(organelles):
        outside = (organelles[name] != 0) & (cells_ZYX == 0)
        boxes = ndi.find_objects(outside.astype(np.uint8))
        if not boxes:
            continue
        mask, box = outside[boxes[0]], boxes[0]
        frame = _boxed(ri_ZYX, organelles.get("lipid"), box, spacing_um, origin_um, rules)
        border = border_faces(box, cells_ZYX.shape)
        rows.append(_row(frame, 0, name, mask, _Form(_sizes(mask, frame.voxel_um3), NAN, NAN), border, None))
    return rows
