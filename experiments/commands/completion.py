"""`cytovox completion SHELL`: the script that lets a shell complete commands, options, configs and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from experiments.commands.parsers import add_verb

SHELLS = ("bash", "zsh", "tcsh")


def add_verbs(commands: Any) -> None:
    """Add the verb of this module."""
    parser = add_verb(
        commands, "completion", run, "print the script that completes commands, options and configs in a shell",
        'eval "$(cytovox completion bash)"\n'
        "cytovox completion bash > ~/.local/share/bash-completion/completions/cytovox",
    )  # fmt: skip
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from experiments.commands.parsers import build_parser

    print(shtab.complete(build_parser("completion"), args.shell, preamble=_functions()))
    return 0


def _functions() -> dict[str, str]:
    """Return shell functions that list shipped names and files; tcsh has no functions, and completes files alone."""
    from experiments.commands.requests import shipped_weights
    from experiments.compose import shipped_configs, shipped_sweeps

    names = {"configs": shipped_configs(), "sweeps": shipped_sweeps(), "weights": shipped_weights()}
    bash = "\n".join(
        f'_cytovox_{kind}() {{\n  local IFS=" "\n  compgen -W "{_joined(found)}" -- "$1"\n  compgen -f -- "$1"\n}}'
        for kind, found in names.items()
    )
    zsh = "\n".join(
        f"_cytovox_{kind}() {{\n  _alternative 'names:{kind}:({_joined(found)})' 'files:file:_files'\n}}"
        for kind, found in names.items()
    )
    return {"bash": bash, "zsh": zsh}


def _joined(names: Iterable[str]) -> str:
    return " ".join(sorted(names))
