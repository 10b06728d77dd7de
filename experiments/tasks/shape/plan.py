"""`--plan` of the shape tasks: what a run will take, from a few steps and one cell. Nothing is left but the cache."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from cytovox.errors import InputError
from cytovox.measurement.shape_features import features_2d, features_3d
from cytovox.preprocess.shape_fields import SIDE
from cytovox.preprocess.square_symmetries import VIEWS
from datamodules.shape.cases import ShapeCell
from datamodules.shape.datamodule import ShapeDataModule
from datamodules.shape.dataset import shape_sample
from datamodules.shape.folder import find_inputs, read_shapes
from experiments.planning.duration import limited, plan_epoch, plan_run
from experiments.planning.machine import find_machine, launched_ranks
from experiments.planning.measure import Shortened, explain_memory_error, measure_fit, measuring_notes, short_config
from experiments.planning.patch_sizes import BYTES_A_WEIGHT, MemoryModel, Work
from experiments.planning.summary import FitPlan, Plan, StagePlan
from experiments.planning.tables import print_plan, write_plan
from experiments.progress import Bars, silence_lightning
from experiments.weights import find_weights, read_weights
from lightning_modules.shape_base import MONITOR, ShapeBase
from lightning_modules.shape_scoring import ShapeScores
from training.rundir import RunFolder
from training.trainer import build_trainer

#: Test cells that are predicted a second time, to be drawn.
DRAWN = 3
#: The forward pass of a validation's views is a third of so many training samples.
FORWARD = 1 / 3


def fake_cells(count: int) -> dict[str, torch.Tensor]:
    """A batch of so many cells without content, for what needs shapes only."""
    volume = torch.zeros(count, 1, SIDE, SIDE, SIDE)
    flat = torch.zeros(count, 1, SIDE, SIDE)
    return {"image": flat, "mask": torch.zeros_like(flat), "obj": volume, "distance": torch.zeros_like(volume)}


@dataclass
class ShapePlanner:
    """Measures a run of the shape task or of SHAPR.

    Parameters
    ----------
    config : ShapeConfig or SHAPRConfig
        The run's.
    data : callable
        Its data module, for these splits.
    for_training : callable
        A new module.
    from_weights : callable
        A module with weights out of checkpoints.
    """

    config: Any
    data: Callable[[Sequence[str]], ShapeDataModule]
    for_training: Callable[[], ShapeBase]
    from_weights: Callable[[Sequence[Any]], ShapeBase]

    def __call__(self, stages: Sequence[str], inputs: Sequence[Path]) -> None:
        """Measure, and print what all of the run will take.

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
        pl.seed_everything(self.config.seed, workers=True, verbose=False)
        with tempfile.TemporaryDirectory(prefix="cytovox-plan-") as folder, Bars() as bars:
            found = self._plan(list(stages), list(inputs), RunFolder(Path(folder)), bars)
        print_plan(found, [], lambda *_: "take a smaller network: not even one cell fits")
        write_plan(found, self.config.plan.json)

    def _plan(self, stages: list[str], inputs: list[Path], folder: RunFolder, bars: Bars) -> Plan:
        made = Plan(self.config.name, stages, find_machine(self.config.trainer), unit="cell", sample="cell")
        if "fit" in stages:
            made.notes += measuring_notes(self.config.trainer)
        data = self.data(("train", "val", "test"))
        if {"fit", "test"} & set(stages):
            made.cases = dict(data.find())
            made.notes += data.notes()
            for stage in {"fit", "test"} & set(stages):
                data.setup(stage)
        for done, stage in enumerate(stages):
            bars("measuring", done, len(stages))
            if stage == "fit":
                made.fit = self._fit(made, folder)
            elif stage == "test":
                made.test = self._test(made, folder)
            else:
                made.predict = self._predict(made, inputs, folder)
        bars("measuring", len(stages), len(stages))
        return made

    def _fit(self, made: Plan, folder: RunFolder) -> FitPlan:
        config, machine = self.config, made.machine
        batch, samples = config.data.batch_size, config.data.cells_per_epoch or len(made.cases["train"])

        def too_much() -> str:
            return f"data.batch_size: a step of {batch} cells does not fit into memory; set it to {max(1, batch // 2)}"

        with explain_memory_error(too_much):
            measured = measure_fit(self.for_training, self._shortened(made), config.trainer, folder)
        epoch = plan_epoch(samples, batch, config.trainer, machine.ranks, len(made.cases["val"]))
        memory, parameters = measured.memory, sum(p.numel() for p in self.for_training().parameters())
        waiting, on_gpu = memory.waiting_bytes(epoch.batches), machine.kind == "cuda"
        host = memory.watch.own_bytes + memory.watch.loaders_bytes + waiting
        weights = BYTES_A_WEIGHT * parameters
        fixed = weights if on_gpu else measured.start_bytes + weights + memory.watch.loaders_bytes
        peak = measured.gpu_step_bytes if on_gpu else host
        return FitPlan(
            work=Work(parameters, None, None),
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
            model=MemoryModel.measured(peak, fixed, (SIDE, SIDE, SIDE), batch),
            network=None,
            patch=(SIDE, SIDE, SIDE),
            batch=batch,
            accumulate=config.trainer.accumulate_grad_batches,
        )

    def _shortened(self, made: Plan) -> Shortened:
        data = self.data(("train", "val"))
        data.cells = {"train": list(made.cases["train"]), "val": list(made.cases["val"][:1]), "test": []}

        def cut(batches: int) -> None:
            data.config = dataclasses.replace(data.config, cells_per_epoch=batches * data.config.batch_size)

        def guess(batch_seconds: float) -> float:
            return FORWARD * VIEWS * batch_seconds / data.config.batch_size

        return Shortened(data, cut, MONITOR, guess if data.cells["val"] else None)

    def _module(self, folder: RunFolder) -> ShapeBase:
        """As test and predict take it: with the weights of the short training where there was one."""
        return self.from_weights(read_weights(self.config, find_weights(self.config, folder, MONITOR).paths))

    def _cell_seconds(self, module: ShapeBase, cell: ShapeCell, folder: RunFolder) -> tuple[Any, float]:
        """All samples of a cell, and the seconds they took, in the run's precision and on its device."""
        trainer = build_trainer(short_config(self.config.trainer, 1, None), folder, [], MONITOR, dry_run=False)
        clock = _Clock(module)
        module.predict_cell = clock
        # the first call chooses kernels
        twice: DataLoader = DataLoader([cell, cell], batch_size=None)  # type: ignore[arg-type]
        trainer.predict(module, twice, return_predictions=False)
        return clock.found, clock.seconds[-1]

    def _test(self, made: Plan, folder: RunFolder) -> StagePlan:
        module, cells = self._module(folder), made.cases["test"]
        found, seconds = self._cell_seconds(module, cells[0], folder)
        begun = time.perf_counter()
        ShapeScores().add(0, found, torch.from_numpy(cells[0].obj_ZYX))
        scoring = time.perf_counter() - begun
        own = limited(math.ceil(len(cells) / made.machine.ranks), self.config.trainer.limit_test_batches)
        return StagePlan(own, 1, seconds, own * scoring + min(DRAWN, len(cells)) * seconds, piece="cell")

    def _predict(self, made: Plan, inputs: Sequence[Path], folder: RunFolder) -> StagePlan:
        files = [cell for path in inputs for cell in find_inputs(path)]
        (cell,) = read_shapes(files[:1])
        found, seconds = self._cell_seconds(self._module(folder), cell, folder)
        begun = time.perf_counter()
        features_2d(cell.image_YX, cell.mask_YX)
        features_3d(found.mean_ZYX.numpy())
        measuring = time.perf_counter() - begun
        own = math.ceil(len(files) / made.machine.ranks)
        return StagePlan(own, 1, seconds, own * measuring, piece="cell")


class _Clock:
    """Takes the place of the writer of shapes."""

    def __init__(self, module: ShapeBase) -> None:
        self.module = module
        self.seconds: list[float] = []
        self.found: Any = None

    def __call__(self, cell: ShapeCell) -> None:
        """Predict a cell."""
        begun = time.perf_counter()
        sample = shape_sample(cell, 0)
        image, mask = sample["image"].to(self.module.device), sample["mask"].to(self.module.device)
        self.found = self.module.shapes(image, mask, 0, self.module.samples)
        self.seconds.append(time.perf_counter() - begun)
