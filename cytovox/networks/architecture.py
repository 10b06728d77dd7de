"""What a search learns beside weights: how likely each operation is on each edge, and which edges a node reads.

A node of a cell may read every earlier state, and reads two of them, as in the published genotype. Each edge has a
distribution over operations, and each node one over the pairs of its sources; all cells of a type share them. A sample
is drawn with Gumbel noise: one operation an edge (Gumbel-softmax), two sources a node (Gumbel-top-k). Only what was
drawn is computed; the straight-through weight of each edge, 1 in value, carries the gradient of the relaxed
distribution to all its logits.

References
----------
Kim et al., MICCAI 2019, arXiv 1906.05956 (one operation an edge, drawn by Gumbel-softmax).
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

#: How many of the earlier states a node reads.
READS = 2

#: One edge and its straight-through weight; None stands for 1 without a gradient.
WeighedEdge = tuple[Edge, torch.Tensor | None]
#: The chosen edges of each of a cell's four nodes.
CellChoice = tuple[tuple[WeighedEdge, ...], ...]
#: Of each cell type.
Choice = Mapping[str, CellChoice]


def sources_of(index: int) -> tuple[str, ...]:
    """What node number ``index`` may read: the inputs and the nodes before it."""
    return (*INPUTS, *NODES[:index])


#: All edges of a cell, (node, source), in the order of the rows of an `Architecture`'s logits.
EDGES = tuple((node, source) for index, node in enumerate(NODES) for source in sources_of(index))


class Architecture(nn.Module):
    """Logits of every choice, zero at first: all networks of the space are equally likely.

    Parameters
    ----------
    operations : sequence of str
        What an edge may do, out of `OPERATION_NAMES`.
    multiplier : int
        Nodes in a cell's output.
    """

    def __init__(self, operations: Sequence[str] = OPERATION_NAMES, multiplier: int = 3) -> None:
        super().__init__()
        self.operations, self.multiplier = tuple(operations), multiplier
        self.operation_logits = nn.ParameterDict(
            {kind: nn.Parameter(torch.zeros(len(EDGES), len(self.operations))) for kind in CELL_TYPES}
        )
        # the first node has no choice: it reads both inputs
        self.source_logits = nn.ParameterDict(
            {
                f"{kind}_{node}": nn.Parameter(torch.zeros(len(sources_of(index))))
                for kind in CELL_TYPES
                for index, node in enumerate(NODES)
                if len(sources_of(index)) > READS
            }
        )

    def sample(self, temperature: float, generator: torch.Generator) -> Choice:
        """Draw one network.

        Which operations are computed is the host's to know: the choices are read back from the device, all of them at
        once. This is the only point at which a step of a search waits for the device.

        Parameters
        ----------
        temperature : float
            Of the relaxed distributions that the gradient belongs to; the drawn network does not depend on it.
        generator : Generator
            Of the CPU. The same state draws the same network on every rank.
        """
        return self._sample(CELL_TYPES, temperature, generator)

    def _sample(self, kinds: Sequence[str], temperature: float, generator: torch.Generator) -> dict[str, CellChoice]:
        """Cells of these types, drawn in this order."""
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
        """Logits of a cell type by name: of its operations (E, O), then of the sources of nodes that have a choice."""
        keys = [key for key in (f"{kind}_{node}" for node in NODES) if key in self.source_logits]
        return {kind: self.operation_logits[kind], **{key: self.source_logits[key] for key in keys}}

    def _cell(self, kind: str, relaxed: Mapping[str, torch.Tensor], places: Mapping[str, list[int]]) -> CellChoice:
        """The drawn edges of a cell type, with their straight-through weights."""
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
        """Of a cell type: that an edge is read (E,), and of each operation on it (E, O); with their gradients."""
        included = []
        for index, node in enumerate(NODES):
            count = len(sources_of(index))
            key = f"{kind}_{node}"
            included.append(inclusion(self.source_logits[key].softmax(0)) if count > READS else self._ones(kind, count))
        return torch.cat(included), self.operation_logits[kind].softmax(1)

    def _ones(self, kind: str, count: int) -> torch.Tensor:
        return torch.ones(count, device=self.operation_logits[kind].device)

    def entropy(self) -> torch.Tensor:
        """Mean entropy of all distributions, each over that of the uniform one: 1 at first, 0 when all is decided."""
        logits = [*itertools.chain.from_iterable(self.operation_logits[kind] for kind in CELL_TYPES)]
        logits += list(self.source_logits.values())
        shares = [
            -(log := one.log_softmax(0)).exp().mul(log).sum() / math.log(len(one)) for one in logits if len(one) > 1
        ]
        return torch.stack(shares).mean()

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> Genotype:
        """One network of the distributions, among those that can be built."""
        return Genotype(**{kind: self._draw_cell(kind, generator) for kind in CELL_TYPES})

    def _draw_cell(self, kind: str, generator: torch.Generator) -> CellGenotype:
        for _ in range(1000):
            drawn = self._sample([kind], 1.0, generator)[kind]
            cell = tuple(tuple(edge for edge, _ in edges) for edges in drawn)
            inhabited = all(any(edge.operation != "none" for edge in edges) for edges in cell)
            if inhabited and "s1" in live_states(cell, self.multiplier):
                return cell
        return self._derive(kind)  # next to nothing that is likely can be built

    @torch.no_grad()
    def genotype(self) -> Genotype:
        """The likeliest network that can be built: every node has an input, every cell reads the one before it."""
        return Genotype(**{kind: self._derive(kind) for kind in CELL_TYPES})

    def _derive(self, kind: str) -> CellGenotype:
        """Of all cells (an edge cut or at its best: 15 thousand), best first, the first that can be built."""
        logs = {key: value.log_softmax(-1) for key, value in self._distributions(kind).items()}
        numbers = dict(zip(logs, _read([value.flatten() for value in logs.values()]), strict=True))
        options = [self._options(kind, node, numbers) for node in NODES]
        ranked = sorted(itertools.product(*options), key=lambda nodes: -sum(score for score, _ in nodes))
        cells = (tuple(edges for _, edges in nodes) for nodes in ranked)
        return next(cell for cell in cells if "s1" in live_states(cell, self.multiplier))

    def _options(
        self, kind: str, node: str, logs: Mapping[str, Sequence[float]]
    ) -> list[tuple[float, tuple[Edge, ...]]]:
        """Inputs of a node with the logarithm of their chances: every pair of sources, each edge cut or at its best."""
        sources, count = sources_of(NODES.index(node)), len(self.operations)
        log_EO = [logs[kind][first : first + count] for first in range(0, len(logs[kind]), count)]
        log_S = logs.get(f"{kind}_{node}", [0.0] * len(sources))
        words: dict[str, list[tuple[float, Edge]]] = {}
        for place, source in enumerate(sources):
            row = log_EO[EDGES.index((node, source))]
            best = max((i for i, name in enumerate(self.operations) if name != "none"), key=row.__getitem__)
            kept = [best, *(i for i, name in enumerate(self.operations) if name == "none")]
            words[source] = [(log_S[place] + row[i], Edge(self.operations[i], source)) for i in kept]
        pairs = (
            both
            for pair in itertools.combinations(sources, READS)
            for both in itertools.product(*(words[source] for source in pair))
        )
        return [
            (sum(score for score, _ in pair), tuple(edge for _, edge in pair))
            for pair in pairs
            if any(edge.operation != "none" for _, edge in pair)
        ]


def inclusion(share_S: torch.Tensor) -> torch.Tensor:
    """That each of S things is among two drawn without putting back, when one is drawn with these shares (S,).

    What the others have is summed, not taken from 1: of a share near 1, float32 would leave nothing right.
    """
    others_SS = 1 - torch.eye(len(share_S), dtype=share_S.dtype, device=share_S.device)
    first_S = share_S / (others_SS * share_S).sum(1).clamp_min(torch.finfo(share_S.dtype).tiny)
    return share_S * (1 + (others_SS * first_S).sum(1))


def fixed(genotype: Genotype) -> Choice:
    """The choice that is this genotype, with no weights on its edges."""
    return {
        kind: tuple(tuple((edge, None) for edge in edges) for edges in getattr(genotype, kind)) for kind in CELL_TYPES
    }


def random_genotype(generator: torch.Generator, operations: Sequence[str], multiplier: int) -> Genotype:
    """A network of the space, drawn with equal chances among those that can be built.

    Raises
    ------
    ValueError
        No operation but ``none``.
    """
    if set(operations) <= {"none"}:
        raise ValueError("a network needs an operation that is not 'none'")
    return Architecture(operations, multiplier).draw(generator)


def candidates(
    architecture: Architecture, count: int, generator: torch.Generator, cost: Callable[[Genotype], float], most: float
) -> list[Genotype]:
    """The likeliest network, and others as they are drawn, all different and none too costly.

    Parameters
    ----------
    architecture : Architecture
        The distributions.
    count : int
        How many are drawn beside the likeliest.
    generator : Generator
        Of the CPU.
    cost : callable
        Of a network.
    most : float
        What one may cost. If all cost more, the cheapest is the only candidate.
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
    """Gumbel noise of the shapes, types and device of these tensors, by one copy that the host does not wait for."""
    uniform = torch.cat([torch.rand(one.shape, generator=generator).flatten() for one in like]).clamp(1e-10, 1 - 1e-7)
    noise = -(-uniform.log()).log().to(like[0].dtype)
    if like[0].is_cuda:
        noise = noise.pin_memory()
    parts = noise.to(like[0].device, non_blocking=True).split([one.numel() for one in like])
    return [part.view(one.shape) for part, one in zip(parts, like, strict=True)]


def _read(tensors: Sequence[torch.Tensor]) -> list[list[Any]]:
    """Values of one-dimensional tensors of one type, read back from the device in one copy."""
    values = iter(torch.cat(list(tensors)).tolist())
    return [list(itertools.islice(values, len(one))) for one in tensors]
