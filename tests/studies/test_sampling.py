"""Samples of many cells in one batch: the same whatever the batch, kept on disk, and never begun too late."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cytovox.errors import InputError
from cytovox.models.shape import condition
from datamodules.shape.datamodule import ShapeDataModule
from experiments.build import build_for_training
from experiments.config import load_config
from studies._sampling import SampleStore, SamplingPlan, conditions, draw, sample_cells, seeds_from

WORDS = ("model.network=slab_unet", "model.channels=[8,8]", "sampler.steps=2", "data.val=0", "predict.views=false")


@pytest.fixture(scope="module")
def cells(red_cells):
    config = load_config("shape_dispr", [*WORDS, f"data.root={red_cells}"])
    return ShapeDataModule(config.data, config.seed, splits=("train",)).find()["train"][:3]


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    made = build_for_training(load_config("shape_dispr", WORDS)).eval()
    for parameter in made.network.parameters():  # the untrained head is zero, and its answer the same for every cell
        torch.nn.init.normal_(parameter, std=0.1)
    return made


def plan(batch, samples=1, minutes=1.0):
    return SamplingPlan(samples, batch, "32-true", 5, minutes)


def test_samples_do_not_depend_on_the_batch(module, cells, tmp_path):
    stores = [SampleStore(tmp_path / str(batch)) for batch in (1, 2, 6)]
    for batch, store in zip((1, 2, 6), stores, strict=True):
        assert sample_cells(module, cells, plan(batch, samples=2), store) == 0
    for cell in cells:
        found = [store.read(cell.name)[0] for store in stores]
        assert found[0].shape == (2, 64, 64, 64)
        assert 0 < found[0].mean() < 1
        # the batch decides the last bits of a field, and so at most single voxels
        assert (found[0] != found[1]).mean() < 1e-4
        assert (found[0] != found[2]).mean() < 1e-4
        assert (found[0][0] != found[0][1]).mean() > 1e-3


def test_what_is_sampled_is_not_sampled_again(module, cells, tmp_path, capsys):
    store = SampleStore(tmp_path)
    sample_cells(module, cells[:1], plan(4), store)
    before = store.read(cells[0].name)[0]
    capsys.readouterr()
    assert sample_cells(module, cells, plan(4), store) == 0
    assert "2 cells in a batch of 2" in capsys.readouterr().out
    assert np.array_equal(store.read(cells[0].name)[0], before)
    whole = SampleStore(tmp_path / "whole")
    sample_cells(module, cells, plan(4), whole)
    # beside other cells, in a batch of another size
    assert all((store.read(c.name)[0] != whole.read(c.name)[0]).mean() < 1e-4 for c in cells)


def test_a_batch_that_does_not_fit_the_time_is_an_error_before_it_begins(module, cells, tmp_path):
    with pytest.raises(InputError, match=r"--minutes: a batch of 3 samples takes about .* lower --batch"):
        sample_cells(module, cells, plan(3, minutes=1e-6), SampleStore(tmp_path))
    assert not any(tmp_path.iterdir())


def test_a_draw_is_the_draw_of_the_module(module, cells):
    shown = conditions(cells, 1)
    one = cells[1]
    image, mask = (torch.from_numpy(values.astype(np.float32))[None, None] for values in (one.image_YX, one.mask_YX))
    assert torch.equal(shown[1:2], condition(image, mask))
    together, seconds = draw(module, shown, seeds_from(5, 0), "32-true")
    alone, _ = draw(module, shown[1:2], seeds_from(5, 1), "32-true")
    assert seconds > 0
    assert torch.allclose(together[1:2], alone, atol=1e-4)


def test_a_store_of_other_weights_or_settings_is_empty(tmp_path):
    samples = np.random.default_rng(0).random((3, 5, 7, 2)) > 0.5
    store = SampleStore.of(tmp_path, ("weights", 1000))
    store.write("a", samples, 2.5)
    found, seconds = SampleStore.of(tmp_path, ("weights", 1000)).read("a")
    assert np.array_equal(found, samples)
    assert seconds == 2.5
    assert not SampleStore.of(tmp_path, ("weights", 100)).has("a")
