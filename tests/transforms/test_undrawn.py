"""Voxels without annotation: from a mask through resampling, patches, loss and score."""

import numpy as np
import torch

from cytovox.losses import loss_config
from cytovox.metrics.overlap import RIWindowFit, dice_per_organelle
from cytovox.organelles import UNDRAWN
from cytovox.preprocess.resampling import ResampleTo
from transforms.patches import foreground_centres, rand_organelle_patch
from transforms.spatial import ResampleToCommonGridd

SHAPE = (12, 24, 24)


def sample() -> dict:
    """Two organelles; the left half of the first one's slice is not drawn."""
    mask = np.zeros((2, *SHAPE), np.uint8)
    mask[:, 3:9, 6:18, 6:18] = 1
    mask[0, :, :, :12] = UNDRAWN
    image = np.random.default_rng(0).random((1, *SHAPE), dtype=np.float32)
    return {
        "image": torch.from_numpy(image),
        "mask": torch.from_numpy(mask),
        "labelled": np.array([True, True]),
        "centres": foreground_centres(mask == 1),
    }


def test_resampling_keeps_what_is_not_drawn_apart_from_the_masks():
    data = sample()
    transform = ResampleToCommonGridd(ResampleTo(spacing_um=(0.5, 0.5, 0.5)))
    result = transform({"image": data["image"].numpy(), "mask": data["mask"].numpy(), "spacing_um": (1.0, 1.0, 1.0)})
    assert set(np.unique(result["mask"][0])) == {0, 1, UNDRAWN}
    assert (result["mask"][0, ..., :23] == UNDRAWN).all()
    assert set(np.unique(result["mask"][1])) == {0, 1}


def test_patches_rotated_and_scaled_have_0_1_and_undrawn_only():
    patches = rand_organelle_patch((8, 16, 16), p_scale=1, p_rotate=1).set_random_state(0)
    seen = set()
    for _ in range(20):
        result = patches(sample())
        assert result["mask"].dtype == torch.uint8
        assert set(result["mask"][1].unique().tolist()) <= {0, 1}
        seen |= set(result["mask"][0].unique().tolist())
    assert seen == {0, 1, UNDRAWN}


def test_a_patch_that_is_only_cropped_keeps_every_voxel():
    patches = rand_organelle_patch(SHAPE, p_scale=0, p_rotate=0, p_flip=0).set_random_state(0)
    assert torch.equal(patches(sample())["mask"], sample()["mask"])


def test_the_loss_and_its_gradient_ignore_what_is_not_drawn():
    loss = loss_config("dice_bce")().build()
    target = sample()["mask"][None]
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    other = torch.where(target == UNDRAWN, logits + 7, logits).requires_grad_()
    labelled = torch.tensor([[True, True]])
    value = loss(other, target, labelled)
    assert torch.equal(value.detach(), loss(logits, target, labelled))
    value.sum().backward()
    assert (other.grad[target == UNDRAWN] == 0).all()
    assert (other.grad[target != UNDRAWN] != 0).any()


def test_the_loss_of_half_a_volume_is_that_of_the_half_alone():
    loss = loss_config("dice_bce")().build()
    target, labelled = sample()["mask"][None, :1], torch.tensor([[True]])
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    half = loss(logits[..., 12:], target[..., 12:], labelled)
    torch.testing.assert_close(loss(logits, target, labelled), half)


def test_a_target_of_which_nothing_is_drawn_gives_no_gradient():
    loss = loss_config("dice_bce")().build()
    target = torch.full((1, 1, 4, 8, 8), UNDRAWN, dtype=torch.uint8)
    logits = torch.zeros(target.shape, requires_grad=True)
    loss(logits, target, torch.tensor([[True]])).sum().backward()
    assert (logits.grad == 0).all()


def test_scores_ignore_what_is_not_drawn():
    truth = sample()["mask"].numpy()
    pred = truth == 1
    pred[0, :, :, :12] = True
    assert dice_per_organelle(pred, truth).tolist() == [1.0, 1.0]
    ri = np.where(truth[1] == 1, 1.38, 1.34).astype(np.float32)
    windows = RIWindowFit(("membrane", "nucleus"))
    windows.add(ri, {"membrane": truth[0], "nucleus": truth[1]})
    assert windows.fit()["membrane"].dice == 1.0
