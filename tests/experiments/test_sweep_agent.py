"""Agent of a sweep: failed runs, abandoned runs, and missing metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from filelock import FileLock

from experiments.sweep import main
from experiments.sweeps import agent
from experiments.sweeps.state import SweepState
from experiments.sweeps.sweep_file import read_sweep

#: Stands for a run: fails where there is a `broken`, refuses where somebody is at work, and says how it was begun.
RUN = """
import json, os, sys
from pathlib import Path
from filelock import FileLock
home = Path(__file__).parent
folder = home / "runs" / "tiny" / os.environ["CYTOVOX_RUN_ID"]
folder.mkdir(parents=True, exist_ok=True)
with FileLock(folder / ".lock").acquire(timeout=0):
    with (home / "begun").open("a") as file:
        print(folder.name[-3:], *(w.split("=")[0] for w in sys.argv if w.startswith("resume=")), file=file)
    broken = (home / "broken").exists() or folder.name[-3:] in os.environ.get("BROKEN", "").split()
    (folder / "config.yaml").touch()
    (folder / "status.json").write_text(json.dumps({"status": "failed" if broken else "finished"}))
    if broken:
        sys.exit(1)
    (folder / "metrics.json").write_text(json.dumps({"val/dice_mean": 0.5, "test/dice_mean": 0.4}))
    (folder / "metrics.csv").write_text("epoch,step,val/dice_mean,val/loss\\n0,3,0.5,0.2\\n")
"""


@pytest.fixture
def sweep(write_sweep, tmp_path: Path, monkeypatch) -> Callable[..., Path]:
    """A sweep of runs that take no time."""
    monkeypatch.setattr(agent, "LOOK_S", 0.05)
    monkeypatch.setattr(agent, "WAIT_S", 0.05)
    for key in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "BROKEN"):
        monkeypatch.delenv(key, raising=False)
    (tmp_path / "run.py").write_text(RUN)

    def build(**more: object) -> Path:
        path = write_sweep(**{"parameters": {"seed": {"values": [0, 1]}}, **more})
        tree = yaml.safe_load(path.read_text())
        words = tree["command"]
        tree["command"] = ["python", str(tmp_path / "run.py"), *words[words.index("experiments.run") :]]
        path.write_text(yaml.safe_dump(tree))
        return path

    return build


def states(path: Path) -> list[str]:
    return [run.state for run in SweepState(read_sweep(path)).runs()]


def test_failed_runs_are_reported_and_repeated_by_the_next_command(sweep, tmp_path: Path, capsys) -> None:
    path, begun = sweep(), tmp_path / "begun"
    (tmp_path / "broken").touch()
    assert main([str(path)]) == 2
    assert "sweep.yaml: all 2 runs failed" in capsys.readouterr().err
    assert begun.read_text().split() == ["000", "001"]  # each once
    (tmp_path / "broken").unlink()
    assert main([str(path)]) == 0
    assert states(path) == ["finished", "finished"]
    assert begun.read_text().split() == ["000", "001", "000", "001"]  # with the config of now: nothing is resumed
    assert main([str(path)]) == 0
    assert len(begun.read_text().split()) == 4  # what is finished is not done again


def test_failed_runs_are_repeated_last_and_do_not_count_again(sweep, tmp_path: Path, monkeypatch) -> None:
    path, begun = sweep(parameters={"seed": {"values": [0, 1, 2, 3, 4, 5]}}), tmp_path / "begun"
    monkeypatch.setenv("BROKEN", "000 002 003")
    assert main([str(path), "--count", "5"]) == 0
    assert main([str(path), "--count", "5"]) == 0
    assert begun.read_text().split() == ["000", "001", "002", "003", "004", "000", "002", "003"]
    # three that fail whatever one does keep nobody from the sixth
    assert main([str(path)]) == 0
    assert begun.read_text().split()[8:] == ["005", "000", "002", "003"]


def test_a_failed_run_with_weights_is_resumed(sweep, tmp_path: Path, monkeypatch) -> None:
    path = sweep()
    monkeypatch.setenv("BROKEN", "001")
    assert main([str(path)]) == 0
    (left,) = (tmp_path / "runs" / "tiny").glob("*-001")
    (left / "checkpoints").mkdir()
    (left / "checkpoints" / "last.ckpt").touch()
    monkeypatch.delenv("BROKEN")
    assert main([str(path)]) == 0
    assert (tmp_path / "begun").read_text().splitlines()[-1] == "001 resume"
    assert states(path) == ["finished", "finished"]


def test_an_agent_does_not_repeat_runs_of_other_agents_or_after_a_requeue(sweep, monkeypatch) -> None:
    state = SweepState(read_sweep(sweep()))
    with state.take(None) as run:
        run.state = "failed"
        state.note(run)
    with state.take(1, again=()) as run:
        assert run is None
    with state.take(1, again={0}) as run:
        assert run.number == 0
        with SweepState(state.sweep).take(1, again={0}) as other:
            assert other is None
        run.state = "failed"
        state.note(run)
    assert agent._runs_to_repeat(state) == {0}
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert agent._runs_to_repeat(state) == set()


def test_an_agent_waits_for_the_run_of_a_killed_agent(sweep, tmp_path: Path, capsys, monkeypatch) -> None:
    path = sweep(parameters={"seed": {"values": [0]}})
    state = SweepState(read_sweep(path))
    with state.take(None) as run:
        folder = Path(run.folder)
    folder.mkdir(parents=True)
    left = FileLock(folder / ".lock", thread_local=False)
    left.acquire()
    # let go of when the agent waits for the first time, however long it took to come there
    monkeypatch.setattr(agent, "time", SimpleNamespace(sleep=lambda _: left.release()))
    assert main([str(path)]) == 0
    assert capsys.readouterr().err.count("another process is working in it") == 1
    assert states(path) == ["finished"]
    assert (tmp_path / "begun").read_text().split() == ["000"]


@pytest.mark.parametrize(
    ("more", "output"),
    [
        ({"metric": {"name": "val/dice", "goal": "maximize"}}, "run 0 logged no val/dice; expected one of "
         "test/dice_mean, val/dice_mean, val/loss"),
        ({"metric": {"name": "test/dice_mean"}, "early_terminate": {"type": "hyperband", "min_iter": 1}},
         "run 0 logged no test/dice_mean while it trained; expected one of val/dice_mean, val/loss"),
    ],
)  # fmt: skip
def test_a_metric_that_no_run_logs_ends_the_sweep(sweep, capsys, more: dict, output: str) -> None:
    path = sweep(**more)
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"sweep.yaml: metric.name: {output}"
    assert states(path) == ["finished"]


def test_a_sweep_without_a_metric_runs(sweep) -> None:
    path = sweep(metric=None)
    assert main([str(path)]) == 0
    assert json.loads((read_sweep(path).folder / "runs.json").read_text())[0]["metric"] is None
