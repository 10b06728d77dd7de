"""Every config that is shipped runs one step of every stage, with sizes that a test can wait for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cytovox.networks.genotype import load_genotype
from experiments.compose import shipped_configs

SMALL_CELLS = ["data.shape=[16,32,32]", "data.spacing_um=[0.6,0.6,0.6]"]

TINY_FIELDS = ["data.shape=[24,48,48]", "data.spacing_um=[0.9,0.9,0.9]"]

#: A search, too.
SEARCH = [
    *TINY_FIELDS, "data.resample_spacing_um=[0.9,0.9,0.9]", "data.patch_size=[24,32,32]", "predict.stride=[24,32,32]",
    "model.width=2",
]  # fmt: skip

#: What makes each shipped config small; everything else is as shipped.
SMALLER: dict[str, list[str]] = {
    "organelle_demo": [
        *SMALL_CELLS,
        "data.resample_spacing_um=[0.6,0.6,0.6]",
        "data.patch_size=[24,32,32]",
        "predict.stride=[24,32,32]",
    ],
    # ScNAS takes no side below 48
    "organelle_choi": [
        *SMALL_CELLS,
        "data.resample_grid=[48,64,64]",
        "data.patch_size=[48,48,48]",
        "predict.stride=[48,48,48]",
        "predict.pad_yx=[0,0]",
        "trainer.accumulate_grad_batches=1",
    ],
    "organelle": [
        "data.resample_spacing_um=[0.6,0.6,0.6]",
        "data.patch_size=[24,32,32]",
        "data.split={train: 0.34, val: 0.33, test: 0.33}",
    ],
    "organelle_finetune": [
        "data.resample_spacing_um=[0.6,0.6,0.6]",
        "data.patch_size=[24,32,32]",
        "data.split={train: 0.34, val: 0.33, test: 0.33}",
    ],
    "organelle_weights": [
        *SMALL_CELLS,
        "data.resample_spacing_um=[0.6,0.6,0.6]",
        "data.patch_size=[24,32,32]",
        "predict.stride=[24,32,32]",
    ],
    "cells": [*TINY_FIELDS, "data.resample_spacing_um=[0.9,0.9,0.9]", "data.patch_size=[24,32,32]"],
    "cells_network": [*TINY_FIELDS, "data.resample_grid=[24,32,32]"],
    "cells_choi": [*TINY_FIELDS, "data.resample_grid=[48,64,64]"],
    "scnas_search_demo": SEARCH,
    "scnas_search": [
        *SEARCH,
        "model.layers=4",
        "data.resample=spacing_um",
        "predict.pad_yx=[0,0]",
        "retrain={layers: 4}",
    ],
    "analyze": ["meshes=none"],
    "cells_from_masks": [],
    "shape_demo": ["model.channels=[8,16]", "predict.samples=5"],
    "shape_rbc": ["model.channels=[8,16]", "predict.samples=5", "data.folds=2"],
    "shape_flow": ["model.channels=[8,16]", "predict.samples=2", "sampler.steps=2", "data.folds=2"],
    "shape_nuclei": ["model.channels=[8,16]", "predict.samples=5", "data.folds=2"],
    # a thousand evaluations of twelve core-seconds each are not for a test
    "shape_dispr": [
        "model.multipliers=[1,1]",
        "model.attention_levels=[]",
        "sampler.steps=2",
        "sampler.validation_steps=1",
        "predict.samples=1",
        "data.folds=2",
    ],
    "shapr": ["data.folds=2"],
}
#: Configs of the shape tasks, by what is in them.
SHAPES = [name for name in SMALLER if name.startswith("shap")]
#: Those of cells, and those that train nothing.
CELLS = ["cells", "cells_network", "cells_choi"]
PIPELINES = ["analyze", "cells_from_masks"]
SEARCHES = ["scnas_search", "scnas_search_demo"]


def test_every_shipped_config_is_tried():
    assert sorted(SMALLER) == sorted(shipped_configs())


def slowly(names, *slow):
    """Parameters of which some take half a minute and are left to `make test-all`."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in names]


