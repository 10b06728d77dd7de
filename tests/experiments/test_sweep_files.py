"""Errors in a sweep file are reported before any run, one line each."""

from __future__ import annotations

import pytest

from cytovox.errors import InputError
from experiments.sweep import main
from experiments.sweeps.sweep_file import read_sweep

RUN = ["python", "-m", "experiments.run", "organelle_demo"]


@pytest.mark.parametrize(
    ("more", "output"),
    [
        ({"metric": {"name": "val/dice_mean", "goal": "max"}}, "metric.goal: expected one of minimize, maximize"),
        ({"metric": {"name": "val/dice_mean", "goal": "maximise"}}, "metric.goal: expected one of minimize, maximize"),
        ({"metric": "val/dice"}, "metric: expected one such as {name: val/dice_mean, goal: maximize}, got 'val/dice'"),
        ({"metric": {"goal": "maximize"}}, "metric: 'name' is a required property"),
        ({"parameters": {"seed": {"values": 3}}}, "parameters.seed: expected values: [...]"),
        ({"parameters": {"seed": {"values": []}}}, "parameters.seed: expected values: [...]"),
        ({"parameters": {"seed": {"min": "a", "max": 3}}}, "parameters.seed: expected values: [...]"),
        ({"parameters": {"seed": {"min": 3, "max": 1}}}, "parameters: seed: min 3 is not less than max 1"),
        ({"run_cap": "abc"}, "run_cap: expected a whole number, 1 or more, got 'abc'"),
        ({"run_cap": 0}, "run_cap: expected a whole number, 1 or more, got 0"),
        ({"run_cap": True}, "run_cap: expected a whole number, 1 or more, got True"),
        ({"command": 3}, "command: expected ["),
        ({"command": [*RUN, 3, "${args_no_hyphens}"]}, "command: expected texts, got 3"),
        ({"command": RUN}, "command: without ${args_no_hyphens} every run is the same"),
        ({"command": ["${args_no_hyphens}", *RUN]}, "command: without ${args_no_hyphens} every run is the same"),
        ({"early_termination": {"type": "hyperband", "min_iter": 2}}, "early_termination: no such key of a sweep; did "
         "you mean early_terminate?"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0}}, "early_terminate: expected one such as"),
    ],
)  # fmt: skip
def test_a_sweep_that_wandb_would_misread_is_refused(write_sweep, more: dict, output: str) -> None:
    path = write_sweep(**{"method": "random", **more})
    with pytest.raises(InputError) as error:
        read_sweep(path)
    assert f"sweep.yaml: {output}" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_all_errors_of_a_sweep_file_are_reported_together(write_sweep, capsys) -> None:
    path = write_sweep(metric={"name": "val/dice_mean", "goal": "max"}, run_cap="many", parameters={
        "seed": {"values": 3}, "optimizer.lrate": {"values": [1]}}, early_stop=1)  # fmt: skip
    with pytest.raises(InputError) as error:
        read_sweep(path)
    assert len(str(error.value).splitlines()) == 5
    for key in ("metric.goal", "run_cap", "parameters.seed", "optimizer.lrate", "early_stop"):
        assert key in str(error.value)
    assert main([str(path), "--check"]) == 2
    assert capsys.readouterr().err.strip() == str(error.value)


def test_documented_sweep_files_are_accepted(write_sweep) -> None:
    sweep = read_sweep(write_sweep(
        method="random", run_cap=3, name="mine", description="of mine", project="cells", program="experiments.run",
        early_terminate={"type": "hyperband", "max_iter": 27, "s": 2},
        parameters={
            "optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
            "loss.name": {"values": ["dice_bce", "dice_focal"], "probabilities": [0.25, 0.75]},
            "seed": {"min": 1, "max": 9},
            "data.scale_probability": {"value": 0.0},
        },
    ))  # fmt: skip
    assert sweep.metric == ("val/dice_mean", True)
    assert read_sweep(write_sweep(metric=None, early_terminate=None, run_cap=None)).metric == ("", False)
