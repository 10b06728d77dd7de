"""nnU-Net v2 (ResEnc-M plan) compared with the default network of `organelle`: equal data, equal minutes.

    python -m studies.nnunet --part data
    python -m studies.nnunet --part ours --minutes 8
    python -m studies.nnunet --part nnunet --minutes 8
    python -m studies.nnunet --part score

Both learn from the same simulated tomograms, are trained for the same minutes on the same device, and are tested on the
same volumes, of seeds that neither has seen, by the same score. nnU-Net gets region-based labels, its own plan,
preprocessing and augmentation, and the mirrored views of its own prediction; its polynomial schedule runs over the
minutes. Its training is one call: it does not continue. `--ours-only` leaves nnU-Net out.

References
----------
Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, Nature Methods
18, 2021; Isensee et al., nnU-Net revisited, MICCAI 2024, arXiv 2404.09556 (the ResEnc plans).
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.metrics.overlap import dice_per_organelle
from cytovox.organelles import ORGANELLES
from cytovox.simulation import PRESETS
from cytovox.statistics.bootstrap import difference, interval, mean_of
from datamodules.cases import Case
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
    run_study,
    train_for,
    trained_seconds,
    trained_steps,
    write_half_weights,
    write_result,
)
from training.rundir import write_json, write_text

PARTS = ("data", "ours", "nnunet", "score")
#: Steps of an epoch of ours.
EPOCH_STEPS = 250
DATASET = "Dataset001_Cytovox"
PLANNER, PLANS, CONFIGURATION, TRAINER = "nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans", "3d_fullres", "TimedTrainer"
#: nnU-Net's label of a voxel is the last of these whose mask holds it; each organelle is a region of labels.
REGIONS = {"membrane": [1, 2, 3, 4], "nucleus": [2, 3], "nucleolus": [3], "lipid": [4]}
#: nnU-Net's commands: module and function.
COMMANDS = {
    "plan": ("nnunetv2.experiment_planning.plan_and_preprocess_entrypoints", "plan_and_preprocess_entry"),
    "train": ("nnunetv2.run.run_training", "run_training_entry"),
    "predict": ("nnunetv2.inference.predict_from_raw_data", "predict_entry_point"),
}


def study(arguments: argparse.Namespace) -> None:
    """Do the chosen parts.

    Raises
    ------
    InputError
        An option or a config key is invalid, nnU-Net is not installed, or an earlier part has not been done.
    """
    chosen = arguments.part or PARTS
    if not arguments.ours_only and "nnunet" in chosen and importlib.util.find_spec("nnunetv2") is None:
        raise InputError("nnunetv2: not installed; pip install 'nnunetv2>=2.8,<2.9', or give --ours-only")
    arguments.out = arguments.out or arguments.work
    parts: dict[str, Callable[[argparse.Namespace], None]] = {
        "data": write_data, "ours": train_ours, "nnunet": run_nnunet, "score": score,
    }  # fmt: skip
    for part in PARTS:
        if part in chosen and not (part == "nnunet" and arguments.ours_only):
            parts[part](arguments)


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """Return the overrides of `organelle`: volumes as those of `organelle_weights`; the command line's come last."""
    sets = {
        "train": (arguments.count, 0), "val": (arguments.val_count, 100_000), "test": (arguments.test_count, 300_000)
    }  # fmt: skip
    words = [
        "data.source=simulator", "data.shape=[64,128,128]", "data.spacing_um=[0.3,0.3,0.3]",
        "data.medium_spread=0.002", "data.noise_ri=[0.0002,0.002]", "data.resample_spacing_um=[0.3,0.3,0.3]",
        f"data.batch_size={arguments.batch}", f"data.patches_per_epoch={EPOCH_STEPS * arguments.batch}",
        f"data.cache_dir={(arguments.work / 'cache').absolute()}", "trainer.benchmark=true",
        f"trainer.accelerator={device_of(arguments.device).type}",
    ]  # fmt: skip
    for split, (count, first_seed) in sets.items():
        words += [f"data.{split}.count={count}", f"data.{split}.first_seed={first_seed}"]
    return [*words, *arguments.overrides]


