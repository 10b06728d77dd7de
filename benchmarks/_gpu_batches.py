"""Random training batches of every task, on the device: what its data module gives, in the same shapes and types."""

from __future__ import annotations

from typing import Any

import torch

#: Nuclei of a patch of the cells task.
NUCLEI = 8
#: Pixels a side of the shape tasks' images.
SIDE = 64


def random_batch(config: Any, size: int, device: str) -> dict[str, Any]:
    """A batch for `training_step` of the module of a config.

    Parameters
    ----------
    config : Config
        Of the task organelle, cells, shape or shapr.
    size : int
        Samples.
    device : str
        Where the tensors lie.

    Raises
    ------
    ValueError
        Another task.
    """
    if config.task == "organelle":
        return organelle_batch(config.data.patch_size, len(config.data.organelles), size, device)
    if config.task == "cells":
        patch = config.data.resample_grid if config.data.resample == "grid" else config.data.patch_size
        return cells_batch(patch, config.method, size, device)
    if config.task in ("shape", "shapr"):
        return shape_batch(size, device)
    raise ValueError(f"task {config.task}: no random batch for it")


def organelle_batch(patch: list[int], organelles: int, size: int, device: str) -> dict[str, Any]:
    """`image` float32 (B, 1, Z, Y, X), `mask` uint8 (B, K, Z, Y, X) and `labelled` bool (B, K)."""
    return {
        "image": torch.rand(size, 1, *patch, device=device),
        "mask": (torch.rand(size, organelles, *patch, device=device) > 0.7).to(torch.uint8),
        "labelled": torch.ones(size, organelles, dtype=torch.bool, device=device),
    }


def cells_batch(patch: list[int], method: str, size: int, device: str) -> dict[str, Any]:
    """Images, probabilities and labels of cells; `nuclei` is a list of float32 (N, 4), one per sample."""
    spacing = torch.full((size, 3), 0.5, device=device)
    ends = torch.tensor(patch, device=device) - 1.0
    centres = torch.rand(size, NUCLEI, 3, device=device) * ends
    labels = torch.stack([_nearest(patch, one) for one in centres])
    inside = torch.rand(size, *patch, device=device) > 0.3
    membrane, nucleus = (torch.rand(size, *patch, device=device) for _ in range(2))
    batch: dict[str, Any] = {"image": torch.rand(size, 1, *patch, device=device), "membrane": membrane}
    if method == "network":
        chosen = labels == 1
        return {
            **batch,
            "positive": nucleus * chosen,
            "negative": nucleus * ~chosen,
            "target": (chosen & inside).float(),
        }
    numbers = torch.arange(1.0, NUCLEI + 1, device=device)[:, None]
    nuclei = [torch.cat([numbers, one * 0.5], dim=1) for one in centres]
    return {**batch, "nucleus": nucleus, "cells": labels * inside, "nuclei": nuclei, "spacing_um": spacing}


def _nearest(patch: list[int], centres_N3: torch.Tensor) -> torch.Tensor:
    """Number of the nearest centre, from 1, at every voxel: int64 (Z, Y, X)."""
    axes = [torch.arange(n, device=centres_N3.device, dtype=torch.float32) for n in patch]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    return (torch.cdist(places, centres_N3).argmin(dim=1) + 1).reshape(patch)


def shape_batch(size: int, device: str) -> dict[str, Any]:
    """`image`, `mask` (B, 1, Y, X), `obj` and signed `distance` (B, 1, Z, Y, X) of ellipsoids of random radii."""
    axis = torch.arange(SIDE, device=device, dtype=torch.float32) - (SIDE - 1) / 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    radii = 10 + 14 * torch.rand(size, 3, 1, 1, 1, device=device)
    far = ((z / radii[:, 0]) ** 2 + (y / radii[:, 1]) ** 2 + (x / radii[:, 2]) ** 2).sqrt()
    distance = (radii.mean(dim=1) * (1 - far)).clamp(-16, 16)[:, None]
    obj = (distance > 0).float()
    mask = obj[:, :, SIDE // 2]
    image = mask * (0.4 + 0.5 * torch.rand(size, 1, SIDE, SIDE, device=device))
    index = torch.arange(size, device=device)
    return {"image": image, "mask": mask, "obj": obj, "distance": distance, "index": index}
