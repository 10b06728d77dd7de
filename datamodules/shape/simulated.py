"""Simulated cells, cached in one file per set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from cytovox.io.provenance import digest_of
from cytovox.simulation.shapes import SHAPES_VERSION, simulate_shape
from datamodules.cache import cache_root, store
from datamodules.config import simulated_names
from datamodules.shape.cases import SIDE, ShapeCell
from datamodules.shape.config import ShapeSimulatorData


def simulated_shapes(
    config: ShapeSimulatorData, split: str, limit: int | None = None, progress: Callable[[int, int], None] | None = None
) -> list[ShapeCell]:
    """Return the cells of one split, from the cache or newly simulated.

    Parameters
    ----------
    config : ShapeSimulatorData
        Config of the simulated sets.
    split : str
        `train`, `val` or `test`.
    limit : int, optional
        Largest number of cells.
    progress : callable, optional
        Called with (done, all) while cells are simulated.
    """
    names = simulated_names(getattr(config, split))[:limit]
    if not names:
        return []
    key = digest_of({"what": "shapes", "simulator": SHAPES_VERSION, "cells": names})
    path = cache_root(config.cache_dir) / "shapes" / f"{key}.safetensors"
    images_NYX, objects_NZYX = _load(path, len(names)) or _make(path, names, progress)
    return [
        ShapeCell(f"{preset}_{seed:06d}", preset, image_YX.astype(np.float32) / 255, obj_ZYX[SIDE // 2], obj_ZYX)
        for (preset, seed), image_YX, obj_ZYX in zip(names, images_NYX, objects_NZYX, strict=True)
    ]


def _make(
    path: Path, names: Sequence[tuple[str, int]], progress: Callable[[int, int], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and objects of simulated cells, and store them in the cache."""
    images_NYX = np.empty((len(names), SIDE, SIDE), np.uint8)
    objects_NZYX = np.empty((len(names), SIDE, SIDE, SIDE), bool)
    for i, (preset, seed) in enumerate(names):
        shape = simulate_shape(preset, seed)
        images_NYX[i], objects_NZYX[i] = shape.image_YX, shape.obj_ZYX
        if progress is not None:
            progress(i + 1, len(names))
    store(path, {"image": images_NYX, "obj": np.packbits(objects_NZYX, axis=-1)})
    return images_NYX, objects_NZYX


def _load(path: Path, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the images and objects in the cache; None unless the file has all of them."""
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, ValueError):
        return None
    if set(arrays) != {"image", "obj"} or len(arrays["image"]) != count:
        return None
    return arrays["image"], np.unpackbits(arrays["obj"], axis=-1).astype(bool)
