"""A genotype is plain JSON, and what no network can be built of is refused."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.networks.genotype import (
    CELL_TYPES,
    INPUTS,
    NODES,
    OPERATION_NAMES,
    Edge,
    genotype_from_json,
    live_states,
    load_genotype,
)


@pytest.fixture
def plain():
    return copy.deepcopy(load_genotype("published").to_json())


@st.composite
def plain_genotypes(draw):
    """Any legal genotype: one to three edges a node, each node with an input."""
    genes = {"schema": "cytovox.genotype.1"}
    for kind in CELL_TYPES:
        genes[kind] = {}
        for index, node in enumerate(NODES):
            sources = st.sampled_from([*INPUTS, *NODES[:index]])
            edges = draw(st.lists(st.tuples(st.sampled_from(OPERATION_NAMES), sources), max_size=2))
            sure = (draw(st.sampled_from(OPERATION_NAMES[:-1])), draw(sources))
            genes[kind][node] = [list(pair) for pair in [*edges, sure]]
    return genes


def test_the_published_genotype_is_the_one_in_the_paper():
    genes = load_genotype("published")
    assert genes.reduction[0] == (Edge("identity", "s0"), Edge("dilated_conv_2", "s1"))
    assert genes.reduction[3] == (Edge("conv_3", "n0"), Edge("average_pool_3", "n2"))
    assert genes.encoder_normal[3] == (Edge("identity", "s0"),)
    assert genes.expansion[0] == (Edge("conv_3", "s0"), Edge("dilated_conv_3", "s1"))
    assert genes.decoder_normal[0] == (Edge("dilated_conv_2", "s1"),)
    singles = [[len(edges) for edges in getattr(genes, kind)].count(1) for kind in CELL_TYPES]
    assert singles == [0, 1, 0, 1]


@given(plain_genotypes())
@settings(deadline=None, max_examples=30)
def test_a_genotype_survives_json(genes):
    built = genotype_from_json(genes)
    assert genotype_from_json(json.loads(json.dumps(built.to_json()))) == built
    assert hash(built) == hash(genotype_from_json(genes))


def test_a_genotype_is_read_from_a_file(tmp_path, plain):
    plain["expansion"]["n0"] = [["max_pool_3", "s1"], ["none", "s0"]]
    path = tmp_path / "found.json"
    path.write_text(json.dumps(plain), encoding="utf-8")
    assert load_genotype(str(path)).expansion[0] == (Edge("max_pool_3", "s1"), Edge("none", "s0"))


def test_live_states_are_those_with_a_way_to_the_output():
    cell = ((Edge("conv_3", "s0"),), (Edge("identity", "s1"),), (Edge("none", "n0"), Edge("identity", "n1")), ())
    assert live_states(cell, 2) == {"n2", "n3", "n1", "s1"}


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("reduction", "n1"), [["conv_5", "s0"]], r"reduction\.n1.*'conv_5'.*did you mean conv_3\?"),
        (("reduction", "n1"), [["conv_3", "n1"]], "a cycle"),
        (("expansion", "n0"), [["conv_3", "n3"]], r"expansion\.n0.*a cycle.*s0, s1"),
        (("expansion", "n0"), [["conv_3", "s7"]], "'s7' is unknown"),
        (("expansion", "n0"), [["none", "s0"]], "without input"),
        (("expansion", "n0"), [], "without input"),
        (("expansion", "n0"), [["conv_3"]], "expected a pair"),
        (("expansion", "n0"), "conv_3", "expected a list"),
        (("expansion",), [], "expected an object"),
        (("expansion", "n4"), [["conv_3", "s0"]], "has unknown n4"),
        (("extra",), {}, "has unknown extra"),
        (("schema",), "cytovox.genotype.9", "expected .*cytovox.genotype.1"),
    ],
)
def test_a_faulty_genotype_is_refused_with_the_place_and_the_reason(plain, where, value, message):
    inner = plain
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(InputError, match=message) as caught:
        genotype_from_json(plain)
    assert "\n" not in str(caught.value)


def test_a_missing_cell_or_node_is_named(plain):
    del plain["reduction"]["n2"]
    with pytest.raises(InputError, match="reduction: lacks n2"):
        genotype_from_json(plain)
    del plain["reduction"]
    with pytest.raises(InputError, match="lacks reduction"):
        genotype_from_json(plain)


def test_a_missing_file_says_what_was_expected():
    with pytest.raises(InputError, match=r"nowhere\.json: no such file; expected 'published' or the path"):
        load_genotype("nowhere.json")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "[" * 100_000, b"\xff\xfe\x00"])
def test_a_file_that_is_no_genotype_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"bad\.json") as caught:
        load_genotype(str(path))
    assert "\n" not in str(caught.value)
