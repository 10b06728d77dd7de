"""The site's defaults below what a config says of `slurm`."""

from __future__ import annotations

import dataclasses
from typing import Any

from cytovox.errors import InputError
from experiments.compose import COMMAND_LINE, Composed, read_yaml
from experiments.schema import Config
from experiments.submit.config import site_file
from experiments.tasks import TASKS
from training.rundir import RunFolder

#: In the status of a run that was submitted: its config has the site's defaults, as they were then.
WITH_SITE = "with_site"


def add_site(composed: Composed) -> None:
    """Lay the site's defaults below what the config says of `slurm`.

    The config of a run that began elsewhere says every key, chosen or not: what is no other than our own default, and
    is not of the command line, says nothing there.

    Raises
    ------
    InputError
        The site's file is not one.
    """
    path = site_file()
    if path is None:
        return
    tree = read_yaml(path)
    if set(tree) - {"slurm"} or not isinstance(tree.get("slurm"), dict):
        raise InputError(f"{path}: expected one group, slurm:, with the site's defaults")
    said = composed.values.setdefault("slurm", {})
    if not isinstance(said, dict):
        return
    unsaid = _unsaid(composed, said)
    for key, value in tree["slurm"].items():
        if key not in said or key in unsaid:
            said[key] = value
            composed.origin["slurm", str(key)] = path.name


def _unsaid(composed: Composed, said: dict[str, Any]) -> set[str]:
    """Keys that a resolved config only repeats."""
    task = composed.values.get("task")
    kind = TASKS[task].config if isinstance(task, str) and task in TASKS else Config
    ours = dataclasses.asdict(kind().slurm)
    if set(ours) - set(said) or RunFolder(composed.folder).status().get(WITH_SITE):
        return set()
    return {key for key in ours if said[key] == ours[key] and composed.where(("slurm", key)) != COMMAND_LINE}
