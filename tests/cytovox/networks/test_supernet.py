"""The supernet restricted to a genotype is the network of that genotype, and its costs are those of what is built."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cytovox.networks.architecture import EDGES, Architecture, fixed, random_genotype
from cytovox.networks.genotype import CELL_TYPES, OPERATION_NAMES, Genotype, live_states, load_genotype
from cytovox.networks.scnas import ScNAS, ScNASConfig
from cytovox.networks.search_cost import cost_of, cost_tables, expected_cost, operation_cost
from cytovox.networks.supernet import Supernet

CONFIG = ScNASConfig(width=2, layers=2)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def volume(*shape):
    return torch.rand(shape, generator=stream(7))


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    return Supernet(1, 2, CONFIG)


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_the_derived_network_is_the_supernet_restricted_to_its_genotype(supernet, seed):
    genotype = load_genotype("published") if seed is None else random_genotype(stream(seed), OPERATION_NAMES, 3)
    x = volume(2, 1, 6, 8, 10)
    supernet.choose(fixed(genotype))
    network = supernet.derived(genotype)
    assert isinstance(network, ScNAS)
    torch.testing.assert_close(network(x), supernet(x))


def test_a_drawn_network_has_the_value_of_the_derived_one(supernet):
    """Straight-through weights are 1: they change gradients, no value."""
    choice = supernet.architecture.sample(0.5, stream(11))
    edges = {kind: tuple(tuple(edge for edge, _ in node) for node in choice[kind]) for kind in CELL_TYPES}
    x = volume(1, 1, 6, 6, 6)
    supernet.choose(choice)
    drawn = supernet(x)
    supernet.choose(fixed(Genotype(**edges)))
    torch.testing.assert_close(drawn, supernet(x))


def test_gradients_reach_every_architecture_parameter_and_every_weight():
    torch.manual_seed(0)
    network, generator = Supernet(1, 1, CONFIG), stream(1)
    for _ in range(300):
        network.choose(network.architecture.sample(1.0, generator))
        (network(volume(1, 1, 6, 6, 6)) * volume(1, 1, 6, 6, 6).flip(2)).sum().backward()
    for name, parameter in network.architecture.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.ne(0).all(), name
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_only_what_was_drawn_is_computed(supernet):
    """The operations counted are those of the derived network, not those of the whole space."""
    genotype = random_genotype(stream(5), OPERATION_NAMES, 3)
    x = volume(1, 1, 6, 6, 6)
    counts = []
    supernet.choose(fixed(genotype))
    for network in (supernet, supernet.derived(genotype)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


def test_a_cell_whose_nodes_read_nothing_is_zero_and_not_a_fault():
    network = Supernet(1, 1, CONFIG, ("none", "conv_3"))
    with torch.no_grad():
        for parameter in network.architecture.operation_logits.values():
            parameter[:, 0] = 50.0
    network.choose(network.architecture.sample(1.0, stream()))
    assert network(volume(1, 1, 6, 6, 6)).shape == (1, 1, 6, 6, 6)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("measure", ["gflop", "parameters"])
def test_differences_of_cost_are_those_of_the_networks(measure, seed):
    """What all networks have in common cancels: only edges differ between two that read both inputs everywhere."""
    tables = cost_tables(CONFIG, OPERATION_NAMES, (16, 16, 16), measure)

    def whole(genotype):
        with torch.device("meta"):
            network = ScNAS(1, 1, CONFIG, genotype)
            if measure == "parameters":
                return sum(p.numel() for p in network.parameters())
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(torch.zeros(1, 1, 16, 16, 16))
        return counter.get_total_flops() / 1e9

    def entries(genotype):
        return [live_states(getattr(genotype, kind), 3) & {"s0", "s1"} for kind in CELL_TYPES]

    generator, pair = stream(seed), []
    while len(pair) < 2:
        genotype = random_genotype(generator, OPERATION_NAMES, 3)
        if all(len(names) == 2 for names in entries(genotype)):
            pair.append(genotype)
    output = [cost_of(genotype, tables, OPERATION_NAMES, 3) for genotype in pair]
    real = [whole(genotype) for genotype in pair]
    assert output[0] - output[1] == pytest.approx(real[0] - real[1], rel=1e-6)
    assert real[0] != real[1]


def test_expected_cost_is_the_mean_over_drawn_networks_and_falls_against_its_gradient():
    operations = ("conv_3", "identity", "none")
    tables = cost_tables(CONFIG, operations, (16, 16, 16), "parameters")
    architecture, generator = Architecture(operations, 4), stream(3)
    with torch.no_grad():
        for parameter in architecture.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    drawn = []
    for _ in range(1500):
        total = 0.0
        for kind, cell in architecture.sample(1.0, generator).items():
            for node, edges in zip(("n0", "n1", "n2", "n3"), cell, strict=True):
                for edge, _ in edges:
                    row = EDGES.index((node, edge.source))
                    total += float(tables[kind][row, operations.index(edge.operation)])
        drawn.append(total)
    values = torch.tensor(drawn)
    expected = expected_cost(architecture, tables)
    assert expected.item() == pytest.approx(float(values.mean()), abs=4.5 * float(values.std()) / 1500**0.5)
    expected.backward()
    with torch.no_grad():
        for parameter in architecture.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad
    assert expected_cost(architecture, tables).item() < expected.item()


def test_latency_is_measured_and_nothing_costs_nothing():
    assert operation_cost("conv_3", 4, 1, (16, 16, 16), "latency_ms") > 0
    assert operation_cost("none", 4, 1, (16, 16, 16), "latency_ms") == 0
    assert operation_cost("max_pool_3", 4, 1, (16, 16, 16), "parameters") == 0
