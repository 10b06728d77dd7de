"""One call of `experiments.run`: its config, its words, and what is checked of both before torch is imported."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from experiments.commands.words import is_override, key_of, quoted_path, resume_word
from experiments.compose import Composed, compose, shipped_configs

#: The verb that applies what a task is for.
VERB_OF_TASK = {
    "organelle": "predict", "cells": "analyze", "cells_from_masks": "cells", "analyze": "analyze", "shape": "shapes",
    "shapr": "shapes", "search": "search",
}  # fmt: skip

#: The command that takes weights of a task.
USE_OF_WEIGHTS = {
    "organelle": "cytovox predict FILES --weights W",
    "cells": "cytovox analyze FILES cell_weights=W",
    "shape": "cytovox shapes FOLDER --weights W",
    "shapr": "cytovox shapes FOLDER --weights W",
    "search": "cytovox predict FILES --weights RUN/retrained",
}

#: Tasks that are run but not trained.
NOT_TRAINED = ("analyze", "cells_from_masks")


@dataclass
class RunCall:
    """The argument list of `experiments.run`, as it is put together.

    Parameters
    ----------
    verb : str
        The verb that is asked for, for messages.
    config : str
        A file or shipped name; empty for a run that is resumed.
    overrides : list of str
        `key=value` words of the user.
    """

    verb: str
    config: str
    overrides: list[str]
    settings: list[str] = field(default_factory=list)
    """`key=value` words of the verb itself."""
    flags: list[str] = field(default_factory=list)
    """Options of `experiments.run`."""

    @classmethod
    def of_config(cls, verb: str, given: str | None, words: Sequence[str]) -> RunCall:
        """Return a call for a config, a run folder to go on in, or a `resume=RUN` word in place of either."""
        if given is None:
            return cls(verb, "", list(words))
        if is_override(given):
            return cls(verb, "", [given, *words])
        if Path(given).is_dir():
            return cls(verb, "", [resume_word(given), *words])
        return cls(verb, given, list(words))

    @property
    def resumes(self) -> bool:
        """Whether the call goes on in a run folder."""
        return any(key_of(word) == "resume" and word.partition("=")[2] not in ("", "null") for word in self.overrides)

    def gives(self, key: str) -> bool:
        """Whether the user gave a key as a `key=value` word, alone or in its group, as in `predict={out: masks}`."""
        group, _, name = key.rpartition(".")
        inside = re.compile(rf"\b{re.escape(name)}[\"']?\s*:")
        return any(
            key_of(word) == key or (key_of(word) == group and inside.search(word.partition("=")[2]))
            for word in self.overrides
        )

    def set(self, key: str, value: str, origin: str) -> None:
        """Set a key to a YAML value.

        Raises
        ------
        InputError
            The user gave the key, too.
        """
        if self.gives(key):
            raise InputError(f"{self.verb}: {key}: given twice, as {origin} and as {key}=; leave one of them out")
        self.settings.append(f"{key}={value}")

    def composed(self) -> Composed:
        """Return the config with the user's words.

        Raises
        ------
        InputError
            There is none, or it cannot be read.
        """
        source = self.config
        if not source:
            runs = [word.partition("=")[2] for word in self.overrides if key_of(word) == "resume"]
            if not runs or runs[-1] in ("", "null"):
                raise InputError(
                    f"{self.verb}: no CONFIG; give a YAML file, the name of a shipped config "
                    f"({', '.join(shipped_configs())}), or a run folder"
                )
            source = str(Path(runs[-1].strip("\"'")) / "config.yaml")
            if not Path(source).is_file():
                raise InputError(f"{self.verb}: {Path(source).parent}: no run folder; expected one with a config.yaml")
        return compose(source, self.overrides)

    def require_task(self, composed: Composed, tasks: Sequence[str]) -> None:
        """Refuse a config of another task, and keys of another task.

        Parameters
        ----------
        composed : Composed
            The config.
        tasks : sequence of str
            Tasks that the verb is for; none for all that are trained.
        """
        task = task_in(composed)
        name = self.config or "this run's config"
        if not tasks and task in NOT_TRAINED:
            raise InputError(
                f"{self.verb}: {name} is a config of task {task}, which trains nothing; use cytovox "
                f"{VERB_OF_TASK[task]}"
            )
        if tasks and task not in tasks:
            use = VERB_OF_TASK.get(task, "run")
            hint = f"cytovox {use}" if use != self.verb else f"a config of task {' or '.join(tasks)}"
            raise InputError(
                f"{self.verb}: {name} is a config of task {task}, but this command needs one of task "
                f"{' or '.join(tasks)}; use {hint}"
            )
        require_own_keys(task, self.overrides)

    def argv(self) -> list[str]:
        """Return the argument list."""
        return [*self.flags, *([self.config] if self.config else []), *self.settings, *self.overrides]

    def run(self) -> int:
        """Call `experiments.run` and return its exit code."""
        from experiments.run import main

        return main(self.argv())


def task_in(composed: Composed) -> str:
    """Return the task of a config that is not checked yet."""
    return str(composed.values.get("task", "organelle"))


def require_own_keys(task: str, overrides: Sequence[str]) -> None:
    """Refuse keys that another task has and this one has not, and name the command that takes them.

    Raises
    ------
    InputError
        One line per key.
    """
    schema = Schema.stored()
    errors = []
    for key in dict.fromkeys(map(key_of, overrides)):
        if schema.knows(task, key):
            continue
        others = [other for other in schema.tasks if other != task and schema.knows(other, key)]
        if others:
            use = dict.fromkeys(_verb_of_key(other, key) for other in others)
            errors.append(
                f"command line: {key}: a key of task {', '.join(others)}, but this config's task is {task}; leave it "
                f"out, or use {' or '.join(use)}"
            )
    if errors:
        raise InputError("\n".join(errors))


def _verb_of_key(task: str, key: str) -> str:
    """Return the command that takes a key of this task."""
    applies = task in NOT_TRAINED or task == "search" or (key.startswith("predict.") and task != "cells")
    return f"cytovox {VERB_OF_TASK.get(task, 'run') if applies else 'train'}"


class Schema:
    """Names of the keys of every task, as `configs/keys.json` lists them."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.tasks: Mapping[str, Any] = content.get("tasks", {})
        self._classes: Mapping[str, Any] = content.get("classes", {})

    @classmethod
    def stored(cls) -> Schema:
        """Read the list; without one, or where it is of another version of the sources, no key is judged."""
        from experiments.quick_check import KEYS, digest_of

        with contextlib.suppress(OSError, ValueError, KeyError):
            content = json.loads(KEYS.read_text(encoding="utf-8"))
            if content["sources"] == digest_of(content["files"]):
                return cls(content)
        return cls({})

    def knows(self, task: str, key: str) -> bool:
        """Whether a task has a key, up to its second part; true for a task that is not listed."""
        if task not in self.tasks:
            return True
        about, (top, *inner) = self.tasks[task], key.split(".")
        if top not in self._fields(about["class"]):
            return False
        kinds = [about["groups"][top]] if top in about["groups"] else []
        kinds += list(about["choices"].get(top, {}).get("kinds", {}).values())
        return not inner or not kinds or any(inner[0] in self._fields(kind) for kind in kinds)

    def _fields(self, kind: str) -> set[str]:
        return {name for name, *_ in self._classes[kind]["fields"]}


