"""Draw a random scene. All random choices about its cells come from one generator, seeded by (preset, seed)."""

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cytovox.simulation.fields import WaveField
from cytovox.simulation.placement import APRON_UM, Place, place_cells
from cytovox.simulation.presets import CellLine
from cytovox.simulation.scene import Blob, Bulge, Cell, Nucleus, Scene


def generator(preset: str, seed: int, stream: int) -> np.random.Generator:
    """Return a generator of one volume; each `stream` (cells, noise, ...) is independent of the others."""
    return np.random.default_rng([zlib.crc32(preset.encode()), seed, stream])


def random_axes(rng: np.random.Generator) -> np.ndarray:
    """Return a random rotation or reflection matrix, uniformly distributed (QR of a Gaussian matrix)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def draw_scene(line: CellLine, seed: int, extent_um: tuple[float, float, float], medium_ri: float = 1.337) -> Scene:
    """Return the random scene of (preset, seed) for a field of a given size.

    Parameters
    ----------
    line : CellLine
        The preset.
    seed : int
        Random seed of the volume.
    extent_um : (float, float, float)
        Size of the field, z, y, x.
    medium_ri : float
        Index of the medium.
    """
    rng = generator(line.name, seed, 0)
    z_um, *sides_um = extent_um
    coverslip_um = min(rng.uniform(1.2, 4.0), 0.2 * z_um)
    common_ri = rng.uniform(*line.cytoplasm_ri)  # cells of one dish are similar: half of the index is common to them
    cells = tuple(
        _cell(rng, line, place, 0.5 * (common_ri + rng.uniform(*line.cytoplasm_ri)))
        for place in place_cells(rng, line, (sides_um[0], sides_um[1]))
    )
    area_um2 = (sides_um[0] + 2 * APRON_UM) * (sides_um[1] + 2 * APRON_UM)
    specks = round(rng.uniform(*line.debris_per_1000_um2) * area_um2 / 1000)
    debris = tuple(_speck(rng, sides_um, medium_ri) for _ in range(specks))
    return Scene(
        preset=line.name,
        seed=seed,
        coverslip_um=coverslip_um,
        medium_ri=medium_ri,
        overlap_um=line.overlap_um,
        overlapping=line.overlapping,
        cells=cells,
        debris=debris,
        grain=WaveField.draw(rng, 0.42, 96),
        grain_ri=rng.uniform(0.0025, 0.0045),
        drift=WaveField.draw(rng, 3.5, 24),
        drift_ri=rng.uniform(0.0015, 0.0030),
        calm=WaveField.draw(rng, 1.0, 32),
    )


def _cell(rng: np.random.Generator, line: CellLine, place: Place, ri: float) -> Cell:
    """Return a random cell at a given place: first its outline, then its contents."""
    height = 2 * place.semi_um[0] * rng.uniform(0.9, 1.0) if place.ball else rng.uniform(*line.height_um)
    arms, fans = ((), ()) if place.ball else _stretches(rng, line)
    orders = np.arange(2, 7)
    waviness = (0.03 if place.ball else 0.14) * rng.normal(size=5) / orders
    lift = height / 2 * rng.uniform(0.85, 1.0) if place.ball else 0.0
    cell = Cell(
        center_um=place.center_um,
        angle=place.angle,
        semi_um=place.semi_um,
        height_um=height,
        power=0.5 if place.ball else rng.uniform(*line.dome_power),
        lift_um=lift,
        harmonics=np.stack([orders, waviness, rng.uniform(0, 2 * np.pi, 5)], axis=1),
        arms=arms,
        lamellae=fans,
        lamella_height_um=rng.uniform(1.1, 2.1),
        lamella_share=rng.uniform(*line.lamella_share),
        edge=WaveField.draw(rng, 1.6, 16, axes=2),
        ri=ri,
        nucleus=_nucleus(rng, line, place, height, lift),
        droplets=(),
        granules=(),
    )
    cell = replace(cell, droplets=draw_droplets(rng, line, cell))
    return replace(cell, granules=_granules(rng, line, cell))


def _stretches(rng: np.random.Generator, line: CellLine) -> tuple[tuple[Bulge, ...], tuple[Bulge, ...]]:
    """Return arms, the first two at the ends of the long axis, and the fan-shaped parts of the lamella."""
    arms = tuple(
        Bulge(
            np.pi * i + rng.normal(scale=0.25) if i < 2 else rng.uniform(0, 2 * np.pi),
            rng.uniform(*line.arm_reach),
            rng.uniform(6, 20),
        )
        for i in range(rng.integers(*line.arms, endpoint=True))
    )
    return arms, tuple(
        Bulge(rng.uniform(0, 2 * np.pi), rng.uniform(*line.lamella_um), rng.uniform(0.8, 4.0))
        for _ in range(int(rng.integers(2, 5)))
    )


def _nucleus(rng: np.random.Generator, line: CellLine, place: Place, height: float, lift: float) -> Nucleus:
    """Return a random nucleus that fits under the cell's dome, near its centre."""
    long_um = place.semi_um[0] * min(rng.uniform(*line.nucleus_length) + (0.08 if place.ball else 0.0), 0.8)
    short_um = min(long_um / rng.uniform(*line.nucleus_aspect), 0.82 * place.semi_um[1])
    tall_um = 0.95 * long_um if place.ball else 0.5 * height * rng.uniform(*line.nucleus_height)
    tall_um = min(tall_um, 1.1 * short_um)
    along, across = rng.uniform(-1, 1, 2) * (np.array([place.semi_um[0] - long_um, place.semi_um[1] - short_um]) * 0.45)
    turn = place.angle + rng.normal(scale=0.15)
    z = lift if place.ball else max(height * rng.uniform(0.44, 0.48), tall_um + 0.35)
    body = Blob(
        center_um=np.array([z, *(place.center_um + _to_yx(along, across, place.angle))]),
        semi_um=np.array([tall_um, short_um, long_um]),
        axes=np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]),
        ri=rng.uniform(*line.nucleus_contrast),
        edge_um=0.0,
    )
    return Nucleus(
        body=body,
        bumps=WaveField.draw(rng, 2.2, 16),
        roughness=rng.uniform(0.02, 0.05),
        rim=rng.uniform(0.002, 0.005),
        halo=rng.uniform(0.001, 0.006),
        nucleoli=_nucleoli(rng, line, body),
    )


