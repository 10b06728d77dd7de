"""How the command line of one verb is read."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

#: How the file arguments of a verb are completed by the shell; the names are those of `shtab`.
FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
FOLDER = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}

Run = Callable[[argparse.Namespace], int]


class VerbParser(argparse.ArgumentParser):
    """Parser of one verb: an error is one line, and options may stand between files."""

    def error(self, message: str) -> NoReturn:
        """Print one line to stderr and end with exit code 2."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Read the words after the verb.

        Returns
        -------
        Namespace
            The verb's arguments; `raw`, the words as given; `literal`, the words after `--`, which are files
            whatever they look like.
        """
        if self.get_default("unparsed"):
            if {"-h", "--help"} & set(words):
                self.print_help()
                raise SystemExit(0)
            return argparse.Namespace(verb_call=self.get_default("verb_call"), raw=list(words))
        before, after = list(words), list[str]()
        if self.get_default("literal_after_dashes") and "--" in before:
            at = before.index("--")
            before, after = before[:at], before[at + 1 :]
        args, extra = self.parse_known_intermixed_args(before)
        if extra:
            self.error(self._unknown(extra[0]))
        args.raw, args.literal = list(words), after
        return args

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"unexpected argument {word!r}"
        options = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(word.partition("=")[0], options, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"unknown option {word}{hint}"


def add_verb(
    commands: Any,
    name: str,
    run: Run,
    summary: str,
    example: str,
    usage: str | None = None,
    literal_after_dashes: bool = False,
    **more: Any,
) -> VerbParser:
    """Add a verb.

    Parameters
    ----------
    commands : object
        What `ArgumentParser.add_subparsers` returned.
    name : str
        The verb.
    run : callable
        Called with the arguments that were read; returns the exit code.
    summary : str
        One line for both helps.
    example : str
        Command lines, as a person would type them.
    usage : str, optional
        The first line of its help, after `cytovox NAME`; by default what argparse makes of the options.
    literal_after_dashes : bool
        Whether words after `--` are files, whatever they look like.
    **more
        For the parser itself.
    """
    parser: VerbParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=example_text(example),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **({"usage": f"cytovox {name} {usage}"} if usage is not None else {}),
        **more,
    )
    parser.set_defaults(verb_call=run, literal_after_dashes=literal_after_dashes)
    return parser


def example_text(example: str) -> str:
    """Return example commands as the help shows them."""
    return "example:\n" + "\n".join(f"  {line}" for line in example.splitlines())


def add_completed(parser: Any, complete: dict[str, str], *names: str, **more: Any) -> None:
    """Add an argument that the shell completes in this way."""
    parser.add_argument(*names, **more).complete = complete
