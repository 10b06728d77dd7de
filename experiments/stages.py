"""A run that trains: its stages fit, test and predict. Each may be repeated, and writes into the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed
import yaml
from pytorch_lightning.loggers import Logger, WandbLogger

from cytovox.io.deletion import sweep
from cytovox.io.provenance import content_digest
from experiments.preflight import preflight
from experiments.progress import Bars
from experiments.report.data import read_json
from experiments.schema import Config, to_yaml
from experiments.session import RunRequest, Work, now
from experiments.weights import find_weights, read_weights
from lightning_modules.optim import scaled_rate
from lightning_modules.seen import trained_on
from training.compiled import compiler_errors
from training.domain import described
from training.dry_run import SAMPLES, STEPS, limit_evaluations
from training.ema import take_average
from training.environment import describe_environment
from training.exact import ExactResume
from training.metrics_log import MetricsCSV
from training.preemption import Preemption
from training.ready import tell_ready, wait_until_ready
from training.rundir import RunFolder, is_first_rank, write_json, write_text
from training.signals import StopSignals
from training.slurm import launched_by_srun
from training.step_timer import fit_metrics
from training.trainer import build_trainer, checkpoint_path
from training.wandb_log import finish, log_results, wandb_logger


def begin_training(task: Any, request: RunRequest, signals: StopSignals) -> Run | None:
    """Check the request, prepare the data and make the folder; None where nothing is left to do.

    Parameters
    ----------
    task : TrainedTask
        Of the request's config.
    request : RunRequest
        What is to be run.
    signals : StopSignals
        Asks the run to stop.

    Raises
    ------
    InputError
        Anything that would stop the run.
    """
    config, stages = request.config, request.stages
    inputs = preflight(task, config, stages, request.folder, request.dry_run)
    if request.folder is not None and not stages:
        print("nothing is left to do; stages=[...] does a stage again")
        print_results(task, request.folder, config)
        return None
    data = prepared_data(task, request)
    for note in data.notes():
        print(f"note: {note}", file=sys.stderr)
    folder = request.folder or RunFolder.create(Path(config.runs_dir), config.name, request.dry_run)
    if launched_by_srun():
        (tell_ready if is_first_rank() else wait_until_ready)(folder)
    return Run(task, request, folder, data, inputs, signals)


def prepared_data(task: Any, request: RunRequest) -> Any:
    """Return the data module of a request, its files read and its cache filled."""
    pl.seed_everything(request.config.seed, workers=True, verbose=False)
    with Bars() as bars:
        data = task.data_of(request.config, bars, request.dry_run, request.stages)
        if is_first_rank() and {"fit", "test"} & set(request.stages):
            task.prepare(data, request.stages, bars)
    return data


def print_results(task: Any, folder: RunFolder, config: Any) -> None:
    """Print the numbers, and where everything lies; the last line is the run folder, or that of its predictions."""
    task.print_summary(folder, config)
    metrics = folder.metrics()
    print(f"report: {folder.path / 'report.html'}")
    print(f"run: {folder.path}", flush=True)
    if "predict" in config.stages and "predict/files" in metrics:  # what a prediction is for
        out = getattr(config.predict, "out", None)
        target = Path(out).absolute() if out is not None else folder.predictions
        print(f"predictions: {target} ({int(metrics['predict/files'])} files)", flush=True)


class Run(Work):
    """A run that trains, and what its stages share.

    Parameters
    ----------
    task : TrainedTask
        Of the request's config.
    request : RunRequest
        What is to be run.
    folder : RunFolder
        Where.
    data : LightningDataModule
        Prepared.
    inputs : list of Path
        Files of the predict stage.
    signals : StopSignals
        Asks the run to stop.
    """

    trainer: pl.Trainer

    def __init__(
        self, task: Any, request: RunRequest, folder: RunFolder, data: Any, inputs: list[Path], signals: StopSignals
    ) -> None:
        super().__init__(request, folder)
        self.task, self.data, self.inputs, self.signals = task, data, inputs, signals
        self.dry_run = request.dry_run
        self._config = _shortened(request.config) if request.dry_run else request.config
        self._wandb: WandbLogger | None = None
        self._loaded: tuple[list[Path], pl.LightningModule] | None = None
        self.trained_on: list[dict[str, Any]] = []
        """What the weights of `module` were trained on, one entry for each member of an ensemble."""

    @property
    def config(self) -> Any:
        """The config of the run; a dry run has few sampling steps and samples."""
        return self._config

    @property
    def shard(self) -> str | None:
        """See `Work`."""
        shard: str | None = getattr(self.request.config.predict, "shard", None)
        return shard

    def record(self) -> None:
        """Write the config and the environment; a resumed run keeps those of its start under another name."""
        request, folder, tree = self.request, self.folder, self.task.resolved(self.request.config)
        if (folder.path / "config.yaml").is_file():
            sweep(folder.path)
            left = [stage for stage in folder.status()["stages_done"] if stage not in request.stages]
            folder.update_status(stages_done=left)  # what is done again is not done until it is
            if request.changed:
                _record_changes(folder, tree)
        else:
            folder.update_status(status="running", started=now())
            predict = {**tree["predict"], **({"shard": None} if self.shard else {})}
            write_text(folder.path / "config.yaml", to_yaml({**tree, "predict": predict, "resume": None}))
        digest = self.data.digest() if {"fit", "test"} & set(request.stages) else None
        earlier = read_json(folder.path / "environment.json")
        environment = describe_environment(request.config.seed, digest or earlier.get("data_digest"))
        if earlier:
            number = 1 + len(list(folder.path.glob("environment_*.json")))
            write_json(folder.path / f"environment_{number}.json", earlier)
        write_json(folder.path / "environment.json", environment)
        folder.update_status(status="running", started=folder.status().get("started") or now(), dry_run=request.dry_run)

    def begin(self) -> None:
        """Build loggers and trainer."""
        config, folder = self.request.config, self.folder
        # a test alone has no step, and would add a row of step 0
        fits = "fit" in self.request.stages
        csv = MetricsCSV(folder.path / "metrics.csv", _last_step(folder)) if fits else None
        if not self.dry_run and self.shard is None:
            self._wandb = wandb_logger(config.logging, folder, config.name, self.task.resolved(config))
        stopper = Preemption(self.signals, folder.last_checkpoint, config.trainer.save_every_minutes)
        loggers: list[Logger] = [logger for logger in (csv, self._wandb) if logger is not None]
        self.trainer = build_trainer(
            config.trainer, folder, loggers, self.task.monitor, self.dry_run,
            [ExactResume(config.seed), stopper], config.data.batch_size,
        )  # fmt: skip

    def report(self, folder: Path) -> dict[str, Any]:
        """See `Work`."""
        found: dict[str, Any] = self.task.report(folder)
        return found

    def run_stage(self, stage: str) -> None:
        """See `Work`."""
        {"fit": self.fit, "test": self.test, "predict": self.predict}[stage]()

    def close(self, status: str, resumes: bool = False) -> None:
        """Log the results in W&B, and end its run."""
        if is_first_rank():
            log_results(self._wandb, self.folder, self.folder.metrics())
        finish(self._wandb, status == "finished", resumes)

    def finished(self) -> int:
        """See `Work`."""
        if is_first_rank() and self.shard is None:
            print_results(self.task, self.folder, self.request.config)
        elif is_first_rank():
            print(f"shard {self.shard} is done\nrun: {self.folder.path}", flush=True)
        return 0

    def fit(self) -> None:
        """Train, from the last checkpoint of the folder if there is one."""
        module: Any = self.task.module_for_training(self.config)
        self._limit(module)
        if self.trainer.is_global_zero:
            for note in getattr(module, "notes", []):
                print(f"note: {note}", file=sys.stderr)
        module.metadata = dataclasses.replace(module.metadata, trained_on=described(self.data))
        begun = time.perf_counter()
        module.optimizer_config = self._optimizer()
        module.metadata = trained_on(module.metadata, self.data.fingerprints(("train", "val")))
        compiling = compiler_errors() if self.config.trainer.compile else contextlib.nullcontext()
        with self.signals.deferring(), compiling:
            self.trainer.fit(module, datamodule=self.data, ckpt_path=checkpoint_path(self.folder), weights_only=True)
        if self.trainer.interrupted:
            raise KeyboardInterrupt
        if self.trainer.is_global_zero:
            best = self.trainer.checkpoint_callback
            score = getattr(best, "best_model_score", None)
            self.folder.update_metrics(
                {
                    "fit/seconds": time.perf_counter() - begun,
                    "fit/steps": self.trainer.global_step,
                    "fit/epochs": self.trainer.current_epoch,
                    **fit_metrics(self.trainer),
                    "fit/parameters": sum(p.numel() for p in module.network.parameters()),
                    **({self.task.monitor: float(score)} if score is not None else {}),
                }
            )
        take_average(self.trainer, module)
        self.task.on_fit_end(self, module)
        self.trainer.strategy.barrier("fit")

    def _optimizer(self) -> Any:
        """The optimiser's config, with the learning rate of what a step sees over all ranks; print and record both."""
        ranks, batches, size = (
            self.trainer.world_size,
            self.trainer.accumulate_grad_batches,
            self.config.data.batch_size,
        )
        samples = ranks * batches * size
        optimizer = self.config.optimizer
        rate = scaled_rate(optimizer, samples, size)
        kept = _rate_of(checkpoint_path(self.folder))
        if self.trainer.is_global_zero and kept is not None and not math.isclose(kept, rate, rel_tol=1e-6):
            print(f"note: the learning rate of the checkpoint is kept: {kept:g}, not {rate:g}", file=sys.stderr)
        if self.trainer.is_global_zero:
            rate_now = rate if kept is None else kept
            scaled = "" if optimizer.lr_scale == "none" else f", {optimizer.lr:g} scaled ({optimizer.lr_scale})"
            print(f"a step: {samples} samples ({ranks} ranks, {batches} batches of {size}); "
                  f"learning rate {rate_now:g}{scaled}", flush=True)  # fmt: skip
            self.folder.update_metrics({"fit/ranks": ranks, "fit/global_batch": samples, "fit/lr": rate_now})
        return dataclasses.replace(optimizer, lr=rate)

    def _limit(self, module: Any) -> None:
        if self.dry_run:
            for network in (module.network, *getattr(module, "ensemble_members", [])):
                limit_evaluations(network)

    def test(self) -> None:
        """Score the best weights on the test cases."""
        self.task.test(self)

    def predict(self) -> None:
        """Predict every input; what is done is not done again."""
        self.task.predict(self)

    def module(self) -> Any:
        """The module with the weights that test and predict use."""
        found = find_weights(self.config, self.folder, self.task.monitor)
        paths = found.paths
        if self._loaded is None or self._loaded[0] != paths:
            if self.trainer.is_global_zero:
                for note in found.notes:
                    print(f"note: {note}", file=sys.stderr)
                print(f"weights: {', '.join(map(str, paths))}", flush=True)
            weights = read_weights(self.config, paths)
            self.trained_on = [member.metadata.trained_on for member in weights]
            module = self.task.module_from_weights(self.config, weights)
            self._limit(module)
            self._loaded = (paths, module)
        return self._loaded[1]

    def weights_digests(self) -> list[str]:
        """SHA-256 of the files of `module`, sorted."""
        assert self._loaded is not None
        return sorted(content_digest(path) for path in self._loaded[0])

    def gathered(self, errors: list[str]) -> list[str]:
        """Every rank's errors, on every rank."""
        if self.trainer.world_size == 1:
            return errors
        everyone: list[list[str]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(everyone, errors)
        return [error for own_errors in everyone for error in own_errors]


def _shortened(config: Config) -> Config:
    """The config of a dry run: a sampler takes few steps, and few samples are drawn."""
    sampler, predict = getattr(config, "sampler", None), config.predict
    more: dict[str, Any] = {}
    if getattr(sampler, "steps", 0) > STEPS:
        more["sampler"] = dataclasses.replace(sampler, steps=STEPS)  # type: ignore[type-var]
    if getattr(predict, "samples", 0) > SAMPLES:
        more["predict"] = dataclasses.replace(predict, samples=SAMPLES)
    return dataclasses.replace(config, **more)


def _rate_of(checkpoint: Path | None) -> float | None:
    """Return the rate that a checkpoint's schedule began with; None without a checkpoint, or with a plateau."""
    if checkpoint is None:
        return None
    states = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["optimizer_states"]
    rate = states[0]["param_groups"][0].get("initial_lr") if states else None
    return None if rate is None else float(rate)


def _record_changes(folder: RunFolder, tree: dict[str, Any]) -> None:
    """Let config.yaml say what the run is from now on; the one before is kept as config_1.yaml and so on."""
    path = folder.path / "config.yaml"
    text = path.read_text(encoding="utf-8")
    earlier = yaml.safe_load(text)
    number = next(n for n in itertools.count(1) if not (folder.path / f"config_{n}.yaml").exists())
    write_text(folder.path / f"config_{number}.yaml", text)
    of_the_call = {key: earlier[key] for key in ("stages", "predict") if key in earlier}
    write_text(path, to_yaml({**tree, **of_the_call, "resume": None}))


def _last_step(folder: RunFolder) -> int | None:
    """Step of the checkpoint that a resumed fit goes on from."""
    path = checkpoint_path(folder)
    return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"]) if path is not None else None
