"""A resumed run equals an uninterrupted one: weights, learning rates, patches, averages and metrics."""

from __future__ import annotations

import csv
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
from datamodules.cases import FolderCase
from datamodules.config import FolderData
from datamodules.organelle import OrganelleDataModule
from lightning_modules.optim import Adam, AdamW, OptimizerConfig
from lightning_modules.organelle import MONITOR, OrganelleModule
from training.metrics_log import MetricsCSV
from training.rundir import RunFolder
from training.trainer import EMA, EarlyStop, TrainerConfig, build_trainer, checkpoint_path, trainer_errors

SHAPE, SPACING = (8, 16, 16), (1.0, 1.0, 1.0)
METADATA = OrganelleMetadata(
    task="organelle",
    model={"network": "x"},
    organelles=["nucleus"],
    resample="spacing_um",
    resample_spacing_um=[1.0] * 3,
    resample_grid=[8] * 3,
    ri_range=[1.33, 1.39],
    patch_size=[8, 8, 8],
)


class Watch(pl.Callback):
    """Record the patches and learning rates of each step, and the weights after each epoch."""

    def __init__(self) -> None:
        self.patches: list[float] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self.patches.append(float(batch["image"].double().sum()))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("balls")
    z, y, x = np.ogrid[:8, :16, :16]
    for n in range(4):
        ball = (z - 4) ** 2 + (y - 6 - n) ** 2 + (x - 8) ** 2 < 12
        rng = np.random.default_rng(n)
        write_nifti(root / f"{n}.nii.gz", (1.34 + 0.03 * ball + rng.normal(0, 1e-3, SHAPE)).astype(np.float32), SPACING)
        write_nifti(root / f"{n}_nucleus.nii.gz", ball.astype(np.uint8), SPACING)
    return root


def _data(root: Path, workers: int = 0, **more: object) -> OrganelleDataModule:
    config = FolderData(
        organelles=["nucleus"], root=str(root), volumes="?.nii.gz", masks="*_{organelle}.nii.gz", patch_size=[8, 8, 8],
        resample_spacing_um=[1.0] * 3, batch_size=2, patches_per_epoch=8, num_workers=workers, **more,  # type: ignore[arg-type]
    )  # fmt: skip
    config.split.train, config.split.val, config.split.test = 0.5, 0.25, 0.25
    return OrganelleDataModule(config, seed=1)


def _module(optimizer: OptimizerConfig | None = None) -> OrganelleModule:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(4, 1, 1))
    optimizer = optimizer or AdamW(lr=1e-2, schedule="cosine", warmup_steps=2)
    tiling = SlidingWindow(window=(8, 8, 8), stride=(8, 8, 8), pad_yx=(0, 0))
    return OrganelleModule(network, METADATA, tiling, LOSSES["dice_bce"]().build(), optimizer)


def _config(**more: object) -> TrainerConfig:
    options = {"accelerator": "cpu", "devices": 1, "precision": "32-true", "enable_progress_bar": False, **more}
    return TrainerConfig(log_every_n_steps=1, **options)  # type: ignore[arg-type]


