"""Cells of the preset `any`, whose shapes, numbers, positions and contrasts vary as far as possible.

The cell lines of `cytovox.simulation.presets` put one darker nucleus near the middle of each spread cell. A network
that is trained on them alone learns where nuclei lie. Here every property is drawn from a range far beyond that of the
lines: cells are lumps, balls, domes, columns, confluent sheets or stacks; a nucleus lies anywhere, is larger or
smaller, brighter or darker, lobed, double or absent; and dense granules, vacuoles and condensed chromatin belong to no
organelle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.ndimage as ndi

from cytovox.simulation.cells import Grid, Grown
from cytovox.simulation.draw import generator, random_axes
from cytovox.simulation.fields import WaveField

#: Name of the preset.
ANY = "any"

Points = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Body:
    """One cell as a function of position: its depth in µm, about the distance to its surface, positive inside."""

    depth: Callable[[Points], np.ndarray]
    centre_um: np.ndarray
    """(3,), z, y, x."""
    reach_um: np.ndarray
    """(3,), no part of the cell is further from the centre along an axis."""


@dataclass
class Sampler:
    """Random numbers of one volume, and the grid that it is drawn on."""

    rng: np.random.Generator
    grid: Grid
    extent_um: np.ndarray = field(init=False)
    """(3,), size of the field with its margin."""

    def __post_init__(self) -> None:
        self.extent_um = np.array([axis[-1] - axis[0] for axis in self.grid.axes_um])
        self.first_um = np.array([axis[0] for axis in self.grid.axes_um])

    def one(self, low: float, high: float) -> float:
        """Draw a number uniformly."""
        return float(self.rng.uniform(low, high))

    def ratio(self, low: float, high: float) -> float:
        """Draw a positive number uniformly on a logarithmic scale."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return bool(self.rng.random() < probability)

    def wave(self, scale_um: float, box: tuple[slice, ...], waves: int = 24) -> np.ndarray:
        """Return a random field of unit deviation, features about `scale_um` across, in a box of the grid."""
        drawn = WaveField.draw(self.rng, scale_um, waves)
        return drawn.on_grid(*(axis[part] for axis, part in zip(self.grid.axes_um, box, strict=True)))

    def points(self, box: tuple[slice, ...]) -> Points:
        """Return coordinates of a box's voxels in µm: z, y, x arrays that broadcast, float32."""
        z, y, x = (axis[part].astype(np.float32) for axis, part in zip(self.grid.axes_um, box, strict=True))
        return z[:, None, None], y[None, :, None], x[None, None, :]

    def voxel(self, mask_ZYX: np.ndarray, first: tuple[int, ...]) -> np.ndarray:
        """Return the position in µm of a random voxel of a mask whose first voxel is `first` of the grid."""
        place = np.unravel_index(self.rng.choice(np.flatnonzero(mask_ZYX)), mask_ZYX.shape)
        return np.array([axis[f + p] for axis, f, p in zip(self.grid.axes_um, first, place, strict=True)])


def grow_any(seed: int, grid: Grid, medium_ri: float, density: float = 1.0) -> Grown:
    """Grow the field number `seed` of the preset `any`.

    Parameters
    ----------
    seed : int
        Number of the volume.
    grid : Grid
        Where it is sampled.
    medium_ri : float
        Index of the medium.
    density : float
        Factor on the number of cells.

    Returns
    -------
    Grown
        Nuclei are labelled by the number of their cell.
    """
    draw = Sampler(generator(ANY, seed, 0), grid)
    shape = grid.shape
    out = Grown(
        ri_ZYX=np.full(shape, medium_ri, np.float32),
        cells_ZYX=_draw_cells(draw, density),
        nuclei_ZYX=np.zeros(shape, np.uint16),
        nucleolus_ZYX=np.zeros(shape, bool),
        lipid_ZYX=np.zeros(shape, bool),
    )
    everywhere = (slice(None),) * 3
    texture = draw.one(0, 0.003) * draw.wave(draw.ratio(0.3, 0.8), everywhere, 64)
    texture += draw.one(0, 0.003) * draw.wave(draw.ratio(1.5, 5.0), everywhere)
    dish_ri, spread = draw.ratio(0.006, 0.030), draw.one(0, 0.006)
    common = _Contents(
        texture,
        contrast=draw.ratio(0.0008, 0.012),
        darker=draw.one(0, 1),
        droplets=int(draw.ratio(1, 41)) - 1,
        granules=int(draw.ratio(1, 13)) - 1,
        vacuoles=int(draw.ratio(1, 6)) - 1,
        nucleoli=int(draw.rng.integers(0, 7)),
    )
    for label, box in enumerate(ndi.find_objects(out.cells_ZYX), start=1):
        if box is not None:
            cytoplasm = medium_ri + max(0.004, dish_ri + spread * draw.one(-1, 1))
            _fill_cell(draw, out, label, box, cytoplasm, medium_ri, common)
    _add_debris(draw, out, medium_ri)
    return out


