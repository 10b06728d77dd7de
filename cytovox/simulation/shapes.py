"""Single cells for learning 3D shape from one slice: a membrane shape of the simulator, cut and imaged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage

from cytovox.errors import InputError
from cytovox.simulation.draw import draw_scene, generator
from cytovox.simulation.presets import PRESETS
from cytovox.simulation.scene import Cell

#: Part of every cache key: raise it with any change that alters a cell.
SHAPES_VERSION = 1

#: Length of every axis, and the slice that is imaged.
SIDE, SLICE = 64, 32

#: The stream of random numbers of the cut and the image; the simulator's tomograms use 0 and 1.
_STREAM = 7

#: No voxel of a cell lies nearer to a face than this.
_MARGIN = 2


@dataclass(frozen=True, eq=False)
class SimulatedShape:
    """A cell in a cube of 64 voxels."""

    preset: str
    seed: int
    image_YX: np.ndarray
    """uint8, a fluorescence image of slice 32."""
    obj_ZYX: np.ndarray
    """bool, the whole cell."""
    spacing_um: float
    """Length of a voxel along every axis."""

    @property
    def name(self) -> str:
        """As its file would be called: the preset, which is its class, and the seed."""
        return f"{self.preset}_{self.seed:06d}"

    @property
    def mask_YX(self) -> np.ndarray:
        """bool, the cell in the imaged slice."""
        return self.obj_ZYX[SLICE]


def simulate_shape(preset: str, seed: int) -> SimulatedShape:
    """The cell named by (preset, seed).

    A cell of the preset is drawn (`cytovox.simulation.draw`), without its thin lamellipodium, and sampled on an
    isotropic grid that it fills to a random part, as it stands on a slide: z up, turned about z only. The slice at z =
    32 lies between a quarter and a half of its height. Its image is what a confocal microscope with a membrane and
    cytoplasm stain shows: the nucleus is dark, light from above and below the slice leaks in (so that brightness tells
    of height), and there are blur, an uneven background, shot noise and read noise.

    Parameters
    ----------
    preset : str
        One of `cytovox.simulation.PRESETS`.
    seed : int
        0 or more.

    Returns
    -------
    SimulatedShape

    Raises
    ------
    InputError
        No such preset, or a negative seed.
    """
    if preset not in PRESETS:
        raise InputError(f"preset {preset}: no such cell line; choose one of {', '.join(PRESETS)}")
    if seed < 0:
        raise InputError(f"seed {seed}: expected 0 or more")
    # one cell on a small field, and nothing in it but its nucleus
    single = replace(
        PRESETS[preset], cells_per_1000_um2=(0, 0), droplets=(0, 0), granules=(0, 0), debris_per_1000_um2=(0, 0)
    )
    cell = draw_scene(single, seed, (20.0, 4.0, 4.0)).cells[0]
    rng = generator(preset, seed, _STREAM)
    obj_ZYX, nucleus_ZYX, spacing_um = _sample(cell, rng)
    image_YX = _observe(obj_ZYX, nucleus_ZYX, spacing_um, rng)
    return SimulatedShape(preset, seed, image_YX, obj_ZYX, spacing_um)


def _columns(cell: Cell, y_um: np.ndarray, x_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bottom and top of the body above the coverslip, µm, at distances (y, x) from its centre."""
    wave = cell.edge.on_grid(y_um + cell.center_um[0], x_um + cell.center_um[1]).astype(np.float64)
    rho, _ = cell.outline(y_um[:, None], x_um[None, :], wave)
    return cell.profile(rho, np.where(rho < 1, rho, np.inf), wave)


