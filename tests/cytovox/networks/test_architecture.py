"""What is drawn is of the space and as likely as it should be, and every choice learns from it."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.networks.architecture import EDGES, READS, Architecture, candidates, inclusion, random_genotype, sources_of
from cytovox.networks.genotype import CELL_TYPES, NODES, OPERATION_NAMES, Edge, genotype_from_json, live_states


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def spread(architecture, scale, seed=0):
    """Any logits."""
    with torch.no_grad():
        for parameter in architecture.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=stream(seed)))
    return architecture


def test_a_cell_has_fourteen_edges_and_a_node_reads_only_what_comes_before():
    assert len(EDGES) == 2 + 3 + 4 + 5
    assert [source for node, source in EDGES if node == "n2"] == ["s0", "s1", "n0", "n1"]


def test_the_same_stream_draws_the_same_network_and_another_another():
    architecture = Architecture()

    def edges(seed):
        choice = architecture.sample(1.0, stream(seed))
        return {kind: [[edge for edge, _ in node] for node in choice[kind]] for kind in CELL_TYPES}

    assert edges(3) == edges(3)
    assert edges(3) != edges(4)


def test_operations_and_sources_are_drawn_as_often_as_they_are_likely():
    architecture = spread(Architecture(("conv_3", "identity", "none")), 1.0)
    draws, generator = 4000, stream(1)
    words = torch.zeros(3)
    reads = torch.zeros(len(EDGES))
    row = EDGES.index(("n0", "s0"))
    for _ in range(draws):
        cell = architecture.sample(1.0, generator, ["expansion"])["expansion"]
        words[architecture.operations.index(cell[0][0][0].operation)] += 1
        for node, edges in zip(NODES, cell, strict=True):
            assert len({edge.source for edge, _ in edges}) == READS
            for edge, _ in edges:
                reads[EDGES.index((node, edge.source))] += 1
    read_E, share_EO = architecture.probabilities("expansion")
    within = 4.5 * math.sqrt(0.25 / draws)  # binomial: 28 comparisons at 4.5 deviations at least
    torch.testing.assert_close(words / draws, share_EO[row].detach(), atol=within, rtol=0)
    torch.testing.assert_close(reads / draws, read_E.detach(), atol=within, rtol=0)


@given(st.lists(st.floats(0.05, 1.0), min_size=3, max_size=6))
@settings(deadline=None, max_examples=25)
def test_inclusion_is_what_all_orders_of_drawing_come_to(parts):
    share = torch.tensor(parts, dtype=torch.float64)
    share /= share.sum()
    expected = torch.zeros_like(share)
    for first, second in itertools.permutations(range(len(parts)), 2):
        chance = share[first] * share[second] / (1 - share[first])
        expected[first] += chance
        expected[second] += chance
    torch.testing.assert_close(inclusion(share), expected)
    assert float(inclusion(share).sum()) == pytest.approx(READS)


@pytest.mark.parametrize("gap", [5.0, 17.0, 20.0, 60.0])
def test_inclusion_is_right_where_one_source_is_all_but_decided(gap):
    """The second read is then between the others: float32 must not lose them in 1 - share."""
    found = inclusion(torch.tensor([gap, 1.0, 0.0]).softmax(0))
    exact = inclusion(torch.tensor([gap, 1.0, 0.0], dtype=torch.float64).softmax(0))
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)
    assert float(found.sum()) == pytest.approx(READS, abs=1e-5)
    if gap > 10:
        torch.testing.assert_close(found[1:], torch.tensor([1.0, 0.0]).softmax(0), atol=1e-3, rtol=0)


def test_the_weight_of_an_edge_is_one_and_its_gradient_that_of_the_relaxed_choice():
    architecture = spread(Architecture(), 1.0)
    edge, weight = architecture.sample(0.7, stream(5))["reduction"][0][1]
    assert weight.item() == 1.0
    weight.backward()
    row = EDGES.index(("n0", "s1"))
    gradient = architecture.operation_logits["reduction"].grad
    assert gradient[row].abs().sum() > 0
    assert gradient[row, architecture.operations.index(edge.operation)] > 0  # more of what was drawn
    assert float(gradient[row].sum()) == pytest.approx(0, abs=1e-6)
    assert not gradient[:row].any()
    assert not gradient[row + 1 :].any()


def test_entropy_is_one_at_first_and_none_when_all_is_decided():
    architecture = Architecture()
    assert architecture.entropy().item() == pytest.approx(1.0)
    with torch.no_grad():
        for parameter in architecture.parameters():
            parameter[..., 0] = 100.0
    assert architecture.entropy().item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
@given(st.integers(0, 10_000), st.floats(0.1, 10), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_what_is_derived_can_always_be_built(seed, scale, multiplier):
    architecture = spread(Architecture(multiplier=multiplier), scale, seed)
    with torch.no_grad():
        for parameter in architecture.operation_logits.values():
            parameter[:, -1] += 2 * scale  # 'none' is the likeliest often, so that there is something to fix
    genotype = architecture.genotype()
    assert genotype_from_json(genotype.to_json()) == genotype
    for kind in CELL_TYPES:
        cell = getattr(genotype, kind)
        assert "s1" in live_states(cell, multiplier)
        assert all(len({edge.source for edge in edges}) == READS for edges in cell)
        assert all(edge.source in sources_of(index) for index, edges in enumerate(cell) for edge in edges)


def log_likelihood(architecture, kind, cell):
    """Return the logarithm of the probability of the choices in a cell; every node has `READS` edges."""
    log_EO, total = architecture.operation_logits[kind].detach().log_softmax(1), 0.0
    for node, edges in zip(NODES, cell, strict=True):
        for edge in edges:
            total += float(log_EO[EDGES.index((node, edge.source)), architecture.operations.index(edge.operation)])
            if (key := f"{kind}_{node}") in architecture.source_logits:
                log_S = architecture.source_logits[key].detach().log_softmax(0)
                total += float(log_S[sources_of(NODES.index(node)).index(edge.source)])
    return total


def test_what_is_derived_is_the_likeliest_of_all_cells_that_can_be_built():
    """By trying all of them, in a space of two operations."""
    for seed in range(6):
        architecture = spread(Architecture(("conv_3", "none"), 2), 1.5, seed)
        best, highest = None, -math.inf
        choices = [
            [
                tuple(zip(pair, words, strict=True))
                for pair in itertools.combinations(sources_of(index), READS)
                for words in itertools.product(("conv_3", "none"), repeat=READS)
                if set(words) != {"none"}
            ]
            for index in range(len(NODES))
        ]
        for nodes in itertools.product(*choices):
            cell = tuple(tuple(Edge(word, source) for source, word in node) for node in nodes)
            if "s1" in live_states(cell, 2):
                found = log_likelihood(architecture, "reduction", cell)
                if found > highest:
                    best, highest = cell, found
        assert log_likelihood(architecture, "reduction", architecture.genotype().reduction) == pytest.approx(highest)
        assert architecture.genotype().reduction == best


def test_candidates_differ_and_cost_no_more_than_they_may():
    def cost(genotype):
        nodes = [node for kind in CELL_TYPES for node in getattr(genotype, kind)]
        return float(sum(edge.operation == "conv_3" for node in nodes for edge in node))

    architecture = Architecture()
    found = candidates(architecture, 6, stream(), cost, 5.0)
    assert len(set(found)) == len(found) == 7
    assert found[0] == architecture.genotype()
    assert all(cost(one) <= 5 for one in found)
    assert candidates(architecture, 0, stream(), cost, 5.0) == [architecture.genotype()]
    assert len(candidates(architecture, 6, stream(), cost, -1.0)) == 1
    decided = Architecture(("conv_3",))
    assert cost(candidates(decided, 3, stream(), cost, 5.0)[0]) == 32  # nothing is cheaper


def test_random_networks_can_be_built_and_are_named_by_their_seed():
    drawn = [random_genotype(stream(seed), OPERATION_NAMES, 3) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for genotype in drawn:
        assert genotype_from_json(genotype.to_json()) == genotype
    with pytest.raises(ValueError, match="not 'none'"):
        random_genotype(stream(), ("none",), 3)
