"""A shape model without Lightning: the shapes of the predict command, and bad images in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cytovox
from datamodules.config import SimulatedSet
from datamodules.shape.config import ShapeSimulatorData
from datamodules.shape.simulated import simulated_shapes
from experiments.run import main
from tests.datamodules.shape.write import write_shapes
from training.shape_files import read_samples


@pytest.fixture(scope="module")
def cell():
    """One simulated cell: image and mask, 64 x 64 pixels."""
    data = ShapeSimulatorData(train=SimulatedSet(count=1), val=SimulatedSet(count=0), test=SimulatedSet(count=0))
    return simulated_shapes(data, "train")[0]


def test_shapes_are_those_of_the_predict_command(cell, tmp_path):
    write_shapes([cell], tmp_path / "cells")
    words = ["shape_rbc", "stages=[predict]", f"predict.inputs=[{tmp_path / 'cells'}]", "predict.samples=3",
             f"predict.out={tmp_path / 'out'}", f"runs_dir={tmp_path / 'runs'}"]  # fmt: skip
    assert main(words) == 0
    found = cytovox.load_model("shape_rbc", seed=1).predict(cell.image_YX, cell.mask_YX, 3, name=cell.name)
    np.testing.assert_array_equal(read_samples(tmp_path / "out" / cell.name), found.samples_NZYX.numpy())
    assert found.mean_ZYX.shape == (64, 64, 64)
    assert found.samples_NZYX.any(dim=(1, 2, 3)).all()


def test_samples_depend_on_seed_and_name_only(cell):
    model = cytovox.load_model("shape_rbc", device="cpu", precision="32-true")
    first, again = (model.predict(cell.image_YX, cell.mask_YX, 2) for _ in range(2))
    assert torch.equal(first.samples_NZYX, again.samples_NZYX)
    other = model.predict(cell.image_YX, cell.mask_YX, 2, name="another cell")
    assert not torch.equal(first.samples_NZYX, other.samples_NZYX)


def test_images_of_8_bits_and_other_sizes_are_read_as_files_are(cell):
    model = cytovox.load_model("shape_rbc", device="cpu", precision="32-true")
    bytes_YX = np.rint(255 * cell.image_YX).astype(np.uint8)
    large = model.predict(np.kron(bytes_YX, np.ones((2, 2), np.uint8)), np.kron(cell.mask_YX, np.ones((2, 2), bool)), 1)
    small = model.predict(bytes_YX, cell.mask_YX, 1)
    assert (large.mean_ZYX == small.mean_ZYX).float().mean() > 0.99


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((64, 32)), np.ones((64, 32)), "expected a square"),
        (np.full((64, 64), -1.0), np.eye(64), "negative values"),
        (np.full((64, 64), np.nan), np.eye(64), "NaN or infinite"),
        (np.full((64, 64), 0.5), np.zeros((64, 64)), "the mask is empty"),
        (np.full((64, 64), 0.5), np.eye(32), "give the mask of this image"),
    ],
)
def test_bad_images_are_one_line(image, mask, message):
    model = cytovox.load_model("shape_rbc", device="cpu")
    with pytest.raises(cytovox.InputError, match=message) as caught:
        model.predict(image, mask)
    assert len(str(caught.value).splitlines()) == 1


def test_a_sampler_that_does_not_fit_the_process_is_refused():
    from cytovox.diffusion.samplers import EulerConfig

    with pytest.raises(cytovox.InputError, match="does not fit the process direct"):
        cytovox.load_model("shape_rbc", sampler=EulerConfig())
    with pytest.raises(cytovox.InputError, match="samples: expected 1 or more"):
        cytovox.load_model("shape_rbc", device="cpu").predict(np.full((64, 64), 0.5), np.eye(64), 0)
