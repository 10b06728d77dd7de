"""Simulate time-lapses: the same cells over hours, moving slowly and changing with their treatment.

A scene is independent of the grid, so a frame is the scene at time t, sampled and imaged like any other. Cell k is the
same cell in every frame, so the labels are the true tracks. The direction of each change under lipopolysaccharide (LPS)
follows Choi et al. 2021 (bioRxiv 2021.05.23.445351) on RAW 264.7 cells; the amounts are assumptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from cytovox.errors import InputError
from cytovox.simulation.draw import draw_droplets, generator
from cytovox.simulation.fields import WaveField
from cytovox.simulation.optics import Shape, Spacing
from cytovox.simulation.scene import Blob, Cell, Nucleus, Scene
from cytovox.simulation.tomogram import (
    DEFAULT_SHAPE,
    DEFAULT_SPACING_UM,
    Options,
    Tomogram,
    cell_line,
    check_request,
    draw_conditions,
    observe,
)

HOUR_S = 3600.0
#: Hours after which a response reaches its full amount.
FULL_H = 8.0
#: Streams of `cytovox.simulation.draw.generator` that single volumes do not use; the noise of frame t is 100 + t.
_MOTION, _DROPLETS, _NOISE = 10, 11, 100


@dataclass(frozen=True)
class Response:
    """Change of a cell in eight hours. A factor of 1 is no change."""

    name: str
    volume: float = 1.0
    """Factor of the volume of the cell and its nucleus, reached exponentially."""
    contrast: float = 1.0
    """Factor of the index of cytoplasm and nucleus above the medium's."""
    nucleolus: float = 1.0
    """Factor of the volume of nucleoli; half of the change happens in the first hour, a quarter in the second, ..."""
    droplet_radius: float = 1.0
    """Factor of the radius of lipid droplets."""
    droplet_number: float = 1.0
    """Factor of the number of lipid droplets, 1 or more: new ones appear and grow."""
    creep_um: float = 1.5
    """Typical distance that a cell moves."""

    def at(self, factor: float, hours: float) -> float:
        """Return a factor after some hours of a steady change."""
        return float(factor ** (hours / FULL_H))

    def saturating(self, factor: float, hours: float) -> float:
        """Return a factor after some hours of a change that levels off."""
        return float(factor ** (1 - 0.5 ** max(hours, 0.0)))


#: Responses by name; the name is the group in tables.
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
    """Yield the simulated frames of one field.

    Parameters
    ----------
    preset, seed
        As for `cytovox.simulation.simulate`, whose cells are those of time 0.
    response : str
        A name in `RESPONSES`.
    times_s : sequence of float
        Seconds since the treatment, one per frame, increasing.
    shape, spacing_um, options
        As for `cytovox.simulation.simulate`. Each frame has its own noise, of the same standard deviation.

    Yields
    ------
    Tomogram
        Cell and nucleus k are the same in every frame. A cell may leave the field.

    Raises
    ------
    InputError
        Unknown preset or response; times that do not increase; or an invalid shape, spacing or option.
    """
    options = options or Options()
    check_request(preset, seed, shape, spacing_um, options)
    if response not in RESPONSES:
        raise InputError(f"response {response!r}: no such treatment (known: {', '.join(RESPONSES)})")
    if not len(times_s) or min(times_s) < 0 or any(b <= a for a, b in pairwise(times_s)):
        raise InputError(f"times_s {list(times_s)}: expected increasing seconds, the first 0 or later")
    scene, noise_ri, _ = draw_conditions(preset, seed, shape, spacing_um, options)
    time_lapse = TimeLapse.draw(scene, RESPONSES[response])
    for t, time_s in enumerate(times_s):
        noise = generator(preset, seed, _NOISE + t)
        yield observe(time_lapse.scene(time_s / HOUR_S), shape, spacing_um, noise_ri, options.optics, noise)


