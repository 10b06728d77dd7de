"""Cells of the benchmark's own: free shapes whose organelles lie anywhere, with the true masks.

Nothing here is shared with `cytovox.simulation`: a cell is a union of ellipsoids with a rough surface, and its nucleus
is grown to a given share of the cell around any point of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi

Range = tuple[float, float]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Kind:
    """Ranges from which phantoms of one kind are drawn. Lengths in µm, contrasts in units of the index."""

    cells: tuple[int, int] = (1, 5)
    """Cells in the field, fewest and most."""
    radius_um: Range = (4.0, 7.5)
    """Radius of a ball of the cell's volume, about."""
    lumps: tuple[int, int] = (1, 4)
    """Ellipsoids that a cell is the union of."""
    nuclei: tuple[float, float, float] = (0.08, 0.80, 0.12)
    """Share of cells with no, one and two nuclei."""
    nucleus_share: Range = (0.04, 0.5)
    """Volume of the nuclei over that of their cell."""
    lobes: tuple[int, int] = (1, 3)
    """Lobes of a nucleus."""
    nucleus_contrast: Range = (0.0, 0.012)
    """Size of the contrast between nucleus and cytoplasm; its sign is random."""
    cytoplasm_contrast: Range = (0.006, 0.02)
    """Index of the cytoplasm minus that of the medium."""
    nucleoli: tuple[int, int] = (0, 5)
    """Nucleoli in a nucleus."""
    droplets: tuple[int, int] = (0, 30)
    """Lipid droplets in a cell."""
    distractors: tuple[int, int] = (0, 12)
    """Dense granules and vacuoles in a cell, which belong to no organelle."""
    texture: Range = (0.0, 0.002)
    """Standard deviation of the index within cells."""


@dataclass(frozen=True)
class Phantom:
    """True index and masks of a field. Arrays are (Z, Y, X)."""

    ri_ZYX: np.ndarray
    """float32, refractive index."""
    cells_ZYX: np.ndarray
    """uint16, 0 outside cells."""
    nuclei_ZYX: np.ndarray
    """uint16, one label per nucleus; `owner` tells whose it is."""
    nucleolus_ZYX: np.ndarray
    lipid_ZYX: np.ndarray
    owner: dict[int, int]
    """Label of a nucleus -> label of its cell."""
    contrast: dict[int, float]
    """Label of a nucleus -> its index minus that of the cytoplasm."""


class _Field:
    """A grid on which distances are in µm."""

    def __init__(self, shape: tuple[int, int, int], spacing_um: Spacing, rng: np.random.Generator) -> None:
        self.shape, self.spacing, self.rng = shape, np.asarray(spacing_um), rng
        self.extent = np.asarray(shape) * self.spacing
        axes = [(np.arange(n) + 0.5) * s for n, s in zip(shape, spacing_um, strict=True)]
        self.points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)

    def one(self, bounds: Range) -> float:
        return float(self.rng.uniform(*bounds))

    def count(self, bounds: tuple[int, int]) -> int:
        return int(self.rng.integers(bounds[0], bounds[1] + 1))

    def rough(self, scale_um: float) -> np.ndarray:
        """A smooth random field of unit deviation with features of about `scale_um`."""
        noise = ndi.gaussian_filter(self.rng.standard_normal(self.shape, np.float32), scale_um / 2 / self.spacing)
        return noise / noise.std()

    def ellipsoid(
        self, centre: np.ndarray, semi: np.ndarray, box: tuple[slice, ...] = (slice(None),) * 3
    ) -> np.ndarray:
        """About the distance to the surface of a randomly oriented ellipsoid, negative inside."""
        axes = np.linalg.qr(self.rng.normal(size=(3, 3)))[0]
        away = (self.points[box] - centre.astype(np.float32)) @ axes.astype(np.float32)
        return (np.sqrt(((away / semi.astype(np.float32)) ** 2).sum(-1)) - 1) * np.float32(np.cbrt(semi.prod()))

    def box(self, centre: np.ndarray, reach_um: float) -> tuple[slice, ...]:
        """The part of the grid within `reach_um` of a point along each axis."""
        low = np.clip(np.floor((centre - reach_um) / self.spacing).astype(int), 0, self.shape)
        high = np.clip(np.ceil((centre + reach_um) / self.spacing).astype(int) + 1, 0, self.shape)
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True))

    def depth(self, mask_ZYX: np.ndarray) -> np.ndarray:
        """Distance of each voxel of a mask to its surface in µm."""
        return np.asarray(ndi.distance_transform_edt(mask_ZYX, sampling=self.spacing), np.float32)

    def voxel(self, mask_ZYX: np.ndarray) -> np.ndarray:
        """Position of a random voxel of a mask."""
        places = np.flatnonzero(mask_ZYX)
        return self.points.reshape(-1, 3)[places[self.rng.integers(len(places))]].astype(np.float64)


