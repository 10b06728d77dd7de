"""One agent of a sweep: takes a run, waits for it, and notes what it came to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.deletion import remove_file
from experiments.sweeps.results import write_results
from experiments.sweeps.state import SweepRun, SweepState, logged, read_history, read_metric
from experiments.sweeps.sweep_file import Sweep, shown
from training.run_lock import run_lock
from training.rundir import ENV_RUN_DIR, ENV_RUN_ID, RunFolder
from training.signals import Preempted, handle_signals
from training.slurm import ENV_REQUEUE, ENV_WRAP

#: Seconds between two looks at a run's validations.
LOOK_S = 2.0
#: Seconds between two looks at a run folder that somebody else is at work in.
WAIT_S = 5.0
#: Runs in a row that may fail before the sweep is taken for broken.
PATIENCE = 3


def work(sweep: Sweep, count: int | None) -> SweepState:
    """Run what the sweep asks for, until there are `count` runs or the engine has no more.

    Raises
    ------
    InputError
        Every one of several runs failed, or of all there are; or no run logs the metric.
    Preempted
        This agent was asked to stop; its run has saved itself, and the same command goes on.
    """
    state, failed = SweepState(sweep), 0
    again = _to_try_again(state)
    print(f"sweep: {sweep.folder}", flush=True)
    with handle_signals():
        while True:
            with state.take(count, again) as run:
                if run is None:
                    break
                retried = run.number in again
                again.discard(run.number)
                _carry_out(sweep, state, run, retried)
            write_results(sweep, state.runs())
            if run.state != "failed":
                failed = 0
            elif not retried:
                failed += 1
            if failed == PATIENCE:
                raise _failed(sweep, f"{PATIENCE} runs in a row", run)
    runs = state.runs()
    write_results(sweep, runs)
    if all(run.state == "failed" for run in runs):
        raise _failed(sweep, f"all {len(runs)} runs", runs[-1])
    return state


def _to_try_again(state: SweepState) -> set[int]:
    """What failed before this command, and may be fixed by now: not what fails beside it, or before a requeue."""
    if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        return set()
    return {run.number for run in state.runs() if run.state == "failed"}


def _failed(sweep: Sweep, which: str, last: SweepRun) -> InputError:
    return InputError(
        f"{sweep.path.name}: {which} failed, the last one in {last.folder}; see what it printed above, fix it, then "
        "run the same command"
    )


def _carry_out(sweep: Sweep, state: SweepState, run: SweepRun, retried: bool) -> None:
    folder = RunFolder(Path(run.folder))
    _wait_for(run, folder)
    if retried and folder.weights() is None:
        _begin_anew(run, folder)
    *wrap, python = os.environ.get(ENV_WRAP, sys.executable).split("\n")
    command = sweep.command(run.suggested, python)
    if (folder.path / "config.yaml").is_file():
        command.append(f"resume={run.folder}")
    if "SLURM_JOB_ID" in os.environ and "srun" not in command:
        command = ["srun", "--kill-on-bad-exit=1", *wrap, *command]
    print(f"run {run.number}: {shown(command)}", flush=True)
    environment = {key: value for key, value in os.environ.items() if key != ENV_RUN_DIR}
    process = subprocess.Popen(command, env={**environment, ENV_RUN_ID: folder.path.name, ENV_REQUEUE: "no"})  # noqa: S603
    try:
        stopped = _follow(sweep, state, run, process)
    except BaseException:
        # a signal to this agent only: the run is asked, too, and has the time to save itself
        process.send_signal(signal.SIGTERM)
        process.wait()
        state.note(run)
        raise
    if folder.path.is_dir():
        folder.update_status(job=None)  # the agent's own job goes on with other runs
    metric, _ = sweep.metric
    run.history = read_history(run, metric)
    run.metric = read_metric(run, metric)
    status = folder.status()["status"]
    if status == "preempted" and not stopped:
        raise Preempted(f"run {run.number} was stopped; the same command goes on")
    run.state = "stopped" if stopped else "finished" if process.returncode == 0 and status == "finished" else "failed"
    state.note(run)
    score = "" if run.metric is None else f", {metric} {run.metric:.4g}"
    print(f"run {run.number}: {run.state}{score}", file=sys.stderr, flush=True)
    if run.state == "finished":
        _require_metric(sweep, run)


def _wait_for(run: SweepRun, folder: RunFolder) -> None:
    """Wait for a run whose agent was killed without a word: begun once more, it would be refused, and seem to fail."""
    waiting = False
    while folder.path.is_dir():
        try:
            with run_lock(folder):
                return
        except InputError as error:
            if not waiting:
                print(f"run {run.number}: {error}; waiting", file=sys.stderr, flush=True)
            waiting = True
            time.sleep(WAIT_S)


def _begin_anew(run: SweepRun, folder: RunFolder) -> None:
    """Let a failed run that left no weights take the config as it is by now."""
    for name in ("config.yaml", "metrics.csv"):
        remove_file(folder.path / name, folder.path)
    run.history = []


def _require_metric(sweep: Sweep, run: SweepRun) -> None:
    """Refuse to search by what no run says: a typo would only show as an empty column."""
    metric, _ = sweep.metric
    early = bool(sweep.values.get("early_terminate"))
    if not metric or (run.history if early else run.metric is not None):
        return
    known = logged(run, validated=early)
    raise InputError(
        f"{sweep.path.name}: metric.name: run {run.number} logged no {metric}{' while it trained' if early else ''}; "
        f"expected one of {', '.join(known) or 'none: the run trains nothing'}"
    )


def _follow(sweep: Sweep, state: SweepState, run: SweepRun, process: subprocess.Popen[bytes]) -> bool:
    """Wait for a run; whether early termination ended it."""
    while True:
        try:
            process.wait(timeout=LOOK_S)
            return False
        except subprocess.TimeoutExpired:
            found = read_history(run, sweep.metric[0])
            if len(found) > len(run.history):
                run.history = found
                if state.to_stop(run):
                    process.send_signal(signal.SIGTERM)
                    process.wait()
                    return True
