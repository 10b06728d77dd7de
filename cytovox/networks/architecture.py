"""Architecture parameters of a search: probabilities of the operations of each edge and of the sources of each node.

The sources of a node are two of the earlier states of its cell, as in the published genotype. Each edge has a
distribution over operations, and each node has one over pairs of sources. All cells of a type share these
distributions. A network is drawn with Gumbel noise: one operation per edge (Gumbel-softmax) and two sources per node
(Gumbel-top-k). Only the drawn network is computed. Each of its edges has a straight-through weight, whose value is 1
and whose gradient is that of the relaxed distribution with respect to all logits.

References
----------
Kim et al., MICCAI 2019, arXiv 1906.05956 (one operation per edge, drawn by Gumbel-softmax).
Jang et al., Categorical Reparameterization with Gumbel-Softmax, ICLR 2017, arXiv 1611.01144.
Dong & Yang, Searching for a Robust Neural Architecture in Four GPU Hours (GDAS), CVPR 2019, arXiv 1910.04465.
Kool et al., Stochastic Beams and Where to Find Them, ICML 2019, arXiv 1903.06059 (Gumbel-top-k).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cytovox.networks.genotype import (
    CELL_TYPES,
    INPUTS,
    NODES,
    OPERATION_NAMES,
    CellGenotype,
    Edge,
    Genotype,
    live_states,
)

#: Number of sources of a node.
READS = 2

#: One edge and its straight-through weight; None stands for 1 without a gradient.
WeighedEdge = tuple[Edge, torch.Tensor | None]
#: The chosen edges of each of a cell's four nodes.
CellChoice = tuple[tuple[WeighedEdge, ...], ...]
#: The chosen edges of each cell type.
Choice = Mapping[str, CellChoice]


def sources_of(index: int) -> tuple[str, ...]:
    """Return the possible sources of node number ``index``: the inputs and the earlier nodes."""
    return (*INPUTS, *NODES[:index])


#: All edges of a cell, (node, source), in the order of the rows of an `Architecture`'s logits.
EDGES = tuple((node, source) for index, node in enumerate(NODES) for source in sources_of(index))


class Architecture(nn.Module):
    """Logits of every choice, initially 0, so that all networks of the search space are equally likely.

    Parameters
    ----------
    operations : sequence of str
        Operations of an edge, some of `OPERATION_NAMES`.
    multiplier : int
        Number of nodes in a cell's output.
    """

    def __init__(self, operations: Sequence[str] = OPERATION_NAMES, multiplier: int = 3) -> None:
        super().__init__()
        self.operations, self.multiplier = tuple(operations), multiplier
        self.operation_logits = nn.ParameterDict(
            {kind: nn.Parameter(torch.zeros(len(EDGES), len(self.operations))) for kind in CELL_TYPES}
        )
        # the first node has no logits, because its sources are always both inputs
        self.source_logits = nn.ParameterDict(
            {
                f"{kind}_{node}": nn.Parameter(torch.zeros(len(sources_of(index))))
                for kind in CELL_TYPES
                for index, node in enumerate(NODES)
                if len(sources_of(index)) > READS
            }
        )

    def sample(
        self, temperature: float, generator: torch.Generator, kinds: Sequence[str] = CELL_TYPES
    ) -> dict[str, CellChoice]:
        """Draw one network.

        The host needs the choices to know which operations to compute. They are copied from the device all at once,
        which is the only time that a step of a search waits for the device.

        Parameters
        ----------
        temperature : float
            Temperature of the relaxed distributions of the gradient; the drawn network does not depend on it.
        generator : Generator
            Generator on the CPU. Generators in the same state draw the same network on every rank.
        kinds : sequence of str
            Cell types to draw, in this order.
        """
        logits = {key: value for kind in kinds for key, value in self._distributions(kind).items()}
        noisy = {
            key: value.log_softmax(-1) + noise
            for (key, value), noise in zip(logits.items(), _gumbel(list(logits.values()), generator), strict=True)
        }
        drawn = _read([value.argmax(1) if value.dim() == 2 else value.topk(READS).indices for value in noisy.values()])
        relaxed = {key: (value / temperature).softmax(-1) for key, value in noisy.items()}
        places = dict(zip(noisy, drawn, strict=True))
        return {kind: self._cell(kind, relaxed, places) for kind in kinds}

    def _distributions(self, kind: str) -> dict[str, torch.Tensor]:
        """Return the logits of a cell type by name: its operations (E, O), then the sources of nodes with a choice."""
        keys = [f"{kind}_{node}" for node in NODES if f"{kind}_{node}" in self.source_logits]
        return {kind: self.operation_logits[kind], **{key: self.source_logits[key] for key in keys}}

    def _cell(self, kind: str, relaxed: Mapping[str, torch.Tensor], places: Mapping[str, list[int]]) -> CellChoice:
        """Return the drawn edges of a cell type, with their straight-through weights."""
        nodes = []
        for index, node in enumerate(NODES):
            sources, key = sources_of(index), f"{kind}_{node}"
            first = EDGES.index((node, sources[0]))
            share_S = READS * relaxed[key] if key in relaxed else None
            edges = []
            for place in sorted(places[key]) if key in places else range(len(sources)):
                operation = places[kind][first + place]
                soft = relaxed[kind][first + place, operation]
                weight = 1 + soft - soft.detach()
                if share_S is not None:
                    weight = weight * (1 + share_S[place] - share_S[place].detach())
                edges.append((Edge(self.operations[operation], sources[place]), weight))
            nodes.append(tuple(edges))
        return tuple(nodes)

    def probabilities(self, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probability that each edge is drawn (E,), and of each operation on it (E, O), with gradients."""
        included, operations = [], self.operation_logits[kind]
        for index, node in enumerate(NODES):
            count, key = len(sources_of(index)), f"{kind}_{node}"
            always = torch.ones(count, device=operations.device)
            included.append(inclusion(self.source_logits[key].softmax(0)) if count > READS else always)
        return torch.cat(included), operations.softmax(1)

    def entropy(self) -> torch.Tensor:
        """Return the mean relative entropy of all distributions: 1 where all are uniform, 0 where all are certain."""
        logits = [*itertools.chain(*(self.operation_logits[kind] for kind in CELL_TYPES)), *self.source_logits.values()]
        shares = [
            -(log := one.log_softmax(0)).exp().mul(log).sum() / math.log(len(one)) for one in logits if len(one) > 1
        ]
        return torch.stack(shares).mean()

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> Genotype:
        """Draw one network among those that can be built."""
        return Genotype(**{kind: self._draw_cell(kind, generator) for kind in CELL_TYPES})

    def _draw_cell(self, kind: str, generator: torch.Generator) -> CellGenotype:
        for _ in range(1000):
            drawn = self.sample(1.0, generator, [kind])[kind]
            cell = tuple(tuple(edge for edge, _ in edges) for edges in drawn)
            connected = all(any(edge.operation != "none" for edge in edges) for edges in cell)
            if connected and "s1" in live_states(cell, self.multiplier):
                return cell
        return self._derive(kind)  # hardly any of the likely cells can be built

    @torch.no_grad()
    def genotype(self) -> Genotype:
        """Return the most likely network in which every node has an input and every cell uses the previous cell."""
        return Genotype(**{kind: self._derive(kind) for kind in CELL_TYPES})

    def _derive(self, kind: str) -> CellGenotype:
        """Return the most likely cell that can be built, among all 15 thousand with each edge at its best or cut."""
        logs = {key: value.log_softmax(-1) for key, value in self._distributions(kind).items()}
        numbers = dict(zip(logs, _read([value.flatten() for value in logs.values()]), strict=True))
        options = [self._options(kind, node, numbers) for node in NODES]
        ranked = sorted(itertools.product(*options), key=lambda nodes: -sum(score for score, _ in nodes))
        cells = (tuple(edges for _, edges in nodes) for nodes in ranked)
        return next(cell for cell in cells if "s1" in live_states(cell, self.multiplier))

    def _options(
        self, kind: str, node: str, logs: Mapping[str, Sequence[float]]
    ) -> list[tuple[float, tuple[Edge, ...]]]:
        """Return log probability and edges of each possible input of a node.

        These are all pairs of sources, each with its most likely operation or with ``none``.
        """
        sources, count = sources_of(NODES.index(node)), len(self.operations)
        log_EO = [logs[kind][first : first + count] for first in range(0, len(logs[kind]), count)]
        log_S = logs.get(f"{kind}_{node}", [0.0] * len(sources))
        edges: dict[str, list[tuple[float, Edge]]] = {}
        for place, source in enumerate(sources):
            row = log_EO[EDGES.index((node, source))]
            best = max((i for i, name in enumerate(self.operations) if name != "none"), key=row.__getitem__)
            kept = [best, *(i for i, name in enumerate(self.operations) if name == "none")]
            edges[source] = [(log_S[place] + row[i], Edge(self.operations[i], source)) for i in kept]
        pairs = (
            both
            for pair in itertools.combinations(sources, READS)
            for both in itertools.product(*(edges[source] for source in pair))
        )
        return [
            (sum(score for score, _ in pair), tuple(edge for _, edge in pair))
            for pair in pairs
            if any(edge.operation != "none" for _, edge in pair)
        ]


