"""`python -m experiments.export RUN NAME.safetensors`: a run's weights as one small file to share."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.shadow import shadowed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command line."""
    parser.add_argument("run", metavar="RUN", help="a run folder (its best weights), or a .ckpt file")
    parser.add_argument("out", metavar="OUT", type=Path, help="file to write; ends in .safetensors")
    parser.add_argument("--half", action="store_true", help="in float16: half the size, three decimal digits a weight")


def main(argv: Sequence[str] | None = None) -> int:
    """Export; invalid input becomes one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="experiments.export", description=__doc__, allow_abbrev=False)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    shadow = shadowed()
    if shadow is not None:
        print(shadow, file=sys.stderr)
        return 2

    from cytovox.errors import InputError
    from cytovox.models.metadata import read_checkpoint
    from cytovox.models.weights_file import KEY, read_content, write_weights
    from experiments.weights import weights_path

    try:
        if arguments.out.exists():  # weights may be replaced, and nothing else
            known = False
            with contextlib.suppress(ValueError, OSError):
                known = KEY in read_content(arguments.out)
            if not known:
                raise InputError(f"{arguments.out}: is there, and no weights of Cytovox: choose another name")
        weights = read_checkpoint(weights_path(arguments.run, "RUN"), None, "RUN")
        state = weights.network_state
        if arguments.half:
            state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
        write_weights(arguments.out, state, dataclasses.asdict(weights.metadata))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"weights: {arguments.out} ({arguments.out.stat().st_size / 1e6:.1f} MB, from {weights.path})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
