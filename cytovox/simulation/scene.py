"""The scene: geometric description of the cells and debris on a coverslip, independent of any voxel grid.

A `Scene` is drawn at random (`cytovox.simulation.draw`), sampled on a grid (`cytovox.simulation.cells`) and imaged
(`cytovox.simulation.optics`). Lengths are in µm from the corner of the field, axes (z, y, x), z up from the bottom of
the field.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cytovox.simulation.fields import WaveField


@dataclass(frozen=True)
class Bulge:
    """An outward extension of an outline around one direction."""

    angle: float
    """Direction in radian from the cell's long axis."""
    reach: float
    """Largest extension: in body radii for an arm, in µm for a lamella."""
    sharpness: float
    """Large for a narrow spike, small for a broad fan."""

    def at(self, theta: np.ndarray) -> np.ndarray:
        """Return the extension in direction `theta`."""
        return self.reach * np.exp(self.sharpness * (np.cos(theta - self.angle) - 1.0))


@dataclass(frozen=True)
class Blob:
    """An ellipsoid: a nucleolus, a droplet, a granule, a speck of debris."""

    center_um: np.ndarray
    """(3,), z above the coverslip."""
    semi_um: np.ndarray
    """(3,), semi-axes."""
    axes: np.ndarray
    """(3, 3), one unit vector per row."""
    ri: float
    """Index at its centre (nucleolus: contrast to the nucleoplasm)."""
    edge_um: float
    """Half width of its edge; 0 is sharp."""

    def rho(self, offset: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return 1 on the surface and less inside; `offset` holds broadcastable z, y, x distances from the centre."""
        squares = [
            ((row[0] * offset[0] + row[1] * offset[1] + row[2] * offset[2]) / semi) ** 2
            for row, semi in zip(self.axes, self.semi_um, strict=True)
        ]
        return np.sqrt(squares[0] + squares[1] + squares[2])


@dataclass(frozen=True)
class Nucleus:
    """An ellipsoid with a bumpy surface, and the nucleoli inside it."""

    body: Blob
    bumps: WaveField
    """Bumps of its surface, in coordinates of the field."""
    roughness: float
    """Height of the bumps relative to the radius."""
    rim: float
    """Index added at the nuclear envelope."""
    halo: float
    """Index added to the cytoplasm around it."""
    nucleoli: tuple[Blob, ...]


@dataclass(frozen=True)
class Cell:
    """One cell: body with arms, lamella around it, nucleus, droplets and granules."""

    center_um: np.ndarray
    """(2,), y and x."""
    angle: float
    """Direction of the long axis, in radian from x towards y."""
    semi_um: tuple[float, float]
    """Long and short semi-axis of the body."""
    height_um: float
    power: float
    lift_um: float
    """Height of the centre of a round cell above the coverslip; 0 for a spread cell."""
    harmonics: np.ndarray
    """(H, 3): order, amplitude and phase of the deviations of the outline from an ellipse."""
    arms: tuple[Bulge, ...]
    lamellae: tuple[Bulge, ...]
    lamella_height_um: float
    lamella_share: float
    edge: WaveField
    """Waviness of outline and height, 2D."""
    ri: float
    nucleus: Nucleus
    droplets: tuple[Blob, ...]
    granules: tuple[Blob, ...]

    @property
    def reach_um(self) -> float:
        """Return an upper bound of the distance of any part of the cell from its centre, in the yx plane."""
        waves = 1.0 + np.abs(self.harmonics[:, 1]).sum() + sum(arm.reach for arm in self.arms)
        return 1.25 * (self.semi_um[0] * waves + max((fan.reach for fan in self.lamellae), default=0.0))

    def outline(self, y_um: np.ndarray, x_um: np.ndarray, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return relative radii in the yx plane: 1 at the edge of the body, and 1 at the edge of the lamella.

        Parameters
        ----------
        y_um, x_um : float arrays, broadcastable
            Distance from the centre of the cell.
        wave : float array
            Values of the field `edge` at these points.
        """
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u = (x_um * cos + y_um * sin) / self.semi_um[0]
        v = (y_um * cos - x_um * sin) / self.semi_um[1]
        theta = np.arctan2(v, u)
        radius = np.hypot(u, v) * (1.0 + 0.05 * wave)
        body = np.ones_like(radius)
        for order, amplitude, phase in self.harmonics:
            body += amplitude * np.cos(order * theta + phase)
        for arm in self.arms:
            body += arm.at(theta)
        rim_um = np.hypot(self.semi_um[0] * np.cos(theta), self.semi_um[1] * np.sin(theta))
        skirt = body.copy()
        for fan in self.lamellae:
            skirt += fan.at(theta) / rim_um
        return radius / body, radius / skirt

    def profile(self, rho: np.ndarray, rho_skirt: np.ndarray, wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return bottom and top above the coverslip (µm); both 0 where there is no cell."""
        dome = np.clip(1.0 - rho**2, 0.0, None) ** self.power
        if self.lift_um:
            bottom = np.where(rho < 1, np.clip(self.lift_um - self.height_um / 2 * dome, 0.0, None), 0.0)
            return bottom, np.where(rho < 1, self.lift_um + self.height_um / 2 * dome, 0.0)
        lamella = self.lamella_height_um * np.clip(1.0 + 0.3 * wave, 0.4, 1.6)
        lamella = np.where(rho_skirt < 1, lamella * np.clip(8.0 * (1.0 - rho_skirt), 0.6, 1.0), 0.0)
        return np.zeros_like(rho), np.maximum(self.height_um * dome, lamella)


@dataclass(frozen=True)
class Scene:
    """One field of view: its cells, its debris and their medium."""

    preset: str
    seed: int
    coverslip_um: float
    """Height of the coverslip's surface above the bottom of the field."""
    medium_ri: float
    overlap_um: float
    """Thickness of a neighbour below which a cell lies on top of it."""
    overlapping: bool
    """Whether the lamellae of two cells may lie on top of each other."""
    cells: tuple[Cell, ...]
    debris: tuple[Blob, ...]
    grain: WaveField
    """Fine texture of the cytoplasm."""
    grain_ri: float
    """Standard deviation of `grain`."""
    drift: WaveField
    """Coarse variation of the index within cells."""
    drift_ri: float
    """Standard deviation of `drift`."""
    calm: WaveField
    """Texture of the nucleoplasm."""
