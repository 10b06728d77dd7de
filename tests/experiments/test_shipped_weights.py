import dataclasses
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import tifffile

from cytovox.io import read_volume
from cytovox.metrics.overlap import dice_per_organelle
from cytovox.networks.weights import shipped_weights
from cytovox.organelles import ORGANELLES
from cytovox.simulation import PRESETS, Options, simulate
from experiments.build import build_from_weights
from experiments.compose import shipped_configs
from experiments.config import load_config
from experiments.weights import read_weights, weights_path
from training.rundir import is_first_rank

MEGABYTE = 1e6


@pytest.fixture(scope="module")
def module():
    config = load_config("organelle")
    made = build_from_weights(config, read_weights(config, [shipped_weights()["organelle"]]))
    made.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    return made


def mean_dice(module, preset: str, seed: int, noise: float) -> np.ndarray:
    tomogram = simulate(preset, seed, options=Options(medium_spread=0.002, noise_ri=(noise, noise)))
    masks = module.inferer()(tomogram.ri_ZYX, tomogram.spacing_um) >= 0.5
    truth = np.stack([tomogram.masks[name] for name in ORGANELLES]).astype(np.uint8)
    return np.array(dice_per_organelle(masks.astype(np.uint8), truth, np.ones(len(ORGANELLES), bool)))


@pytest.mark.parametrize("name", sorted(shipped_weights()))
def test_weights_are_small_and_come_with_a_card_that_says_how_they_were_made(name):
    path = shipped_weights()[name]
    assert path.stat().st_size <= 10 * MEGABYTE
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    own: tuple[str, ...] = ("1 - IoU", "5-fold", "not trained on")
    if name == "organelle":
        own = ("Dice", "left out", *PRESETS)
    elif name.startswith("cells"):
        own = ("Hungarian Dice", "trained on", "validation")
    for said in ("python -m experiments.run", "seed", "device", *own):
        assert said in card, said


#: Default weights of the shipped configs that have some.
DEFAULT = {
    "organelle": "organelle", "organelle_finetune": "organelle", "organelle_weights": "organelle",
    "cells": "cells_offsets", "cells_network": "cells_network", "shape_rbc": "shape_rbc",
    "shape_nuclei": "shape_nuclei",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(shipped_configs()) - {"analyze", "cells_from_masks"}))
def test_a_shipped_config_names_its_default_weights_and_they_are_its_own(name):
    config = load_config(name, ["stages=[test]"])
    assert config.weights.default == DEFAULT.get(name)
    if config.weights.default is None:
        return
    found = read_weights(config, [weights_path(config.weights.default, "weights.default")])
    build_from_weights(config, found)
    if config.task == "shape":  # what is drawn for every sample, and which of it the network was given
        assert found[0].metadata.traits == dataclasses.asdict(config.traits)


@pytest.mark.parametrize("preset", ["HeLa", pytest.param("A549", marks=pytest.mark.slow)])
def test_a_volume_it_has_never_seen_is_segmented(module, preset):
    values = mean_dice(module, preset, 987_654, 0.001)
    assert np.nanmean(values) > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.001, 0.0025])
@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_line_is_segmented_at_seeds_and_noise_it_has_never_seen(module, preset, noise):
    values = np.array([mean_dice(module, preset, seed, noise) for seed in range(910_000, 910_006)])
    assert np.nanmean(np.nanmean(values, axis=0)) >= 0.88


def test_a_prediction_without_a_checkpoint_takes_them(tmp_path, cells, cli):
    assert is_first_rank()
    words = ["stages=[predict]", f"predict.inputs=[{cells}/HeLa-00001.TCF]", f"predict.out={tmp_path / 'masks'}"]
    words += ["logging.wandb=disabled", f"runs_dir={tmp_path / 'runs'}", "trainer.enable_progress_bar=false"]
    answer = cli("organelle", *words)
    assert f"weights: {shipped_weights()['organelle']}" in answer.out
    assert answer.run.is_dir()
    masks = read_volume(tmp_path / "masks" / "HeLa-00001.ome.tif")
    assert masks.channels == ORGANELLES
    assert masks.frame(0, "membrane").any()


@pytest.mark.parametrize("weights", ["shape_rbc", "shape_nuclei"])
def test_images_and_masks_alone_become_shapes(tmp_path, cli, weights):
    y, x = np.mgrid[:64, :64] - 31.5
    mask = (y / 14) ** 2 + (x / 18) ** 2 <= 1
    for folder, values in (("image", 0.6 * mask), ("mask", mask)):
        (tmp_path / "cells" / folder).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "cells" / folder / "cell_1.tif", (255 * values).astype(np.uint8))
    words = ["stages=[predict]", f"predict.inputs=[{tmp_path / 'cells'}]", f"predict.out={tmp_path / 'shapes'}"]
    words += ["logging.wandb=disabled", f"runs_dir={tmp_path / 'runs'}", "trainer.enable_progress_bar=false"]
    answer = cli(weights, *words, "predict.samples=4")  # each config's own default
    assert f"weights: {shipped_weights()[weights]}" in answer.out
    found = [tifffile.imread(tmp_path / "shapes" / "cell_1" / f"{name}.tif") > 0 for name in ("mean", "sample_01")]
    for shape in found:
        assert np.array_equal(shape[32], mask)
        # between a disc a quarter as thick as it is wide and a ball
        assert 0.2 < shape.sum() / mask.sum() ** 1.5 < 1.2


def test_a_fine_tune_starts_from_them(tmp_path, cells, cli):
    words = [f"data.volumes={cells}/*.TCF", f"data.masks={cells}/*_{{organelle}}.nii.gz", "data.num_workers=0"]
    words += ["data.patch_size=[24,32,32]", "data.batch_size=1", "data.patches_per_epoch=1", "trainer.max_epochs=1"]
    words += ["data.split={train: 0.34, val: 0.33, test: 0.33}", "optimizer.lr=1e-9", "optimizer.warmup_steps=0"]
    words += ["logging.wandb=disabled", f"runs_dir={tmp_path / 'runs'}", "trainer.enable_progress_bar=false"]
    answer = cli("organelle_finetune", *words, "stages=[fit]", "trainer.ema=null")
    config = load_config("organelle")
    last, start = read_weights(config, [answer.run / "checkpoints" / "last.ckpt", shipped_weights()["organelle"]])
    for name, tensor in start.network_state.items():
        np.testing.assert_allclose(last.network_state[name], tensor, atol=1e-5, err_msg=name)


def test_the_name_stays_a_name_in_the_run_folder_s_config(tmp_path):
    from experiments.config import resolved

    tree = resolved(load_config("organelle_finetune", [f"runs_dir={tmp_path}", "data.volumes=[a.TCF]"]))
    assert tree["init_from"] == "organelle"
    assert Path(tree["runs_dir"]).is_absolute()
