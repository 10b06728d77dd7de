"""Volumes that weights were trained on are known again: in the test, in a prediction, in an analysis."""

from __future__ import annotations

import csv
import shutil

import yaml

from cytovox.models.metadata import read_checkpoint
from experiments.tasks.analyze.predictors import seen_notes
from tests.experiments.conftest import FOLDER, TINY, TINY_DATA


def test_a_tomogram_of_the_training_is_known_again_under_another_name(cli, cells, tmp_path):
    tree = {"name": "seen", "task": "organelle", "runs_dir": str(tmp_path / "runs"), **TINY}
    tree["data"] = {**TINY_DATA, **FOLDER, "root": str(cells)}
    tree["trainer"] = {**TINY["trainer"], "max_epochs": 1}
    path = tmp_path / "seen.yaml"
    path.write_text(yaml.safe_dump(tree))
    new = tmp_path / "new"
    new.mkdir()
    for number, name in ((1, "trained.TCF"), (2, "stopped_early_by.TCF"), (3, "tested.TCF")):
        shutil.copy(cells / f"HeLa-0000{number}.TCF", new / name)
    answer = cli(path, "stages=[fit,test,predict]", f"predict.inputs=[{new}/*.TCF]")
    run = answer.run
    with (run / "tables" / "test_cases.csv").open() as file:
        assert [row["seen_in_training"] for row in csv.DictReader(file)] == ["no"]
    assert "note: 2 of 3 inputs were seen in training by these weights" in answer.err
    assert "test cases were seen" not in answer.err
    weights = run / "checkpoints" / "last.ckpt"
    assert len(read_checkpoint(weights, "organelle", "x").metadata.seen) == 2
    assert [len(seen_notes(weights, new / name)) for name in ("trained.TCF", "tested.TCF")] == [1, 0]
    # what one fold tests, the other was trained on
    split = "data.split={train: [HeLa-00003.TCF], val: [HeLa-00002.TCF], test: [HeLa-00001.TCF]}"
    again = cli(path, "stages=[test]", f"predict.checkpoint={run}", split)
    assert "note: 1 of 1 test cases were seen in training by these weights: their scores say nothing" in again.err
    assert "1 test cases were seen in training by these weights." in (again.run / "report.html").read_text()