@dataclass(frozen=True)
class _Contents:
    """What the cells of one field have in common."""

    texture_ZYX: np.ndarray
    contrast: float
    darker: float
    """Probability that a nucleus is darker than its cytoplasm."""
    droplets: int
    granules: int
    vacuoles: int
    nucleoli: int


def _draw_cells(draw: Sampler, density: float) -> np.ndarray:
    """Return labels of cells, uint16: each voxel belongs to the cell in which it lies deepest."""
    layout = draw.rng.choice(["single", "few", "crowd", "sheet", "stack"], p=[0.2, 0.35, 0.2, 0.13, 0.12])
    if layout in ("sheet", "stack"):
        return _confluent(draw, 1 if layout == "sheet" else int(draw.rng.integers(2, 4)), density)
    floating = draw.chance(0.3)
    ground = draw.first_um[0] + draw.extent_um[0] * (-0.2 if floating else draw.one(0.05, 0.3))
    middle = draw.first_um[1:] + draw.extent_um[1:] * draw.rng.uniform(0.3, 0.7, 2)
    number = {"single": 1, "few": int(draw.rng.integers(2, 6)), "crowd": int(draw.rng.integers(6, 15))}[str(layout)]
    number = max(1, round(density * number))
    size = draw.ratio(3.5, 8.0)
    depth = np.zeros(draw.grid.shape, np.float32)
    labels = np.zeros(draw.grid.shape, np.uint16)
    for label in range(1, number + 1):
        radius = size * draw.ratio(0.75, 1.35)
        centre = middle.copy()
        if label > 1:
            way, far = draw.one(0, 2 * np.pi), draw.one(0.5, 1.0 + 0.8 * np.sqrt(number)) * size * 1.4
            centre = centre + far * np.array([np.sin(way), np.cos(way)])
        body = _body(draw, centre, radius, ground, floating)
        box = draw.grid.box(body.centre_um, body.reach_um)
        if any(part.start >= part.stop for part in box):
            continue
        here = body.depth(draw.points(box)) + draw.one(0.03, 0.3) * draw.wave(draw.ratio(1.0, 4.0), box)
        if not floating:
            here = np.minimum(here, draw.points(box)[0] - np.float32(ground))
        wins = here > np.maximum(depth[box], 0)
        depth[box][wins], labels[box][wins] = here[wins], label
    return _one_piece(labels, draw.grid.spacing_um)