def inclusion(share_S: torch.Tensor) -> torch.Tensor:
    """Return the probability of each of S items to be among two items drawn without replacement, (S,).

    A single draw has the probabilities `share_S`. The probability of the other items is their sum instead of 1 minus
    that of the item, which is not exact in float32 for probabilities near 1.
    """
    others_SS = 1 - torch.eye(len(share_S), dtype=share_S.dtype, device=share_S.device)
    first_S = share_S / (others_SS * share_S).sum(1).clamp_min(torch.finfo(share_S.dtype).tiny)
    return share_S * (1 + (others_SS * first_S).sum(1))


def fixed(genotype: Genotype) -> Choice:
    """Return the choice of a genotype, without weights of its edges."""
    return {
        kind: tuple(tuple((edge, None) for edge in edges) for edges in getattr(genotype, kind)) for kind in CELL_TYPES
    }


def random_genotype(generator: torch.Generator, operations: Sequence[str], multiplier: int) -> Genotype:
    """Draw a network of the search space, with equal probabilities of all those that can be built.

    Raises
    ------
    ValueError
        No operation other than ``none``.
    """
    if set(operations) <= {"none"}:
        raise ValueError("a network needs an operation that is not 'none'")
    return Architecture(operations, multiplier).draw(generator)


def candidates(
    architecture: Architecture, count: int, generator: torch.Generator, cost: Callable[[Genotype], float], most: float
) -> list[Genotype]:
    """Return the most likely network and drawn networks, all different and below a cost.

    Parameters
    ----------
    architecture : Architecture
        Distributions.
    count : int
        Number of drawn networks.
    generator : Generator
        Generator on the CPU.
    cost : callable
        Function from a network to its cost.
    most : float
        Largest cost. If all networks cost more, the cheapest one is the only candidate.
    """
    likeliest = architecture.genotype()
    costs = {likeliest: cost(likeliest)}
    for _ in range(20 * count):
        if sum(value <= most for value in costs.values()) > count:
            break
        if (drawn := architecture.draw(generator)) not in costs:
            costs[drawn] = cost(drawn)
    return [one for one, value in costs.items() if value <= most] or [min(costs, key=costs.__getitem__)]


def _gumbel(like: Sequence[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    """Return Gumbel noise with the shapes, type and device of these tensors, copied asynchronously at once."""
    uniform = torch.cat([torch.rand(one.shape, generator=generator).flatten() for one in like]).clamp(1e-10, 1 - 1e-7)
    noise = -(-uniform.log()).log().to(like[0].dtype)
    if like[0].is_cuda:
        noise = noise.pin_memory()
    parts = noise.to(like[0].device, non_blocking=True).split([one.numel() for one in like])
    return [part.view(one.shape) for part, one in zip(parts, like, strict=True)]


def _read(tensors: Sequence[torch.Tensor]) -> list[list[Any]]:
    """Return the values of one-dimensional tensors of one type, copied from the device at once."""
    values = iter(torch.cat(list(tensors)).tolist())
    return [list(itertools.islice(values, len(one))) for one in tensors]
