"""One ellipsoidal cell with a nucleus anywhere in it, nucleoli and droplets. numpy and scipy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi

#: Width of surfaces (standard deviation of a Gaussian) in µm; the index has no finer detail.
SURFACE_UM = 0.12
#: Medium around the cell in its box, in µm.
MARGIN_UM = 0.5


@dataclass(frozen=True)
class Cell:
    """True index and masks of one cell in its box. Arrays are (Z, Y, X)."""

    ri_ZYX: np.ndarray
    """float32, refractive index."""
    cell_ZYX: np.ndarray
    """bool, as the other masks."""
    nucleus_ZYX: np.ndarray
    nucleolus_ZYX: np.ndarray
    lipid_ZYX: np.ndarray
    contrast: float
    """Index of the nucleus minus that of the cytoplasm."""


class _Ellipsoid:
    """A randomly oriented ellipsoid; `centre` and `semi` are in µm."""

    def __init__(self, centre: np.ndarray, semi: np.ndarray, rng: np.random.Generator) -> None:
        self.centre, self.semi = centre, semi
        self.axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]

    def level(self, points: np.ndarray) -> np.ndarray:
        """Return values below 1 inside; the last axis of `points` is z, y, x."""
        return np.sqrt(((((points - self.centre) @ self.axes) / self.semi) ** 2).sum(-1))

    def surface(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Return points on the surface, (N, 3)."""
        normals = rng.normal(size=(number, 3))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return self.centre + (normals * self.semi) @ self.axes.T

    def half_extent(self) -> np.ndarray:
        """Return half the size of the box that just holds it."""
        return np.asarray(np.sqrt(((self.axes * self.semi) ** 2).sum(1)))


def draw_cell(rng: np.random.Generator, spacing_um: float, medium_ri: float, radius_um: tuple[float, float]) -> Cell:
    """Draw a cell in a box that just holds it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of every choice.
    spacing_um : float
        Size of the cubic voxels.
    medium_ri : float
        Refractive index of the medium.
    radius_um : (float, float)
        Range of the three semi-axes.

    Returns
    -------
    Cell
    """
    outline = _Ellipsoid(np.zeros(3), rng.uniform(*radius_um, 3), rng)
    shape = 2 * np.ceil((outline.half_extent() + MARGIN_UM) / spacing_um).astype(int)
    axes = [(np.arange(n) - (n - 1) / 2) * spacing_um for n in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    cell = outline.level(points) < 1
    nucleus = _nucleus(outline, rng).level(points) < 1
    cytoplasm = rng.uniform(0.012, 0.022)
    contrast = rng.choice([-1, 1]) * rng.uniform(0.002, 0.010)
    index = np.where(cell, cytoplasm, 0.0)
    texture = ndi.gaussian_filter(rng.standard_normal(cell.shape), rng.uniform(0.25, 1.0) / spacing_um)
    index += cell * texture / texture.std() * rng.uniform(0.0, 0.001)
    index[nucleus] += contrast
    nucleolus, lipid = np.zeros_like(cell), np.zeros_like(cell)
    for _ in range(rng.integers(1, 4)):
        ball = _ball(points, nucleus & ~nucleolus, rng.uniform(0.5, 1.1), rng)
        index[ball] += rng.uniform(0.006, 0.015)
        nucleolus |= ball
    for _ in range(rng.integers(1, 9)):
        ball = _ball(points, cell & ~nucleus & ~lipid, rng.uniform(0.3, 0.8), rng)
        index[ball] = rng.uniform(0.045, 0.07)
        lipid |= ball
    index = ndi.gaussian_filter(index, SURFACE_UM / spacing_um)
    return Cell((medium_ri + index).astype(np.float32), cell, nucleus, nucleolus, lipid, float(contrast))


def _nucleus(outline: _Ellipsoid, rng: np.random.Generator) -> _Ellipsoid:
    """Return an ellipsoid of 6 to 35 % of the cell's volume anywhere inside it."""
    share = np.exp(rng.uniform(np.log(0.06), np.log(0.35)))
    while True:
        for _ in range(300):
            stretch = rng.uniform(0.75, 1.3, 3)
            semi = np.cbrt(share * outline.semi.prod()) * stretch / np.cbrt(stretch.prod())
            heading = rng.normal(size=3)
            place = heading / np.linalg.norm(heading) * np.cbrt(rng.random()) * outline.semi
            nucleus = _Ellipsoid(outline.centre + outline.axes @ place, semi, rng)
            if (outline.level(nucleus.surface(200, rng)) < 1 - 0.15 / outline.semi.min()).all():
                return nucleus
        share *= 0.8  # it does not fit


def _ball(points: np.ndarray, within_ZYX: np.ndarray, radius_um: float, rng: np.random.Generator) -> np.ndarray:
    """Return a ball inside a region, or an empty mask if none was found in 30 tries."""
    places = np.argwhere(within_ZYX)
    for _ in range(30 if len(places) else 0):
        centre = points[tuple(places[rng.integers(len(places))])]
        ball = ((points - centre) ** 2).sum(-1) < radius_um**2
        if within_ZYX[ball].all():
            return ball
    return np.zeros_like(within_ZYX)


def pad_cell(cell: Cell, shape: tuple[int, int, int], medium_ri: float) -> Cell:
    """Put a cell into the middle of a larger box of medium.

    Parameters
    ----------
    cell : Cell
    shape : (z, y, x)
        Larger than the box by an even number of voxels along each axis.
    medium_ri : float
        Refractive index of the medium.

    Raises
    ------
    ValueError
        The shape is smaller, or differs by an odd number.
    """
    extra = [new - old for new, old in zip(shape, cell.ri_ZYX.shape, strict=True)]
    if min(extra) < 0 or any(n % 2 for n in extra):
        raise ValueError(f"shape {shape}: expected {cell.ri_ZYX.shape} plus an even number of voxels")
    widths = [(n // 2, n // 2) for n in extra]
    return Cell(
        np.pad(cell.ri_ZYX, widths, constant_values=medium_ri),
        np.pad(cell.cell_ZYX, widths),
        np.pad(cell.nucleus_ZYX, widths),
        np.pad(cell.nucleolus_ZYX, widths),
        np.pad(cell.lipid_ZYX, widths),
        cell.contrast,
    )