def _body(draw: Sampler, centre_YX: np.ndarray, radius: float, ground: float, floating: bool) -> Body:
    """Draw the shape of one cell."""
    kind = draw.rng.choice(["lumps", "ball", "dome", "column"], p=[0.4, 0.15, 0.35, 0.1])
    if floating and kind in ("dome", "column"):
        kind = "lumps"
    if kind in ("lumps", "ball"):
        flat = 1.0 if kind == "ball" else draw.one(0.4, 1.1)
        height = draw.first_um[0] + draw.extent_um[0] * draw.one(0.3, 0.7) if floating else ground + 0.8 * radius * flat
        centre = np.array([height, *centre_YX])
        count = 1 if kind == "ball" else int(draw.rng.integers(1, 5))
        return _lumps(draw, centre, radius * np.array([flat, 1, 1]), count)
    if kind == "column":
        semi, height, power = radius * draw.rng.uniform(0.5, 0.9, 2), radius * draw.one(1.6, 2.6), draw.one(0.15, 0.4)
    else:
        semi = radius * draw.rng.uniform(0.9, 2.0, 2)
        height, power = radius * draw.one(0.4, 1.2), draw.one(0.3, 1.2)
    turn, orders = draw.one(0, np.pi), np.arange(2, 7)
    waviness, phases = draw.one(0.02, 0.25) * draw.rng.normal(size=5) / orders, draw.rng.uniform(0, 2 * np.pi, 5)
    lamella, lamella_height = draw.one(1.0, 1.7) if draw.chance(0.5) else 1.0, draw.one(0.7, 2.0)

    def depth(points: Points) -> np.ndarray:
        z, y, x = points[0] - np.float32(ground), points[1] - centre_YX[0], points[2] - centre_YX[1]
        u = (x * np.cos(turn) + y * np.sin(turn)) / semi[0]
        v = (y * np.cos(turn) - x * np.sin(turn)) / semi[1]
        theta = np.arctan2(v, u)
        rim = 1 + sum(a * np.cos(k * theta + p) for k, a, p in zip(orders, waviness, phases, strict=True))
        rho = np.hypot(u, v) / np.maximum(rim, 0.3)
        top = height * np.clip(1 - rho**2, 0, None) ** power
        skirt = np.where(rho < lamella, lamella_height * np.clip(4 * (1 - rho / lamella), 0, 1), 0)
        top = np.maximum(top, skirt)
        return np.where(top > 0, np.minimum(top - z, z + 0.5), -1.0).astype(np.float32)

    reach = 1.9 * semi.max() * max(lamella, 1.0)
    return Body(depth, np.array([ground + height / 2, *centre_YX]), np.array([height / 2 + 1.5, reach, reach]))


def _lumps(draw: Sampler, centre: np.ndarray, semi: np.ndarray, count: int) -> Body:
    """Draw lumps that flow into each other: a level of a sum of Gaussian functions."""
    lumps = []
    for k in range(count):
        shift = np.zeros(3) if k == 0 else draw.rng.normal(size=3) * semi * np.array([0.3, 0.8, 0.8])
        own = semi * draw.rng.uniform(0.6, 1.15, 3) * (1.0 if k == 0 else draw.one(0.4, 0.9))
        lumps.append((centre + shift, own, random_axes(draw.rng) if draw.chance(0.7) else np.eye(3)))
    radius = float(np.cbrt(semi.prod()))
    reach = 2.6 * float(semi.max()) if count > 1 else 1.5 * float(semi.max())
    return Body(_level(lumps, radius), centre, np.full(3, reach + 1.0))


def _level(lumps: list[tuple[np.ndarray, np.ndarray, np.ndarray]], radius: float) -> Callable[[Points], np.ndarray]:
    """Return the depth inside a sum of Gaussian lumps; exact for one ball."""

    def depth(points: Points) -> np.ndarray:
        total: np.ndarray | float = 0.0
        for centre, semi, axes in lumps:
            offset = [p - np.float32(c) for p, c in zip(points, centre, strict=True)]
            squares = sum(
                ((row[0] * offset[0] + row[1] * offset[1] + row[2] * offset[2]) / np.float32(s)) ** 2
                for row, s in zip(axes.astype(np.float32), semi, strict=True)
            )
            total = total + np.exp(-squares)
        rho = np.sqrt(-np.log(np.clip(total, 1e-30, 1.0 - 1e-7)))
        return (np.float32(radius) * (1 - rho)).astype(np.float32)

    return depth


