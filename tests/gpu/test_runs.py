"""Whole runs on the GPU through the command line: every task, in every precision."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from tests.experiments.folders import rows
from tests.experiments.test_search import SMALL as SMALL_SEARCH
from tests.experiments.test_shipped_configs import CELLS, SEARCHES, SHAPES, SMALLER
from tests.gpu.conftest import DEVICE, PRECISIONS

ON_DEVICE = [f"trainer.accelerator={'gpu' if DEVICE == 'cuda' else DEVICE}", "trainer.devices=1"]
QUIET = ["logging.wandb=disabled", "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"]
FEW = ["data.train.count=2", "data.val.count=1", "data.test.count=1", "data.num_workers=0"]
FIELDS = [f"data.{part}.counts={{NIH3T3: 1, A549: 0, HeLa: 0, MDA-MB-231: 0, RAW264.7: 0}}" for part in ("val", "test")]
FIELDS += ["data.train.counts={NIH3T3: 2, A549: 0, HeLa: 0, MDA-MB-231: 0, RAW264.7: 0}", "data.num_workers=0"]
THREE_PATCHES = ["data.batch_size=1", "data.patches_per_epoch=3", "trainer.max_epochs=1"]
THREE_CELLS = ["data.batch_size=1", "data.cells_per_epoch=3", "trainer.max_epochs=1", "data.num_workers=0"]
VALIDATE = ["trainer.check_val_every_n_epoch=1"]

#: Config and overrides of each task and network.
RUNS: dict[str, tuple[str, list[str]]] = {
    "residual_unet": ("organelle_demo", [*SMALLER["organelle_demo"], *FEW, *THREE_PATCHES]),
    "scnas": (
        "organelle_weights",
        [
            *SMALLER["organelle_weights"], *FEW, *THREE_PATCHES, *VALIDATE, "data.patch_size=[48,48,48]",
            "model={network: scnas, width: 4, layers: 4}", "predict.stride=[48,48,48]", "optimizer.warmup_steps=0",
        ],
    ),
    "search": ("scnas_search_demo", [*(w for w in SMALL_SEARCH if "trainer." not in w), "trainer.max_epochs=1"]),
    "offsets": ("cells", [*SMALLER["cells"], *FIELDS, *THREE_PATCHES, "optimizer.warmup_steps=0"]),
    "conditioned": ("cells_network", [*SMALLER["cells_network"], *FIELDS, *THREE_PATCHES, "optimizer.warmup_steps=0"]),
    "regressor": ("shape_rbc", [*SMALLER["shape_rbc"], *THREE_CELLS, *VALIDATE, "data.val=0.3"]),
    "flow": ("shape_flow", [*SMALLER["shape_flow"], *THREE_CELLS, *VALIDATE, "data.val=0.3"]),
    "dispr": ("shape_dispr", [*SMALLER["shape_dispr"], *THREE_CELLS, *VALIDATE, "data.val=0.3", "predict.views=false"]),
    "shapr": ("shapr", [*SMALLER["shapr"], *THREE_CELLS, *VALIDATE, "data.val=0.3"]),
}  # fmt: skip


def one_cell(shape_folder: Path, folder: Path) -> Path:
    """Copy image and mask of one cell: the surfaces of an untrained diffusion model's noise take seconds a cell."""
    for kind in ("image", "mask"):
        (folder / "one" / kind).mkdir(parents=True, exist_ok=True)
        shutil.copy(min((shape_folder / kind).iterdir()), folder / "one" / kind)
    return folder / "one"


