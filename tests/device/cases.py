"""Small runs of every task: a module, what it trains on, and what it validates and tests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from cytovox.diffusion.parts import part_config
from cytovox.diffusion.traits import TraitsConfig
from cytovox.inference.tiling import SlidingWindow
from cytovox.losses.centre_offsets import CentreOffsetLossConfig
from cytovox.losses.segmentation import DiceBCEConfig
from cytovox.losses.shapr import SHAPRLossConfig
from cytovox.models.metadata import (
    CellsMetadata,
    OrganelleMetadata,
    SearchMetadata,
    ShapeMetadata,
    SHAPRMetadata,
)
from cytovox.models.networks import CELL_CHANNELS
from cytovox.networks.dispr_unet import DISPRUNetConfig
from cytovox.networks.residual_unet import ResidualUNetConfig
from cytovox.networks.scnas import ScNASConfig
from cytovox.networks.shapr import SHAPRConfig
from cytovox.networks.slab_unet import SlabUNetConfig
from cytovox.networks.supernet import Supernet
from cytovox.preprocess.shape_fields import Occupancy, OccupancyConfig, SignedDistanceConfig, signed_distance
from cytovox.segmentation.field import SeedRule
from datamodules.cases import RawCase
from datamodules.cells import collate_samples
from lightning_modules.cells import CellsModule, field_of
from lightning_modules.optim import Adam, AdamW
from lightning_modules.organelle import OrganelleModule
from lightning_modules.search import SearchModule
from lightning_modules.search_config import CostTerm, SearchConfig
from lightning_modules.shape import Parts, ShapeModule
from lightning_modules.shapr import SHAPRModule

PATCH = (8, 16, 16)
#: Batches of an epoch: one that makes the optimiser's tensors, and two that are like all later ones.
BATCHES = 3
COMMON: dict[str, Any] = {
    "resample": "spacing_um", "resample_spacing_um": [1.0] * 3, "resample_grid": list(PATCH), "ri_range": [1.33, 1.39],
    "patch_size": list(PATCH),
}  # fmt: skip
TILING = SlidingWindow(window=PATCH, stride=(8, 8, 8), pad_yx=(0, 0), sw_batch_size=2)


@dataclass
class Run:
    """A run of one task."""

    module: pl.LightningModule
    train: Any
    """Batches of training samples, on the CPU."""
    val: Any
    test: Any
    predict: Callable[[], Any]
    """Predicts one input with the module as it is."""
    monitor: str
    """Validation metric that picks the best checkpoint."""


@dataclass
class MemoryCase:
    """A raw case in memory."""

    name: str
    raw: RawCase
    cell_line: str = "HeLa"
    files: tuple[Path, ...] = ()
    settings: str = ""

    def load(self) -> RawCase:
        return self.raw


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _patches(count: int = 2 * BATCHES) -> list[dict[str, Any]]:
    found = []
    for index in range(count):
        image = torch.rand(1, *PATCH, generator=_random(index))
        mask = torch.cat([image > 0.5, image > 0.7]).to(torch.uint8)
        labelled = torch.tensor([True, index % 2 == 0])
        found.append({"image": image, "mask": mask, "labelled": labelled})
    return found


def _raw(cells: bool = False) -> RawCase:
    """Two slabs with a nucleus each, the index high inside; of organelles, the first two masks."""
    labels = np.zeros((8, 20, 24), np.uint16)
    labels[1:7, 2:18, 2:11], labels[1:7, 2:18, 12:22] = 1, 2
    nucleus = np.zeros_like(labels)
    nucleus[1:7, 5:15, 3:10], nucleus[1:7, 5:15, 13:20] = 1, 1
    ri = (1.337 + 0.02 * (labels > 0) + 0.02 * (nucleus > 0)).astype(np.float32)
    masks = np.stack([(labels > 0).astype(np.uint16), nucleus, labels] if cells else [labels > 0, nucleus > 0])
    return RawCase(ri, masks.astype(np.uint16 if cells else np.uint8), np.ones(len(masks), bool), (1.0, 1.0, 1.0))


def _loader(data: list[Any], batch_size: int | None = 2, **more: Any) -> DataLoader:
    return DataLoader(data, batch_size=batch_size, **more)  # type: ignore[arg-type]


def _cases(cells: bool = False) -> DataLoader:
    return _loader([(0, MemoryCase("a", _raw(cells)), _raw(cells))], batch_size=None)


def organelle(network: nn.Module | None = None, metadata: type[OrganelleMetadata] = OrganelleMetadata) -> Run:
    """Organelles by the default network, with every option of the loss that makes a tensor."""
    torch.manual_seed(0)
    network = network or ResidualUNetConfig(channels=[8, 16], head_channels=4).build(1, 2)
    about = metadata(task="organelle", model={"network": "x"}, organelles=["nucleus", "lipid"], **COMMON)
    loss = DiceBCEConfig(organelle_weights=[1.0, 2.0]).build()
    module = OrganelleModule(network, about, TILING, loss, AdamW(schedule="cosine", warmup_steps=1), flips=("x",))
    return Run(
        module, _loader(_patches()), _loader(_patches(2), 1), _cases(), _predict_organelles(module), "val/dice_mean"
    )


def _predict_organelles(module: OrganelleModule) -> Callable[[], Any]:
    return lambda: module.inferer()(_raw().ri_ZYX, (0.7, 1.0, 1.2))


def scnas() -> Run:
    """Organelles by the published network, whose cells are computed again in the backward pass."""
    torch.manual_seed(0)
    return organelle(ScNASConfig(width=2, layers=2, checkpointing=True).build(1, 2))


def search(joint: bool = False) -> Run:
    """A search that charges costs, with its architecture learning from the first step."""
    torch.manual_seed(0)
    metadata = SearchMetadata(
        task="search", model={}, organelles=["nucleus", "lipid"], operations=["conv_3", "max_pool_3", "none"],
        cost_measure="gflop", **COMMON,
    )  # fmt: skip
    operations = metadata.operations
    network = Supernet(1, 2, ScNASConfig(width=2, layers=2), operations)
    config = SearchConfig(operations=operations, warmup=0.0, joint=joint, cost=CostTerm(target=0.1), candidates=2)
    loss = DiceBCEConfig().build()
    module = SearchModule(network, metadata, TILING, loss, Adam(schedule="constant"), config, seed=3)
    data = [{**one, "architecture": other} for one, other in zip(_patches(), _patches(), strict=True)]
    return Run(module, _loader(data), _loader(_patches(2), 1), _cases(), _predict_organelles(module), "val/dice_mean")


def _cell_samples(method: str) -> list[dict[str, Any]]:
    found = []
    for index in range(2 * BATCHES):
        cells = torch.zeros(PATCH, dtype=torch.int64)
        cells[1:7, 2:14, 1:8], cells[1:7, 2:14, 8:15] = 1, 2
        nucleus = torch.zeros(PATCH, dtype=torch.uint8)
        nucleus[2:5, 5:9, 3:6], nucleus[2:5, 5:9, 10:13] = 1, 1
        centres = torch.tensor([[1.0, 3.0, 6.5, 4.0], [2.0, 3.0, 6.5, 11.0]])
        one: dict[str, Any] = {"image": torch.rand(1, *PATCH, generator=_random(index)), "membrane": (cells > 0).byte()}
        if method == "network":
            one |= {"positive": (nucleus * (cells == 1)).byte(), "negative": (nucleus * (cells == 2)).byte()}
            one |= {"target": (cells == 1).byte(), "nuclei": centres}
        else:
            # the last sample of an epoch has no nucleus
            nuclei = centres if index < 2 * BATCHES - 1 else centres[:0]
            one |= {"nucleus": nucleus, "cells": cells, "nuclei": nuclei, "spacing_um": torch.ones(3)}
        found.append(one)
    return found


def cells(method: str, voxels: int = 300) -> Run:
    """Cells by either method."""
    torch.manual_seed(0)
    metadata = CellsMetadata(task="cells", model={"network": "x"}, method=method, **COMMON)
    network = ResidualUNetConfig(channels=[8, 16], head_channels=4).build(*CELL_CHANNELS[method])
    loss: nn.Module = DiceBCEConfig().build() if method == "network" else CentreOffsetLossConfig(voxels=voxels).build()
    rule = SeedRule(min_volume_um3=10.0)
    module = CellsModule(network, metadata, TILING, rule, loss, AdamW(schedule="constant"))
    data = _loader(_cell_samples(method), collate_fn=collate_samples)

    def predict() -> Any:
        return module.finder()(field_of(_raw(True))[0])

    return Run(module, data, _cases(True), _cases(True), predict, "val/cells_dice")


@functools.cache
def ball(radius: float, index: int, side: int = 64, depth: int = 64) -> dict[str, Any]:
    """A cell that is a ball, with its image, its mask and its signed distances."""
    axis, z = torch.arange(side) - (side - 1) / 2, torch.arange(depth) - (depth - 1) / 2
    obj = (z[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt() < radius
    middle = obj[depth // 2][None].float()
    distance = torch.from_numpy(signed_distance(obj.numpy()))[None]
    return {"image": 0.7 * middle, "mask": middle, "obj": obj[None].float(), "distance": distance, "index": index}


def _shape_run(module: Any, side: int = 64, depth: int = 64) -> Run:
    balls = [ball(side / 4 + 0.2 * i, i, side, depth) for i in range(BATCHES)]
    val = _loader(balls[:1], 1)

    def predict() -> Any:
        image, mask = (balls[0][key].to(module.device) for key in ("image", "mask"))
        return module.shapes(image, mask, 0, 3)

    return Run(module, _loader(balls, 1), val, val, predict, "val/iou")


def _parts(process: str, preconditioning: str, loss: str, sampler: str, **options: Any) -> Parts:
    chosen = {"process": process, "preconditioning": preconditioning, "loss": loss, "sampler": sampler}
    configs: dict[str, Any] = {part: part_config(part, name)() for part, name in chosen.items()}
    for key, value in options.items():
        setattr(configs["sampler"], key, value)
    return Parts(**{part: config.build() for part, config in configs.items()})


def shape(traits: bool = False, outputs: int = 1, **parts: Any) -> Run:
    """A shape model with the slab network."""
    torch.manual_seed(0)
    known = TraitsConfig() if traits else None
    network = SlabUNetConfig(channels=[8, 16]).build(16, outputs=outputs, extra_channels=known.channels if known else 0)
    metadata = ShapeMetadata(task="shape", model={}, field={}, process={}, preconditioning={})
    module = ShapeModule(
        _parts(**parts), known.build() if known else None, network=network, metadata=metadata,
        field=SignedDistanceConfig(size=16).build(), optimizer=AdamW(schedule="constant"), samples=3,
    )  # fmt: skip
    return _shape_run(module)


class _Small(Occupancy):
    """DISPR's field at a quarter of its size."""

    size = 16

    def decode(self, field_BCZYX: torch.Tensor, mask_BYX: torch.Tensor) -> torch.Tensor:
        obj_BZYX = field_BCZYX[:, 0] > 0
        obj_BZYX[:, 8] = mask_BYX
        return obj_BZYX


