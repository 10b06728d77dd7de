"""The SLURM job of this process: its id and size, and how it is requeued."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cytovox.errors import InputError

#: Script of a submitted run, in the run folder.
SCRIPT = Path("slurm") / "job.sh"
#: Script of the job that gathers the results of an array, in the run folder.
GATHER = Path("slurm") / "gather" / "job.sh"
#: Environment variable that is "no" for a run whose parent process resumes it.
ENV_REQUEUE = "CYTOVOX_REQUEUE"
#: Environment variable with the container command and interpreter for runs of a sweep's agent, one word per line.
ENV_WRAP = "CYTOVOX_WRAP"
#: Seconds to wait for an answer of SLURM's controller.
PATIENCE_S = 30
#: Names of interactive jobs, as in Lightning: those of `srun --pty bash` and of salloc.
_SHELLS = ("bash", "interactive")


def job_id() -> str | None:
    """Return the id of this job as `scontrol` takes it, ARRAY_TASK for a task of an array; None outside of SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def launched_by_srun() -> bool:
    """Return whether this process is a task of a job step of a batch job."""
    return job_id() is not None and "SLURM_PROCID" in os.environ and not in_a_shell()


def in_a_shell() -> bool:
    """Return whether this job is interactive: SLURM does not restart what a user starts in it."""
    return os.environ.get("SLURM_JOB_NAME") in _SHELLS


def step_size() -> tuple[int, int] | None:
    """Return the number of nodes of this job step and of tasks per node; None outside of a job step."""
    nodes, tasks = os.environ.get("SLURM_STEP_NUM_NODES"), os.environ.get("SLURM_STEP_NUM_TASKS")
    if nodes is None or tasks is None or "SLURM_STEP_ID" not in os.environ:
        return None
    return int(nodes), int(tasks) // int(nodes)


def require_srun() -> None:
    """Refuse to run as a single process in a job of several tasks: it would wait for the others forever.

    Raises
    ------
    InputError
        The job has several tasks, and the process was not started by `srun`.
    """
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if tasks != "1" and "SLURM_STEP_ID" not in os.environ and not in_a_shell():
        raise InputError(f"SLURM: a job of {tasks} tasks, but not started by srun; put srun before the command")


def may_requeue(stop: BaseException) -> bool:
    """Return whether a stopped run has to requeue its job; False for a run of a sweep, whose agent resumes it."""
    return launched_by_srun() and os.environ.get(ENV_REQUEUE) != "no" and not ended_early(stop)


def ended_early(stop: BaseException) -> bool:
    """Return whether W&B's agent ended this run by early termination, for which it sends SIGTERM."""
    return "WANDB_SWEEP_ID" in os.environ and "SIGTERM" in str(stop)


def requeue(run: Path | None) -> str | None:
    """Run this job again, in the same run folder.

    By `scontrol requeue`; if that is forbidden or not available (in a container, for example), by another job with the
    run's script that starts when this job has ended. A cancelled job is not run again.

    Parameters
    ----------
    run : Path or None
        Run folder.

    Returns
    -------
    str or None
        Message about what was done; None if nothing could be done, and exit code 75 must tell the job's script to do
        it.
    """
    job = job_id()
    if job is None or not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        return None
    if is_cancelled(job):
        print(f"job {job} was cancelled, and is not run again", file=sys.stderr)
        return None
    if run_slurm(["scontrol", "requeue", job]) is not None:
        return f"job {job} is requeued"
    return _submit_next(job, run) if run is not None else None


def _submit_next(job: str, run: Path) -> str | None:
    """Submit the script of this job again, and for an array also the job that gathers its results."""
    task, gather = os.environ.get("SLURM_ARRAY_TASK_ID"), run / GATHER
    script = gather if task is None and gather.is_file() else run / SCRIPT
    if not script.is_file():
        return None
    words = ["sbatch", "--parsable", f"--dependency=afterany:{os.environ['SLURM_JOB_ID']}"]
    answer = run_slurm([*words, *([f"--array={task}"] if task is not None else []), str(script)])
    if answer is None:
        return None
    if (number := job_number(answer)) is None:
        return f"another job continues when {job} has ended"
    if task is not None and gather.is_file():
        run_slurm(["sbatch", "--parsable", f"--dependency=afterany:{number}", str(gather)])
    return f"job {number} continues when {job} has ended"


def job_number(answer: str) -> str | None:
    """Return the job id in the last line that `sbatch --parsable` printed; None if there is none."""
    found = re.fullmatch(r"(\d+)(;.*)?", answer.rstrip().rpartition("\n")[2].strip())
    return found[1] if found is not None else None


def is_cancelled(job: str) -> bool:
    """Return whether a job was cancelled; False for a job that SLURM does not list.

    While the processes of a cancelled job end, its state is COMPLETING. The state of a job that received USR1, or TERM
    before a node is taken back, is RUNNING.
    """
    answer = run_slurm(["scontrol", "show", "job", job, "--oneliner"]) or ""
    return "JobState=CANCELLED" in answer or "JobState=COMPLETING" in answer


def is_alive(job: str) -> bool:
    """Return whether a job is running or about to end."""
    answer = run_slurm(["squeue", "--noheader", "--jobs", job, "--format=%T"]) or ""
    return any(state in answer for state in ("RUNNING", "COMPLETING", "SUSPENDED"))


def still_to_do(jobs: list[str], script: Path | None) -> str | None:
    """Return the first job that is waiting or running, among some jobs and the user's jobs with a script; or None.

    A job that is COMPLETING has done its work. The present job is not counted.
    """
    asked = ["squeue", "--noheader", "--array", "--format=%i %T %o"]
    lines = (run_slurm([*asked, "--jobs", ",".join(jobs)]) or "").splitlines() if jobs else []
    if script is not None:
        mine = (run_slurm([*asked, "--me"]) or "").splitlines()
        lines += [line for line in mine if line.rstrip().endswith(f" {script}")]
    for line in lines:
        job, state, *_ = [*line.split(), "", ""]
        if job != job_id() and state in ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED"):
            return job
    return None


def run_slurm(words: list[str]) -> str | None:
    """Return the output of a SLURM command; None if it fails or is not installed."""
    if shutil.which(words[0]) is None:
        return None
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        print(f"{' '.join(words[:2])}: {' '.join((done.stderr or done.stdout).split())}", file=sys.stderr)
        return None
    return done.stdout.strip()
