"""What a training patch costs on one core.

Claims measured here: of the transforms that cut a patch, only the window that is read is our own
(transforms/patches.py), because MONAI's RandCropByLabelClassesd and RandZoomd take longer for the same; and MONAI's
lazy resampling, which applies all that follows at once, takes less than its transforms one after the other.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import numpy as np
import torch
from monai.transforms import (
    AsDiscreted,
    CenterSpatialCropd,
    Compose,
    EnsureTyped,
    RandCropByLabelClassesd,
    RandFlipd,
    RandRotated,
    RandZoomd,
)

from benchmarks._common import Table, Watch, finish, interleaved, options, ratio, show_ratio
from datamodules.config import SimulatedSet, SimulatorData
from datamodules.organelle import OrganelleDataModule
from experiments.config import load_config
from experiments.progress import silence_lightning
from transforms.patches import rand_organelle_patch

#: Shipped configs; one that reads a folder is given the simulated cells of `organelle_choi`.
CONFIGS = ("organelle_demo", "organelle_weights", "organelle_finetune", "organelle", "organelle_choi")
FOLDERS = ("organelle", "organelle_finetune")
FIELD: dict[str, Any] = {"shape": [96, 320, 320], "spacing_um": [0.3, 0.2, 0.2]}
#: Configs whose patch and volume the ways are compared on.
COMPARED = ("organelle_demo", "organelle")
METHODS = ("ours", "one after the other", "MONAI alone")
#: Probabilities of scaling and of rotating a patch.
LOOKS = {"copied": 0.0, "as shipped": 0.3, "rotated and scaled": 1.0}
KEYS = ("image", "mask")


def data_of(name: str, quick: bool) -> OrganelleDataModule:
    """The data of a shipped config, with a single simulated tomogram, prepared."""
    words = ["data.source=simulator", "init_from=null"] if name in FOLDERS else []
    config: SimulatorData = load_config(name, words).data
    changes: dict[str, Any] = FIELD if name in FOLDERS else {}
    if quick:
        changes = {"shape": [16, 48, 48], "spacing_um": [0.6, 0.6, 0.6], "patch_size": [8, 16, 16]}
        changes |= {"resample_grid": [16, 64, 64], "resample_spacing_um": [0.6, 0.6, 0.6]}
    one, none = SimulatedSet(["NIH3T3"], 1), SimulatedSet(count=0)
    config = dataclasses.replace(config, **changes, train=one, val=none, test=none, num_workers=0)
    data = OrganelleDataModule(config, seed=1)
    data.setup("fit")
    return data


def monai_alone(patch: list[int], p: float, organelles: int) -> Compose:
    """The same patch by MONAI's crop and zoom: the crop is as large as the smallest magnification needs."""
    side = math.ceil(math.hypot(*patch[1:])) if p else None
    largest = [math.ceil(n / (0.5 if p else 1)) for n in (patch[0], side or patch[1], side or patch[2])]
    crop = RandCropByLabelClassesd(
        KEYS, "mask", largest, num_classes=organelles, indices_key="indices", allow_smaller=True, warn=False
    )
    return Compose(
        [
            crop,
            RandZoomd(KEYS, p, 0.5, 2.0, keep_size=True, padding_mode="edge"),
            RandRotated(KEYS, range_x=math.pi, prob=p),
            CenterSpatialCropd(KEYS, patch),
            *(RandFlipd(KEYS, 0.5, axis) for axis in range(3)),
            AsDiscreted("mask", threshold=0.5),
            EnsureTyped(KEYS, dtype=(torch.float32, torch.uint8), track_meta=False),
        ],
        lazy=True,
        overrides={key: {"mode": "bilinear", "padding_mode": "border", "dtype": torch.float32} for key in KEYS},
    )


