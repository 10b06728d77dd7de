"""Drawing a scene: every random choice about cells, from one generator named by (preset, seed)."""

import zlib
from dataclasses import replace

import numpy as np

from cytovox.simulation.fields import WaveField
from cytovox.simulation.placement import APRON_UM, Place, place_cells
from cytovox.simulation.presets import CellLine, Range
from cytovox.simulation.scene import Blob, Bulge, Cell, Nucleus, Scene


def generator(preset: str, seed: int, stream: int) -> np.random.Generator:
    """The generator of one volume; `stream` keeps the cells apart from the noise of their observation."""
    return np.random.default_rng([zlib.crc32(preset.encode()), seed, stream])


def _one(rng: np.random.Generator, bounds: Range) -> float:
    return float(rng.uniform(*bounds))


def _count(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _turned(rng: np.random.Generator) -> np.ndarray:
    """A random rotation, uniform over directions."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def draw_scene(line: CellLine, seed: int, extent_um: tuple[float, float, float], medium_ri: float = 1.337) -> Scene:
    """Draw the scene named by (preset, seed) for a field of a given size.

    Parameters
    ----------
    line : CellLine
        The preset.
    seed : int
        Number of the volume.
    extent_um : (float, float, float)
        Size of the field, z, y, x.
    medium_ri : float
        Index of the medium.
    """
    rng = generator(line.name, seed, 0)
    height, *sides = extent_um
    coverslip_um = min(rng.uniform(1.2, 4.0), 0.2 * height)
    common_ri = _one(rng, line.cytoplasm_ri)  # cells of one dish are alike: half of the spread is the dish's
    cells = tuple(
        _cell(rng, line, place, 0.5 * (common_ri + _one(rng, line.cytoplasm_ri)))
        for place in place_cells(rng, line, (sides[0], sides[1]))
    )
    area = (sides[0] + 2 * APRON_UM) * (sides[1] + 2 * APRON_UM)
    specks = round(_one(rng, line.debris_per_1000_um2) * area / 1000)
    debris = tuple(_speck(rng, (sides[0], sides[1]), medium_ri) for _ in range(specks))
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
    """Draw one cell at its place: first its hull, then what it carries."""
    height = 2 * place.semi_um[0] * rng.uniform(0.9, 1.0) if place.ball else _one(rng, line.height_um)
    arms, fans = ((), ()) if place.ball else _stretches(rng, line)
    orders = np.arange(2, 7)
    waviness = (0.03 if place.ball else 0.14) * rng.normal(size=5) / orders
    lift = height / 2 * rng.uniform(0.85, 1.0) if place.ball else 0.0
    cell = Cell(
        center_um=place.center_um,
        angle=place.angle,
        semi_um=place.semi_um,
        height_um=height,
        power=0.5 if place.ball else _one(rng, line.dome_power),
        lift_um=lift,
        harmonics=np.stack([orders, waviness, rng.uniform(0, 2 * np.pi, 5)], axis=1),
        arms=arms,
        lamellae=fans,
        lamella_height_um=rng.uniform(1.1, 2.1),
        lamella_share=_one(rng, line.lamella_share),
        edge=WaveField.draw(rng, 1.6, 16, axes=2),
        ri=ri,
        nucleus=_nucleus(rng, line, place, height, lift),
        droplets=(),
        granules=(),
    )
    cell = replace(cell, droplets=draw_droplets(rng, line, cell))
    return replace(cell, granules=_granules(rng, line, cell))


def _stretches(rng: np.random.Generator, line: CellLine) -> tuple[tuple[Bulge, ...], tuple[Bulge, ...]]:
    """Arms, the first two at the ends of the long axis, and fans of lamella."""
    arms = []
    for i in range(_count(rng, line.arms)):
        way = np.pi * i + rng.normal(scale=0.25) if i < 2 else rng.uniform(0, 2 * np.pi)
        arms.append(Bulge(way, _one(rng, line.arm_reach), rng.uniform(6, 20)))
    fans = [
        Bulge(rng.uniform(0, 2 * np.pi), _one(rng, line.lamella_um), rng.uniform(0.8, 4.0))
        for _ in range(int(rng.integers(2, 5)))
    ]
    return tuple(arms), tuple(fans)


def _nucleus(rng: np.random.Generator, line: CellLine, place: Place, height: float, lift: float) -> Nucleus:
    """A nucleus that fits under the cell's dome, anywhere near its middle."""
    long_um = place.semi_um[0] * min(_one(rng, line.nucleus_length) + (0.08 if place.ball else 0.0), 0.8)
    short_um = min(long_um / _one(rng, line.nucleus_aspect), 0.82 * place.semi_um[1])
    tall_um = 0.95 * long_um if place.ball else 0.5 * height * _one(rng, line.nucleus_height)
    tall_um = min(tall_um, 1.1 * short_um)
    room = np.array([place.semi_um[0] - long_um, place.semi_um[1] - short_um]) * 0.45
    along, across = rng.uniform(-1, 1, 2) * room
    turn = place.angle + rng.normal(scale=0.15)
    cos, sin = np.cos(place.angle), np.sin(place.angle)
    middle = lift if place.ball else max(height * rng.uniform(0.44, 0.48), tall_um + 0.35)
    y, x = place.center_um + np.array([along * sin + across * cos, along * cos - across * sin])
    body = Blob(
        center_um=np.array([middle, y, x]),
        semi_um=np.array([tall_um, short_um, long_um]),
        axes=np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]),
        ri=_one(rng, line.nucleus_contrast),
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


