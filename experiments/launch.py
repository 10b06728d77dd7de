"""Turn a command line into a session: config, stages to do, and options that the task supports."""

import os
import sys
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from experiments.compose import compose, named_config
from experiments.config import load_config, resolved
from experiments.preflight import preflight
from experiments.progress import print_notes, silence_lightning
from experiments.resumed import PER_CALL, changed_keys, resumption
from experiments.schema import STAGES, Config
from experiments.session import RunRequest, run_session
from experiments.tasks import TASKS, known_keys, task_of
from experiments.tasks.base import Plans, Task, TrainedTask, Watches
from experiments.unused import unused_notes
from training.rundir import ENV_RUN_DIR, RunFolder, is_first_rank
from training.signals import Preempted, handle_signals
from training.slurm import may_requeue, requeue


def launch(
    config: str,
    overrides: list[str],
    check: bool = False,
    dry_run: bool = False,
    plan_only: bool = False,
    watch: str | None = None,
) -> int:
    """Read the config, create or find the run folder, run the stages and write the report.

    Parameters
    ----------
    config : str
        A file, the name of a shipped config, or `resume=RUN`.
    overrides : list of str
        `key=value` arguments.
    check : bool
        Only audit the data and print what the run would do.
    dry_run : bool
        Do one step of every stage.
    plan_only : bool
        Only measure memory and time of the run.
    watch : str, optional
        Folder whose new files are analysed as they appear.

    Returns
    -------
    int
        Exit code.

    Raises
    ------
    InputError
        Invalid input.
    """
    inherited = os.environ.get(ENV_RUN_DIR)
    try:
        request = read_request(config, overrides, dry_run)
        request.watch = Path(watch) if watch is not None else None
        task = task_of(request.config)
        require_capable(task, {"--plan": plan_only, "--dry-run": dry_run, "--watch": watch is not None})
        if check:
            if isinstance(request.config, Config) and named_config(config, overrides)[0]:
                print_notes(unused_notes(compose(config, overrides, known_keys), request.config))
            task.check(request)
            return 0
        if plan_only:
            if request.folder is not None:
                raise InputError("resume: not with --plan, which measures a run from its start; leave one of them out")
            task.plan(request.config, request.stages, preflight(task, request.config, request.stages, None, dry_run))
            return 0
        return _run(task, request)
    finally:
        # for the ranks of this run only: the next run in the same process has another folder
        if inherited is None:
            os.environ.pop(ENV_RUN_DIR, None)


#: Class of the tasks that support an option.
CAPABLE = {"--plan": Plans, "--dry-run": TrainedTask, "--watch": Watches}


def require_capable(task: Task, asked: dict[str, bool]) -> None:
    """Refuse options that the task does not support.

    Parameters
    ----------
    task : Task
        Task of the run.
    asked : dict of str to bool
        For each option, whether it is given.

    Raises
    ------
    InputError
        Names the option and the tasks that support it.
    """
    for option, given in asked.items():
        if given and not isinstance(task, CAPABLE[option]):
            able = [name for name, other in TASKS.items() if isinstance(other, CAPABLE[option])]
            only = f"task{'s' * (len(able) > 1)} {', '.join(able)}"
            raise InputError(f"{option}: not for task {task.name}, only for {only}; leave it out")


def _run(task: Task, request: RunRequest) -> int:
    """Run the stages; requeue the job of a run that is stopped by a signal."""
    silence_lightning()
    work = None
    with handle_signals() as signals:
        try:
            work = task.begin(request, signals)
            return 0 if work is None else run_session(work)
        except Preempted as stop:
            folder = request.folder if work is None else work.folder
            path = None if folder is None else folder.path
            if is_first_rank() and may_requeue(stop) and (message := requeue(path)) is not None:
                stop.requeued = True
                print(message, file=sys.stderr)
            raise


def read_request(config: str, overrides: list[str], dry_run: bool = False) -> RunRequest:
    """Return the config (of the run folder, for a resumed run) and the stages to do.

    Parameters
    ----------
    config : str
        A file, the name of a shipped config, or `resume=RUN`.
    overrides : list of str
        `key=value` arguments.
    dry_run : bool
        Do one step of every stage.

    Raises
    ------
    InputError
        Invalid input.
    """
    config, overrides = named_config(config, overrides)
    run = resumed_run(overrides)
    if run is None:
        if not config:
            raise InputError(
                "command line: no CONFIG; give a YAML file, the name of a shipped config, or resume=RUN_FOLDER"
            )
        loaded = load_config(config, overrides)
    else:
        loaded = _config_of_run(run, config, overrides)
    resume = getattr(loaded, "resume", None)
    folder = None if resume is None else RunFolder.existing(Path(resume))
    if not isinstance(loaded, Config):
        return RunRequest(loaded, [loaded.task], folder, dry_run)
    if folder is None:
        return RunRequest(loaded, [stage for stage in STAGES if stage in loaded.stages], None, dry_run)
    if dry_run:
        raise InputError("resume: not with --dry-run, which would train over that run's weights; leave one of them out")
    kept = resolved(load_config(folder.path / "config.yaml"))
    # stages that the command line names are repeated
    named = any(word.startswith("stages=") for word in overrides)
    found = resumption(folder, kept, resolved(loaded), named)
    if is_first_rank():
        print_notes(found.notes)
    return RunRequest(loaded, found.stages, folder, dry_run, found.recorded)


def resumed_run(overrides: list[str]) -> str | None:
    """Return the run folder in `resume=RUN`; None without it."""
    named = [word.partition("=")[2] for word in overrides if word.startswith("resume=")]
    return named[-1] if named and named[-1] not in ("", "null") else None


def _config_of_run(run: str, config: str, overrides: list[str]) -> Any:
    """Return the config of a run with the changes of the command line; a config file must agree with it."""
    source = RunFolder.existing(Path(run)).path / "config.yaml"
    if config:
        given, kept = compose(config).values, compose(str(source)).values
        for key in ("name", "task"):
            if given.get(key, kept.get(key)) != kept.get(key):
                raise InputError(f"resume: {run} is a run of {key} {kept.get(key)}, but {config} has {given[key]}")
        asked = load_config(config, overrides)
        if not isinstance(asked, Config):
            return asked
        changed = changed_keys(resolved(load_config(source, overrides)), resolved(asked))
        if differ := [key for key in changed if key.split(".")[0] not in (*PER_CALL, "runs_dir", "predict")]:
            raise InputError(
                f"resume: {config} differs from {run}/config.yaml in {', '.join(differ[:5])}: a resumed run "
                "keeps its own config: leave the file out, and give changes as key=value"
            )
    return load_config(source, overrides)
