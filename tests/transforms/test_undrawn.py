"""Voxels without annotation: from a mask through resampling, patches, loss and score."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.losses import loss_config
from cytovox.metrics.overlap import RIWindowFit, dice_per_organelle
from cytovox.organelles import UNDRAWN
from cytovox.preprocess.resampling import ResampleTo, resize_annotated
from transforms.patches import (
    SplitMasks,
    annotated_centres,
    foreground_centres,
    rand_organelle_patch,
    rand_patch,
)
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


def partly(shape: tuple[int, int, int], annotated: list[tuple[int, int, int]], slices: list[int]) -> dict:
    """One organelle of noise, annotated in single voxels and in whole z slices; a second organelle has no mask."""
    rng = np.random.default_rng(0)
    mask = np.full((2, *shape), UNDRAWN, np.uint8)
    for z in slices:
        mask[0, z] = rng.random(shape[1:]) < 0.3
    for voxel in annotated:
        mask[(0, *voxel)] = rng.random() < 0.5
    mask[1] = 0
    labelled = np.array([True, False])
    return {
        "image": rng.random((1, *shape), dtype=np.float32),
        "mask": mask,
        "labelled": labelled,
        "centres": foreground_centres(mask == 1),
        "annotated": annotated_centres(mask, labelled),
    }


sizes = st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(1, 40))


@settings(deadline=None, max_examples=150)
@given(
    shape=sizes,
    patch=st.tuples(*[st.integers(1, 16)] * 3),
    seed=st.integers(0, 9999),
    share=st.sampled_from([0.0, 0.67, 1.0]),
    data=st.data(),
)
def test_every_patch_of_a_partly_annotated_volume_has_an_annotated_voxel(shape, patch, seed, share, data):
    voxel = st.tuples(*[st.integers(0, n - 1) for n in shape])
    voxels = data.draw(st.lists(voxel, min_size=1, max_size=3))
    slices = data.draw(st.lists(st.integers(0, shape[0] - 1), max_size=2))
    part = partly(shape, voxels, slices)
    if part["annotated"] is None:  # everything is annotated
        return
    patches = rand_organelle_patch(patch, p_foreground=share, p_scale=0.7, p_rotate=0.7).set_random_state(seed)
    for _ in range(3):
        cut = patches(part)
        assert cut["mask"].shape == (2, *patch)
        assert (cut["mask"][0] != UNDRAWN).any()
        assert set(cut) == {"image", "mask", "labelled"}


@settings(deadline=None, max_examples=60)
@given(patch=st.tuples(*[st.integers(2, 16)] * 3), seed=st.integers(0, 9999), angle=st.booleans())
def test_the_annotated_voxel_lies_inside_a_rotated_patch_at_the_volumes_border(patch, seed, angle):
    """The first attempt already has it: no patch of an isolated corner voxel is lost by rotation alone."""
    part = partly((20, 30, 30), [(0, 0, 0), (19, 29, 29), (0, 29, 0)], [])
    window = rand_patch(patch, p_foreground=0, p_scale=0, p_rotate=float(angle)).transforms[0].set_random_state(seed)
    window.randomize(part)
    offsets = part["annotated"] - window.centre
    radius = (min(patch[1:]) - 1) / 2 if angle else np.inf
    inside = (np.abs(offsets) <= (np.array(patch) - 1) / 2 + 1e-6).all(axis=1)
    assert (inside & (np.hypot(*offsets[:, 1:].T) <= radius + 1e-6)).any()


def test_patches_of_a_completely_annotated_volume_are_drawn_as_before():
    part = sample() | {"mask": (sample()["mask"] == 1).to(torch.uint8)}
    assert annotated_centres(part["mask"].numpy(), part["labelled"]) is None
    ours, plain = (make((8, 16, 16)) for make in (rand_organelle_patch, lambda p: rand_patch(p, then=[SplitMasks()])))
    ours.set_random_state(5), plain.set_random_state(5)
    for _ in range(10):
        one, other = ours(part), plain(part)
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])


def test_an_organelle_that_is_annotated_completely_makes_every_voxel_a_possible_centre():
    part = sample()
    assert annotated_centres(part["mask"].numpy(), part["labelled"]) is None
    only_first = annotated_centres(part["mask"].numpy(), np.array([True, False]))
    assert only_first is not None
    assert only_first[:, 2].min() == 12
    assert annotated_centres(part["mask"].numpy(), np.array([False, False])) is None


def test_the_mask_beside_voxels_without_annotation_is_that_of_the_annotated_part():
    """Between an annotated slice and one without annotation, the organelle fills half of what is annotated, or less."""
    undrawn = torch.tensor([0.0, 0.0, 0.4, 0.4, 0.49, 0.6]).reshape(1, 1, 1, 6)
    inside = torch.tensor([0.5, 0.49, 0.31, 0.29, 0.26, 0.4]).reshape(1, 1, 1, 6)
    data = {"labelled": torch.tensor([True]), "image": _Stack(torch.cat([undrawn, inside, undrawn]))}
    assert SplitMasks()(data)["mask"].flatten().tolist() == [1, 0, 1, 0, 1, UNDRAWN]


class _Stack:
    def __init__(self, channels: torch.Tensor) -> None:
        self.as_tensor = lambda: channels


def test_a_patch_without_annotation_of_an_organelle_counts_as_unlabelled_in_the_loss():
    loss = loss_config("dice_bce")().build()
    target = torch.randint(0, 2, (2, 1, 4, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    target[1] = UNDRAWN
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    known = loss(logits, target, torch.tensor([[True], [True]]))
    torch.testing.assert_close(known, loss(logits[:1], target[:1], torch.tensor([[True]])), rtol=0, atol=0)


@settings(deadline=None, max_examples=100)
@given(depth=st.integers(1, 40), new=st.integers(1, 40), data=st.data())
def test_no_single_annotated_slice_is_lost_in_resampling(depth, new, data):
    z = data.draw(st.integers(0, depth - 1))
    mask = np.full((1, depth, 6, 6), UNDRAWN, np.uint8)
    mask[0, z], mask[0, z, :, :3] = 0, 1
    result = resize_annotated(mask, (new, 6, 6))
    found = np.flatnonzero((result != UNDRAWN).any(axis=(0, 2, 3)))
    assert len(found)
    thickness = depth / new
    assert (np.abs((found + 0.5) * thickness - (z + 0.5)) <= (1 + thickness) / 2 + 1e-6).all()
    expected = np.zeros((6, 6), np.uint8)
    expected[:, :3] = 1
    assert all(np.array_equal(result[0, k], expected) for k in found)


def test_resampled_voxels_take_the_label_of_their_annotated_part():
    mask = np.array([1, UNDRAWN, 0, UNDRAWN, UNDRAWN, UNDRAWN, 1, 1], np.uint8).reshape(1, 1, 1, 8)
    assert resize_annotated(mask, (1, 1, 4)).flatten().tolist() == [1, 0, UNDRAWN, 1]
    mask = np.array([1, 1, 0, UNDRAWN, UNDRAWN, 1, 0, 0, UNDRAWN, UNDRAWN], np.uint8).reshape(1, 1, 1, 10)
    assert resize_annotated(mask, (1, 1, 2)).flatten().tolist() == [1, 0]
