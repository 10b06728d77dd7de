"""Place cells on the coverslip, next to each other or anywhere."""

from dataclasses import dataclass

import numpy as np

from cytovox.simulation.presets import CellLine

#: Width of the border around the field in which cells are placed too: they reach into the field.
APRON_UM = 8.0


@dataclass(frozen=True)
class Place:
    """Position of a cell, and the ellipse of its body in the yx plane."""

    center_um: np.ndarray
    """(2,), y and x."""
    angle: float
    """Direction of the long axis, in radian from x towards y."""
    semi_um: tuple[float, float]
    """Long and short semi-axis."""
    ball: bool
    """Whether the cell is round instead of spread."""

    def radius(self, direction: float) -> float:
        """Return the distance from the centre to the outline in one direction, µm."""
        angle = direction - self.angle
        return float(1.0 / np.hypot(np.cos(angle) / self.semi_um[0], np.sin(angle) / self.semi_um[1]))

    def clears(self, other: "Place", share: float) -> bool:
        """Return whether the distance is at least `share` of that at which the two bodies would touch."""
        step = self.center_um - other.center_um
        direction = float(np.arctan2(step[0], step[1]))
        return bool(np.hypot(*step) >= share * (self.radius(direction) + other.radius(direction)))


def place_cells(rng: np.random.Generator, line: CellLine, sides_um: tuple[float, float]) -> list[Place]:
    """Place cells one after another on a field and a border around it.

    Parameters
    ----------
    rng : numpy.random.Generator
    line : CellLine
        Ranges of cell size, number per area and crowding.
    sides_um : (float, float)
        Size of the field, y and x.

    Returns
    -------
    list of Place
        At least one, near the centre of the field. Bodies may overlap by a fifth; `cytovox.simulation.cells` divides
        the area between them.
    """
    low, high = np.full(2, -APRON_UM), np.array(sides_um) + APRON_UM
    number = max(1, round(rng.uniform(*line.cells_per_1000_um2) * float(np.prod(high - low)) / 1000))
    crowding, flow = rng.uniform(*line.crowding), rng.uniform(0, np.pi)
    placed: list[Place] = []
    for _ in range(number):
        ball = bool(rng.random() < line.round_share)
        long_um = float(rng.uniform(*(line.ball_um if ball else line.length_um))) / 2
        semi_um = (long_um, long_um if ball else long_um / float(rng.uniform(*line.aspect)))
        slender = semi_um[0] > 1.8 * semi_um[1]  # slender cells are aligned with each other
        angle = flow + float(rng.normal(scale=0.35)) if slender else float(rng.uniform(0, np.pi))
        for _attempt in range(30):
            against = bool(placed) and bool(rng.random() < crowding)
            if not placed:
                center = np.array(sides_um) * rng.uniform(0.3, 0.7, 2)
            elif not against:
                center = rng.uniform(low, high)
            else:  # next to another cell
                other, direction = placed[rng.integers(len(placed))], float(rng.uniform(0, 2 * np.pi))
                step = rng.uniform(0.8, 1.0) * np.array([np.sin(direction), np.cos(direction)])
                body = Place(other.center_um, angle, semi_um, ball)
                center = other.center_um + (body.radius(direction) + other.radius(direction)) * step
            place = Place(center, angle, semi_um, ball)
            inside = bool(np.all((center >= low) & (center <= high)))
            if inside and all(place.clears(other, 0.78 if against else 1.0) for other in placed):
                placed.append(place)
                break
    return placed
