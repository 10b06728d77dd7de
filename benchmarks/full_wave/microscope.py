"""The fields that a tomographic microscope records of a cell: tilted illumination, or a cell that is turned.

The recorded field is given on the plane through the cell's middle that is perpendicular to the illumination, as after
digital refocusing, because odtbrain expects it there. It holds the waves that the objective lets through.
numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft

from benchmarks.full_wave.solver import ScatteringProblem

#: Waves at less than this share of k along the illumination cannot be given on a plane perpendicular to it.
GRAZING = 0.2


@dataclass(frozen=True)
class View:
    """One illumination. Vectors are z, y, x in the frame of odtbrain, whose axis of rotation is y."""

    direction: np.ndarray
    """Where the incident wave travels."""
    right: np.ndarray
    """x axis of the camera."""
    up: np.ndarray
    """y axis of the camera."""
    objective: np.ndarray
    """Optical axis of the objective."""


def views(count: int, tilt: float | None) -> tuple[np.ndarray, list[float], list[View]]:
    """Return the illuminations of a scan.

    Parameters
    ----------
    count : int
        Number of illuminations, evenly spread over a full turn.
    tilt : float or None
        Angle in rad between the illumination and the axis of the objective, which lies along -y: the illumination is
        turned on a cone and the objective stands still. None turns the cell about y by 360° instead.

    Returns
    -------
    angles : float array, (count,)
        In rad, as odtbrain takes them.
    tilted_axis : three floats
        x, y, z, as odtbrain takes it.
    views : list of View
    """
    angles = np.arange(count) * 2 * np.pi / count
    beta = np.pi / 2 if tilt is None else tilt
    found = []
    for angle in angles:
        sine, cosine = np.sin(angle), np.cos(angle)
        direction = np.array([cosine * np.sin(beta), -np.cos(beta), -sine * np.sin(beta)])
        right = np.array([sine, 0.0, cosine])
        # up = direction x right in x, y, z; reversed to z, y, x
        up = np.cross(direction[::-1], right[::-1])[::-1]
        found.append(View(direction, right, up, direction if tilt is None else np.array([0.0, -1.0, 0.0])))
    return angles, [0.0, float(np.sin(beta)), float(np.cos(beta)) if tilt is not None else 0.0], found


def record(
    problem: ScatteringProblem,
    scan: list[View],
    pixels: int,
    aperture: float,
    noise: float,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Yield the field of each view over that of the incident wave.

    Parameters
    ----------
    problem : ScatteringProblem
        The cell, in the frame of odtbrain.
    scan : list of View
    pixels : int
        Width and height of the camera, whose pixels are as large as the voxels.
    aperture : float
        Numerical aperture of the objective; below the index of the medium.
    noise : float
        Standard deviation of the complex noise of the field; the incident wave has amplitude 1.
    rng : numpy.random.Generator
        Source of the noise.

    Yields
    ------
    complex array, (Y, X)
        The cell's middle is in pixel ``pixels // 2``.
    """
    k, spacing = problem.wavenumber, problem.spacing
    wide = scipy.fft.next_fast_len(2 * pixels)  # scattered light beyond the border must not return on the other side
    axis = 2 * np.pi * scipy.fft.fftfreq(wide, spacing)
    k_y, k_x = np.meshgrid(axis, axis, indexing="ij")
    along = np.sqrt(np.clip(k**2 - k_y**2 - k_x**2, 0, None))
    least = np.sqrt(k**2 - (aperture * k / problem.medium_ri) ** 2)
    middle = slice(wide // 2 - pixels // 2, wide // 2 - pixels // 2 + pixels)
    for view in scan:
        vectors = along[..., None] * view.direction + k_y[..., None] * view.up + k_x[..., None] * view.right
        passed = (along > GRAZING * k) & (vectors @ view.objective > least)
        spectrum = np.zeros((wide, wide), complex)
        inside = problem.field(view.direction)
        spectrum[passed] = problem.scattered_spectrum(inside, vectors[passed]) * 0.5j / along[passed] / spacing**2
        share = passed.mean()
        grain = rng.normal(size=(2, int(passed.sum()))) * noise * wide / np.sqrt(2 * share)
        spectrum[passed] += grain[0] + 1j * grain[1]
        yield 1 + scipy.fft.fftshift(scipy.fft.ifft2(spectrum))[middle, middle]
