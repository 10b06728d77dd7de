"""`--plan`: what a run will take, from a dry step of it. Nothing is left but the cache."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from cytovox.errors import InputError
from cytovox.io import read_volume
from cytovox.preprocess.resampling import ResampleTo, common_grid
from datamodules.cases import RawCase, checked_ri
from datamodules.organelle import OrganelleDataModule
from datamodules.splits import SPLITS
from experiments.planning.card import plan_on_card
from experiments.planning.data import (
    Preparation,
    all_cases,
    look_through,
    measure_checking,
    measure_preparing,
    prepared_shapes,
    simulate_some,
)
from experiments.planning.duration import limited, plan_epoch, plan_run
from experiments.planning.inference import crop_of, measure_inference
from experiments.planning.machine import Machine, find_machine, launched_ranks
from experiments.planning.measure import Shortened, explain_memory_error, measure_fit, measuring_notes
from experiments.planning.patch_sizes import BYTES_A_WEIGHT, MemoryModel, Work, advice, count_work, too_large
from experiments.planning.summary import FitPlan, Plan, StagePlan
from experiments.planning.tables import print_plan, write_plan
from experiments.progress import Bars, silence_lightning
from experiments.tasks.organelle.build import build_for_training, build_from_weights
from experiments.tasks.organelle.config import OrganelleConfig
from experiments.tasks.organelle.data import build_data, prepare
from experiments.tasks.organelle.plan_tables import advise, patch_table
from experiments.weights import find_weights, read_weights
from lightning_modules.organelle import MONITOR, OrganelleModule
from lightning_modules.scoring import TestScores
from training.rundir import RunFolder

#: Cases of the test that are predicted a second time, to be drawn.
DRAWN = 3


def plan(config: OrganelleConfig, stages: Sequence[str], inputs: Sequence[Path]) -> None:
    """Measure a little of the run, and print what all of it will take.

    Parameters
    ----------
    config : OrganelleConfig
        The run's.
    stages : sequence of str
        What it would do.
    inputs : sequence of Path
        Files of the predict stage.

    Raises
    ------
    InputError
        Anything the user can fix, a step that does not fit into memory for one.
    """
    if launched_ranks() > 1:
        raise InputError(
            "--plan: measures one process, but a launcher started several; start it without torchrun or srun"
        )
    silence_lightning()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    with tempfile.TemporaryDirectory(prefix="cytovox-plan-") as folder, Bars() as bars:
        found = _Planner(config, list(stages), list(inputs), RunFolder(Path(folder)), bars).plan()
    print_plan(found, [] if found.fit is None else [patch_table(found.fit, found)], advise)
    write_plan(found, config.plan.json)


def plan_card(config: OrganelleConfig, stages: Sequence[str]) -> None:
    """Print what a training step takes on the card `plan.device`; see `plan_on_card`."""

    def batch(count: int) -> dict[str, torch.Tensor]:
        organelles = len(config.data.organelles)
        return {
            "image": torch.zeros(count, 1, *config.data.patch_size),
            "mask": torch.zeros(count, organelles, *config.data.patch_size, dtype=torch.uint8),
            "labelled": torch.ones(count, organelles, dtype=torch.bool),
        }

    plan_on_card(config, lambda chosen: build_for_training(chosen, None), batch, list(stages))


@dataclass
class _Planner:
    config: OrganelleConfig
    stages: list[str]
    inputs: list[Path]
    folder: RunFolder
    bars: Bars

    def plan(self) -> Plan:
        config = self.config
        machine = find_machine(config.trainer)
        made = Plan(config.name, self.stages, machine)
        if "fit" in self.stages:
            self._require_room(machine)
            made.notes += measuring_notes(config.trainer)
        data = None
        if {"fit", "test"} & set(self.stages):
            data = build_data(config, self.bars, 1, SPLITS)
            made.cases = all_cases(config.data, config.seed)
            simulated = simulate_some(config.data, data)
            prepare(data, self.stages, self.bars)
            checked = measure_checking(made.cases["test"] if "test" in self.stages else [])
            made.preparation = Preparation(simulated, self._prepared(made, data), checked)
            for note in data.notes():
                made.notes.append(note)
        done, total = 0, len(self.stages)
        for stage in self.stages:
            self.bars("measuring", done, total)
            if stage == "fit":
                assert data is not None
                made.fit = self._fit(made, data)
            elif stage == "test":
                assert data is not None
                made.test = self._test(made, data)
            else:
                made.predict = self._predict(made)
            done += 1
        self.bars("measuring", done, total)
        return made

    def _work(self, machine: Machine) -> Work:
        data = self.config.data
        mixed = "16" in machine.precision
        return count_work(self.config.model, data.patch_size, data.batch_size, len(data.organelles), mixed)

    def _require_room(self, machine: Machine) -> None:
        """Refuse before anything is computed what cannot be: a full main memory ends in a kill, not in an error."""
        work = self._work(machine)
        if too_large(work, machine.memory_bytes):
            raise InputError(self._does_not_fit(machine.memory_bytes, work))

    def _does_not_fit(self, memory_bytes: int, work: Work | None = None) -> str:
        data = self.config.data
        size = "x".join(map(str, data.patch_size))
        return (
            f"data.batch_size: a step of {data.batch_size} patches of {size} voxels does not fit into "
            f"{memory_bytes / 1e9:.1f} GB of memory; "
            + advice(self.config.model, data.patch_size, data.batch_size, memory_bytes, work)
        )

    def _prepared(self, made: Plan, data: OrganelleDataModule) -> Any:
        wanted = [case for split in ("train", "val") for case in made.cases[split]] if "fit" in self.stages else []
        looked = look_through(wanted, self.config.data)
        made.shapes = prepared_shapes(looked.entries)
        ready = next((case for found in data.find().values() for case in found), None)
        assert ready is not None
        return measure_preparing(looked.missing, len(wanted), ready, self.config.data)

    def _fit(self, made: Plan, data: OrganelleDataModule) -> FitPlan:
        config, machine = self.config, made.machine
        work = self._work(machine)
        own = dataclasses.replace(config.data)
        with explain_memory_error(lambda: self._does_not_fit(machine.memory_bytes, work)):
            measured = measure_fit(
                lambda: build_for_training(config, None), _shortened(data), config.trainer, self.folder
            )
        epoch = plan_epoch(own.patches_per_epoch, own.batch_size, config.trainer, machine.ranks, len(made.cases["val"]))
        memory = measured.memory
        waiting = memory.waiting_bytes(epoch.batches)
        host = memory.watch.own_bytes + memory.watch.loaders_bytes + waiting
        weights = BYTES_A_WEIGHT * work.parameters
        on_gpu = machine.kind == "cuda"
        fixed = weights if on_gpu else measured.start_bytes + weights + memory.watch.loaders_bytes
        peak = measured.gpu_step_bytes if on_gpu else host
        return FitPlan(
            work=work,
            epoch=epoch,
            run=plan_run(epoch, measured.times, config.trainer),
            times=measured.times,
            steps=measured.steps,
            host_bytes=host,
            start_bytes=measured.start_bytes,
            loaders_bytes=memory.watch.loaders_bytes + waiting,
            gpu_bytes=memory.gpu_bytes,
            gpu_reserved_bytes=memory.gpu_reserved_bytes,
            gpu_step_bytes=measured.gpu_step_bytes,
            model=MemoryModel.measured(peak, fixed, own.patch_size, own.batch_size),
            network=config.model,
            patch=(own.patch_size[0], own.patch_size[1], own.patch_size[2]),
            batch=own.batch_size,
            accumulate=config.trainer.accumulate_grad_batches,
        )

    def _module(self) -> OrganelleModule:
        """As test and predict take it: with the weights of the short training where there was one."""
        return build_from_weights(
            self.config, read_weights(self.config, find_weights(self.config, self.folder, MONITOR).paths)
        )

    def _windows(self, module: OrganelleModule, ri_ZYX: np.ndarray, spacing_um: Any) -> tuple[Any, np.ndarray, float]:
        """A crop, its probabilities, and seconds a window."""
        name = Path("crop")
        crop = crop_of(ri_ZYX, spacing_um, _resample(module), module.tiling)
        with explain_memory_error(lambda: _too_many(module.tiling.sw_batch_size)):
            clock = measure_inference(module, self.config.trainer, self.folder, {name: crop})
        return crop, clock.probabilities[name], clock.window_seconds[name]

    def _test(self, made: Plan, data: OrganelleDataModule) -> StagePlan:
        module = self._module()
        case = data.find()["test"][0]
        begun = time.perf_counter()
        raw = case.load()
        reading = time.perf_counter() - begun
        crop, probabilities_KZYX, window = self._windows(module, raw.ri_ZYX, raw.spacing_um)
        begun = time.perf_counter()
        part = RawCase(crop.ri_ZYX, raw.masks_KZYX[(slice(None), *crop.box)], raw.labelled_K, raw.spacing_um)
        TestScores(module.organelles).add(0, case, part, probabilities_KZYX >= module.threshold)
        scoring = (time.perf_counter() - begun) * raw.ri_ZYX.size / crop.ri_ZYX.size
        windows = _windows_of(module, raw.ri_ZYX.shape, raw.spacing_um)
        own = limited(math.ceil(len(made.cases["test"]) / made.machine.ranks), self.config.trainer.limit_test_batches)
        again = min(DRAWN, len(made.cases["test"]))
        return StagePlan(own, windows, window, own * (reading + scoring) + again * (reading + windows * window))

    def _predict(self, made: Plan) -> StagePlan:
        module, predict = self._module(), self.config.predict
        volumes = [read_volume(path, predict.spacing_um, predict.spacing_from, predict.series) for path in self.inputs]
        begun = time.perf_counter()
        ri_ZYX = checked_ri(volumes[0].frame(0), f"{self.inputs[0]}, frame 0")
        reading = time.perf_counter() - begun
        _, _, window = self._windows(module, ri_ZYX, volumes[0].spacing_um)
        counts = [_windows_of(module, v.shape[2:], v.spacing_um) for v in volumes for _ in range(v.shape[0])]
        voxels = sum(math.prod(v.shape[2:]) * v.shape[0] for v in volumes)
        frames = math.ceil(len(counts) / made.machine.ranks)
        mean = sum(counts) / len(counts)
        return StagePlan(frames, mean, window, reading * voxels / ri_ZYX.size / made.machine.ranks)


def _too_many(windows: int) -> str:
    """Return what to change where a batch of windows does not fit into memory."""
    if windows == 1:
        return "predict.window: one window does not fit into memory; choose a smaller one"
    return f"predict.batch_size: {windows} windows do not fit into memory; set it to {windows // 2}"


def _shortened(data: OrganelleDataModule) -> Shortened:
    def cut(batches: int) -> None:
        data.config = dataclasses.replace(data.config, patches_per_epoch=batches * data.config.batch_size)

    def guess(batch_seconds: float) -> float:
        """A forward pass is a third of a step, and half-overlapping windows see each voxel about eight times."""
        config = data.config
        voxels = max(math.prod(case.arrays()["image"].shape) for case in data.prepared["val"])
        return 8 / 3 * batch_seconds * voxels / (math.prod(config.patch_size) * config.batch_size)

    return Shortened(data, cut, MONITOR, guess if data.prepared["val"] else None)


def _resample(module: OrganelleModule) -> ResampleTo:
    metadata = module.metadata
    return ResampleTo.chosen(metadata.resample, metadata.resample_spacing_um, metadata.resample_grid)


def _windows_of(module: OrganelleModule, shape_ZYX: tuple[int, ...], spacing_um: Any) -> int:
    return len(module.tiling.windows(common_grid(shape_ZYX, spacing_um, _resample(module))[0]))
