"""The text of a job: what `sbatch` reads, and what the shell does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.submit.config import SlurmConfig
from training.signals import PREEMPTED


@dataclass
class Job:
    """What a job runs."""

    name: str
    """As `squeue` shows it."""
    folder: Path
    """Where its log and its notes lie: `slurm/` of a run."""
    commands: Sequence[Sequence[str]]
    """Words after `python`, in turn: the first that fails ends the job."""
    steps: bool = True
    """Whether `srun` starts each of them on every rank; else the commands do so themselves, as an agent's runs do."""
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
    """
    head = [f"#SBATCH {option}" for option in options_of(job, config)]
    runner = " ".join([*([config.wrap] if config.wrap else []), shlex.quote(config.python or python)])
    start = 'srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" ' if job.steps else ""
    commands = [f"{start}{runner} {shlex.join(words)}" for words in job.commands]
    return "\n".join(
        [
            "#!/bin/bash",
            *head,
            "",
            f"cd {shlex.quote(str(cwd))} || exit 2",
            *_lines(config.setup),
            *_ENVIRONMENT.splitlines(),
            "",
            "code=0",
            *(f"[ $code != 0 ] || {command} || code=$?" for command in commands),
            *_again(job, config.retries),
            "exit $code",
            "",
        ]
    )


def options_of(job: Job, config: SlurmConfig) -> list[str]:
    """Options of `sbatch`."""
    log = "%A_%a.log" if job.array else "%j.log"
    ranks = config.ranks_per_node if job.steps or config.nodes > 1 or config.gpus_per_node else 1
    asked = {
        "job-name": job.name,
        "nodes": config.nodes,
        "ntasks-per-node": ranks,
        "cpus-per-task": config.cpus_per_task,
        "gres": ":".join(["gpu", *([config.gpu_type] if config.gpu_type else []), str(config.gpus_per_node)])
        if config.gpus_per_node
        else None,
        "mem": config.mem,
        "time": config.time,
        "account": config.account,
        "partition": config.partition,
        "qos": config.qos,
        "constraint": config.constraint,
        "array": None
        if job.array is None
        else f"0-{job.array - 1}" + (f"%{config.at_once}" if config.at_once else ""),
        "dependency": None if job.after is None else f"afterany:{job.after}",
        "signal": f"USR1@{config.signal_s}",
        "output": str(job.folder / log),
        "open-mode": "append",
    }
    told = [f"--{key}={_word(str(value))}" for key, value in asked.items() if value is not None]
    return [*told, "--requeue", *map(str, _lines(config.options))]


def _word(value: str) -> str:
    """`sbatch` reads its lines as a shell would."""
    return shlex.quote(value) if any(c in value for c in " '\"\\$`#;&|") else value


def _lines(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


#: One address that every node can resolve, and ports of this job's own.
_ENVIRONMENT = """\
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}"
export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
getent hosts "$MASTER_ADDR" >/dev/null || MASTER_ADDR="$(
    scontrol show node "$MASTER_ADDR" --oneliner | grep -o 'NodeAddr=[^ ]*' | cut -d = -f 2)"
export MASTER_PORT="$((20000 + SLURM_JOB_ID % 20000))"
"""


def _again(job: Job, retries: int) -> list[str]:
    """The job runs again where its run asks for it and could not see to it, or where a rank was killed."""
    killed = shlex.quote(str(job.folder / ("killed_$task" if job.array else "killed")))
    lines = [
        "",
        'task="${SLURM_ARRAY_TASK_ID:-}"',
        'job="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${task:+_$task}"',
        "again() {",
        '    scontrol requeue "$job" ||',
        '        sbatch --dependency="afterany:$SLURM_JOB_ID" ${task:+--array="$task"} ' + _self(job),
        "}",
        f"if [ $code = {PREEMPTED} ]; then",
        "    again",
    ]
    if retries:
        killed = killed.replace("'", '"') if "'" in killed else f'"{killed}"'
        lines += [
            f"elif [ $code -gt 128 ] && [ \"$(wc -l < {killed} 2>/dev/null || echo 0)\" -lt {retries} ]; then",
            f'    echo "$job ended with $code" >> {killed}',
            "    again",
        ]
    return [*lines, "fi"]


def _self(job: Job) -> str:
    return shlex.quote(str(job.folder / "job.sh"))
