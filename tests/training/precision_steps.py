"""One training step of every network and loss on realistic data: what float32 and 16-mixed make of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy import ndimage as ndi

from cytovox.models.metadata import read_checkpoint
from cytovox.networks.weights import shipped_weights
from cytovox.preprocess.shape_fields import signed_distance
from cytovox.simulation.tomogram import simulate
from experiments.config import load_config
from experiments.tasks import task_of

#: Loss scale of the 16-bit step. The scaler's own first one, 65,536, may overflow and be halved a few times.
SCALE = 1024.0


@dataclass(frozen=True)
class Step:
    """Loss and gradients of one step."""

    loss: float
    gradients: dict[str, torch.Tensor]
    """By the parameter's name; float32."""

    def flat(self) -> torch.Tensor:
        """All gradients in one vector."""
        return torch.cat([gradient.flatten() for gradient in self.gradients.values()])


def take_step(module: pl.LightningModule, batch: dict[str, Any], precision: str) -> Step:
    """Forward and backward of one batch, `32-true` or `16-mixed`, on the device of the module."""
    module.zero_grad()
    torch.manual_seed(1)
    mixed = precision == "16-mixed"
    with torch.autocast(module.device.type, torch.float16, enabled=mixed, cache_enabled=False):
        loss = module.training_step(batch, 0)
    scale = SCALE if mixed else 1.0
    (loss * scale).backward()
    found = {name: p.grad.float() / scale for name, p in module.named_parameters() if p.grad is not None}
    return Step(float(loss.detach()), found)


def _ready(module: pl.LightningModule, device: str) -> pl.LightningModule:
    """A module that needs no trainer."""
    module.log = lambda *_, **__: None  # type: ignore[assignment]
    # of two steps the second one: SHAPR's discriminator is in by then
    module._trainer = SimpleNamespace(precision="16-mixed", global_step=1, estimated_stepping_batches=2)  # type: ignore[assignment]
    return module.to(device).train()


def _built(config_name: str, shipped: str | None, words: list[str]) -> pl.LightningModule:
    config = load_config(config_name, words)
    torch.manual_seed(0)
    task = task_of(config)
    if shipped is None:
        module: Any = task.for_training(config, None)
        with torch.no_grad():
            for parameter in module.parameters():
                if not parameter.any():  # what begins with zeros passes no gradient on
                    parameter.normal_(0, 0.02)
        return module
    module = task.from_weights(config, [read_checkpoint(shipped_weights()[shipped], config.task, "test")])
    if hasattr(module, "tiling"):
        module.loss = config.loss.build()
    return module


