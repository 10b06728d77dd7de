"""The text of a job: what `sbatch` reads, and what the shell does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cytovox.errors import InputError
from experiments.program import ENV_REFUSED
from experiments.submit.config import SlurmConfig
from training.signals import PREEMPTED
from training.slurm import ENV_WRAP


@dataclass
class Job:
    """What a job runs."""

    name: str
    """As `squeue` shows it."""
    folder: Path
    """Where its script, log and notes lie."""
    commands: Sequence[str]
    """Lines of shell in turn, each a module of Python and its words: the first that fails ends the job."""
    steps: bool = True
    """Whether `srun` starts each of them on every rank; else they do so themselves, as the runs of an agent."""
    array: int | None = None
    """Tasks of an array."""
    after: str | None = None
    """Begins when another job has ended, however it ended."""


def script_of(job: Job, config: SlurmConfig, cwd: Path, python: str) -> str:
    """A batch script.

    Parameters
    ----------
    job : Job
        What it runs.
    config : SlurmConfig
        What it asks for.
    cwd : Path
        Where it runs.
    python : str
        Interpreter, unless the config names one.

    Raises
    ------
    InputError
        A name or a folder of several lines, each of which the shell would run.
    """
    require_one_line(job.name, job.folder, cwd)
    inner = " ".join([*([config.wrap] if config.wrap else []), shlex.quote(config.python or python)])
    runner, wrapped = f"{inner} -m", list[str]()
    if job.steps:
        runner = f'srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" {runner}'
    elif config.wrap:  # a container has no srun: the agent stays outside, and starts its runs with this
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
        *_lines(config.setup),
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
    """Refuse names and folders that would end a line of the script: the shell would run what comes after."""
    for text in map(str, texts):
        if "\n" in text:
            raise InputError(f"--submit: {text!r}: expected a name or folder of one line; rename it, or choose another")


def options_of(job: Job, config: SlurmConfig) -> list[str]:
    """Options of `sbatch`."""
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
    options = [f"--{key}={_word(str(value))}" for key, value in asked.items() if value is not None]
    return [*options, "--requeue", *_lines(config.options)]


def _word(value: str) -> str:
    """`sbatch` reads the values of its options as a shell would."""
    return shlex.quote(value) if any(c in value for c in " '\"\\$`#;&|") else value


def _lines(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


#: Cores of each rank, which since SLURM 22.05 an agent's `srun` does not take from the job; one address that every
#: node can resolve, and a port of this job's own.
_ENVIRONMENT = """\
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}" SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
getent hosts "$MASTER_ADDR" >/dev/null ||
    MASTER_ADDR="$(scontrol show node "$MASTER_ADDR" --oneliner | grep -o 'NodeAddr=[^ ]*' | cut -d = -f 2)"
export MASTER_ADDR MASTER_PORT="$((20000 + SLURM_JOB_ID % 20000))"
"""


def _again(retries: int) -> list[str]:
    """The job runs again where its run could not see to that by itself, or where one of its ranks was killed."""
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
        '        echo "job $next goes on when $job has ended"',
        # the job that gathers waits for the first array only
        '        [ -z "$task" ] || [ ! -e "$here/gather/job.sh" ] ||',
        '            sbatch --dependency="afterany:$next" "$here/gather/job.sh"',
        "    fi",
        "fi",
    ]
