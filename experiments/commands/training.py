"""Verbs for what is trained: `train`, `test`, `search`; `check` and `plan` before it; `run` for anything."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.commands.parsers import FOLDER, Run, VerbParser, add_completed, add_verb

#: How the shell completes a config: shipped names and files; see `experiments.commands.completion`.
CONFIG = {"bash": "_cytovox_configs", "zsh": "_cytovox_configs", "tcsh": "f"}

OPTIONS = {
    "--check": "validate the config and find its files; run nothing",
    "--plan": "measure a few steps: memory, time, patches; run nothing else",
    "--dry-run": "one step of every stage; with --submit, print the job script",
    "--submit": "have SLURM run it",
}


def add_verbs(commands: Any) -> None:
    """Add the verbs of this module."""
    trained = "CONFIG [key=value ...] [--check | --plan | --dry-run | --submit]"
    parser = _add(
        commands, "train", train, "train and test a model",
        "cytovox train organelle data.volumes='dish*/*.TCF' data.masks='dish*/*_{organelle}.nii.gz'", trained,
    )  # fmt: skip
    add_options(parser)
    parser = _add(
        commands, "test", test, "score trained weights on the test cases",
        "cytovox test organelle_demo --weights runs/organelle_demo/ID", trained + " [--weights W]",
    )  # fmt: skip
    add_options(parser)
    add_weights(parser)
    parser = _add(
        commands, "search", search, "search a segmentation network, then train it",
        "cytovox search scnas_search_demo", trained,
    )  # fmt: skip
    add_options(parser)
    parser = _add(
        commands, "check", check, "say what is wrong with a config and its data; run nothing",
        "cytovox check organelle data.volumes='dish*/*.TCF'", "CONFIG [key=value ...]",
    )  # fmt: skip
    parser = _add(
        commands, "plan", plan, "measure the memory and time that a run will take; run nothing else",
        "cytovox plan organelle_demo trainer.devices=1", "CONFIG [key=value ...]",
    )  # fmt: skip
    parser = _add(
        commands, "run", run, "run any config with its own stages, as python -m experiments.run does",
        "cytovox run organelle_demo 'stages=[fit,test,predict]' 'predict.inputs=[cells/*.TCF]'",
        f"{trained[:-1]} | --watch DIR]",
    )  # fmt: skip
    add_options(parser)
    add_completed(parser, FOLDER, "--watch", metavar="DIR", help="task analyze: analyse new files of a folder")
    parser.set_defaults(unparsed=True)


def _add(commands: Any, name: str, call: Run, summary: str, example: str, usage: str) -> VerbParser:
    parser = add_verb(commands, name, call, summary, example, usage)
    add_completed(
        parser, CONFIG, "config", metavar="CONFIG", nargs="?",
        help="a YAML file, the name of a shipped config, or a run folder to go on in",
    )  # fmt: skip
    parser.add_argument("words", metavar="key=value", nargs="*", help="override keys of the config")
    return parser


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add options of `experiments.run`: all of them, or these."""
    for name in names or OPTIONS:
        parser.add_argument(name, action="store_true", help=OPTIONS[name])


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`."""
    add_completed(
        parser, {"bash": "_cytovox_weights", "zsh": "_cytovox_weights", "tcsh": "f"}, "--weights", metavar="W",
        action="append", default=[],
        help="a run folder, a .ckpt or .safetensors file, or a shipped name; give it again for an ensemble",
    )  # fmt: skip


def flags_of(args: argparse.Namespace) -> list[str]:
    """Return the options of `experiments.run` that were given."""
    return [option for option in OPTIONS if getattr(args, option.strip("-").replace("-", "_"), False)]


def train(args: argparse.Namespace) -> int:
    """`cytovox train`: fit and test."""
    return _train(args, "train", ())


def search(args: argparse.Namespace) -> int:
    """`cytovox search`: the same for task search."""
    return _train(args, "search", ("search",))


def _train(args: argparse.Namespace, verb: str, tasks: Sequence[str]) -> int:
    from cytovox.errors import InputError
    from experiments.commands.requests import RunCall

    call = RunCall.of_config(verb, args.config, args.words)
    composed = call.composed()
    call.require_task(composed, tasks)
    if call.gives("stages"):
        stages = composed.values.get("stages")
        if "fit" not in (stages if isinstance(stages, list) else [stages]):
            raise InputError(f"{verb}: stages={stages}: no fit among them; use cytovox run, which takes any stages")
    elif not call.resumes:  # a resumed run does what is left of its own stages
        call.set("stages", "[fit,test]", f"cytovox {verb}")
    call.flags = flags_of(args)
    return call.run()


def test(args: argparse.Namespace) -> int:
    """`cytovox test`: the test stage alone."""
    from experiments.commands.requests import RunCall, require_weights, task_in, weights_value

    call = RunCall.of_config("test", args.config, args.words)
    composed = call.composed()
    call.require_task(composed, ())
    call.set("stages", "[test]", "cytovox test")
    if args.weights:
        require_weights("test", args.weights, [task_in(composed)])
        call.set("predict.checkpoint", weights_value(args.weights), "--weights")
    call.flags = flags_of(args)
    return call.run()


def check(args: argparse.Namespace) -> int:
    """`cytovox check`: `--check`."""
    return _with_flag(args, "check")


def plan(args: argparse.Namespace) -> int:
    """`cytovox plan`: `--plan`."""
    return _with_flag(args, "plan")


def _with_flag(args: argparse.Namespace, verb: str) -> int:
    from experiments.commands.requests import RunCall, require_own_keys, task_in

    call = RunCall.of_config(verb, args.config, args.words)
    composed = call.composed()
    if verb == "plan":
        call.require_task(composed, ())
    else:
        require_own_keys(task_in(composed), call.overrides)
    call.flags = [f"--{verb}"]
    return call.run()


def run(args: argparse.Namespace) -> int:
    """`cytovox run`: all words as they are; a run folder in place of CONFIG is resumed."""
    from experiments.commands.words import resume_word
    from experiments.run import main

    words = [resume_word(word) if Path(word).is_dir() and number == 0 else word for number, word in enumerate(args.raw)]
    return main(words)
