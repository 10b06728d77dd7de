"""Measure the inference on a crop of a tomogram: seconds per window."""

import dataclasses
import time
from dataclasses import dataclass
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

#: Approximate largest number of windows in a crop; this many batches of windows, if that is more.
WINDOWS, BATCHES = 40, 4


@dataclass
class Crop:
    """Part of a tomogram on which the inference is timed."""

    ri_ZYX: np.ndarray
    spacing_um: tuple[float, float, float]
    resample: ResampleTo
    """Resampling to the voxel size that the whole tomogram would be resampled to."""
    windows: int
    """Number of windows."""
    box: tuple[slice, slice, slice]
    """Position in the tomogram."""


def crop_of(
    ri_ZYX: np.ndarray, spacing_um: tuple[float, float, float], resample: ResampleTo, tiling: SlidingWindow
) -> Crop:
    """Return the middle of a tomogram, cropped along y and x until it has few windows."""
    grid, spacing = common_grid(ri_ZYX.shape, spacing_um, resample)
    size, most = list(grid), max(WINDOWS, BATCHES * tiling.sw_batch_size)
    while len(tiling.windows(size)) > most and max(size[1:]) > min(tiling.window[1:]):
        axis = 1 if size[1] >= size[2] else 2
        size[axis] = max(min(tiling.window[1:]), size[axis] // 2)
    keep = [max(1, min(n, round(n * part / whole))) for n, part, whole in zip(ri_ZYX.shape, size, grid, strict=True)]
    box = tuple(slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(ri_ZYX.shape, keep, strict=True))
    same = ResampleTo(spacing_um=spacing)
    part_ZYX = np.ascontiguousarray(ri_ZYX[box])
    windows = tiling.windows(common_grid(part_ZYX.shape, spacing_um, same)[0])
    return Crop(part_ZYX, spacing_um, same, len(windows), box)  # type: ignore[arg-type]


def time_windows(crop: Crop, infer: DenseInferer) -> tuple[np.ndarray, float]:
    """Return the probabilities of a crop, and the seconds per window of the second pass or of a long first pass."""
    infer = dataclasses.replace(infer, resample=crop.resample)
    for _ in range(2):
        begun = time.perf_counter()
        probabilities_KZYX = infer(crop.ri_ZYX, crop.spacing_um)
        seconds = time.perf_counter() - begun
        if seconds > AIM_S and infer.compile == "none":  # otherwise the first pass is mostly compilation
            break
    return probabilities_KZYX, seconds / crop.windows


def measure_inference(
    module: OrganelleModule, trainer: TrainerConfig, folder: RunFolder, crop: Crop
) -> tuple[np.ndarray, float]:
    """Return the probabilities of a crop and the seconds per window, in the run's precision and on its device."""
    results = list[tuple[np.ndarray, float]]()
    module.write_masks = lambda _, infer: results.append(time_windows(crop, infer))
    lightning = build_trainer(short_config(trainer, 1, None), folder, [], MONITOR, dry_run=False)
    loader: DataLoader = DataLoader([Path("crop")], batch_size=None)  # type: ignore[arg-type]
    lightning.predict(module, loader, return_predictions=False)
    return results[0]