@pytest.mark.parametrize("name", sorted(set(SMALLER) - {*SHAPES, *CELLS, *PIPELINES, *SEARCHES}))
def test_every_shipped_config_runs_one_step(tmp_path: Path, cells, cli, name):
    words = [*SMALLER[name], "data.batch_size=1", "data.num_workers=0", "trainer.accelerator=cpu", "trainer.devices=1"]
    if name in ("organelle", "organelle_finetune"):
        words.append(f"data.root={cells}")
    words += ["stages=[fit,test,predict]", f"predict.inputs=[{cells}/HeLa-00001.TCF]", f"runs_dir={tmp_path / 'runs'}"]
    answer = cli(name, "--dry-run", *words)
    metrics = json.loads((answer.run / "metrics.json").read_text())
    assert metrics["fit/steps"] == 1
    assert 0 <= metrics["test/dice_mean"] <= 1
    assert (answer.run / "predictions" / "HeLa-00001.ome.tif").is_file()
    # one step on a single volume: the volume that is predicted is that volume, or differs from it
    about_training = ("outside the training data", "seen in training")
    assert all(any(text in error for text in about_training) for error in answer.errors)


@pytest.mark.parametrize("name", slowly(SHAPES, "shape_dispr", "shapr"))
def test_every_shipped_shape_config_runs_one_step(tmp_path: Path, shape_folder, cli, name):
    words = [*SMALLER[name], "data.batch_size=1", "data.num_workers=0", "trainer.accelerator=cpu", "trainer.devices=1"]
    if name != "shape_demo":
        words += [f"data.root={shape_folder}", "data.class_pattern=(.+)_\\d+"]
    words += ["stages=[fit,test,predict]", f"predict.inputs=[{shape_folder}]", f"runs_dir={tmp_path / 'runs'}"]
    answer = cli(name, "--dry-run", *words)
    metrics = json.loads((answer.run / "metrics.json").read_text())
    assert metrics["fit/steps"] == 1
    assert 0 <= metrics["test/iou_error"] <= 1
    assert len(list(answer.run.glob("predictions/*/mean.tif"))) == 1


@pytest.mark.parametrize("name", slowly(SEARCHES, "scnas_search"))
def test_every_search_config_searches_derives_and_trains_one_step(tmp_path: Path, cli, name):
    words = [*SMALLER[name], "data.batch_size=1", "data.num_workers=0", "trainer.accelerator=cpu", "trainer.devices=1"]
    answer = cli(name, "--dry-run", *words, f"runs_dir={tmp_path / 'runs'}", "logging.wandb=disabled")
    metrics = json.loads((answer.run / "metrics.json").read_text())
    assert metrics["fit/steps"] == 1
    assert 0 <= metrics["test/dice_mean"] <= 1
    assert load_genotype(str(answer.run / "genotype.json"))
    assert (answer.run / "retrained" / "config.yaml").is_file()


@pytest.mark.parametrize("name", slowly(CELLS, "cells_choi"))
def test_every_cells_config_trains_and_tests_one_step(tmp_path: Path, cli, name):
    words = [*SMALLER[name], "data.batch_size=1", "data.num_workers=0", "trainer.accelerator=cpu", "trainer.devices=1"]
    answer = cli(name, "--dry-run", *words, f"runs_dir={tmp_path / 'runs'}", "logging.wandb=disabled")
    metrics = json.loads((answer.run / "metrics.json").read_text())
    assert metrics["fit/steps"] == 1
    assert 0 <= metrics["test/true/dice"] <= 1
    assert metrics["test/watershed/dice"] > 0
    assert (
        (answer.run / "tables" / "test_cell_lines.csv")
        .read_text()
        .startswith("cell_line,seeds,n,dice,dice_low,dice_high")
    )
    assert "seeded watershed" in (answer.run / "report.html").read_text()


def test_the_analysis_as_shipped_goes_from_a_tomogram_to_its_report(tmp_path: Path, cells, cli):
    answer = cli("analyze", *SMALLER["analyze"], f"inputs=[{cells}/HeLa-00001.TCF]", f"out={tmp_path / 'run'}")
    assert (answer.run / "tables" / "cells.parquet").is_file()
    assert (answer.run / "report.html").is_file()
