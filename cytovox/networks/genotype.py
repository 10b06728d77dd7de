"""Genotype of a ScNAS network: the operations between the nodes of each of its four cell types.

A JSON file has one entry per cell type, which has one list of ``[operation, source]`` per node::

    {"schema": "cytovox.genotype.1",
     "reduction": {"n0": [["identity", "s0"], ["dilated_conv_2", "s1"]], "n1": [...], "n2": [...], "n3": [...]},
     "encoder_normal": {...}, "expansion": {...}, "decoder_normal": {...}}

``s0`` and ``s1`` are the cell's inputs (``s1`` is the output of the previous cell), ``n0`` to ``n3`` are its nodes.
A node is the sum of its edges. The source of an edge is an input or an earlier node, so that there is no cycle.

References
----------
Kim et al., Scalable Neural Architecture Search for 3D Medical Image Segmentation, MICCAI 2019, arXiv 1906.05956.
"""

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.options import nearest_name

#: Operations of an edge. ``none`` removes the edge; it is an option of a search and builds no module.
OPERATION_NAMES = (
    "identity",
    "conv_3",
    "dilated_conv_2",
    "dilated_conv_3",
    "average_pool_3",
    "max_pool_3",
    "none",
)
INPUTS = ("s0", "s1")
NODES = ("n0", "n1", "n2", "n3")
CELL_TYPES = ("reduction", "encoder_normal", "expansion", "decoder_normal")
SCHEMA = "cytovox.genotype.1"
_NOTES = ("schema", "reference")


@dataclass(frozen=True)
class Edge:
    """One operation applied to one earlier state of the cell."""

    operation: str
    """One of `OPERATION_NAMES`."""
    source: str
    """``s0``, ``s1``, or an earlier node."""


#: The edges into each of the four nodes; a node is their sum.
CellGenotype = tuple[tuple[Edge, ...], ...]


@dataclass(frozen=True)
class Genotype:
    """Cells of the four types; hashable, and equal for the same network."""

    reduction: CellGenotype
    """Encoder cell that halves the resolution."""
    encoder_normal: CellGenotype
    """Encoder cell that keeps the resolution."""
    expansion: CellGenotype
    """Decoder cell that doubles the resolution."""
    decoder_normal: CellGenotype
    """Decoder cell that keeps the resolution."""

    def to_json(self) -> dict[str, Any]:
        """Return dicts, lists and strings that `genotype_from_json` reads."""
        plain: dict[str, Any] = {"schema": SCHEMA}
        for kind in CELL_TYPES:
            nodes = zip(NODES, getattr(self, kind), strict=True)
            plain[kind] = {node: [[edge.operation, edge.source] for edge in edges] for node, edges in nodes}
        return plain


def live_states(cell: CellGenotype, outputs: int) -> set[str]:
    """Return the inputs and nodes that reach the cell's output, which concatenates its last ``outputs`` nodes."""
    live = set(NODES[-outputs:])
    for node, edges in zip(reversed(NODES), reversed(cell), strict=True):
        if node in live:
            live.update(edge.source for edge in edges if edge.operation != "none")
    return live


def genotype_from_json(plain: Any, where: str = "genotype") -> Genotype:
    """Return the genotype of data read from JSON.

    Parameters
    ----------
    plain : dict
        Content of a JSON file; see this module's docstring.
    where : str
        Source of the data, for the message.

    Raises
    ------
    InputError
        A cell or node is missing or unknown, an operation is unknown, the source of an edge is its own or a later node
        (a cycle), or a node has no input.
    """
    if not isinstance(plain, dict):
        raise InputError(f"{where}: expected an object with the cells {', '.join(CELL_TYPES)}")
    if plain.get("schema") != SCHEMA:
        raise InputError(f'{where}: schema {plain.get("schema")!r}: expected "schema": "{SCHEMA}"')
    _same_keys(where, set(plain) - set(_NOTES), CELL_TYPES)
    return Genotype(**{kind: _cell(plain[kind], f"{where}: {kind}") for kind in CELL_TYPES})


def load_genotype(name: str) -> Genotype:
    """Return a genotype: ``published``, which is part of the package, a JSON file, or JSON text.

    Raises
    ------
    InputError
        No such file, invalid JSON, or not a genotype.
    """
    if name == "published":
        text = resources.files("cytovox.networks.genotypes").joinpath("published.json").read_text(encoding="utf-8")
        return genotype_from_json(json.loads(text), "genotype published")
    given = name.lstrip().startswith("{")
    shown = "in the config" if given else name
    if not given and not Path(name).is_file():
        raise InputError(f"genotype {name}: no such file; expected 'published' or the path of a JSON file")
    try:
        plain = json.loads(name if given else Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"genotype {shown}: not readable as JSON ({error}): write it with Genotype.to_json") from error
    return genotype_from_json(plain, f"genotype {shown}")


def _cell(plain: Any, where: str) -> CellGenotype:
    if not isinstance(plain, dict):
        raise InputError(f"{where}: expected an object with the nodes {', '.join(NODES)}")
    _same_keys(where, set(plain), NODES)
    return tuple(_node(plain[node], (*INPUTS, *NODES[:index]), f"{where}.{node}") for index, node in enumerate(NODES))


def _node(plain: Any, allowed: tuple[str, ...], where: str) -> tuple[Edge, ...]:
    if not isinstance(plain, list):
        raise InputError(f'{where}: expected a list of ["operation", "source"] pairs')
    edges = []
    for pair in plain:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise InputError(f'{where}: {pair!r}: expected a pair like ["conv_3", "s0"]')
        operation, source = pair
        if operation not in OPERATION_NAMES:
            raise InputError(f"{where}: no operation {operation!r}; {nearest_name(operation, OPERATION_NAMES)}")
        if source not in allowed:
            why = "is itself or a later node (a cycle)" if source in NODES else "is unknown"
            raise InputError(f"{where}: source {source!r} {why}; expected one of {', '.join(allowed)}")
        edges.append(Edge(operation, source))
    if all(edge.operation == "none" for edge in edges):
        raise InputError(f"{where}: node without input: add an edge that is not 'none'")
    return tuple(edges)


def _same_keys(where: str, given: set[str], expected: tuple[str, ...]) -> None:
    missing, unknown = [key for key in expected if key not in given], sorted(given - set(expected))
    found = [f"{verb} {', '.join(keys)}" for verb, keys in (("lacks", missing), ("has unknown", unknown)) if keys]
    if found:
        raise InputError(f"{where}: {' and '.join(found)}; expected exactly {', '.join(expected)}")