def draw_phantom(
    kind: Kind, shape: tuple[int, int, int], spacing_um: Spacing, medium_ri: float, rng: np.random.Generator
) -> Phantom:
    """Draw a field of cells.

    Parameters
    ----------
    kind : Kind
        What the cells are like.
    shape, spacing_um : (z, y, x)
        Voxels, and their size in µm.
    medium_ri : float
        Index of the medium.
    rng : numpy.random.Generator
        Source of every choice.

    Returns
    -------
    Phantom
    """
    field = _Field(shape, spacing_um, rng)
    cells = _draw_cells(kind, field)
    ri = np.full(shape, medium_ri, np.float32)
    phantom = Phantom(
        ri, cells, np.zeros(shape, np.uint16), np.zeros(shape, bool), np.zeros(shape, bool), owner={}, contrast={}
    )
    texture = (field.rough(0.5) + field.rough(3.0)) * np.float32(field.one(kind.texture) / np.sqrt(2))
    for label in range(1, int(cells.max()) + 1):
        cell = cells == label
        cytoplasm = medium_ri + field.one(kind.cytoplasm_contrast)
        ri[cell] = (cytoplasm + texture)[cell]
        for nucleus in _draw_nuclei(kind, field, cell):
            number = len(phantom.owner) + 1
            contrast = field.one(kind.nucleus_contrast) * rng.choice([-1, 1])
            phantom.nuclei_ZYX[nucleus] = number
            phantom.owner[number], phantom.contrast[number] = label, float(contrast)
            ri[nucleus] = (cytoplasm + contrast + rng.uniform(0.3, 1.0) * texture)[nucleus]
            _add_balls(
                field, ri, phantom.nucleolus_ZYX, nucleus, field.count(kind.nucleoli), (0.5, 1.5),
                lambda base=cytoplasm + contrast: base + rng.uniform(0.006, 0.015),
            )  # fmt: skip
        plasm = cell & (phantom.nuclei_ZYX == 0)
        _add_balls(
            field,
            ri,
            phantom.lipid_ZYX,
            plasm,
            field.count(kind.droplets),
            (0.3, 1.3),
            lambda: rng.uniform(0.045, 0.08) + medium_ri,
        )
        others = np.zeros(shape, bool)
        for dense in (True, False):
            free = plasm & ~phantom.lipid_ZYX & ~others
            index = (
                (lambda: rng.uniform(0.035, 0.06) + medium_ri)
                if dense
                else (lambda: medium_ri + rng.uniform(0.0, 0.004))
            )
            _add_balls(field, ri, others, free, field.count(kind.distractors) // 2, (0.25, 0.9), index, stretch=2.5)
    ri[:] = ndi.gaussian_filter(ri, 0.12 / field.spacing)  # no surface is sharper than a membrane
    return phantom


def _draw_cells(kind: Kind, field: _Field) -> np.ndarray:
    """Labels of cells: each voxel belongs to the cell whose surface lies furthest outwards of it."""
    rng, number = field.rng, field.count(kind.cells)
    attached = rng.random() < 0.6
    ground = field.extent[0] * rng.uniform(0.08, 0.2)
    inner = np.full(field.shape, 0.0, np.float32)
    labels = np.zeros(field.shape, np.uint16)
    middle = field.extent / 2 + np.array([0, *(rng.uniform(-0.12, 0.12, 2) * field.extent[1:])])
    for label in range(1, number + 1):
        radius = min(field.one(kind.radius_um), 0.34 * field.extent.min() if number == 1 else np.inf)
        flat = rng.uniform(0.45, 1.0) if attached else rng.uniform(0.8, 1.1)
        centre = middle.copy()
        if label > 1:
            angle = rng.uniform(0, 2 * np.pi)
            centre[1:] += rng.uniform(0.6, 2.2) * radius * np.array([np.sin(angle), np.cos(angle)])
        centre[0] = ground + 0.7 * radius * flat if attached else rng.uniform(0.42, 0.58) * field.extent[0]
        distance = np.full(field.shape, np.inf, np.float32)
        for _ in range(field.count(kind.lumps)):
            semi = radius * rng.uniform(0.6, 1.25, 3) * np.array([flat, 1, 1])
            shift = rng.normal(size=3) * radius * np.array([0.15 * flat, 0.45, 0.45])
            distance = np.minimum(distance, field.ellipsoid(centre + shift, semi))
        distance += field.rough(rng.uniform(1.5, 4.0)) * np.float32(rng.uniform(0.05, 0.35))
        if attached:
            distance = np.maximum(distance, np.float32(ground) - field.points[..., 0])
        wins = (distance < 0) & (-distance > inner)
        labels[wins], inner[wins] = label, -distance[wins]
    return _largest_pieces(labels, field)


def _largest_pieces(labels_ZYX: np.ndarray, field: _Field) -> np.ndarray:
    """Keep the largest piece of each cell, drop cells below 60 µm³, and number the rest from 1."""
    kept = np.zeros_like(labels_ZYX)
    for label in np.unique(labels_ZYX[labels_ZYX > 0]):
        pieces, count = ndi.label(labels_ZYX == label)
        if count:
            piece = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
            if piece.sum() * field.spacing.prod() >= 60:
                kept[piece] = kept.max() + 1
    return kept


def _draw_nuclei(kind: Kind, field: _Field, cell_ZYX: np.ndarray) -> list[np.ndarray]:
    """Masks of the nuclei of a cell, which need not lie near its middle."""
    rng = field.rng
    depth = field.depth(cell_ZYX)
    room = depth > 0.4
    if not room.any():
        return []
    number = int(rng.choice(3, p=kind.nuclei))
    share = np.exp(rng.uniform(*np.log(kind.nucleus_share))) / max(number, 1)
    wanted = int(min(share * cell_ZYX.sum(), 0.8 / max(number, 1) * room.sum()))
    found: list[np.ndarray] = []
    taken = np.zeros_like(cell_ZYX)
    for _ in range(number):
        free = room & ~taken
        if wanted * field.spacing.prod() < 4 or free.sum() < wanted:
            break
        radius = np.cbrt(wanted * field.spacing.prod() * 3 / (4 * np.pi))
        deep = free & (depth > min(radius * 0.8, 0.8 * depth.max()))
        distance = np.full(field.shape, np.inf, np.float32)
        centre, heading = field.voxel(deep if deep.any() else free), rng.normal(size=3)
        for _ in range(field.count(kind.lobes)):
            distance = np.minimum(distance, field.ellipsoid(centre, radius * rng.uniform(0.7, 1.3, 3)))
            heading = heading + 0.7 * rng.normal(size=3)
            centre = centre + 0.9 * radius * heading / np.linalg.norm(heading) * np.array([0.6, 1, 1])
        distance += field.rough(1.5) * np.float32(rng.uniform(0.0, 0.15))
        level = np.partition(distance[free], wanted)[wanted]
        pieces, _ = ndi.label(free & (distance <= level))
        if not pieces.any():
            break
        nucleus = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        found.append(nucleus)
        taken |= ndi.binary_dilation(nucleus, iterations=2)
    return found


def _add_balls(
    field: _Field,
    ri_ZYX: np.ndarray,
    mask_ZYX: np.ndarray,
    within_ZYX: np.ndarray,
    number: int,
    radius_um: Range,
    index: Callable[[], float],
    stretch: float = 1.0,
) -> None:
    """Write balls, or ellipsoids stretched up to `stretch` times, that lie inside a region."""
    for _ in range(number if within_ZYX.any() else 0):
        semi = field.one(radius_um) * field.rng.uniform(0.85, 1.15, 3)
        semi[0] *= field.rng.uniform(1, stretch)
        centre = field.voxel(within_ZYX)
        box = field.box(centre, float(semi.max()))
        inside = field.ellipsoid(centre, semi, box) < 0
        if inside.any() and within_ZYX[box][inside].all():
            ri_ZYX[box][inside] = index()
            mask_ZYX[box] |= inside