def cases_of(arguments: argparse.Namespace) -> Mapping[str, Sequence[Case]]:
    """Return the cases of every split, simulated on all cores if they are not in the cache."""
    config = load_config("organelle", overrides_of(arguments))
    with Bars() as bars:
        data = build_data(config, bars)
        task_of(config).prepare(data, ("fit", "test"), bars)
    found: Mapping[str, Sequence[Case]] = data.find()
    return found


def write_data(arguments: argparse.Namespace) -> None:
    """Simulate the volumes, and write them as nnU-Net's raw data set."""
    cases, raw = cases_of(arguments), arguments.work / "nnunet" / "raw" / DATASET
    lost = 0
    for split, found in cases.items():
        image_folder, label_folder = ("imagesTs", "labelsTs") if split == "test" else ("imagesTr", "labelsTr")
        for case in found:
            content = case.load()
            labels_ZYX = labels_of(content.masks_KZYX)
            lost += int(np.count_nonzero(regions_of(labels_ZYX) != (content.masks_KZYX == 1)))
            write_volume(raw / image_folder / f"{case.name}_0000.nii.gz", content.ri_ZYX, content.spacing_um)
            write_volume(raw / label_folder / f"{case.name}.nii.gz", labels_ZYX, content.spacing_um)
    about = {
        "channel_names": {"0": "refractive_index"},
        "labels": {"background": 0, **REGIONS},
        "regions_class_order": [1, 2, 3, 4],
        "numTraining": len(cases["train"]) + len(cases["val"]),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIO",
    }
    # not by write_json, which sorts keys: the order of the labels is that of regions_class_order
    write_text(raw / "dataset.json", json.dumps(about, indent=2) + "\n")
    names = {split: [case.name for case in found] for split, found in cases.items()}
    write_json(arguments.work / "nnunet" / "cases.json", {**names, "voxels_lost_as_labels": lost})
    print(f"written: {raw} ({lost} mask voxels cannot be expressed as labels)", flush=True)


def labels_of(masks_KZYX: np.ndarray) -> np.ndarray:
    """Return one label per voxel, uint8 (Z, Y, X), from the masks in the order of `ORGANELLES`."""
    labels_ZYX = np.zeros(masks_KZYX.shape[1:], np.uint8)
    for label, mask_ZYX in enumerate(masks_KZYX, start=1):
        labels_ZYX[mask_ZYX > 0] = label
    return labels_ZYX


def regions_of(labels_ZYX: np.ndarray) -> np.ndarray:
    """Return the masks that labels stand for, bool (K, Z, Y, X), in the order of `ORGANELLES`."""
    return np.stack([np.isin(labels_ZYX, REGIONS[name]) for name in ORGANELLES])


def write_volume(path: Path, values_ZYX: np.ndarray, spacing_um: Sequence[float]) -> None:
    """Write a NIfTI in the axis order that nnU-Net's nibabel reader turns back into (Z, Y, X)."""
    affine = np.diag([*reversed(spacing_um), 1.0])
    with atomic_path(path) as temporary:
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(values_ZYX.transpose(2, 1, 0)), affine), temporary)


def read_volume(path: Path) -> np.ndarray:
    """Read what `write_volume` or nnU-Net wrote, (Z, Y, X)."""
    return np.asanyarray(nibabel.nifti1.Nifti1Image.from_filename(path).dataobj).transpose(2, 1, 0)


def train_ours(arguments: argparse.Namespace) -> None:
    """Train `organelle` for the minutes of this call, and write its best weights."""
    runs, words = arguments.work / "runs", overrides_of(arguments)
    minutes = arguments.schedule_minutes or arguments.minutes
    steps = arguments.steps or planned_steps("organelle", words, runs, "ours", minutes, EPOCH_STEPS)
    words += [f"trainer.max_steps={steps}", "trainer.max_epochs=null"]
    folder = train_for("organelle", words, runs, "ours", arguments.minutes)
    print(f"ours: {trained_steps(folder)} of {steps} steps in {trained_seconds(folder) / 60:.1f} min", flush=True)
    weights = folder.weights()
    assert weights is not None
    print("weights:", *write_half_weights(weights, arguments.out / "nnunet_ours.safetensors"), flush=True)