def dispr() -> Run:
    """DISPR's network, process, loss and sampler, on fields of 16 voxels a side."""
    torch.manual_seed(0)
    parts = _parts("linear_betas", "noise_and_variance", "noise_mse_vlb", "ancestral", steps=3)
    network = DISPRUNetConfig(multipliers=[1, 1], attention_levels=[]).build(64, outputs=2)
    metadata = ShapeMetadata(task="shape", model={}, field={}, process={}, preconditioning={})
    module = ShapeModule(
        parts, None, network=network, metadata=metadata,
        field=_Small(), optimizer=AdamW(schedule="constant"), samples=1,
    )  # fmt: skip
    return _shape_run(module, 16, 16)


def shapr(supervised: float) -> Run:
    """SHAPR, in its first (1) or its second stage (0)."""
    torch.manual_seed(0)
    config = SHAPRConfig(base_channels=2)
    module = SHAPRModule(
        config.build_discriminator(), SHAPRLossConfig().build(), supervised=supervised, network=config.build(),
        metadata=SHAPRMetadata(task="shapr", model={}), field=OccupancyConfig().build(),
        optimizer=AdamW(lr=1e-3, schedule="constant"), samples=1,
    )  # fmt: skip
    return _shape_run(module, 16)


#: Every task, by name.
RUNS: dict[str, Callable[[], Run]] = {
    "organelle": organelle,
    "scnas": scnas,
    "search": search,
    "search_joint": lambda: search(joint=True),
    "cells_network": lambda: cells("network"),
    "cells_offsets": lambda: cells("offsets"),
    "cells_offsets_all_voxels": lambda: cells("offsets", voxels=30_000),
    "dispr": dispr,
    "shape_diffusion": lambda: shape(
        process="linear_betas", preconditioning="noise_and_variance", loss="noise_mse_vlb", sampler="ancestral",
        steps=3, outputs=2,
    ),
    "shape_ddim": lambda: shape(
        process="linear_betas", preconditioning="data", loss="data_mse", sampler="ddim", steps=3, eta=0.5
    ),
    "shape_flow": lambda: shape(
        process="rectified_flow", preconditioning="velocity", loss="velocity_mse", sampler="heun", steps=2
    ),
    "shape_regressor": lambda: shape(
        traits=True, process="direct", preconditioning="data", loss="data_l1_dice", sampler="one_step"
    ),
    "shapr_first": lambda: shapr(1.0),
    "shapr_second": lambda: shapr(0.0),
}  # fmt: skip
