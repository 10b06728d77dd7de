"""ScNAS has the published size and cost, and any legal genotype makes a network that learns."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from cytovox.errors import InputError
from cytovox.networks.genotype import CELL_TYPES, INPUTS, NODES, OPERATION_NAMES, genotype_from_json, load_genotype
from cytovox.networks.scnas import ScNAS, ScNASConfig
from cytovox.networks.scnas_cells import OPERATIONS, Cell, CellPlan

TINY = {"width": 2, "layers": 2}


def volume(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_it_has_the_published_parameters_and_operations():
    with torch.device("meta"):
        network = ScNASConfig().build(1, 4)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            logits = network(torch.zeros(1, 1, 64, 128, 128))
    assert logits.shape == (1, 4, 64, 128, 128)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(12.99e6, rel=1e-3)
    assert counter.get_total_flops() == pytest.approx(127e9, rel=5e-3)


def test_widths_double_downward_and_halve_upward():
    with torch.device("meta"):
        network = ScNASConfig().build(1, 4)
    outs = [cell.excite.fc[2].out_features for cell in (*network.encoder, *network.decoder)]
    assert outs == [72, 72, 144, 144, 288, 288, 576, 576, 576, 288, 288, 144, 144, 72, 72, 36]


def test_paper_patches_fit_and_others_are_answered_with_legal_sizes():
    config = ScNASConfig()
    assert (config.divisor, config.minimum) == ((16,) * 3, (48,) * 3)
    assert config.errors((64, 128, 128)) == []
    assert config.errors((32, 128, 120)) == [
        "patch: 32 voxels along z: expected a multiple of 16, at least 48; use 48",
        "patch: 120 voxels along x: expected a multiple of 16, at least 48; use 112 or 128",
    ]


def test_a_volume_of_a_size_that_does_not_fit_is_refused():
    network = ScNASConfig(**TINY).build(1, 1)
    with pytest.raises(InputError, match="scnas: 7 voxels along y"):
        network(torch.zeros(1, 1, 8, 7, 8))


@pytest.mark.parametrize("layers", [2, 4])
def test_the_smallest_and_an_uneven_size_come_back_as_they_went_in(layers):
    config = ScNASConfig(width=2, layers=layers)
    network = config.build(2, 3)
    least = config.minimum[0]
    for shape in ((least,) * 3, (least, least + config.divisor[1], least + 2 * config.divisor[2])):
        assert network(volume(2, 2, *shape)).shape == (2, 3, *shape)


@pytest.mark.parametrize("options", [TINY, {"width": 2, "layers": 4}, {**TINY, "multiplier": 4}])
def test_gradients_reach_every_parameter(options):
    network = ScNASConfig(**options).build(1, 2)
    least = ScNASConfig(**options).minimum
    (network(volume(2, 1, *least)) * volume(2, 2, *least, seed=1)).sum().backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in dead if ".fc." not in name] == []  # a squeezed ReLU may be off for two samples
    assert all(p.grad is not None for p in network.parameters())


@given(st.data())
@settings(deadline=None, max_examples=12)
def test_any_legal_genotype_trains_or_is_refused_for_cutting_the_chain(data):
    genes = {"schema": "cytovox.genotype.1"}
    for kind in CELL_TYPES:
        genes[kind] = {}
        for index, node in enumerate(NODES):
            edge = st.tuples(st.sampled_from(OPERATION_NAMES), st.sampled_from([*INPUTS, *NODES[:index]]))
            genes[kind][node] = [list(e) for e in data.draw(st.lists(edge, max_size=2))] + [["identity", "s1"]]
    network = ScNAS(1, 1, ScNASConfig(**TINY), genotype_from_json(genes))
    network(volume(1, 1, 6, 6, 6)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_genotype_that_cuts_off_a_cell_is_refused(tmp_path):
    plain = load_genotype("published").to_json()
    plain["decoder_normal"] = {node: [["conv_3", "s0"]] for node in NODES}
    path = tmp_path / "cut.json"
    path.write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(InputError, match="decoder_normal: no path from s1"):
        ScNASConfig(genotype=str(path)).build(1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 7}, "layers: 7: expected an even number"),
        ({"layers": 0}, "layers: 0"),
        ({"multiplier": 5}, "multiplier: 5: expected 1 to 4"),
        ({"width": 1}, "width: 1"),
        ({"genotype": "nowhere.json"}, "no such file"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    assert any(message in error for error in ScNASConfig(**options).errors((64, 128, 128)))
    with pytest.raises(InputError, match=message):
        ScNASConfig(**options).build(1, 4)


def test_every_operation_keeps_or_halves_the_grid():
    for name, build in OPERATIONS.items():
        for stride in (1, 2):
            assert build(4, stride)(volume(1, 4, 6, 8, 10)).shape == (1, 4, 6 // stride, 8 // stride, 10 // stride), (
                name
            )
    assert set(OPERATIONS) == set(OPERATION_NAMES) - {"none"}


def test_a_node_is_the_sum_of_its_edges():
    """Identities only, so that the cell is arithmetic that can be done by hand."""
    edges = [["identity", "s0"], ["identity", "s1"]]
    plain = load_genotype("published").to_json()
    plain["encoder_normal"] = {"n0": edges, "n1": [["identity", "n0"], ["identity", "s1"]], "n2": edges, "n3": edges}
    cell = Cell(genotype_from_json(plain).encoder_normal, CellPlan("encoder_normal", (2, 2), 2, "none", "none", 0), 3)
    older, younger = volume(1, 2, 4, 4, 4), volume(1, 2, 4, 4, 4, seed=1)
    s0, s1 = cell.inputs["s0"](older), cell.inputs["s1"](younger)
    expected = cell.excite(torch.cat([s0 + 2 * s1, s0 + s1, s0 + s1], dim=1))
    torch.testing.assert_close(cell(older, younger), expected)


def test_the_whole_field_of_view_is_seen_through_convolutions_alone():
    """Without what pools over the whole volume (normalisation, excitation) the middle still sees 8 voxels away."""
    network = ScNASConfig(**TINY).build(1, 1).double()
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm3d) or type(module).__name__ == "ChannelSELayer":
            module.forward = lambda x: x
    x = volume(1, 1, 24, 24, 24).double().requires_grad_()
    network(x)[0, 0, 12, 12, 12].backward()
    assert x.grad[0, 0, 4:21, 12, 12].ne(0).all()


def test_checkpointing_changes_memory_and_no_number():
    plain, saving = (ScNASConfig(**TINY, checkpointing=flag).build(1, 2) for flag in (False, True))
    saving.load_state_dict(plain.state_dict())
    grads = []
    for network in (plain, saving):
        logits = network(volume(1, 1, 6, 6, 6))
        logits.square().mean().backward()
        grads.append([p.grad for p in network.parameters()])
    torch.testing.assert_close(*grads)


def test_bfloat16_and_channels_last_give_nearly_the_same_logits():
    network = ScNASConfig(width=4, layers=2).build(1, 2).eval()
    x = volume(1, 1, 12, 12, 12)
    with torch.no_grad():
        full = network(x)
        network.to(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x.contiguous(memory_format=torch.channels_last_3d))
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().mean() < 0.05 * full.abs().mean()


def test_a_deep_copy_is_equal_and_apart():
    network = ScNASConfig(**TINY).build(1, 1).eval()
    twin = copy.deepcopy(network)
    x = volume(1, 1, 6, 6, 6)
    torch.testing.assert_close(twin(x), network(x))
    with torch.no_grad():
        twin.head.bias.add_(1)
    assert not torch.equal(twin(x), network(x))


def test_names_in_a_checkpoint_stay_as_they_are():
    keys = list(ScNASConfig().build(1, 4).state_dict())
    assert len(keys) == 167
    for key in (
        "stem.0.weight",
        "stem.2.fc.0.weight",
        "encoder.0.inputs.s0.1.weight",
        "encoder.1.inputs.s0.conv_1.weight",
        "encoder.0.nodes.n0.0.conv_1.weight",
        "decoder.7.nodes.n0.1.1.weight",
        "decoder.7.inputs.s1.1.1.weight",
        "decoder.7.excite.fc.2.bias",
        "head.bias",
    ):
        assert key in keys
