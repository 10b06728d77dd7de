"""Build and check the arguments of a call of `experiments.run`, before torch is imported."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import Any, Self

from cytovox.errors import InputError
from experiments.commands.words import is_override, key_of, quoted_path, resume_word
from experiments.compose import Composed, compose, shipped_configs

#: Command that applies each task.
VERB_OF_TASK = {
    "organelle": "predict", "cells": "analyze", "cells_from_masks": "cells", "analyze": "analyze", "shape": "shapes",
    "shapr": "shapes", "search": "search",
}  # fmt: skip

#: Command that uses the weights of each task.
USE_OF_WEIGHTS = {
    "organelle": "cytovox predict FILES --weights W",
    "cells": "cytovox analyze FILES cell_weights=W",
    "shape": "cytovox shapes FOLDER --weights W",
    "shapr": "cytovox shapes FOLDER --weights W",
    "search": "cytovox predict FILES --weights RUN/retrained",
}

#: Tasks without training.
NOT_TRAINED = ("analyze", "cells_from_masks")


@dataclass
class RunCall:
    """Arguments of a call of `experiments.run`.

    Parameters
    ----------
    verb : str
        Name of the command, for messages.
    config : str
        File or shipped name of the config; empty for a run that is resumed.
    overrides : list of str
        `key=value` words of the user.
    """

    verb: str
    config: str
    overrides: list[str]
    settings: list[str] = field(default_factory=list)
    """`key=value` words of the command itself."""

    @classmethod
    def of_config(cls, verb: str, given: str | None, words: Sequence[str]) -> Self:
        """Return a call for a config, a run folder to resume, or a `resume=RUN` word in place of either."""
        if given is None:
            return cls(verb, "", list(words))
        resumed = given if is_override(given) else resume_word(given) if Path(given).is_dir() else None
        return cls(verb, given, list(words)) if resumed is None else cls(verb, "", [resumed, *words])

    @property
    def resumes(self) -> bool:
        """Whether the call resumes a run folder."""
        return any(key_of(word) == "resume" and word.partition("=")[2] not in ("", "null") for word in self.overrides)

    def gives(self, key: str) -> bool:
        """Return whether the user set a key by a `key=value` word, alone or in its group as in `predict={out: m}`."""
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
            The user set the key as well.
        """
        if self.gives(key):
            raise InputError(f"{self.verb}: {key}: given twice, as {origin} and as {key}=; leave one of them out")
        self.settings.append(f"{key}={value}")

    def set_path(self, key: str, path: str | None, option: str) -> None:
        """Set a key to the path of an option; without a path, do nothing."""
        if path is not None:
            self.set(key, quoted_path(path, option), option)

    def set_weights(self, composed: Composed, weights: Sequence[str]) -> None:
        """Set `predict.checkpoint` to the weights of `--weights`, several of which are an ensemble.

        Raises
        ------
        InputError
            Weights of another task than that of the config.
        """
        require_weights(self.verb, weights, [task_in(composed)])
        if weights:
            values = [quoted_path(given, "--weights") for given in weights]
            value = values[0] if len(values) == 1 else f"[{','.join(values)}]"
            self.set("predict.checkpoint", value, "--weights")

    def composed(self) -> Composed:
        """Return the config with the user's `key=value` words.

        Raises
        ------
        InputError
            There is no config, or it cannot be read.
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
        """Raise `InputError` for a config or a key of another task.

        Parameters
        ----------
        composed : Composed
            Config.
        tasks : sequence of str
            Tasks of the command; empty for all tasks that are trained.
        """
        task, name = task_in(composed), self.config or "this run's config"
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

    def run(self, flags: Sequence[str]) -> int:
        """Call `experiments.run` with these options, and return its exit code."""
        from experiments.run import main

        return main([*flags, *([self.config] if self.config else []), *self.settings, *self.overrides])


def task_in(composed: Composed) -> str:
    """Return the task of a config that is not validated yet."""
    return str(composed.values.get("task", "organelle"))


def require_own_keys(task: str, overrides: Sequence[str]) -> None:
    """Raise `InputError` for keys that belong to another task only, and name the command that accepts them.

    Raises
    ------
    InputError
        One line per key.
    """
    schema, errors = Schema.stored(), []
    for key in dict.fromkeys(map(key_of, overrides)):
        others = [] if schema.has(task, key) else [other for other in schema.tasks if schema.has(other, key)]
        if others:
            use = dict.fromkeys(_verb_of_key(other, key) for other in others)
            errors.append(
                f"command line: {key}: a key of task {', '.join(others)}, but this config's task is {task}; leave it "
                f"out, or use {' or '.join(use)}"
            )
    if errors:
        raise InputError("\n".join(errors))


def _verb_of_key(task: str, key: str) -> str:
    """Return the command that accepts a key of this task."""
    applies = task in NOT_TRAINED or task == "search" or (key.startswith("predict.") and task != "cells")
    return f"cytovox {VERB_OF_TASK.get(task, 'run') if applies else 'train'}"


@dataclass(frozen=True)
class Schema:
    """Names of the keys of every task, from `configs/keys.json`."""

    tasks: Mapping[str, Any]
    classes: Mapping[str, Any]

    @classmethod
    def stored(cls) -> Self:
        """Read the list. It is empty if the file is missing or belongs to another version of the source files."""
        from experiments.quick_check import KEYS, digest_of

        with contextlib.suppress(OSError, ValueError, KeyError):
            content = json.loads(KEYS.read_text(encoding="utf-8"))
            if content["sources"] == digest_of(content["files"]):
                return cls(content["tasks"], content["classes"])
        return cls({}, {})

    def has(self, task: str, key: str) -> bool:
        """Return whether a task has a key, by its first two parts; true for a task that is not listed."""
        if task not in self.tasks:
            return True
        about, (top, *inner) = self.tasks[task], key.split(".")
        if top not in self._fields(about["class"]):
            return False
        kinds = [about["groups"][top]] if top in about["groups"] else []
        kinds += list(about["choices"].get(top, {}).get("kinds", {}).values())
        return not inner or not kinds or any(inner[0] in self._fields(kind) for kind in kinds)

    def _fields(self, kind: str) -> set[str]:
        return {name for name, *_ in self.classes[kind]["fields"]}


def task_of_weights(given: str) -> str | None:
    """Return the task of a run folder, a file in one, or a weights file, without reading the weights.

    Returns
    -------
    str or None
        None if torch is needed to read it, or if there is no such file.
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
    """Return the shipped weights by name, without the import of torch by `cytovox.networks.weights`."""
    spec = util.find_spec("cytovox")
    roots = list(spec.submodule_search_locations or []) if spec is not None else []
    return {path.stem: path for root in roots for path in Path(root, "networks", "weights").glob("*.safetensors")}


def require_weights(verb: str, weights: Sequence[str], tasks: Sequence[str]) -> None:
    """Raise `InputError` for weights of another task; the message names the command that uses them."""
    for given in weights:
        task = task_of_weights(given)
        if task is not None and task not in tasks:
            hint = f"; use {USE_OF_WEIGHTS[task]}" if task in USE_OF_WEIGHTS else ""
            raise InputError(
                f"{verb}: --weights {given}: weights of task {task}, but this command needs those of task "
                f"{' or '.join(tasks)}{hint}"
            )


def config_for(weights: Sequence[str], default: str) -> str:
    """Return the config for weights: that of their run, the shipped config of the same name, or the default."""
    for given in weights:
        path = Path(given)
        run = path if path.is_dir() else path.parent.parent
        if path.exists() and (run / "config.yaml").is_file():
            config = str(run / "config.yaml")
            note(f"the config is {config}, that of the weights; --config selects another")
            return config
        if not path.exists() and given in shipped_configs():
            return given
    return default


def note(text: str) -> None:
    """Print a note to stderr, in one process only if several train."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"note: {text}", file=sys.stderr)
