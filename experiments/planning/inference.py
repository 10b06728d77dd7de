"""Measure the inference on a crop: seconds a window, and how many windows a tomogram has."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from cytovox.inference.predictor import DenseInferer
from cytovox.inference.tiling import SlidingWindow
from cytovox.preprocess.resampling import ResampleTo, common_grid
from experiments.planning.measure import AIM_S, short_config
from lightning_modules.organelle import MONITOR, OrganelleModule
from training.rundir import RunFolder
from training.trainer import TrainerConfig, build_trainer

#: Windows that a crop for timing the inference has, at most about; or, if that is more, so many batches.
WINDOWS, BATCHES = 40, 4


@dataclass
class Crop:
    """A part of a tomogram, to time the inference on."""

    ri_ZYX: np.ndarray
    spacing_um: tuple[float, float, float]
    resample: ResampleTo
    """To the voxel size that the whole tomogram would be brought to."""
    windows: int
    box: tuple[slice, slice, slice]
    """Where it lies in the whole."""


def crop_of(
    ri_ZYX: np.ndarray, spacing_um: tuple[float, float, float], resample: ResampleTo, tiling: SlidingWindow
) -> Crop:
    """The middle of a tomogram, cut until it has few windows; its y and x shrink, its depth stays."""
    grid, spacing = common_grid(ri_ZYX.shape, spacing_um, resample)
    size, most = list(grid), max(WINDOWS, BATCHES * tiling.sw_batch_size)
    while len(tiling.windows(size)) > most and max(size[1:]) > min(tiling.window[1:]):
        axis = 1 if size[1] >= size[2] else 2
        size[axis] = max(min(tiling.window[1:]), size[axis] // 2)
    keep = [max(1, min(n, round(n * part / whole))) for n, part, whole in zip(ri_ZYX.shape, size, grid, strict=True)]
    begin = [(n - k) // 2 for n, k in zip(ri_ZYX.shape, keep, strict=True)]
    box = tuple(slice(b, b + k) for b, k in zip(begin, keep, strict=True))
    same = ResampleTo(spacing_um=spacing)
    part_ZYX = np.ascontiguousarray(ri_ZYX[box])
    cut, _ = common_grid(part_ZYX.shape, spacing_um, same)
    return Crop(part_ZYX, spacing_um, same, len(tiling.windows(cut)), box)  # type: ignore[arg-type]


@dataclass
class InferenceClock:
    """Takes the place of the writer of masks: predicts crops and tells how long a window takes."""

    crops: Mapping[Path, Crop]
    window_seconds: dict[Path, float] = field(default_factory=dict)
    probabilities: dict[Path, np.ndarray] = field(default_factory=dict)

    def __call__(self, name: Path, infer: DenseInferer) -> None:
        """Once to warm up unless that is long, then once with the clock."""
        crop = self.crops[name]
        infer = dataclasses.replace(infer, resample=crop.resample)
        for _ in range(2):
            begun = time.perf_counter()
            self.probabilities[name] = infer(crop.ri_ZYX, crop.spacing_um)
            seconds = time.perf_counter() - begun
            self.window_seconds[name] = seconds / crop.windows
            if seconds > AIM_S and infer.compile == "none":  # else the first time is mostly the compiler's
                break


def measure_inference(
    module: OrganelleModule, trainer: TrainerConfig, folder: RunFolder, crops: Mapping[Path, Crop]
) -> InferenceClock:
    """Seconds a window on each crop, in the run's precision and on its device."""
    clock = InferenceClock(crops)
    module.write_masks = clock
    lightning = build_trainer(short_config(trainer, 1, None), folder, [], MONITOR, dry_run=False)
    loader: DataLoader = DataLoader(list(crops), batch_size=None)  # type: ignore[arg-type]
    lightning.predict(module, loader, return_predictions=False)
    return clock
