"""Smooth random fields, defined at every point: the same cell can be sampled at any spacing."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WaveField:
    """A sum of plane waves: with many waves, a Gaussian random field of unit standard deviation.

    Parameters
    ----------
    wave_MD : float64 array, (M, D)
        Wave vectors in radian per µm, axes (z, y, x) or (y, x).
    phase_M : float64 array, (M,)
        Phases in radian.
    """

    wave_MD: np.ndarray
    phase_M: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, scale_um: float, waves: int, axes: int = 3) -> "WaveField":
        """Return a random field whose features are about `scale_um` across."""
        return cls(rng.normal(scale=1.0 / scale_um, size=(waves, axes)), rng.uniform(0, 2 * np.pi, waves))

    def at(self, points_ND: np.ndarray) -> np.ndarray:
        """Return the values at points in µm, (N, D) -> (N,)."""
        return np.cos(points_ND @ self.wave_MD.T + self.phase_M).sum(-1) * np.sqrt(2.0 / len(self.phase_M))

    def on_grid(self, *axes_um: np.ndarray) -> np.ndarray:
        """Return the values on the grid spanned by one coordinate vector (µm) per axis, as float32.

        With cos(a + b) = cos a cos b - sin a sin b the sum is one matrix product, 20 times faster than the cosine of
        every wave at every voxel.
        """
        *outer, last = axes_um
        angle = self.phase_M[:, None] + self.wave_MD[:, :1] * outer[0]
        for i, axis in enumerate(outer[1:], start=1):
            angle = (angle[:, :, None] + (self.wave_MD[:, i : i + 1] * axis)[:, None, :]).reshape(len(angle), -1)
        turn = self.wave_MD[:, -1:] * last
        left = np.concatenate([np.cos(angle), -np.sin(angle)]).astype(np.float32)
        right = np.concatenate([np.cos(turn), np.sin(turn)]).astype(np.float32)
        values = (left.T @ right) * np.float32(np.sqrt(2.0 / len(self.phase_M)))
        return values.reshape([len(axis) for axis in axes_um])
