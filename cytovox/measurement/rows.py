"""Rows of the tables of measurements: one per cell and compartment, and one per connected part of a compartment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

#: Compartment of the whole cell; all other rows have the name of an organelle.
WHOLE = "cell"


@dataclass(frozen=True)
class Compartment:
    """One compartment of one cell: the cell itself, its nucleus, its nucleoli, its droplets."""

    cell: int
    """Label of the cell; 0 for what lies in no cell."""
    compartment: str
    """"cell" or an organelle."""
    volume_um3: float
    surface_area_um2: float
    """Of all its parts; nan where it is empty."""
    area_flag: str
    """"thin" where the area may be off by more than 3 %; see `cytovox.measurement.morphometry.area_flag`."""
    sphericity: float
    """Of the largest part; nan where it is empty, and of nucleoli and droplets unless there is just one."""
    mean_ri: float
    sd_ri: float
    concentration_g_per_ml: float
    dry_mass_pg: float
    z_um: float
    y_um: float
    x_um: float
    parts: int
    """Connected parts: droplets, nucleoli."""
    mean_part_um3: float
    median_part_um3: float
    largest_part_um3: float
    mean_part_area_um2: float
    """Mean surface area of the parts: of one droplet."""
    specks: int | None
    """Parts beside the largest, for a nucleus only those that are no nucleus of their own. None of nucleoli and
    droplets, where every part counts."""
    specks_um3: float
    """Volume of the specks, which is part of `volume_um3`; nan where they are not counted."""
    border: str
    """Faces of the volume that the cell reaches, such as "z- y+": what lies beyond is not measured."""
    nuclei: int | None
    """Nuclei of the cell; 0 flags a cell without one, None one whose nucleus was not segmented."""
    added: Mapping[str, float] = field(default_factory=dict)
    """Columns of added measurements; see `cytovox.measurement.registry`."""

    def as_dict(self) -> dict[str, Any]:
        """Return the row: column to value."""
        return {**{name: getattr(self, name) for name in COLUMNS}, **self.added}


#: Columns of every row, in their order.
COLUMNS: tuple[str, ...] = tuple(one.name for one in fields(Compartment) if one.name != "added")


@dataclass(frozen=True)
class Part:
    """One connected part of a compartment: a droplet, a nucleolus, a nucleus."""

    cell: int
    compartment: str
    part: int
    """Number within the cell's compartment, from 1, the largest first."""
    volume_um3: float
    equivalent_diameter_um: float
    surface_area_um2: float
    area_flag: str
    """As for a compartment."""
    sphericity: float
    mean_ri: float
    concentration_g_per_ml: float
    dry_mass_pg: float
    z_um: float
    y_um: float
    x_um: float