@functools.cache
def _volume(size_ZYX: tuple[int, int, int], spacing: float) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Index in 0..1, (1, 1, Z, Y, X), and masks of simulated cells."""
    cells = simulate("HeLa", 3, size_ZYX, (spacing,) * 3)
    image = ((cells.ri_ZYX - 1.337) / (1.39 - 1.337)).clip(0, 1).astype(np.float32)
    return torch.from_numpy(image)[None, None], cells.masks


def _organelle_batch(size_ZYX: tuple[int, int, int]) -> dict[str, Any]:
    image, masks = _volume(size_ZYX, 0.25)
    names = ("membrane", "nucleus", "nucleolus", "lipid")
    mask = torch.stack([torch.from_numpy(masks[name] > 0) for name in names])[None].to(torch.uint8)
    return {"image": image, "mask": mask, "labelled": torch.ones(1, 4, dtype=torch.bool)}


def _cells_batch(size_ZYX: tuple[int, int, int]) -> dict[str, Any]:
    image, masks = _volume(size_ZYX, 0.5)
    inside, nuclei = masks["membrane"] > 0, masks["nucleus"] > 0
    labels, count = ndi.label(nuclei)
    nearest = ndi.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    cells = np.where(inside, labels[tuple(nearest)], 0)
    centres = 0.5 * np.asarray(ndi.center_of_mass(nuclei, labels, range(1, count + 1)))
    first = labels == 1
    maps = {"membrane": inside, "nucleus": nuclei, "positive": first, "negative": nuclei & ~first}
    return {
        "image": image,
        **{name: torch.from_numpy(value)[None].to(torch.uint8) for name, value in maps.items()},
        "target": torch.from_numpy(cells == 1)[None].to(torch.uint8),
        "cells": torch.from_numpy(cells.astype(np.int64))[None],
        "nuclei": [torch.from_numpy(np.column_stack([np.arange(1, count + 1), centres])).float()],
        "spacing_um": torch.full((1, 3), 0.5),
    }


def _shape_batch(size_ZYX: tuple[int, int, int]) -> dict[str, Any]:
    z, y, x = ((torch.arange(size) - (size - 1) / 2) / size for size in size_ZYX)
    inside = z[:, None, None] ** 2 / 1.5 + y[:, None] ** 2 + x**2 < 0.28**2
    middle = inside[len(z) // 2]
    image = torch.rand(*middle.shape, generator=torch.Generator().manual_seed(0)) * middle
    return {
        "image": image[None, None],
        "mask": middle[None, None].float(),
        "obj": inside[None, None].float(),
        "distance": torch.from_numpy(signed_distance(inside.numpy()))[None, None],
        "index": torch.tensor([0]),
    }


@dataclass(frozen=True)
class Case:
    """A network with its loss, and its data."""

    config: str
    batch: Callable[[tuple[int, int, int]], dict[str, Any]]
    shipped: str | None = None
    """Weights; None for a network that has learned nothing."""
    words: tuple[str, ...] = ()
    """Of the command line."""
    small: tuple[int, int, int] = (32, 32, 32)
    """A size for a CPU."""
    large: tuple[int, int, int] = (64, 128, 128)
    """The size that it is trained on."""
    small_words: tuple[str, ...] = ()
    """Beside `small`."""
    tolerance: float = 0.03
    """Of the gradients' relative difference. Deep networks that have learned nothing multiply a rounding error."""

    def build(self, device: str, large: bool) -> tuple[pl.LightningModule, dict[str, Any]]:
        """Module and batch on a device."""
        batch = self.batch(self.large if large else self.small)
        words = [*self.words, *(() if large else self.small_words)]
        module = _ready(_built(self.config, self.shipped, words), device)
        return module, {key: _moved(value, device) for key, value in batch.items()}


def check_16_mixed_is_near_float32(case: Case, device: str, large: bool) -> None:
    """Loss and gradients are finite, and near those of float32; every parameter that has a gradient has one still."""
    module, batch = case.build(device, large)
    exact, mixed = take_step(module, batch, "32-true"), take_step(module, batch, "16-mixed")
    assert mixed.loss == pytest.approx(exact.loss, rel=2e-3)
    assert mixed.gradients.keys() == exact.gradients.keys()
    wanted, found = exact.flat(), mixed.flat()
    assert found.isfinite().all()
    assert float((found - wanted).norm() / wanted.norm()) < case.tolerance
    least = 1e-3 * max(float(gradient.norm()) for gradient in exact.gradients.values())
    for name, gradient in exact.gradients.items():
        if float(gradient.norm()) > least:
            assert 0.5 < float(mixed.gradients[name].norm() / gradient.norm()) < 2, name


def _moved(value: Any, device: str) -> Any:
    return [one.to(device) for one in value] if isinstance(value, list) else value.to(device)


_SHAPE: dict[str, Any] = {"batch": _shape_batch, "small": (64, 64, 64), "large": (64, 64, 64)}

#: Every network that a config ships, and every loss of the organelles.
CASES: dict[str, Case] = {
    "organelle": Case("organelle", _organelle_batch, "organelle"),
    "organelle, focal": Case("organelle", _organelle_batch, "organelle", ("loss.name=dice_focal",)),
    "organelle, Tversky": Case("organelle", _organelle_batch, "organelle", ("loss.name=tversky",)),
    "ScNAS": Case(
        "organelle_choi", _organelle_batch, small=(48, 48, 48), small_words=("model.width=4",), tolerance=0.3
    ),
    "cells, conditioned": Case("cells_network", _cells_batch, "cells_network"),
    "cells, offsets": Case("cells", _cells_batch, "cells_offsets"),
    "shape": Case("shape_rbc", shipped="shape_rbc", **_SHAPE),
    "shape, flow": Case("shape_flow", **_SHAPE),
    "DISPR": Case(
        "shape_dispr", _shape_batch, small=(8, 16, 16), large=(64, 64, 64),
        small_words=("model.multipliers=[1,2]", "model.attention_levels=[1]"),
    ),
    "SHAPR": Case("shapr", _shape_batch, small=(64, 16, 16), large=(64, 64, 64), tolerance=0.5),
}  # fmt: skip
