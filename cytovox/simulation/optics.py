"""Model of the microscope: the spatial frequencies it measures, and the iteration that estimates the missing ones.

In the first Born (or Rytov) approximation, light that enters along k_in and leaves along k_out measures the object's
frequency k_out - k_in. For one illumination these frequencies lie on a cap of the Ewald sphere, whose radius is
n / wavelength. The union of the caps of all illuminations lacks a cone around the optical axis (z): flat structures
lose contrast and everything is elongated along z. The constraint that cells have a higher index than their medium
restores part of that cone (Gerchberg-Papoulis).

References
----------
Wolf 1969, Opt. Commun. 1:153. Sung et al. 2009, Opt. Express 17:266. Lim et al. 2015, Opt. Express 23:16933.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Optics:
    """A tomographic microscope with one normal illumination and a cone of oblique ones at the edge of its aperture."""

    wavelength_um: float = 0.532
    """Wavelength in vacuum."""
    numerical_aperture: float = 1.2
    """Numerical aperture of the water-immersion objective."""
    half_angle_deg: float = 64.5
    """Largest half angle of the cone; the numerical aperture limits it further in a medium of high index."""
    illuminations: int = 48
    """Number of directions on the cone."""
    rounds: int = 40
    """Iterations of the non-negativity constraint; 0 leaves the missing cone empty."""
    multiple_scattering: bool = False
    """Whether light may be scattered more than once (`cytovox.simulation.scattering`), which takes several times as
    long."""

    def sine(self, medium_ri: float) -> float:
        """Return the sine of the half angle in a medium."""
        return min(float(np.sin(np.deg2rad(self.half_angle_deg))), self.numerical_aperture / medium_ri)


def potential(ri_ZYX: np.ndarray, medium_ri: float) -> np.ndarray:
    """Return the scattering potential in units of the medium's squared wave number: (n / n_medium)^2 - 1, float32."""
    relative = np.asarray(ri_ZYX, np.float32) / np.float32(medium_ri)
    return relative * relative - np.float32(1)


def refractive_index(potential_ZYX: np.ndarray, medium_ri: float) -> np.ndarray:
    """Return the refractive index of a scattering potential, float32; the inverse of `potential`."""
    return np.float32(medium_ri) * np.sqrt(np.clip(potential_ZYX + np.float32(1), 0, None))


@lru_cache(maxsize=8)
def support(shape: Shape, spacing_um: Spacing, medium_ri: float, optics: Optics) -> np.ndarray:
    """Return the measured frequencies: the union of Ewald caps on the grid of `scipy.fft.rfftn`.

    Parameters
    ----------
    shape, spacing_um : (z, y, x)
        Size and voxel size of the padded field.
    medium_ri : float
        Index of the medium.
    optics : Optics
        Parameters of the microscope.

    Returns
    -------
    bool array, (Z, Y, X // 2 + 1)
        Symmetric under k -> -k, because the object is real; the mean (k = 0) is always measured. Read-only.
    """
    wave = medium_ri / optics.wavelength_um
    edge = wave * optics.sine(medium_ri)
    angles = 2 * np.pi * np.arange(optics.illuminations) / optics.illuminations
    lateral = np.concatenate([np.zeros((1, 2)), edge * np.stack([np.sin(angles), np.cos(angles)], 1)])
    nz, ny, nx = shape
    ky, kx = np.fft.fftfreq(ny, spacing_um[1])[:, None], np.fft.fftfreq(nx, spacing_um[2])[None, :]
    full = np.zeros(shape, bool)
    for in_y, in_x in lateral:
        out_squared = (ky + in_y) ** 2 + (kx + in_x) ** 2
        rows, columns = np.nonzero(out_squared <= edge**2 * (1 + 1e-9))
        kz = np.sqrt(wave**2 - out_squared[rows, columns]) - np.sqrt(wave**2 - in_y**2 - in_x**2)
        layer = np.rint(kz / (1 / (nz * spacing_um[0]))).astype(int)
        fits = np.abs(layer) <= (nz - 1) // 2
        full[layer[fits] % nz, rows[fits], columns[fits]] = True
    full |= np.roll(full[::-1, ::-1, ::-1], 1, axis=(0, 1, 2))
    full[0, 0, 0] = True
    half = np.ascontiguousarray(full[..., : nx // 2 + 1])
    half.flags.writeable = False
    return half


def measure(potential_ZYX: np.ndarray, support_ZYX: np.ndarray) -> np.ndarray:
    """Return the spectrum of a potential, 0 where it is not measured: complex64, (Z, Y, X // 2 + 1)."""
    return scipy.fft.rfftn(potential_ZYX.astype(np.float32, copy=False)) * support_ZYX


def fill_cone(spectrum: np.ndarray, support_ZYX: np.ndarray, shape: Shape, rounds: int) -> np.ndarray:
    """Estimate the frequencies that were not measured, given that no potential is negative.

    Each iteration sets negative values of the potential to 0 and restores the measured frequencies
    (Gerchberg-Papoulis).

    Returns
    -------
    float32 array, (Z, Y, X)
        The potential. Its measured frequencies are exact, so a few small negative values remain.
    """
    unmeasured = ~support_ZYX
    value = scipy.fft.irfftn(spectrum, shape)
    for _ in range(rounds):
        np.maximum(value, 0, out=value)
        guess = scipy.fft.rfftn(value, overwrite_x=True)
        guess *= unmeasured
        guess += spectrum
        value = scipy.fft.irfftn(guess, shape, overwrite_x=True)
    return value


def coherent_noise(rng: np.random.Generator, support_ZYX: np.ndarray, shape: Shape, fringes: int) -> np.ndarray:
    """Return the spectrum of coherent noise of unit standard deviation: speckle and a few parasitic fringes.

    Speckle is white within the support, because camera noise passes through the same reconstruction as the object. Each
    fringe is one measured frequency: a plane wave over the whole field.
    """
    spectrum = scipy.fft.rfftn(rng.standard_normal(shape, dtype=np.float32)) * support_ZYX
    voxels = float(np.prod(shape))
    spectrum *= np.float32(voxels / np.sqrt(voxels * max(int(np.count_nonzero(support_ZYX)), 1) * 2))
    if fringes:
        z, y, x = np.nonzero(support_ZYX[..., 1 : (shape[2] - 1) // 2])
        chosen = rng.integers(len(z), size=fringes)
        turn = np.exp(2j * np.pi * rng.random(fringes)) * rng.uniform(0.05, 0.25, fringes) * voxels
        np.add.at(spectrum, (z[chosen], y[chosen], x[chosen] + 1), turn.astype(np.complex64))
    return spectrum
