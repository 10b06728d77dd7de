"""Registry of the tasks. A new task needs an entry here and a subpackage."""

import dataclasses
from typing import Any

from cytovox.errors import InputError
from experiments.schema import BaseConfig, branch
from experiments.tasks.analyze.task import AnalyzeTask
from experiments.tasks.base import Task
from experiments.tasks.cells.task import CellsTask
from experiments.tasks.cells_from_masks.task import CellsFromMasksTask
from experiments.tasks.organelle.task import OrganelleTask
from experiments.tasks.search.task import SearchTask
from experiments.tasks.shape.task import ShapeTask, SHAPRTask

#: Tasks by the value of `task:` in a config.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        OrganelleTask(),
        CellsTask(),
        ShapeTask(),
        SHAPRTask(),
        SearchTask(),
        AnalyzeTask(),
        CellsFromMasksTask(),
    )
}


def task_of(config: BaseConfig) -> Any:
    """Return the task of a config."""
    return TASKS[config.task]


def known_keys(task: str, group: str, choice: str) -> set[str] | None:
    """Return the keys of a branch of a group; None if there is no such branch."""
    chosen = TASKS[task].choices.get(group) if task in TASKS else None
    if chosen is None:
        return None
    try:
        return {f.name for f in dataclasses.fields(branch(group, chosen, choice))}
    except InputError:
        return None