class Stop(pl.Callback):
    """Stop the run at the end of an epoch, as a time limit does."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


def _fit(
    folder: Path, data: OrganelleDataModule, config: TrainerConfig, optimizer: OptimizerConfig | None = None,
    stop: int | None = None,
) -> tuple[OrganelleModule, Watch, pl.Trainer]:  # fmt: skip
    run, watch, module = RunFolder(folder), Watch(), _module(optimizer)
    last = checkpoint_path(run)
    step = int(torch.load(last, weights_only=True)["global_step"]) if last else None
    extra: list[pl.Callback] = [watch, *([Stop(stop)] if stop is not None else [])]
    csv_log = MetricsCSV(folder / "metrics.csv", step)
    trainer = build_trainer(config, run, [csv_log], MONITOR, dry_run=False, extra=extra)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        assert stop is not None
    return module, watch, trainer


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["cosine", "plateau", "every second epoch"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, data_root: Path, kind: str, workers: int) -> None:
    optimizer = AdamW(lr=1e-2, schedule="cosine", warmup_steps=2) if kind == "cosine" else Adam(patience=0, lr=1e-2)
    every = 2 if kind == "every second epoch" else 1
    config = _config(max_epochs=4, ema=EMA(decay=0.9) if kind == "cosine" else None, check_val_every_n_epoch=every)
    whole, watch, _ = _fit(tmp_path / "whole", _data(data_root, workers), config, optimizer)
    _, first, _ = _fit(tmp_path / "cut", _data(data_root, workers), config, optimizer, stop=2)
    ended, second, trainer = _fit(tmp_path / "cut", _data(data_root, workers), config, optimizer)
    assert first.patches == watch.patches[:8]
    assert second.patches == watch.patches[8:]
    assert second.rates == pytest.approx(watch.rates[8:])
    assert (trainer.current_epoch, trainer.global_step) == (4, 16)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(ended.state_dict()[name], value, msg=name)
    assert _rows(tmp_path / "cut") == _rows(tmp_path / "whole")


def test_metrics_of_a_resumed_run_have_each_step_once(tmp_path: Path, data_root: Path) -> None:
    config = _config(max_epochs=3)
    _fit(tmp_path, _data(data_root), config, stop=2)
    _fit(tmp_path, _data(data_root), config)
    steps = [int(row["step"]) for row in _rows(tmp_path)]
    assert steps == list(range(12))
    assert sum(row["val/dice_mean"] != "" for row in _rows(tmp_path)) == 3


def test_the_last_checkpoint_is_that_of_the_last_epoch(tmp_path: Path, data_root: Path) -> None:
    module = _module()
    with torch.no_grad():
        module.network[2].bias.fill_(50.0)  # everything is nucleus, whatever is learnt: no epoch betters the first

    class Still(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:
            with torch.no_grad():
                pl_module.network[2].bias.fill_(50.0)

    run = RunFolder(tmp_path)
    trainer = build_trainer(_config(max_epochs=3), run, [], MONITOR, dry_run=False, extra=[Still()])
    trainer.fit(module, datamodule=_data(data_root))
    read = {p.name: torch.load(p, weights_only=True)["global_step"] for p in run.checkpoints.iterdir()}
    assert read == {"best.ckpt": 4, "last.ckpt": 12}
    assert trainer.checkpoint_callback is not None
    assert trainer.checkpoint_callback.best_model_path == str(run.best_checkpoint)  # type: ignore[attr-defined]


def test_a_run_that_ends_within_an_epoch_saves_its_weights(tmp_path: Path, data_root: Path) -> None:
    module, _, trainer = _fit(tmp_path, _data(data_root), _config(max_steps=3, max_epochs=5))
    assert trainer.global_step == 3
    saved = torch.load(RunFolder(tmp_path).last_checkpoint, weights_only=True)
    assert saved["global_step"] == 3
    assert torch.equal(saved["state_dict"]["network.0.weight"], module.network[0].weight)


@pytest.mark.parametrize("warmup", [False, True])
def test_the_best_checkpoint_holds_the_averaged_weights(tmp_path: Path, data_root: Path, warmup: bool) -> None:
    decay, seen = 0.8, []

    class Steps(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:
            seen.append(pl_module.network[0].weight.detach().clone())

    run = RunFolder(tmp_path)
    config = _config(max_epochs=2, ema=EMA(decay=decay, warmup=warmup))
    trainer = build_trainer(config, run, [], MONITOR, dry_run=False, extra=[Steps()])
    trainer.fit(_module(), datamodule=_data(data_root))
    average, averages = seen[0], [seen[0]]
    for n, weight in enumerate(seen[1:], start=1):
        past = min(decay, (1 + n) / (10 + n)) if warmup else decay
        average = past * average + (1 - past) * weight
        averages.append(average)
    for path in (run.best_checkpoint, run.last_checkpoint):
        saved = torch.load(path, weights_only=True)
        at = saved["global_step"] - 1
        torch.testing.assert_close(saved["state_dict"]["network.0.weight"], averages[at])
        torch.testing.assert_close(saved["current_model_state"]["network.0.weight"], seen[at])


def test_without_validation_the_last_weights_are_used(tmp_path: Path, data_root: Path) -> None:
    data = _data(data_root)
    data.config.split.train, data.config.split.val = 0.75, 0.0  # type: ignore[attr-defined]
    _fit(tmp_path / "cosine", data, _config(max_epochs=1))
    assert RunFolder(tmp_path / "cosine").weights() == tmp_path / "cosine/checkpoints/last.ckpt"
    with pytest.raises(InputError, match="plateau follows the validation"):
        _fit(tmp_path / "plateau", data, _config(max_epochs=1), Adam())


def test_early_stopping_without_a_validation_is_refused(tmp_path: Path, data_root: Path) -> None:
    stop, without = EarlyStop(patience=1), _data(data_root)
    without.config.split.train, without.config.split.val = 0.75, 0.0  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="early_stopping: follows the validation"):
        _fit(tmp_path / "none", without, _config(max_epochs=1, early_stopping=stop))
    limited = _config(max_epochs=1, limit_val_batches=0, early_stopping=stop)
    with pytest.raises(InputError, match="early_stopping: follows the validation"):
        _fit(tmp_path / "limited", _data(data_root), limited)


def test_early_stopping_is_accepted_with_fewer_steps_than_an_epoch(tmp_path: Path, data_root: Path) -> None:
    config = _config(max_epochs=9, max_steps=1, early_stopping=EarlyStop(patience=1))
    assert _fit(tmp_path, _data(data_root), config)[2].global_step == 1


def test_early_stopping_stops(tmp_path: Path, data_root: Path) -> None:
    config = _config(max_epochs=9, early_stopping=EarlyStop(patience=1, min_delta=1.0))
    assert _fit(tmp_path, _data(data_root), config)[2].current_epoch == 2


def test_a_dry_run_takes_one_step(tmp_path: Path, data_root: Path) -> None:
    trainer = build_trainer(_config(max_epochs=9), RunFolder(tmp_path), [], MONITOR, dry_run=True)
    trainer.fit(_module(), datamodule=_data(data_root))
    assert trainer.global_step == 1


def test_without_a_training_volume_a_fit_is_refused(data_root: Path) -> None:
    data = _data(data_root)
    data.config.split.train, data.config.split.val, data.config.split.test = 0, 0, 1  # type: ignore[attr-defined]
    assert len(data.find()["test"]) == 4
    with pytest.raises(InputError, match="no volume to train on"):
        data.setup("fit")
    data.setup("test")
    index, case, raw = next(iter(data.test_dataloader()))
    assert (index, raw.ri_ZYX.shape) == (0, SHAPE)
    assert isinstance(case, FolderCase)


def test_the_digest_of_the_data_depends_on_content_and_split(data_root: Path) -> None:
    first = _data(data_root).digest()
    assert _data(data_root).digest() == first
    other = _data(data_root)
    other.seed = 7
    moved = {c.name for c in other.find()["test"]} != {c.name for c in _data(data_root).find()["test"]}
    assert (other.digest() != first) == moved


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"accelerator": "gpu"}, "trainer: .*"),
        ({"strategy": "ddpp"}, "trainer: .*ddpp"),
        ({"devices": 0}, "trainer: .*"),
        ({"devices": "x"}, "trainer: .*devices"),
        ({"limit_train_batches": 1.5}, "trainer: .*1.5"),
    ],
)
def test_a_trainer_that_lightning_refuses_is_reported_in_one_line(
    tmp_path: Path, more: dict[str, Any], expected: str
) -> None:
    if more.get("accelerator") == "gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(InputError, match=expected) as error:
        build_trainer(_config(**more), RunFolder(tmp_path), [], MONITOR, dry_run=False)
    assert "\n" not in str(error.value)


def test_errors_of_the_trainer_name_their_keys() -> None:
    assert trainer_errors(TrainerConfig(ema=EMA(), early_stopping=EarlyStop(), max_time="00:01:30:00")) == []
    bad = TrainerConfig(
        max_epochs=None, num_nodes=0, precision="bf16-true", max_steps=-3, ema=EMA(1.0, 0), early_stopping=EarlyStop(0)
    )
    keys = [error.split(":")[0] for error in trainer_errors(bad)]
    assert keys == [
        "max_steps, max_epochs", "num_nodes", "ema.update_every_n_steps", "early_stopping.patience", "precision",
        "ema.decay",
    ]  # fmt: skip
    assert trainer_errors(TrainerConfig(gradient_clip_val=-1.0))[0].startswith("gradient_clip_val: expected")
    assert trainer_errors(TrainerConfig(max_epochs=None))[0].startswith("max_epochs: no limit at all")
    assert trainer_errors(TrainerConfig(max_time="90m"))[0].startswith("max_time: expected DD:HH:MM:SS")
