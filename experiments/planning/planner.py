"""Plan a run (`--plan`): measure a few steps and a part of the inference, and print the memory and time of the run."""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch

from cytovox.errors import InputError
from cytovox.networks.registry import NetworkConfig
from experiments.planning.card import plan_on_card
from experiments.planning.duration import plan_epoch, plan_run
from experiments.planning.machine import Machine, find_machine, launched_ranks
from experiments.planning.measure import Shortened, explain_memory_error, measure_fit, measuring_notes
from experiments.planning.patch_sizes import BYTES_A_WEIGHT, MemoryModel, Shape, Work
from experiments.planning.summary import FitPlan, Plan, StagePlan
from experiments.planning.tables import print_plan, write_plan
from experiments.progress import Bars, silence_lightning
from experiments.weights import find_weights, read_weights
from training.rundir import RunFolder

#: Test cases that a run predicts a second time to draw them.
DRAWN = 3


@dataclass
class Planner(ABC):
    """Base class of the planners of the tasks.

    Parameters
    ----------
    task : Task
        Task of the run, which builds data modules and modules.
    config : Config
        Config of the run.
    stages : list of str
        Stages of the run.
    inputs : list of Path
        Inputs of the predict stage.
    """

    task: Any
    config: Any
    stages: list[str]
    inputs: list[Path]
    folder: RunFolder = field(init=False)
    """Temporary run folder."""
    bars: Bars = field(init=False)

    unit: ClassVar[str]
    """Name of a case."""
    sample: ClassVar[str]
    """Name of a training sample."""

    def run(self) -> None:
        """Measure, and print what the whole run would take; with `plan.device`, estimate without measuring.

        Only prepared volumes in the cache remain.

        Raises
        ------
        InputError
            Invalid input, such as a step that does not fit into memory.
        """
        config = self.config
        if config.plan.device is not None:
            plan_on_card(config, lambda chosen: self.task.for_training(chosen, None), self.fake_batch, self.stages)
            return
        if launched_ranks() > 1:
            raise InputError(
                "--plan: measures one process, but a launcher started several; start it without torchrun or srun"
            )
        silence_lightning()
        pl.seed_everything(config.seed, workers=True, verbose=False)
        with tempfile.TemporaryDirectory(prefix="cytovox-plan-") as folder, Bars() as self.bars:
            self.folder = RunFolder(Path(folder))
            plan = self._measure()
        print_plan(plan)
        write_plan(plan, config.plan.json)

    def _measure(self) -> Plan:
        machine = find_machine(self.config.trainer)
        plan = Plan(self.config.name, self.stages, machine, unit=self.unit, sample=self.sample)
        if "fit" in self.stages:
            plan.notes += measuring_notes(self.config.trainer)
        if {"fit", "test"} & set(self.stages):
            self.read_data(plan)
        measures: dict[str, Callable[[Plan], Any]] = {"fit": self.fit, "test": self.test, "predict": self.predict}
        for done, stage in enumerate(self.stages):
            self.bars("measuring", done, len(self.stages))
            setattr(plan, stage, measures[stage](plan))
        self.bars("measuring", len(self.stages), len(self.stages))
        return plan

    def plan_fit(
        self, plan: Plan, short: Shortened, work: Work, samples: int, patch: Shape, network: NetworkConfig | None
    ) -> FitPlan:
        """Measure a short training, and return the plan of the fit stage.

        Parameters
        ----------
        plan : Plan
            Plan with the machine and the cases.
        short : Shortened
            Data of the short training.
        work : Work
            Cost of a step.
        samples : int
            Samples in an epoch.
        patch : three ints
            Size of a sample in voxels.
        network : NetworkConfig, optional
            Network whose patch size can change.
        """
        config, machine = self.config, plan.machine
        with explain_memory_error(lambda: self.too_large(machine, work)):
            measured = measure_fit(lambda: self.task.for_training(config, None), short, config.trainer, self.folder)
        batch, memory = config.data.batch_size, measured.memory
        epoch = plan_epoch(samples, batch, config.trainer, machine.ranks, len(plan.cases["val"]))
        waiting = memory.waiting_bytes(epoch.batches)
        host = memory.watch.own_bytes + memory.watch.loaders_bytes + waiting
        weights = BYTES_A_WEIGHT * work.parameters
        on_gpu = machine.kind == "cuda"
        fixed = weights if on_gpu else measured.start_bytes + weights + memory.watch.loaders_bytes
        return FitPlan(
            work=work,
            epoch=epoch,
            run=plan_run(epoch, measured.times, config.trainer),
            measured=measured,
            host_bytes=host,
            loaders_bytes=memory.watch.loaders_bytes + waiting,
            model=MemoryModel.measured(measured.gpu_step_bytes if on_gpu else host, fixed, patch, batch),
            network=network,
            patch=patch,
            batch=batch,
            accumulate=config.trainer.accumulate_grad_batches,
        )

    def module(self) -> Any:
        """Return the module for test and predict, with the weights of the short training if there was one."""
        paths = find_weights(self.config, self.folder, self.task.monitor).paths
        return self.task.from_weights(self.config, read_weights(self.config, paths))

    @abstractmethod
    def fake_batch(self, count: int) -> dict[str, torch.Tensor]:
        """Return a training batch of so many samples, without their content."""

    @abstractmethod
    def too_large(self, machine: Machine, work: Work) -> str:
        """Return the error message for a training step that does not fit into memory."""

    @abstractmethod
    def read_data(self, plan: Plan) -> None:
        """Read the data of fit and test, and add them to the plan."""

    @abstractmethod
    def fit(self, plan: Plan) -> FitPlan:
        """Return the plan of the fit stage."""

    @abstractmethod
    def test(self, plan: Plan) -> StagePlan:
        """Return the plan of the test stage."""

    @abstractmethod
    def predict(self, plan: Plan) -> StagePlan:
        """Return the plan of the predict stage."""
