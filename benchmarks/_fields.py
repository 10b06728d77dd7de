"""The two simulated fields that whole-volume predictions are timed on: 6 to 10 cells in 128x512x512 voxels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cytovox.simulation.draw import draw_scene, generator
from cytovox.simulation.optics import Optics, Shape, Spacing
from cytovox.simulation.presets import PRESETS, CellLine
from cytovox.simulation.store import SIMULATOR_VERSION, load, save
from cytovox.simulation.tomogram import Tomogram, observe
from datamodules.cache import cache_root

MEDIUM_RI = 1.337


@dataclass(frozen=True)
class Field:
    """A field that no preset gives: few cells on much ground, or on little."""

    preset: str
    seed: int
    shape: Shape
    spacing_um: Spacing
    cells_per_1000_um2: tuple[float, float]
    cells: tuple[int, int] = (6, 10)
    """Fewest and most that may lie in it, whole or in part."""
    noise_ri: float = 0.0006
    """In the middle of what the presets draw."""

    @property
    def line(self) -> CellLine:
        """The preset, with that many cells on the ground; debris and all else as it is."""
        return dataclasses.replace(PRESETS[self.preset], cells_per_1000_um2=self.cells_per_1000_um2)

    @property
    def filename(self) -> str:
        """Of the cache: another field has another name."""
        key = json.dumps([SIMULATOR_VERSION, dataclasses.asdict(self), dataclasses.asdict(self.line)], sort_keys=True)
        return f"benchmark-{self.preset}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


#: At the spacing of the shipped weights such a field is 154 µm wide; the presets would put some fifty cells there.
FIELDS = {
    "few cells on 154 µm": Field("HeLa", 5, (128, 512, 512), (0.3, 0.3, 0.3), (0.3, 0.42)),
    "crowded on 77 µm": Field("HeLa", 5, (128, 512, 512), (0.15, 0.15, 0.15), (1.0, 1.3)),
}
QUICK = {"quick": Field("HeLa", 5, (32, 48, 64), (0.6, 0.6, 0.6), (0.4, 0.6), cells=(1, 10))}


def simulated(field: Field, cache: Path | None = None) -> Tomogram:
    """The field, from the cache or simulated into it, which takes minutes.

    Raises
    ------
    ValueError
        It has fewer or more cells than it should.
    """
    path = (cache or cache_root(None) / "benchmarks") / field.filename
    if path.is_file():
        return load(path)
    z, y, x = (n * s for n, s in zip(field.shape, field.spacing_um, strict=True))
    scene = draw_scene(field.line, field.seed, (z, y, x), MEDIUM_RI)
    rng = generator(field.preset, field.seed, 1)
    tomogram = observe(scene, field.shape, field.spacing_um, field.noise_ri, Optics(), rng)
    cells, (fewest, most) = count_cells(tomogram), field.cells
    if not fewest <= cells <= most:
        raise ValueError(f"{field}: {cells} cells; choose another seed or density")
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, tomogram)
    return tomogram


def count_cells(tomogram: Tomogram) -> int:
    """Cells that lie in a field, whole or in part."""
    return int(np.count_nonzero(np.unique(tomogram.cells_ZYX)))
