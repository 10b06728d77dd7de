"""Write NAME.json for all shipped weights: the ranges of some of their training inputs.

    python docs/write_trained_on.py [--cells FOLDER] [--nuclei FOLDER]

The tomograms are simulated again, by the commands of the model cards; the folders hold the cells and nuclei that the
model cards of the shapes name, without which their files stay as they are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cytovox.io.atomic import atomic_path
from cytovox.simulation import PRESETS
from datamodules.shape.folder import find_inputs, read_shapes
from datamodules.simulated import cases_of, make_volumes, requests_of
from datamodules.splits import SPLITS
from experiments.config import load_config
from training.domain import describe

WEIGHTS = Path(__file__).resolve().parents[1] / "cytovox" / "networks" / "weights"
#: Some fields of each line, of those that the cells' networks were trained on.
FEW = [f"data.train.counts={{{', '.join(f'{line}: 4' for line in PRESETS)}}}"]
#: Config and overrides of each part of a training, and how many tomograms it had in all.
TRAININGS: dict[str, tuple[int, list[tuple[str, list[str]]]]] = {
    "organelle": (
        350,
        [
            ("organelle_weights", ["data.train.count=12"]),
            ("organelle_weights", ["data.train.count=12", "data.train.first_seed=12", "data.noise_ri=[0.0002,0.004]"]),
            (
                "organelle_weights",
                ["data.train.count=12", "data.noise_ri=[0.0002,0.004]", "data.density=[0.1,1.0]",
                 "data.shape=[96,128,128]"],
            ),
        ],
    ),
    **dict.fromkeys(("cells_offsets", "cells_network"), (75, [("cells", FEW)])),
}  # fmt: skip


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, default=None, help="folder with image/ and mask/ of the red blood cells")
    parser.add_argument("--nuclei", type=Path, default=None, help="the same of the nuclei")
    args = parser.parse_args()
    for name, (count, parts) in TRAININGS.items():
        cases = []
        for config, words in parts:
            typed = load_config(config, ["stages=[fit]", *words])
            requests = {"train": requests_of(typed.data)["train"]}
            make_volumes(typed.data, requests["train"])
            found = {split: requests.get(split, []) for split in SPLITS}
            cases += list(cases_of(typed.data, found)["train"])
        _write(name, {**describe(cases), "inputs": count})
    for name, folder in (("shape_rbc", args.cells), ("shape_nuclei", args.nuclei)):
        if folder is not None:
            _write(name, describe(read_shapes(find_inputs(folder))))


def _write(name: str, trained_on: dict[str, object]) -> None:
    with atomic_path(WEIGHTS / f"{name}.json") as part:
        part.write_text(json.dumps({"trained_on": trained_on}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {WEIGHTS / name}.json")


if __name__ == "__main__":
    main()