def patch_tasks(data: OrganelleDataModule, p: float, count: int) -> dict[str, Callable[[], None]]:
    """The three ways over the same volume, mapped from its file; each gives patches of the same size."""
    entry, patch = data.prepared["train"][0].arrays(), list(data.config.patch_size)
    organelles = len(entry["labelled"])
    centres = [entry.pop(f"centres_{k}") for k in range(organelles)]
    volume = {key: entry[key] for key in (*KEYS, "labelled")}
    shape = tuple(entry["image"].shape[1:])
    indices = [torch.from_numpy(np.ravel_multi_index(tuple(c.T), shape)) for c in centres]
    ours = rand_organelle_patch(patch, p_scale=p, p_rotate=p)
    eager = Compose(ours.transforms, lazy=False)
    alone = monai_alone(patch, p, organelles)
    given = {"ours": volume | {"centres": centres}, "one after the other": volume | {"centres": centres}}
    given["MONAI alone"] = {**{key: volume[key] for key in KEYS}, "indices": indices}
    tasks = dict(zip(METHODS, (ours, eager, alone), strict=True))
    for method, transform in tasks.items():
        cut = transform.set_random_state(0)(given[method])
        cut = cut[0] if isinstance(cut, list) else cut
        assert list(cut["image"].shape) == [1, *patch], method
        assert list(cut["mask"].shape) == [organelles, *patch], method
    return {method: partial(_cut, tasks[method], given[method], count) for method in METHODS}


def _cut(transform: Compose, volume: dict[str, Any], count: int) -> None:
    for _ in range(count):
        transform(volume)


def _draw(dataset: Any, count: int) -> None:
    for index in range(count):
        dataset[0, index]


def main() -> None:
    """Compare the three ways, then time whole samples of the shipped configs."""
    arguments = options("patch_speed", "Random training patches on one core.", repeats=7)
    silence_lightning()
    torch.set_num_threads(1)  # as in a loader process
    count = 2 if arguments.quick else 24
    modules = {name: data_of(name, arguments.quick) for name in CONFIGS}
    tasks: dict[str, Callable[[], Any]] = {}
    for name, look in product(COMPARED, LOOKS):
        ways = patch_tasks(modules[name], LOOKS[look], count)
        tasks |= {f"{name}: {look}: {method}": task for method, task in ways.items()}
    for name, data in modules.items():
        dataset = data.train_dataloader().dataset
        tasks[f"{name}|sample"] = partial(_draw, dataset, 2 * count)
    with Watch() as watch:
        seconds = interleaved(arguments, watch, tasks)

    rows: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    cuts = Table("One patch, one core", ["patch", "probability", "method", "ms", "times ours"])
    for name, look in product(COMPARED, LOOKS):
        patch = "x".join(map(str, modules[name].config.patch_size))
        ms = {method: [1e3 * s / count for s in seconds[f"{name}: {look}: {method}"]] for method in METHODS}
        for method, times in ms.items():
            rows[f"patch: {name}: {look}: {method}"] = {
                "patch": patch,
                "ms": times,
                "median_ms": statistics.median(times),
            }
            value = ratios[f"{method} over ours: {name}: {look}"] = ratio(times, ms["ours"])
            cuts.rows.append([patch, f"{LOOKS[look]:g}", method, f"{statistics.median(times):.1f}", show_ratio(value)])
    samples = Table(
        "A sample as the shipped configs draw it, one core",
        ["config", "volume", "patch", "zoomed, turned", "ms a sample", "ms a batch"],
    )
    for name, data in modules.items():
        config, volume = data.config, data.prepared["train"][0].arrays()["image"].shape[1:]
        times = [1e3 * s / (2 * count) for s in seconds[f"{name}|sample"]]
        median = statistics.median(times)
        rows[f"sample: {name}"] = {"volume": list(volume), "patch": config.patch_size, "ms": times, "median_ms": median}
        shapes = ["x".join(map(str, shape)) for shape in (volume, config.patch_size)]
        chances = f"{config.scale_probability:g}, {config.rotate_probability:g}"
        samples.rows.append([name, *shapes, chances, f"{median:.1f}", f"{median * config.batch_size:.1f}"])
    finish(arguments, rows, ratios, [cuts, samples], watch)


if __name__ == "__main__":
    main()
