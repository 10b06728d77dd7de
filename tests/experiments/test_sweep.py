"""W&B's sweep files without its server: the same words, the same points, one folder, whatever is killed."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import yaml

from cytovox.errors import InputError
from experiments.compose import shipped_sweeps
from experiments.errors import ConfigErrors
from experiments.sweep import main
from experiments.sweeps.results import best_of, write_results
from experiments.sweeps.state import SweepRun, SweepState
from experiments.sweeps.sweep_file import read_sweep


@pytest.mark.parametrize("name", sorted(shipped_sweeps()))
def test_shipped_sweeps_are_valid(name: str) -> None:
    assert main([name, "--check"]) == 0


def test_a_grid_suggests_every_point_once(write_sweep) -> None:
    sweep = read_sweep(
        write_sweep(parameters={"optimizer.lr": {"values": [0.01, 0.001]}, "seed": {"values": [0, 1, 2]}})
    )
    state, seen = SweepState(sweep), []
    for _ in range(6):
        with state.take(None) as run:
            assert run is not None
            seen.append(tuple(run.suggested.values()))
            run.state = "finished"
            state.note(run)
    assert len(set(seen)) == 6
    with state.take(None) as run:
        assert run is None


def test_zero_keeps_its_type(write_sweep) -> None:
    """If 0.0 were read back as 0, it would be another point, and a grid would suggest it for ever."""
    sweep = read_sweep(write_sweep(parameters={"data.scale_probability": {"values": [0.0, 0.5]}}))
    seen = []
    for _ in range(3):
        state = SweepState(sweep)  # read from the file each time
        with state.take(None) as run:
            if run is None:
                break
            seen.append(run.suggested["data.scale_probability"])
            run.state = "finished"
            state.note(run)
    assert sorted(seen) == [0.0, 0.5]


NESTED = {
    "optimizer": {"parameters": {"lr": {"values": [0.01, 0.001]}, "warmup_steps": {"values": [0, 5]}}},
    "seed": {"values": [0, 1]},
}


def taken(sweep, most: int) -> list[dict]:
    """Points until there are no more, each with a metric; the state is read from its file each time."""
    seen: list[dict] = []
    while len(seen) < most:
        state = SweepState(sweep)
        with state.take(None) as run:
            if run is None:
                break
            seen.append(run.suggested)
            run.state, run.metric = "finished", float(len(seen))
            state.note(run)
    return seen


def test_a_nested_grid_suggests_every_point_once(write_sweep) -> None:
    sweep = read_sweep(write_sweep(parameters=NESTED))
    seen = taken(sweep, 12)
    assert len(seen) == 8
    assert len({tuple(point.values()) for point in seen}) == 8
    assert all(set(point) == {"optimizer.lr", "optimizer.warmup_steps", "seed"} for point in seen)
    assert sweep.words(seen[0])[0].startswith("optimizer.lr=0.0")


@pytest.mark.parametrize("method", ["bayes", "random"])
def test_nested_parameters_are_drawn_by_random_and_bayes(write_sweep, method: str) -> None:
    rate = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}
    sweep = read_sweep(write_sweep(method=method, parameters={"optimizer": {"parameters": {"lr": rate}}}))
    seen = [point["optimizer.lr"] for point in taken(sweep, 5)]
    assert len(set(seen)) == 5
    assert all(1e-4 <= value <= 1e-1 for value in seen)


@pytest.mark.parametrize(
    ("parameters", "output"),
    [
        ({"optimizer": {"parameters": {"lrate": {"values": [1, 2]}}}}, "optimizer.lrate: no such key"),
        ({"optimizer": {"parameters": {"lr": {"values": [1, -2]}}}}, "optimizer.lr: expected a positive number"),
        (
            {"optimizer": {"parameters": {"lr": {"value": 1}}}, "optimizer.lr": {"value": 2}},
            "optimizer.lr is given twice",
        ),
        ({"data.scale_probability": {"values": [0, 0.5, 0.0]}}, "0 and 0.0: the same point of the grid twice"),
        ({"data.foreground": {"min": 0.1, "max": 0.9}}, "disallowed type with grid search"),
    ],
)
def test_invalid_grids_are_refused(write_sweep, parameters: dict, output: str) -> None:
    with pytest.raises(InputError) as error:
        read_sweep(write_sweep(parameters=parameters))
    assert output in str(error.value)


def test_a_grid_that_repeats_itself_ends(write_sweep, monkeypatch) -> None:
    import sweeps

    sweep = read_sweep(write_sweep())
    first = taken(sweep, 1)[0]
    repeated = sweeps.SweepRun(config={key: {"value": value} for key, value in first.items()})
    monkeypatch.setattr(sweeps, "next_run", lambda *_: repeated)
    with pytest.raises(InputError, match="repeats a point of the grid"), SweepState(sweep).take(None):
        pass


def test_no_run_starts_after_the_target_is_reached(write_sweep) -> None:
    metric = {"name": "val/dice_mean", "goal": "maximize", "target": 3.0}
    sweep = read_sweep(write_sweep(method="random", metric=metric, parameters={"seed": {"min": 1, "max": 99}}))
    assert len(taken(sweep, 9)) == 3  # their metrics are 1, 2 and 3


@pytest.mark.parametrize(("validations", "stopped"), [(1, False), (2, True), (3, True), (4, True)])
def test_hyperband_compares_runs_after_equally_many_validations(write_sweep, validations: int, stopped: bool) -> None:
    """Of bands 2, 4, ...: not before the second validation, and not one later; by the best so far."""
    sweep = read_sweep(write_sweep(method="random", early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2}))
    state = SweepState(sweep)
    good = [[{"val/dice_mean": 0.5 + n / 10}] * 4 for n in range(3)]
    runs = [SweepRun(n, {"optimizer.lr": 0.01}, "x", "finished", history) for n, history in enumerate(good)]
    runs.append(SweepRun(3, {"optimizer.lr": 0.01}, "x", history=[{"val/dice_mean": 0.1}] * validations))
    state.path.write_text(json.dumps([run.__dict__ for run in runs]))
    assert state.to_stop(runs[3]) is stopped


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_the_next_run_depends_on_the_previous_runs_only(write_sweep, method: str, tmp_path: Path) -> None:
    output = {"optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}}
    sweep = read_sweep(write_sweep(method=method, parameters=output))
    points = []
    for _ in range(2):
        (sweep.folder / "runs.json").unlink(missing_ok=True)
        state = SweepState(sweep)
        for number in range(3):
            with state.take(None) as run:
                assert run is not None
                run.state, run.metric = "finished", -abs(math.log10(run.suggested["optimizer.lr"]) + 2)
                state.note(run)
            points.append((number, run.suggested["optimizer.lr"]))
    assert points[:3] == points[3:]
    assert all(1e-4 <= value <= 1e-1 for _, value in points)


def test_count_and_run_cap_limit_the_whole_sweep(write_sweep) -> None:
    sweep = read_sweep(write_sweep(method="random", run_cap=2))
    for count, expected in ((1, 1), (1, 1), (9, 2), (9, 2)):
        with SweepState(sweep).take(count):
            pass
        runs = SweepState(sweep).runs()
        for run in runs:
            run.state = "finished"
            SweepState(sweep).note(run)
        assert len(runs) == expected


def test_concurrent_agents_take_different_runs_and_resume_abandoned_ones(write_sweep) -> None:
    sweep = read_sweep(write_sweep())
    with SweepState(sweep).take(None) as first:
        with SweepState(sweep).take(None) as second:
            assert {first.number, second.number} == {0, 1}
        with SweepState(sweep).take(None) as again:  # the second was left: its agent is gone
            assert again.number == 1
    assert [run.state for run in SweepState(sweep).runs()] == ["running", "running"]


def test_hyperband_stops_poor_runs(write_sweep) -> None:
    sweep = read_sweep(
        write_sweep(method="random", early_terminate={"type": "hyperband", "min_iter": 2, "eta": 2})
    )  # fmt: skip
    state = SweepState(sweep)
    runs = [SweepRun(n, {"optimizer.lr": 0.01}, "x", history=[{"val/dice_mean": n / 10}] * 3) for n in range(4)]
    state.path.write_text(json.dumps([run.__dict__ for run in runs]))
    assert state.to_stop(runs[0])
    assert not state.to_stop(runs[3])


def test_the_config_reads_the_suggested_values(write_sweep) -> None:
    sweep = read_sweep(write_sweep())
    values = {"a": 0.0, "b": None, "c": True, "d": [1, 2], "e": "text", "f": 1e-05}
    words = sweep.words(values)
    assert words == ["a=0.0", "b=null", "c=true", "d=[1, 2]", "e=text", "f=1e-05"]
    from experiments.compose import _parse_override

    assert {k: v for word in words for k, v in _parse_override(word).items()} == values
    command = sweep.command({"optimizer.lr": 0.5})
    assert command[-1] == "optimizer.lr=0.5"
    assert "${" not in " ".join(command)


@pytest.mark.parametrize(
    ("more", "output"),
    [
        ({"method": "genetic"}, "method: expected one of random, grid, bayes"),
        ({"parameters": {}}, "parameters: expected keys of the config"),
        ({"method": "bayes", "metric": {}}, "metric: bayes"),
        ({"command": ["python", "train.py"]}, "command: expected"),
        ({"command": ["python", "-m", "experiments.run", "organelle_demo", "${args}"]}, "use ${args_no_hyphens}"),
        ({"command": ["python", "-m", "experiments.run", "${args_no_hyphens}"]}, "expected a config"),
        ({"early_terminate": {"type": "nonsense"}}, "early_terminate: expected one such as {type: hyperband"),
    ],
)
def test_an_invalid_sweep_is_reported_in_one_line(write_sweep, more: dict, output: str) -> None:
    with pytest.raises(InputError) as error:
        read_sweep(write_sweep(**more))
    assert output in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_all_invalid_keys_and_values_are_reported_together(write_sweep, capsys) -> None:
    path = write_sweep(
        parameters={"optimizer.lrate": {"values": [1]}, "trainer.max_epochs": {"values": [1, "many"]}, "seed": 3}
    )
    with pytest.raises(ConfigErrors) as error:
        read_sweep(path)
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    for output in ("optimizer.lrate: no such key", "trainer.max_epochs: expected a whole number", "parameters.seed: "):
        assert sum(output in line for line in lines) == 1, lines
    assert main([str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_table_and_a_figure_are_written(write_sweep) -> None:
    sweep = read_sweep(write_sweep())
    runs = [
        SweepRun(0, {"optimizer.lr": 0.01, "loss.name": "dice_bce"}, "a", "finished", [], 0.4),
        SweepRun(1, {"optimizer.lr": 0.001, "loss.name": "dice_focal"}, "b", "finished", [], 0.6),
        SweepRun(2, {"optimizer.lr": 0.001, "loss.name": "dice_bce"}, "c", "failed"),
    ]
    sweep.folder.mkdir(parents=True)
    write_results(sweep, runs)
    with (sweep.folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["val/dice_mean"] for row in rows] == ["0.4", "0.6", ""]
    assert (sweep.folder / "sweep.png").stat().st_size > 5000
    assert best_of(sweep, runs) is runs[1]


@pytest.mark.slow
def test_a_sweep_from_the_command_line(write_sweep, monkeypatch, request, capfd) -> None:
    monkeypatch.setenv("CYTOVOX_CACHE", request.getfixturevalue("_session_cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    path = write_sweep(parameters={"optimizer.lr": {"values": [0.01, 0.001]}})
    assert main([str(path), "--count", "1"]) == 0
    assert main([str(path)]) == 0  # goes on
    sweep = read_sweep(path)
    runs = SweepState(sweep).runs()
    assert [run.state for run in runs] == ["finished", "finished"]
    for run in runs:
        config = yaml.safe_load((Path(run.folder) / "config.yaml").read_text())
        assert config["optimizer"]["lr"] == run.suggested["optimizer.lr"]
        assert run.metric == json.loads((Path(run.folder) / "metrics.json").read_text())["val/dice_mean"]
    assert f"best: {best_of(sweep, runs).folder}" in capfd.readouterr().out


def test_a_sweep_ends_if_all_runs_fail(write_sweep, monkeypatch, capfd) -> None:
    command = ["python", "-c", "import sys; sys.exit(1)", "experiments.run", "CONFIG", "${args_no_hyphens}"]
    output = yaml.safe_load(write_sweep().read_text())["command"]
    command[4] = output[4]
    path = write_sweep(method="random", command=command)
    assert main([str(path), "--count", "9"]) == 2
    assert "3 runs in a row failed" in capfd.readouterr().err
    assert len(SweepState(read_sweep(path)).runs()) == 3
