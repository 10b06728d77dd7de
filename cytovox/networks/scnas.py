"""ScNAS, the 3D segmentation network of an architecture search, with the genotype that Choi et al. published.

The stem is followed by pairs of cells: (reduction, normal) in the encoder, which double the width, and (normal,
expansion) in the decoder. The inputs of a cell are the two previous outputs. The encoder output of the same resolution
is added to the output of each decoder cell. The default network has 12.99 million parameters and needs 127 GFLOP (a
multiply-add counts as 2) for 64 x 128 x 128 voxels.

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
from cytovox.options import option_errors, raise_errors


@dataclass
class ScNASConfig:
    """Options of `ScNAS`."""

    width: int = 12
    """Channels of a node at full resolution; doubled at each reduction."""
    layers: int = 8
    """Cells in the encoder, and also in the decoder; even, as a resizing and a normal cell form a pair."""
    multiplier: int = 3
    """Number of a cell's four nodes, counted from the last, that form its output."""
    genotype: str = "published"
    """'published', or the path of a JSON file from a search. A run stores the content of the file."""
    checkpointing: bool = False
    """Keep only the outputs of cells in training and recompute the rest: less memory, a quarter more time."""

    @property
    def divisor(self) -> tuple[int, int, int]:
        """Number of which the size along each axis (z, y, x) must be a multiple: 2 for each pair of cells."""
        factor = 2 ** max(self.layers // 2, 0)
        return factor, factor, factor

    @property
    def minimum(self) -> tuple[int, int, int]:
        """Smallest size (z, y, x): three voxels at the coarsest level, where dilated convolutions need neighbours."""
        return tuple(3 * factor for factor in self.divisor)  # type: ignore[return-value]

    def errors(self, patch_ZYX: tuple[int, int, int] | None = None) -> list[str]:
        """Return what is wrong with the options, also for a patch of this size, one line per error."""
        valid = 1 <= self.multiplier <= len(NODES)
        errors = option_errors(
            self,
            ("layers", self.layers >= 2 and self.layers % 2 == 0, "an even number of at least 2"),
            ("multiplier", valid, f"1 to {len(NODES)}"),
            (
                "width",
                self.width >= 2 and (not valid or self.width * self.multiplier >= SQUEEZE),
                f"at least 2, and at least {SQUEEZE} when times multiplier",
            ),
        )
        try:
            genotype = load_genotype(self.genotype)
        except InputError as unreadable:
            return [*errors, str(unreadable)]
        if not errors:
            errors += [
                f"genotype {self.genotype}: {kind}: no path from s1 to the output: the previous cell has no effect"
                for kind in CELL_TYPES
                if "s1" not in live_states(getattr(genotype, kind), self.multiplier)
            ]
        if patch_ZYX is not None and not errors:
            errors += [f"patch: {error}" for error in size_errors(patch_ZYX, self.divisor, self.minimum)]
        return errors

    def portable(self) -> Self:
        """Return the options with the content of the genotype's file instead of its name, for use on other machines."""
        if self.genotype == "published":
            return self
        return dataclasses.replace(self, genotype=json.dumps(load_genotype(self.genotype).to_json()))

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """Return a new network.

        Raises
        ------
        InputError
            An option is out of range, or the genotype cannot be read or built.
        """
        raise_errors("scnas", self.errors())
        return ScNAS(in_channels, out_channels, self)


class Backbone(nn.Module):
    """Stem, encoder, decoder and head, from (B, in_channels, Z, Y, X) to logits (B, out_channels, Z, Y, X).

    Parameters
    ----------
    in_channels, out_channels : int
        Number of images and of organelles.
    config : ScNASConfig
        Valid options.
    make_cell : callable
        Function from the plan of a cell to the cell.
    """

    #: Whether ``channels_last_3d`` is faster on a CPU in 16 bits: not in training with 36 feature maps.
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
        """Return logits of the input's size.

        Raises
        ------
        InputError
            A size that the network does not accept; see ``ScNASConfig.divisor`` and ``minimum``.
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
    """Network of one genotype.

    Parameters
    ----------
    in_channels, out_channels : int
        Number of images and of organelles.
    config : ScNASConfig
        Valid options.
    genotype : Genotype, optional
        Genotype; that of ``config.genotype`` if not given.
    """

    def __init__(
        self, in_channels: int, out_channels: int, config: ScNASConfig, genotype: Genotype | None = None
    ) -> None:
        genes = genotype or load_genotype(config.genotype)
        super().__init__(
            in_channels, out_channels, config, lambda plan: Cell(getattr(genes, plan.kind), plan, config.multiplier)
        )
