"""Progress in a log file: a line a minute, with file names, and one when a job is done."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from experiments.progress import Bars
from training.progress_bar import LogLines


def test_a_job_is_reported_once_a_minute_and_when_it_is_done(capsys):
    now = [0.0]
    with Bars(clock=lambda: now[0]) as bars:
        for done in range(1, 1001):
            now[0] += 0.5
            bars("checking volumes", done, 1000, f"{done}.TCF")
        bars("checking volumes", 1000, 1000)
        bars("next", 1, 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "checking volumes: 120/1000 (120.TCF)"
    assert lines[-2:] == ["checking volumes: 1000/1000", "next: 1/1"]
    assert len(lines) == 8 + 2


def test_a_training_and_a_prediction_are_reported_once_a_minute(capsys):
    now = [0.0]
    lines = LogLines(clock=lambda: now[0])
    trainer = SimpleNamespace(
        max_epochs=3, current_epoch=1, num_training_batches=100, global_step=150, num_predict_batches=[2],
        callback_metrics={"train/loss": torch.tensor(0.25)},
    )  # fmt: skip
    for batch in range(100):
        now[0] += 1
        lines.on_train_batch_end(trainer, None, None, None, batch)
    for number in range(2):
        now[0] += 60
        lines.on_predict_batch_start(trainer, None, Path(f"dish/{number}.TCF"), number, 0)
    lines.disable()
    now[0] += 60
    lines.print_line("not of this rank")
    assert capsys.readouterr().err.splitlines() == [
        "training: epoch 2/3, batch 60/100, step 150, train/loss 0.25",
        "predicting: 1/2 (0.TCF)",
        "predicting: 2/2 (1.TCF)",
    ]


def test_where_the_masks_are_is_printed_last(trained):
    assert trained.out.splitlines()[-1] == f"predictions: {trained.run / 'predictions'} (1 files)"
