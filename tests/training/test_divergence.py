"""A training that diverges ends with an error, never with weights that are not finite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cytovox.errors import InputError
from cytovox.models.weights_file import first_nonfinite, write_weights
from training.divergence import DivergenceCheck, DivergenceError
from training.rundir import RunFolder
from training.trainer import EMA, TrainerConfig, build_trainer


class Line(pl.LightningModule):
    """Fits a line; from one step on its loss is multiplied by `factor`."""

    def __init__(self, bad_step: int = -1, factor: float = float("nan")) -> None:
        super().__init__()
        self.network = nn.Linear(2, 1)
        self.register_buffer("unused", torch.tensor(float("nan")))
        self.bad_step, self.factor = bad_step, factor

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Squared error."""
        loss = (self.network(batch[0]) - 1).square().mean()
        return loss * self.factor if self.global_step == self.bad_step else loss

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        """A constant score."""
        self.log("val/score", 1.0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Gradient descent without moments, so that a gradient changes the weights at once."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def _loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=2)


def _fit(folder: Path, module: Line, extra: list[pl.Callback] | None = None, **more: Any) -> pl.Trainer:
    options = {"max_epochs": 3, "precision": "32-true", "log_every_n_steps": 1000, **more}
    config = TrainerConfig(accelerator="cpu", devices=1, enable_progress_bar=False, **options)
    trainer = build_trainer(config, RunFolder(folder), [], "val/score", dry_run=False, extra=extra)
    trainer.fit(module, _loader(), _loader())
    return trainer


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("ema", [None, EMA(decay=0.9)])
def test_the_error_names_the_step_and_the_checkpoint_before_it_is_kept(
    tmp_path: Path, factor: float, ema: EMA | None
) -> None:
    with pytest.raises(DivergenceError, match=r"the loss of step 6 is NaN or infinite \(epoch 1\)") as error:
        _fit(tmp_path, Line(6, factor), ema=ema)
    last = RunFolder(tmp_path).last_checkpoint
    assert f"the checkpoint before it is kept: {last}" in str(error.value)
    assert "\n" not in str(error.value)
    saved = torch.load(last, weights_only=True)
    assert saved["global_step"] == 4
    for key in ("state_dict", *(["current_model_state"] if ema else [])):
        assert first_nonfinite({k: v for k, v in saved[key].items() if k != "unused"}) is None


def test_a_single_nonfinite_loss_is_detected(tmp_path: Path) -> None:
    """The weights stay finite here, as they do with 16-mixed, and every later loss is finite."""

    class Unharmed(pl.Callback):
        def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            for parameter in pl_module.parameters():
                parameter.grad = torch.zeros_like(parameter)

    with pytest.raises(DivergenceError, match="the loss of step 1 is"):
        _fit(tmp_path, Line(1), [Unharmed()])
    assert not list(tmp_path.rglob("*.ckpt"))


def test_the_loss_is_checked_every_log_every_n_steps(tmp_path: Path) -> None:
    class Count(pl.Callback):
        batches = 0

        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            self.batches += 1

    count = Count()
    with pytest.raises(DivergenceError, match="no checkpoint was written yet"):
        _fit(tmp_path, Line(0), [count], log_every_n_steps=2)
    assert count.batches == 1  # callbacks of the run come after the check: the second batch has ended the fit


@pytest.mark.parametrize("ema", [None, EMA(decay=0.9)])
def test_nonfinite_weights_are_not_written(tmp_path: Path, ema: EMA | None) -> None:
    """The last step of an epoch can make weights infinite after a finite loss."""

    class Spoil(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any, **__: Any) -> None:
            if trainer.global_step == 8:
                with torch.no_grad():
                    pl_module.network.weight[0, 1] = float("inf")

    with pytest.raises(DivergenceError, match=r"weights are NaN or infinite after step 8 \(network.weight\)"):
        _fit(tmp_path, Line(), [Spoil()], ema=ema)
    assert torch.load(RunFolder(tmp_path).last_checkpoint, weights_only=True)["global_step"] == 4
    assert not list(tmp_path.rglob(".part-*"))


def test_a_finite_training_is_checked_at_logging_steps_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count how often the check reads its tensor from the device."""
    reads: list[int] = []
    own = DivergenceCheck._check

    def counted(self: DivergenceCheck, trainer: pl.Trainer) -> None:
        reads.append(trainer.global_step)
        own(self, trainer)

    monkeypatch.setattr(DivergenceCheck, "_check", counted)
    trainer = _fit(tmp_path, Line(), log_every_n_steps=3, check_val_every_n_epoch=2)
    assert trainer.global_step == 12
    between = [step for step in reads if step % 4]
    assert between == [3, 6, 9]


def test_the_hook_of_a_step_does_not_read_from_the_device() -> None:
    """The hook accepts a tensor of the meta device, which cannot be read."""
    check = DivergenceCheck(Path("last.ckpt"))
    trainer = type("Trainer", (), {"global_step": 3, "precision_plugin": None})()
    loss = torch.zeros((), device="meta")
    for _ in range(2):
        check.on_before_backward(trainer, None, loss)  # type: ignore[arg-type]
    assert check._first is not None
    assert check._first.device.type == "meta"


def test_a_fit_does_not_continue_from_nonfinite_weights(tmp_path: Path) -> None:
    _fit(tmp_path, Line(), max_epochs=1)
    last = RunFolder(tmp_path).last_checkpoint
    content = torch.load(last, weights_only=True)
    content["state_dict"]["network.bias"][0] = float("nan")
    torch.save(content, last)
    config = TrainerConfig(max_epochs=2, accelerator="cpu", devices=1, precision="32-true", enable_progress_bar=False)
    trainer = build_trainer(config, RunFolder(tmp_path), [], "val/score", dry_run=False)
    with pytest.raises(DivergenceError, match=r"last.ckpt: weights are NaN or infinite \(first: network.bias\)"):
        trainer.fit(Line(), _loader(), _loader(), ckpt_path=last, weights_only=True)


def test_first_nonfinite_returns_the_first_name_and_accepts_integers() -> None:
    good, bad = torch.ones(3), torch.tensor([0.0, float("inf")])
    assert first_nonfinite({"a": good, "n": torch.tensor(3), "e": torch.ones(0)}) is None
    assert first_nonfinite({}) is None
    assert first_nonfinite({"a": good, "b": bad, "c": bad}) == "b"
    assert first_nonfinite({"h": torch.tensor([65504.0]).half()}) is None


def test_nonfinite_weights_are_not_exported(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match=r"not written: the weights are NaN or infinite \(first: b\)"):
        write_weights(path, {"a": torch.ones(1), "b": torch.tensor([float("nan")])}, {})
    assert not path.exists()


TWO_RANKS = """
import sys
import os
import subprocess
import sys
from pathlib import Path
import torch
from training.divergence import DivergenceError
from tests.training.test_divergence import Line, _loader
from training.rundir import RunFolder
from training.trainer import TrainerConfig, build_trainer


class OnOneRank(Line):
    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        return loss * float("nan") if self.global_rank == 1 and self.global_step == 1 else loss

    def on_after_backward(self):  # rank 0 sees neither a bad loss nor bad weights
        for parameter in self.parameters():
            parameter.grad = torch.zeros_like(parameter)


root = Path(sys.argv[1])
config = TrainerConfig(max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", precision="32-true",
                       enable_progress_bar=False, log_every_n_steps=1000)
trainer = build_trainer(config, RunFolder(root), [], "val/score", dry_run=False)
try:
    trainer.fit(OnOneRank(), _loader(), _loader())
except DivergenceError as error:
    (root / f"{trainer.global_rank}.txt").write_text(str(error))
"""


@pytest.mark.slow
def test_divergence_on_one_rank_ends_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO_RANKS)
    home = str(Path(__file__).resolve().parents[2])
    unset = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TORCHELASTIC_", "COV_"))}
    subprocess.run(
        [sys.executable, str(tmp_path / "two.py"), str(tmp_path)], timeout=1800, check=True, capture_output=True,
        env={**unset, "PYTHONPATH": home, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    both = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert both[0] == both[1]
    assert "the loss of step 1 is" in both[0]
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_single_overflow_in_float16_is_skipped(tmp_path: Path, factor: float) -> None:
    """If activations exceed 65,504, the loss is not finite, and the gradient scaler skips the step."""
    module = Line(bad_step=3, factor=factor)
    trainer = _fit(tmp_path, module, precision="16-mixed", log_every_n_steps=1)
    assert trainer.global_step == 12
    assert torch.isfinite(module.network.weight).all()