def run_nnunet(arguments: argparse.Namespace) -> None:
    """Plan, preprocess, train and predict with nnU-Net; what is done is not done again."""
    work = arguments.work / "nnunet"
    if not (work / "cases.json").is_file():
        raise InputError("--part: no data set yet; run --part data first")
    device, preprocessed = device_of(arguments.device).type, work / "preprocessed" / DATASET
    if not (preprocessed / f"{PLANS}.json").is_file():
        words = ["-d", "1", "-pl", PLANNER, "-c", CONFIGURATION, "-np", str(min(16, os.cpu_count() or 1))]
        call_nnunet("plan", words, arguments)
    cases = read_cases(work)
    write_json(preprocessed / "splits_final.json", [{"train": cases["train"], "val": cases["val"]}])
    fold = work / "results" / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}" / "fold_0"
    if (fold / "checkpoint_final.pth").is_file():
        print(f"nnU-Net is trained already; remove {fold} to train it again", flush=True)
    else:
        call_nnunet("train", ["1", CONFIGURATION, "0", "-tr", TRAINER, "-p", PLANS, "-device", device], arguments)
    words = ["-i", str(work / "raw" / DATASET / "imagesTs"), "-o", str(work / "predicted"), "-d", "1", "-f", "0"]
    words += ["-c", CONFIGURATION, "-tr", TRAINER, "-p", PLANS, "-device", device, "--disable_progress_bar"]
    call_nnunet("predict", words, arguments)


