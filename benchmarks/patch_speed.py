"""What a training patch costs on one core.

Claim measured here: a turn about z is separable, so the warp of `RandOrganellePatchd` is faster than one 3D
`grid_sample` of the same box (transforms/patches.py). MONAI's `RandAffined` is timed beside them, given the box and
the very same turn. That all three give the same image is checked first.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
from collections.abc import Callable, Hashable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import numpy as np
import torch
from monai.transforms import RandAffined
from torch.nn.functional import affine_grid, grid_sample

from benchmarks._common import Table, Watch, finish, interleaved, options, ratio, show_ratio
from datamodules.config import SimulatedSet, SimulatorData
from datamodules.organelle import OrganelleDataModule
from experiments.config import load_config
from experiments.progress import silence_lightning
from transforms.patches import Placement, RandOrganellePatchd, Shape, foreground_centres, warp

#: Shipped configs; one that reads a folder is given the simulated cells of `organelle_choi`.
CONFIGS = ("organelle_demo", "organelle_weights", "organelle_finetune", "organelle", "organelle_choi")
FOLDERS = ("organelle", "organelle_finetune")
FIELD: dict[str, Any] = {"shape": [96, 320, 320], "spacing_um": [0.3, 0.2, 0.2]}
#: Configs whose patch and volume the three warps are compared on.
WARPED = ("organelle_demo", "organelle")
SEED_SOURCES = ("separable", "grid_sample 3D", "RandAffined")
#: Probability of zooming a patch; all are turned.
LOOKS = {"turned": 0.0, "turned and zoomed": 1.0}

Arrays = tuple[np.ndarray, np.ndarray]
Patch = tuple[torch.Tensor, torch.Tensor]


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


def box_of(placement: Placement, patch: Shape, shape: Shape) -> list[slice]:
    """The part of the volume that a patch shows."""
    corners = np.array(np.meshgrid(*([-(n - 1) / 2, (n - 1) / 2] for n in patch), indexing="ij")).reshape(3, -1)
    places = np.asarray(placement.centre)[:, None] + placement.matrix @ corners
    box = []
    for values, n in zip(places, shape, strict=True):
        low, high = np.clip((values.min(), values.max()), 0, n - 1)
        box.append(slice(math.floor(low), min(math.floor(high) + 2, n)))
    return box


def grid_sample_3d(arrays: Arrays, placement: Placement, patch: Shape) -> Patch:
    """One trilinear `grid_sample` of image and masks, which `affine_grid` gives its points."""
    image, mask = arrays
    shape = image.shape[1:]
    box = box_of(placement, patch, shape)
    stack = torch.from_numpy(np.concatenate([image[:, *box], mask[:, *box].astype(np.float32)]))[None]
    size = np.array(stack.shape[2:])
    centre = np.asarray(placement.centre) - [part.start for part in box]
    theta = np.empty((3, 4), dtype=np.float32)
    theta[:, :3] = (placement.matrix * np.asarray(patch) / size[:, None])[::-1, ::-1]  # torch's order is x, y, z
    theta[:, 3] = ((2 * centre + 1) / size - 1)[::-1]
    grid = affine_grid(torch.from_numpy(theta)[None], [1, 1, *patch], align_corners=False)
    out = grid_sample(stack, grid, padding_mode="border", align_corners=False)[0]
    return out[:1], (out[1:] >= 0.5).to(torch.uint8)


def rand_affined(arrays: Arrays, placement: Placement, patch: Shape) -> Callable[[], Any]:
    """MONAI's transform with every range shut on this placement, over the same box; masks by nearest neighbour."""
    image, mask = arrays
    box = box_of(placement, patch, image.shape[1:])
    middle = [part.start + (part.stop - part.start - 1) / 2 for part in box]
    scale = np.where(placement.flip, -1.0, 1.0) / placement.scale
    turn = placement.matrix / scale
    shift = np.linalg.inv(turn) @ (np.asarray(placement.centre) - middle)
    transform = RandAffined(
        ["image", "mask"],
        spatial_size=patch,
        prob=1.0,
        rotate_range=[(placement.angle, placement.angle), 0.0, 0.0],
        translate_range=[(float(t), float(t)) for t in shift],
        scale_range=[(float(s) - 1, float(s) - 1) for s in scale],
        mode=["bilinear", "nearest"],
        padding_mode="border",
    )
    return lambda: transform({"image": image[:, *box], "mask": mask[:, *box]})


