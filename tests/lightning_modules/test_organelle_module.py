"""The organelle task with a thresholding network, whose results are known."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from cytovox.errors import InputError
from cytovox.inference.tiling import SlidingWindow
from cytovox.losses.segmentation import LOSSES
from cytovox.models.metadata import OrganelleMetadata, load_network, read_checkpoint
from cytovox.preprocess.resampling import ResampleTo
from datamodules.cases import RawCase
from lightning_modules.optim import SGD, Adam, AdamW, OptimizerConfig
from lightning_modules.organelle import MONITOR, OrganelleModule

SHAPE = (8, 12, 12)
METADATA = OrganelleMetadata(
    task="organelle", model={"network": "x"}, organelles=["nucleus", "lipid"], resample="spacing_um",
    resample_spacing_um=[1.0] * 3, resample_grid=[8] * 3, ri_range=[1.0, 2.0], patch_size=[8] * 3,
)  # fmt: skip


class Threshold(nn.Module):
    """Logit of each organelle: far above 0 where the normalised image is above 0.5."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((outputs,), 200.0))

    def forward(self, image_BCZYX: torch.Tensor) -> torch.Tensor:
        return self.scale[:, None, None, None] * (image_BCZYX - 0.5)


@dataclass
class MemoryCase:
    """A case in memory."""

    name: str
    cell_line: str
    raw: RawCase
    files: tuple[Path, ...] = ()
    settings: str = ""

    def load(self) -> RawCase:
        return self.raw


def _module(network: nn.Module | None = None, optimizer: OptimizerConfig | None = None) -> OrganelleModule:
    tiling = SlidingWindow(window=(8, 8, 8), stride=(4, 4, 4), pad_yx=(0, 0))
    optimizer = optimizer or SGD(lr=1e-3, schedule="constant")
    return OrganelleModule(network or Threshold(), METADATA, tiling, LOSSES["dice_bce"]().build(), optimizer)


def _trainer(tmp_path: Path, **more: object) -> pl.Trainer:
    options = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "enable_checkpointing": False, **more}
    return pl.Trainer(
        default_root_dir=tmp_path, logger=False, enable_progress_bar=False, enable_model_summary=False, **options  # type: ignore[arg-type]
    )  # fmt: skip


def _case(name: str, truth_KZYX: np.ndarray, labelled: tuple[bool, bool], image_ZYX: np.ndarray, line: str = "HeLa"):
    ri = (1 + 0.2 + 0.6 * image_ZYX).astype(np.float32)
    return MemoryCase(name, line, RawCase(ri, truth_KZYX.astype(np.uint8), np.array(labelled), (1.0, 1.0, 1.0)))


def _halves() -> tuple[np.ndarray, np.ndarray]:
    """An image whose lower half is seen, and a truth that is a quarter of it: Dice 2 * 1/4 / (1/2 + 1/4) = 2/3."""
    image, quarter = np.zeros(SHAPE), np.zeros(SHAPE)
    image[:, :6], quarter[:, :6, :6] = 1, 1
    return image, quarter


def _cases() -> list[MemoryCase]:
    image, quarter = _halves()
    empty = np.zeros(SHAPE)
    return [
        _case("a", np.stack([image, quarter]), (True, True), image),  # 1, 2/3
        _case("b", np.stack([quarter, empty]), (True, False), image, "A549"),  # 2/3, unlabelled
        _case("c", np.stack([empty, empty]), (True, True), empty),  # absent, absent
        _case("d", np.stack([empty, image]), (True, True), image),  # 0, 1
    ]


def test_the_test_dice_is_that_of_the_masks_and_means_exclude_absent_organelles(tmp_path: Path) -> None:
    module, cases = _module(), _cases()
    data = DataLoader([(n, c, c.load()) for n, c in enumerate(cases)], batch_size=None)  # type: ignore[arg-type]
    means = _trainer(tmp_path).test(module, data, verbose=False)[0]
    nucleus, lipid = (1 + 2 / 3 + 0) / 3, (2 / 3 + 1) / 2
    assert means["test/dice_nucleus"] == pytest.approx(nucleus)
    assert means["test/dice_lipid"] == pytest.approx(lipid)
    assert means["test/dice_mean"] == pytest.approx((nucleus + lipid) / 2)
    dice = [list(c.dice.values()) for c in module.scores.cases]
    np.testing.assert_allclose(dice, [[1, 2 / 3], [2 / 3, np.nan], [np.nan, np.nan], [0, 1]])
    assert np.isnan(module.scores.cases[2].mean)
    assert {line: len(found) for line, found in module.scores.by_cell_line().items()} == {"HeLa": 3, "A549": 1}
    assert {label: c.name for label, c in module.scores.examples().items()} == {
        "best": "a",
        "median": "b",
        "worst": "d",
    }
    window = module.scores.windows.fit()["nucleus"]
    assert (window.n, module.scores.windows.fit()["lipid"].n) == (2, 2)


