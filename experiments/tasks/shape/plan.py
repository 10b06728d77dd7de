"""`--plan` of the shape tasks."""

import dataclasses
import math
import time
from typing import Any

import torch
from torch.utils.data import DataLoader

from cytovox.measurement.shape_features import features_2d, features_3d
from cytovox.preprocess.shape_fields import SIDE
from cytovox.preprocess.square_symmetries import VIEWS
from datamodules.shape.cases import ShapeCell
from datamodules.shape.folder import find_inputs, read_shapes
from experiments.planning.duration import limited
from experiments.planning.machine import Machine
from experiments.planning.measure import Shortened, short_config
from experiments.planning.patch_sizes import Work
from experiments.planning.planner import DRAWN, Planner
from experiments.planning.summary import FitPlan, Plan, StagePlan
from experiments.tasks.shape.stages import predict_shapes
from lightning_modules.shape_base import MONITOR, ShapeBase
from lightning_modules.shape_scoring import ShapeScores
from training.trainer import build_trainer

#: Time of a forward pass as a fraction of a training step.
FORWARD = 1 / 3


class ShapePlanner(Planner):
    """Planner of a run of the shape task or of SHAPR."""

    unit = "cell"
    sample = "cell"

    def fake_batch(self, count: int) -> dict[str, torch.Tensor]:
        """See `Planner`."""
        volume = torch.zeros(count, 1, SIDE, SIDE, SIDE)
        flat = torch.zeros(count, 1, SIDE, SIDE)
        return {"image": flat, "mask": torch.zeros_like(flat), "obj": volume, "distance": torch.zeros_like(volume)}

    def too_large(self, machine: Machine, work: Work) -> str:
        """See `Planner`."""
        batch = self.config.data.batch_size
        return f"data.batch_size: a step of {batch} cells does not fit into memory; set it to {max(1, batch // 2)}"

    def read_data(self, plan: Plan) -> None:
        """See `Planner`."""
        data = self.task.data(self.config, None, None, ("train", "val", "test"))
        plan.cases = dict(data.find())
        plan.notes += data.notes()
        for stage in {"fit", "test"} & set(self.stages):
            data.setup(stage)

    def fit(self, plan: Plan) -> FitPlan:
        """See `Planner`."""
        config, cells = self.config, plan.cases
        data = self.task.data(config, None, None, ("train", "val"))
        data.cells = {"train": list(cells["train"]), "val": list(cells["val"][:1]), "test": []}

        def cut(batches: int) -> None:
            data.config = dataclasses.replace(data.config, cells_per_epoch=batches * data.config.batch_size)

        def guess(batch_seconds: float) -> float:
            return FORWARD * VIEWS * batch_seconds / data.config.batch_size

        short = Shortened(data, cut, MONITOR, guess if data.cells["val"] else None)
        work = Work(sum(p.numel() for p in self.task.for_training(config, None).parameters()), None, None)
        return self.plan_fit(
            plan, short, work, config.data.cells_per_epoch or len(cells["train"]), (SIDE, SIDE, SIDE), None
        )

    def _time_cell(self, cell: ShapeCell) -> tuple[Any, float]:
        """Return all samples of a cell, and the seconds they took, in the run's precision and on its device."""
        module: ShapeBase = self.module()
        trainer = build_trainer(short_config(self.config.trainer, 1, None), self.folder, [], MONITOR, dry_run=False)
        result: Any = None
        seconds = 0.0

        def predict(cell: ShapeCell) -> None:
            nonlocal result, seconds
            begun = time.perf_counter()
            result = predict_shapes(module, cell, 0)
            seconds = time.perf_counter() - begun

        module.predict_cell = predict
        # the first call selects kernels; the time of the second one is kept
        twice: DataLoader = DataLoader([cell, cell], batch_size=None)  # type: ignore[arg-type]
        trainer.predict(module, twice, return_predictions=False)
        return result, seconds

    def test(self, plan: Plan) -> StagePlan:
        """See `Planner`."""
        cells = plan.cases["test"]
        found, seconds = self._time_cell(cells[0])
        begun = time.perf_counter()
        ShapeScores().add(0, found, torch.from_numpy(cells[0].obj_ZYX))
        scoring = time.perf_counter() - begun
        own = limited(math.ceil(len(cells) / plan.machine.ranks), self.config.trainer.limit_test_batches)
        return StagePlan(own, 1, seconds, own * scoring + min(DRAWN, len(cells)) * seconds, piece="cell")

    def predict(self, plan: Plan) -> StagePlan:
        """See `Planner`."""
        files = [cell for path in self.inputs for cell in find_inputs(path)]
        (cell,) = read_shapes(files[:1])
        found, seconds = self._time_cell(cell)
        begun = time.perf_counter()
        features_2d(cell.image_YX, cell.mask_YX)
        features_3d(found.mean_ZYX.numpy())
        measuring = time.perf_counter() - begun
        own = math.ceil(len(files) / plan.machine.ranks)
        return StagePlan(own, 1, seconds, own * measuring, piece="cell")