def _nucleoli(rng: np.random.Generator, line: CellLine, body: Blob) -> tuple[Blob, ...]:
    """Round bodies inside the nucleus, apart from each other."""
    found: list[Blob] = []
    for _ in range(_count(rng, line.nucleoli)):
        radius = np.minimum(_one(rng, line.nucleolus_radius_um) * rng.uniform(0.85, 1.15, 3), 0.62 * body.semi_um)
        for _attempt in range(20):
            way = rng.normal(size=3)
            place = way / np.linalg.norm(way) * rng.random() ** (1 / 3) * np.clip(0.85 - radius / body.semi_um, 0, 1)
            center = body.center_um + (place * body.semi_um) @ body.axes
            if all(np.linalg.norm(center - b.center_um) > radius.max() + b.semi_um.max() + 0.3 for b in found):
                found.append(Blob(center, radius, body.axes, _one(rng, line.nucleolus_contrast), 0.15))
                break
    return tuple(found)


def _place(rng: np.random.Generator, cell: Cell, radius: float, near: float) -> np.ndarray | None:
    """A centre in the cytoplasm with `radius` of it all around, nearer to the nucleus the larger `near`; or None."""
    core = cell.nucleus.body
    for _ in range(40):
        way, far = rng.uniform(0, 2 * np.pi), rng.random() ** (0.5 + near)
        u, v = far * np.cos(way) * cell.semi_um[0], far * np.sin(way) * cell.semi_um[1]
        cos, sin = np.cos(cell.angle), np.sin(cell.angle)
        center = cell.center_um + np.array([u * sin + v * cos, u * cos - v * sin])
        ring = np.linspace(0, 2 * np.pi, 9)[:-1]
        yx = np.concatenate([[center], center + 1.2 * radius * np.stack([np.sin(ring), np.cos(ring)], 1)])
        wave = cell.edge.at(yx)
        y, x = (yx - cell.center_um).T
        edge, skirt = cell.outline(y, x, wave)
        bottom, top = cell.profile(edge, skirt, wave)
        low, high = bottom.max() + radius + 0.2, top.min() - radius - 0.2
        if edge.max() > 0.97 or high < low:
            continue
        point = np.array([rng.uniform(low, high), *center])
        z, y, x = point - core.center_um
        rho = float(core.rho((z, y, x)))
        if (1 - 1 / max(rho, 1e-6)) * np.linalg.norm(point - core.center_um) > radius + 0.3:  # way to its surface
            return point
    return None


def draw_droplets(rng: np.random.Generator, line: CellLine, cell: Cell) -> tuple[Blob, ...]:
    """Droplets in a cell's cytoplasm, apart from each other; those that find no room are left out."""
    found: list[Blob] = []
    for _ in range(_count(rng, line.droplets)):
        radius = _one(rng, line.droplet_radius_um)
        point = _place(rng, cell, radius, near=0.2)
        if point is None or any(np.linalg.norm(point - b.center_um) < radius + b.semi_um[0] + 0.2 for b in found):
            continue
        found.append(Blob(point, np.full(3, radius), np.eye(3), _one(rng, line.droplet_ri), 0.05))
    return tuple(found)


def _granules(rng: np.random.Generator, line: CellLine, cell: Cell) -> tuple[Blob, ...]:
    """Clusters of rod-like granules with soft edges: as dense as lipid, but not round and never alone."""
    found: list[Blob] = []
    for _ in range(_count(rng, line.granules)):
        middle = _place(rng, cell, 0.6, near=0.3)
        if middle is None:
            continue
        for _ in range(int(rng.integers(3, 7))):
            point = middle + rng.normal(scale=0.6, size=3)
            semi = np.array([rng.uniform(0.6, 1.1), rng.uniform(0.25, 0.35), rng.uniform(0.25, 0.35)])
            if all(np.linalg.norm(point - b.center_um) > b.semi_um[0] + 0.6 for b in cell.droplets):
                found.append(Blob(point, semi, _turned(rng), _one(rng, line.granule_ri), 0.15))
    return tuple(found)


def _speck(rng: np.random.Generator, sides_um: tuple[float, float], medium_ri: float) -> Blob:
    """Debris: most of it lies on the coverslip, some floats."""
    semi = rng.uniform(0.35, 1.7) * rng.uniform(0.7, 1.4, 3)
    height = semi[0] if rng.random() < 0.7 else rng.uniform(0.5, 12.0)
    place = [rng.uniform(-APRON_UM, side + APRON_UM) for side in sides_um]
    contrast = rng.uniform(0.006, 0.03)
    return Blob(np.array([height, *place]), semi, _turned(rng), medium_ri + contrast, rng.uniform(0.1, 0.4))
