"""Built-in measurements: the columns of the tables of compartments and of parts."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from cytovox.measurement.cell_contrast import SHELL_UM, cell_contrast
from cytovox.measurement.morphometry import (
    ZYX,
    area_flag,
    border_faces,
    centroid_um,
    equivalent_diameter_um,
    sphericity,
)
from cytovox.measurement.refractive import dry_mass_pg
from cytovox.measurement.region import Column, Measurement, Region
from cytovox.organelles import WHOLE

NAN = float("nan")
#: Compartments that consist of any number of parts.
MANY_PARTS = ("nucleolus", "lipid")

_column = functools.partial(Column, since="0.1.0")

#: Columns that identify a row of the table of compartments, and of the table of parts.
KEYS: dict[str, Column] = {
    "cell": _column("", "label of the cell; 0 for what lies outside all cells", "int64"),
    "compartment": _column("", "`cell` for the whole cell, or an organelle", "text"),
}
PART_KEYS: dict[str, Column] = {
    **KEYS,
    "part": _column("", "number of the part in the cell's compartment, from 1, the largest first", "int64"),
}


def _surface(region: Region) -> dict[str, Any]:
    area, volumes = region.area_um2, region.part_volumes_um3
    one_shape = region.compartment not in MANY_PARTS or len(volumes) == 1
    return {
        "surface_area_um2": area,
        "area_flag": area_flag(region.volume_um3, area, region.spacing_um),
        "sphericity": sphericity(max(volumes, default=NAN), region.largest_area_um2) if one_shape else NAN,
    }


def _refractive_index(region: Region) -> dict[str, float]:
    ri_N = region.ri_ZYX[region.mask_ZYX].astype(np.float64)
    return {"mean_ri": ri_N.mean(), "sd_ri": ri_N.std()}


def _centroid_um(region: Region) -> ZYX:
    return centroid_um(region.mask_ZYX, region.spacing_um, region.frame.origin_um)


def _part_sizes(region: Region) -> dict[str, Any]:
    volumes = region.part_volumes_um3
    return {
        "mean_part_um3": np.mean(volumes),
        "median_part_um3": np.median(volumes),
        "largest_part_um3": max(volumes),
        "mean_part_area_um2": region.area_um2 / len(volumes),
    }


def _specks(region: Region) -> dict[str, Any]:
    if region.compartment in MANY_PARTS:
        return {"specks": None, "specks_um3": NAN}
    limit = region.frame.rules.min_nucleus_um3 if region.compartment == "nucleus" else float("inf")
    small = [volume for volume in sorted(region.part_volumes_um3)[:-1] if volume < limit]
    return {"specks": len(small), "specks_um3": sum(small)}


def _contrast(region: Region) -> dict[str, float]:
    frame = region.whole_frame
    if region.compartment != WHOLE:
        return {"contrast_ri": NAN}
    return {"contrast_ri": cell_contrast(frame.ri_ZYX, frame.cells_ZYX, region.cell, region.box, frame.spacing_um)}


VOLUME = Measurement(
    "volume",
    1,
    {"volume_um3": _column("µm³", "number of voxels times the volume of a voxel")},
    lambda region: {"volume_um3": region.volume_um3},
    defined_for_empty=True,
)
SURFACE = Measurement(
    "surface",
    1,
    {
        "surface_area_um2": _column(
            "µm²",
            "surface area of all parts; empty for cell 0. By default the area of the smooth surface that encloses the "
            "mask's volume: within 0.4 % on balls and ellipsoids from 10 voxels of radius, also at anisotropic "
            "spacing; for thin bodies see [measurements.md](measurements.md#areas-of-thin-bodies). "
            "`measure.area=marching_cubes` is the published estimator, 8 to 15 % too large; the column "
            "`area_estimator` names the one used",
        ),
        "area_flag": _column(
            "",
            "`thin` if 2 volume / area is below two of the coarsest voxels: the area may be off by more than 3 %",
            "text",
        ),
        "sphericity": _column(
            "",
            "sphericity of the largest part; 1 for a ball. Empty for nucleoli and droplets unless there is just one: "
            "`tables/parts` has the sphericity of each",
        ),
    },
    _surface,
    defined_for_empty=True,
)
CONCENTRATION = Measurement(
    "concentration",
    1,
    {
        "concentration_g_per_ml": _column(
            "g/mL",
            "mean of (n - n0) / increment, equation 1 of Choi et al. 2021; 0.135 mL/g in lipid, 0.19 elsewhere "
            "(`measure.uniform=true`: 0.19 everywhere); times 100 is g/dL",
        )
    },
    lambda region: {"concentration_g_per_ml": region.concentration_N.mean()},
    uses_ri=True,
)
DRY_MASS = Measurement(
    "dry_mass",
    1,
    {"dry_mass_pg": _column("pg", "sum of the concentration over the volume")},
    lambda region: {"dry_mass_pg": dry_mass_pg(region.concentration_N, region.frame.voxel_um3)},
    defined_for_empty=True,
    uses_ri=True,
)
CENTROID = Measurement(
    "centroid",
    1,
    {f"{axis}_um": _column("µm", f"mean {axis} of the voxels' centres") for axis in "zyx"},
    lambda region: dict(zip(("z_um", "y_um", "x_um"), _centroid_um(region), strict=True)),
)

#: Measurements of each compartment, in the order of the table.
COMPARTMENT_MEASUREMENTS: tuple[Measurement, ...] = (
    VOLUME,
    SURFACE,
    Measurement(
        "refractive_index",
        1,
        {
            "mean_ri": _column("", "mean refractive index"),
            "sd_ri": _column("", "standard deviation of the refractive index"),
        },
        _refractive_index,
        uses_ri=True,
    ),
    CONCENTRATION,
    DRY_MASS,
    CENTROID,
    Measurement(
        "parts",
        1,
        {"parts": _column("", "number of connected parts: droplets, nucleoli, nuclei", "int64")},
        lambda region: {"parts": len(region.part_volumes_um3)},
        defined_for_empty=True,
    ),
    Measurement(
        "part_sizes",
        1,
        {
            "mean_part_um3": _column("µm³", "mean volume of the parts"),
            "median_part_um3": _column("µm³", "median volume of the parts"),
            "largest_part_um3": _column("µm³", "volume of the largest part"),
            "mean_part_area_um2": _column("µm²", "mean surface area of the parts; empty for cell 0"),
        },
        _part_sizes,
    ),
    Measurement(
        "specks",
        1,
        {
            "specks": _column(
                "",
                "number of the parts of a cell besides the largest; of a nucleus, only those below 20 µm³. They add to "
                "`volume_um3` and the other columns, not to `sphericity`. Empty for nucleoli and droplets",
                "Int64",
            ),
            "specks_um3": _column("µm³", "volume of the specks, included in `volume_um3`"),
        },
        _specks,
        defined_for_empty=True,
    ),
    Measurement(
        "border",
        1,
        {
            "border": _column(
                "",
                "faces of the field that the cell reaches, such as `z- y+`: the cell is cut there, and its volume is "
                "too small",
                "text",
            )
        },
        lambda region: {"border": border_faces(region.box, region.whole_frame.cells_ZYX.shape)},
        defined_for_empty=True,
    ),
    Measurement(
        "nuclei",
        1,
        {
            "nuclei": _column(
                "",
                "number of nuclei of the cell: 0 flags a cell without a nucleus, 2 or more a cell with several. Empty "
                "if nuclei were not segmented",
                "Int64",
            )
        },
        lambda region: {"nuclei": region.nuclei},
        defined_for_empty=True,
    ),
    Measurement(
        "cell_contrast",
        1,
        {
            "contrast_ri": _column(
                "",
                f"mean refractive index of the cell minus the median within {SHELL_UM:g} µm around it in the plane; "
                "only for whole cells",
            )
        },
        _contrast,
        uses_ri=True,
    ),
)

#: Measurements of each connected part of an organelle, in the order of the table.
PART_MEASUREMENTS: tuple[Measurement, ...] = (
    VOLUME,
    Measurement(
        "equivalent_diameter",
        1,
        {"equivalent_diameter_um": _column("µm", "diameter of the ball of the same volume")},
        lambda region: {"equivalent_diameter_um": equivalent_diameter_um(region.volume_um3)},
    ),
    SURFACE,
    Measurement(
        "part_refractive_index",
        1,
        {"mean_ri": _column("", "mean refractive index")},
        lambda region: {"mean_ri": region.ri_ZYX[region.mask_ZYX].mean(dtype=np.float64)},
        uses_ri=True,
    ),
    CONCENTRATION,
    DRY_MASS,
    CENTROID,
)