def test_a_rank_without_a_case_has_no_scores(tmp_path: Path) -> None:
    module = _module()
    case = _cases()[0]
    rows = [(0, case, case.load()), None]
    _trainer(tmp_path).test(module, DataLoader(rows, batch_size=None), verbose=False)  # type: ignore[arg-type]
    assert [c.name for c in module.scores.cases] == ["a"]


def _samples() -> list[dict[str, np.ndarray]]:
    return [
        {
            "image": ((c.raw.ri_ZYX[None] - 1).astype(np.float32)),
            "mask": c.raw.masks_KZYX,
            "labelled": c.raw.labelled_K,
        }
        for c in _cases()
    ]


def test_the_validation_metric_is_the_mean_over_cases_then_over_organelles(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path)
    values = trainer.validate(_module(), DataLoader(_samples(), batch_size=1), verbose=False)[0]  # type: ignore[arg-type]
    nucleus, lipid = (1 + 2 / 3 + 0) / 3, (2 / 3 + 1) / 2
    assert values["val/dice_nucleus"] == pytest.approx(nucleus)
    assert values["val/dice_lipid"] == pytest.approx(lipid)
    assert values[MONITOR] == pytest.approx((nucleus + lipid) / 2)


def test_the_validation_metric_without_labels_is_zero_not_nan(tmp_path: Path) -> None:
    sample = {**_samples()[0], "labelled": np.array([False, False])}
    values = _trainer(tmp_path).validate(_module(), DataLoader([sample]), verbose=False)[0]  # type: ignore[arg-type]
    assert values == {MONITOR: 0.0}


@pytest.mark.parametrize("labelled", [(True, False), (False, False)])
def test_an_unlabelled_organelle_is_not_learnt(tmp_path: Path, labelled: tuple[bool, bool]) -> None:
    module = _module(Threshold(), SGD(lr=1.0, momentum=0.0, weight_decay=0.0, schedule="constant"))
    with torch.no_grad():
        module.network.scale.fill_(1.0)
    sample = {**_samples()[1], "labelled": np.array(labelled)}
    _trainer(tmp_path).fit(module, DataLoader([sample]))  # type: ignore[arg-type]
    learnt = [bool(value != 1) for value in module.network.scale.detach()]
    assert learnt == list(labelled)


def test_a_plateau_without_a_validation_is_refused(tmp_path: Path) -> None:
    data = DataLoader(_samples())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="plateau follows the validation"):
        _trainer(tmp_path).fit(_module(optimizer=Adam()), data)
    _trainer(tmp_path).fit(_module(optimizer=Adam()), data, data)
    _trainer(tmp_path, check_val_every_n_epoch=2).fit(_module(optimizer=Adam()), data, data)
    with pytest.raises(InputError, match="plateau follows the validation"):
        _trainer(tmp_path, limit_val_batches=0).fit(_module(optimizer=Adam()), data, data)


