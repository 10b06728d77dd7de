"""Concentration and dry mass from the refractive index."""

from dataclasses import dataclass

import numpy as np

from cytovox.errors import InputError

#: Refractive index of the medium in Choi et al. 2021, used only if neither the file nor the user gives one.
PAPER_MEDIUM_RI = 1.3337


@dataclass(frozen=True)
class Increments:
    """Specific refractive increments, mL/g: the rise of the refractive index per concentration of solute.

    The defaults are those of Choi et al. 2021, eq. 1.
    """

    lipid_ml_per_g: float = 0.135
    """Increment of lipid droplets."""
    other_ml_per_g: float = 0.190
    """Increment of everything else: protein and nucleic acid."""
    uniform: bool = False
    """Whether `other_ml_per_g` is used for droplets, too."""

    def __post_init__(self) -> None:
        for name in ("lipid_ml_per_g", "other_ml_per_g"):
            if not 0.05 <= getattr(self, name) <= 0.5:
                raise InputError(f"{name} {getattr(self, name)}: expected an increment from 0.05 to 0.5 mL/g")

    @property
    def rule(self) -> str:
        """Description of the increments in the tables."""
        if self.uniform:
            return f"{self.other_ml_per_g:g} mL/g"
        return f"lipid {self.lipid_ml_per_g:g}, other {self.other_ml_per_g:g} mL/g"


def concentration_g_per_ml(
    ri_N: np.ndarray, lipid_N: np.ndarray, medium_ri: float, increments: Increments | None = None
) -> np.ndarray:
    """Compute the concentration of solute in each voxel, (n - n0) / increment.

    Parameters
    ----------
    ri_N : float array, any shape
        Refractive index, 1.33 to 1.45.
    lipid_N : bool array, same shape
        True in lipid droplets.
    medium_ri : float
        Refractive index n0 of the medium. An error of 0.003 changes the concentration at n = 1.36 by 14 %.
    increments : Increments, optional
        Those of Choi et al. 2021 by default.

    Returns
    -------
    float64 array, same shape
        g/mL, which equals pg/µm³ and pg/fL; times 100 it is g/dL. Negative where the index is below that of the medium:
        a valid reading, not an error.

    References
    ----------
    Choi et al. 2021, bioRxiv 2021.05.23.445351, eq. 1; Barer 1952, Nature 169.
    """
    increments = increments or Increments()
    contrast = np.asarray(ri_N, np.float64) - medium_ri
    if increments.uniform:
        return contrast / increments.other_ml_per_g
    return contrast / np.where(lipid_N, increments.lipid_ml_per_g, increments.other_ml_per_g)


#: Increments of Choi et al. 2021, used there for each compartment as a whole, and their description in the tables.
CHOI = Increments(lipid_ml_per_g=0.135, other_ml_per_g=0.190)
CHOI_RULE = f"as published: lipid {CHOI.lipid_ml_per_g:g}, cell, nucleus and nucleolus {CHOI.other_ml_per_g:g} mL/g"


def concentration_choi_g_per_ml(mean_ri: float, compartment: str, medium_ri: float) -> float:
    """Compute the concentration of a compartment as published: with one increment for all of its voxels.

    Droplets inside a cell are computed with the cell's increment; `concentration_g_per_ml` uses that of lipid. Because
    all voxels have the same increment, the mean concentration follows from the mean index.

    Parameters
    ----------
    mean_ri : float
        Mean refractive index of the compartment; nan where it is empty.
    compartment : str
        "lipid", or any other: cell, nucleus, nucleolus.
    medium_ri : float
        Refractive index n0 of the medium.

    Returns
    -------
    float
        g/mL, which equals pg/µm³; nan if the index is nan.

    References
    ----------
    Choi et al. 2021, bioRxiv 2021.05.23.445351, eq. 1 and the text below it.
    """
    return (mean_ri - medium_ri) / (CHOI.lipid_ml_per_g if compartment == "lipid" else CHOI.other_ml_per_g)


def dry_mass_pg(concentration_N: np.ndarray, voxel_um3: float) -> float:
    """Return the dry mass in voxels of these concentrations, g/mL: 1 g/mL equals 1 pg/µm³."""
    return float(np.sum(concentration_N, dtype=np.float64)) * voxel_um3
