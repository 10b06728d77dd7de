"""Where cells settle on the coverslip: crowded against each other, or on free ground."""

from dataclasses import dataclass

import numpy as np

from cytovox.simulation.presets import CellLine

#: Cells whose centre lies this far outside the field are drawn too: they reach in.
APRON_UM = 8.0


@dataclass(frozen=True)
class Place:
    """Where a cell lies, and the ellipse of its body seen from above."""

    center_um: np.ndarray
    """(2,), y and x."""
    angle: float
    """Direction of the long axis, in radian from x towards y."""
    semi_um: tuple[float, float]
    """Long and short semi-axis."""
    ball: bool
    """Whether it is a ball instead of a spread cell."""

    def radius(self, way: float) -> float:
        """Distance from the centre to the outline in one direction, µm."""
        long_um, short_um = self.semi_um
        return float(1.0 / np.hypot(np.cos(way - self.angle) / long_um, np.sin(way - self.angle) / short_um))

    def clears(self, other: "Place", share: float) -> bool:
        """Whether the two are at least `share` of the distance apart at which their bodies would touch."""
        step = self.center_um - other.center_um
        way = float(np.arctan2(step[0], step[1]))
        return bool(np.hypot(*step) >= share * (self.radius(way) + other.radius(way)))


def place_cells(rng: np.random.Generator, line: CellLine, sides_um: tuple[float, float]) -> list[Place]:
    """Let cells settle one after another on a field and an apron around it.

    Parameters
    ----------
    rng : numpy.random.Generator
    line : CellLine
        Gives their sizes, how many there are on an area, and how they crowd.
    sides_um : (float, float)
        The field, y and x.

    Returns
    -------
    list of Place
        At least one, which lies well inside the field. Bodies may overlap by a fifth: they will share the ground.
    """
    low, high = np.full(2, -APRON_UM), np.array(sides_um) + APRON_UM
    number = max(1, round(rng.uniform(*line.cells_per_1000_um2) * float(np.prod(high - low)) / 1000))
    crowding, flow = rng.uniform(*line.crowding), rng.uniform(0, np.pi)
    placed: list[Place] = []
    for _ in range(number):
        ball = bool(rng.random() < line.round_share)
        long_um = float(rng.uniform(*(line.ball_um if ball else line.length_um))) / 2
        semi_um = (long_um, long_um if ball else long_um / float(rng.uniform(*line.aspect)))
        slender = semi_um[0] > 1.8 * semi_um[1]  # slender cells lie along each other
        angle = flow + float(rng.normal(scale=0.35)) if slender else float(rng.uniform(0, np.pi))
        for _attempt in range(30):
            against = bool(placed) and bool(rng.random() < crowding)
            center = _somewhere(rng, placed, against, (semi_um, angle), low, high, sides_um)
            place = Place(center, angle, semi_um, ball)
            inside = bool(np.all((center >= low) & (center <= high)))
            if inside and all(place.clears(other, 0.78 if against else 1.0) for other in placed):
                placed.append(place)
                break
    return placed


def _somewhere(
    rng: np.random.Generator,
    placed: list[Place],
    against: bool,
    body: tuple[tuple[float, float], float],
    low: np.ndarray,
    high: np.ndarray,
    sides_um: tuple[float, float],
) -> np.ndarray:
    """A centre to try: well inside the field for the first cell, else beside another one or anywhere."""
    if not placed:
        return np.array(sides_um) * rng.uniform(0.3, 0.7, 2)
    if not against:
        return rng.uniform(low, high)
    other, (semi_um, angle) = placed[rng.integers(len(placed))], body
    way = float(rng.uniform(0, 2 * np.pi))
    gap = Place(other.center_um, angle, semi_um, False).radius(way) + other.radius(way)
    return other.center_um + gap * rng.uniform(0.8, 1.0) * np.array([np.sin(way), np.cos(way)])
