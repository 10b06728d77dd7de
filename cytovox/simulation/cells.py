"""Sample a scene on a grid: labels, masks and the true refractive index."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from cytovox.simulation.scene import Blob, Cell, Scene

Box = tuple[slice, slice, slice]

#: Within this share of its radius a cell rests on the coverslip: no neighbour lies under its nucleus.
CORE = 0.8


@dataclass(frozen=True)
class Grid:
    """Voxel centres in µm: one coordinate vector per axis, (z, y, x)."""

    axes_um: tuple[np.ndarray, np.ndarray, np.ndarray]
    spacing_um: tuple[float, float, float]

    @classmethod
    def around(
        cls, shape: tuple[int, int, int], spacing_um: tuple[float, float, float], margin: tuple[int, int, int]
    ) -> "Grid":
        """Return the grid of a field, padded by `margin` voxels on both sides of each axis."""
        z, y, x = ((np.arange(-m, n + m) + 0.5) * step for n, step, m in zip(shape, spacing_um, margin, strict=True))
        return cls((z, y, x), spacing_um)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the number of voxels per axis."""
        return len(self.axes_um[0]), len(self.axes_um[1]), len(self.axes_um[2])

    def box(self, center_um: np.ndarray, reach_um: np.ndarray | float) -> Box:
        """Return the slices of the voxels within `reach_um` of a point along each axis; may be empty."""
        z, y, x = (
            slice(int(np.searchsorted(axis, c - r)), int(np.searchsorted(axis, c + r, side="right")))
            for axis, c, r in zip(self.axes_um, center_um, np.broadcast_to(reach_um, 3), strict=True)
        )
        return z, y, x

    def offset(self, box: Box, center_um: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the distances of a box's voxels from a point: z, y, x arrays that broadcast, float32."""
        z, y, x = (
            (axis[part] - c).astype(np.float32) for axis, part, c in zip(self.axes_um, box, center_um, strict=True)
        )
        return z[:, None, None], y[None, :, None], x[None, None, :]


@dataclass
class Grown:
    """A sampled scene. All arrays are (Z, Y, X)."""

    ri_ZYX: np.ndarray
    cells_ZYX: np.ndarray
    nuclei_ZYX: np.ndarray
    nucleolus_ZYX: np.ndarray
    lipid_ZYX: np.ndarray


@dataclass
class _Columns:
    """Columns of one cell on the (y, x) grid."""

    bottom_YX: np.ndarray
    """µm above the coverslip."""
    top_YX: np.ndarray
    """µm above the coverslip; equal to the bottom where the cell is not."""
    rho_YX: np.ndarray
    """Radius relative to the outline of the body."""
    height_YX: np.ndarray
    """Thickness in µm that the cell would have without neighbours."""


def grow(scene: Scene, grid: Grid) -> Grown:
    """Sample a scene on a grid.

    Parameters
    ----------
    scene : Scene
        Cells and debris on the coverslip.
    grid : Grid
        Voxel centres. A scene may be sampled at any spacing.

    Returns
    -------
    Grown
        float32 index; uint16 labels (label k is the scene's k-th cell, from 1, and its nucleus); bool masks.
    """
    shape = grid.shape
    out = Grown(
        ri_ZYX=np.full(shape, scene.medium_ri, np.float32),
        cells_ZYX=np.zeros(shape, np.uint16),
        nuclei_ZYX=np.zeros(shape, np.uint16),
        nucleolus_ZYX=np.zeros(shape, bool),
        lipid_ZYX=np.zeros(shape, bool),
    )
    drift = scene.drift_ri * scene.drift.on_grid(*grid.axes_um)
    texture = scene.grain_ri * scene.grain.on_grid(*grid.axes_um) + drift
    calm = 0.0010 * scene.calm.on_grid(*grid.axes_um) + 0.6 * drift
    columns = _share_ground(scene, grid)
    for k, column in columns.items():
        others = [other.rho_YX for i, other in columns.items() if i != k]
        _fill_cell(scene, scene.cells[k - 1], k, column, others, grid, texture, out)
    for k in columns:
        cell = scene.cells[k - 1]
        _fill_nucleus(scene, cell, k, grid, calm, out)
        _fill_blobs(scene, cell.granules, grid, out, out.cells_ZYX == k, lipid=False)
        _fill_blobs(scene, cell.droplets, grid, out, (out.cells_ZYX == k) & (out.nuclei_ZYX == 0), lipid=True)
    _fill_blobs(scene, scene.debris, grid, out, out.cells_ZYX == 0, lipid=False)
    return out


def _share_ground(scene: Scene, grid: Grid) -> dict[int, _Columns]:
    """Return the columns of the cells that reach the grid, by label.

    A cell lies on top of thin parts of its neighbours; where a neighbour is thick, the two meet at a vertical wall.
    """
    y_um, x_um = grid.axes_um[1][:, None], grid.axes_um[2][None, :]
    surface, owner = np.zeros(grid.shape[1:]), np.full(grid.shape[1:], np.inf)
    done: dict[int, _Columns] = {}
    for k, cell in enumerate(scene.cells, start=1):
        dy, dx = y_um - cell.center_um[0], x_um - cell.center_um[1]
        near = np.maximum(np.abs(dy), np.abs(dx)) < cell.reach_um
        if not near.any():
            continue
        wave = cell.edge.on_grid(grid.axes_um[1], grid.axes_um[2]).astype(np.float64)
        rho, rho_skirt = cell.outline(dy, dx, wave)
        bottom, top = cell.profile(rho, rho_skirt, wave)
        height = top - bottom
        thin = surface < scene.overlap_um
        if not scene.overlapping:  # a body may cover a neighbour's lamella, but a lamella may not
            thin &= (surface == 0) | (rho < 1)
        own = near & (height > 0) & (thin | (rho < owner))
        on_ground = own & (~thin | (rho < CORE))  # neighbours are removed there
        on_top = own & (surface > 0) & ~on_ground
        for other in done.values():
            other.top_YX[on_ground] = other.bottom_YX[on_ground] = 0.0
        bottom = np.where(on_top, np.maximum(bottom, surface), bottom)
        top = np.where(on_top, np.maximum(top, surface + np.minimum(height, 1.0)), top)
        bottom[~own] = top[~own] = 0.0
        surface = np.where(own, top, surface)
        owner = np.where(own, rho, owner)
        done[k] = _Columns(bottom, top, rho, height)
    for column in done.values():  # a neighbour may have cut pieces off
        lost = ~largest_piece(column.top_YX > column.bottom_YX)
        column.top_YX[lost] = column.bottom_YX[lost] = 0.0
    return done


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected component of a mask; of equally large ones the first."""
    pieces, number = scipy.ndimage.label(mask)
    return pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:]) if number else pieces > 0


def _fill_cell(
    scene: Scene,
    cell: Cell,
    k: int,
    column: _Columns,
    others_YX: Sequence[np.ndarray],
    grid: Grid,
    texture_ZYX: np.ndarray,
    out: Grown,
) -> None:
    """Write label and index of one cell; `others_YX` are the relative radii of all other cells."""
    ys, xs = (np.flatnonzero((column.top_YX > column.bottom_YX).any(axis)) for axis in (1, 0))
    if not len(ys):
        return
    yx = slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1)
    bottom, top, height = (a[yx].astype(np.float32) for a in (column.bottom_YX, column.top_YX, column.height_YX))
    z = (grid.axes_um[0] - scene.coverslip_um).astype(np.float32)
    zs = slice(int(np.searchsorted(z, bottom.min() - 1)), int(np.searchsorted(z, top.max() + 1)))
    box, z, step = (zs, *yx), z[zs, None, None], np.float32(grid.spacing_um[0])
    out.cells_ZYX[box][(z >= bottom) & (z < top)] = k
    covered = np.clip((top - z) / step + 0.5, 0, 1) * np.clip((z - bottom) / step + 0.5, 0, 1) * (top > bottom)
    share = cell.lamella_share + (1 - cell.lamella_share) * np.clip((height - 1.0) / 4.0, 0, 1)
    wall = np.zeros_like(bottom)
    if others_YX:  # a narrow gap of low contrast where two cells touch
        distance_um = np.abs(np.min([rho[yx] for rho in others_YX], axis=0) - column.rho_YX[yx]) * cell.semi_um[1]
        wall = (0.25 * np.exp(-((distance_um / 0.35) ** 2))).astype(np.float32)
    contrast = (cell.ri - scene.medium_ri + texture_ZYX[box]) * (share * (1 - wall)).astype(np.float32)
    ri = out.ri_ZYX[box]
    ri += (scene.medium_ri + contrast - ri) * covered


def _fill_nucleus(scene: Scene, cell: Cell, k: int, grid: Grid, calm_ZYX: np.ndarray, out: Grown) -> None:
    """Write one nucleus, its rim, its halo in the cytoplasm and its nucleoli."""
    nucleus = cell.nucleus
    center = _above_field(nucleus.body, scene)
    box = grid.box(center, nucleus.body.semi_um[[0, 2, 2]] * 1.6)
    label = out.cells_ZYX[box] == k
    if not label.any():
        return
    bumps = nucleus.bumps.on_grid(*(axis[part] for axis, part in zip(grid.axes_um, box, strict=True)))
    rho = nucleus.body.rho(grid.offset(box, center)) * (1 + np.float32(nucleus.roughness) * bumps)
    radius = float(np.cbrt(nucleus.body.semi_um.prod()))
    # a nucleus is at least one voxel away from the surface of its cell
    inside = (rho < 1) & scipy.ndimage.binary_erosion(label, border_value=1)
    out.nuclei_ZYX[box][inside] = k
    distance = (rho - 1) * np.float32(radius)
    ri = out.ri_ZYX[box]
    ri += np.float32(nucleus.halo) * np.exp(-np.clip(distance, 0, None) / 1.2) * (label & ~inside)
    rim = np.float32(nucleus.rim) * np.exp(-((distance / 0.3) ** 2))
    ri[inside] = (cell.ri + nucleus.body.ri + calm_ZYX[box] + rim)[inside]
    for blob in nucleus.nucleoli:
        center = _above_field(blob, scene)
        part = grid.box(center, float(blob.semi_um.max()) + 4 * blob.edge_um)
        distance = _distance(blob, grid, part, center)
        within = out.nuclei_ZYX[part] == k
        out.nucleolus_ZYX[part] |= (distance < 0) & within
        out.ri_ZYX[part] += np.float32(blob.ri) * _softness(distance, blob.edge_um, grid) * within


def _above_field(blob: Blob, scene: Scene) -> np.ndarray:
    """Return the centre of a blob with z counted from the bottom of the field."""
    return blob.center_um + np.array([scene.coverslip_um, 0.0, 0.0])


def _distance(blob: Blob, grid: Grid, box: Box, center_um: np.ndarray) -> np.ndarray:
    """Return the distance to a blob's surface in µm, negative inside; exact for a sphere only."""
    return (blob.rho(grid.offset(box, center_um)) - 1) * np.float32(np.cbrt(blob.semi_um.prod()))


def _softness(distance: np.ndarray, edge_um: float, grid: Grid) -> np.ndarray:
    """Return 1 inside and 0 outside, with an edge at least as wide as the voxels resolve."""
    width = max(edge_um, 0.35 * float(np.cbrt(np.prod(grid.spacing_um))))
    return (1 / (1 + np.exp(np.clip(distance / np.float32(width / 2), -30, 30)))).astype(np.float32)


def _fill_blobs(
    scene: Scene, blobs: Iterable[Blob], grid: Grid, out: Grown, allowed_ZYX: np.ndarray, lipid: bool
) -> None:
    """Write droplets, granules or debris where they are allowed; omit droplets that do not fit completely."""
    for blob in blobs:
        center = _above_field(blob, scene)
        box = grid.box(center, float(blob.semi_um.max()) + 4 * blob.edge_um + max(grid.spacing_um))
        distance = _distance(blob, grid, box, center)
        core = distance < 0
        allowed = allowed_ZYX[box]
        if not core.any() or (lipid and (core & ~allowed).any()):
            continue
        if lipid:
            out.lipid_ZYX[box] |= core
        soft = _softness(distance, blob.edge_um, grid) * (allowed if not lipid else 1)
        ri = out.ri_ZYX[box]
        ri += (np.float32(blob.ri) - ri) * soft
