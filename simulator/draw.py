"""Drawing a scene: every random choice about cells, from one generator named by (preset, seed)."""

import zlib

import numpy as np

from simulator.fields import WaveField
from simulator.presets import CellLine, Range
from simulator.scene import Blob, Bulge, Cell, Nucleus, Scene

#: Cells whose centre lies this far outside the field are drawn too: they reach in.
APRON_UM = 8.0


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
    cells = _settle(rng, line, (sides[0], sides[1]), medium_ri)
    area = (sides[0] + 2 * APRON_UM) * (sides[1] + 2 * APRON_UM)
    specks = round(_one(rng, line.debris_per_1000_um2) * area / 1000)
    debris = tuple(_speck(rng, (sides[0], sides[1]), medium_ri) for _ in range(specks))
    return Scene(
        preset=line.name,
        seed=seed,
        coverslip_um=coverslip_um,
        medium_ri=medium_ri,
        overlap_um=line.overlap_um,
        climbs=line.overlapping,
        cells=cells,
        debris=debris,
        grain=WaveField.draw(rng, 0.42, 96),
        grain_ri=rng.uniform(0.0025, 0.0045),
        drift=WaveField.draw(rng, 3.5, 24),
        drift_ri=rng.uniform(0.0015, 0.0030),
        calm=WaveField.draw(rng, 1.0, 32),
    )


def _settle(
    rng: np.random.Generator, line: CellLine, sides_um: tuple[float, float], medium_ri: float
) -> tuple[Cell, ...]:
    """Let cells settle one after another: against an earlier one, or on free ground."""
    low, high = -APRON_UM * np.ones(2), np.array(sides_um) + APRON_UM
    number = max(1, round(_one(rng, line.cells_per_1000_um2) * float(np.prod(high - low)) / 1000))
    crowding, flow = _one(rng, line.crowding), rng.uniform(0, np.pi)
    field_ri = rng.uniform(*line.cytoplasm_ri)
    placed: list[tuple[np.ndarray, float, tuple[float, float], bool]] = []
    for _ in range(number):
        ball = bool(rng.random() < line.round_share)
        long_um = _one(rng, line.ball_um if ball else line.length_um) / 2
        semi = (long_um, long_um if ball else long_um / _one(rng, line.aspect))
        angle = flow + rng.normal(scale=0.35) if semi[0] > 1.8 * semi[1] else rng.uniform(0, np.pi)
        for _attempt in range(30):
            against = bool(placed) and rng.random() < crowding
            if not placed:  # the first one lies well inside: no field is empty
                center = np.array(sides_um) * rng.uniform(0.3, 0.7, 2)
            elif against:
                other, other_angle, other_semi, _ = placed[rng.integers(len(placed))]
                way = rng.uniform(0, 2 * np.pi)
                gap = _radius(semi, angle, way) + _radius(other_semi, other_angle, way)
                center = other + gap * rng.uniform(0.8, 1.0) * np.array([np.sin(way), np.cos(way)])
            else:
                center = rng.uniform(low, high)
            inside = bool(np.all((center >= low) & (center <= high)))
            if inside and _fits(center, angle, semi, placed, 0.78 if against else 1.0):
                placed.append((center, angle, semi, ball))
                break
    return tuple(_cell(rng, line, *place, 0.5 * field_ri + 0.5 * _one(rng, line.cytoplasm_ri)) for place in placed)


def _radius(semi: tuple[float, float], angle: float, way: float) -> float:
    """Radius of an ellipse in one direction."""
    return float(1.0 / np.hypot(np.cos(way - angle) / semi[0], np.sin(way - angle) / semi[1]))


def _fits(
    center: np.ndarray,
    angle: float,
    semi: tuple[float, float],
    placed: list[tuple[np.ndarray, float, tuple[float, float], bool]],
    share: float,
) -> bool:
    """Whether a cell here leaves every earlier one `share` of the distance at which their bodies would touch."""
    for other, other_angle, other_semi, _ in placed:
        step = center - other
        way = float(np.arctan2(step[0], step[1]))
        touch = _radius(semi, angle, way) + _radius(other_semi, other_angle, way)
        if np.hypot(*step) < share * touch:
            return False
    return True