def call_nnunet(command: str, words: Sequence[str], arguments: argparse.Namespace) -> None:
    """Run one of nnU-Net's commands in a process of its own; its output goes into `nnunet/COMMAND.log` and here.

    Raises
    ------
    InputError
        It failed.
    """
    module, function = COMMANDS[command]
    work = (arguments.work / "nnunet").absolute()
    trainers = Path(__file__).resolve().with_name("nnunet_trainers")
    environment = {
        **os.environ,
        **{f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")},
        "nnUNet_extTrainer": str(trainers),
        "CYTOVOX_NNUNET_MINUTES": str(arguments.minutes),
        "CYTOVOX_NNUNET_STEPS": str(arguments.steps or ""),
    }
    log = work / f"{command}.log"
    print(f"nnU-Net: {command} {' '.join(words)}", flush=True)
    with log.open("w", encoding="utf-8") as file:
        script = f"from {module} import {function}\nif __name__ == '__main__':\n    {function}()"
        running = subprocess.Popen(
            [sys.executable, "-c", script, *words],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert running.stdout is not None
        for line in running.stdout:
            file.write(line)
            file.flush()
            if "poch" in line or "Error" in line or "cytovox:" in line:
                print(line.rstrip(), flush=True)
    if running.wait():
        raise InputError(f"nnU-Net: {command} failed with exit code {running.returncode}; its output is in {log}")


def read_cases(work: Path) -> dict[str, Any]:
    """Return the names of the cases of every split."""
    found: dict[str, Any] = json.loads((work / "cases.json").read_text(encoding="utf-8"))
    return found


def score(arguments: argparse.Namespace) -> None:
    """Score both on the test volumes; print the table and write `nnunet.json`."""
    cases = cases_of(arguments)["test"]
    dice = {"ours": ours_dice(arguments, [case.name for case in cases])}
    if not arguments.ours_only:
        dice["nnU-Net"] = nnunet_dice(arguments, cases)
    rows: list[list[object]] = []
    figures: dict[str, Any] = {}
    for name, scores_NK in dice.items():
        shown: list[object] = [name]
        for k, organelle in enumerate([*ORGANELLES, "mean"]):
            values_N = scores_NK[:, k] if organelle != "mean" else np.nanmean(scores_NK, axis=1)
            found = interval(mean_of(values_N), len(values_N), strata=[case.cell_line for case in cases])
            shown.append(f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]")
            figures.setdefault(name, {})[organelle] = [found.value, found.low, found.high]
        rows.append(shown)
    print_table(f"Dice on {len(cases)} simulated volumes, mean [95 %]", ["network", *ORGANELLES, "mean"], rows)
    if "nnU-Net" in dice:
        means = {name: mean_of(np.nanmean(scores_NK, axis=1)) for name, scores_NK in dice.items()}
        found = difference(means["ours"], means["nnU-Net"], len(cases), strata=[case.cell_line for case in cases])
        print(f"ours minus nnU-Net, paired: {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
        figures["ours minus nnU-Net"] = [found.value, found.low, found.high]
    folder = existing_run(arguments.work / "runs", "ours")
    assert folder is not None
    values = {
        "minutes": arguments.minutes, "batch": arguments.batch, "overrides": list(arguments.overrides),
        "ours": {"steps": trained_steps(folder), "seconds": trained_seconds(folder), **folder.metrics()},
        "nnunet": nnunet_training(arguments), "dice": figures, "data": read_cases(arguments.work / "nnunet"),
    }  # fmt: skip
    write_result(arguments.out / "nnunet.json", "nnunet", values)


def ours_dice(arguments: argparse.Namespace, names: Sequence[str]) -> np.ndarray:
    """Test the trained weights through the run itself, and return the Dice (N, K) of the cases in this order."""
    folder = existing_run(arguments.work / "runs", "ours")
    if folder is None or folder.weights() is None:
        raise InputError("--part: ours is not trained yet; run --part ours first")
    launch("", [f"resume={folder.path}", "stages=[test]", *overrides_of(arguments)])
    with (folder.tables / "test_cases.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    return np.array([[float(rows[name][f"dice_{k}"] or "nan") for k in ORGANELLES] for name in names])


def nnunet_dice(arguments: argparse.Namespace, cases: Sequence[Case]) -> np.ndarray:
    """Return the Dice (N, K) of nnU-Net's predictions.

    Raises
    ------
    InputError
        A volume is not predicted yet.
    """
    found = []
    for case in cases:
        path = arguments.work / "nnunet" / "predicted" / f"{case.name}.nii.gz"
        if not path.is_file():
            raise InputError(f"--part: {path} is not there; run --part nnunet first, or give --ours-only")
        found.append(dice_per_organelle(regions_of(read_volume(path)), case.load().masks_KZYX == 1))
    return np.array(found)


def nnunet_training(arguments: argparse.Namespace) -> list[str]:
    """Return the lines of nnU-Net's log that say how long it was trained."""
    log = arguments.work / "nnunet" / "train.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return [line for line in lines if "cytovox:" in line]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and return its exit code."""
    parser = argparse.ArgumentParser(prog="studies.nnunet", description=(__doc__ or "").splitlines()[0])
    add_shared_options(parser, "nnunet")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; default: all")
    parser.add_argument("--ours-only", action="store_true", help="leave nnU-Net out")
    parser.add_argument("--count", type=int, default=100, help="training volumes (%(default)s)")
    parser.add_argument("--val-count", type=int, default=len(PRESETS), help="validation volumes (%(default)s)")
    parser.add_argument("--test-count", type=int, default=30, help="test volumes (%(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="patches a step of ours (%(default)s)")
    parser.add_argument("--schedule-minutes", type=float, default=None, help="of all calls for ours; --minutes")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    arguments = parser.parse_intermixed_args(argv)
    for option in ("count", "val_count", "test_count", "batch"):
        if getattr(arguments, option) < 1:
            parser.error(f"--{option.replace('_', '-')}: expected 1 or more, got {getattr(arguments, option)}")
    return run_study(study, arguments)


if __name__ == "__main__":
    sys.exit(main())
