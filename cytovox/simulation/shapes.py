"""Simulate single cells for predicting a 3D shape from one slice: a whole cell, and an image of one slice of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage

from cytovox.simulation.cells import largest_piece
from cytovox.simulation.draw import draw_scene, generator
from cytovox.simulation.scene import Cell
from cytovox.simulation.tomogram import DEFAULT_SPACING_UM, cell_line, check_field

#: Part of every cache key: increase it with any change that alters a cell.
SHAPES_VERSION = 1

#: Length of every axis, and the index of the imaged slice.
SIDE, SLICE = 64, 32

#: Random stream of the slice position and the image; tomograms use 0, 1 and 2.
_STREAM = 7

#: Least distance in voxels of a cell from the faces of the cube.
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
        """Return the name used in file names: the preset, which is its class, and the seed."""
        return f"{self.preset}_{self.seed:06d}"

    @property
    def mask_YX(self) -> np.ndarray:
        """Return the mask of the cell in the imaged slice, bool."""
        return self.obj_ZYX[SLICE]


def simulate_shape(preset: str, seed: int) -> SimulatedShape:
    """Return the simulated cell of (preset, seed).

    A cell of the preset is drawn (`cytovox.simulation.draw`), without its thin lamellipodium, and sampled on an
    isotropic grid of which it fills a random share. It lies as on a slide: z up, rotated about z only. The slice at
    z = 32 lies between a quarter and a half of its height. The image models a confocal microscope with a membrane and
    cytoplasm stain: the nucleus is dark; light from above and below the slice adds to it, so that brightness depends on
    height; and there are blur, an uneven background, shot noise and read noise.

    Parameters
    ----------
    preset : str
        A name in `cytovox.simulation.PRESETS`.
    seed : int
        Random seed, 0 or larger.

    Returns
    -------
    SimulatedShape

    Raises
    ------
    InputError
        No such preset, or a negative seed.
    """
    check_field(seed, (SIDE, SIDE, SIDE), DEFAULT_SPACING_UM)
    # one cell in a small field, with a nucleus only
    single = replace(
        cell_line(preset), cells_per_1000_um2=(0, 0), droplets=(0, 0), granules=(0, 0), debris_per_1000_um2=(0, 0)
    )
    cell = draw_scene(single, seed, (20.0, 4.0, 4.0)).cells[0]
    rng = generator(preset, seed, _STREAM)
    obj_ZYX, nucleus_ZYX, spacing_um = _sample(cell, rng)
    return SimulatedShape(preset, seed, _image(obj_ZYX, nucleus_ZYX, spacing_um, rng), obj_ZYX, spacing_um)


def _columns(cell: Cell, y_um: np.ndarray, x_um: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bottom and top of the body above the coverslip, µm, at distances (y, x) from its centre."""
    wave = cell.edge.on_grid(y_um + cell.center_um[0], x_um + cell.center_um[1]).astype(np.float64)
    rho, _ = cell.outline(y_um[:, None], x_um[None, :], wave)
    return cell.profile(rho, np.where(rho < 1, rho, np.inf), wave)


def _sample(cell: Cell, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the cell and its nucleus in the cube, and the voxel size."""
    coarse = np.linspace(-cell.reach_um, cell.reach_um, 96)
    bottom, top = _columns(cell, coarse, coarse)
    low_um, high_um = float(bottom[top > bottom].min()), float(top.max())
    ys, xs = (coarse[(top > bottom).any(axis)] for axis in (1, 0))
    width_um = max(ys[-1] - ys[0], xs[-1] - xs[0]) + (coarse[1] - coarse[0])
    cut = rng.uniform(0.25, 0.5)  # height of the slice over that of the cell
    above_um = (1 - cut) * (high_um - low_um)
    fill = rng.uniform(0.72, 1.0)
    spacing_um = max(width_um / (SIDE - 2 * _MARGIN), above_um / (SIDE - SLICE - _MARGIN - 1)) / fill
    middle_y, middle_x = (0.5 * (i[0] + i[-1]) for i in (ys, xs))
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
    """Return the voxels between bottom and top: one component, with edges rounded like those of a membrane."""
    z = z_Z[:, None, None].astype(np.float32)
    bottom, top = bottom_YX.astype(np.float32), top_YX.astype(np.float32)
    share = np.minimum(np.clip((top - z) / spacing_um + 0.5, 0, 1), np.clip((z - bottom) / spacing_um + 0.5, 0, 1))
    share *= top > bottom
    return largest_piece(scipy.ndimage.gaussian_filter(share, 0.8, truncate=3.0, mode="constant") > 0.5)


def _image(obj_ZYX: np.ndarray, nucleus_ZYX: np.ndarray, spacing_um: float, rng: np.random.Generator) -> np.ndarray:
    """Return a fluorescence image of slice 32, uint8."""
    membrane_ZYX = obj_ZYX & ~scipy.ndimage.binary_erosion(obj_ZYX)
    stain_ZYX = obj_ZYX * np.float32(rng.uniform(0.4, 0.6)) + membrane_ZYX * np.float32(rng.uniform(0.5, 1.0))
    stain_ZYX[nucleus_ZYX] *= rng.uniform(0.1, 0.35)
    away_um = (np.arange(SIDE) - SLICE) * spacing_um
    image: np.ndarray = np.zeros((SIDE, SIDE), np.float32)
    # light from near the slice, hardly blurred, and a blurred haze from further away
    for depth_um, blur_um, part in ((0.7, 0.25, 1.0), (3.0, 1.0, 0.35)):
        weight_Z = np.exp(-0.5 * (away_um / depth_um) ** 2).astype(np.float32) * np.float32(spacing_um / depth_um)
        light = np.tensordot(weight_Z, stain_ZYX, axes=1)
        image += part * scipy.ndimage.gaussian_filter(light, max(0.6, blur_um / spacing_um), mode="nearest")
    slope = np.linspace(-1, 1, SIDE)
    background = 0.04 * (1 + 0.3 * (rng.uniform(-1, 1) * slope[:, None] + rng.uniform(-1, 1) * slope[None, :]))
    photons = rng.uniform(150, 500)  # number where the image is brightest
    image = (0.35 * rng.uniform(0.8, 1.2) * image + background).clip(0, None)
    image = rng.poisson(image * photons) / photons + rng.normal(scale=0.008, size=image.shape)
    return np.rint(255 * image.clip(0, 1)).astype(np.uint8)