def _confluent(draw: Sampler, layers: int, density: float) -> np.ndarray:
    """Return labels of cells that fill layers without gaps, with walls of any tilt."""
    rng, box = draw.rng, (slice(None),) * 3
    z, y, x = draw.points(box)
    size = draw.ratio(7.0, 16.0)
    ground = draw.first_um[0] + draw.extent_um[0] * draw.one(0.05, 0.25)
    room = draw.first_um[0] + draw.extent_um[0] * 0.95 - ground
    thickness = min(draw.one(4.0, 14.0), room) if layers == 1 else room
    area = float(np.prod(draw.extent_um[1:] + size))
    number = max(2, min(40, round(density * layers * area / size**2)))
    seeds = draw.first_um + rng.uniform(-0.5, 0.5, (number, 3)) * size
    seeds[:, 1:] += rng.uniform(0, 1, (number, 2)) * draw.extent_um[1:]
    seeds[:, 0] = ground + (rng.integers(0, layers, number) + rng.uniform(0.2, 0.8, number)) * thickness / layers
    shift = [0.08 * size * draw.wave(0.3 * size, box, 12) for _ in range(2)]
    nearest = np.full(draw.grid.shape, np.inf, np.float32)
    labels = np.zeros(draw.grid.shape, np.uint16)
    flatten = 0.25 if layers == 1 else size * layers / thickness * 0.8
    for k, seed in enumerate(seeds, start=1):
        tilt = rng.normal(scale=0.25, size=2)
        dz = z - np.float32(seed[0])
        dy = y - np.float32(seed[1]) + shift[0] + tilt[0] * dz
        dx = x - np.float32(seed[2]) + shift[1] + tilt[1] * dz
        away = (dy**2 + dx**2 + (flatten * dz) ** 2 - (0.3 * size * rng.random()) ** 2).astype(np.float32)
        closer = away < nearest
        nearest[closer], labels[closer] = away[closer], k
    surface = thickness * (1 + draw.one(0, 0.25) * draw.wave(draw.ratio(3.0, 10.0), (slice(0, 1), *box[1:]), 12)[0])
    labels[(z < ground) | (z > ground + surface)] = 0
    for hole in np.flatnonzero(rng.random(number) < draw.one(0, 0.25)):  # holes in the sheet
        labels[labels == hole + 1] = 0
    return _one_piece(labels, draw.grid.spacing_um)


def _one_piece(labels_ZYX: np.ndarray, spacing_um: tuple[float, float, float]) -> np.ndarray:
    """Keep the largest piece of each cell, drop what is below 40 µm³, and number the rest from 1."""
    kept, number = np.zeros_like(labels_ZYX), 0
    for label, box in enumerate(ndi.find_objects(labels_ZYX), start=1):
        if box is None:
            continue
        pieces, _ = ndi.label(labels_ZYX[box] == label)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.max(initial=0) * np.prod(spacing_um) >= 40:
            number += 1
            kept[box][pieces == 1 + np.argmax(sizes)] = number
    return kept


