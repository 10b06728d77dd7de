"""Join weights that a study wrote in several files: `python -m studies.join_weights PART PART ... OUT.safetensors`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from cytovox.errors import InputError
from cytovox.models.metadata import read_checkpoint
from cytovox.models.weights_file import write_weights
from studies._common import run_study


def join(parts: Sequence[Path], out: Path) -> Path:
    """Write one weights file that holds the tensors of all parts.

    Parameters
    ----------
    parts : sequence of Path
        Files of `studies._common.write_half_weights`, in any order.
    out : Path
        Ends in `.safetensors`.

    Raises
    ------
    InputError
        A part cannot be read, is missing, is given twice, or belongs to another model.
    """
    read = [read_checkpoint(path, None, "PART") for path in parts]
    for path in parts:
        _, _, count = path.stem.rpartition("-of-")
        if count.isdigit() and int(count) != len(parts):
            raise InputError(f"PART: {path}: one of {count} parts, but {len(parts)} are given; give all of them")
    state: dict[str, torch.Tensor] = {}
    for weights in read:
        if weights.metadata != read[0].metadata:
            raise InputError(f"PART: {weights.path}: of another model than {read[0].path}")
        if twice := state.keys() & weights.network_state.keys():
            raise InputError(f"PART: {weights.path}: holds {min(twice)}, which another part holds as well")
        state |= weights.network_state
    return write_weights(out, state, dataclasses.asdict(read[0].metadata))


def main(argv: Sequence[str] | None = None) -> int:
    """Join and return the exit code."""
    parser = argparse.ArgumentParser(prog="studies.join_weights", description=__doc__)
    parser.add_argument("parts", type=Path, nargs="+", metavar="PART")
    parser.add_argument("out", type=Path, metavar="OUT.safetensors")
    arguments = parser.parse_args(argv)
    return run_study(lambda found: print(f"written: {join(found.parts, found.out)}"), arguments)


if __name__ == "__main__":
    sys.exit(main())
