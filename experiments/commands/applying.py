"""Commands that apply trained models to files: `predict`, `cells`, `analyze`, `shapes`."""

from __future__ import annotations

import argparse
import functools
from typing import TYPE_CHECKING, Any

from cytovox.errors import InputError
from experiments.commands.parsers import FILE, FOLDER, VerbParser, add_completed, add_verb
from experiments.commands.training import CONFIG, add_options, add_weights, flags_of
from experiments.commands.words import quoted, quoted_files, split_words

if TYPE_CHECKING:
    from experiments.commands.requests import RunCall

FILES_HELP = (
    "tomograms: TCF, OME-TIFF, TIFF, NIfTI, OME-Zarr, a folder of them, a quoted pattern, or a list in a .txt; names "
    "that begin with a dash, or look like key=value, after --"
)


def add_verbs(commands: Any) -> None:
    """Add the commands of this module."""
    parser = _add(
        commands, "predict",
        functools.partial(_apply, verb="predict", tasks=("organelle",), default="organelle", what="FILES"),
        "predict the masks of organelles of tomograms",
        "cytovox predict cells/*.TCF --out masks\ncytovox predict cells/*.TCF --out masks --weights runs/organelle/ID",
        "FILES ... --out DIR [--weights W] [--config CONFIG] [key=value ...]",
    )  # fmt: skip
    add_completed(parser, FOLDER, "--out", metavar="DIR", help="folder of the masks")
    add_weights(parser)
    add_config(parser, "organelle, or that of the weights' own run")
    add_options(parser)

    parser = add_verb(
        commands, "cells", cells, "label the cells in masks of membrane and nucleus",
        "cytovox cells --membrane m.nii.gz --nucleus n.nii.gz --out labels",
        "--membrane M --nucleus N --out DIR [--ri TOMOGRAM] [--config CONFIG] [key=value ...]",
    )  # fmt: skip
    add_completed(parser, FILE, "--membrane", metavar="M", help="mask of filled cells: OME-TIFF, TIFF, NIfTI, OME-Zarr")
    add_completed(parser, FILE, "--nucleus", metavar="N", help="mask of nuclei, on the same grid")
    add_completed(parser, FILE, "--ri", metavar="TOMOGRAM", help="the tomogram, for methods offsets and network")
    add_completed(parser, FOLDER, "--out", metavar="DIR", help="folder of the labels and the table")
    add_config(parser, "cells_from_masks")
    add_options(parser, "--check")
    parser.add_argument("words", metavar="key=value", nargs="*", help="override keys of the config")

    parser = _add(
        commands, "analyze", analyze, "measure cells in tomograms: masks, cells, tracks, tables, figures, a report",
        "cytovox analyze dish/*.TCF --groups '*/{group}_*.TCF' --out results\n"
        "cytovox analyze --watch /data/microscope",
        "FILES ... [--groups PATTERN | CSV] [--out DIR] [--watch DIR] [--config CONFIG] [key=value ...]",
    )  # fmt: skip
    add_completed(
        parser, FILE, "--groups", metavar="PATTERN|CSV",
        help="pattern of paths in which {group} stands for the group, or a CSV with the columns file and group",
    )  # fmt: skip
    add_completed(parser, FOLDER, "--out", metavar="DIR", help="folder of the results; by default one below runs/")
    add_completed(parser, FOLDER, "--watch", metavar="DIR", help="analyse new files and frames that appear in a folder")
    add_config(parser, "analyze")
    add_options(parser, "--check", "--submit", "--dry-run")

    parser = add_verb(
        commands, "shapes",
        functools.partial(_apply, verb="shapes", tasks=("shape", "shapr"), default="shape_rbc", what="FOLDER"),
        "predict the 3D shapes of cells from 2D images and masks",
        "cytovox shapes cells --out shapes\ncytovox shapes nuclei --out shapes --weights shape_nuclei",
        "FOLDER ... --out DIR [--weights W] [--config CONFIG] [key=value ...]",
        literal_after_dashes=True,
    )  # fmt: skip
    add_completed(
        parser, FOLDER, "words", metavar="FOLDER", nargs="*", help="folders with the subfolders image and mask"
    )
    add_completed(parser, FOLDER, "--out", metavar="DIR", help="folder of the shapes")
    add_weights(parser)
    add_config(parser, "shape_rbc, or the config of the weights")
    add_options(parser)


