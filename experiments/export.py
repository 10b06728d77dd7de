"""`python -m experiments.export RUN NAME.safetensors`: write the weights of a run as one small file to share."""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.program import run_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("run", metavar="RUN", help="a run folder (its best weights), or a .ckpt file")
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write; ends in .safetensors")
    parser.add_argument(
        "--half", action="store_true", help="in float16: half the size, three decimal digits per weight"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Export weights; return the exit code as `experiments.program.run_command` does."""
    parser = argparse.ArgumentParser(prog="experiments.export", description=__doc__, allow_abbrev=False)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from cytovox.errors import InputError
    from cytovox.models.load import weights_path
    from cytovox.models.metadata import read_checkpoint
    from cytovox.models.weights_file import KEY, read_content, write_weights

    if arguments.out.exists():  # only weights may be replaced
        known = False
        with contextlib.suppress(ValueError, OSError):
            known = KEY in read_content(arguments.out)
        if not known:
            raise InputError(f"{arguments.out}: exists and holds no weights of Cytovox: choose another name")
    weights = read_checkpoint(weights_path(arguments.run, "RUN"), None, "RUN")
    state = weights.network_state
    if arguments.half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    write_weights(arguments.out, state, dataclasses.asdict(weights.metadata))
    print(f"weights: {arguments.out} ({arguments.out.stat().st_size / 1e6:.1f} MB, from {weights.path})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
