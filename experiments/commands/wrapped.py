"""Commands that forward their arguments to another program: `simulate`, `sweep`, `export`, `fetch`."""

import argparse
from typing import Any

from experiments.commands.parsers import FILE, FOLDER, add_verb

#: Shell completion of a sweep: shipped names and files.
SWEEP = {"bash": "_cytovox_sweeps", "zsh": "_cytovox_sweeps", "tcsh": "f"}


def add_verbs(commands: Any, simulator: bool) -> None:
    """Add the commands of this module.

    Parameters
    ----------
    commands : object
        Return value of `ArgumentParser.add_subparsers`.
    simulator : bool
        Whether to add the options of `simulate`, which imports the simulator.
    """
    from experiments import export, fetch, sweep

    parents = []
    if simulator:
        from cytovox.simulation.__main__ import parser as simulator_parser

        parents = [simulator_parser()]
    add_verb(
        commands, "simulate", run_simulation, "simulate tomograms with their masks and true refractive index",
        "cytovox simulate --preset HeLa --seed 1 2 3 --out cells", parents=parents, conflict_handler="resolve",
    )  # fmt: skip
    parser = add_verb(
        commands, "sweep", lambda args: sweep.main(args.raw),
        "search for better settings: a W&B sweep, with W&B's server or without",
        "cytovox sweep sweeps/organelle --count 20",
    )  # fmt: skip
    sweep.add_arguments(parser)
    _complete(parser, sweep=SWEEP)
    parser = add_verb(
        commands, "export", lambda args: export.main(args.raw), "write a run's weights as one small file to share",
        "cytovox export runs/organelle/ID mine.safetensors",
    )  # fmt: skip
    export.add_arguments(parser)
    _complete(parser, run=FOLDER, out=FILE)
    parser = add_verb(
        commands, "fetch", lambda args: fetch.main(args.raw),
        "fetch published data sets: 825 red blood cells and nuclei, from Zenodo", "cytovox fetch shapes --out data",
    )  # fmt: skip
    fetch.add_arguments(parser)
    _complete(parser, out=FOLDER)


def _complete(parser: argparse.ArgumentParser, **how: dict[str, str]) -> None:
    """Set the shell completion of arguments by their name."""
    for action in parser._actions:
        if action.dest in how:
            action.complete = how[action.dest]  # type: ignore[attr-defined]


def run_simulation(args: argparse.Namespace) -> int:
    """Run `python -m cytovox.simulation`."""
    from cytovox.simulation.__main__ import main

    return main(args.raw)
