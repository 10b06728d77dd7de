"""Verbs that hand their words to a command of its own: `simulate`, `sweep`, `export`, `fetch`."""

from __future__ import annotations

import argparse
from typing import Any

from experiments.commands.parsers import FILE, FOLDER, add_verb

#: How the shell completes a sweep: shipped names and files.
SWEEP = {"bash": "_cytovox_sweeps", "zsh": "_cytovox_sweeps", "tcsh": "f"}


def add_verbs(commands: Any, simulator: bool) -> None:
    """Add the verbs of this module.

    Parameters
    ----------
    commands : object
        What `ArgumentParser.add_subparsers` returned.
    simulator : bool
        Whether the options of `simulate` are added, for which the simulator is imported.
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
        commands, "sweep", run_sweep, "search for better settings: a W&B sweep, with W&B's server or without",
        "cytovox sweep sweeps/organelle --count 20",
    )  # fmt: skip
    sweep.add_arguments(parser)
    _complete(parser, sweep=SWEEP)

    parser = add_verb(
        commands, "export", run_export, "write a run's weights as one small file to share",
        "cytovox export runs/organelle/ID mine.safetensors",
    )  # fmt: skip
    export.add_arguments(parser)
    _complete(parser, run=FOLDER, out=FILE)

    parser = add_verb(
        commands, "fetch", run_fetch, "fetch published data sets: 825 red blood cells and nuclei, from Zenodo",
        "cytovox fetch shapes --out data",
    )  # fmt: skip
    fetch.add_arguments(parser)
    _complete(parser, out=FOLDER)


def _complete(parser: argparse.ArgumentParser, **how: dict[str, str]) -> None:
    for action in parser._actions:
        if action.dest in how:
            action.complete = how[action.dest]  # type: ignore[attr-defined]


def run_simulation(args: argparse.Namespace) -> int:
    """`cytovox simulate`: `python -m cytovox.simulation`."""
    from cytovox.simulation.__main__ import main

    return main(args.raw)


def run_sweep(args: argparse.Namespace) -> int:
    """`cytovox sweep`: `python -m experiments.sweep`."""
    from experiments.sweep import main

    return main(args.raw)


def run_export(args: argparse.Namespace) -> int:
    """`cytovox export`: `python -m experiments.export`."""
    from experiments.export import main

    return main(args.raw)


def run_fetch(args: argparse.Namespace) -> int:
    """`cytovox fetch`: `python -m experiments.fetch`."""
    from experiments.fetch import main

    return main(args.raw)
