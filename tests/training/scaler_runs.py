"""Runs in 16-mixed with steps that overflow: what tests on a CPU and on a GPU share."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from training.divergence import DivergenceError
from training.exact import ExactResume
from training.rundir import RunFolder
from training.trainer import EMA, TrainerConfig, build_trainer, checkpoint_path

#: Steps of an epoch.
STEPS = 6
#: Loss scale at the start.
SCALE = 1024.0


class OverflowModule(pl.LightningModule):
    """A small network in 16-mixed; in some steps its gradients overflow though its loss is finite.

    Parameters
    ----------
    overflow : collection of int
        Steps whose gradients are infinite.
    """

    def __init__(self, overflow: Collection[int] = ()) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=1), nn.InstanceNorm3d(8), nn.LeakyReLU(), nn.Dropout(0.1), nn.Conv3d(8, 1, 1)
        )
        self.overflow = set(overflow)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Squared error; in the steps that overflow with an addend of 0 whose gradient is infinite in float16."""
        out = self.network(batch[0]).float()
        loss = (out - batch[0].float()).square().mean()
        if self.global_step in self.overflow:
            loss = loss + 1e36 * (out.sum() - out.detach().sum())
        return loss

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        """A score that grows, so that every epoch is the best."""
        self.log("val/score", float(self.global_step))

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam, and a rate that falls with the steps."""
        optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-2)
        schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Record(pl.Callback):
    """Weights, averaged weights, scales, learning rates and moments after every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any, **__: Any) -> None:
        """Note the step."""
        average = next((c._average_model for c in trainer.callbacks if hasattr(c, "_average_model")), None)  # type: ignore[attr-defined]
        own = trainer.optimizers[0].state[next(pl_module.network.parameters())]
        self.steps.append(
            {
                "global_step": trainer.global_step,
                "weight": pl_module.network[0].weight.detach().clone(),
                "average": None if average is None else average.module.network[0].weight.detach().clone(),
                "scale": trainer.precision_plugin.scaler.get_scale(),  # type: ignore[attr-defined]
                "rate": trainer.optimizers[0].param_groups[0]["lr"],
                "updates": int(own["step"]) if own else 0,
            }
        )


def fit(
    folder: Path,
    accelerator: str,
    epochs: int,
    overflow: Collection[int] = (),
    growth_interval: int = 5,
    ema: EMA | None = None,
) -> tuple[OverflowModule, Record, pl.Trainer]:
    """Train in 16-mixed from the last checkpoint of the folder, if there is one."""
    run, record, module = RunFolder(folder), Record(), OverflowModule(overflow)
    config = TrainerConfig(
        max_epochs=epochs, accelerator=accelerator, devices=1, precision="16-mixed", ema=ema,  # type: ignore[arg-type]
        enable_progress_bar=False, log_every_n_steps=1, deterministic=True,
    )  # fmt: skip
    trainer = build_trainer(config, run, [], "val/score", dry_run=False, extra=[ExactResume(3), record])
    # the usual first scale of 65,536 may overflow of itself in the first steps
    scaler = torch.amp.GradScaler(trainer.strategy.root_device.type, init_scale=SCALE, growth_interval=growth_interval)
    trainer.precision_plugin.scaler = scaler  # type: ignore[attr-defined]
    data = torch.rand(2 * STEPS, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    loader: DataLoader[Any] = DataLoader(TensorDataset(data), batch_size=2)
    try:
        trainer.fit(module, loader, loader, ckpt_path=checkpoint_path(run), weights_only=True)
    finally:
        torch.use_deterministic_algorithms(False)
    return module, record, trainer


def check_a_step_that_overflows_is_skipped(folder: Path, accelerator: str) -> None:
    """Weights and moments stay; the average takes up the same weights again; the schedule goes on; the step counts."""
    _, record, trainer = fit(folder, accelerator, 1, overflow={2}, ema=EMA(decay=0.5))
    before, skipped, after = record.steps[1:4]
    assert torch.equal(skipped["weight"], before["weight"])
    assert not torch.equal(after["weight"], skipped["weight"])
    assert [s["updates"] for s in record.steps] == [1, 2, 2, 3, 4, 5]
    assert [s["global_step"] for s in record.steps] == [1, 2, 3, 4, 5, 6]
    assert trainer.global_step == STEPS
    assert [s["rate"] for s in record.steps] == pytest.approx([1e-2 / (1 + n) for n in range(1, 7)])
    torch.testing.assert_close(skipped["average"], (before["average"] + before["weight"]) / 2)
    assert [s["scale"] for s in record.steps[:4]] == [SCALE, SCALE, SCALE / 2, SCALE / 2]
    assert all(torch.isfinite(s["weight"]).all() for s in record.steps)


def check_the_scaler_is_saved_and_restored(folder: Path, accelerator: str) -> None:
    """Its scale and its count of good steps, not those of a new one."""
    _, record, _ = fit(folder, accelerator, 1, overflow={1}, growth_interval=7)
    saved = torch.load(RunFolder(folder).last_checkpoint, weights_only=True)["MixedPrecision"]
    assert (saved["scale"], saved["_growth_tracker"]) == (SCALE / 2, STEPS - 2)
    _, record, _ = fit(folder, accelerator, 2, overflow={1}, growth_interval=7)
    # of 7 good steps in a row 4 lie before the stop: the third after it doubles the scale
    assert [s["scale"] for s in record.steps] == [SCALE / 2] * 2 + [SCALE] * 4


def check_a_stopped_run_ends_as_one_that_was_not(folder: Path, accelerator: str) -> None:
    """Weights, averaged weights, scale and rates, with steps that overflow on either side of the stop."""
    overflow = {1, STEPS + 2}
    whole, watch, _ = fit(folder / "whole", accelerator, 2, overflow, ema=EMA(decay=0.9))
    fit(folder / "cut", accelerator, 1, overflow, ema=EMA(decay=0.9))
    ended, second, _ = fit(folder / "cut", accelerator, 2, overflow, ema=EMA(decay=0.9))
    for one, other in zip(second.steps, watch.steps[STEPS:], strict=True):
        assert (one["scale"], one["global_step"], one["rate"]) == (other["scale"], other["global_step"], other["rate"])
        assert torch.equal(one["weight"], other["weight"])
        assert torch.equal(one["average"], other["average"])
    for name, value in whole.state_dict().items():
        assert torch.equal(ended.state_dict()[name], value), name


def check_a_scale_that_collapses_is_an_error(folder: Path, accelerator: str) -> None:
    """Every step overflows, and none is taken: 24 halvings from 1,024 are below 1e-4."""
    with pytest.raises(DivergenceError, match=r"loss scale of 16-mixed fell below 0.0001.*up to step 24 "):
        fit(folder, accelerator, 9, overflow=range(9 * STEPS))
    saved = torch.load(RunFolder(folder).last_checkpoint, weights_only=True)
    assert saved["global_step"] == 18
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
