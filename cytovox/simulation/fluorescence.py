"""Simulate a fluorescence channel of a tomogram: stained nuclei, blurred, with bleed-through, background and noise."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi

from cytovox.errors import InputError
from cytovox.io.volume import Volume
from cytovox.simulation.optics import Spacing
from cytovox.simulation.tomogram import Tomogram


@dataclass(frozen=True)
class Stain:
    """A nuclear stain and the camera that records it."""

    brightness: float = 400.0
    """Mean counts per voxel in a stained nucleus, above background."""
    spread: float = 0.3
    """Largest relative difference of a nucleus from `brightness`."""
    texture: float = 0.15
    """Relative standard deviation of the chromatin's texture."""
    in_nucleoli: float = 0.5
    """Brightness of nucleoli relative to the rest of the nucleus: they hold little DNA."""
    bleed_through: float = 30.0
    """Counts per voxel in the cytoplasm, and in the nuclei of unstained cells."""
    background: float = 100.0
    """Counts per voxel everywhere."""
    read_noise: float = 3.0
    """Standard deviation of the camera's noise, besides the shot noise of the counts; 0 for no noise at all."""
    psf_um: Spacing = (0.5, 0.2, 0.2)
    """Standard deviation of the point spread function, z, y, x."""


@dataclass(frozen=True, eq=False)
class StainedChannel:
    """A simulated fluorescence channel."""

    volume: Volume
    """Channel CH0, uint16 counts, on its own grid; `cytovox.io.write_tcf` writes it."""
    signal_ZYX: np.ndarray
    """float32, what was put in: counts above background on the tomogram's grid, after the point spread function,
    without offset and noise."""
    unstained: tuple[int, ...]
    """Labels of the cells without stain."""


def stained(
    tomogram: Tomogram,
    stain: Stain | None = None,
    *,
    unstained: Collection[int] = (),
    offset_um: Spacing = (0.0, 0.0, 0.0),
    spacing_um: Spacing | None = None,
    seed: int | None = None,
) -> StainedChannel:
    """Simulate the fluorescence of a tomogram's nuclei.

    Parameters
    ----------
    tomogram : Tomogram
        Its nuclei are stained; the cytoplasm shines by bleed-through.
    stain : Stain, optional
        Brightness, blur and noise.
    unstained : collection of int
        Labels of cells that did not take up the stain.
    offset_um : (z, y, x)
        Displacement of the channel: what lies at p in the tomogram appears at p + offset.
    spacing_um : (z, y, x), optional
        Voxel size of the channel; the tomogram's if not given. Both grids share their centre.
    seed : int, optional
        Random seed of texture and noise; the tomogram's if not given.

    Raises
    ------
    InputError
        An invalid voxel size, or a label of no cell.
    """
    stain, spacing = stain or Stain(), spacing_um or tomogram.spacing_um
    if not all(0.05 <= s <= 5 for s in spacing):
        raise InputError(f"spacing {tuple(spacing)}: expected three lengths (z, y, x) of 0.05 to 5 µm")
    labels = {int(label) for label in np.unique(tomogram.cells_ZYX) if label > 0}
    if unknown := sorted(set(unstained) - labels):
        raise InputError(f"unstained: no cell {unknown[0]} in {tomogram.name}: it has {sorted(labels)}")
    rng = np.random.default_rng((17, tomogram.seed if seed is None else seed))
    density = _density(tomogram, stain, unstained, rng)
    # the field continues beyond its border, so that no light is lost there
    signal = ndi.gaussian_filter(
        density, [p / s for p, s in zip(stain.psf_um, tomogram.spacing_um, strict=True)], mode="nearest"
    )
    counts, origin = _sampled(signal, tomogram.spacing_um, offset_um, spacing)
    counts = np.maximum(counts, 0) + stain.background
    if stain.read_noise > 0:
        counts = rng.poisson(counts) + rng.normal(0, stain.read_noise, counts.shape)
    stored = np.clip(np.rint(counts), 0, np.iinfo(np.uint16).max).astype(np.uint16)
    volume = Volume(stored[None, None], spacing, ("CH0",), origin_um=origin)
    return StainedChannel(volume, signal, tuple(sorted(unstained)))


def _density(tomogram: Tomogram, stain: Stain, unstained: Collection[int], rng: np.random.Generator) -> np.ndarray:
    """Return the fluorescence in counts per voxel before the point spread function, float32 (Z, Y, X)."""
    nuclei, cells = tomogram.nuclei_ZYX, tomogram.cells_ZYX
    factors = rng.uniform(1 - stain.spread, 1 + stain.spread, int(cells.max(initial=0)) + 1)
    texture = ndi.gaussian_filter(
        rng.standard_normal(cells.shape, dtype=np.float32), [0.6 / s for s in tomogram.spacing_um]
    )
    texture *= np.float32(stain.texture / max(float(texture.std()), 1e-6))
    bright = np.where(np.isin(cells, list(unstained)), 0, factors[cells]) * (nuclei > 0)
    bright = bright * np.where(tomogram.masks["nucleolus"], stain.in_nucleoli, 1.0) * (1 + texture)
    return np.where(bright > 0, stain.brightness * bright, stain.bleed_through * (cells > 0)).astype(np.float32)


def _sampled(
    signal_ZYX: np.ndarray, spacing_um: Spacing, offset_um: Spacing, target_um: Spacing
) -> tuple[np.ndarray, Spacing]:
    """Return the signal, displaced, on a grid of the same centre and of nearly the same extent, and its origin."""
    field = [n * s for n, s in zip(signal_ZYX.shape, spacing_um, strict=True)]
    shape = [max(1, round(f / t)) for f, t in zip(field, target_um, strict=True)]
    origin = [
        ((n - 1) * s - (m - 1) * t) / 2
        for n, s, m, t in zip(signal_ZYX.shape, spacing_um, shape, target_um, strict=True)
    ]
    ratio = np.divide(target_um, spacing_um)
    first = np.divide(np.subtract(origin, offset_um), spacing_um)
    values = ndi.affine_transform(signal_ZYX, ratio, first, output_shape=tuple(shape), order=3, mode="nearest")
    return values, (origin[0], origin[1], origin[2])
