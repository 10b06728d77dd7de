"""Spherical harmonics of a cloud of directions, reduced to what no rotation changes."""

import numpy as np


def power_spectrum(vectors_N3: np.ndarray, weights_N: np.ndarray, degree: int) -> np.ndarray:
    """Root of the power in each degree, relative to that in degree 0.

    Parameters
    ----------
    vectors_N3 : float array, (N, 3)
        Directions, of any length but 0; the order of the axes does not matter.
    weights_N : float array, (N,)
        Not negative, and not all 0.
    degree : int
        The highest, 1 or more.

    Returns
    -------
    float64 array, (degree,)
        Of degrees 1 to `degree`; 0 (spread evenly) to 1 (all in one direction). By the addition theorem its square is
        the mean of the Legendre polynomial of the cosine between two directions drawn at random.

    References
    ----------
    Kazhdan et al. 2003, Rotation invariant spherical harmonic representation of 3D shape descriptors, SGP. The
    recurrence: Press et al., Numerical Recipes, 3rd ed., eq. 6.7.9.
    """
    unit_N3 = vectors_N3 / np.linalg.norm(vectors_N3, axis=1, keepdims=True)
    z, planar = unit_N3[:, 0], unit_N3[:, 2] + 1j * unit_N3[:, 1]
    power_L = np.zeros(degree + 1)
    around = np.asarray(weights_N, dtype=np.complex128)  # weights x (x + iy)^m
    first = np.sqrt(1 / (4 * np.pi))
    for m in range(degree + 1):
        before, now = np.zeros_like(z), np.full_like(z, first)
        for n in range(m, degree + 1):
            if n > m:
                back = np.sqrt(((n - 1) ** 2 - m**2) / (4 * (n - 1) ** 2 - 1))
                before, now = now, np.sqrt((4 * n**2 - 1) / (n**2 - m**2)) * (z * now - back * before)
            # order -m holds as much as order m
            power_L[n] += (1 if m == 0 else 2) * np.abs(around @ now) ** 2
        around = around * planar
        first *= np.sqrt((2 * m + 3) / (2 * m + 2))
    return np.sqrt(power_L[1:] / (2 * np.arange(1, degree + 1) + 1) / power_L[0])