def _cell(
    rng: np.random.Generator,
    line: CellLine,
    center: np.ndarray,
    angle: float,
    semi: tuple[float, float],
    ball: bool,
    ri: float,
) -> Cell:
    """Draw one cell at its place: first its hull, then what it carries."""
    height = 2 * semi[0] * rng.uniform(0.9, 1.0) if ball else _one(rng, line.height_um)
    orders = np.arange(2, 7)
    waviness = 0.015 if ball else 0.07
    harmonics = np.stack(
        [orders, waviness * rng.normal(size=5) * 2 / orders, rng.uniform(0, 2 * np.pi, 5)], axis=1
    )
    arms, fans = [], []
    if not ball:
        for i in range(_count(rng, line.arms)):
            way = (0.0, np.pi)[i] + rng.normal(scale=0.25) if i < 2 else rng.uniform(0, 2 * np.pi)
            arms.append(Bulge(way, _one(rng, line.arm_reach), rng.uniform(6, 20)))
        for _ in range(int(rng.integers(2, 5))):
            fans.append(Bulge(rng.uniform(0, 2 * np.pi), _one(rng, line.lamella_um), rng.uniform(0.8, 4.0)))
    hull = {
        "center_um": center,
        "angle": angle,
        "semi_um": semi,
        "height_um": height,
        "power": 0.5 if ball else _one(rng, line.dome_power),
        "lift_um": height / 2 * rng.uniform(0.85, 1.0) if ball else 0.0,
        "harmonics": harmonics,
        "arms": tuple(arms),
        "lamellae": tuple(fans),
        "lamella_height_um": rng.uniform(1.0, 1.9),
        "lamella_share": _one(rng, line.lamella_share),
        "edge": WaveField.draw(rng, 1.6, 16, axes=2),
        "ri": ri,
    }
    nucleus = _nucleus(rng, line, center, angle, semi, height, ball, hull["lift_um"])
    bare = Cell(**hull, nucleus=nucleus, droplets=(), granules=())
    droplets = _droplets(rng, line, bare)
    return Cell(**hull, nucleus=nucleus, droplets=droplets, granules=_granules(rng, line, bare, droplets))


def _nucleus(
    rng: np.random.Generator,
    line: CellLine,
    center: np.ndarray,
    angle: float,
    semi: tuple[float, float],
    height: float,
    ball: bool,
    lift: float,
) -> Nucleus:
    share = _one(rng, line.nucleus_length) + (0.08 if ball else 0.0)
    share = min(share, 0.8)
    long_um = semi[0] * share
    short_um = min(long_um / _one(rng, line.nucleus_aspect), 0.82 * semi[1])
    tall_um = (0.95 * long_um) if ball else 0.5 * height * _one(rng, line.nucleus_height)
    tall_um = min(tall_um, 1.1 * short_um)
    room = np.array([semi[0] - long_um, semi[1] - short_um]) * 0.45
    along, across = rng.uniform(-1, 1, 2) * room
    turn = angle + rng.normal(scale=0.15)
    cos, sin = np.cos(angle), np.sin(angle)
    middle = lift if ball else max(height * rng.uniform(0.44, 0.48), tall_um + 0.35)
    body = Blob(
        center_um=np.array([middle, center[0] + along * sin + across * cos, center[1] + along * cos - across * sin]),
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
        radius = np.minimum(
            _one(rng, line.nucleolus_radius_um) * rng.uniform(0.85, 1.15, 3), 0.55 * body.semi_um
        )
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
        rho = cell.outline(*(yx - cell.center_um).T, wave)
        bottom, top = cell.profile(*rho, wave)
        low, high = bottom.max() + radius + 0.2, top.min() - radius - 0.2
        if rho[0].max() > 0.97 or high < low:
            continue
        point = np.array([rng.uniform(low, high), *center])
        offset = point - core.center_um
        gap = (core.rho((offset[0], offset[1], offset[2])) - 1.0) * np.linalg.norm(offset) / max(
            float(core.rho((offset[0], offset[1], offset[2]))), 1e-6
        )
        if gap > radius + 0.3:
            return point
    return None


def _droplets(rng: np.random.Generator, line: CellLine, cell: Cell) -> tuple[Blob, ...]:
    found: list[Blob] = []
    for _ in range(_count(rng, line.droplets)):
        radius = _one(rng, line.droplet_radius_um)
        point = _place(rng, cell, radius, near=0.2)
        if point is None or any(np.linalg.norm(point - b.center_um) < radius + b.semi_um[0] + 0.2 for b in found):
            continue
        found.append(Blob(point, np.full(3, radius), np.eye(3), _one(rng, line.droplet_ri), 0.05))
    return tuple(found)


def _granules(rng: np.random.Generator, line: CellLine, cell: Cell, droplets: tuple[Blob, ...]) -> tuple[Blob, ...]:
    """Clusters of rod-like granules with soft edges: as dense as lipid, but not round and never alone."""
    found: list[Blob] = []
    for _ in range(_count(rng, line.granules)):
        middle = _place(rng, cell, 0.6, near=0.3)
        if middle is None:
            continue
        for _ in range(int(rng.integers(3, 7))):
            point = middle + rng.normal(scale=0.6, size=3)
            semi = np.array([rng.uniform(0.6, 1.1), rng.uniform(0.25, 0.35), rng.uniform(0.25, 0.35)])
            if all(np.linalg.norm(point - b.center_um) > b.semi_um[0] + 0.6 for b in droplets):
                found.append(Blob(point, semi, _turned(rng), _one(rng, line.granule_ri), 0.15))
    return tuple(found)


def _speck(rng: np.random.Generator, sides_um: tuple[float, float], medium_ri: float) -> Blob:
    """Debris: most of it lies on the coverslip, some floats."""
    semi = rng.uniform(0.35, 1.7) * rng.uniform(0.7, 1.4, 3)
    height = semi[0] if rng.random() < 0.7 else rng.uniform(0.5, 12.0)
    place = [rng.uniform(-APRON_UM, side + APRON_UM) for side in sides_um]
    contrast = rng.uniform(0.006, 0.03)
    return Blob(np.array([height, *place]), semi, _turned(rng), medium_ri + contrast, rng.uniform(0.1, 0.4))
