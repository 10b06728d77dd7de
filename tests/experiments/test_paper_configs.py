"""The configs of published protocols hold the published numbers, and say in their comment what deviates."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from monai.transforms import RandFlipd

from datamodules.cells_config import CellsSimulator
from datamodules.shape.datamodule import ShapeDataModule
from experiments.compose import shipped_configs
from experiments.config import load_config
from experiments.tasks import task_of
from experiments.tasks.organelle.config import tiling
from transforms.shape_augment import RandMirrorZd

#: Config, key path, value: what Choi et al. 2021 (bioRxiv 2021.05.23.445351) and its authors' inference code say.
CHOI = {
    "data.resample": "grid",
    "data.ri_range": [1.337, 1.390],
    "data.batch_size": 1,
    "data.scale": [0.5, 2.0],
    "data.scale_probability": 1.0,
    "data.rotate_probability": 1.0,
    "data.flip": True,
    "data.ri_offset": 0.0,
    "data.ri_contrast": 0.0,
    "data.train.counts": {"NIH3T3": 105},
    "data.test.counts": {"NIH3T3": 24, "A549": 9, "HeLa": 9, "MDA-MB-231": 9, "RAW264.7": 9},
    "model.network": "scnas",
    "model.width": 12,
    "model.layers": 8,
    "model.multiplier": 3,
    "loss.name": "dice_bce",
    "optimizer.name": "adam",
    "optimizer.lr": 1e-3,
    "optimizer.schedule": "plateau",
    "optimizer.factor": 0.2,
    "optimizer.patience": 30,
    "trainer.gradient_clip_val": None,
    "trainer.ema": None,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "organelle_choi": {
        **CHOI,
        "data.organelles": ["membrane", "nucleus", "nucleolus", "lipid"],
        "data.resample_grid": [128, 512, 512],
        "data.patch_size": [64, 128, 128],
        "data.foreground": 0.0,
        "predict.window": None,
        "predict.stride": [64, 64, 64],
        "predict.pad_yx": [64, 64],
        "predict.pad_mode": "symmetric",
        "predict.weight": "spline",
        "predict.z": "center",
        "predict.skip_below": None,
        "predict.flips": [],
        "predict.threshold": 0.5,
    },
    "cells_choi": {
        **CHOI,
        "method": "network",
        "data.resample_grid": [64, 128, 128],
        "data.z": "center",
        "data.p_no_ri": 0.0,
        "seeds.min_voxels": 200,
        "seeds.min_volume_um3": 0.0,
        "seeds.split_depth_um": None,
    },
    "shape_dispr": {
        "data.batch_size": 1,
        "data.rotate": False,
        "data.flip": False,
        "data.flip_z": False,
        "data.mirror_yz": 0.0,
        "data.zoom": [1.0, 1.0],
        "data.shift": 0.0,
        "data.elastic": 0.0,
        "data.intensity_scale": 0.0,
        "data.intensity_offset": 0.0,
        "data.noise": 0.0,
        "field.name": "occupancy",
        "field.known_slice": False,
        "field.size": 64,
        "model.network": "dispr_unet",
        "model.base_channels": 32,
        "model.multipliers": [1, 2, 3, 4],
        "model.attention_levels": [2],
        "process.name": "linear_betas",
        "process.steps": 1000,
        "process.beta_first": 1e-4,
        "process.beta_last": 0.02,
        "preconditioning.name": "noise_and_variance",
        "loss.name": "noise_mse_vlb",
        "loss.vlb_weight": 1e-3,  # of a bound that counts each step: 1 of a single step's, as published
        "sampler.name": "ancestral",
        "sampler.steps": 1000,
        "sampler.variance": "learned",
        "sampler.clip": [-1.0, 1.0],
        "traits.name": "none",
        "optimizer.name": "adamw",
        "optimizer.lr": 1e-4,
        "optimizer.schedule": "constant",
        "optimizer.warmup_steps": 0,
        "optimizer.weight_decay": 0.0,
        "trainer.gradient_clip_val": None,
        "trainer.accumulate_grad_batches": 1,
        "trainer.ema.decay": 0.9999,
        "trainer.ema.warmup": False,
        "trainer.ema.update_every_n_steps": 1,
        "predict.views": False,
    },
}


def value(config: Any, path: str) -> Any:
    for key in path.split("."):
        config = getattr(config, key)
    return config


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_paper_config_holds_the_published_numbers(name: str) -> None:
    config = load_config(name)
    assert {path: value(config, path) for path in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize("name", [*PUBLISHED, "cells_network", "scnas_search", "shapr"])
def test_its_comment_says_what_deviates(name: str) -> None:
    text = shipped_configs()[name].read_text(encoding="utf-8")
    head = text[: text.index("schema_version")]
    assert "# Deviations:" in head
    assert all(line.startswith("#") for line in head.splitlines())
    lines = head[head.index("# Deviations:") :].splitlines()[1:]
    known = [line[4:].split("  ")[0] for line in lines if line.startswith("#   ") and line[4] != " "]
    config = load_config(name)
    for path in (path for named in known for path in named.split(", ")):
        if path.split(".")[0] in vars(config):  # a name that is no key is one of the paper's own things
            value(config, path)
    assert len(known) >= 3


def test_the_windows_of_organelle_choi_are_the_papers() -> None:
    config = load_config("organelle_choi")
    windows = tiling(config, config.data.patch_size)
    assert windows.window == (64, 128, 128)
    assert windows.skip_below is None
    # 512 + 2 x 64, windows of 128 each 64: nine along y and x, one along z
    assert tuple(map(len, windows.windows((128, 512, 512)).starts)) == (1, 9, 9)


def test_the_slices_of_cells_choi_are_passed_to_its_checkpoints_and_reach_its_finder() -> None:
    config = load_config("cells_choi", ["model={network: residual_unet, channels: [8, 16]}"])
    assert isinstance(config.data, CellsSimulator)
    module = task_of(config).for_training(config, None)
    assert module.metadata.z == "center"
    assert module.finder().z == "center"
    assert (module.rule.min_voxels, module.rule.min_volume_um3) == (200, 0.0)
    plain = load_config("cells_network")
    assert task_of(plain).metadata(plain).z == "fit"


def test_slices_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(Exception, match=r"data\.z: center is for method network"):
        load_config("cells", ["data.z=center", "data.resample=grid"])
    with pytest.raises(
        Exception, match=r"data\.z: center takes as many slices as the grid has, so it needs data\.resample grid"
    ):
        load_config("cells_network", ["data.z=center", "data.resample=spacing_um"])


def test_dispr_validates_while_it_trains() -> None:
    config = load_config("shape_dispr")
    assert config.data.val > 0
    assert config.trainer.check_val_every_n_epoch < config.trainer.max_epochs
    parts = task_of(config).for_training(config, None).parts
    assert (parts.sampler.steps, parts.validation_sampler.steps) == (1000, 50)


def test_the_published_mirrors_are_an_option() -> None:
    config = load_config("shape_dispr", ["data.mirror_yz=0.333"])
    augment = ShapeDataModule(config.data, config.seed).augmentation()
    chances = [t.prob for t in augment.transforms if isinstance(t, RandFlipd | RandMirrorZd)]
    assert chances == [0.0, 0.0, 0.333, 0.0, 0.333]  # flip in y and x, mirror_yz in y, flip_z, mirror_yz in z
    assert dataclasses.asdict(config.data)["flip_z"] is False
