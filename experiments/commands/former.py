"""`cytovox CONFIG key=value`, the command line before there were verbs; it works for one more release."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from experiments.commands.words import refuse


def run_former(words: Sequence[str], verbs: Sequence[str]) -> int:
    """Run a command line whose first word is no verb: a config, `resume=RUN`, or an option before one.

    Parameters
    ----------
    words : sequence of str
        The whole command line after `cytovox`.
    verbs : sequence of str
        Names of the verbs.

    Returns
    -------
    int
        Exit code; 2 where the first word is neither a verb nor a config.
    """
    from experiments.commands.requests import note
    from experiments.compose import shipped_configs

    shipped = shipped_configs()
    first = next((word for word in words if not word.startswith("-")), None)
    if first is None:
        near = difflib.get_close_matches(words[0], ["--help", "--version"], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return refuse(f"cytovox: unknown option {words[0]}{hint}; see cytovox --help")
    if not (first.removesuffix(".yaml") in shipped or "=" in first or Path(first).is_file()):
        hint = _hint(first, verbs, list(shipped)) or f"; expected one of {', '.join(verbs)}"
        return refuse(f"cytovox: {first}: no such command{hint}")
    note("cytovox without a command ends with the next release; write cytovox run CONFIG")

    from experiments.run import main

    return main(list(words))


def _hint(word: str, verbs: Sequence[str], configs: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, verbs, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    near = difflib.get_close_matches(Path(word).stem, configs, n=1)
    return f"; did you mean the config {near[0]} (cytovox train {near[0]})?" if near else ""
