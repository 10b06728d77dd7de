"""Time of a whole analysis compared with its organelle inference alone."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import Table, Watch, quiet_rounds, ratio, show_ratio
from cytovox.io import ArrayReader, read_volume, write_tcf
from cytovox.simulation.tomogram import simulate
from experiments.tasks.analyze.analysis import Analysis
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.predictors import organelle_model, organelle_weights
from experiments.tasks.analyze.sources import find_sources
from experiments.tasks.analyze.task import run_path
from training.rundir import RunFolder

SHAPE, SPACING = (128, 512, 512), (0.25, 0.16, 0.16)


def large_time_lapse(path: Path, frames: int, shape: tuple[int, int, int]) -> None:
    """A time-lapse of that size: one simulated field, mirrored to the sides, with noise of its own in each frame."""
    field = simulate("HeLa", 930_001, (shape[0], shape[1] // 2, shape[2] // 2), SPACING)
    ri = np.pad(field.ri_ZYX, ((0, 0), (0, shape[1] - shape[1] // 2), (0, shape[2] - shape[2] // 2)), mode="symmetric")
    rng = np.random.default_rng(0)
    time_lapse = (ri + 0.0002 * rng.standard_normal(shape, np.float32) for _ in range(frames))
    write_tcf(path, list(time_lapse), SPACING, field.medium_ri, [1800.0 * t for t in range(frames)])


def speed_tables(arguments: argparse.Namespace, watch: Watch) -> tuple[list[Table], dict[str, Any], dict[str, Any]]:
    """Seconds a frame, in rounds of both."""
    shape = (16, 64, 64) if arguments.quick else SHAPE
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        large_time_lapse(folder / "time_lapse.TCF", arguments.frames, shape)
        inferer = organelle_model(organelle_weights("organelle")).inferer

        def inference() -> None:
            volume = read_volume(folder / "time_lapse.TCF")
            for t in range(arguments.frames):
                for _ in inferer.boxes(ArrayReader(volume.frame(t)), volume.spacing_um):
                    pass

        rounds = iter(range(10**6))

        def analysis() -> None:
            config = AnalyzeConfig(inputs=[str(folder / "time_lapse.TCF")], out=str(folder / f"run{next(rounds)}"))
            Analysis(config, RunFolder(run_path(config)), lambda *_: None).update(find_sources(config))

        def play() -> tuple[float, float]:
            return _timed(inference), _timed(analysis)

        found = quiet_rounds(arguments, watch, play, warm=False)
    alone, whole = [a / arguments.frames for a, _ in found], [b / arguments.frames for _, b in found]
    ratios = {"analysis over inference": ratio(whole, alone)}
    table = Table(
        f"seconds a frame of {'x'.join(map(str, shape))} voxels, {arguments.frames} frames",
        ["organelle inference alone", "analysis from end to end", "ratio"],
        [[f"{statistics.median(alone):.1f}", f"{statistics.median(whole):.1f}", show_ratio(*ratios.values())]],
    )
    return [table], {"inference": alone, "analysis": whole}, ratios


def _timed(task: Any) -> float:
    begun = time.perf_counter()
    task()
    return time.perf_counter() - begun
