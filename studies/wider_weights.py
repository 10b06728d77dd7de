"""The shipped organelle and cell networks, trained again with more feature maps, and compared with the shipped weights.

    python -m studies.wider_weights --part simulate
    python -m studies.wider_weights --part train --minutes 8 --schedule-minutes 16    # again for the second half
    python -m studies.wider_weights --part test

`--task organelle` (the default) trains `organelle_weights`, `--task cells` trains `cells`, each with `--width` times
the feature maps of the shipped network. `--width 1 --width 2` trains both, which separates the gain of width from that
of longer training. The learning rate falls as a cosine over `--schedule-minutes`. Volumes are simulated on all cores,
or read from a folder (`--volumes FOLDER`: volumes, and one mask file per organelle named `NAME_{organelle}.nii.gz`, as
`python -m cytovox.simulation` writes them). All weights are tested on simulated volumes of seeds that none was trained
on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cytovox.errors import InputError
from cytovox.simulation import PRESETS
from experiments.build import build_data
from experiments.config import load_config
from experiments.launch import launch
from experiments.progress import Bars
from experiments.tasks import task_of
from studies._common import (
    add_shared_options,
    device_of,
    existing_run,
    planned_steps,
    print_table,
    require_folder,
    run_study,
    train_for,
    trained_seconds,
    trained_steps,
    write_half_weights,
    write_result,
)
from training.rundir import RunFolder

#: Steps of an epoch, after each of which the network is validated.
EPOCH_STEPS = 500
PARTS = ("simulate", "train", "test")


@dataclass(frozen=True)
class Subject:
    """What is trained again."""

    config: str
    """Shipped config."""
    shipped: str
    """Name of the shipped weights."""
    channels: tuple[int, ...]
    """Of the shipped network."""
    scores: tuple[str, ...]
    """Metrics of the test to show."""


#: By `--task`.
SUBJECTS = {
    "organelle": Subject(
        "organelle_weights", "organelle", (16, 32, 64, 128),
        ("dice_membrane", "dice_nucleus", "dice_nucleolus", "dice_lipid", "dice_mean"),
    ),
    "cells": Subject(
        "cells", "cells_offsets", (16, 32, 64, 128), ("true/dice", "rule/dice", "rule/ap_50", "watershed/dice")
    ),
}  # fmt: skip


def study(arguments: argparse.Namespace) -> None:
    """Do the chosen parts.

    Raises
    ------
    InputError
        The data, an option or a config key is invalid, or an earlier part has not been done.
    """
    if arguments.volumes != "simulated":
        require_folder(Path(arguments.volumes), "--volumes")
    arguments.out = arguments.out or arguments.work
    parts: dict[str, Callable[[argparse.Namespace], None]] = {"simulate": simulate, "train": train, "test": test}
    for part in PARTS:
        if part in (arguments.part or PARTS):
            parts[part](arguments)


def simulate(arguments: argparse.Namespace) -> None:
    """Fill the cache with the volumes of training, validation and test, on all cores."""
    subject = SUBJECTS[arguments.task]
    sets = {("fit",): training_overrides(arguments), ("test",): test_overrides(arguments)}
    for stages, words in sets.items():
        config = load_config(subject.config, words)
        with Bars() as bars:
            task_of(config).prepare(build_data(config, bars, stages=stages), stages, bars)


def shared_overrides(arguments: argparse.Namespace) -> list[str]:
    """Return the overrides of training and test."""
    return [
        f"data.cache_dir={(arguments.work / 'cache').absolute()}",
        f"trainer.accelerator={device_of(arguments.device).type}",
    ]


def training_overrides(arguments: argparse.Namespace) -> list[str]:
    """Return the overrides of training: volumes, batch and epoch; the key=value of the command line come last."""
    words = [
        *shared_overrides(arguments), f"data.batch_size={arguments.batch}", "trainer.benchmark=true",
        f"data.patches_per_epoch={EPOCH_STEPS * arguments.batch}", "trainer.check_val_every_n_epoch=1",
    ]  # fmt: skip
    if arguments.volumes == "simulated":
        words.append(f"data.train.counts={counts_of(arguments.count)}")
    else:
        words += [
            "data.source=folder", f"data.root={Path(arguments.volumes).absolute()}", "data.volumes='*.TCF'",
            "data.masks='*_{organelle}.nii.gz'", "data.split={train: 0.95, val: 0.05, test: 0.0}",
        ]  # fmt: skip
    return [*words, *arguments.overrides]


def counts_of(count: int) -> str:
    """Return so many volumes as equal numbers of each line, for `counts`; at least one of each."""
    return "{" + ", ".join(f"{line}: {max(1, count // len(PRESETS))}" for line in PRESETS) + "}"


def test_overrides(arguments: argparse.Namespace) -> list[str]:
    """Return the overrides of the test: seeds that no weights were trained on."""
    counts = counts_of(arguments.test_count)
    return [*shared_overrides(arguments), f"data.test.counts={counts}", "data.test.first_seed=300000"]


def run_name(arguments: argparse.Namespace, width: int) -> str:
    """Return the name of the run of a width."""
    return f"{arguments.task}_width{width}"


def width_overrides(subject: Subject, width: int) -> list[str]:
    """Return the overrides of a width."""
    return [f"model.channels={[width * channels for channels in subject.channels]}"]


def train(arguments: argparse.Namespace) -> None:
    """Train every width for the minutes of this call, and write its best weights."""
    subject, runs = SUBJECTS[arguments.task], arguments.work / "runs"
    for width in arguments.width:
        name = run_name(arguments, width)
        words = [*width_overrides(subject, width), *training_overrides(arguments)]
        minutes = arguments.schedule_minutes or arguments.minutes
        steps = arguments.steps or planned_steps(subject.config, words, runs, name, minutes, EPOCH_STEPS)
        words += [f"trainer.max_steps={steps}", "trainer.max_epochs=null"]
        folder = train_for(subject.config, words, runs, name, arguments.minutes)
        done, seconds = trained_steps(folder), trained_seconds(folder)
        print(f"{name}: {done} of {steps} steps in {seconds / 60:.1f} min", flush=True)
        files = write_half_weights(weights_of(folder), arguments.out / f"{name}.safetensors")
        print("weights:", *files, flush=True)


def weights_of(folder: RunFolder | None) -> Path:
    """Return the best checkpoint of a run, else its last.

    Raises
    ------
    InputError
        There is none.
    """
    found = folder.weights() if folder is not None else None
    if found is None:
        raise InputError("--part: nothing is trained yet; run --part train first")
    return found


def test(arguments: argparse.Namespace) -> None:
    """Test every width and the shipped weights on the same volumes, and write `wider_weights_TASK.json`."""
    subject, runs = SUBJECTS[arguments.task], arguments.work / "runs"
    trained = {width: existing_run(runs, run_name(arguments, width)) for width in arguments.width}
    named = {f"width {width}": str(weights_of(folder)) for width, folder in trained.items()}
    rows, found = [], {}
    for number, (label, checkpoint) in enumerate({"shipped": subject.shipped, **named}.items()):
        name = f"{arguments.task}_test{number}"
        words = [*test_overrides(arguments), "stages=[test]", f"predict.checkpoint={checkpoint}", f"name={name}"]
        launch(
            subject.config, [*words, f"runs_dir={runs}", "logging.wandb=disabled", "trainer.enable_progress_bar=false"]
        )
        folder = existing_run(runs, name)
        assert folder is not None
        metrics = {
            key.removeprefix("test/"): value for key, value in folder.metrics().items() if key.startswith("test/")
        }
        rows.append([label, *(metrics.get(score, float("nan")) for score in subject.scores)])
        found[label] = metrics
    print_table(f"Test of {arguments.task}, seeds 300000 on", ["weights", *subject.scores], rows)
    training = {}
    for width, folder in trained.items():
        assert folder is not None
        training[f"width {width}"] = {
            "steps": trained_steps(folder), "seconds": trained_seconds(folder), **folder.metrics(),
        }  # fmt: skip
    values = {
        "task": arguments.task, "volumes": arguments.volumes, "count": arguments.count, "batch": arguments.batch,
        "overrides": list(arguments.overrides), "training": training, "test": found,
    }  # fmt: skip
    write_result(arguments.out / f"wider_weights_{arguments.task}.json", "wider_weights", values)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and return its exit code."""
    parser = argparse.ArgumentParser(prog="studies.wider_weights", description=(__doc__ or "").splitlines()[0])
    add_shared_options(parser, "wider_weights")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; default: all")
    parser.add_argument("--task", choices=tuple(SUBJECTS), default="organelle", help="(%(default)s)")
    parser.add_argument("--width", action="append", type=int, help="times the shipped feature maps (2); repeatable")
    parser.add_argument("--volumes", default="simulated", help="simulated, or a folder (%(default)s)")
    parser.add_argument("--count", type=int, default=400, help="simulated training volumes (%(default)s)")
    parser.add_argument("--test-count", type=int, default=30, help="simulated test volumes (%(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="patches a step (%(default)s)")
    parser.add_argument("--schedule-minutes", type=float, default=None, help="of all parts together; --minutes")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    arguments = parser.parse_intermixed_args(argv)
    arguments.width = arguments.width or [2]
    for option in ("count", "test_count", "batch"):
        if getattr(arguments, option) < 1:
            parser.error(f"--{option.replace('_', '-')}: expected 1 or more, got {getattr(arguments, option)}")
    if min(arguments.width) < 1:
        parser.error(f"--width: expected 1 or more, got {min(arguments.width)}")
    return run_study(study, arguments)


if __name__ == "__main__":
    sys.exit(main())
