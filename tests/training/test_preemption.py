"""A run that is stopped at any batch and resumed ends with the weights of an uninterrupted one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from cytovox.errors import InputError
from cytovox.inference.tiling import SlidingWindow
from cytovox.io import write_nifti
from cytovox.losses.segmentation import LOSSES
from cytovox.models.metadata import OrganelleMetadata
from datamodules.config import FolderData
from datamodules.organelle import OrganelleDataModule
from lightning_modules.optim import Adam, AdamW
from lightning_modules.organelle import OrganelleModule
from training.exact import ExactResume
from training.preemption import Preemption
from training.rundir import RunFolder
from training.signals import Preempted, StopSignals, handle_signals
from training.trainer import EMA, EarlyStop, TrainerConfig, build_trainer, checkpoint_path

MONITOR = "val/dice_mean"
METADATA = OrganelleMetadata(
    task="organelle", model={}, organelles=["nucleus"], resample="spacing_um", resample_spacing_um=[1.0] * 3,
    resample_grid=[8] * 3, ri_range=[1.33, 1.39], patch_size=[8] * 3,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    z, y, x = np.ogrid[:8, :12, :12]
    for n in range(6):
        ball = (z - 4) ** 2 + (y - 5) ** 2 + (x - 4 - n / 2) ** 2 < 9
        noise = np.random.default_rng(n).normal(0, 1e-3, ball.shape)
        write_nifti(folder / f"{n}.nii.gz", (1.34 + 0.03 * ball + noise).astype(np.float32), (1.0, 1.0, 1.0))
        write_nifti(folder / f"{n}_nucleus.nii.gz", ball.astype(np.uint8), (1.0, 1.0, 1.0))
    return folder


class Signal(pl.Callback):
    """Send the process a signal in the middle of a batch, as a scheduler does."""

    def __init__(self, stage: str, epoch: int, batch: int, name: str = "SIGUSR1") -> None:
        self.place, self.name = (stage, epoch, batch), name

    def _come(self, stage: str, trainer: pl.Trainer, batch: int) -> None:
        if (stage, trainer.current_epoch, batch) == self.place:
            os.kill(os.getpid(), getattr(signal, self.name))

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
        self._come("train", trainer, index)

    def on_validation_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int, *_: Any) -> None:
        self._come("val", trainer, index)


def fit(
    folder: Path, root: Path, *extra: pl.Callback, workers: int = 0, plateau: bool = False, **more: Any
) -> tuple[pl.Trainer, OrganelleModule, str | None]:
    """Fit 3 epochs of 4 batches and 2 validation volumes; also return the signal that stopped it, if any."""
    config = FolderData(
        organelles=["nucleus"], root=str(root), volumes="?.nii.gz", masks="*_{organelle}.nii.gz", patch_size=[8, 8, 8],
        resample_spacing_um=[1.0] * 3, batch_size=2, patches_per_epoch=8, num_workers=workers,
    )  # fmt: skip
    config.split.train, config.split.val, config.split.test = 0.5, 0.35, 0.15
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Dropout(0.5), nn.LeakyReLU(), nn.Conv3d(4, 1, 1))
    tiling = SlidingWindow(window=(8, 8, 8), stride=(8, 8, 8), pad_yx=(0, 0))
    optimizer = Adam(patience=0, lr=1e-2) if plateau else AdamW(lr=1e-2, schedule="cosine", warmup_steps=2)
    module = OrganelleModule(network, METADATA, tiling, LOSSES["dice_bce"]().build(), optimizer)
    options: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "precision": "32-true", "max_epochs": 3, **more}
    trainer_config = TrainerConfig(enable_progress_bar=False, ema=EMA(decay=0.9), **options)
    run = RunFolder(folder)
    torch.rand(int(np.random.default_rng().integers(100)))  # a restart finds its generators anywhere
    with handle_signals() as signals:
        stopper = Preemption(signals, run.last_checkpoint, trainer_config.save_every_minutes)
        callbacks: list[pl.Callback] = [*extra, ExactResume(7), stopper]
        trainer = build_trainer(trainer_config, run, [], MONITOR, dry_run=False, extra=callbacks, batch_size=2)
        try:
            with signals.deferring():
                data = OrganelleDataModule(config, seed=1)
                trainer.fit(module, datamodule=data, ckpt_path=checkpoint_path(run), weights_only=True)
        except Preempted as stop:
            return trainer, module, str(stop)
    return trainer, module, None


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(RunFolder(folder).last_checkpoint, weights_only=True)


def same(left: Any, right: Any, where: str = "") -> None:
    """Assert that two states are equal, bit for bit."""
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            same(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list | tuple):
        for n, (a, b) in enumerate(zip(left, right, strict=True)):
            same(a, b, f"{where}.{n}")
    else:
        assert left == right or (left != left and right != right), f"{where}: {left} {right}"


#: What a checkpoint holds that training depends on.
STATE = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")


@pytest.fixture(scope="module", params=["cosine", "plateau"])
def whole(request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    folder = tmp_path_factory.mktemp("whole")
    assert fit(folder, root, plateau=request.param == "plateau")[2] is None
    return folder, request.param == "plateau"


PLACES = [("train", epoch, batch) for epoch in range(3) for batch in range(4)]
PLACES += [("val", epoch, batch) for epoch in range(3) for batch in range(2)]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(map(str, place)))
def test_a_run_stopped_at_any_batch_ends_bit_for_bit_equal(
    tmp_path: Path, root: Path, whole: tuple[Path, bool], place: tuple[str, int, int]
) -> None:
    unbroken, plateau = whole
    trainer, _, stopped = fit(tmp_path, root, Signal(*place), plateau=plateau)
    assert stopped == "SIGUSR1"
    resumed, _, again = fit(tmp_path, root, plateau=plateau)
    assert again is None
    assert (resumed.current_epoch, resumed.global_step) == (3, 12)
    cut, expected = weights_of(tmp_path), weights_of(unbroken)
    for key in STATE:
        same(expected[key], cut[key], key)
    best = [torch.load(RunFolder(f).best_checkpoint, weights_only=True) for f in (tmp_path, unbroken)]
    same(best[0]["state_dict"], best[1]["state_dict"])
    if place[0] == "train" and place[2] < 3:  # at once, not an epoch later
        assert trainer.global_step == 4 * place[1] + place[2] + 1


def test_a_run_stopped_at_every_batch_ends_bit_for_bit_equal(
    tmp_path: Path, root: Path, whole: tuple[Path, bool]
) -> None:
    unbroken, plateau = whole
    for place in PLACES[:4] + PLACES[12:13] + PLACES[4:8]:
        assert fit(tmp_path, root, Signal(*place), plateau=plateau, workers=place[2] % 2)[2] == "SIGUSR1"
    assert fit(tmp_path, root, plateau=plateau)[2] is None
    same(weights_of(unbroken)["state_dict"], weights_of(tmp_path)["state_dict"])


def test_a_stop_waits_for_the_end_of_an_accumulated_step(tmp_path: Path, root: Path) -> None:
    assert fit(tmp_path / "whole", root, accumulate_grad_batches=2)[2] is None
    trainer, _, stopped = fit(tmp_path / "cut", root, Signal("train", 1, 0, "SIGTERM"), accumulate_grad_batches=2)
    assert stopped == "SIGTERM"
    assert trainer.global_step == 3
    assert fit(tmp_path / "cut", root, accumulate_grad_batches=2)[2] is None
    same(weights_of(tmp_path / "whole")["state_dict"], weights_of(tmp_path / "cut")["state_dict"])


def test_limit_train_batches_omits_no_batch_after_a_resume(tmp_path: Path, root: Path) -> None:
    for name, places in (("whole", []), ("cut", [("train", 0, 1), ("train", 1, 0)])):
        for place in places:
            assert fit(tmp_path / name, root, Signal(*place), limit_train_batches=3)[2] == "SIGUSR1"
        assert fit(tmp_path / name, root, limit_train_batches=3)[2] is None
    same(weights_of(tmp_path / "whole")["state_dict"], weights_of(tmp_path / "cut")["state_dict"])


def test_a_killed_run_loses_only_the_steps_after_the_last_save(tmp_path: Path, root: Path) -> None:
    class Die(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, index: int) -> None:
            if (trainer.current_epoch, index) == (1, 3):
                raise RuntimeError("killed")

    assert fit(tmp_path / "whole", root)[2] is None
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path / "cut", root, Die(), save_every_minutes=1e-6)
    assert weights_of(tmp_path / "cut")["global_step"] == 7
    assert fit(tmp_path / "cut", root)[2] is None
    same(weights_of(tmp_path / "whole")["state_dict"], weights_of(tmp_path / "cut")["state_dict"])


def test_an_epoch_of_one_step_is_stopped_at_its_end(tmp_path: Path, root: Path) -> None:
    one = {"limit_train_batches": 1, "max_epochs": 6, "limit_val_batches": 1}
    assert fit(tmp_path / "whole", root, **one)[2] is None
    trainer, _, stopped = fit(tmp_path / "cut", root, Signal("train", 2, 0), **one)
    assert (stopped, trainer.global_step) == ("SIGUSR1", 3)
    assert fit(tmp_path / "cut", root, **one)[0].global_step == 6
    same(weights_of(tmp_path / "whole")["state_dict"], weights_of(tmp_path / "cut")["state_dict"])


@pytest.mark.parametrize("place", [p for p in PLACES if p[0] == "val" or p[2] == 3], ids=str)
def test_a_resumed_run_with_max_steps_counts_no_epoch_twice(
    tmp_path: Path, root: Path, whole: tuple[Path, bool], place: tuple[str, int, int]
) -> None:
    unbroken, plateau = whole
    assert fit(tmp_path, root, Signal(*place), plateau=plateau, max_steps=12)[2] == "SIGUSR1"
    assert fit(tmp_path, root, plateau=plateau, max_steps=12)[0].global_step == 12
    best = [torch.load(RunFolder(f).best_checkpoint, weights_only=True) for f in (tmp_path, unbroken)]
    same(best[0]["state_dict"], best[1]["state_dict"])
    cut, expected = weights_of(tmp_path), weights_of(unbroken)
    for key in STATE:
        same(expected[key], cut[key], key)


def test_a_due_checkpoint_is_saved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of the ranks comes a batch later; until then there is no second request."""

    class Done:
        def wait(self) -> None:
            pass

    monkeypatch.setattr("training.preemption.dist.all_reduce", lambda *_, **__: Done())
    stopper = Preemption(StopSignals(), Path("last.ckpt"), save_every_minutes=1.0)
    stopper._group, stopper._saved = object(), -1e9
    found = []
    for _ in range(4):
        found.append(stopper._agreed(None)[1])  # type: ignore[arg-type]
        if found[-1]:
            stopper._saved = time.monotonic()
    assert found == [False, True, False, False]


