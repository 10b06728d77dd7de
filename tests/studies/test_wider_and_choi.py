"""The two studies of organelles and cells, end to end with small volumes; and what they count."""

from __future__ import annotations

import csv
import json

import pytest

from cytovox.models.metadata import read_checkpoint
from cytovox.simulation import PRESETS
from experiments.config import load_config
from studies import choi, wider_weights
from studies._common import existing_run, trained_steps

#: ScNAS takes no side below 48.
CHOI = {
    "organelle": (
        "data.shape=[16,32,32]", "data.spacing_um=[0.6,0.6,0.6]", "data.resample_grid=[48,64,64]",
        "data.patch_size=[48,48,48]", "predict.stride=[48,48,48]", "predict.pad_yx=[0,0]",
    ),
    "cells": ("data.shape=[24,48,48]", "data.spacing_um=[0.9,0.9,0.9]", "data.resample_grid=[48,64,64]"),
}  # fmt: skip


def test_volumes_are_counted_line_by_line():
    config = load_config("organelle_weights", [f"data.train.counts={wider_weights.counts_of(400)}"])
    assert config.data.train.counts == dict.fromkeys(PRESETS, 80)
    assert load_config("cells", [f"data.test.counts={wider_weights.counts_of(2)}"]).data.test.counts["RAW264.7"] == 1


def test_the_protocol_of_choi_is_trained_at_full_size():
    for task in choi.TABLES:
        found = load_config(f"{task}_choi")
        model = found.model
        assert (model.network, model.width, model.layers, model.multiplier) == ("scnas", 12, 8, 3)
        patch = found.data.patch_size if task == "organelle" else found.data.resample_grid
        assert patch == [64, 128, 128]


def test_learning_curves_keep_the_rows_with_a_figure(tmp_path):
    rows = [
        {"epoch": "0", "step": "9", "lr": "1", "train/loss": "0.5", "val/dice_mean": ""},
        {"epoch": "0", "step": "10", "lr": "1", "train/loss": "", "val/dice_mean": ""},
        {"epoch": "0", "step": "11", "lr": "1", "train/loss": "", "val/dice_mean": "0.25"},
    ]
    choi.write_curves(rows, tmp_path / "curves.csv")
    text = (tmp_path / "curves.csv").read_text()
    assert text == "step,epoch,train/loss,val/dice_mean\n9,0,0.5,\n11,0,,0.25\n"


def test_a_part_out_of_order_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert choi.main(["--work", str(tmp_path), "--task", "cells", "--part", "test"]) == 2
    assert capsys.readouterr().err == "--part: cells: nothing is trained yet; run --part train first\n"
    assert wider_weights.main(["--work", str(tmp_path), "--part", "test"]) == 2
    assert capsys.readouterr().err == "--part: nothing is trained yet; run --part train first\n"


@pytest.mark.slow
def test_two_widths_are_trained_over_a_measured_schedule_and_tested(tmp_path, monkeypatch):
    monkeypatch.setattr(wider_weights, "EPOCH_STEPS", 4)
    small = (
        "data.shape=[16,32,32]", "data.spacing_um=[0.6,0.6,0.6]", "data.resample_spacing_um=[0.6,0.6,0.6]",
        "data.patch_size=[24,32,32]", "predict.stride=[24,32,32]", "data.num_workers=0", "data.val.count=1",
    )  # fmt: skip
    words = ["--work", str(tmp_path), "--device", "cpu", "--count", "5", "--test-count", "5", "--batch", "1"]
    words += ["--width", "1", "--width", "2", "--minutes", "0.02"]
    assert wider_weights.main([*words, *small]) == 0
    result = json.loads((tmp_path / "wider_weights_organelle.json").read_text())
    assert set(result["test"]) == {"shipped", "width 1", "width 2"}
    assert all(0 <= scores["dice_mean"] <= 1 for scores in result["test"].values())
    for width in (1, 2):
        planned = json.loads((tmp_path / "runs" / f"organelle_width{width}_schedule.json").read_text())["steps"]
        assert planned % 4 == 0
        assert 0 < trained_steps(existing_run(tmp_path / "runs", f"organelle_width{width}")) <= planned
        metadata = read_checkpoint(tmp_path / f"organelle_width{width}.safetensors", "organelle", "test").metadata
        assert metadata.model["channels"] == [width * channels for channels in (16, 32, 64, 128)]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["organelle", "cells"])
def test_the_protocol_of_choi_leaves_curves_and_a_table_of_five_lines(task, tmp_path):
    words = [
        "--work",
        str(tmp_path),
        "--task",
        task,
        "--counts",
        "1",
        "1",
        "1",
        "1",
        "--steps",
        "10",
        "--device",
        "cpu",
    ]
    small = ("model.width=2", "data.num_workers=0", "data.patches_per_epoch=2")
    assert choi.main([*words, *CHOI[task], *small]) == 0
    result = json.loads((tmp_path / f"choi_{task}.json").read_text())
    assert {row["cell_line"] for row in result["lines"]} == set(PRESETS)
    assert result["steps"] == 10
    curves = list(csv.DictReader((tmp_path / f"choi_{task}_curves.csv").open()))
    assert any(row["train/loss"] for row in curves)
    assert any(value for row in curves for key, value in row.items() if key.startswith("val/"))
