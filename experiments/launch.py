"""One run from its command line to its last printed line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytorch_lightning as pl

from cytovox.errors import InputError
from experiments.build import build_data
from experiments.check import check_run
from experiments.compose import compose
from experiments.config import load_config, resolved
from experiments.preflight import preflight
from experiments.progress import Bars, silence_lightning
from experiments.resumed import PER_CALL, changed_keys, resumption
from experiments.run_stages import RunRequest, run_stages
from experiments.schema import STAGES, Config
from experiments.summary import print_summary
from experiments.tasks import known_keys, task_of
from experiments.unused import unused_notes
from training.ready import tell_ready, wait_until_ready
from training.rundir import ENV_RUN_DIR, RunFolder, is_first_rank
from training.signals import Preempted, StopSignals, handle_signals
from training.slurm import launched_by_srun, may_requeue, requeue


def launch(
    config: str, overrides: list[str], check: bool = False, dry_run: bool = False, plan_only: bool = False
) -> None:
    """Read the config, make or find the run folder, run the stages, write the report.

    Parameters
    ----------
    config : str
        A file, the name of a shipped config, or `resume=RUN`.
    overrides : list of str
        `key=value` words.
    check : bool
        Audit the data and say what the run would do.
    dry_run : bool
        One step of every stage.
    plan_only : bool
        Only measure what the run would take.

    Raises
    ------
    InputError
        Anything the user can mend.
    """
    inherited = os.environ.get(ENV_RUN_DIR)
    try:
        request = read_request(config, overrides, dry_run)
        if check:
            if config and ("=" not in config or Path(config).is_file()):
                for line in unused_notes(compose(config, overrides, known_keys), request.config):
                    print(f"note: {line}", file=sys.stderr)
            check_run(request.config, request.stages, request.folder, dry_run)
            return
        inputs = preflight(request.config, request.stages, request.folder, dry_run)
        if plan_only:
            if request.folder is not None:
                raise InputError("resume: not with --plan, which measures a run from its start; leave one of them out")
            task_of(request.config).plan(request.config, request.stages, inputs)
        else:
            _launch(request, inputs)
    finally:
        # ranks inherit the folder; the next run of a notebook must not
        if inherited is None:
            os.environ.pop(ENV_RUN_DIR, None)


def read_request(config: str, overrides: list[str], dry_run: bool = False) -> RunRequest:
    """The config, from the run folder for a resumed run, and the stages that are left to do."""
    if "=" in config and not Path(config).is_file():
        config, overrides = "", [config, *overrides]
    resumed = [word.partition("=")[2] for word in overrides if word.startswith("resume=")]
    if not resumed or resumed[-1] in ("", "null"):
        if not config:
            raise InputError(
                "command line: no CONFIG; give a YAML file, the name of a shipped config, or resume=RUN_FOLDER"
            )
        loaded = load_config(config, overrides)
    else:
        loaded = _config_of_run(resumed[-1], config, overrides)
    stages = [stage for stage in STAGES if stage in loaded.stages]  # in the one order that makes sense
    if loaded.resume is None:
        return RunRequest(loaded, stages, None, dry_run)
    if dry_run:
        raise InputError("resume: not with --dry-run, which would train over that run's weights; leave one of them out")
    folder = RunFolder.existing(Path(loaded.resume))
    kept = resolved(load_config(folder.path / "config.yaml"))
    # stages named on the command line are done again
    named = any(word.startswith("stages=") for word in overrides)
    found = resumption(folder, kept, resolved(loaded), named)
    if is_first_rank():
        for note in found.notes:
            print(f"note: {note}", file=sys.stderr)
    return RunRequest(loaded, found.stages, folder, dry_run, found.recorded)


def _config_of_run(run: str, config: str, overrides: list[str]) -> Config:
    """The run's config with what the command line changes; a file that is named beside it must say the same."""
    folder = RunFolder.existing(Path(run))
    source = folder.path / "config.yaml"
    if config:
        given, kept = compose(config).values, compose(str(source)).values
        for key in ("name", "task"):
            if given.get(key, kept.get(key)) != kept.get(key):
                raise InputError(f"resume: {run} is a run of {key} {kept.get(key)}, but {config} says {given[key]}")
        own, asked = resolved(load_config(source, overrides)), resolved(load_config(config, overrides))
        differ = [
            key for key in changed_keys(own, asked) if key.split(".")[0] not in (*PER_CALL, "runs_dir", "predict")
        ]
        if differ:
            raise InputError(
                f"resume: {config} differs from {run}/config.yaml in {', '.join(differ[:5])}: a run goes on with its "
                "own config: leave the file out, and give what shall change as key=value"
            )
    return load_config(source, overrides)


def _launch(request: RunRequest, inputs: list[Path]) -> None:
    config = request.config
    if request.folder is not None and not request.stages:
        print("nothing is left to do; stages=[...] does a stage again")
        print_summary(request.folder, config)
        return
    silence_lightning()
    with handle_signals() as signals:
        try:
            _prepare_and_run(request, inputs, signals)
        except Preempted as stop:
            if is_first_rank() and may_requeue(stop) and (told := requeue(request.folder)) is not None:
                stop.arranged = True
                print(told, file=sys.stderr)
            raise


def _prepare_and_run(request: RunRequest, inputs: list[Path], signals: StopSignals) -> None:
    config = request.config
    pl.seed_everything(config.seed, workers=True, verbose=False)
    with Bars() as bars:
        data = build_data(config, bars, request.dry_run, request.stages)
        if is_first_rank() and {"fit", "test"} & set(request.stages):
            task_of(config).prepare(data, request.stages, bars)
    for note in data.notes():
        print(f"note: {note}", file=sys.stderr)
    folder = request.folder or RunFolder.create(Path(config.runs_dir), config.name, request.dry_run)
    if launched_by_srun():
        (tell_ready if is_first_rank() else wait_until_ready)(folder)
    run_stages(request, folder, data, inputs, signals)
