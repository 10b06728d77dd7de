"""`--submit`: submit a run as a job that is requeued until it is finished, or a sweep as an array of agents."""

import dataclasses
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.io.deletion import MadeFolder, remove_file
from experiments.compose import Composed, compose
from experiments.config import resolved, typed_config
from experiments.launch import resumed_run
from experiments.preflight import require_room
from experiments.schema import Config, to_yaml
from experiments.submit.config import SlurmConfig, lines_of
from experiments.submit.job import Job, Refused, require_one_line, require_slurm, script_of, submit_array, submit_job
from experiments.submit.site import WITH_SITE, add_site, site_file
from experiments.sweeps.sweep_file import read_sweep
from experiments.tasks import known_keys, task_of
from experiments.tasks.base import Submits
from training.rundir import RunFolder, write_json, write_text
from training.slurm import GATHER, SCRIPT
from training.trainer import batches_per_step

#: File with the requirements that `check_node` checks, in the run folder.
NEEDS = Path("slurm") / "needs.json"
#: File with the inputs of an array, in the run folder.
MANIFEST = Path("slurm") / "manifest.txt"
#: Number of agents if `slurm.array` is null.
AGENTS = 4


def submit(config: str, overrides: list[str], dry_run: bool = False) -> None:
    """Check a config, write its run folder and script, and submit the job.

    Parameters
    ----------
    config : str
        A file, the name of a shipped config, or empty with `resume=RUN`.
    overrides : list of str
        `key=value` arguments.
    dry_run : bool
        Only print the script.

    Raises
    ------
    InputError
        Errors of the config; a `trainer.global_batch` that cannot be divided among the ranks of the job; no SLURM on
        this machine; or SLURM refuses the job.
    """
    resumed = resumed_run(overrides) or ""
    source = config or str(RunFolder.existing(Path(resumed)).path / "config.yaml")
    typed = _typed(compose(source, overrides, known_keys))
    inputs = _inputs(typed)
    if isinstance(typed, Config) and "fit" in typed.stages:  # one rank per task; trainer.devices is ignored
        batches_per_step(typed.trainer, typed.data.batch_size, typed.slurm.nodes * typed.slurm.ranks_per_node)
    if not dry_run:
        require_slurm()
    folder = RunFolder.existing(Path(resumed)) if resumed else _new_folder(typed, dry_run)
    words = [word for word in overrides if resumed and not word.startswith(("resume=", "slurm."))]
    job, gather = _jobs(typed, folder, words, inputs)
    texts = [script_of(one, typed.slurm, Path.cwd(), sys.executable) for one in (job, gather) if one is not None]
    if dry_run:
        print("\n".join(texts), end="")
        return
    if not resumed:
        _record(typed, folder, inputs)
    write_json(folder.path / NEEDS, needs_of(typed, folder))  # also for a run that was not submitted before
    try:
        if gather is None:
            remove_file(folder.path / GATHER, folder.path)  # from an earlier submission as an array
            number = submit_job(job, texts[0])
        else:
            number = submit_array(job, texts[0], gather, typed.slurm)
    except Refused:
        if folder.made is not None:
            folder.made.remove()
        raise
    print(f"job {number}: squeue --job {number}")
    print(f"log: {job.folder}")
    print(f"run: {folder.path}", flush=True)


def _typed(composed: Composed) -> Any:
    """Return the config with the site's defaults; a task without training gets a single process."""
    add_site(composed)
    typed = typed_config(composed)
    if not isinstance(typed, Config):
        gpus = min(1, typed.slurm.gpus_per_node)
        typed.slurm = dataclasses.replace(typed.slurm, nodes=1, tasks_per_node=None, gpus_per_node=gpus)
    return typed


def _jobs(typed: Any, folder: RunFolder, words: list[str], inputs: list[Path]) -> tuple[Job, Job | None]:
    """Return the job of a run and, for an array, the job that gathers its results."""
    slurm: SlurmConfig = typed.slurm
    name, here = typed.name, folder.path / SCRIPT.parent
    run = ["experiments.run", f"resume={folder.path}", *words]
    if isinstance(typed, Config) and not slurm.gpus_per_node:
        run.append("trainer.accelerator=cpu")
    check = shlex.join(["experiments.submit.check_node", str(folder.path / NEEDS)])
    if slurm.array is None:
        return Job(name, here, [check, shlex.join(run)]), None
    count = min(slurm.array, len(inputs))
    key = "predict.shard" if isinstance(typed, Config) else "shard"
    shard = f'{shlex.join(run)} {key}="$SLURM_ARRAY_TASK_ID/{count}"'
    gather = Job(f"{name}-gather", here / "gather", [shlex.join(run)], after="ARRAY")
    return Job(name, here, [check, shard], array=count), gather


def _inputs(typed: Any) -> list[Path]:
    """Return the inputs that the tasks of an array share; empty for a single job.

    Raises
    ------
    InputError
        The run has no inputs that can be shared.
    """
    if typed.slurm.array is None:
        return []
    if isinstance(typed, Config):
        if typed.stages != ["predict"] or not hasattr(typed.predict, "shard"):
            raise InputError(
                "slurm.array: shares the inputs of a prediction; expected stages=[predict] of task organelle, or task "
                "analyze (a sweep's array: python -m experiments.sweep)"
            )
    elif not isinstance(task_of(typed), Submits):
        raise InputError("slurm.array: shares the inputs of a prediction or an analysis; leave it out")
    return task_of(typed).list_inputs(typed)