def test_early_stopping_continues_its_count_after_a_resume(tmp_path: Path, root: Path) -> None:
    stop = {"early_stopping": EarlyStop(patience=1, min_delta=1.0), "max_epochs": 9}
    ended = fit(tmp_path / "whole", root, **stop)[0]
    assert fit(tmp_path / "cut", root, Signal("val", 1, 0), **stop)[2] == "SIGUSR1"
    assert fit(tmp_path / "cut", root, **stop)[0].global_step == ended.global_step < 36


def test_a_signal_in_the_last_validation_batch_ends_the_run_before_the_next_stage(tmp_path: Path, root: Path) -> None:
    trainer, _, stopped = fit(tmp_path, root, Signal("val", 2, 1))
    assert (stopped, trainer.global_step) == ("SIGUSR1", 12)
    assert fit(tmp_path, root)[0].current_epoch == 3


def test_outside_a_fit_a_signal_acts_at_once_and_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="SIGTERM"), handle_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_deferred_signal_acts_after_the_fit() -> None:
    signals = StopSignals()
    with pytest.raises(Preempted, match="SIGUSR1"), signals.deferring():
        signals(signal.SIGUSR1)
    assert not signals.deferred


def test_a_global_batch_sets_the_accumulation(tmp_path: Path, root: Path) -> None:
    assert fit(tmp_path, root, global_batch=4)[0].global_step == 6
    with pytest.raises(InputError, match=r"expected a multiple of 2 .*got 5"):
        fit(tmp_path / "odd", root, global_batch=5)
