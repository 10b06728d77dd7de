"""Traits of solids with known thickness and tilt, and the condition that contains them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.diffusion.traits import HEIGHTS, SPHERE, TRAITS, Traits, TraitsConfig, measure_traits, trait_maps
from cytovox.errors import InputError

SIDE = 32


def field(inside_ZYX):
    return (2.0 * inside_ZYX.float() - 1)[None, None]


def grid():
    steps = torch.arange(SIDE, dtype=torch.float64)
    return torch.meshgrid(steps, steps, steps, indexing="ij")


def sheared(radius, height, rise_y, rise_x):
    """An ellipsoid whose columns are shifted along z: by `height`, and by a plane through its centre."""
    z, y, x = grid()
    moved = z - SIDE // 2 - height - rise_y * (y - 15.5) - rise_x * (x - 15.5)
    return field((moved / 5) ** 2 + ((y - 15.5) / radius) ** 2 + ((x - 15.5) / radius) ** 2 <= 1)


def test_a_sphere_is_as_thick_as_a_sphere():
    z, y, x = grid()
    ball = (z - SIDE // 2) ** 2 + (y - 15.5) ** 2 + (x - 15.5) ** 2 <= 11**2
    found = measure_traits(field(ball))
    assert math.isclose(SPHERE, 4 / 3 * math.pi / math.pi**1.5, rel_tol=1e-4)
    assert found.thickness.item() == pytest.approx(0, abs=0.02)
    assert [float(value) for value in found[1:4]] == pytest.approx([0, 0, 0], abs=2e-3)


def test_a_disc_half_as_thick_has_half_the_volume():
    z, y, x = grid()
    inside = (y - 15.5) ** 2 + (x - 15.5) ** 2 <= 100
    thick, thin = (measure_traits(field(inside & ((z - 16).abs() < h / 2))) for h in (9, 5))
    assert (thick.thickness - thin.thickness).item() == pytest.approx(math.log(9 / 5), abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4), st.floats(-3, 3))
def test_the_plane_through_the_columns_is_found(rise_y, rise_x, height):
    found = measure_traits(sheared(11, height, rise_y, rise_x))
    assert found.slope_y.item() == pytest.approx(rise_y, abs=0.05)
    assert found.slope_x.item() == pytest.approx(rise_x, abs=0.05)
    assert found.height.item() * SIDE == pytest.approx(height, abs=0.35)


def test_traits_turn_with_the_shape_and_do_not_change_with_its_resolution():
    shape = sheared(11, 1.0, 0.3, -0.1)
    found, turned = measure_traits(shape), measure_traits(torch.rot90(shape, 1, (-2, -1)))
    assert turned.thickness.item() == pytest.approx(found.thickness.item(), abs=1e-4)
    assert turned.slope_y.item() == pytest.approx(-found.slope_x.item(), abs=1e-4)
    assert turned.slope_x.item() == pytest.approx(found.slope_y.item(), abs=1e-4)
    finer = measure_traits(shape.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4))
    assert finer.thickness.item() == pytest.approx(found.thickness.item(), abs=0.02)
    assert finer.slope_y.item() == pytest.approx(found.slope_y.item(), abs=0.01)


def test_nothing_inside_gives_numbers():
    found = measure_traits(-torch.ones(2, 1, SIDE, SIDE, SIDE))
    assert all(torch.isfinite(value).all() for value in found)


def test_maps_contain_the_plane_and_which_traits_are_known():
    known = Traits(*(torch.tensor([value, value]) for value in (0.5, 0.125, 0.25, 0.0, 0.5, 0.5)))
    maps = trait_maps(known, torch.tensor([1.0, 0.0]), (64, 64))
    assert maps.shape == (2, 3, 64, 64)
    assert (maps[0, 0] == 0.5).all()
    assert (maps[0, 2] == 1).all()
    # at the centre the height, and a quarter of a voxel up for each along y
    assert maps[0, 1, 31:33].mean().item() == pytest.approx(HEIGHTS * 0.125)
    assert (maps[0, 1, 40, 5] - maps[0, 1, 8, 50]).item() == pytest.approx(HEIGHTS * 0.25 * 32 / 64)
    assert not maps[1].any()


def test_drawn_traits_spread_around_the_answer_as_asked():
    traits = TraitsConfig(thickness=0.3, tilt=0.1, height=0.02).build()
    shape = sheared(11, 1.0, 0.2, -0.1).float().expand(400, -1, -1, -1, -1)
    condition = torch.zeros(400, 2, 8, 8)
    maps = traits.with_drawn_traits(shape, condition, torch.Generator().manual_seed(0))[:, 2:]
    own = measure_traits(shape[:1])
    assert maps[:, 0].std(0).mean().item() == pytest.approx(0.3, rel=0.1)
    assert maps[:, 0].mean().item() == pytest.approx(own.thickness.item(), abs=0.05)
    slope = (maps[:, 1, -1, 0] - maps[:, 1, 0, 0]) / (7 / 8) / HEIGHTS
    assert slope.std().item() == pytest.approx(0.1, rel=0.1)
    assert slope.mean().item() == pytest.approx(own.slope_y.item(), abs=0.02)
    assert (maps[:, 2] == 1).all()


def test_draws_are_the_samples_own():
    traits, shape = TraitsConfig().build(), sheared(11, 0, 0, 0).float().expand(3, -1, -1, -1, -1)
    condition = torch.zeros(3, 2, 8, 8)
    all_three = traits.with_drawn_traits(shape, condition, torch.Generator().manual_seed(4))
    first = traits.with_drawn_traits(shape[:1], condition[:1], torch.Generator().manual_seed(4))
    # to rounding: the order in which a processor adds the voxels of a shape depends on the batch
    torch.testing.assert_close(all_three[:1], first, rtol=1e-5, atol=1e-5)
    assert (all_three[1] - all_three[0]).abs().max() > 1e-2


def test_in_training_a_part_of_the_batch_gets_the_true_traits():
    traits, shape = (
        TraitsConfig(given_fraction=0.25).build(),
        sheared(11, 2.0, 0, 0).float().expand(2000, -1, -1, -1, -1),
    )
    maps = traits.training(shape, torch.zeros(2000, 2, 2, 2), torch.Generator().manual_seed(0))[:, 2:]
    known = maps[:, 2, 0, 0] == 1
    assert known.float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert not maps[~known].any()
    assert maps[known, 1].mean().item() / HEIGHTS * SIDE == pytest.approx(2.0, abs=0.3)
    assert traits.without_traits(torch.zeros(2, 2, 4, 4)).shape == (2, 5, 4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"given_fraction": 1.0}, "given_fraction: 1.0: expected a fraction between 0 and 1"),
        ({"thickness": -0.1}, "thickness: -0.1: expected 0 to 2"),
        ({"tilt": float("nan")}, "tilt: nan"),
        ({"height": 0.6}, "height: 0.6: expected 0 to 0.5"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        TraitsConfig(**options).build()


@pytest.mark.parametrize("name", list(TRAITS))
def test_defaults_have_no_fault(name):
    assert TRAITS[name]().errors() == []
