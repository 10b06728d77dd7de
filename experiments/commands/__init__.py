"""Console script `cytovox`: commands that build the arguments of `python -m experiments.run` and call it.

Nothing here imports torch, so `--help`, `--version`, `completion` and `cache` are fast.
"""

import importlib.metadata
import sys
from collections.abc import Sequence

from cytovox.errors import InputError
from experiments.commands.words import refuse
from experiments.program import program, shadowed


def main() -> int:
    """Run the installed command `cytovox`."""
    return program(dispatch)


def dispatch(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after `cytovox`; by default those of this process.

    Returns
    -------
    int
        Exit code of the command; 2 for invalid input, which is reported in one line on stderr.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if (shadow := shadowed()) is not None:
        return refuse(shadow)
    if words == ["--version"]:
        print(f"cytovox {version()}")
        return 0

    from experiments.commands.command_line import build_parser, verbs_of

    parser = build_parser(words[0] if words else "")
    verbs = verbs_of(parser)
    if words[:1] in (["-h"], ["--help"]):
        parser.print_help()
        return 0
    if not words:
        return refuse(f"cytovox: no command; expected one of {', '.join(verbs)}; see cytovox --help")
    if words[0] not in verbs:
        from experiments.commands.former import run_former

        return run_former(words, list(verbs))
    try:
        args = verbs[words[0]].parse(words[1:])
    except SystemExit as stop:  # raised by argparse after --help and after an error
        return int(stop.code or 0)
    try:
        return int(args.verb_call(args))
    except InputError as error:
        return refuse(str(error), error.exit_code)
    except KeyboardInterrupt:
        return refuse("stopped", 130)


def version() -> str:
    """Return the installed version of Cytovox."""
    try:
        return importlib.metadata.version("cytovox")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed: run from a source folder)"
