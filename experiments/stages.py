"""The stages of a run: fit, test, predict. Each may be repeated, and each leaves its results in the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed

from cytovox.io.provenance import content_digest
from experiments.build import build_for_training, build_from_weights
from experiments.schema import Config
from experiments.tasks import task_of
from experiments.weights import find_weights, read_weights
from lightning_modules.optim import scaled_rate
from lightning_modules.seen import trained_on
from training.compiled import compiler_errors
from training.domain import described
from training.dry_run import SAMPLES, STEPS, limit_evaluations
from training.ema import take_average
from training.rundir import RunFolder
from training.signals import StopSignals
from training.step_timer import fit_metrics
from training.trainer import checkpoint_path


@dataclasses.dataclass
class Run:
    """What the stages of one run share. What test and predict do is the task's."""

    config: Config
    folder: RunFolder
    trainer: pl.Trainer
    data: Any
    inputs: list[Path]
    """Files of the predict stage."""
    signals: StopSignals
    """What asks the run to stop."""
    dry_run: bool = False
    """One step of every stage."""

    def __post_init__(self) -> None:
        self._loaded: tuple[list[Path], pl.LightningModule] | None = None
        if self.dry_run:
            self.config = _shortened(self.config)
        self.trained_on: list[dict[str, Any]] = []
        """What the weights of `module` were trained on, one entry for each member of an ensemble."""

    def fit(self) -> None:
        """Train, from the last checkpoint of the folder if there is one."""
        module: Any = build_for_training(self.config)
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
                    **({task_of(self.config).monitor: float(score)} if score is not None else {}),
                }
            )
        take_average(self.trainer, module)
        task_of(self.config).on_fit_end(self, module)
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
        task_of(self.config).test(self)

    def predict(self) -> None:
        """Predict every input; what is done is not done again."""
        task_of(self.config).predict(self)

    def module(self) -> Any:
        """The module with the weights that test and predict use."""
        found = find_weights(self.config, self.folder)
        paths = found.paths
        if self._loaded is None or self._loaded[0] != paths:
            if self.trainer.is_global_zero:
                for note in found.notes:
                    print(f"note: {note}", file=sys.stderr)
                print(f"weights: {', '.join(map(str, paths))}", flush=True)
            weights = read_weights(self.config, paths)
            self.trained_on = [member.metadata.trained_on for member in weights]
            module = build_from_weights(self.config, weights)
            self._limit(module)
            self._loaded = (paths, module)
        return self._loaded[1]

    def weights_digests(self) -> list[str]:
        """SHA-256 of the files of `module`, sorted."""
        assert self._loaded is not None
        return sorted(content_digest(path) for path in self._loaded[0])

    def gathered(self, errors: list[str]) -> list[str]:
        """Every rank's faults, on every rank."""
        if self.trainer.world_size == 1:
            return errors
        everyone: list[list[str]] = [[] for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(everyone, errors)
        return [error for told in everyone for error in told]


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
