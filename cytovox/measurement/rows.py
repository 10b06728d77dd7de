"""Rows of the table of parts, and the name of the whole cell in the table of compartments."""

from dataclasses import dataclass

#: Compartment of the whole cell; all other rows have the name of an organelle.
WHOLE = "cell"


@dataclass(frozen=True)
class Part:
    """One connected part of a compartment: a droplet, a nucleolus, a nucleus."""

    cell: int
    compartment: str
    part: int
    """Number of the part in the cell's compartment, from 1, the largest first."""
    volume_um3: float
    equivalent_diameter_um: float
    surface_area_um2: float
    area_flag: str
    """"thin" or empty, as for a compartment."""
    sphericity: float
    mean_ri: float
    concentration_g_per_ml: float
    dry_mass_pg: float
    z_um: float
    y_um: float
    x_um: float
