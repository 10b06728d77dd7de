"""From refractive index to what the cell is made of: concentration and dry mass."""

from dataclasses import dataclass

import numpy as np

from cytovox.errors import InputError

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


#: Increments of Choi et al. 2021, mL/g: one for each compartment as a whole.
CHOI_LIPID_ML_PER_G, CHOI_OTHER_ML_PER_G = 0.135, 0.190
#: The same as it stands in a table.
CHOI_RULE = f"as published: lipid {CHOI_LIPID_ML_PER_G:g}, cell, nucleus and nucleolus {CHOI_OTHER_ML_PER_G:g} mL/g"


def concentration_choi_g_per_ml(mean_ri: float, compartment: str, medium_ri: float) -> float:
    """Concentration of a whole compartment as published: one increment for all of its voxels.

    Droplets inside a cell count with the cell's increment, where `concentration_g_per_ml` gives them that of lipid. The
    mean over voxels of (n - n0) / increment is that of the mean index, since the increment is the same in all of them.

    Parameters
    ----------
    mean_ri : float
        Mean refractive index of the compartment; nan where it is empty.
    compartment : str
        "lipid", or any other: cell, nucleus, nucleolus.
    medium_ri : float
        Index n0 of the medium.

    Returns
    -------
    float
        g/mL, which is pg/µm³; nan where the index is.

    References
    ----------
    Choi et al. 2021, bioRxiv 2021.05.23.445351, eq. 1 and the text below it.
    """
    increment = CHOI_LIPID_ML_PER_G if compartment == "lipid" else CHOI_OTHER_ML_PER_G
    return (mean_ri - medium_ri) / increment


def dry_mass_pg(concentration_N: np.ndarray, voxel_um3: float) -> float:
    """Mass of what is solved in voxels of these concentrations (g/mL): a g/mL is a pg/µm³."""
    return float(np.sum(concentration_N, dtype=np.float64)) * voxel_um3
