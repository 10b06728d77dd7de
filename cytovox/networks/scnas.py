"""ScNAS: the searched 3D segmentation network, with the genotype that Choi et al. published.

A stem, then cells in pairs: (reduction, normal) down, doubling the width each time, and (normal, expansion) up. Each
cell reads the two outputs before it; after every decoder cell the encoder output of that resolution is added.
With the defaults 12.99 million parameters and 127 GFLOP (2 a multiply-add) at 64 x 128 x 128 voxels.

References
----------
Kim et al., Scalable Neural Architecture Search for 3D Medical Image Segmentation, MICCAI 2019, arXiv 1906.05956.
Choi et al. 2021, bioRxiv 2021.05.23.445351 (12 initial feature maps, 8 layers, multiplier 3).
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer
from torch import nn
from torch.utils.checkpoint import checkpoint

from cytovox.errors import InputError
from cytovox.networks.genotype import CELL_TYPES, NODES, Genotype, live_states, load_genotype
from cytovox.networks.scnas_cells import SQUEEZE, Cell, CellPlan, plan_cells
from cytovox.networks.sizes import check_size, size_errors


@dataclass
class ScNASConfig:
    """Options of `ScNAS`."""

    width: int = 12
    """Initial feature maps: the channels of a node at full resolution, doubled at each reduction."""
    layers: int = 8
    """Cells in the encoder, and as many in the decoder; even, as they come in pairs of resizing and normal."""
    multiplier: int = 3
    """How many of a cell's four nodes, from the last, make its output."""
    genotype: str = "published"
    """'published', or the path of a JSON file as written by a search. A run keeps the file's text instead."""
    checkpointing: bool = False
    """Keep only each cell's output in training and compute its inside again: less memory, a quarter more time."""

    @property
    def divisor(self) -> tuple[int, int, int]:
        """Every axis (z, y, x) must be a multiple of this: a halving a pair of cells."""
        factor = 2 ** max(self.layers // 2, 0)
        return factor, factor, factor

    @property
    def minimum(self) -> tuple[int, int, int]:
        """Three voxels at the coarsest level: a dilated convolution over two sees only padding beside its centre."""
        return tuple(3 * factor for factor in self.divisor)  # type: ignore[return-value]

    def errors(self, patch_ZYX: tuple[int, int, int] | None = None) -> list[str]:
        """What is wrong with the options, and with a patch of this size; empty where all is well."""
        errors = []
        if self.layers < 2 or self.layers % 2:
            errors.append(f"layers: {self.layers}: expected an even number of at least 2")
        if not 1 <= self.multiplier <= len(NODES):
            errors.append(f"multiplier: {self.multiplier}: expected 1 to {len(NODES)}")
        elif self.width < 2 or self.width * self.multiplier < SQUEEZE:
            errors.append(f"width: {self.width}: expected at least 2, and at least {SQUEEZE} when times multiplier")
        try:
            genotype = load_genotype(self.genotype)
        except InputError as unreadable:
            return [*errors, str(unreadable)]
        if not errors:
            errors += [
                f"genotype {self.genotype}: {kind}: no way from s1 to the output: the cell before is cut off"
                for kind in CELL_TYPES
                if "s1" not in live_states(getattr(genotype, kind), self.multiplier)
            ]
        if patch_ZYX is not None and not errors:
            errors += [f"patch: {error}" for error in size_errors(patch_ZYX, self.divisor, self.minimum)]
        return errors

    def portable(self) -> Self:
        """The same options without the name of a file, for what is read on other machines, such as a checkpoint."""
        if self.genotype == "published":
            return self
        return dataclasses.replace(self, genotype=json.dumps(load_genotype(self.genotype).to_json()))

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """The network, freshly initialised.

        Raises
        ------
        InputError
            An option is out of range, or the genotype cannot be read or built.
        """
        if errors := self.errors():
            raise InputError(f"scnas: {'; '.join(errors)}")
        return ScNAS(in_channels, out_channels, self)


class Backbone(nn.Module):
    """Stem, cells down and up, head: (B, in_channels, Z, Y, X) to logits (B, out_channels, Z, Y, X).

    Parameters
    ----------
    in_channels, out_channels : int
        Images in, organelles out.
    config : ScNASConfig
        Valid options.
    make_cell : callable
        A cell of the given type and place.
    """

    #: Whether a CPU is faster in ``channels_last_3d`` in 16 bits: not when training with 36 feature maps.
    channels_last = False

    def __init__(
        self, in_channels: int, out_channels: int, config: ScNASConfig, make_cell: Callable[[CellPlan], nn.Module]
    ) -> None:
        super().__init__()
        self.divisor, self.minimum = config.divisor, config.minimum
        self.checkpointing = config.checkpointing
        channels = config.width * config.multiplier
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, channels, 3, padding=1, bias=False),
            nn.LeakyReLU(),
            ChannelSELayer(3, channels, r=SQUEEZE),
            nn.InstanceNorm3d(channels),
        )
        encoder, decoder = plan_cells(config.width, config.layers, config.multiplier)
        self.encoder = nn.ModuleList(make_cell(plan) for plan in encoder)
        self.decoder = nn.ModuleList(make_cell(plan) for plan in decoder)
        self.head = nn.Conv3d(decoder[-1].width * config.multiplier, out_channels, 1)

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Logits of the input's size.

        Raises
        ------
        InputError
            A size that the network cannot take; see ``ScNASConfig.divisor`` and ``minimum``.
        """
        check_size("scnas", x_BCZYX.shape[2:], self.divisor, self.minimum)
        stem = self.stem(x_BCZYX)
        outputs = [stem, stem]
        for cell in self.encoder:
            outputs.append(self._run(cell, *outputs[-2:]))
        older, younger = outputs[-2:]
        for cell, skip in zip(self.decoder, reversed(outputs[1:-1]), strict=True):
            older, younger = younger, self._run(cell, older, younger) + skip
        return self.head(younger)

    def _run(self, cell: nn.Module, older: torch.Tensor, younger: torch.Tensor) -> torch.Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(cell, older, younger, use_reentrant=False)
        return cell(older, younger)


class ScNAS(Backbone):
    """The network of one genotype.

    Parameters
    ----------
    in_channels, out_channels : int
        Images in, organelles out.
    config : ScNASConfig
        Valid options.
    genotype : Genotype, optional
        Instead of the one that ``config.genotype`` names.
    """

    def __init__(
        self, in_channels: int, out_channels: int, config: ScNASConfig, genotype: Genotype | None = None
    ) -> None:
        genes = genotype or load_genotype(config.genotype)
        super().__init__(
            in_channels, out_channels, config, lambda plan: Cell(getattr(genes, plan.kind), plan, config.multiplier)
        )
