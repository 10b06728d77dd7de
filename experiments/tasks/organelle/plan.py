"""`--plan` of the organelle task."""

import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cytovox.errors import InputError
from cytovox.io import read_volume
from cytovox.preprocess.resampling import ResampleTo, common_grid
from datamodules.cases import RawCase, checked_ri
from datamodules.organelle import OrganelleDataModule
from datamodules.splits import SPLITS
from experiments.planning.data import (
    Share,
    all_cases,
    find_prepared,
    measure_checking,
    measure_preparing,
    simulate_some,
)
from experiments.planning.duration import limited
from experiments.planning.inference import Crop, crop_of, measure_inference
from experiments.planning.machine import Machine
from experiments.planning.measure import Shortened, explain_memory_error
from experiments.planning.patch_sizes import Work, advice, count_work, too_large
from experiments.planning.planner import DRAWN, Planner
from experiments.planning.summary import FitPlan, Plan, StagePlan
from experiments.planning.tables import gigabytes, size
from lightning_modules.organelle import MONITOR, OrganelleModule
from lightning_modules.scoring import TestScores


@dataclass
class OrganellePlanner(Planner):
    """Planner of a run of the organelle task."""

    data: OrganelleDataModule = field(init=False)

    unit = "volume"
    sample = "patch"

    def fake_batch(self, count: int) -> dict[str, torch.Tensor]:
        """See `Planner`."""
        patch, organelles = self.config.data.patch_size, len(self.config.data.organelles)
        return {
            "image": torch.zeros(count, 1, *patch),
            "mask": torch.zeros(count, organelles, *patch, dtype=torch.uint8),
            "labelled": torch.ones(count, organelles, dtype=torch.bool),
        }

    def too_large(self, machine: Machine, work: Work) -> str:
        """See `Planner`."""
        patch, batch, memory = self.config.data.patch_size, self.config.data.batch_size, machine.memory_bytes
        return (
            f"data.batch_size: a step of {batch} patches of {size(patch)} voxels does not fit into "
            f"{gigabytes(memory)} of memory; {advice(self.config.model, patch, batch, memory, work)}"
        )

    def read_data(self, plan: Plan) -> None:
        """See `Planner`. A step that cannot fit is refused first: a full main memory would kill the process.

        Raises
        ------
        InputError
            A step that cannot fit, or an invalid file.
        """
        config, machine = self.config, plan.machine
        if "fit" in self.stages and too_large(work := self._work(machine), machine.memory_bytes):
            raise InputError(self.too_large(machine, work))
        self.data = self.task.data(config, self.bars, 1, SPLITS)
        plan.cases = all_cases(config.data, config.seed)
        plan.preparation["simulating"] = simulate_some(config.data, self.data)
        self.task.prepare(self.data, self.stages, self.bars)
        checked = measure_checking(plan.cases["test"] if "test" in self.stages else [])
        plan.preparation |= {"preparing": self._prepared(plan), "checking": checked}
        plan.notes += self.data.notes()

    def _work(self, machine: Machine) -> Work:
        data = self.config.data
        mixed = "16" in machine.precision
        return count_work(self.config.model, data.patch_size, data.batch_size, len(data.organelles), mixed)

    def _prepared(self, plan: Plan) -> Share:
        wanted = [case for split in ("train", "val") for case in plan.cases[split]] if "fit" in self.stages else []
        missing, plan.shapes = find_prepared(wanted, self.config.data)
        ready = next(case for found in self.data.find().values() for case in found)
        return measure_preparing(missing, len(wanted), ready, self.config.data)

    def fit(self, plan: Plan) -> FitPlan:
        """See `Planner`."""
        config, data = self.config, self.data
        z, y, x = config.data.patch_size

        def cut(batches: int) -> None:
            data.config = dataclasses.replace(data.config, patches_per_epoch=batches * data.config.batch_size)

        def guess(batch_seconds: float) -> float:
            """A forward pass is a third of a step, and half-overlapping windows cover each voxel about eight times."""
            voxels = max(math.prod(case.arrays()["image"].shape) for case in data.prepared["val"])
            return 8 / 3 * batch_seconds * voxels / (z * y * x * data.config.batch_size)

        short = Shortened(data, cut, MONITOR, guess if data.prepared["val"] else None)
        return self.plan_fit(
            plan, short, self._work(plan.machine), config.data.patches_per_epoch, (z, y, x), config.model
        )

    def _time_windows(
        self, module: OrganelleModule, ri_ZYX: np.ndarray, spacing_um: Any
    ) -> tuple[Crop, np.ndarray, float]:
        """Return a crop, its probabilities, and the seconds per window."""
        batch = module.tiling.sw_batch_size
        crop = crop_of(ri_ZYX, spacing_um, _resample(module), module.tiling)
        message = "predict.window: one window does not fit into memory; choose a smaller one"
        if batch > 1:
            message = f"predict.batch_size: {batch} windows do not fit into memory; set it to {batch // 2}"
        with explain_memory_error(lambda: message):
            return crop, *measure_inference(module, self.config.trainer, self.folder, crop)

    def test(self, plan: Plan) -> StagePlan:
        """See `Planner`."""
        module, case, count = self.module(), self.data.find()["test"][0], len(plan.cases["test"])
        begun = time.perf_counter()
        raw = case.load()
        reading = time.perf_counter() - begun
        crop, probabilities_KZYX, window = self._time_windows(module, raw.ri_ZYX, raw.spacing_um)
        begun = time.perf_counter()
        part = RawCase(crop.ri_ZYX, raw.masks_KZYX[(slice(None), *crop.box)], raw.labelled_K, raw.spacing_um)
        TestScores(module.organelles).add(0, case, part, probabilities_KZYX >= module.threshold)
        scoring = (time.perf_counter() - begun) * raw.ri_ZYX.size / crop.ri_ZYX.size
        windows = _windows_of(module, raw.ri_ZYX.shape, raw.spacing_um)
        own = limited(math.ceil(count / plan.machine.ranks), self.config.trainer.limit_test_batches)
        more = own * (reading + scoring) + min(DRAWN, count) * (reading + windows * window)
        return StagePlan(own, windows, window, more)

    def predict(self, plan: Plan) -> StagePlan:
        """See `Planner`."""
        module, predict, ranks = self.module(), self.config.predict, plan.machine.ranks
        volumes = [read_volume(path, predict.spacing_um, predict.spacing_from, predict.series) for path in self.inputs]
        begun = time.perf_counter()
        ri_ZYX = checked_ri(volumes[0].frame(0), f"{self.inputs[0]}, frame 0")
        reading = time.perf_counter() - begun
        _, _, window = self._time_windows(module, ri_ZYX, volumes[0].spacing_um)
        counts = [_windows_of(module, v.shape[2:], v.spacing_um) for v in volumes for _ in range(v.shape[0])]
        voxels = sum(math.prod(v.shape[2:]) * v.shape[0] for v in volumes)
        more = reading * voxels / ri_ZYX.size / ranks
        return StagePlan(math.ceil(len(counts) / ranks), sum(counts) / len(counts), window, more)


def _resample(module: OrganelleModule) -> ResampleTo:
    metadata = module.metadata
    return ResampleTo.chosen(metadata.resample, metadata.resample_spacing_um, metadata.resample_grid)


def _windows_of(module: OrganelleModule, shape_ZYX: tuple[int, ...], spacing_um: Any) -> int:
    return len(module.tiling.windows(common_grid(shape_ZYX, spacing_um, _resample(module))[0]))