@pytest.mark.parametrize("every", [1, 2])
def test_the_plateau_reduces_the_rate_when_the_metric_does_not_improve(tmp_path: Path, every: int) -> None:
    optimizer = Adam(lr=1e-3, factor=0.2, patience=1)
    module, data = _module(optimizer=optimizer), DataLoader(_samples()[:1])  # type: ignore[arg-type]
    rates: list[float] = []

    class Watch(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = _trainer(tmp_path, max_epochs=6 * every, callbacks=[Watch()], check_val_every_n_epoch=every)
    trainer.fit(module, data, data)
    np.testing.assert_allclose(rates[::every], [1e-3, 1e-3, 1e-3, 2e-4, 2e-4, 4e-5])


def _saved(tmp_path: Path, network: nn.Module | None = None) -> Path:
    module, trainer = _module(network), _trainer(tmp_path)
    trainer.fit(module, DataLoader(_samples()[:1]))  # type: ignore[arg-type]
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


def test_checkpoint_metadata_have_plain_types(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    assert torch.load(path, weights_only=True)["cytovox"]["organelles"] == ["nucleus", "lipid"]
    weights = read_checkpoint(path, "organelle", "predict.checkpoint")
    assert weights.metadata == METADATA
    network = Threshold()
    load_network(network, weights, "predict.checkpoint")
    assert torch.equal(network.scale, torch.load(path, weights_only=True)["state_dict"]["network.scale"])
    metadata = weights.metadata
    grid = ResampleTo.chosen(metadata.resample, metadata.resample_spacing_um, metadata.resample_grid)
    assert grid.spacing_um == (1.0, 1.0, 1.0)


def test_other_checkpoints_are_refused_in_one_line(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    whole = path.read_bytes()
    content = torch.load(path, weights_only=True)
    bad: dict[str, tuple[object, str]] = {
        "empty": (b"", "cannot be read"),
        "half": (whole[: len(whole) // 2], "cannot be read"),
        "text": (b"lr: 3\n", "cannot be read"),
        "tensor": (torch.zeros(3), "not a checkpoint of Cytovox"),
        "foreign": ({"state_dict": {"a": torch.zeros(1)}}, "not a checkpoint of Cytovox"),
        "headless": ({"cytovox": content["cytovox"], "state_dict": 3}, "not a checkpoint of Cytovox"),
        "task": ({**content, "cytovox": {**content["cytovox"], "task": "cells"}}, "of task cells, but .* is organelle"),
        "old": ({**content, "cytovox": {"task": "organelle"}}, "another version"),
        "new": ({**content, "cytovox": {**content["cytovox"], "schema_version": 2}}, "newer Cytovox"),
    }
    for name, (value, output) in bad.items():
        target = tmp_path / f"{name}.ckpt"
        target.write_bytes(value) if isinstance(value, bytes) else torch.save(value, target)
        with pytest.raises(InputError, match=output) as error:
            read_checkpoint(target, "organelle", "predict.checkpoint")
        assert str(error.value).startswith(f"predict.checkpoint: {target}: "), name
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no such checkpoint"):
        read_checkpoint(tmp_path, "organelle", "init_from")


def test_a_damaged_checkpoint_is_an_input_error_for_any_damage(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 60):
        damaged = whole.copy()
        damaged[at : at + 40] = rng.integers(0, 256, 40).astype(np.uint8).tobytes()
        (tmp_path / "d.ckpt").write_bytes(damaged[: len(whole)])
        with contextlib.suppress(InputError):  # damage to the numbers themselves cannot be detected
            load_network(Threshold(), read_checkpoint(tmp_path / "d.ckpt", "organelle", "x"), "x")


def test_a_checkpoint_with_executable_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(tmp_path / "ran").touch, ())  # type: ignore[return-value]

    torch.save({"cytovox": {"task": "organelle"}, "state_dict": {}, "x": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(tmp_path / "evil.ckpt", "organelle", "x")
    assert not (tmp_path / "ran").exists()


def test_another_network_is_refused_with_the_first_parameter_that_differs(tmp_path: Path) -> None:
    weights = read_checkpoint(_saved(tmp_path), "organelle", "init_from")
    with pytest.raises(InputError, match=r"init_from: .*differs at scale \(\(2,\) in the checkpoint, \(3,\) here\)"):
        load_network(Threshold(3), weights, "init_from")
    with pytest.raises(InputError, match=r"init_from: .*differs at 0\.bias \(none in the checkpoint"):
        load_network(nn.Sequential(nn.Conv3d(1, 2, 1)), weights, "init_from")


def test_weights_in_bfloat16_steps_train_and_validate(tmp_path: Path) -> None:
    data = DataLoader(_samples()[:1])  # type: ignore[arg-type]
    trainer = _trainer(tmp_path, precision="bf16-mixed")
    trainer.fit(_module(nn.Conv3d(1, 2, 3, padding=1), AdamW(schedule="constant")), data, data)
    assert 0 <= float(trainer.callback_metrics[MONITOR]) <= 1
