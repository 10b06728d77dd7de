"""Every task trains, validates, tests and predicts on a device that is not the CPU, and waits for it where stated."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from tests.device.cases import BATCHES, RUNS
from tests.device.fake_device import FakeTensor, Sync, Watch, device
from tests.device.harness import trainer_on_device
from training.ema import EMAWeightAveraging
from training.trainer import EMA, RunFolder

#: A search has to know which operations it computes: one copy for each network that is drawn.
DRAWN = "to_cpu cytovox/networks/architecture.py _read"
#: What is read back in training steps, by task, each step. A log file's progress reads one number a minute.
PER_STEP = {"search": {DRAWN: 2}, "search_joint": {DRAWN: 1}}

#: Where the package may wait between training steps: results of whole volumes and cells, which go on as numpy arrays.
STATED = {
    "training/checkpoint_io.py AtomicCheckpointIO.save_checkpoint",
    "training/ema.py ExponentialAverage.__init__",
    "training/ema.py ExponentialAverage.load_state_dict",
    "cytovox/networks/architecture.py _read",
    "cytovox/networks/search_cost.py cost_of",
    "lightning_modules/base.py TaskModule.configured",
    "lightning_modules/base.py TaskModule.on_test_epoch_end",
    "lightning_modules/search.py SearchModule.setup",
    "lightning_modules/search.py SearchModule.configure_optimizers",
    "lightning_modules/search.py SearchModule.on_validation_epoch_end",
    "lightning_modules/organelle.py OrganelleModule.volume_dice",
    "lightning_modules/organelle.py OrganelleModule.validation_step",
    "lightning_modules/organelle.py OrganelleModule.on_validation_epoch_end",
    "lightning_modules/cells.py CellsModule.validation_step",
    "lightning_modules/shape_base.py ShapeBase.validation_step",
    "cytovox/models/shape.py ShapeSampler.__call__",
    "lightning_modules/shape_base.py _cells",
    "lightning_modules/shape_base.py ShapeBase.on_validation_epoch_end",
    "cytovox/preprocess/shape_fields.py _finer_matrix",
    # the check for NaN: where metrics are logged, before a validation and before a checkpoint
    "training/divergence.py DivergenceCheck._check",
    "cytovox/models/weights_file.py first_nonfinite",
    "cytovox/segmentation/networks.py _NetworkCells._images",
    "cytovox/segmentation/networks.py ConditionedCells.__call__",
    "cytovox/segmentation/networks.py CentreOffsetCells.offsets_um",
    # the inference engine: copies that are asynchronous on CUDA and plain on any other device, and tables once
    "cytovox/inference/transfers.py Transfers.upload",
    "cytovox/inference/transfers.py Transfers.download",
    "cytovox/inference/regions.py Resampler.__init__",
    "cytovox/inference/bricks.py Bricks.set_format",
    "cytovox/inference/predictor.py DenseInferer.__post_init__",
}
#: Runs whose parts others have as well, for `make test-all`.
SLOW = {"scnas", "search_joint", "cells_offsets_all_voxels", "dispr", "shape_ddim", "shapr_first"}
PACKAGES = ("cytovox", "transforms", "datamodules", "lightning_modules", "training", "experiments")


def unstated(syncs: list[Sync]) -> set[str]:
    """Places of the package where it waits and should not."""
    own = [sync for sync in syncs if sync.path.split("/")[0] in PACKAGES]
    return {str(sync) for sync in own if f"{sync.path} {sync.function}" not in STATED}


def check(name: str, folder: Path, watch: Watch) -> None:
    """Fit, test and predict; fail if a tensor leaves the device, or if the host waits where it is not stated."""
    run = RUNS[name]()
    trainer, counted = trainer_on_device(folder, watch, run.monitor, ema=EMA(decay=0.9, warmup=len(name) % 2 == 0))
    trainer.fit(run.module, run.train, run.val)
    steps = BATCHES - 1
    allowed = {place: steps * count for place, count in PER_STEP.get(name, {}).items()}
    assert counted.steady() == allowed, f"the host waits in training steps: {counted.steady()}"
    trainer.test(run.module, run.test, verbose=False)
    run.module.to(device()).eval()
    assert all(isinstance(p, FakeTensor) for p in run.module.parameters())
    run.predict()
    assert not (places := unstated(watch.syncs)), f"the host waits between training steps: {places}"


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in RUNS])
def test_a_run_stays_on_the_device_and_its_steps_do_not_wait(name: str, tmp_path: Path, watch: Watch) -> None:
    check(name, tmp_path, watch)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("warmup", [False, True])
def test_a_checkpoint_of_the_device_is_read_on_the_cpu_and_goes_on_on_the_device(
    tmp_path: Path, watch: Watch, warmup: bool
) -> None:
    def fit(folder: Path, epochs: int, ckpt: Path | None = None) -> tuple[pl.Trainer, dict[str, torch.Tensor]]:
        run = RUNS["cells_offsets"]()
        options = {"max_epochs": epochs, "ema": EMA(decay=0.9, warmup=warmup), "check_val_every_n_epoch": 100}
        trainer, counted = trainer_on_device(folder, watch, run.monitor, **options)
        trainer.fit(run.module, run.train, run.val, ckpt_path=ckpt, weights_only=True)
        assert counted.steady() == {}
        return trainer, torch.load(RunFolder(folder).last_checkpoint, weights_only=True)["averaging_state"]

    fit(tmp_path / "cut", 1)
    saved = torch.load(RunFolder(tmp_path / "cut").last_checkpoint, weights_only=True)
    assert {type(value) for value in saved["state_dict"].values()} == {torch.Tensor}
    resumed, state = fit(tmp_path / "cut", 2, RunFolder(tmp_path / "cut").last_checkpoint)
    whole, whole_state = fit(tmp_path / "whole", 2)
    assert int(state["n_averaged"]) == int(whole_state["n_averaged"]) == 2 * BATCHES
    averages = [next(c for c in t.callbacks if isinstance(c, EMAWeightAveraging)) for t in (resumed, whole)]  # type: ignore[attr-defined]
    ours, theirs = (dict(average._average_model.module.named_parameters()) for average in averages)
    assert all(torch.equal(ours[key].cpu(), theirs[key].cpu()) for key in ours)