def placements(patch: Shape, arrays: Arrays, zoomed: float, count: int) -> list[Placement]:
    """Random placements, each turned."""
    image, mask = arrays
    sample: dict[Hashable, Any] = {
        "image": image,
        "centres": foreground_centres(mask),
        "labelled": np.ones(len(mask), dtype=bool),
    }
    draw = RandOrganellePatchd(patch, p_scale=zoomed, p_rotate=1.0)
    draw.set_random_state(seed=0)
    found = []
    for _ in range(count):
        draw.randomize(sample)
        found.append(draw.placement)
    return found


def check_alike(arrays: Arrays, placement: Placement, patch: Shape) -> None:
    """Refuse to compare the speed of transforms that do not do the same."""
    image, mask = warp(*arrays, placement, patch)
    other_image, other_mask = grid_sample_3d(arrays, placement, patch)
    theirs = rand_affined(arrays, placement, patch)()
    torch.testing.assert_close(other_image, image, atol=2e-3, rtol=0)
    torch.testing.assert_close(torch.as_tensor(theirs["image"]), image, atol=2e-3, rtol=0)
    assert (other_mask != mask).float().mean() < 1e-3
    assert (torch.as_tensor(theirs["mask"]) != mask).float().mean() < 0.05


def warp_tasks(data: OrganelleDataModule, zoomed: float, count: int) -> dict[str, Callable[[], None]]:
    """The three ways over the same placements, volumes in memory."""
    arrays = data.prepared["train"][0].arrays()
    loaded = (np.array(arrays["image"]), np.array(arrays["mask"]))
    z, y, x = data.config.patch_size
    patch = (z, y, x)
    drawn = placements(patch, loaded, zoomed, count)
    for placement in drawn:
        check_alike(loaded, placement, patch)
    calls: dict[str, list[Callable[[], Any]]] = {
        "separable": [partial(warp, *loaded, p, patch) for p in drawn],
        "grid_sample 3D": [partial(grid_sample_3d, loaded, p, patch) for p in drawn],
        "RandAffined": [rand_affined(loaded, p, patch) for p in drawn],
    }
    return {way: partial(_call_all, calls[way]) for way in SEED_SOURCES}


def _call_all(calls: list[Callable[[], Any]]) -> None:
    for call in calls:
        call()


def _draw(dataset: Any, count: int) -> None:
    for index in range(count):
        dataset[0, index]


def main() -> None:
    """Compare the three warps, then time whole samples of the shipped configs."""
    told = options("patch_speed", "Random training patches on one core.", repeats=7)
    silence_lightning()
    torch.set_num_threads(1)  # as in a loader process
    count = 2 if told.quick else 24
    modules = {name: data_of(name, told.quick) for name in CONFIGS}
    tasks: dict[str, Callable[[], Any]] = {}
    for name, look in product(WARPED, LOOKS):
        ways = warp_tasks(modules[name], LOOKS[look], count)
        tasks |= {f"{name}: {look}: {way}": task for way, task in ways.items()}
    for name, data in modules.items():
        dataset = data.train_dataloader().dataset
        tasks[f"{name}|sample"] = partial(_draw, dataset, 2 * count)
    with Watch() as watch:
        seconds = interleaved(told, watch, tasks)

    rows: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    warps = Table("One patch, one core", ["patch", "placement", "way", "ms", "times the separable warp"])
    for name, look in product(WARPED, LOOKS):
        patch = "x".join(map(str, modules[name].config.patch_size))
        ms = {way: [1e3 * s / count for s in seconds[f"{name}: {look}: {way}"]] for way in SEED_SOURCES}
        for way, times in ms.items():
            rows[f"warp: {name}: {look}: {way}"] = {"patch": patch, "ms": times, "median_ms": statistics.median(times)}
            value = ratios[f"{way} over separable: {name}: {look}"] = ratio(times, ms["separable"])
            warps.rows.append([patch, look, way, f"{statistics.median(times):.1f}", show_ratio(value)])
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
    finish(told, rows, ratios, [warps, samples], watch)


if __name__ == "__main__":
    main()
