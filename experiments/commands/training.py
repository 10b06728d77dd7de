"""Commands for training: `train`, `test`, `search`; `check` and `plan` before it; `run` for any config."""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from experiments.commands.parsers import FOLDER, Run, VerbParser, add_completed, add_verb
from experiments.commands.words import resume_word

#: Shell completion of a config: shipped names and files; see `experiments.commands.completion`.
CONFIG = {"bash": "_cytovox_configs", "zsh": "_cytovox_configs", "tcsh": "f"}

OPTIONS = {
    "--check": "validate the config and find its files; run nothing",
    "--plan": "measure a few steps: memory, time, patches; run nothing else",
    "--dry-run": "one step of every stage; with --submit, print the job script",
    "--submit": "submit the run to SLURM",
}


def add_verbs(commands: Any) -> None:
    """Add the commands of this module."""
    trained = "CONFIG [key=value ...] [--check | --plan | --dry-run | --submit]"
    parser = _add(
        commands, "train", functools.partial(_train, verb="train", tasks=()), "train and test a model",
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
        commands, "search", functools.partial(_train, verb="search", tasks=("search",)),
        "search a segmentation network, then train it", "cytovox search scnas_search_demo", trained,
    )  # fmt: skip
    add_options(parser)
    _add(
        commands, "check", check, "report errors in a config and its data; run nothing",
        "cytovox check organelle data.volumes='dish*/*.TCF'", "CONFIG [key=value ...]",
    )  # fmt: skip
    _add(
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
        help="a YAML file, the name of a shipped config, or a run folder to resume",
    )  # fmt: skip
    parser.add_argument("words", metavar="key=value", nargs="*", help="override keys of the config")
    return parser


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add these options of `experiments.run`; without names, all of them."""
    for name in names or OPTIONS:
        parser.add_argument(name, action="store_true", help=OPTIONS[name])


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`."""
    add_completed(
        parser, {"bash": "_cytovox_weights", "zsh": "_cytovox_weights", "tcsh": "f"}, "--weights", metavar="W",
        action="append", default=[],
        help="a run folder, a .ckpt or .safetensors file, or a shipped name; repeat it for an ensemble",
    )  # fmt: skip


def flags_of(args: argparse.Namespace) -> list[str]:
    """Return the options of `experiments.run` among the arguments."""
    return [option for option in OPTIONS if getattr(args, option.strip("-").replace("-", "_"), False)]


def _train(args: argparse.Namespace, verb: str, tasks: Sequence[str]) -> int:
    """Run fit and test of a config of one of these tasks; without tasks, of any task that is trained."""
    from experiments.commands.requests import RunCall

    call = RunCall.of_config(verb, args.config, args.words)
    composed = call.composed()
    call.require_task(composed, tasks)
    if call.gives("stages"):
        stages = composed.values.get("stages")
        if "fit" not in (stages if isinstance(stages, list) else [stages]):
            raise InputError(f"{verb}: stages={stages}: no fit among them; use cytovox run, which accepts any stages")
    elif not call.resumes:  # a resumed run completes its own stages
        call.set("stages", "[fit,test]", f"cytovox {verb}")
    return call.run(flags_of(args))


def test(args: argparse.Namespace) -> int:
    """Run the test stage alone."""
    from experiments.commands.requests import RunCall

    call = RunCall.of_config("test", args.config, args.words)
    composed = call.composed()
    call.require_task(composed, ())
    call.set("stages", "[test]", "cytovox test")
    call.set_weights(composed, args.weights)
    return call.run(flags_of(args))


def check(args: argparse.Namespace) -> int:
    """Run `--check` of a config of any task."""
    from experiments.commands.requests import RunCall, require_own_keys, task_in

    call = RunCall.of_config("check", args.config, args.words)
    require_own_keys(task_in(call.composed()), call.overrides)
    return call.run(["--check"])


def plan(args: argparse.Namespace) -> int:
    """Run `--plan` of a config of a task that is trained."""
    from experiments.commands.requests import RunCall

    call = RunCall.of_config("plan", args.config, args.words)
    call.require_task(call.composed(), ())
    return call.run(["--plan"])


def run(args: argparse.Namespace) -> int:
    """Run all words unchanged, except that a run folder in place of CONFIG is resumed."""
    from experiments.run import main

    words = list(args.raw)
    if words and Path(words[0]).is_dir():
        words[0] = resume_word(words[0])
    return main(words)