def _sample(cell: Cell, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """The cell and its nucleus in the cube, and the length of a voxel."""
    reach = cell.reach_um
    coarse = np.linspace(-reach, reach, 96)
    bottom, top = _columns(cell, coarse, coarse)
    low_um, high_um = float(bottom[top > bottom].min()), float(top.max())
    ys, xs = (np.flatnonzero((top > bottom).any(axis)) for axis in (1, 0))
    step = coarse[1] - coarse[0]
    width_um = max(coarse[ys[-1]] - coarse[ys[0]], coarse[xs[-1]] - coarse[xs[0]]) + step
    cut = rng.uniform(0.25, 0.5)  # height of the slice over that of the cell
    above_um = (1 - cut) * (high_um - low_um)
    fill = rng.uniform(0.72, 1.0)
    spacing_um = max(width_um / (SIDE - 2 * _MARGIN), above_um / (SIDE - SLICE - _MARGIN - 1)) / fill
    middle_y, middle_x = (0.5 * (coarse[i[0]] + coarse[i[-1]]) for i in (ys, xs))
    axis = (np.arange(SIDE) - (SIDE - 1) / 2) * spacing_um
    bottom, top = _columns(cell, axis + middle_y, axis + middle_x)
    z = low_um + cut * (high_um - low_um) + (np.arange(SIDE) - SLICE) * spacing_um
    obj_ZYX = _filled(bottom, top, z, spacing_um)
    body = cell.nucleus.body
    offset = (
        (z - body.center_um[0])[:, None, None],
        (axis + middle_y + cell.center_um[0] - body.center_um[1])[None, :, None],
        (axis + middle_x + cell.center_um[1] - body.center_um[2])[None, None, :],
    )
    return obj_ZYX, (body.rho(offset) < 1) & obj_ZYX, float(spacing_um)


def _filled(bottom_YX: np.ndarray, top_YX: np.ndarray, z_Z: np.ndarray, spacing_um: float) -> np.ndarray:
    """Voxels between bottom and top, their edges rounded as a membrane's are; one piece."""
    z = z_Z[:, None, None].astype(np.float32)
    bottom, top = bottom_YX.astype(np.float32), top_YX.astype(np.float32)
    share = np.minimum(np.clip((top - z) / spacing_um + 0.5, 0, 1), np.clip((z - bottom) / spacing_um + 0.5, 0, 1))
    share *= top > bottom
    smooth = scipy.ndimage.gaussian_filter(share, 0.8, truncate=3.0, mode="constant")
    pieces, number = scipy.ndimage.label(smooth > 0.5)
    if number > 1:
        pieces = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return pieces > 0


def _observe(obj_ZYX: np.ndarray, nucleus_ZYX: np.ndarray, spacing_um: float, rng: np.random.Generator) -> np.ndarray:
    """A fluorescence image of slice 32, uint8."""
    membrane_ZYX = obj_ZYX & ~scipy.ndimage.binary_erosion(obj_ZYX)
    stain_ZYX = obj_ZYX * np.float32(rng.uniform(0.4, 0.6)) + membrane_ZYX * np.float32(rng.uniform(0.5, 1.0))
    stain_ZYX[nucleus_ZYX] *= rng.uniform(0.1, 0.35)
    away_um = (np.arange(SIDE) - SLICE) * spacing_um
    image: np.ndarray = np.zeros((SIDE, SIDE), np.float32)
    # the slice itself, a sharp neighbourhood of it, and a haze of all that is lit
    for depth_um, blur_um, part in ((0.7, 0.25, 1.0), (3.0, 1.0, 0.35)):
        weight_Z = np.exp(-0.5 * (away_um / depth_um) ** 2).astype(np.float32) * np.float32(spacing_um / depth_um)
        light = np.tensordot(weight_Z, stain_ZYX, axes=1)
        image += part * scipy.ndimage.gaussian_filter(light, max(0.6, blur_um / spacing_um), mode="nearest")
    slope = np.linspace(-1, 1, SIDE)
    background = 0.04 * (1 + 0.3 * (rng.uniform(-1, 1) * slope[:, None] + rng.uniform(-1, 1) * slope[None, :]))
    photons = rng.uniform(150, 500)  # in the brightest places
    image = (0.35 * rng.uniform(0.8, 1.2) * image + background).clip(0, None)
    image = rng.poisson(image * photons) / photons + rng.normal(scale=0.008, size=image.shape)
    return np.rint(255 * image.clip(0, 1)).astype(np.uint8)