def _new_folder(typed: Any, dry_run: bool) -> RunFolder:
    """Return the folder of a new run; it is not created in a dry run."""
    task = task_of(typed)
    if isinstance(task, Submits):
        folder = RunFolder(task.run_path(typed).absolute())
        if not dry_run:  # None for an existing folder: an analysis resumes in it
            folder.made = MadeFolder.make(folder.path)
        return folder
    require_room(Path(typed.runs_dir) / typed.name, "runs_dir")
    require_one_line(Path(typed.runs_dir).absolute())
    if dry_run:
        return RunFolder((Path(typed.runs_dir) / typed.name / "ID").absolute())
    return RunFolder.create(Path(typed.runs_dir), typed.name, fresh=True)


def _record(typed: Any, folder: RunFolder, inputs: list[Path]) -> None:
    """Write the config and the status that the job resumes from."""
    folder.require_writable()
    (folder.path / SCRIPT.parent).mkdir(exist_ok=True)
    tree = {**resolved(typed), "resume": None}
    if isinstance(task_of(typed), Submits):
        tree["out"] = str(folder.path)
    group = tree["predict"] if isinstance(typed, Config) else tree
    if inputs:  # the list is fixed now: a file that is added later would change the share of every task
        write_text(folder.path / MANIFEST, "".join(f"{path.absolute()}\n" for path in inputs))
        group["inputs"] = [str(folder.path / MANIFEST)]
    write_text(folder.path / "config.yaml", to_yaml(tree))
    folder.update_status(status="submitted", **{WITH_SITE: site_file() is not None})


def needs_of(typed: Any, folder: RunFolder) -> dict[str, Any]:
    """Return what `check_node` requires on a node: paths, GPUs and free disk space."""
    paths = [
        getattr(getattr(typed, "data", None), "root", None),
        *lines_of(getattr(getattr(typed, "predict", None), "inputs", None)),
        *lines_of(getattr(typed, "inputs", None)),
    ]
    seen = [str(Path(path).absolute()) for path in paths if path and not any(c in str(path) for c in "*?[")]
    return {"run": str(folder.path), "paths": seen, "gpus": typed.slurm.gpus_per_node, "free_gb": 1.0}


def submit_sweep(sweep: Path | str, words: list[str], count: int | None, dry_run: bool) -> None:
    """Submit the agents.

    Parameters
    ----------
    sweep : Path or str
        A sweep file, for the local engine, or ENTITY/PROJECT/ID of a W&B server.
    words : list of str
        `slurm.key=value` arguments.
    count : int or None
        Number of runs of the sweep; for a sweep of a server, of each agent.
    dry_run : bool
        Only print the script.

    Raises
    ------
    InputError
        Errors of the sweep or the arguments; no SLURM on this machine; or SLURM refuses the job.
    """
    if other := [word for word in words if not word.startswith("slurm.")]:
        raise InputError(f"{other[0]}: only slurm.key=value with --submit; the sweep itself defines what is varied")
    limit = [] if count is None else ["--count", str(count)]
    if isinstance(sweep, Path):
        read = read_sweep(sweep)
        slurm = _typed(compose(read.config, [*read.fixed, *words], known_keys)).slurm
        _require_wrap(slurm, "srun" in read.values["command"])
        require_room(read.folder, "runs_dir")
        folder, name = read.folder / "slurm", read.id
        command = shlex.join(["experiments.sweep", str(sweep.absolute()), *limit])
    else:
        slurm = _typed(compose("organelle_demo", words, known_keys)).slurm
        _require_wrap(slurm, True)
        name = sweep.rpartition("/")[2]
        folder = Path("runs").absolute() / "sweeps" / name / f"slurm-{time.strftime('%Y%m%d-%H%M%S')}"
        _require_here(folder)
        command = shlex.join(["wandb", "agent", *limit, sweep])
    job = Job(name, folder, [command], steps=False, array=slurm.array or min(AGENTS, count or AGENTS))
    text = script_of(job, slurm, Path.cwd(), sys.executable)
    if dry_run:
        print(text, end="")
        return
    require_slurm()
    number = submit_job(job, text)
    print(f"job {number}: squeue --job {number}\nlog: {folder}\nsweep: {folder.parent}", flush=True)


def _require_wrap(slurm: SlurmConfig, srun: bool) -> None:
    """Refuse a container around runs that the sweep's own command starts."""
    if slurm.wrap and srun:
        raise InputError(
            "slurm.wrap: the sweep's own command starts its runs with srun; put the container into it, after srun, and "
            "add slurm.wrap=null"
        )


def _require_here(folder: Path) -> None:
    """Refuse to submit a server's sweep from a folder in which scripts and logs cannot be written."""
    try:
        require_room(folder, "runs_dir")
    except InputError:
        raise InputError(
            f"--submit: {folder}: cannot be written, for the script and logs of a server's sweep lie in runs/ of the "
            "current folder; submit from another"
        ) from None
