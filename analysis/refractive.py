"""From refractive index to what the cell is made of: concentration and dry mass."""

from dataclasses import dataclass

import numpy as np

from formats.errors import InputError

#: Index of the medium in Choi et al. 2021: taken only where neither the file nor the user tells it.
PAPER_MEDIUM_RI = 1.3337


@dataclass(frozen=True)
class Increments:
    """Specific refractive increments, mL/g: how much a solute raises the index (Choi et al. 2021, eq. 1)."""

    lipid_ml_per_g: float = 0.135
    """Of lipid droplets."""
    other_ml_per_g: float = 0.190
    """Of everything else: protein and nucleic acid."""
    uniform: bool = False
    """Whether droplets, too, are counted with the increment of everything else."""

    def __post_init__(self) -> None:
        for name in ("lipid_ml_per_g", "other_ml_per_g"):
            if not 0.05 <= getattr(self, name) <= 0.5:
                raise InputError(f"{name} {getattr(self, name)}: expected an increment from 0.05 to 0.5 mL/g")

    @property
    def rule(self) -> str:
        """The rule as it stands in a table."""
        if self.uniform:
            return f"{self.other_ml_per_g:g} mL/g"
        return f"lipid {self.lipid_ml_per_g:g}, other {self.other_ml_per_g:g} mL/g"


def concentration_g_per_ml(
    ri_N: np.ndarray, lipid_N: np.ndarray, medium_ri: float, increments: Increments | None = None
) -> np.ndarray:
    """Concentration of solute in each voxel, (n - n0) / increment.

    Parameters
    ----------
    ri_N : float array, any shape
        Refractive index, 1.33 to 1.45.
    lipid_N : bool array, same shape
        True in lipid droplets.
    medium_ri : float
        Index n0 of the medium. 0.003 of it is 14 % of a concentration at n = 1.36.
    increments : Increments, optional
        The published ones by default.

    Returns
    -------
    float64 array, same shape
        g/mL, which is pg/µm³ (and pg/fL); times 100 it is g/dL. Negative where the object is thinner than its medium: a
        reading, not an error.

    References
    ----------
    Choi et al. 2021, bioRxiv 2021.05.23.445351, eq. 1; Barer 1952, Nature 169.
    """
    increments = increments or Increments()
    contrast = np.asarray(ri_N, np.float64) - medium_ri
    if increments.uniform:
        return contrast / increments.other_ml_per_g
    return contrast / np.where(lipid_N, increments.lipid_ml_per_g, increments.other_ml_per_g)


def dry_mass_pg(concentration_N: np.ndarray, voxel_um3: float) -> float:
    """Mass of what is solved in voxels of these concentrations (g/mL): a g/mL is a pg/µm³."""
    return float(np.sum(concentration_N, dtype=np.float64)) * voxel_um3
