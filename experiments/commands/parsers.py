"""Parser of the arguments of one command."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from experiments.errors import did_you_mean

#: Shell completion of file arguments; the names are those of `shtab`.
FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
FOLDER = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}

Run = Callable[[argparse.Namespace], int]


class VerbParser(argparse.ArgumentParser):
    """Parser of one command. An error is one line, and options may appear between files."""

    def error(self, message: str) -> NoReturn:
        """Print one line to stderr and exit with code 2."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the words after the command.

        Returns
        -------
        Namespace
            Arguments of the command; `raw`, all words; `literal`, the words after `--`, which are always files.
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
        return f"unknown option {word}{did_you_mean(word.partition('=')[0], options)}"


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
    """Add a command and return its parser.

    Parameters
    ----------
    commands : object
        Return value of `ArgumentParser.add_subparsers`.
    name : str
        Name of the command.
    run : callable
        Function that runs the command with its arguments and returns the exit code.
    summary : str
        One line for the list of commands and for the help of this command.
    example : str
        Example command lines.
    usage : str, optional
        Usage after `cytovox NAME`; by default argparse derives it from the options.
    literal_after_dashes : bool
        Whether all words after `--` are files.
    **more
        Further arguments of the parser.
    """
    parser: VerbParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="example:\n" + "\n".join(f"  {line}" for line in example.splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **({"usage": f"cytovox {name} {usage}"} if usage is not None else {}),
        **more,
    )
    parser.set_defaults(verb_call=run, literal_after_dashes=literal_after_dashes)
    return parser


def add_completed(parser: Any, complete: dict[str, str], *names: str, **more: Any) -> None:
    """Add an argument with its shell completion."""
    parser.add_argument(*names, **more).complete = complete
