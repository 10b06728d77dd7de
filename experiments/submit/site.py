"""Defaults of a site for the group `slurm:` of a config."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import platformdirs

from cytovox.errors import InputError
from experiments.compose import COMMAND_LINE, Composed, read_yaml
from experiments.schema import Config
from experiments.tasks import TASKS
from training.rundir import RunFolder

#: Environment variable with the file of the site's defaults.
ENV_SITE = "CYTOVOX_SITE"
#: Key in the status of a submitted run: whether its config contains the site's defaults.
WITH_SITE = "with_site"


def site_file() -> Path | None:
    """Return the file of the site's defaults: CYTOVOX_SITE, else `site.yaml` in the user's configuration folder.

    Raises
    ------
    InputError
        The variable names no file.
    """
    named = os.environ.get(ENV_SITE)
    path = Path(named or Path(platformdirs.user_config_dir("cytovox"), "site.yaml"))
    if named and not path.is_file():
        raise InputError(f"{ENV_SITE}: {named}: no such file; expected a YAML file with a group `slurm:`")
    return path if path.is_file() else None


def add_site(composed: Composed) -> None:
    """Add the site's defaults for keys of `slurm` that the config does not set.

    The config of a resumed run contains all keys. Those that have Cytovox's default and are not given on the command
    line count as not set.

    Raises
    ------
    InputError
        The file has other content than a group `slurm:`.
    """
    if (path := site_file()) is None:
        return
    tree = read_yaml(path)
    if set(tree) - {"slurm"} or not isinstance(tree.get("slurm"), dict):
        raise InputError(f"{path}: expected one group, slurm:, with the site's defaults")
    given = composed.values.setdefault("slurm", {})
    if not isinstance(given, dict):
        return
    defaults = _default_keys(composed, given)
    for key, value in tree["slurm"].items():
        if key not in given or key in defaults:
            given[key] = value
            composed.origin["slurm", str(key)] = path.name


def _default_keys(composed: Composed, given: dict[str, Any]) -> set[str]:
    """Return the keys that a complete config sets to their default."""
    task = composed.values.get("task")
    kind = TASKS[task].config if isinstance(task, str) and task in TASKS else Config
    ours = dataclasses.asdict(kind().slurm)
    if set(ours) - set(given) or RunFolder(composed.folder).status().get(WITH_SITE):
        return set()
    return {key for key in ours if given[key] == ours[key] and composed.where(("slurm", key)) != COMMAND_LINE}