def _add(commands: Any, name: str, call: Any, summary: str, example: str, usage: str) -> VerbParser:
    parser = add_verb(commands, name, call, summary, example, usage, literal_after_dashes=True)
    add_completed(parser, FILE, "words", metavar="FILES", nargs="*", help=FILES_HELP)
    return parser


def add_config(parser: argparse.ArgumentParser, default: str) -> None:
    """Add `--config`."""
    add_completed(
        parser, CONFIG, "--config", metavar="CONFIG", help=f"a YAML file or the name of a shipped config ({default})"
    )


def _apply(args: argparse.Namespace, verb: str, tasks: tuple[str, ...], default: str, what: str) -> int:
    """Run the predict stage of a config of one of these tasks."""
    from experiments.commands.requests import RunCall, config_for, require_weights

    files, overrides = split_words(args.words, args.literal)
    call = RunCall(verb, "", overrides)
    if not call.resumes or args.config:
        require_weights(verb, args.weights, tasks)
        call.config = args.config or config_for(args.weights, default)
    composed = call.composed()
    call.require_task(composed, tasks)
    call.set("stages", "[predict]", f"cytovox {verb}")
    group = composed.values.get("predict")
    # the inputs in the config of the weights' own run are not meant
    named = args.config or call.resumes or call.gives("predict.inputs")
    _set_files(call, files, "predict.inputs", what, named and isinstance(group, dict) and group.get("inputs"))
    if args.out is None and not call.gives("predict.out") and not call.resumes:
        raise InputError(f"{verb}: no --out; name the folder for the results, such as --out {default}_results")
    call.set_path("predict.out", args.out, "--out")
    call.set_weights(composed, args.weights)
    return call.run(flags_of(args))


def _set_files(call: RunCall, files: list[str], key: str, what: str, in_config: Any) -> None:
    if files:
        call.set(key, quoted_files(files, what), what)
    elif not in_config:
        raise InputError(f"{call.verb}: no {what}; name the inputs, such as {_EXAMPLE_OF[call.verb]}")


_EXAMPLE_OF = {
    "predict": "cytovox predict cells/*.TCF --out masks",
    "analyze": "cytovox analyze cells/*.TCF",
    "shapes": "cytovox shapes FOLDER --out shapes, where FOLDER has the subfolders image and mask",
}


def cells(args: argparse.Namespace) -> int:
    """Run task cells_from_masks."""
    from experiments.commands.requests import RunCall

    files, overrides = split_words(args.words)
    if files:
        raise InputError(f"cells: {files[0]}: unexpected; name the masks with --membrane and --nucleus")
    call = RunCall("cells", args.config or "cells_from_masks", overrides)
    composed = call.composed()
    given = {key: getattr(args, key) for key in ("membrane", "nucleus", "ri", "out")}
    missing = [key for key in ("membrane", "nucleus", "out") if not (given[key] or composed.values.get(key))]
    if missing and not args.config:
        raise InputError(
            f"cells: no --{missing[0]}; this command labels the cells in masks of membrane and nucleus; to train the "
            "network of the config cells, use cytovox train cells"
        )
    call.require_task(composed, ("cells_from_masks",))
    if missing:
        raise InputError(f"cells: no --{missing[0]}; see cytovox cells --help")
    for key, value in given.items():
        call.set_path(key, value, f"--{key}")
    return call.run(flags_of(args))


def analyze(args: argparse.Namespace) -> int:
    """Run task analyze."""
    from experiments.commands.requests import RunCall

    files, overrides = split_words(args.words, args.literal)
    call = RunCall("analyze", "", overrides)
    if not call.resumes or args.config:
        call.config = args.config or "analyze"
    composed, watch = call.composed(), []
    call.require_task(composed, ("analyze",))
    if args.watch is not None:
        if files or call.gives("inputs"):
            raise InputError("analyze: FILES and --watch: give one of them; --watch analyses all files of its folder")
        if args.submit or args.check:
            raise InputError("analyze: --watch: not with --check or --submit; leave one of them out")
        watch = [f"--watch={args.watch}"]
    else:
        _set_files(call, files, "inputs", "FILES", composed.values.get("inputs"))
    if args.groups is not None:
        call.set("groups", quoted(args.groups, "--groups"), "--groups")
    call.set_path("out", args.out, "--out")
    if args.dry_run and not args.submit:
        raise InputError("analyze: --dry-run: only with --submit, where it prints the job script; leave it out")
    return call.run(watch + flags_of(args))
