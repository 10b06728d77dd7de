"""The same cells over hours: they creep, and grow or not, as they are treated.

A scene is independent of the grid, so a frame is the scene of time t, grown and observed like any other. Cell k is the
same cell in every frame, so the labels are the true tracks. What a response changes follows the directions that Choi et
al. 2021 (bioRxiv 2021.05.23.445351) report of RAW 264.7 cells under lipopolysaccharide (LPS); the amounts are
assumptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from cytovox.errors import InputError
from cytovox.simulation.draw import draw_droplets, draw_scene, generator
from cytovox.simulation.fields import WaveField
from cytovox.simulation.scene import Blob, Cell, Nucleus, Scene
from cytovox.simulation.tomogram import (
    DEFAULT_SHAPE,
    DEFAULT_SPACING_UM,
    Options,
    Shape,
    Spacing,
    Tomogram,
    cell_line,
    check_field,
    check_options,
    observe,
)

HOUR_S = 3600.0
#: Every amount of a response is what it comes to after so many hours.
FULL_H = 8.0
#: Streams of `cytovox.simulation.draw.generator` that no single volume uses; the noise of frame t is 100 + t.
_MOTION, _DROPLETS, _NOISE = 10, 11, 100


@dataclass(frozen=True)
class Response:
    """What becomes of a cell in eight hours. Factors of 1 leave it as it is."""

    name: str
    volume: float = 1.0
    """Of the cell and its nucleus, steadily over the time."""
    contrast: float = 1.0
    """Of the index of cytoplasm and nucleus above the medium's."""
    nucleolus: float = 1.0
    """Of the volume of nucleoli; half of the change comes in the first hour, and then ever less."""
    droplet_radius: float = 1.0
    """Of lipid droplets."""
    droplet_number: float = 1.0
    """Of lipid droplets, 1 or more: new ones appear and grow."""
    creep_um: float = 1.5
    """How far a cell wanders, about."""

    def at(self, factor: float, hours: float) -> float:
        """A factor after some hours."""
        return float(factor ** (hours / FULL_H))

    def levelled(self, factor: float, hours: float) -> float:
        """A factor after some hours, of a change that levels off."""
        return float(factor ** (1 - 0.5 ** max(hours, 0.0)))


#: By the name that stands in a table of groups.
RESPONSES: dict[str, Response] = {
    "control": Response("control", volume=1.05),
    "LPS": Response("LPS", volume=1.5, contrast=0.82, nucleolus=1.25, droplet_radius=1.35, droplet_number=2.5),
}


def time_lapse(
    preset: str,
    seed: int,
    response: str,
    times_s: Sequence[float],
    shape: Shape = DEFAULT_SHAPE,
    spacing_um: Spacing = DEFAULT_SPACING_UM,
    options: Options | None = None,
) -> Iterator[Tomogram]:
    """Simulate the frames of one field, one after the other.

    Parameters
    ----------
    preset, seed
        As for `simulator.simulate`; frame 0 at time 0 shows its cells.
    response : str
        A name in `RESPONSES`.
    times_s : sequence of float
        Seconds since the treatment, one per frame, increasing.
    shape, spacing_um, options
        As for `simulator.simulate`. Every frame has noise of its own, of the same deviation.

    Yields
    ------
    Tomogram
        Cell and nucleus k are the same in every frame. A cell may leave the field.

    Raises
    ------
    InputError
        Unknown preset or response, times that do not rise, or a shape, spacing or option that cannot be.
    """
    line, options = cell_line(preset), options or Options()
    check_options(options)
    check_field(seed, shape, spacing_um)
    if response not in RESPONSES:
        raise InputError(f"response {response!r}: no such treatment (known: {', '.join(RESPONSES)})")
    if not len(times_s) or min(times_s) < 0 or any(b <= a for a, b in pairwise(times_s)):
        raise InputError(f"times_s {list(times_s)}: expected seconds that rise from 0 or later")
    rng = generator(preset, seed, 1)
    medium_ri = options.medium_ri + float(rng.uniform(-1, 1)) * options.medium_spread
    noise_ri = float(np.exp(rng.uniform(*np.log(options.noise_ri)))) if options.noise_ri[1] > 0 else 0.0
    factor = float(np.exp(generator(preset, seed, 2).uniform(*np.log(options.density))))
    low, high = line.cells_per_1000_um2
    line = replace(line, cells_per_1000_um2=(factor * low, factor * high))
    extent_um = (shape[0] * spacing_um[0], shape[1] * spacing_um[1], shape[2] * spacing_um[2])
    time_lapse = TimeLapse.draw(draw_scene(line, seed, extent_um, medium_ri), RESPONSES[response])
    for t, time_s in enumerate(times_s):
        noise = generator(preset, seed, _NOISE + t)
        yield observe(time_lapse.scene(time_s / HOUR_S), shape, spacing_um, noise_ri, options.optics, noise)