def _fill_cell(
    draw: Sampler, out: Grown, label: int, box: tuple[slice, ...], cytoplasm: float, medium: float, common: _Contents
) -> None:
    """Write index and organelles of one cell."""
    spacing = draw.grid.spacing_um
    first = tuple(part.start for part in box)
    cell = out.cells_ZYX[box] == label
    ri, texture = out.ri_ZYX[box], common.texture_ZYX[box]
    thickness = np.where(cell.any(0), cell.sum(0) * spacing[0], 0)
    thin = np.clip(0.35 + 0.65 * thickness / draw.one(1.0, 4.0), 0, 1) if draw.chance(0.5) else np.ones_like(thickness)
    values = medium + (cytoplasm + texture - medium) * thin
    ri[cell] = values.astype(np.float32)[cell]
    depth = np.asarray(ndi.distance_transform_edt(np.pad(cell, 1), sampling=spacing), np.float32)[1:-1, 1:-1, 1:-1]
    if draw.chance(0.3):  # a rim, as of a dense cortex
        ri += np.float32(draw.one(-0.002, 0.006)) * np.exp(-((depth / 0.4) ** 2)) * cell
    fate = draw.rng.choice(["usual", "no nucleus", "mitosis", "dying"], p=[0.86, 0.05, 0.05, 0.04])
    if fate == "mitosis":
        _add_chromatin(draw, ri, cell, cytoplasm, first)
    elif fate != "no nucleus":
        number = 2 if fate == "usual" and draw.chance(0.12) else 1
        for _ in range(number):
            _add_nucleus(draw, out, label, box, depth, cytoplasm, common, fate == "dying", 1 / number)
    plasm = cell & (out.nuclei_ZYX[box] == 0)
    for _ in range(common.vacuoles if draw.chance(0.5) else 0):
        _add_blob(draw, ri, plasm, first, (0.3, 2.5), medium + draw.one(0, 0.004), stretch=1.3, within=True)
    lipid = out.lipid_ZYX[box]
    clustered = draw.voxel(plasm, first) if plasm.any() and draw.chance(0.4) else None
    for _ in range(round(common.droplets * draw.one(0.3, 1.7))):
        inside = _add_blob(
            draw, ri, plasm & ~lipid, first, (0.25, 1.5), draw.one(1.385, 1.45), 1.1, within=True, near=clustered
        )
        if inside is not None:
            lipid |= inside
    for _ in range(round(common.granules * draw.one(0.3, 1.7))):
        _add_blob(draw, ri, plasm & ~lipid, first, (0.2, 0.6), draw.one(1.37, 1.42), stretch=3.0, within=False)


def _add_nucleus(
    draw: Sampler,
    out: Grown,
    label: int,
    box: tuple[slice, ...],
    depth_ZYX: np.ndarray,
    cytoplasm: float,
    common: _Contents,
    dying: bool,
    share: float,
) -> None:
    """Write a nucleus anywhere in a cell, and its nucleoli."""
    spacing, first = draw.grid.spacing_um, tuple(part.start for part in box)
    room = (depth_ZYX > draw.one(0.2, 0.8)) & (out.nuclei_ZYX[box] == 0)
    volume = float((depth_ZYX > 0).sum() * np.prod(spacing))
    size = draw.one(0.05, 0.6) if draw.chance(0.4) else draw.ratio(0.04, 0.5)  # some of it is cut by the cell's surface
    wanted = volume * share * (draw.ratio(0.03, 0.1) if dying else size)
    radius = float(np.cbrt(wanted * 3 / (4 * np.pi)))
    deepest = float(depth_ZYX.max())
    central = draw.chance(0.3)  # the rest lies anywhere, also close to the cell's surface
    starts = room & (depth_ZYX > (0.85 * deepest if central else min(draw.one(0.3, 1.0) * radius, 0.85 * deepest)))
    if not starts.any() or radius < 0.8:
        return
    centre = draw.voxel(starts, first)
    # a flat cell has room for a flat nucleus only
    tall = min(radius * draw.one(0.7, 1.1), 1.3 * deepest)
    wide = np.sqrt(radius**3 / tall) * np.array([1, 1]) * draw.ratio(0.8, 1.25) ** np.array([1, -1])
    lobes = 1 if draw.chance(0.6) else int(draw.rng.integers(2, 4))
    semi = np.array([tall, *wide])
    body = _lumps(draw, centre, semi if lobes == 1 else 0.8 * semi, lobes)
    turn = draw.one(0, 2 * np.pi)
    if lobes == 1:
        axes = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
        body = Body(_level([(centre, semi, axes)], radius), centre, body.reach_um)
    level = body.depth(draw.points(box)) + draw.one(0, 0.12) * radius * draw.wave(draw.ratio(1.0, 4.0), box)
    pieces, count = ndi.label((level > 0) & room)
    if not count:
        return
    nucleus = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    if nucleus.sum() * np.prod(spacing) < 3:
        return
    contrast = common.contrast * draw.ratio(0.7, 1.4) * (-1 if draw.chance(common.darker) else 1)
    if dying:
        contrast = draw.one(0.006, 0.03)
    out.nuclei_ZYX[box][nucleus] = label
    ri = out.ri_ZYX[box]
    base = cytoplasm + contrast + draw.one(0.1, 1.2) * common.texture_ZYX[box]
    if draw.chance(0.3):
        base = base + np.float32(draw.one(-0.002, 0.004)) * np.exp(-((np.clip(level, 0, None) / 0.3) ** 2))
    ri[nucleus] = base.astype(np.float32)[nucleus]
    if draw.chance(0.4):
        outside = ndi.distance_transform_edt(~nucleus, sampling=spacing)
        ri += np.float32(draw.one(-0.003, 0.005)) * np.exp(-outside / 1.0) * ((depth_ZYX > 0) & ~nucleus)
    inner, nucleolus = nucleus.copy(), out.nucleolus_ZYX[box]
    for _ in range(int(draw.rng.integers(0, common.nucleoli + 1))):
        sizes = (0.3, max(0.35, min(1.8, 0.55 * radius)))
        added = draw.ratio(0.004, 0.02)
        inside = _add_blob(draw, ri, inner, first, sizes, added, stretch=1.6, within=True, add=True)
        if inside is not None:
            nucleolus |= inside
            inner &= ~ndi.binary_dilation(inside)


