"""Run `cytovox CONFIG key=value`, the deprecated form without a command; it works for one more release."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from experiments.commands.words import refuse
from experiments.errors import did_you_mean


def run_former(words: Sequence[str], verbs: Sequence[str]) -> int:
    """Run a command line that starts with a config, `resume=RUN`, or an option before one, instead of a command.

    Parameters
    ----------
    words : sequence of str
        Arguments after `cytovox`.
    verbs : sequence of str
        Names of the commands.

    Returns
    -------
    int
        Exit code; 2 if the first word is neither a command nor a config.
    """
    from experiments.commands.requests import note
    from experiments.compose import shipped_configs

    shipped = shipped_configs()
    first = next((word for word in words if not word.startswith("-")), None)
    if first is None:
        hint = did_you_mean(words[0], ["--help", "--version"])
        return refuse(f"cytovox: unknown option {words[0]}{hint}; see cytovox --help")
    if not (first.removesuffix(".yaml") in shipped or "=" in first or Path(first).is_file()):
        near = difflib.get_close_matches(Path(first).stem, shipped, n=1)
        config = f"; did you mean the config {near[0]} (cytovox train {near[0]})?" if near else ""
        hint = did_you_mean(first, verbs) or config or f"; expected one of {', '.join(verbs)}"
        return refuse(f"cytovox: {first}: no such command{hint}")
    note("cytovox without a command ends with the next release; write cytovox run CONFIG")

    from experiments.run import main

    return main(list(words))
