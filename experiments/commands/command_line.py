"""The parser of the whole command line: all verbs."""

from __future__ import annotations

import argparse

from experiments.commands import applying, cache, completion, training, wrapped
from experiments.commands.parsers import VerbParser

DESCRIPTION = "3D microscopy of living cells, turned into measurements. Every command has its own --help."
EPILOG = """\
`python -m experiments.run CONFIG [key=value ...]` does all that train, test, predict, cells, analyze, shapes, search,
check and plan do. All keys are listed in docs/config.md, all commands in docs/commands.md.
"""


def build_parser(verb: str = "") -> argparse.ArgumentParser:
    """Return the parser of the whole command line.

    Parameters
    ----------
    verb : str
        The verb that is asked for. The options of `simulate` are read from the simulator, whose import takes half a
        second: only where this is `simulate` or `completion`.
    """
    parser = argparse.ArgumentParser(
        prog="cytovox", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", parser_class=VerbParser, prog="cytovox"
    )
    training.add_verbs(commands)
    applying.add_verbs(commands)
    wrapped.add_verbs(commands, simulator=verb in ("simulate", "completion"))
    cache.add_verbs(commands)
    completion.add_verbs(commands)
    commands.choices["completion"].set_defaults(whole_parser=parser)
    parser.set_defaults(verbs=dict(commands.choices))
    return parser


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, VerbParser]:
    """Return the verbs of the whole parser, by name."""
    verbs: dict[str, VerbParser] = parser.get_default("verbs")
    return verbs
