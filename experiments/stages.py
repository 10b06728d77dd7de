"""Stages of a run that trains: fit, test and predict. Each can be repeated and writes to the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
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
from experiments.progress import Bars, print_notes
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
from training.fit_metrics import fit_metrics
from training.metrics_log import MetricsCSV
from training.preemption import Preemption
from training.run_lock import mark_ready, wait_until_ready
from training.rundir import RunFolder, is_first_rank, read_json, write_json, write_text
from training.signals import StopSignals
from training.slurm import launched_by_srun
from training.trainer import build_trainer, checkpoint_path
from training.wandb_log import finish, log_results, wandb_logger


def begin_training(task: Any, request: RunRequest, signals: StopSignals) -> Run | None:
    """Check the request, prepare the data and create the folder; return None if there is nothing to do.

    Parameters
    ----------
    task : TrainedTask
        Task of the run.
    request : RunRequest
        The run.
    signals : StopSignals
        Signals that stop the run.

    Raises
    ------
    InputError
        Any error that would stop the run.
    """
    config = request.config
    inputs = preflight(task, config, request.stages, request.folder, request.dry_run)
    if request.folder is not None and not request.stages:
        print("nothing is left to do; stages=[...] does a stage again")
        print_results(task, request.folder, config)
        return None
    data = prepared_data(task, request)
    print_notes(data.notes())
    folder = request.folder or RunFolder.create(Path(config.runs_dir), config.name, request.dry_run)
    if launched_by_srun():
        (mark_ready if is_first_rank() else wait_until_ready)(folder)
    return Run(task, request, folder, data, inputs, signals)


def prepared_data(task: Any, request: RunRequest) -> Any:
    """Return the data module of a run, with its files read and its cache filled."""
    pl.seed_everything(request.config.seed, workers=True, verbose=False)
    with Bars() as bars:
        data = task.data_of(request.config, bars, request.dry_run, request.stages)
        if is_first_rank() and {"fit", "test"} & set(request.stages):
            task.prepare(data, request.stages, bars)
    return data


def print_results(task: Any, folder: RunFolder, config: Any) -> None:
    """Print results and paths; the last line is the run folder or the folder of the predictions."""
    task.print_summary(folder, config)
    print(f"report: {folder.path / 'report.html'}")
    print(f"run: {folder.path}", flush=True)
    files = folder.metrics().get("predict/files")
    if "predict" in config.stages and files is not None:
        out = getattr(config.predict, "out", None)
        target = Path(out).absolute() if out is not None else folder.predictions
        print(f"predictions: {target} ({int(files)} files)", flush=True)


class Run(Work):
    """A run that trains, with the objects that its stages share.

    Parameters
    ----------
    task : TrainedTask
        Task of the run.
    request : RunRequest
        The run.
    folder : RunFolder
        Run folder.
    data : LightningDataModule
        Prepared data module.
    inputs : list of Path
        Files of the predict stage.
    signals : StopSignals
        Signals that stop the run.
    """

    trainer: pl.Trainer

    def __init__(
        self, task: Any, request: RunRequest, folder: RunFolder, data: Any, inputs: list[Path], signals: StopSignals
    ) -> None:
        super().__init__(request, folder)
        self.task, self.data, self.inputs, self.signals = task, data, inputs, signals
        self.dry_run = request.dry_run
        if request.dry_run:
            self.config = _shortened(request.config)
        self._wandb: WandbLogger | None = None
        self._loaded: tuple[list[Path], pl.LightningModule] | None = None
        self.trained_on: list[dict[str, Any]] = []
        """Ranges of the training data of the weights of `module`, one entry for each member of an ensemble."""

    def record(self) -> None:
        """Write config and environment; those of earlier starts are kept under other names."""
        request, folder, tree = self.request, self.folder, self.task.resolved(self.request.config)
        if (folder.path / "config.yaml").is_file():
            sweep(folder.path)
            # stages that are repeated are not done until they are complete
            folder.update_status(
                stages_done=[stage for stage in folder.status()["stages_done"] if stage not in request.stages]
            )
            if request.changed:
                _record_changes(folder, tree)
        else:
            folder.update_status(status="running", started=now())
            predict = {**tree["predict"], **({"shard": None} if self.shard else {})}
            write_text(folder.path / "config.yaml", to_yaml({**tree, "predict": predict, "resume": None}))
        digest = self.data.digest() if {"fit", "test"} & set(request.stages) else None
        earlier = read_json(folder.path / "environment.json")
        if earlier:
            number = 1 + len(list(folder.path.glob("environment_*.json")))
            write_json(folder.path / f"environment_{number}.json", earlier)
        digest = digest or earlier.get("data_digest")
        write_json(folder.path / "environment.json", describe_environment(request.config.seed, digest))
        folder.update_status(status="running", started=folder.status().get("started") or now(), dry_run=request.dry_run)

    def begin(self) -> None:
        """Build loggers and trainer."""
        config, folder = self.request.config, self.folder
        # without a training there are no steps: a test would add a row of step 0
        csv = MetricsCSV(folder.path / "metrics.csv", _last_step(folder)) if "fit" in self.request.stages else None
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
        return self.task.report(folder)

    def run_stage(self, stage: str) -> None:
        """See `Work`."""
        if stage == "fit":
            self.fit()
        else:  # test or predict
            getattr(self.task, stage)(self)

    def close(self, status: str, resumes: bool = False) -> None:
        """Log the results to W&B and close its run."""
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
            print_notes(getattr(module, "notes", []))
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
            score = getattr(self.trainer.checkpoint_callback, "best_model_score", None)
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
        """Return the optimiser's config with the learning rate for the samples per step over all ranks.

        Print and record both numbers.
        """
        ranks, batches = self.trainer.world_size, self.trainer.accumulate_grad_batches
        size, optimizer = self.config.data.batch_size, self.config.optimizer
        samples = ranks * batches * size
        rate = scaled_rate(optimizer, samples, size)
        kept = _rate_of(checkpoint_path(self.folder))
        if self.trainer.is_global_zero:
            rate_now = rate if kept is None else kept
            if not math.isclose(rate_now, rate, rel_tol=1e-6):
                print_notes([f"the learning rate of the checkpoint is kept: {rate_now:g}, not {rate:g}"])
            scaled = "" if optimizer.lr_scale == "none" else f", {optimizer.lr:g} scaled ({optimizer.lr_scale})"
            print(f"a step: {samples} samples ({ranks} ranks, {batches} batches of {size}); "
                  f"learning rate {rate_now:g}{scaled}", flush=True)  # fmt: skip
            self.folder.update_metrics({"fit/ranks": ranks, "fit/global_batch": samples, "fit/lr": rate_now})
        return dataclasses.replace(optimizer, lr=rate)

    def _limit(self, module: Any) -> None:
        """Limit the networks of a dry run to few evaluations."""
        if self.dry_run:
            for network in (module.network, *getattr(module, "ensemble_members", [])):
                limit_evaluations(network)

    def module(self) -> Any:
        """Return the module with the weights for test and predict."""
        found = find_weights(self.config, self.folder, self.task.monitor)
        if self._loaded is None or self._loaded[0] != found.paths:
            if self.trainer.is_global_zero:
                print_notes(found.notes)
                print(f"weights: {', '.join(map(str, found.paths))}", flush=True)
            weights = read_weights(self.config, found.paths)
            self.trained_on = [member.metadata.trained_on for member in weights]
            self._loaded = (found.paths, self.task.module_from_weights(self.config, weights))
            self._limit(self._loaded[1])
        return self._loaded[1]

    def weights_digests(self) -> list[str]:
        """Return the SHA-256 digests of the weights files of `module`, sorted."""
        assert self._loaded is not None
        return sorted(content_digest(path) for path in self._loaded[0])

    def gathered(self, errors: list[str]) -> list[str]:
        """Return the errors of all ranks, on every rank."""
        everyone: list[list[str]] = [errors for _ in range(self.trainer.world_size)]
        if self.trainer.world_size > 1:
            torch.distributed.all_gather_object(everyone, errors)
        return list(itertools.chain(*everyone))


def _shortened(config: Config) -> Config:
    """Return the config of a dry run, with few sampler steps and few samples."""
    sampler, predict = getattr(config, "sampler", None), config.predict
    more: dict[str, Any] = {}
    if getattr(sampler, "steps", 0) > STEPS:
        more["sampler"] = dataclasses.replace(sampler, steps=STEPS)  # type: ignore[type-var]
    if getattr(predict, "samples", 0) > SAMPLES:
        more["predict"] = dataclasses.replace(predict, samples=SAMPLES)
    return dataclasses.replace(config, **more)


def _rate_of(checkpoint: Path | None) -> float | None:
    """Return the initial learning rate of a checkpoint's schedule; None without a checkpoint, or with a plateau."""
    states = [] if checkpoint is None else _read_checkpoint(checkpoint)["optimizer_states"]
    rate = states[0]["param_groups"][0].get("initial_lr") if states else None
    return None if rate is None else float(rate)


def _record_changes(folder: RunFolder, tree: dict[str, Any]) -> None:
    """Write the changed config to config.yaml; the earlier one is kept as config_1.yaml and so on."""
    path = folder.path / "config.yaml"
    text = path.read_text(encoding="utf-8")
    earlier = yaml.safe_load(text)
    number = next(n for n in itertools.count(1) if not (folder.path / f"config_{n}.yaml").exists())
    write_text(folder.path / f"config_{number}.yaml", text)
    kept = {key: earlier[key] for key in ("stages", "predict") if key in earlier}
    write_text(path, to_yaml({**tree, **kept, "resume": None}))


def _last_step(folder: RunFolder) -> int | None:
    """Return the step of the checkpoint that a resumed training starts from, or None."""
    path = checkpoint_path(folder)
    return None if path is None else int(_read_checkpoint(path)["global_step"])


def _read_checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
