"""Jobs of SLURM: their batch scripts and their submission."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.deletion import remove_file
from experiments.program import ENV_REFUSED
from experiments.submit.config import SlurmConfig, lines_of
from training.rundir import write_text
from training.signals import PREEMPTED
from training.slurm import ENV_WRAP, SCRIPT, job_number, run_slurm


@dataclass
class Job:
    """Content of a job."""

    name: str
    """Name in `squeue`."""
    folder: Path
    """Folder of its script, logs and marks."""
    commands: Sequence[str]
    """Shell commands, each a Python module and its arguments; the first that fails ends the job."""
    steps: bool = True
    """Whether `srun` starts each command on every rank; False for an agent, which starts its runs with `srun`."""
    array: int | None = None
    """Number of tasks of an array; None for a single job."""
    after: str | None = None
    """Job after whose end this one starts, whether or not it failed."""


def script_of(job: Job, config: SlurmConfig, cwd: Path, python: str) -> str:
    """Return the batch script of a job.

    Parameters
    ----------
    job : Job
        The job.
    config : SlurmConfig
        Its resources.
    cwd : Path
        Its working directory.
    python : str
        Interpreter, unless the config names one.

    Raises
    ------
    InputError
        The name or a folder has several lines, each of which the shell would run.
    """
    require_one_line(job.name, job.folder, cwd)
    inner = " ".join([*([config.wrap] if config.wrap else []), shlex.quote(config.python or python)])
    runner, wrapped = f"{inner} -m", list[str]()
    if job.steps:
        runner = f'srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" {runner}'
    elif config.wrap:  # a container has no srun: the agent runs outside of it, its runs inside
        runner, wrapped = f"{shlex.quote(python)} -m", [f"export {ENV_WRAP}=\"$(printf '%s\\n' {inner})\""]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in options_of(job, config)),
        "",
        f"here={shlex.quote(str(job.folder))}",
        'task="${SLURM_ARRAY_TASK_ID:-}"',
        f'export {ENV_REFUSED}="$here/refused-$SLURM_JOB_ID"',
        f'rm -f "${ENV_REFUSED}"',
        f"cd {shlex.quote(str(cwd))} || exit 2",
        *lines_of(config.setup),
        *_ENVIRONMENT.splitlines(),
        *wrapped,
        "",
        "code=0",
        *(f"[ $code != 0 ] || {runner} {command} || code=$?" for command in job.commands),
        "",
        *_again(config.retries),
        "exit $code",
    ]
    return "\n".join(lines) + "\n"


def require_one_line(*texts: str | Path) -> None:
    """Refuse names and folders with line breaks: the shell would run what follows."""
    for text in map(str, texts):
        if "\n" in text:
            raise InputError(f"--submit: {text!r}: expected a name or folder of one line; rename it, or choose another")


def options_of(job: Job, config: SlurmConfig) -> list[str]:
    """Return the options of `sbatch` for a job."""
    gpus, array = None, None
    if config.gpus_per_node:
        gpus = ":".join(["gpu", *([config.gpu_type] if config.gpu_type else []), str(config.gpus_per_node)])
    if job.array is not None:
        array = f"0-{job.array - 1}" + (f"%{config.at_once}" if config.at_once else "")
    asked = {
        "job-name": job.name,
        "nodes": config.nodes,
        "ntasks-per-node": config.ranks_per_node,
        "cpus-per-task": config.cpus_per_task,
        "gres": gpus,
        "mem": config.mem,
        "time": config.time,
        "account": config.account,
        "partition": config.partition,
        "qos": config.qos,
        "constraint": config.constraint,
        "array": array,
        "dependency": None if job.after is None else f"afterany:{job.after}",
        "signal": f"USR1@{config.signal_s}",
        "output": job.folder / ("%A_%a.log" if array else "%j.log"),
        "open-mode": "append",
    }
    return [
        *(f"--{key}={_word(str(value))}" for key, value in asked.items() if value is not None),
        "--requeue",
        *lines_of(config.options),
    ]


def _word(value: str) -> str:
    """Quote the value of an option, which `sbatch` parses like a shell."""
    return shlex.quote(value) if any(c in value for c in " '\"\\$`#;&|") else value


#: Cores of each rank, since from SLURM 22.05 on `srun` does not inherit them from the job; an address of the first node
#: that every node can resolve; and a port that differs between jobs.
_ENVIRONMENT = """\
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}" SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
getent hosts "$MASTER_ADDR" >/dev/null ||
    MASTER_ADDR="$(scontrol show node "$MASTER_ADDR" --oneliner | grep -o 'NodeAddr=[^ ]*' | cut -d = -f 2)"