@dataclass(frozen=True)
class TimeLapse:
    """A scene and what moves in it."""

    start: Scene
    response: Response
    paths: tuple[WaveField, ...]
    """Two fields over time a cell: its way in y and in x, in units of `creep_um`, time in hours."""
    coming: tuple[tuple[tuple[Blob, float], ...], ...]
    """Droplets to come of each cell, and the hour in which each appears."""

    @classmethod
    def draw(cls, start: Scene, response: Response) -> TimeLapse:
        """Draw the motion of a scene's cells, and the droplets to come; motion is the same for every response."""
        motion = generator(start.preset, start.seed, _MOTION)
        paths = tuple(WaveField.draw(motion, 3.0, 8, axes=1) for _ in range(2 * len(start.cells)))
        rng = generator(start.preset, start.seed, _DROPLETS)
        line, coming = cell_line(start.preset), []
        for cell in start.cells:
            number = round((response.droplet_number - 1) * len(cell.droplets))
            more = draw_droplets(rng, replace(line, droplets=(number, number)), cell)
            hours = np.sort(rng.uniform(0, FULL_H, len(more)))
            coming.append(tuple(zip(more, hours.tolist(), strict=True)))
        return cls(start, response, paths, tuple(coming))

    def scene(self, hours: float) -> Scene:
        """The scene at a time."""
        return replace(self.start, cells=tuple(self._cell(k, hours) for k in range(len(self.start.cells))))

    def _cell(self, k: int, hours: float) -> Cell:
        cell, response = self.start.cells[k], self.response
        now, first = np.array([[hours]]), np.array([[0.0]])
        step = response.creep_um * np.array(
            [float(path.at(now)[0] - path.at(first)[0]) for path in self.paths[2 * k : 2 * k + 2]]
        )
        size = response.at(response.volume, hours) ** (1 / 3)
        contrast = response.at(response.contrast, hours)
        radius = response.at(response.droplet_radius, hours)

        floor = np.array([self.start.coverslip_um, 0.0, 0.0])  # bumps are laid in the field, bodies on its coverslip

        def moved(point: np.ndarray) -> np.ndarray:
            flat = cell.center_um + step + size * (point[1:] - cell.center_um)
            return np.array([size * point[0], *flat])

        def grown(blob: Blob, factor: float) -> Blob:
            return replace(blob, center_um=moved(blob.center_um), semi_um=blob.semi_um * factor)

        nucleolus = response.levelled(response.nucleolus, hours) ** (1 / 3)
        body = grown(cell.nucleus.body, size)
        nucleus = replace(
            cell.nucleus,
            body=replace(body, ri=body.ri * contrast),
            nucleoli=tuple(grown(blob, nucleolus) for blob in cell.nucleus.nucleoli),
        )
        droplets = [grown(blob, radius) for blob in cell.droplets]
        droplets += [
            grown(blob, radius * min(1.0, 0.6 + 0.4 * (hours - since)))
            for blob, since in self.coming[k]
            if hours >= since
        ]
        return replace(
            cell,
            center_um=cell.center_um + step,
            semi_um=(cell.semi_um[0] * size, cell.semi_um[1] * size),
            height_um=cell.height_um * size,
            lift_um=cell.lift_um * size,
            ri=self.start.medium_ri + contrast * (cell.ri - self.start.medium_ri),
            nucleus=_carried(nucleus, cell.nucleus.body.center_um + floor, body.center_um + floor, size),
            droplets=_apart(droplets),
            granules=tuple(grown(blob, 1.0) for blob in cell.granules),
        )


def _carried(nucleus: Nucleus, before_um: np.ndarray, after_um: np.ndarray, size: float) -> Nucleus:
    """The bumps of a nucleus go and grow with its centre."""
    waves = nucleus.bumps.wave_MD / size
    phase = nucleus.bumps.phase_M + nucleus.bumps.wave_MD @ before_um - waves @ after_um
    return replace(nucleus, bumps=WaveField(waves, phase))


def _apart(droplets: list[Blob]) -> tuple[Blob, ...]:
    """Droplets that have grown into each other become one of both volumes, at their common centre."""
    kept: list[Blob] = []
    for blob in droplets:
        apart = []
        for other in kept:
            if np.linalg.norm(blob.center_um - other.center_um) < blob.semi_um[0] + other.semi_um[0]:
                a, b = other.semi_um[0] ** 3, blob.semi_um[0] ** 3
                centre_um = (a * other.center_um + b * blob.center_um) / (a + b)
                blob = replace(blob, center_um=centre_um, semi_um=np.full(3, np.cbrt(a + b)))
            else:
                apart.append(other)
        kept = [*apart, blob]
    return tuple(kept)