def _add_chromatin(
    draw: Sampler, ri_ZYX: np.ndarray, cell_ZYX: np.ndarray, cytoplasm: float, first: tuple[int, ...]
) -> None:
    """Write the condensed chromatin of a cell in mitosis, which is no nucleus: one plate, or two."""
    for _ in range(1 if draw.chance(0.6) else 2):
        added = draw.one(0.002, 0.012)
        _add_blob(draw, ri_ZYX, cell_ZYX, first, (0.8, 1.6), cytoplasm + added, stretch=3.5, within=False)


def _add_blob(
    draw: Sampler,
    ri_ZYX: np.ndarray,
    allowed_ZYX: np.ndarray,
    first: tuple[int, ...],
    radius_um: tuple[float, float],
    value: float,
    stretch: float,
    within: bool,
    add: bool = False,
    near: np.ndarray | None = None,
) -> np.ndarray | None:
    """Write an ellipsoid of an index, or add to it, and return its mask; None where it does not fit.

    With `within` it has to lie inside what is allowed, else it is clipped to it.
    """
    if not allowed_ZYX.any():
        return None
    radius = draw.ratio(*radius_um)
    centre = draw.voxel(allowed_ZYX, first)
    if near is not None:
        centre = near + draw.rng.normal(scale=1.8, size=3)
    semi = radius * np.array([draw.one(1, stretch), draw.one(0.9, 1.1), draw.one(0.9, 1.1)])
    reach = float(semi.max())
    axes = random_axes(draw.rng)
    parts = []
    for axis, f, n, c in zip(draw.grid.axes_um, first, ri_ZYX.shape, centre, strict=True):
        low = int(np.clip(np.searchsorted(axis, c - reach) - f, 0, n))
        high = int(np.clip(np.searchsorted(axis, c + reach) - f, low, n))
        parts.append(slice(low, high))
    box = tuple(parts)
    shifted = tuple(slice(p.start + f, p.stop + f) for p, f in zip(box, first, strict=True))
    inside = _level([(centre, semi, axes)], radius)(draw.points(shifted)) > 0
    if not inside.any() or (within and not allowed_ZYX[box][inside].all()):
        return None
    inside &= allowed_ZYX[box]
    ri = ri_ZYX[box]
    ri[inside] = ri[inside] + value if add else value
    mask = np.zeros(ri_ZYX.shape, bool)
    mask[box] = inside
    return mask


def _add_debris(draw: Sampler, out: Grown, medium: float) -> None:
    """Write specks outside the cells."""
    free = out.cells_ZYX == 0
    for _ in range(int(draw.ratio(1, 30)) - 1):
        _add_blob(draw, out.ri_ZYX, free, (0, 0, 0), (0.2, 1.2), medium + draw.one(0.004, 0.03), 2.0, within=False)
