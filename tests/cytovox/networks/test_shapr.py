"""SHAPR makes a volume of a slice; its discriminator tells shapes apart; shape networks are found by name."""

import pytest
import torch

from cytovox.errors import InputError
from cytovox.networks.shape_registry import SHAPE_NETWORKS, shape_network_config
from cytovox.networks.shapr import SHAPRConfig


def test_a_slice_becomes_a_volume_of_depth_64():
    with torch.device("meta"):
        network = SHAPRConfig().build()
        assert network(torch.zeros(2, 2, 64, 64)).shape == (2, 1, 64, 64, 64)
    assert sum(p.numel() for p in network.parameters()) == 774_752


def test_encoder_and_decoder_have_the_published_widths():
    with torch.device("meta"):
        network = SHAPRConfig().build()
    kinds = {torch.nn.Conv2d: [], torch.nn.ConvTranspose3d: []}
    for module in network.modules():
        if type(module) in kinds:
            kinds[type(module)].append(module.out_channels)
    assert kinds[torch.nn.Conv2d] == [10, 10, 40, 40, 80, 80, 1, 80, 80]
    assert kinds[torch.nn.ConvTranspose3d] == [80, 40, 40, 20, 10, 10]


def test_every_weight_of_both_learns():
    torch.manual_seed(0)
    config = SHAPRConfig(base_channels=4)
    generator, discriminator = config.build(), config.build_discriminator()
    logits = generator(torch.rand(2, 2, 16, 16))
    verdict = discriminator(torch.sigmoid(logits))
    assert logits.shape == (2, 1, 64, 16, 16)
    assert verdict.shape == (2, 1)
    verdict.square().sum().backward()
    for network in (generator, discriminator):
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_a_few_steps_learn_whether_a_cell_is_thick():
    torch.manual_seed(0)
    network = SHAPRConfig(base_channels=4).build()
    condition = torch.zeros(2, 2, 8, 8)
    condition[:, :, 2:6, 2:6] = 1
    condition[1, 1] /= 4
    shape = torch.zeros(2, 1, 64, 8, 8)
    shape[0, :, 24:40, 2:6, 2:6] = 1
    shape[1, :, 30:34, 2:6, 2:6] = 1
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(condition), shape)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    depth = network(condition).gt(0).sum((1, 2, 3, 4)) / 16
    assert depth[0] == pytest.approx(16, abs=3)
    assert depth[1] == pytest.approx(4, abs=2)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="shapr: 62 voxels along y"):
        SHAPRConfig().build()(torch.zeros(1, 2, 62, 64))
    with pytest.raises(InputError, match="bottleneck_channels: 0: expected 1 or more"):
        SHAPRConfig(bottleneck_channels=0).build()


@pytest.mark.parametrize("name", list(SHAPE_NETWORKS))
def test_every_shape_network_is_built_by_name_and_fits_omegaconf(name):
    omegaconf = pytest.importorskip("omegaconf")
    config = shape_network_config(name)
    assert omegaconf.OmegaConf.to_object(omegaconf.OmegaConf.structured(config)) == config()
    assert config().errors() == []
    with torch.device("meta"):
        assert isinstance(config().build(), torch.nn.Module)


def test_an_unknown_shape_network_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="'dispr': no such network; did you mean dispr_unet"):
        shape_network_config("dispr")
