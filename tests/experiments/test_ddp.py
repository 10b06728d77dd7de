"""Two ranks on the CPU: one run folder, every case and every file once."""

from __future__ import annotations

import csv
import json
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torch has no gloo launcher of this kind on Windows")

TWO = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=1"]


def column(path, name):
    with path.open(newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def test_two_ranks_leave_one_run_with_every_case_and_file_once(tmp_path, tiny, trained, cells, command):
    inputs = f"predict.inputs=[{cells}/HeLa-00001.TCF,{cells}/HeLa-00002.TCF]"
    words = [*TWO, "stages=[fit,test,predict]", inputs, f"runs_dir={tmp_path}"]
    answer = command(tiny, *words, cwd=tmp_path, timeout=1800)
    assert answer.errors == []
    assert list(tmp_path.glob("tiny/*")) == [answer.run]
    assert answer.out.count("run: ") == 1
    alone = column(trained.run / "tables" / "test_cases.csv", "case")
    assert column(answer.run / "tables" / "test_cases.csv", "case") == alone
    assert sorted(p.name for p in (answer.run / "predictions").glob("*.tif")) == [
        "HeLa-00001.ome.tif",
        "HeLa-00002.ome.tif",
    ]
    assert len(column(answer.run / "tables" / "predictions.csv", "input")) == 2 * 4
    steps = [int(step) for step in column(answer.run / "metrics.csv", "step")]
    assert steps == sorted(set(steps))
    metrics = json.loads((answer.run / "metrics.json").read_text())
    assert (metrics["test/cases"], metrics["predict/files"], metrics["fit/steps"]) == (3, 2, 1)


@pytest.mark.slow
def test_two_ranks_with_one_case_and_one_file_between_them_do_not_wait_for_ever(
    tmp_path, tiny, trained, cells, command
):
    words = ["stages=[test,predict]", "data.test.count=1", f"predict.inputs=[{cells}/HeLa-00001.TCF]", *TWO]
    answer = command(
        tiny, *words, f"predict.checkpoint={trained.run}", f"runs_dir={tmp_path}", cwd=tmp_path, timeout=1800
    )
    assert answer.errors == []
    scores = json.loads((answer.run / "metrics.json").read_text())
    assert (scores["test/cases"], scores["predict/files"]) == (1, 1)
    one = json.loads((trained.run / "metrics.json").read_text())
    assert scores["test/dice_membrane"] == pytest.approx(one["test/NIH3T3/dice_membrane"], abs=1e-5)