export MASTER_ADDR MASTER_PORT="$((20000 + SLURM_JOB_ID % 20000))"
"""


def _again(retries: int) -> list[str]:
    """Return the lines that run a job again whose run could not requeue it, or of which a rank was killed."""
    return [
        'job="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${task:+_$task}"',
        'killed="$(cat "$here/killed$task" 2>/dev/null | wc -l)"',
        f'[ -e "${ENV_REFUSED}" ] || [ $code -le 128 ] || [ "$killed" -ge {retries} ] || lost=yes',
        f'if [ $code = {PREEMPTED} ] || [ -n "${{lost:-}}" ]; then',
        f'    [ $code = {PREEMPTED} ] || echo "$job ended with $code" >> "$here/killed$task"',
        '    if ! scontrol requeue "$job"; then',
        '        next="$(sbatch --parsable --dependency="afterany:$SLURM_JOB_ID" \\',
        '            ${task:+--array="$task"} "$here/job.sh")" || exit $code',
        "        next=\"${next##*$'\\n'}\"",
        '        next="${next%%;*}"',
        '        echo "job $next continues when $job has ended"',
        # the gathering job waited for the first array only
        '        [ -z "$task" ] || [ ! -e "$here/gather/job.sh" ] ||',
        '            sbatch --dependency="afterany:$next" "$here/gather/job.sh"',
        "    fi",
        "fi",
    ]


class Refused(InputError):
    """SLURM accepted no job: its folder may be removed."""


def require_slurm() -> None:
    """Raise `InputError` if `sbatch` is not installed."""
    if shutil.which("sbatch") is None:
        raise InputError(
            "--submit: no SLURM on this machine (sbatch is not found); run it on a login node of the cluster, or see "
            "the script with --submit --dry-run"
        )


def submit_job(job: Job, text: str) -> str:
    """Write the script of a job, submit it, and return its id.

    Raises
    ------
    Refused
        SLURM refuses the job; the message is SLURM's.
    InputError
        SLURM accepted the job but returned no job id.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    script = job.folder / SCRIPT.name
    write_text(script, text)
    for old in job.folder.glob("killed*"):  # `retries` count from the submission
        if re.fullmatch(r"killed(_?\d+)?", old.name):
            remove_file(old, job.folder)
    try:
        done = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except OSError as error:
        raise Refused(f"--submit: sbatch cannot be run: {error}") from None
    if done.returncode != 0:
        raise Refused(f"--submit: SLURM refuses: {' '.join((done.stderr or done.stdout).split())}")
    if (number := job_number(done.stdout)) is None:
        raise InputError(
            f"--submit: sbatch printed {' '.join(done.stdout.split())!r}, expected a job's number in the last line; "
            f"see squeue --me for the job with the script {script}"
        )
    return number


def submit_array(array: Job, text: str, gather: Job, config: SlurmConfig) -> str:
    """Submit an array and the job that gathers its results; return the id of the array.

    Raises
    ------
    InputError
        See `submit_job`. If the second job is refused, the array is cancelled.
    """
    gather.after = number = submit_job(array, text)
    try:
        submit_job(gather, script_of(gather, config, Path.cwd(), sys.executable))
    except Refused as error:
        if run_slurm(["scancel", number]) is None:
            raise InputError(f"{error}; job {number}, which it would gather, could not be cancelled: do that") from None
        raise
    return number
