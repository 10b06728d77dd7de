"""What a job of SLURM knows of itself, and how it asks to be run again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cytovox.errors import InputError

#: The script of a submitted run, in its folder.
SCRIPT = Path("slurm") / "job.sh"
#: That of the job that gathers what the tasks of an array have done.
GATHER = Path("slurm") / "gather" / "job.sh"
#: Set to "no" for runs whose starter has them run again.
ENV_REQUEUE = "CYTOVOX_REQUEUE"
#: A word a line: what puts the runs of a sweep's agent into their container, and their interpreter there.
ENV_WRAP = "CYTOVOX_WRAP"
#: Seconds that SLURM's controller may take to answer.
PATIENCE_S = 30
#: Names of jobs in which a person types, as Lightning knows them: of `srun --pty bash`, and of salloc.
_SHELLS = ("bash", "interactive")


def job_id() -> str | None:
    """This job as `scontrol` names it, an array's task as ARRAY_TASK; None outside of SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def launched_by_srun() -> bool:
    """Whether this process is a task of a job step, not a shell in which somebody looks at things."""
    return job_id() is not None and "SLURM_PROCID" in os.environ and not in_a_shell()


def in_a_shell() -> bool:
    """Whether somebody types in this job: what begins in it is not begun again by SLURM."""
    return os.environ.get("SLURM_JOB_NAME") in _SHELLS


def step_size() -> tuple[int, int] | None:
    """Nodes, and tasks on each, of the job step that this process is of; None outside of one."""
    nodes, tasks = os.environ.get("SLURM_STEP_NUM_NODES"), os.environ.get("SLURM_STEP_NUM_TASKS")
    if nodes is None or tasks is None or "SLURM_STEP_ID" not in os.environ:
        return None
    return int(nodes), int(tasks) // int(nodes)


def require_srun() -> None:
    """Refuse to be one process of a job that has room for several, and would wait for the others for ever.

    Raises
    ------
    InputError
        In a job of several tasks, and not started by `srun`.
    """
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if tasks != "1" and "SLURM_STEP_ID" not in os.environ and not in_a_shell():
        raise InputError(f"SLURM: a job of {tasks} tasks, but not started by srun; put srun before the command")


def may_requeue(stop: BaseException) -> bool:
    """Whether a run that was stopped is to see to it that it goes on.

    Not one of a sweep whose agent does so.
    """
    return launched_by_srun() and os.environ.get(ENV_REQUEUE) != "no" and not ended_early(stop)


def ended_early(stop: BaseException) -> bool:
    """Whether W&B's agent ended a run that is not promising, which it does with SIGTERM."""
    return "WANDB_SWEEP_ID" in os.environ and "SIGTERM" in str(stop)


def requeue(run: Path | None) -> str | None:
    """Have this job run again, in the same run folder.

    By `scontrol requeue`; where that is forbidden or not there (in a container, for one), by a job of the run's own
    script that begins when this one has ended. A job that somebody cancelled stays cancelled.

    Returns
    -------
    str or None
        What was done, or None where nothing could be: then exit code 75 tells the job's script to do it.
    """
    job = job_id()
    if job is None or not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        return None
    if is_cancelled(job):
        print(f"job {job} was cancelled, and is not run again", file=sys.stderr)
        return None
    if run_slurm(["scontrol", "requeue", job]) is not None:
        return f"job {job} is requeued"
    return _go_on_after(job, run) if run is not None else None


def _go_on_after(job: str, run: Path) -> str | None:
    """Submit the script of this job again; what gathers an array waits for its tasks only, and is submitted, too."""
    task, gather = os.environ.get("SLURM_ARRAY_TASK_ID"), run / GATHER
    script = gather if task is None and gather.is_file() else run / SCRIPT
    if not script.is_file():
        return None
    words = ["sbatch", "--parsable", f"--dependency=afterany:{os.environ['SLURM_JOB_ID']}"]
    answer = run_slurm([*words, *([f"--array={task}"] if task is not None else []), str(script)])
    if answer is None:
        return None
    number = job_number(answer)
    if number is None:
        return f"another job goes on when {job} has ended"
    if task is not None and gather.is_file():
        run_slurm(["sbatch", "--parsable", f"--dependency=afterany:{number}", str(gather)])
    return f"job {number} goes on when {job} has ended"


def job_number(answer: str) -> str | None:
    """The job in what `sbatch --parsable` printed, below what a site may print of its own; None where there is none."""
    found = re.fullmatch(r"(\d+)(;.*)?", answer.rstrip().rpartition("\n")[2].strip())
    return found[1] if found is not None else None


def is_cancelled(job: str) -> bool:
    """Return whether a job was cancelled; a job that SLURM does not know was not.

    While its processes end, SLURM calls it COMPLETING. A job that is only asked to stop (USR1, or TERM before a node is
    taken back) is RUNNING.
    """
    answer = run_slurm(["scontrol", "show", "job", job, "--oneliner"]) or ""
    return "JobState=CANCELLED" in answer or "JobState=COMPLETING" in answer


def is_alive(job: str) -> bool:
    """Whether a job is running, or about to end, as far as SLURM says."""
    answer = run_slurm(["squeue", "--noheader", "--jobs", job, "--format=%T"])
    return answer is not None and any(state in answer for state in ("RUNNING", "COMPLETING", "SUSPENDED"))


def still_to_do(jobs: list[str], script: Path | None) -> str | None:
    """The first of some jobs, or of mine with a script, that waits or runs; None where SLURM knows of none.

    One that is only COMPLETING has done its part: a job that waited for it may begin.
    """
    asked = ["squeue", "--noheader", "--array", "--format=%i %T %o"]
    answers = [run_slurm([*asked, "--jobs", ",".join(jobs)])] if jobs else []
    if script is not None:
        mine = (run_slurm([*asked, "--me"]) or "").splitlines()
        answers.append("\n".join(line for line in mine if line.rstrip().endswith(f" {script}")))
    for line in "\n".join(answer or "" for answer in answers).splitlines():
        job, state, *_ = [*line.split(), "", ""]
        if job != job_id() and state in ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED"):
            return job
    return None


def run_slurm(words: list[str]) -> str | None:
    """What one of SLURM's commands prints; None where it fails, or is not there."""
    if shutil.which(words[0]) is None:
        return None
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        reason = " ".join((done.stderr or done.stdout).split())
        print(f"{' '.join(words[:2])}: {reason}", file=sys.stderr)
        return None
    return done.stdout.strip()
