"""Whose weights a run begins and predicts with, and what it writes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from cytovox.io import read_volume
from cytovox.networks.weights import shipped_weights
from tests.experiments.folders import ORGANELLES, numbers, rows


def weights_of(answer) -> str:
    return next(line for line in answer.out.splitlines() if line.startswith("weights: ")).removeprefix("weights: ")


def test_training_begins_with_the_weights_of_another_run(tmp_path, tiny, trained, cli):
    words = ["trainer.max_steps=1", "optimizer.lr=1e-9", f"runs_dir={tmp_path}"]
    begun = cli(tiny, f"init_from={trained.run}", *words)
    assert weights_of(begun).startswith(str(begun.run))
    for name in ORGANELLES:
        key = f"test/dice_{name}"
        assert numbers(begun.run)[key] == pytest.approx(numbers(trained.run)[key], abs=1e-3)


def test_a_run_that_began_with_other_weights_is_tested_with_its_own(tmp_path, tiny, trained, cli):
    begun = cli(tiny, f"init_from={trained.run}", "stages=[fit]", "trainer.max_steps=1", f"runs_dir={tmp_path}")
    tested = cli(f"resume={begun.run}", "stages=[test]")
    assert weights_of(tested).startswith(str(begun.run))


def test_predicting_takes_the_run_that_is_named(tmp_path, trained, time_lapse, cli):
    words = ["stages=[predict]", f"predict.inputs=[{time_lapse}]", f"runs_dir={tmp_path}", "logging.wandb=disabled"]
    # a config of its own data: the weights bring their network, grid and normalisation with them
    answer = cli("organelle_demo", *words, f"predict.checkpoint={trained.run}", "trainer.enable_progress_bar=false")
    assert weights_of(answer) == str(trained.run / "checkpoints" / "best.ckpt")
    assert "simulating" not in answer.err
    assert answer.run.parent == tmp_path / "organelle_demo"


def test_predicting_takes_the_newest_run_of_the_same_name_but_no_dry_one(copied, tiny, cells, cli):
    runs = copied.parent.parent
    dry = cli(tiny, "--dry-run", f"runs_dir={runs}")
    assert dry.run.name.startswith("dry-")
    answer = cli(tiny, "stages=[predict]", f"predict.inputs=[{cells}/HeLa-00002.TCF]", f"runs_dir={runs}")
    assert weights_of(answer) == str(copied / "checkpoints" / "best.ckpt")
    output = next(line for line in answer.err.splitlines() if line.startswith("note: weights:"))
    assert f"{copied} (" in output
    assert re.search(r"old, 4 steps, val/dice_mean 0\.\d+, finished\)", output)


def test_a_default_outranks_the_newest_run_of_the_same_name_which_is_reported(copied, tiny, cells, cli):
    words = ["stages=[predict]", f"predict.inputs=[{cells}/HeLa-00002.TCF]", f"runs_dir={copied.parent.parent}"]
    answer = cli(tiny, *words, "weights.default=organelle")
    assert weights_of(answer) == str(shipped_weights()["organelle"])
    assert any(
        "weights.default" in line and f"predict.checkpoint={copied} " in line for line in answer.err.splitlines()
    )
    named = cli(tiny, *words, "weights.default=organelle", f"predict.checkpoint={copied}")
    assert weights_of(named) == str(copied / "checkpoints" / "best.ckpt")


def test_the_test_of_a_trained_run_scores_its_own_weights_whatever_the_default(copied, cli):
    tested = cli(f"resume={copied}", "stages=[test]", "weights.default=organelle")
    assert weights_of(tested) == str(copied / "checkpoints" / "best.ckpt")


def test_init_from_outranks_the_default(tmp_path, trained, tiny, cells, cli):
    words = ["stages=[predict]", f"predict.inputs=[{cells}/HeLa-00002.TCF]", f"runs_dir={tmp_path}"]
    answer = cli(tiny, *words, f"init_from={trained.run}", "weights.default=organelle")
    assert weights_of(answer) == str(trained.run / "checkpoints" / "best.ckpt")


def test_without_any_weights_the_ways_to_name_some_are_reported(tmp_path, tiny, cells, cli):
    answer = cli(tiny, "stages=[predict]", f"predict.inputs=[{cells}/HeLa-00002.TCF]", f"runs_dir={tmp_path}")
    assert answer.code == 2
    assert "weights.default" in answer.errors[0]
    assert "predict.checkpoint=RUN_FOLDER" in answer.errors[0]
    missing = cli(tiny, "stages=[predict]", f"predict.inputs=[{cells}/HeLa-00002.TCF]", "weights.default=nothing")
    assert missing.code == 2
    assert missing.errors[0].startswith("weights.default: nothing: no such checkpoint")


def test_a_time_lapse_is_predicted_frame_by_frame(copied, time_lapse, cli):
    cli(f"resume={copied}", "stages=[predict]", f"predict.inputs=[{time_lapse}]", "predict.format=ome-tiff")
    masks = read_volume(copied / "predictions" / "lapse.ome.tif")
    assert masks.shape == (2, 4, 16, 32, 32)
    assert masks.times_s == pytest.approx((0.0, 1800.0))
    everything = rows(copied / "tables" / "predictions.csv")
    table = [row for row in everything if row["input"] == str(time_lapse)]
    assert len(everything) == len(table) + 4, "what was predicted before stays in the table: its masks are still there"
    assert [(row["frame"], row["organelle"]) for row in table] == [(str(t), k) for t in (0, 1) for k in ORGANELLES]
    assert float(table[4]["time_s"]) == 1800.0
    for row in table:
        inside = np.count_nonzero(masks.frame(int(row["frame"]), row["organelle"]))
        assert int(row["voxels"]) == inside
        assert float(row["volume_um3"]) == pytest.approx(inside * 0.6**3, rel=1e-5)


@pytest.mark.parametrize(("kind", "name"), [("ome-zarr", "lapse.ome.zarr"), ("nifti", "lapse_t001_lipid.nii.gz")])
def test_masks_are_written_in_the_format_asked_for(copied, time_lapse, cli, kind, name):
    words = [f"predict.inputs=[{time_lapse}]", f"predict.format={kind}", "predict.probabilities=true"]
    cli(f"resume={copied}", "stages=[predict]", *words)
    assert read_volume(copied / "predictions" / name).spacing_um == pytest.approx((0.6, 0.6, 0.6))
    probabilities = read_volume(copied / "predictions" / "lapse_t000_probabilities.ome.tif")
    assert probabilities.shape == (1, 4, 16, 32, 32)
    assert 0 <= probabilities.frame(0, "membrane").min() <= probabilities.frame(0, "membrane").max() <= 1


def test_a_file_is_predicted_again_only_if_something_changed(copied, cells, cli):
    words = [f"resume={copied}", "stages=[predict]", f"predict.inputs=[{cells}/HeLa-00001.TCF]"]
    masks = copied / "predictions" / "HeLa-00001.ome.tif"
    times = [masks.stat().st_mtime_ns]
    for more in (
        [],
        ["predict.batch_size=3", "predict.compile=default"],
        ["predict.threshold=0.4"],
        ["predict.threshold=0.4", "predict.z=center"],
    ):
        cli(*words, *more)
        times.append(masks.stat().st_mtime_ns)
    assert times[0] == times[1] == times[2] < times[3] < times[4]


def test_the_prediction_runs_the_network_as_asked_and_finds_the_same(copied, cells, cli, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: compiled.append(network) or network)
    words = [f"resume={copied}", "stages=[predict]", f"predict.inputs=[{cells}/HeLa-00002.TCF]"]
    masks = copied / "predictions" / "HeLa-00002.ome.tif"
    cli(*words)
    assert compiled == []
    eager = read_volume(masks).frame(0, "membrane")
    masks.with_name("HeLa-00002.json").unlink()  # the note that makes it done
    assert cli(*words, "predict.compile=default", "predict.batch_size=4").code == 0
    assert len(compiled) == 1
    # in batches of four a probability that is just one half may fall to the other side
    assert (read_volume(masks).frame(0, "membrane") != eager).mean() < 1e-3
