"""When a training does wait for the device: at logging intervals, when a bar is drawn, and in the gradient scaler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.device.cases import BATCHES, RUNS
from tests.device.fake_device import Watch, device
from tests.device.harness import PerBatch, trainer_on_device
from training import progress_bar
from training.ema import ExponentialAverage
from training.trainer import EMA

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"
)
#: The scaler's one question a step: was any gradient not finite?
SCALER = "item torch/amp/grad_scaler.py GradScaler._maybe_opt_step"


def fit(folder: Path, watch: Watch, name: str = "organelle", **options: Any) -> PerBatch:
    run = RUNS[name]()
    settings = {"limit_val_batches": 0, "enable_progress_bar": False, **options}
    trainer, counted = trainer_on_device(folder, watch, run.monitor, **settings)
    trainer.fit(run.module, run.train, run.val)
    return counted


def test_without_a_bar_and_between_logging_steps_nothing_is_read(tmp_path: Path, watch: Watch) -> None:
    assert fit(tmp_path, watch).steady() == {}


def test_metrics_are_read_at_logging_steps_only(tmp_path: Path, watch: Watch) -> None:
    batches = [[str(sync) for sync in batch] for batch in fit(tmp_path, watch, log_every_n_steps=2).batches]
    rate = "upload pytorch_lightning/callbacks/lr_monitor.py LearningRateMonitor._extract_stats"
    finite = "item training/divergence.py DivergenceCheck._check"
    metric = "item lightning_fabric/utilities/apply_func.py convert_tensors_to_scalars"
    # the row of the second step is written after the callbacks of its batch, so it counts with the third
    assert batches == [[], [rate, finite], [metric] * 3]


@pytest.mark.parametrize("name", ["organelle", "cells_offsets", "shape_regressor"])
def test_in_16_bits_the_scaler_reads_once_a_step(name: str, tmp_path: Path, watch: Watch) -> None:
    counted = fit(tmp_path, watch, name, precision="16-mixed", ema=EMA(decay=0.9), gradient_clip_val=1.0)
    assert counted.steady() == {SCALER: BATCHES - 1}


def test_accumulated_gradients_add_no_waiting(tmp_path: Path, watch: Watch) -> None:
    assert fit(tmp_path, watch, accumulate_grad_batches=2, max_epochs=2).steady() == {}


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_reads_its_numbers_every_so_many_batches(
    terminal: bool, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_bar, "REFRESH", 2)
    monkeypatch.setattr(progress_bar.sys.stderr, "isatty", lambda: terminal, raising=False)
    counted = fit(tmp_path, watch, max_epochs=1, enable_progress_bar=True)
    kind = progress_bar.RichLossBar if terminal else progress_bar.LogLines
    assert isinstance(progress_bar.progress_bar(), kind)
    place = "item training/progress_bar.py LossBar.get_metrics"
    read = [[str(sync) for sync in batch].count(place) for batch in counted.batches]
    # rich's bar is read when the epoch has ended, too; lines of a log file read the loss alone, once a minute
    assert read == ([0, 1, 0] if terminal else [0, 0, 0])


def test_lightning_reads_what_is_logged_for_a_bar_after_every_batch(tmp_path: Path, watch: Watch) -> None:
    """Why training steps do not use `prog_bar`; if a later Lightning stops it, `LossBar` is not needed any more."""
    run = RUNS["cells_network"]()
    step = run.module.training_step

    def logged(batch: Any, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = step(batch, batch_idx)
        run.module.log("beside", loss.detach(), prog_bar=True)
        return loss

    run.module.training_step = logged  # type: ignore[method-assign]
    trainer, counted = trainer_on_device(tmp_path, watch, run.monitor, limit_val_batches=0, enable_progress_bar=False)
    trainer.fit(run.module, run.train)
    assert sum(counted.steady().values()) == BATCHES - 1


def average_by_torch(models: list[nn.Module], decay: Any) -> nn.Module:
    """The average as torch's own class makes it."""
    average = torch.optim.swa_utils.AveragedModel(
        models[0], avg_fn=lambda past, new, n: decay(int(n)) * past + (1 - decay(int(n))) * new, use_buffers=True
    )
    for model in models:
        average.update_parameters(model)
    return average


@pytest.mark.parametrize("decay", [lambda n: 0.9, lambda n: min(0.99, (1 + n) / (10 + n))], ids=["plain", "warm"])
def test_the_average_is_that_of_torch_and_is_updated_without_a_read(decay: Any, watch: Watch) -> None:
    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        found = nn.Sequential(nn.Conv3d(1, 3, 3), nn.BatchNorm3d(3))
        found(torch.rand(2, 1, 5, 5, 5))
        return found

    models = [model(seed) for seed in range(4)]
    expected = average_by_torch(models, decay)
    on_device = [model(seed).to(device()) for seed in range(4)]
    average, before = ExponentialAverage(on_device[0], device(), decay), len(watch.syncs)
    for one in on_device:
        average.update_parameters(one)
    assert watch.table(before) == {}
    ours, theirs = average.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs)
    assert int(ours["n_averaged"]) == average.updates == 4
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key].cpu(), value, rtol=1e-6, atol=1e-7)


def test_an_average_of_torch_goes_on_as_ours() -> None:
    """Checkpoints of earlier versions hold torch's state."""
    torch.manual_seed(0)
    models: list[nn.Module] = [nn.Linear(3, 2) for _ in range(4)]
    first = average_by_torch(models[:3], lambda n: 0.8)
    average = ExponentialAverage(nn.Linear(3, 2), torch.device("cpu"), lambda n: 0.8)
    average.load_state_dict(first.state_dict())
    assert average.updates == 3
    average.update_parameters(models[3])
    for ours, theirs in zip(average.parameters(), average_by_torch(models, lambda n: 0.8).parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_counter_among_the_buffers_is_copied(watch: Watch) -> None:
    one, other = nn.BatchNorm3d(2), nn.BatchNorm3d(2)
    other.num_batches_tracked += 3  # type: ignore[operator]
    average = ExponentialAverage(one, torch.device("cpu"), lambda n: 0.9)
    for model in (one, other):
        average.update_parameters(model)
    assert int(average.module.num_batches_tracked) == 3  # 0.9 * 0 + 0.1 * 3 would have been cut to 0
