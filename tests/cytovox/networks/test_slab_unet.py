"""The slab network: sizes of its fields, zero output at the start, conditioning on time and image."""

import pytest
import torch

from cytovox.errors import InputError
from cytovox.networks.slab_unet import SlabUNetConfig

SMALL = SlabUNetConfig(channels=[8, 16], dropout=0.0)


def awake(size=16, outputs=1):
    """A small network whose last layers, zero at the start, say something."""
    torch.manual_seed(0)
    network = SMALL.build(size, outputs).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return network


def inputs(size=16, batch=3):
    generator = torch.Generator().manual_seed(1)
    volume = torch.randn(batch, 1, size, size, size, generator=generator)
    return volume, torch.full((batch,), 500.0), torch.rand(batch, 2, 64, 64, generator=generator)


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("outputs", [1, 2])
def test_fields_of_any_size_that_divides_the_image_come_back_in_their_own(size, outputs):
    assert awake(size, outputs)(*inputs(size)).shape == (3, outputs, size, size, size)


def test_a_new_network_says_nothing():
    assert not SMALL.build(16)(*inputs()).any()


def test_time_image_and_volume_are_all_heard():
    network, (volume, t, image) = awake(), inputs()
    said = network(volume, t, image)
    for other in ((volume + 1, t, image), (volume, t / 2, image), (volume, t, 1 - image)):
        assert (network(*other) - said).abs().max() > 1e-3


def test_the_cells_of_a_batch_do_not_hear_of_each_other():
    network, (volume, t, image) = awake(), inputs()
    alone = network(volume[1:2], t[1:2], image[1:2])
    assert torch.allclose(network(volume, t, image)[1:2], alone, atol=1e-5)


def test_what_folds_into_channels_unfolds_to_its_place():
    """An impulse in one corner of the volume is heard there, and hardly in the far one when nothing is global."""
    network = awake(64)
    for deep in (network.bottom, network.bottom2):
        deep.forward = lambda h, _: h  # type: ignore[method-assign]
    network.attention.forward = lambda h: h  # type: ignore[method-assign]
    volume, t, image = inputs(64, 1)
    moved = volume.clone()
    moved[0, 0, 5, 3, 60] += 5.0
    change = (network(moved, t, image) - network(volume, t, image)).abs()[0, 0].amax(0)
    assert change[:16, 48:].max() > 20 * change[48:, :16].max()


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({"channels": [12]}, 64, "multiples of 8"),
        ({"channels": []}, 64, "multiples of 8"),
        ({"heads": 3}, 64, "divisor"),
        ({"blocks": 0}, 64, "blocks: 0"),
        ({"dropout": 1.0}, 64, "dropout: 1.0"),
        ({}, 20, "multiple of 8, not 20"),
        ({}, 48, "not 48"),
    ],
)
def test_an_option_out_of_range_is_refused(options, size, message):
    with pytest.raises(InputError, match=message):
        SlabUNetConfig(**options).build(size)