def words_of(name: str, cells: Path, shape_folder: Path, runs: Path) -> list[str]:
    config, words = RUNS[name]
    words = [config, *words, *ON_DEVICE, *QUIET, f"runs_dir={runs}"]
    if config.startswith("shap"):
        words += [
            f"data.root={shape_folder}",
            "data.class_pattern=(.+)_\\d+",
            f"predict.inputs=[{one_cell(shape_folder, runs)}]",
        ]
        return [*words, "stages=[fit,test,predict]"]
    if config.startswith("organelle"):
        return [*words, "stages=[fit,test,predict]", f"predict.inputs=[{cells}/HeLa-00001.TCF]"]
    return words


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", RUNS)
def test_every_task_trains_validates_tests_and_predicts(tmp_path, cells, shape_folder, cli, name, precision):
    answer = cli(*words_of(name, cells, shape_folder, tmp_path), f"trainer.precision={precision}")
    metrics = json.loads((answer.run / "metrics.json").read_text())
    assert metrics["fit/steps"] == (6 if name == "search" else 3)
    assert all(math.isfinite(value) for value in metrics.values() if isinstance(value, float))
    losses = [float(row["train/loss"]) for row in rows(answer.run / "metrics.csv") if row["train/loss"]]
    assert len(losses) >= 3
    assert all(map(math.isfinite, losses))
    assert any(key.startswith("test/") for key in metrics)
    state = torch.load(answer.run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    assert all(value.isfinite().all() for key, value in state["state_dict"].items() if not key.startswith("cost_"))
    if DEVICE == "cuda":
        scaler = [value for key, value in state.items() if key == "MixedPrecision"]
        assert bool(scaler) == (precision == "16-mixed")
    if RUNS[name][0].startswith(("organelle", "shap")):
        assert [path for path in answer.run.glob("predictions/**/*") if path.is_file()]


@pytest.mark.parametrize("name", sorted(set(SMALLER) - {"analyze", "cells_from_masks"}))
def test_every_shipped_config_runs_one_step_at_the_precision_it_chooses(tmp_path, cells, shape_folder, cli, name):
    words = [*SMALLER[name], "data.batch_size=1", "data.num_workers=0", *ON_DEVICE, "logging.wandb=disabled"]
    words += [f"runs_dir={tmp_path}"]
    if name in ("organelle", "organelle_finetune"):
        words.append(f"data.root={cells}")
    if name in SHAPES and name != "shape_demo":
        words += [f"data.root={shape_folder}", "data.class_pattern=(.+)_\\d+"]
    if name not in (*CELLS, *SEARCHES):
        source = one_cell(shape_folder, tmp_path) if name in SHAPES else cells / "HeLa-00001.TCF"
        words += ["stages=[fit,test,predict]", f"predict.inputs=[{source}]"]
    answer = cli(name, "--dry-run", *words)
    assert json.loads((answer.run / "metrics.json").read_text())["fit/steps"] == 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_resumes_on_the_other_device_and_back(tmp_path, cells, shape_folder, cli, precision):
    words = [*words_of("residual_unet", cells, shape_folder, tmp_path), "stages=[fit]"]
    run = cli(*words, f"trainer.precision={precision}").run
    on_cpu = ["trainer.accelerator=cpu", "trainer.precision=32-true", "stages=[fit]"]
    assert cli(f"resume={run}", "trainer.max_epochs=2", *on_cpu).code == 0
    back = [*ON_DEVICE, f"trainer.precision={precision}", "stages=[fit,test]"]
    assert cli(f"resume={run}", "trainer.max_epochs=3", *back).code == 0
    found = [int(row["step"]) for row in rows(run / "metrics.csv") if row["train/loss"]]
    assert found == list(range(9))
    assert json.loads((run / "metrics.json").read_text())["fit/steps"] == 9


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["residual_unet", "offsets", "flow"])
def test_a_resumed_run_has_the_weights_of_one_that_was_not_stopped(
    tmp_path, cells, shape_folder, cli, name, precision, monkeypatch
):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    words = [*words_of(name, cells, shape_folder, tmp_path), "stages=[fit]", f"trainer.precision={precision}"]
    words += ["optimizer.schedule=constant"]
    whole = cli(*words, "trainer.max_epochs=2").run
    part = cli(*words, "trainer.max_epochs=1").run
    assert cli(f"resume={part}", "trainer.max_epochs=2", "stages=[fit]").code == 0
    a, b = (
        torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True) for run in (whole, part)
    )
    assert a["global_step"] == b["global_step"] == 6
    assert a.get("MixedPrecision") == b.get("MixedPrecision")
    for key, value in a["state_dict"].items():
        torch.testing.assert_close(
            value, b["state_dict"][key], rtol=1e-4, atol=1e-5, msg=lambda text, k=key: f"{k}: {text}"
        )


def test_the_analysis_runs_on_the_device(tmp_path, cells, cli):
    answer = cli("analyze", "meshes=none", f"inputs=[{cells}/HeLa-00001.TCF]", f"out={tmp_path / 'run'}")
    assert (answer.run / "tables" / "cells.parquet").is_file()
