"""Supernet of the search space: all operations on all edges, each with its own weights.

Only the operations that `Architecture` has drawn and that reach a cell's output are computed.

References
----------
Kim et al., Scalable Neural Architecture Search for 3D Medical Image Segmentation, MICCAI 2019, arXiv 1906.05956.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer
from torch import nn

from cytovox.networks.architecture import EDGES, Architecture, CellChoice, Choice, fixed
from cytovox.networks.genotype import INPUTS, NODES, OPERATION_NAMES, Genotype, live_states
from cytovox.networks.scnas import Backbone, ScNAS, ScNASConfig
from cytovox.networks.scnas_cells import OPERATIONS, SQUEEZE, CellPlan


class MixedCell(nn.Module):
    """Cell with every operation on every edge.

    Parameters
    ----------
    plan : CellPlan
        Type and sizes of the cell.
    multiplier : int
        Number of nodes in the output.
    operations : sequence of str
        Operations of an edge.
    """

    def __init__(self, plan: CellPlan, multiplier: int, operations: Sequence[str]) -> None:
        super().__init__()
        self.plan, self.multiplier = plan, multiplier
        self.inputs = nn.ModuleDict({name: build() for name, build in plan.entries().items()})
        self.edges = nn.ModuleDict(
            {
                f"{node}_{source}": nn.ModuleDict(
                    {name: OPERATIONS[name](plan.width, plan.stride(source)) for name in operations if name != "none"}
                )
                for node, source in EDGES
            }
        )
        self.excite = ChannelSELayer(3, plan.width * multiplier, r=SQUEEZE)
        self.choice: CellChoice = ()
        """Edges to compute; set by `Supernet.choose`."""

    def forward(self, older_BCZYX: torch.Tensor, younger_BCZYX: torch.Tensor) -> torch.Tensor:
        """Return the cell's output for its current choice; a node whose edges are all ``none`` is 0."""
        edges = tuple(tuple(edge for edge, _ in chosen) for chosen in self.choice)
        live = live_states(edges, self.multiplier)
        given = dict(zip(INPUTS, (older_BCZYX, younger_BCZYX), strict=True))
        states = {name: self.inputs[name](given[name]) for name in INPUTS if name in live}
        for node, chosen in zip(NODES, self.choice, strict=True):
            if node not in live:
                continue
            total = None
            for edge, weight in ((edge, weight) for edge, weight in chosen if edge.operation != "none"):
                part = self.edges[f"{node}_{edge.source}"][edge.operation](states[edge.source])  # type: ignore[index]
                part = part if weight is None else part * weight.to(part.dtype)
                total = part if total is None else total + part
            if total is None:
                scale = {"none": 1.0, "reduce": 0.5, "expand": 2.0}[self.plan.resize]
                grid = [int(scale * n) for n in younger_BCZYX.shape[2:]]
                total = younger_BCZYX.new_zeros(len(younger_BCZYX), self.plan.width, *grid)
            states[node] = total
        return self.excite(torch.cat([states[node] for node in NODES[-self.multiplier :]], dim=1))


class Supernet(Backbone):
    """Computes the chosen network, from (B, in_channels, Z, Y, X) to logits (B, out_channels, Z, Y, X).

    Parameters
    ----------
    in_channels, out_channels : int
        Number of images and of organelles.
    config : ScNASConfig
        Width, layers and multiplier; the genotype is not used.
    operations : sequence of str
        Operations of an edge.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: ScNASConfig,
        operations: Sequence[str] = OPERATION_NAMES,
    ) -> None:
        super().__init__(in_channels, out_channels, config, lambda plan: MixedCell(plan, config.multiplier, operations))
        self.config, self.channels = config, (in_channels, out_channels)
        self.architecture = Architecture(operations, config.multiplier)
        self.choose(fixed(self.architecture.genotype()))

    @property
    def cells(self) -> list[MixedCell]:
        """Cells of encoder and decoder, in the order of computation."""
        return [cell for cell in (*self.encoder, *self.decoder) if isinstance(cell, MixedCell)]

    def choose(self, choice: Choice) -> None:
        """Set the network that is computed from now on."""
        for cell in self.cells:
            cell.choice = choice[cell.plan.kind]

    def weights(self) -> list[nn.Parameter]:
        """Return all parameters except those of the architecture."""
        return [one for name, one in self.named_parameters() if not name.startswith("architecture.")]

    def derived(self, genotype: Genotype) -> ScNAS:
        """Return the network of a genotype, with its weights in the supernet.

        Raises
        ------
        KeyError
            An operation that is not in the search space.
        """
        network = ScNAS(*self.channels, self.config, genotype)
        network.load_state_dict(self.restricted_state(genotype))
        return network

    def restricted_state(self, genotype: Genotype) -> dict[str, torch.Tensor]:
        """Return the state dict of the network of a genotype."""
        state = {name: value for name, value in self.state_dict().items() if name.startswith(("stem.", "head."))}
        for part in ("encoder", "decoder"):
            for index, cell in enumerate(getattr(self, part)):
                edges = getattr(genotype, cell.plan.kind)
                live = live_states(edges, cell.multiplier)
                chosen: dict[str, nn.Module] = {f"inputs.{name}": cell.inputs[name] for name in INPUTS if name in live}
                for node, found in zip(NODES, edges, strict=True):
                    kept = [edge for edge in found if edge.operation != "none"] if node in live else []
                    for place, edge in enumerate(kept):
                        chosen[f"nodes.{node}.{place}"] = cell.edges[f"{node}_{edge.source}"][edge.operation]
                chosen["excite"] = cell.excite
                for name, module in chosen.items():
                    state.update({f"{part}.{index}.{name}.{k}": v for k, v in module.state_dict().items()})
        return state
