"""One agent of a sweep: takes a run, waits for it, and notes what it came to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from experiments.sweeps.results import write_results
from experiments.sweeps.state import SweepRun, SweepState, read_history, read_metric
from experiments.sweeps.sweep_file import Sweep, shown
from formats.errors import InputError
from training.rundir import ENV_RUN_DIR, ENV_RUN_ID, RunFolder
from training.signals import Preempted, listening
from training.slurm import ENV_REQUEUE

#: Seconds between two looks at a run's validations.
LOOK_S = 2.0
#: Runs in a row that may fail before the sweep is taken for broken.
PATIENCE = 3


def work(sweep: Sweep, count: int | None) -> SweepState:
    """Run what the sweep asks for, until there are `count` runs or the engine has no more.

    Raises
    ------
    InputError
        Every one of several runs failed.
    Preempted
        This agent was asked to stop; its run has saved itself, and the same command goes on.
    """
    state, failed = SweepState(sweep), 0
    print(f"sweep: {sweep.folder}", flush=True)
    with listening():
        while True:
            with state.take(count) as run:
                if run is None:
                    break
                _carry_out(sweep, state, run)
            write_results(sweep, state.runs())
            failed = failed + 1 if run.state == "failed" else 0
            if failed == PATIENCE:
                raise InputError(
                    f"{sweep.path.name}: {PATIENCE} runs in a row failed, the last one in {run.folder}; see what it "
                    "printed above, mend it, then run the same command"
                )
    write_results(sweep, state.runs())
    return state


def _carry_out(sweep: Sweep, state: SweepState, run: SweepRun) -> None:
    command = sweep.command(run.suggested)
    if (Path(run.folder) / "config.yaml").is_file():
        command.append(f"resume={run.folder}")
    if "SLURM_JOB_ID" in os.environ and "srun" not in command:
        command = ["srun", "--kill-on-bad-exit=1", *command]
    print(f"run {run.number}: {shown(command)}", flush=True)
    environment = {key: value for key, value in os.environ.items() if key != ENV_RUN_DIR}
    process = subprocess.Popen(command, env={**environment, ENV_RUN_ID: Path(run.folder).name, ENV_REQUEUE: "no"})  # noqa: S603
    try:
        stopped = _follow(sweep, state, run, process)
    except BaseException:
        # a signal to this agent only: the run is asked, too, and has the time to save itself
        process.send_signal(signal.SIGTERM)
        process.wait()
        state.note(run)
        raise
    metric, _ = sweep.metric
    run.history = read_history(run, metric)
    run.metric = read_metric(run, metric)
    status = RunFolder(Path(run.folder)).status()["status"]
    if status == "preempted" and not stopped:
        raise Preempted(f"run {run.number} was stopped; the same command goes on")
    run.state = "stopped" if stopped else "finished" if process.returncode == 0 and status == "finished" else "failed"
    state.note(run)
    told = "" if run.metric is None else f", {metric} {run.metric:.4g}"
    print(f"run {run.number}: {run.state}{told}", file=sys.stderr, flush=True)


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
