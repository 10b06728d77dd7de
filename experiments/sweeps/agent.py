"""Agent of a sweep: start runs one after the other and record their results."""

import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.deletion import remove_file
from experiments.sweeps.results import write_results
from experiments.sweeps.state import SweepRun, SweepState, logged, read_history, read_metric
from experiments.sweeps.sweep_file import Sweep
from training.run_lock import run_lock
from training.rundir import ENV_RUN_DIR, ENV_RUN_ID, RunFolder
from training.signals import Preempted, handle_signals
from training.slurm import ENV_REQUEUE, ENV_WRAP

#: Seconds between two reads of a run's metrics.
LOOK_S = 2.0
#: Seconds between two attempts to lock a run folder.
WAIT_S = 5.0
#: Number of consecutive failed runs after which the sweep is stopped.
PATIENCE = 3


def work(sweep: Sweep, count: int | None) -> SweepState:
    """Run a sweep until it has `count` runs or the engine suggests no more; return its state.

    Parameters
    ----------
    sweep : Sweep
        The sweep.
    count : int or None
        Number of runs of the sweep; None for no limit.

    Raises
    ------
    InputError
        Several consecutive runs failed, or all runs; or a run does not log the metric.
    Preempted
        A signal stopped this agent; its run has saved its state, and the same command resumes the sweep.
    """
    state, failed = SweepState(sweep), 0
    again = _runs_to_repeat(state)
    print(f"sweep: {sweep.folder}", flush=True)
    with handle_signals():
        while True:
            with state.take(count, again) as run:
                if run is None:
                    break
                retried = run.number in again
                again.discard(run.number)
                _run(sweep, state, run, retried)
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


def _runs_to_repeat(state: SweepState) -> set[int]:
    """Return the runs that failed before this command, which may be fixed now; none after a requeue of the job."""
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    return {run.number for run in state.runs() if run.state == "failed" and not requeued}


def _failed(sweep: Sweep, which: str, last: SweepRun) -> InputError:
    return InputError(
        f"{sweep.path.name}: {which} failed, the last one in {last.folder}; see what it printed above, fix it, then "
        "run the same command"
    )


def _run(sweep: Sweep, state: SweepState, run: SweepRun, retried: bool) -> None:
    """Start or resume a run, wait for its end and record its result."""
    folder = RunFolder(Path(run.folder))
    _wait_for(run, folder)
    if retried and folder.weights() is None:  # restart with the present config
        for name in ("config.yaml", "metrics.csv"):
            remove_file(folder.path / name, folder.path)
        run.history = []
    *wrap, python = os.environ.get(ENV_WRAP, sys.executable).split("\n")
    command = sweep.command(run.suggested, python)
    if (folder.path / "config.yaml").is_file():
        command.append(f"resume={run.folder}")
    if "SLURM_JOB_ID" in os.environ and "srun" not in command:
        command = ["srun", "--kill-on-bad-exit=1", *wrap, *command]
    print(f"run {run.number}: {shlex.join(command)}", flush=True)
    environment = {key: value for key, value in os.environ.items() if key != ENV_RUN_DIR}
    process = subprocess.Popen(command, env={**environment, ENV_RUN_ID: folder.path.name, ENV_REQUEUE: "no"})  # noqa: S603
    try:
        stopped = _follow(sweep, state, run, process)
    except BaseException:
        # a signal to this agent is passed on to the run, which saves its state
        process.send_signal(signal.SIGTERM)
        process.wait()
        state.note(run)
        raise
    if folder.path.is_dir():
        folder.update_status(job=None)  # the agent's job continues with other runs
    metric, _ = sweep.metric
    run.history = read_history(run, metric)
    run.metric = read_metric(run, metric)
    status = folder.status()["status"]
    if status == "preempted" and not stopped:
        raise Preempted(f"run {run.number} was stopped; run the same command again to resume")
    run.state = "stopped" if stopped else "finished" if process.returncode == 0 and status == "finished" else "failed"
    state.note(run)
    score = "" if run.metric is None else f", {metric} {run.metric:.4g}"
    print(f"run {run.number}: {run.state}{score}", file=sys.stderr, flush=True)
    if run.state == "finished":
        _require_metric(sweep, run)


def _wait_for(run: SweepRun, folder: RunFolder) -> None:
    """Wait until the folder of a run is free: after its agent was killed, the run may still be working in it."""
    for attempt in itertools.count():
        if not folder.path.is_dir():
            return
        try:
            with run_lock(folder):
                return
        except InputError as error:
            if attempt == 0:
                print(f"run {run.number}: {error}; waiting", file=sys.stderr, flush=True)
            time.sleep(WAIT_S)


def _require_metric(sweep: Sweep, run: SweepRun) -> None:
    """Refuse a metric that the run did not log, such as a misspelled one."""
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
    """Wait for a run; return whether early termination stopped it."""
    while True:
        try:
            process.wait(timeout=LOOK_S)
            return False
        except subprocess.TimeoutExpired:
            if len(found := read_history(run, sweep.metric[0])) > len(run.history):
                run.history = found
                if state.to_stop(run):
                    process.send_signal(signal.SIGTERM)
                    process.wait()
                    return True