def task_of_weights(given: str) -> str | None:
    """Return the task of weights without reading them: of a run folder, a file in one, or a weights file.

    Returns
    -------
    str or None
        None where torch would be needed to read it, or where nothing of that name exists.
    """
    path = Path(given)
    if not path.exists():
        path = shipped_weights().get(given, path)
    if path.suffix == ".safetensors" and path.is_file():
        return _task_in_header(path)
    run = path if path.is_dir() else path.parent.parent
    if not (run / "config.yaml").is_file():
        return None
    with contextlib.suppress(InputError):
        return task_in(compose(str(run / "config.yaml")))
    return None


def _task_in_header(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("cytovox", "{}"))
        return str(about["task"])
    except (SafetensorError, OSError, ValueError, KeyError):
        return None


def shipped_weights() -> dict[str, Path]:
    """Return the weights that come with the package, by name; `cytovox.networks.weights` would import torch."""
    spec = util.find_spec("cytovox")
    roots = list(spec.submodule_search_locations or []) if spec is not None else []
    return {path.stem: path for root in roots for path in Path(root, "networks", "weights").glob("*.safetensors")}


def require_weights(verb: str, weights: Sequence[str], tasks: Sequence[str]) -> None:
    """Refuse weights of another task.

    Raises
    ------
    InputError
        Names the task of the weights and the command that takes them.
    """
    for given in weights:
        task = task_of_weights(given)
        if task is None or task in tasks:
            continue
        hint = f"; use {USE_OF_WEIGHTS[task]}" if task in USE_OF_WEIGHTS else ""
        raise InputError(
            f"{verb}: --weights {given}: weights of task {task}, but this command needs those of task "
            f"{' or '.join(tasks)}{hint}"
        )


def config_for(weights: Sequence[str], default: str) -> str:
    """Return the config that goes with weights: that of their run, the shipped one of their name, or the default."""
    for given in weights:
        path = Path(given)
        run = path if path.is_dir() else path.parent.parent
        if path.exists() and (run / "config.yaml").is_file():
            config = str(run / "config.yaml")
            note(f"the config is {config}, that of the weights; --config names another")
            return config
        if not path.exists() and given in shipped_configs():
            return given
    return default


def note(text: str) -> None:
    """Print a note to stderr, once for all processes that train on several GPUs."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"note: {text}", file=sys.stderr)


def weights_value(weights: Sequence[str]) -> str:
    """Return weights as a YAML value: several are an ensemble."""
    values = [quoted_path(given, "--weights") for given in weights]
    return values[0] if len(values) == 1 else f"[{','.join(values)}]"
