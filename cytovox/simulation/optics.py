"""The microscope: which frequencies of a cell its illuminations carry, and how its software fills the rest.

In the first Born (or Rytov) approximation, light that comes in along k_in and leaves along k_out carries the object's
frequency k_out - k_in; for one illumination these lie on a cap of a sphere of radius n / wavelength, Ewald's. The union
of the caps of all illuminations leaves a cone around the optical axis (z) empty: flat structures fade and everything
stretches along z. Knowing that cells are denser than their medium fills part of that cone (Gerchberg-Papoulis).

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
    """A tomographic microscope: one normal illumination and a cone of them at the edge of its aperture."""

    wavelength_um: float = 0.532
    """In vacuum."""
    numerical_aperture: float = 1.2
    """Of the water-immersion objective."""
    half_angle_deg: float = 64.5
    """Its half angle in water; smaller in a denser medium, where the numerical aperture limits it."""
    illuminations: int = 48
    """Directions on the cone."""
    rounds: int = 40
    """Rounds of the non-negativity iteration; 0 leaves the missing cone empty."""

    def sine(self, medium_ri: float) -> float:
        """Sine of the half angle in a medium."""
        return min(float(np.sin(np.deg2rad(self.half_angle_deg))), self.numerical_aperture / medium_ri)


def potential(ri_ZYX: np.ndarray, medium_ri: float) -> np.ndarray:
    """Scattering potential in units of the medium's squared wave number: (n / n_medium)^2 - 1, float32."""
    relative = np.asarray(ri_ZYX, np.float32) / np.float32(medium_ri)
    return relative * relative - np.float32(1)


def refractive_index(potential_ZYX: np.ndarray, medium_ri: float) -> np.ndarray:
    """The index of a scattering potential, float32: what `potential` undoes."""
    return np.float32(medium_ri) * np.sqrt(np.clip(potential_ZYX + np.float32(1), 0, None))


@lru_cache(maxsize=8)
def support(shape: Shape, spacing_um: Spacing, medium_ri: float, optics: Optics) -> np.ndarray:
    """Frequencies the microscope measures: the union of Ewald caps on the grid of `scipy.fft.rfftn`.

    Parameters
    ----------
    shape, spacing_um : (z, y, x)
        The padded field.
    medium_ri : float
        Index of the medium.
    optics : Optics
        The microscope.

    Returns
    -------
    bool array, (Z, Y, X // 2 + 1)
        Closed under k -> -k, as the spectrum of a real object is; the mean (k = 0) is always measured. Read-only.
    """
    wave = medium_ri / optics.wavelength_um
    edge = wave * optics.sine(medium_ri)
    angles = 2 * np.pi * np.arange(optics.illuminations) / optics.illuminations
    lateral = np.concatenate([np.zeros((1, 2)), edge * np.stack([np.sin(angles), np.cos(angles)], 1)])
    nz, ny, nx = shape
    step = [1 / (n * s) for n, s in zip(shape, spacing_um, strict=True)]
    ky = np.fft.fftfreq(ny, spacing_um[1])[:, None]
    kx = np.fft.fftfreq(nx, spacing_um[2])[None, :]
    full = np.zeros(shape, bool)
    rows, columns = np.broadcast_arrays(np.arange(ny)[:, None], np.arange(nx)[None, :])
    for in_y, in_x in lateral:
        out_squared = (ky + in_y) ** 2 + (kx + in_x) ** 2
        passes = out_squared <= edge**2 * (1 + 1e-9)
        in_z = np.sqrt(wave**2 - in_y**2 - in_x**2)
        kz = np.sqrt(wave**2 - out_squared[passes]) - in_z
        layer = np.rint(kz / step[0]).astype(int)
        fits = np.abs(layer) <= (nz - 1) // 2
        full[layer[fits] % nz, rows[passes][fits], columns[passes][fits]] = True
    full |= np.roll(full[::-1, ::-1, ::-1], 1, axis=(0, 1, 2))
    full[0, 0, 0] = True
    half = np.ascontiguousarray(full[..., : nx // 2 + 1])
    half.flags.writeable = False
    return half


def measure(potential_ZYX: np.ndarray, support_ZYX: np.ndarray) -> np.ndarray:
    """Spectrum of a potential where it is measured, 0 elsewhere: complex64, (Z, Y, X // 2 + 1)."""
    return scipy.fft.rfftn(potential_ZYX.astype(np.float32, copy=False)) * support_ZYX


def fill_cone(spectrum: np.ndarray, support_ZYX: np.ndarray, shape: Shape, rounds: int) -> np.ndarray:
    """Fill the frequencies that were not measured, knowing that no cell is thinner than its medium.

    Each round sets negative values of the potential to 0 and puts the measured frequencies back (Gerchberg-Papoulis).

    Returns
    -------
    float32 array, (Z, Y, X)
        The potential; it agrees with every measured frequency, so a little of it stays negative.
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
    """Spectrum of noise of unit deviation, as coherent light makes it: speckle, and a few parasitic fringes.

    Speckle is white within the support, for noise of the camera passes the same reconstruction as the object; each
    fringe is one measured frequency, so a plane wave over the whole field.
    """
    spectrum = scipy.fft.rfftn(rng.standard_normal(shape, dtype=np.float32)) * support_ZYX
    voxels = float(np.prod(shape))
    power = np.sqrt(voxels * max(int(np.count_nonzero(support_ZYX)), 1) * 2)
    spectrum *= np.float32(voxels / power)
    if fringes:
        z, y, x = np.nonzero(support_ZYX[..., 1 : (shape[2] - 1) // 2])
        chosen = rng.integers(len(z), size=fringes)
        turn = np.exp(2j * np.pi * rng.random(fringes)) * rng.uniform(0.05, 0.25, fringes) * voxels
        np.add.at(spectrum, (z[chosen], y[chosen], x[chosen] + 1), turn.astype(np.complex64))
    return spectrum
