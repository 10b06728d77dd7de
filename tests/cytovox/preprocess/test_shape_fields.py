"""Shapes as fields: balls whose distances are known, and conversion to fields and back."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cytovox.errors import InputError
from cytovox.preprocess.shape_fields import (
    FIELDS,
    OccupancyConfig,
    SignedDistanceConfig,
    _blur_matrix,
    _separable,
    signed_distance,
)

AXIS = np.arange(64) - 31.5


def ball(radius):
    z, y, x = np.meshgrid(AXIS, AXIS, AXIS, indexing="ij")
    return np.sqrt(z**2 + y**2 + x**2), radius


def test_the_distance_in_a_ball_is_its_radius_minus_that_of_the_voxel():
    away, radius = ball(20)
    assert np.abs(signed_distance(away < radius) - (radius - away)).max() < 0.9


def test_the_surface_of_a_half_space_lies_between_voxels():
    inside = np.zeros((4, 4, 8), bool)
    inside[..., :3] = True
    assert signed_distance(inside)[0, 0].tolist() == [2.5, 1.5, 0.5, -0.5, -1.5, -2.5, -3.5, -4.5]


@pytest.mark.parametrize(("value", "sign"), [(False, -1), (True, 1)])
def test_volumes_without_a_surface_have_the_largest_distance(value, sign):
    assert (signed_distance(np.full((3, 4), value)) == sign * 5).all()


def fields_of(inside, config):
    field = config.build()
    output = field.encode(torch.from_numpy(signed_distance(inside))[None])
    return field, output


@pytest.mark.parametrize(
    ("config", "loss"),
    [
        (OccupancyConfig(), 0.0),
        (SignedDistanceConfig(size=64, sharpen=0), 0.0),
        (SignedDistanceConfig(size=32, sharpen=0), 0.01),
        (SignedDistanceConfig(size=16, sharpen=0), 0.05),
    ],
)
def test_a_ball_encoded_and_decoded_has_a_small_error(config, loss):
    away, radius = ball(20)
    inside = away < radius
    field, output = fields_of(inside, config)
    assert output.shape == (1, 1, config.size, config.size, config.size)
    assert output.abs().max() <= 1
    back = field.decode(output, torch.from_numpy(inside[32])[None])[0].numpy()
    assert 1 - (back & inside).sum() / (back | inside).sum() <= loss


@pytest.mark.parametrize("config", [OccupancyConfig(), SignedDistanceConfig()])
def test_the_known_slice_replaces_that_of_the_field(config):
    mask = torch.rand(2, 64, 64) > 0.5
    field = torch.randn(2, 1, config.size, config.size, config.size)
    obj = config.build().decode(field, mask)
    assert obj.dtype == torch.bool
    assert (obj[:, 32] == mask).all()


@pytest.mark.parametrize("kind", [OccupancyConfig, SignedDistanceConfig])
def test_without_the_known_slice_all_slices_are_those_of_the_field(kind):
    config = kind(known_slice=False)
    mask, field = torch.zeros(1, 64, 64), torch.full((1, 1, config.size, config.size, config.size), 0.9)
    assert config.build().decode(field, mask).all()
    assert not kind().build().decode(field, mask)[:, 32].any()


def test_sharpening_restores_blurred_corners():
    box = np.zeros((64, 64, 64), bool)
    box[16:48, 20:44, 20:44] = True
    mask = torch.from_numpy(box[32])[None]
    truth = signed_distance(box).clip(-6, 6) / 6
    smooth = torch.from_numpy(gaussian_filter(truth, 2.0, mode="nearest"))[None, None]
    wrong = [
        (SignedDistanceConfig(size=64, sharpen=s).build().decode(smooth, mask)[0].numpy() ^ box).sum() for s in (0, 1)
    ]
    assert wrong[1] < 0.7 * wrong[0]


def test_the_blur_equals_that_of_scipy():
    volume = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)
    ours = _separable(torch.from_numpy(volume)[None, None], _blur_matrix(12, 1.5).float())[0, 0].numpy()
    assert np.abs(ours - gaussian_filter(volume, 1.5, mode="nearest")).max() < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 48}, "size: 48"),
        ({"truncation": 0.5}, "truncation"),
        ({"sharpen": -1}, "sharpen"),
        ({"blur": 0}, "blur"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        FIELDS["signed_distance"](**options).build()
