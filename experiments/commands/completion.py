"""`cytovox completion SHELL`: print the completion script of a shell for commands, options, configs and files."""

import argparse
import re
from collections.abc import Iterable
from typing import Any

from experiments.commands.parsers import add_verb

SHELLS = ("bash", "zsh", "tcsh")


def add_verbs(commands: Any) -> None:
    """Add the command of this module."""
    parser = add_verb(
        commands, "completion", run, "print the script that completes commands, options and configs in a shell",
        'eval "$(cytovox completion bash)"\n'
        "cytovox completion bash > ~/.local/share/bash-completion/completions/cytovox",
    )  # fmt: skip
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")


def run(args: argparse.Namespace) -> int:
    """Print the completion script."""
    import shtab

    script = shtab.complete(args.whole_parser, args.shell, preamble=_functions())
    if args.shell == "tcsh":
        script = _with_files(script)
    elif args.shell == "zsh":
        script = script.replace('"(*)::', '"*:')  # complete all files, not only the first one
    print(script)
    return 0


def _names() -> dict[str, Iterable[str]]:
    from experiments.commands.requests import shipped_weights
    from experiments.compose import shipped_configs, shipped_sweeps

    return {"configs": shipped_configs(), "sweeps": shipped_sweeps(), "weights": shipped_weights()}


def _with_files(script: str) -> str:
    """Add rules for positional arguments, which `shtab` omits for tcsh: names or files first, then files."""
    names = _names()
    rules = {verb: f"({_joined(names['configs'])})" for verb in ("train", "test", "search", "check", "plan", "run")}
    rules |= {"sweep": f"({_joined(names['sweeps'])})", "predict": "f", "analyze": "f", "shapes": "d", "export": "d"}
    own = "".join(f"        'n/{verb}/{rule}/' \\\n" for verb, rule in rules.items())
    # after the rules of options, which take precedence; shtab's rule for a position without choices completes nothing
    script, found = re.subn(r"('c/-/.*\n)", lambda line: line[0] + own, script, count=1)
    script = re.sub(r" *'p@\d+@`set cmd=\(\$COMMAND_LINE\); `@' \\\n", "", script)
    if not found or "'p/*/()/'" not in script:
        raise RuntimeError("the tcsh script of shtab has another form; see pyproject.toml for the supported version")
    return script.replace("'p/*/()/'", "'p/*/f/'")


def _functions() -> dict[str, str]:
    """Return the shell functions that list shipped names and files; tcsh has no functions."""
    names = _names()
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
