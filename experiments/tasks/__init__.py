"""The tasks, by name. One more is one more entry here, and its own files beside this one."""

from __future__ import annotations

import dataclasses

from cytovox.errors import InputError
from experiments.schema import Config, branch
from experiments.tasks.base import Task
from experiments.tasks.cells.task import CellsTask
from experiments.tasks.organelle.task import OrganelleTask
from experiments.tasks.search.task import SearchTask
from experiments.tasks.shape.task import ShapeTask, SHAPRTask

#: As `task:` names them.
TASKS: dict[str, Task] = {
    task.name: task for task in (OrganelleTask(), CellsTask(), ShapeTask(), SHAPRTask(), SearchTask())
}


def task_of(config: Config) -> Task:
    """The task of a config that was read."""
    return TASKS[config.task]


def known_keys(task: str, group: str, choice: str) -> set[str] | None:
    """Keys of a branch, or None where there is no such branch."""
    chosen = TASKS[task].choices.get(group) if task in TASKS else None
    if chosen is None:
        return None
    try:
        return {f.name for f in dataclasses.fields(branch(group, chosen, choice))}
    except InputError:
        return None