def _to_yx(along: float, across: float, angle: float) -> np.ndarray:
    """Return the (y, x) vector with these components along the long and the short axis of a cell."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([along * sin + across * cos, along * cos - across * sin])


def _nucleoli(rng: np.random.Generator, line: CellLine, body: Blob) -> tuple[Blob, ...]:
    """Return random nucleoli inside the nucleus that do not touch each other."""
    found: list[Blob] = []
    for _ in range(rng.integers(*line.nucleoli, endpoint=True)):
        radius = np.minimum(rng.uniform(*line.nucleolus_radius_um) * rng.uniform(0.85, 1.15, 3), 0.62 * body.semi_um)
        for _attempt in range(20):
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            place = direction * rng.random() ** (1 / 3) * np.clip(0.85 - radius / body.semi_um, 0, 1)
            center = body.center_um + (place * body.semi_um) @ body.axes
            if all(np.linalg.norm(center - b.center_um) > radius.max() + b.semi_um.max() + 0.3 for b in found):
                found.append(Blob(center, radius, body.axes, rng.uniform(*line.nucleolus_contrast), 0.15))
                break
    return tuple(found)


def _place(rng: np.random.Generator, cell: Cell, radius: float, near: float) -> np.ndarray | None:
    """Return a random centre of a sphere that fits into the cytoplasm, or None where 40 attempts fail.

    The larger `near`, the closer the centre is to the middle of the cell.
    """
    core = cell.nucleus.body
    ring = np.linspace(0, 2 * np.pi, 9)[:-1]
    around = 1.2 * radius * np.stack([np.sin(ring), np.cos(ring)], 1)
    for _ in range(40):
        angle, rho = rng.uniform(0, 2 * np.pi), rng.random() ** (0.5 + near)
        along, across = rho * np.cos(angle) * cell.semi_um[0], rho * np.sin(angle) * cell.semi_um[1]
        center = cell.center_um + _to_yx(along, across, cell.angle)
        yx = np.concatenate([[center], center + around])
        wave = cell.edge.at(yx)
        y, x = (yx - cell.center_um).T
        edge, skirt = cell.outline(y, x, wave)
        bottom, top = cell.profile(edge, skirt, wave)
        low, high = bottom.max() + radius + 0.2, top.min() - radius - 0.2
        if edge.max() > 0.97 or high < low:
            continue
        point = np.array([rng.uniform(low, high), *center])
        offset = point - core.center_um
        outside = 1 - 1 / max(float(core.rho(offset)), 1e-6)  # share of the offset that lies outside the nucleus
        if outside * np.linalg.norm(offset) > radius + 0.3:
            return point
    return None


def draw_droplets(rng: np.random.Generator, line: CellLine, cell: Cell) -> tuple[Blob, ...]:
    """Return random droplets in a cell's cytoplasm that do not touch; omit those for which no place is found."""
    found: list[Blob] = []
    for _ in range(rng.integers(*line.droplets, endpoint=True)):
        radius = rng.uniform(*line.droplet_radius_um)
        point = _place(rng, cell, radius, near=0.2)
        if point is not None and all(np.linalg.norm(point - b.center_um) >= radius + b.semi_um[0] + 0.2 for b in found):
            found.append(Blob(point, np.full(3, radius), np.eye(3), rng.uniform(*line.droplet_ri), 0.05))
    return tuple(found)


def _granules(rng: np.random.Generator, line: CellLine, cell: Cell) -> tuple[Blob, ...]:
    """Return random clusters of rod-like granules with soft edges, as dense as lipid droplets."""
    found: list[Blob] = []
    for _ in range(rng.integers(*line.granules, endpoint=True)):
        middle = _place(rng, cell, 0.6, near=0.3)
        if middle is None:
            continue
        for _ in range(int(rng.integers(3, 7))):
            point = middle + rng.normal(scale=0.6, size=3)
            semi = np.array([rng.uniform(0.6, 1.1), rng.uniform(0.25, 0.35), rng.uniform(0.25, 0.35)])
            if all(np.linalg.norm(point - b.center_um) > b.semi_um[0] + 0.6 for b in cell.droplets):
                found.append(Blob(point, semi, random_axes(rng), rng.uniform(*line.granule_ri), 0.15))
    return tuple(found)


def _speck(rng: np.random.Generator, sides_um: Sequence[float], medium_ri: float) -> Blob:
    """Return a speck of debris: most lie on the coverslip, some float."""
    semi = rng.uniform(0.35, 1.7) * rng.uniform(0.7, 1.4, 3)
    z = semi[0] if rng.random() < 0.7 else rng.uniform(0.5, 12.0)
    yx = [rng.uniform(-APRON_UM, side + APRON_UM) for side in sides_um]
    contrast = rng.uniform(0.006, 0.03)
    return Blob(np.array([z, *yx]), semi, random_axes(rng), medium_ri + contrast, rng.uniform(0.1, 0.4))
