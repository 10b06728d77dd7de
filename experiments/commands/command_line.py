"""Parser of the whole command line."""

import argparse

from experiments.commands import applying, cache, completion, training, wrapped
from experiments.commands.parsers import VerbParser

DESCRIPTION = "Measure living cells in 3D microscopy. Every command has its own --help."
EPILOG = """\
`python -m experiments.run CONFIG [key=value ...]` runs all that train, test, predict, cells, analyze, shapes, search,
check and plan run. All keys are listed in docs/config.md, all commands in docs/commands.md.
"""


def build_parser(verb: str = "") -> argparse.ArgumentParser:
    """Return the parser of the whole command line.

    Parameters
    ----------
    verb : str
        Name of the command to run. The options of `simulate` need an import of half a second, so they are added for
        `simulate` and `completion` only.
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
    """Return the parsers of the commands by name."""
    verbs: dict[str, VerbParser] = parser.get_default("verbs")
    return verbs
