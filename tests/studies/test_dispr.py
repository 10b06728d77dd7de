"""DISPR beside the fast models, end to end with a small network; the published one takes a step in the slow tests."""

from __future__ import annotations

import argparse
import dataclasses
import json

import numpy as np
import pytest
import torch

from cytovox.models.metadata import read_checkpoint
from datamodules.shape.datamodule import ShapeDataModule
from datamodules.shape.dataset import ShapeDataset
from experiments.config import load_config
from studies import dispr
from studies._common import existing_run, trained_steps
from studies._sampling import SamplingPlan
from training.rundir import RunFolder

SMALL = ("model.network=slab_unet", "model.channels=[8,8]", "data.num_workers=0", "data.cells_per_epoch=2")
WHOLE = ("--device", "cpu", "--cells", "2", "--sampling-steps", "2", "--batch", "2")


def test_dispr_is_trained_on_cells_as_they_are(red_cells):
    config = load_config("shape_dispr", [f"data.root={red_cells}", "data.val=0"])
    data = ShapeDataModule(config.data, config.seed)
    cells = data.find()["train"]
    augmented, plain = (ShapeDataset(cells, turned, 1) for turned in (data.augmentation(), None))
    for place in range(len(cells)):
        given, found = plain[(0, place)], augmented[(0, place)]
        for key in ("image", "mask", "obj", "distance"):
            assert torch.equal(found[key], given[key]), key
    assert not config.predict.views
    assert config.trainer.ema.decay == 0.9999
    assert (config.data.batch_size, config.optimizer.lr, config.process.steps) == (1, 1e-4, 1000)


@pytest.mark.slow
def test_the_study_trains_in_parts_samples_and_compares(red_cells, tmp_path):
    shared = ["--data", str(red_cells), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), *WHOLE]
    for steps in ("1", "3"):
        assert dispr.main([*shared, "--part", "train", "--steps", steps, *SMALL]) == 0
        run = existing_run(tmp_path / "work" / "runs", "dispr")
        assert trained_steps(run) == int(steps)
    assert len(list((tmp_path / "work" / "runs" / "dispr").iterdir())) == 1
    assert dispr.main([*shared, "--part", "fast", "--steps", "1"]) == 0
    assert dispr.main([*shared, "--part", "sample", "--part", "score", *SMALL]) == 0
    result = json.loads((tmp_path / "out" / "dispr.json").read_text())
    assert len(result["cells"]) == 2
    models = [row["model"] for row in result["errors"]]
    assert models[:4] == ["cylinder", "ellipsoid", "DISPR: one sample", "DISPR, imaged slice written: one sample"]
    assert "shape_rbc: mean shape" in models
    assert result["trained"]["dispr"]["steps"] == 3
    assert all(seconds > 0 for seconds in result["seconds_per_sample"].values())
    assert (
        read_checkpoint(tmp_path / "out" / "dispr.safetensors", "shape", "test").metadata.field["name"] == "occupancy"
    )
    shapes = np.load(tmp_path / "out" / "dispr_shapes.npz")
    assert np.unpackbits(shapes[result["cells"][0]], axis=1).shape == (1, 64**3)


def test_samples_are_kept_only_for_all_that_they_depend_on(red_cells, tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    run.checkpoints.mkdir()
    run.last_checkpoint.write_bytes(b"weights")
    monkeypatch.setattr(dispr, "existing_run", lambda *_: run)
    words = [f"data.root={red_cells}", "data.val=0"]
    config, plan = load_config("shape_dispr", words), SamplingPlan(1, 2, "32-true", 0, 9.0)
    fold = dispr.tested_fold(config)
    first = fold[0]

    def folder(config=config, plan=plan, fold=fold, overrides=()):
        arguments = argparse.Namespace(work=tmp_path, overrides=list(overrides))
        return dispr.store_of(arguments, config, plan, fold).folder

    image, mask = first.image_YX.copy(), first.mask_YX.copy()
    image[0, 0] += 0.5
    mask[0, 0] = ~mask[0, 0]
    others = [
        folder(load_config("shape_dispr", [*words, "sampler.steps=7"])),
        folder(load_config("shape_dispr", [*words, "process.steps=500"])),
        folder(overrides=["predict.views=true"]),
        folder(fold=[dataclasses.replace(first, image_YX=image), *fold[1:]]),
        folder(fold=[dataclasses.replace(first, mask_YX=mask), *fold[1:]]),
        folder(fold=[dataclasses.replace(first, name="another"), *fold[1:]]),
        folder(fold=fold[::-1]),
        folder(plan=dataclasses.replace(plan, seed=1)),
    ]
    same = [
        folder(),
        folder(plan=dataclasses.replace(plan, batch=5, minutes=1.0)),
        folder(fold=dispr.tested_fold(config)),
    ]
    assert set(same) == {folder()}
    assert len({folder(), *others}) == len(others) + 1
    run.last_checkpoint.write_bytes(b"other weights")
    assert folder() not in {same[0], *others}


def test_a_part_out_of_order_is_one_line_and_exit_code_2(red_cells, tmp_path, capsys):
    assert dispr.main(["--data", str(red_cells), "--work", str(tmp_path), "--part", "sample"]) == 2
    assert capsys.readouterr().err == "--part: nothing is trained yet; run --part train first\n"


def test_a_folder_without_objects_is_one_line_and_exit_code_2(tmp_path, capsys):
    (tmp_path / "image").mkdir()
    (tmp_path / "mask").mkdir()
    assert dispr.main(["--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"--data: {tmp_path / 'obj'}: no such folder")


@pytest.mark.slow
def test_the_published_network_trains_and_samples(red_cells, tmp_path):
    words = ["--data", str(red_cells), "--work", str(tmp_path), "--device", "cpu", "--cells", "1"]
    assert dispr.main([*words, "--sampling-steps", "1", "--steps", "1", "--part", "train", "--part", "sample"]) == 0
    parts = sorted(tmp_path.glob("dispr-*-of-2.safetensors"))
    assert len(parts) == 2
    assert all(path.stat().st_size < 16 * 2**20 for path in parts)
