"""What a measurement is, and the regions that it is computed on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cytovox.io.fluorescence import Channel
from cytovox.measurement.morphometry import AREA_ESTIMATORS, ZYX, volume_um3
from cytovox.measurement.refractive import Increments, concentration_g_per_ml

#: Bounding box, slices along z, y, x.
Box = tuple[slice, slice, slice]

#: Place of the channel's name in the columns of a measurement of each fluorescence channel.
CHANNEL = "{channel}"


@dataclass(frozen=True)
class Rules:
    """Parameters of the measurements; tables list them with the results."""

    medium_ri: float
    """Refractive index of the medium, n0 of equation 1."""
    increments: Increments = field(default_factory=Increments)
    """Specific refractive increments."""
    area: str = "enclosing"
    """Estimator of the surface area, a name in `AREA_ESTIMATORS`."""
    min_nucleus_um3: float = 20.0
    """Smallest volume of a nucleus. Smaller parts of the mask add to the volume but are not counted as nuclei."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The arrays of a frame, or of a box of it."""

    ri_ZYX: np.ndarray
    cells_ZYX: np.ndarray
    organelles: Mapping[str, np.ndarray]
    """Masks of the organelles by name."""
    spacing_um: ZYX
    origin_um: ZYX
    """Centre of the first voxel."""
    rules: Rules
    probabilities: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Probability of each organelle that a network predicted, uint8, 0 to 255."""
    channels: Mapping[str, Channel] = field(default_factory=dict)
    """Fluorescence channels by name, their background subtracted."""

    @property
    def voxel_um3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing_um))

    def crop(self, box: Box) -> Frame:
        """Return the frame inside a box."""
        z, y, x = (o + part.start * s for o, part, s in zip(self.origin_um, box, self.spacing_um, strict=True))
        return replace(
            self,
            ri_ZYX=self.ri_ZYX[box],
            cells_ZYX=self.cells_ZYX[box],
            organelles={name: mask[box] for name, mask in self.organelles.items()},
            origin_um=(z, y, x),
            probabilities={name: values[box] for name, values in self.probabilities.items()},
            channels={name: channel.crop(box) for name, channel in self.channels.items()},
        )

    def area_um2(self, mask_ZYX: np.ndarray) -> float:
        """Return the surface area of a mask by the estimator of the rules."""
        return AREA_ESTIMATORS[self.rules.area](mask_ZYX, self.spacing_um)

    def concentration_N(self, mask_ZYX: np.ndarray) -> np.ndarray:
        """Return the concentration in each voxel of a mask, g/mL, float64 (N,)."""
        lipid_ZYX = self.organelles.get("lipid")
        lipid_N = np.zeros(1, bool) if lipid_ZYX is None else lipid_ZYX[mask_ZYX] != 0
        return concentration_g_per_ml(self.ri_ZYX[mask_ZYX], lipid_N, self.rules.medium_ri, self.rules.increments)


@dataclass(frozen=True, eq=False)
class Region:
    """One compartment of one cell, in the bounding box of the cell."""

    whole_frame: Frame
    box: Box
    cell: int
    """Label of the cell; 0 for what lies outside all cells."""
    compartment: str
    """"cell" or an organelle."""
    mask_ZYX: np.ndarray
    """Voxels of the compartment in the box, bool (z, y, x)."""
    part_volumes_um3: Sequence[float]
    """Volume of each connected part."""
    area_um2: float = float("nan")
    """Surface area of all parts; nan if empty or outside all cells."""
    largest_area_um2: float = float("nan")
    """Surface area of the largest part."""
    nuclei: int | None = None
    """Number of the cell's nuclei; None if they were not segmented."""

    @functools.cached_property
    def frame(self) -> Frame:
        """The frame inside the box."""
        return self.whole_frame.crop(self.box)

    @property
    def ri_ZYX(self) -> np.ndarray:
        """Refractive index in the box, float (z, y, x)."""
        return self.frame.ri_ZYX

    @property
    def spacing_um(self) -> ZYX:
        """Voxel size, z, y, x."""
        return self.frame.spacing_um

    @property
    def medium_ri(self) -> float:
        """Refractive index of the medium."""
        return self.frame.rules.medium_ri

    @property
    def volume_um3(self) -> float:
        """Volume of the compartment."""
        return volume_um3(self.mask_ZYX, self.spacing_um)

    @functools.cached_property
    def concentration_N(self) -> np.ndarray:
        """Concentration in each voxel of the compartment, g/mL, float64 (N,)."""
        return self.frame.concentration_N(self.mask_ZYX)


@dataclass(frozen=True)
class Column:
    """A column of the compartment table."""

    unit: str
    """Such as "µm"; empty for a pure number or a text."""
    description: str
    dtype: str = "float64"
    """Type in pandas: "float64", "int64", "Int64" (an integer that may be missing) or "text"."""
    since: str = ""
    """Version of the package in which the column first appeared."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """A measurement of every compartment of every cell.

    `cytovox.measurement.registry.BUILT_IN` lists those of this package. An installed package adds one by an entry point
    of the group `cytovox.measurements`; its columns follow the built-in ones.
    """

    name: str
    version: int
    """Raise it when results change for the same input: stored rows are then computed again."""
    columns: Mapping[str, Column]
    """Names of the columns, each with its unit and description. A name with `{channel}` stands for one column per
    fluorescence channel; a table without channels has none of them."""
    measure: Callable[[Region], Mapping[str, Any]]
    """Function that returns a value for each column; nan where a number is not defined."""
    defined_for_empty: bool = False
    """Whether `measure` is called for empty compartments, too. If not, their columns are nan."""
    uses_ri: bool = False
    """Whether the columns are left out where there is no refractive index: `cells_from_masks` without a tomogram."""

    def columns_for(self, channels: Iterable[str] = ()) -> dict[str, Column]:
        """Return the columns of a table with these fluorescence channels."""
        found = {name: column for name, column in self.columns.items() if CHANNEL not in name}
        for channel in channels:
            found |= {
                name.replace(CHANNEL, channel): column for name, column in self.columns.items() if CHANNEL in name
            }
        return found

    def of(self, region: Region) -> dict[str, Any]:
        """Return a value for each column.

        Raises
        ------
        ValueError
            The function returns other columns than the measurement declares.
        """
        columns = self.columns_for(region.whole_frame.channels)
        if not (region.part_volumes_um3 or self.defined_for_empty):
            return dict.fromkeys(columns, float("nan"))
        values = self.measure(region)
        if set(values) != set(columns):
            raise ValueError(f"measurement {self.name!r}: expected {sorted(columns)}, got {sorted(values)}")
        return {
            name: float(values[name]) if column.dtype == "float64" else values[name] for name, column in columns.items()
        }


def values_of(measurements: Iterable[Measurement], region: Region) -> dict[str, Any]:
    """Return the columns of several measurements of a region."""
    return {name: value for one in measurements for name, value in one.of(region).items()}
