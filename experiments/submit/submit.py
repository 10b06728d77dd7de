"""`--submit`: a run folder, a script in it, and a job that goes on in it until the run is finished."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.io.deletion import MadeFolder, remove_file
from experiments.compose import Composed, compose
from experiments.config import resolved, typed_config
from experiments.launch import resumed_run
from experiments.preflight import require_room
from experiments.schema import Config, to_yaml
from experiments.submit.config import SlurmConfig, site_file
from experiments.submit.script import Job, require_one_line, script_of
from experiments.submit.site import WITH_SITE, add_site
from experiments.submit.submit_job import Refused, hand_in_both, require_slurm, submit_job
from experiments.tasks import known_keys, task_of
from experiments.tasks.base import Submits
from training.rundir import RunFolder, write_json, write_text
from training.slurm import GATHER, SCRIPT
from training.trainer import batches_a_step

#: What the checks inside the job look for.
NEEDS = Path("slurm") / "needs.json"
#: The inputs of an array, in the order in which its tasks share them.
MANIFEST = Path("slurm") / "manifest.txt"


def submit(config: str, overrides: list[str], dry_run: bool = False) -> None:
    """Check a config, write its run folder and script, and give it to SLURM.

    Parameters
    ----------
    config : str
        A file, the name of a shipped config, or empty with `resume=RUN`.
    overrides : list of str
        `key=value` words.
    dry_run : bool
        Print the script, and leave everything as it is.

    Raises
    ------
    InputError
        Errors of the config, a `trainer.global_batch` that the job's ranks cannot share, no SLURM on this machine, or
        SLURM's own refusal.
    """
    resumed = resumed_run(overrides) or ""
    source = config or str(RunFolder.existing(Path(resumed)).path / "config.yaml")
    typed = _typed(compose(source, overrides, known_keys))
    inputs = _inputs(typed)
    if isinstance(typed, Config) and "fit" in typed.stages:  # the job has one rank a task, whatever trainer.devices is
        batches_a_step(typed.trainer, typed.data.batch_size, typed.slurm.nodes * typed.slurm.ranks_per_node)
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
    write_json(folder.path / NEEDS, needs_of(typed, folder))  # of a run that began elsewhere, too
    try:
        if gather is None:
            remove_file(folder.path / GATHER, folder.path)  # of an array that was submitted before
            number = submit_job(job, texts[0])
        else:
            number = hand_in_both(job, texts[0], gather, typed.slurm)
    except Refused:
        if folder.made is not None:
            folder.made.remove()
        raise
    print(f"job {number}: squeue --job {number}")
    print(f"log: {job.folder}")
    print(f"run: {folder.path}", flush=True)


def _typed(composed: Composed) -> Any:
    """Return the config with the site's defaults; a task without training gets one process."""
    add_site(composed)
    typed = typed_config(composed)
    if not isinstance(typed, Config):
        one = {"nodes": 1, "tasks_per_node": None, "gpus_per_node": min(1, typed.slurm.gpus_per_node)}
        typed.slurm = dataclasses.replace(typed.slurm, **one)
    return typed


def _jobs(typed: Any, folder: RunFolder, words: list[str], inputs: list[Path]) -> tuple[Job, Job | None]:
    """The job of a run, and for an array the one that gathers what its tasks have done."""
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
    """What an array shares.

    Raises
    ------
    InputError
        There is nothing to share.
    """
    if typed.slurm.array is None:
        return []
    if isinstance(typed, Config):
        if typed.stages != ["predict"] or not hasattr(typed.predict, "shard"):
            raise InputError(
                "slurm.array: shares the inputs of a prediction; expected stages=[predict] of task organelle, or task "
                "analyze (a sweep's array: python -m experiments.sweep)"
            )
        found: list[Path] = task_of(typed).list_inputs(typed)
        return found
    task = task_of(typed)
    if not isinstance(task, Submits):
        raise InputError("slurm.array: shares the inputs of a prediction or an analysis; leave it out")
    return task.list_inputs(typed)


def _new_folder(typed: Any, dry_run: bool) -> RunFolder:
    task = task_of(typed)
    if isinstance(task, Submits):
        folder = RunFolder(task.run_path(typed).absolute())
        if not dry_run:  # None where it is there already: an analysis goes on in the folder of its question
            folder.made = MadeFolder.make(folder.path)
        return folder
    require_room(Path(typed.runs_dir) / typed.name, "runs_dir")
    require_one_line(Path(typed.runs_dir).absolute())
    if dry_run:
        return RunFolder((Path(typed.runs_dir) / typed.name / "ID").absolute())
    return RunFolder.create(Path(typed.runs_dir), typed.name, fresh=True)


def _record(typed: Any, folder: RunFolder, inputs: list[Path]) -> None:
    """The config that the job goes on with."""
    folder.require_writable()
    (folder.path / SCRIPT.parent).mkdir(exist_ok=True)
    tree = {**resolved(typed), "resume": None}
    if isinstance(task_of(typed), Submits):
        tree["out"] = str(folder.path)
    group = tree["predict"] if isinstance(typed, Config) else tree
    if inputs:  # as they are now: a file that lands later would move every other to another task
        write_text(folder.path / MANIFEST, "".join(f"{path.absolute()}\n" for path in inputs))
        group["inputs"] = [str(folder.path / MANIFEST)]
    write_text(folder.path / "config.yaml", to_yaml(tree))
    folder.update_status(status="submitted", **{WITH_SITE: site_file() is not None})


def needs_of(typed: Any, folder: RunFolder) -> dict[str, Any]:
    """What a node must have before the run begins."""
    slurm: SlurmConfig = typed.slurm
    data = getattr(typed, "data", None)
    paths = [getattr(data, "root", None), *_listed(getattr(getattr(typed, "predict", None), "inputs", None))]
    paths += _listed(getattr(typed, "inputs", None))
    seen = [str(Path(path).absolute()) for path in paths if path and not any(c in str(path) for c in "*?[")]
    return {"run": str(folder.path), "paths": seen, "gpus": slurm.gpus_per_node, "free_gb": 1.0}


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