@dataclass(frozen=True)
class TimeLapse:
    """A scene and the changes of its cells over time."""

    start: Scene
    response: Response
    paths: tuple[WaveField, ...]
    """Two fields over time (hours) per cell: its displacement in y and in x, in units of `creep_um`."""
    new_droplets: tuple[tuple[tuple[Blob, float], ...], ...]
    """New droplets of each cell, and the hour in which each appears."""

    @classmethod
    def draw(cls, start: Scene, response: Response) -> TimeLapse:
        """Draw the motion of a scene's cells and their new droplets; the motion is the same for every response."""
        motion = generator(start.preset, start.seed, _MOTION)
        paths = tuple(WaveField.draw(motion, 3.0, 8, axes=1) for _ in range(2 * len(start.cells)))
        rng = generator(start.preset, start.seed, _DROPLETS)
        line, new_droplets = cell_line(start.preset), []
        for cell in start.cells:
            number = round((response.droplet_number - 1) * len(cell.droplets))
            more = draw_droplets(rng, replace(line, droplets=(number, number)), cell)
            new_droplets.append(tuple(zip(more, sorted(rng.uniform(0, FULL_H, len(more)).tolist()), strict=True)))
        return cls(start, response, paths, tuple(new_droplets))

    def scene(self, hours: float) -> Scene:
        """Return the scene at a time."""
        return replace(self.start, cells=tuple(self._cell(k, hours) for k in range(len(self.start.cells))))

    def _cell(self, k: int, hours: float) -> Cell:
        cell, response = self.start.cells[k], self.response
        step = response.creep_um * np.array(
            [float(np.diff(path.at(np.array([[0.0], [hours]])))[0]) for path in self.paths[2 * k : 2 * k + 2]]
        )
        size = response.at(response.volume, hours) ** (1 / 3)
        contrast = response.at(response.contrast, hours)
        radius = response.at(response.droplet_radius, hours)

        # z of the bumps is counted from the bottom of the field, z of the bodies from the coverslip
        coverslip = np.array([self.start.coverslip_um, 0.0, 0.0])

        def grown(blob: Blob, factor: float) -> Blob:
            yx_um = cell.center_um + step + size * (blob.center_um[1:] - cell.center_um)
            return replace(blob, center_um=np.array([size * blob.center_um[0], *yx_um]), semi_um=blob.semi_um * factor)

        nucleolus = response.saturating(response.nucleolus, hours) ** (1 / 3)
        body = grown(cell.nucleus.body, size)
        nucleus = replace(
            cell.nucleus,
            body=replace(body, ri=body.ri * contrast),
            nucleoli=tuple(grown(blob, nucleolus) for blob in cell.nucleus.nucleoli),
        )
        droplets = [grown(blob, radius) for blob in cell.droplets]
        droplets += [
            grown(blob, radius * min(1.0, 0.6 + 0.4 * (hours - since)))
            for blob, since in self.new_droplets[k]
            if hours >= since
        ]
        return replace(
            cell,
            center_um=cell.center_um + step,
            semi_um=(cell.semi_um[0] * size, cell.semi_um[1] * size),
            height_um=cell.height_um * size,
            lift_um=cell.lift_um * size,
            ri=self.start.medium_ri + contrast * (cell.ri - self.start.medium_ri),
            nucleus=_with_moved_bumps(
                nucleus, cell.nucleus.body.center_um + coverslip, body.center_um + coverslip, size
            ),
            droplets=_merge_touching(droplets),
            granules=tuple(grown(blob, 1.0) for blob in cell.granules),
        )


def _with_moved_bumps(nucleus: Nucleus, before_um: np.ndarray, after_um: np.ndarray, size: float) -> Nucleus:
    """Return the nucleus with bumps that move with its centre and grow by `size`."""
    waves = nucleus.bumps.wave_MD / size
    phase = nucleus.bumps.phase_M + nucleus.bumps.wave_MD @ before_um - waves @ after_um
    return replace(nucleus, bumps=WaveField(waves, phase))


def _merge_touching(droplets: list[Blob]) -> tuple[Blob, ...]:
    """Merge droplets that touch into one of their total volume, at their common centre."""
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
