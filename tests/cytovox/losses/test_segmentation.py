"""Segmentation losses have the values computed by hand, and ignore organelles without annotation."""

import math

import monai.losses
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cytovox.errors import InputError
from cytovox.losses import LOSSES, loss_config
from cytovox.losses.segmentation import DiceBCEConfig, DiceFocalConfig, TverskyConfig, tversky_loss

SHAPE = (2, 3, 4, 4, 4)


def example(seed=0, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator)
    return logits, (torch.rand(shape, generator=generator) > 0.6).float(), torch.ones(shape[:2], dtype=torch.bool)


def row(*values):
    """One sample, one organelle, voxels along x."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, 1, -1)


LABELLED = torch.ones(1, 1, dtype=torch.bool)


def test_dice_and_cross_entropy_of_two_voxels_by_hand():
    """p = (3/4, 1/2), y = (1, 0): Dice (2 * 3/4 + 1) / (5/4 + 1 + 1) = 10/13; BCE (ln 4/3 + ln 2) / 2."""
    loss = DiceBCEConfig().build()(row(math.log(3), 0.0), row(1, 0), LABELLED)
    expected = (1 - 10 / 13) + (math.log(4 / 3) + math.log(2)) / 2
    assert loss.tolist() == pytest.approx([expected], rel=1e-6)


def test_the_two_terms_and_the_organelles_are_weighed():
    logits, target = row(math.log(3), 0.0), row(1, 0)
    weighed = DiceBCEConfig(dice_weight=2, bce_weight=0.5, organelle_weights=[3.0]).build()(logits, target, LABELLED)
    expected = 3 * (2 * (3 / 13) + 0.5 * (math.log(4 / 3) + math.log(2)) / 2)
    assert weighed.tolist() == pytest.approx([expected], rel=1e-6)


def test_tversky_by_hand():
    """p = (3/4, 1/2), y = (1, 0): TP 3/4, FP 1/2, FN 1/4; (1.5 + 1) / (1.5 + 2 * .3 * .5 + 2 * .7 * .25 + 1)."""
    loss = TverskyConfig().build()(row(math.log(3), 0.0), row(1, 0), LABELLED)
    assert loss.tolist() == pytest.approx([1 - 2.5 / (1.5 + 0.3 + 0.35 + 1)], rel=1e-6)


def test_focal_by_hand():
    """p_t = (3/4, 1/2): mean of (1/4)^2 ln 4/3 and (1/2)^2 ln 2."""
    loss = DiceFocalConfig(dice_weight=0).build()(row(math.log(3), 0.0), row(1, 0), LABELLED)
    assert loss.tolist() == pytest.approx([(math.log(4 / 3) / 16 + math.log(2) / 4) / 2], rel=1e-5)


def test_the_dice_of_a_sample_is_monais():
    logits, target, labelled = example()
    ours = DiceBCEConfig(bce_weight=0, smooth=0.5).build()(logits, target, labelled)
    theirs = monai.losses.DiceLoss(sigmoid=True, smooth_nr=0.5, smooth_dr=0.5, reduction="none")(logits, target)
    torch.testing.assert_close(ours, theirs.view(2, 3).mean(0))


def test_the_dice_of_a_batch_is_monais():
    logits, target, labelled = example()
    ours = DiceBCEConfig(bce_weight=0, batch=True).build()(logits, target, labelled)
    theirs = monai.losses.DiceLoss(sigmoid=True, smooth_nr=1, smooth_dr=1, batch=True, reduction="none")(logits, target)
    torch.testing.assert_close(ours, theirs.flatten())


def test_tversky_is_monais():
    logits, target, labelled = example()
    config = TverskyConfig(false_positives=0.2, false_negatives=0.8, smooth=2)
    theirs = monai.losses.TverskyLoss(sigmoid=True, alpha=0.2, beta=0.8, smooth_nr=1, smooth_dr=1, reduction="none")
    torch.testing.assert_close(config.build()(logits, target, labelled), theirs(logits, target).view(2, 3).mean(0))


def test_the_cross_entropy_is_torchs():
    logits, target, labelled = example()
    ours = DiceBCEConfig(dice_weight=0).build()(logits, target, labelled)
    torch.testing.assert_close(ours.mean(), F.binary_cross_entropy_with_logits(logits, target))


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("name", list(LOSSES))
def test_an_unlabelled_organelle_adds_nothing_and_has_exactly_no_gradient(name, batch):
    logits, target, labelled = example()
    labelled[0, 1] = labelled[1, 2] = False
    target[0, 1] = float("nan")
    logits[1, 2] = float("inf")
    logits.requires_grad_()
    loss = LOSSES[name](batch=batch).build()(logits, target, labelled)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad[~labelled].eq(0).all()
    assert logits.grad[labelled].ne(0).all()
    alone = LOSSES[name](batch=batch).build()(logits[1:, 1:2], target[1:, 1:2], labelled[1:, 1:2])
    torch.testing.assert_close(loss[1:2], alone)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("name", list(LOSSES))
def test_an_organelle_that_nobody_labelled_costs_zero(name, batch):
    logits, target, labelled = example()
    labelled[:, 0] = False
    logits.requires_grad_()
    loss = LOSSES[name](batch=batch).build()(logits, target, labelled)
    assert loss[0] == 0
    assert (loss[1:] > 0).all()
    loss.sum().backward()
    assert logits.grad[:, 0].eq(0).all()


def test_a_batch_without_any_label_still_goes_backward():
    logits, target, labelled = example()
    logits.requires_grad_()
    loss = DiceBCEConfig().build()(logits, target, torch.zeros_like(labelled))
    loss.sum().backward()
    assert loss.tolist() == [0, 0, 0]
    assert logits.grad.eq(0).all()


def test_a_labelled_empty_mask_asks_for_nothing_there():
    empty = torch.zeros(1, 1, 2, 2, 2)
    loss = DiceBCEConfig().build()
    assert loss(empty - 20, empty, LABELLED).item() < 1e-6
    assert loss(empty + 20, empty, LABELLED).item() > 10


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_perfect_prediction_costs_nearly_nothing(name):
    _, target, labelled = example()
    assert LOSSES[name]().build()((target * 2 - 1) * 30, target, labelled).max() < 1e-4


@given(st.integers(0, 10_000), st.sampled_from(list(LOSSES)), st.booleans())
@settings(deadline=None, max_examples=25)
def test_order_and_orientation_do_not_matter_and_organelles_do_not_mix(seed, name, batch):
    logits, target, labelled = example(seed)
    labelled = torch.rand(labelled.shape, generator=torch.Generator().manual_seed(seed)) > 0.3
    loss = LOSSES[name](batch=batch).build()
    expected = loss(logits, target, labelled)
    torch.testing.assert_close(loss(logits.flip(0), target.flip(0), labelled.flip(0)), expected)
    torch.testing.assert_close(loss(logits.flip(1), target.flip(1), labelled.flip(1)), expected.flip(0))
    torch.testing.assert_close(loss(logits.flip(2).mT, target.flip(2).mT, labelled), expected)
    other = logits.clone()
    other[:, 0] += 1
    torch.testing.assert_close(loss(other, target, labelled)[1:], expected[1:])


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_the_overlap_loss_lies_between_zero_and_one(p, a, b):
    _, target, _ = example()
    loss = tversky_loss(torch.full_like(target, p), target, a, b)
    assert ((loss >= -1e-6) & (loss <= 1)).all()


def test_it_is_computed_in_float32_under_autocast():
    logits, target, labelled = example(shape=(1, 2, 16, 16, 16))
    loss = DiceBCEConfig().build()
    expected = loss(logits.bfloat16().float(), target, labelled)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(logits.bfloat16(), target.bool(), labelled)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", list(LOSSES))
def test_the_gradient_is_the_slope(name):
    logits, target, labelled = example(shape=(1, 2, 2, 2, 2))
    loss = LOSSES[name]().build()
    logits.requires_grad_()
    loss(logits, target, labelled).sum().backward()
    step = 1e-2 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        rise = (loss(logits + step, target, labelled) - loss(logits - step, target, labelled)).sum() / 2
    assert (logits.grad * step).sum().item() == pytest.approx(rise.item(), rel=2e-2)


def test_shapes_that_do_not_match_are_a_bug_not_a_users_fault():
    logits, target, labelled = example()
    with pytest.raises(ValueError, match="expected"):
        DiceBCEConfig().build()(logits, target[:, :2], labelled)
    with pytest.raises(ValueError, match="expected"):
        DiceBCEConfig().build()(logits, target, labelled[:1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DiceBCEConfig(dice_weight=-1), "dice_weight: -1"),
        (DiceBCEConfig(dice_weight=0, bce_weight=0), "both 0"),
        (DiceBCEConfig(smooth=0), "smooth: 0"),
        (DiceBCEConfig(organelle_weights=[1, -1]), "organelle_weights"),
        (DiceBCEConfig(organelle_weights=[0, 0]), "not all 0"),
        (DiceBCEConfig(bce_weight=float("nan")), "bce_weight: nan"),
        (DiceFocalConfig(alpha=1.5), "alpha: 1.5"),
        (DiceFocalConfig(dice_weight=0, focal_weight=0), "both 0"),
        (TverskyConfig(false_positives=0, false_negatives=0), "both 0"),
    ],
)
def test_an_option_out_of_range_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        config.build()


def test_weights_must_be_one_an_organelle():
    assert DiceBCEConfig(organelle_weights=[1, 2, 3]).errors(4) == [
        "organelle_weights: 3 given: expected 4, one per organelle, or []"
    ]
    assert DiceBCEConfig(organelle_weights=[1, 2, 3, 4]).errors(4) == []


def test_losses_have_no_parameters():
    assert all(not list(config().build().parameters()) for config in LOSSES.values())


def test_a_misspelt_loss_is_answered_with_the_nearest_and_all_names():
    with pytest.raises(InputError, match=r"'dice_bec'.*did you mean dice_bce\?.*dice_bce, dice_focal, tversky"):
        loss_config("dice_bec")
    assert loss_config("tversky") is TverskyConfig


@pytest.mark.parametrize("name", list(LOSSES))
def test_omegaconf_takes_the_config_as_its_schema_and_gives_it_back(name):
    omegaconf = pytest.importorskip("omegaconf")
    back = omegaconf.OmegaConf.to_object(omegaconf.OmegaConf.structured(LOSSES[name]))
    assert back == LOSSES[name]()
    assert back.errors(4) == []
