"""Architecture search: joint training of a supernet's weights and operation probabilities (Kim et al. 2019).

Each step samples one network to train the weights, and another to train the architecture on the other half of the data
with fixed weights: the first-order approximation of DARTS (Liu et al., ICLR 2019, arXiv 1806.09055).
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from cytovox.inference.tiling import SlidingWindow
from cytovox.models.metadata import SearchMetadata
from cytovox.networks.architecture import EDGES, Choice, candidates, fixed
from cytovox.networks.genotype import CELL_TYPES, OPERATION_NAMES, Genotype, load_genotype
from cytovox.networks.search_cost import Measure, cost_of, cost_tables, expected_cost
from cytovox.networks.supernet import Supernet
from lightning_modules.base import frozen
from lightning_modules.optim import Adam
from lightning_modules.organelle import OrganelleModule
from lightning_modules.search_config import SearchConfig


class SearchModule(OrganelleModule):
    """Search for a genotype of the organelle network.

    Parameters
    ----------
    network : Supernet
        Network that contains all networks of the search space.
    metadata : SearchMetadata
        Description of the search, stored in every checkpoint.
    tiling : SlidingWindow
        Sliding window of the validation, which scores the most likely network with the supernet's weights.
    loss : Module
        Per-organelle loss.
    optimizer : Adam
        Optimiser of the weights; the architecture uses the same kind.
    search : SearchConfig
        Search options.
    seed : int
        Seed of the run, which determines the sampled networks.
    threshold : float
        Probability from which a voxel belongs to an organelle.
    """

    network: Supernet
    metadata: SearchMetadata

    def __init__(
        self,
        network: Supernet,
        metadata: SearchMetadata,
        tiling: SlidingWindow,
        loss: nn.Module,
        optimizer: Adam,
        search: SearchConfig,
        seed: int,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(network, metadata, tiling, loss, optimizer, threshold)
        self.search, self.seed = search, seed
        # stored in checkpoints, so that a latency is measured once and is the same on every rank
        for kind in CELL_TYPES:
            self.register_buffer(f"cost_{kind}", torch.full((len(EDGES), len(OPERATION_NAMES)), torch.nan))

    def setup(self, stage: str) -> None:
        """Measure the cost of operations on this device, and allow steps that do not use all parameters."""
        if isinstance(self.trainer.strategy, DDPStrategy):
            self.trainer.strategy._ddp_kwargs["find_unused_parameters"] = True
        if stage == "fit" and self.trainer.ckpt_path is None and self.get_buffer("cost_reduction").isnan().any():
            measure, device = search_measure(self.search), str(self.trainer.strategy.root_device)
            precision = self.trainer.precision_plugin.forward_context  # latencies are measured in this precision
            with precision() if measure == "latency_ms" else contextlib.nullcontext():
                tables = cost_tables(self.network.config, OPERATION_NAMES, self.metadata.patch_size, measure, device)
            for kind, table in tables.items():
                self.get_buffer(f"cost_{kind}").copy_(self.trainer.strategy.broadcast(table))

    @property
    def cost_tables(self) -> dict[str, torch.Tensor]:
        """Cost of the candidate operations by cell type; see `cytovox.networks.search_cost.cost_tables`."""
        columns = [OPERATION_NAMES.index(name) for name in self.metadata.operations]
        # stacked, since a list of indices would be copied to the device at every step
        return {kind: torch.stack([t[:, column] for column in columns], dim=1) for kind, t in self._all_costs.items()}

    @property
    def _all_costs(self) -> dict[str, torch.Tensor]:
        return {kind: self.get_buffer(f"cost_{kind}") for kind in CELL_TYPES}

    def cost_of(self, genotype: Genotype) -> float:
        """Return the cost of a network's operations, in the unit of the cost term (GFLOP without one)."""
        return cost_of(genotype, self._all_costs, OPERATION_NAMES, self.network.config.multiplier)

    @functools.cached_property
    def published_cost(self) -> float:
        """Cost of the published genotype, the unit of `CostTerm.target`."""
        return self.cost_of(load_genotype("published"))

    def progress(self) -> float:
        """Return the fraction of steps done, 0 to 1."""
        return min(1.0, self.trainer.global_step / max(1.0, float(self.trainer.estimated_stepping_batches)))

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        """Return the loss of a sampled network's weights plus that of another's architecture on the other half.

        The host waits for the device once per sampled network (`Architecture.sample`).
        """
        high, low = self.search.temperature
        temperature = high * (low / high) ** self.progress()
        stream = self._stream(index)
        choice = self.network.architecture.sample(temperature, stream)
        # the architecture learns after the warm-up, which a dry run of one step does not have
        learning = self.progress() >= self.search.warmup or self.trainer.estimated_stepping_batches <= 1
        self.network.choose(choice if learning and self.search.joint else _detached(choice))
        total = super().training_step(batch, index)
        if learning and not self.search.joint:
            self.network.choose(self.network.architecture.sample(temperature, stream))
            total = total + self._architecture_loss(batch["architecture"])
        if learning and (term := self.search.cost) is not None:
            relative_cost = expected_cost(self.network.architecture, self.cost_tables) / self.published_cost
            total = total + term.weight * (relative_cost - term.target).relu()
        # created on the device: a Python number would be copied there, and the host would wait for it
        on_device = torch.full((), temperature, device=self.device)
        self.log("search/temperature", on_device, batch_size=len(batch["image"]))
        return total

    def _architecture_loss(self, batch: dict[str, Any]) -> torch.Tensor:
        assert self.loss is not None
        with frozen(self.network.weights()):
            logits = self.network(self._laid_out(batch["image"]))
            total: torch.Tensor = self.loss(logits, batch["mask"], batch["labelled"]).sum()
        self.log("train/loss_architecture", total.detach(), batch_size=len(batch["image"]))
        return total

    def _stream(self, index: int) -> torch.Generator:
        """Return a generator that is the same on every rank, so that all ranks compute the same network."""
        place = (self.seed * 1_000_003 + self.trainer.current_epoch) * 1_000_003 + index
        return torch.Generator().manual_seed(place % 2**63)

    def on_validation_epoch_start(self) -> None:
        """Select the most likely network for the validation."""
        self.network.choose(fixed(self.network.architecture.genotype()))

    def on_validation_epoch_end(self) -> None:
        """Log the scores, the entropy of the choices and the costs."""
        super().on_validation_epoch_end()
        architecture = self.network.architecture
        with torch.no_grad():
            self.log("search/entropy", architecture.entropy(), prog_bar=True)
            self.log("search/cost_expected", expected_cost(architecture, self.cost_tables))
        self.log("search/cost_derived", self.cost_of(architecture.genotype()))

    def candidates(self) -> list[Genotype]:
        """Return the most likely network and some sampled ones, within the target cost.

        Before the search has converged, the most likely network differs from typical samples, for example in cost.
        """
        term = self.search.cost
        most = math.inf if term is None else term.target * self.published_cost
        stream = torch.Generator().manual_seed(self.seed)
        return candidates(self.network.architecture, self.search.candidates, stream, self.cost_of, most)

    @torch.no_grad()
    def score(self, genotype: Genotype, volumes: Iterable[dict[str, Any]]) -> float:
        """Return the validation's mean Dice of a network with the supernet's weights; NaN without volumes."""
        self.network.choose(fixed(genotype))
        self.to(self.trainer.strategy.root_device).eval()
        found: list[np.ndarray] = []
        with self.trainer.precision_plugin.forward_context():
            for batch in volumes:
                found += self.volume_dice(self.transfer_batch_to_device(batch, self.device, 0))
        columns = np.array(found).reshape(-1, len(self.organelles)).T
        means = [column[~np.isnan(column)].mean() for column in columns if not np.isnan(column).all()]
        return float(np.mean(means)) if means else math.nan

    def configure_optimizers(self) -> Any:
        """Return one optimiser with two groups; the learning rate of the architecture is constant."""
        own = {"lr": self.search.lr, "betas": tuple(self.search.betas), "weight_decay": self.search.weight_decay}
        groups = [{"params": self.network.weights()}, {"params": [*self.network.architecture.parameters()], **own}]
        found = self.configured(groups)
        schedule = found["lr_scheduler"]["scheduler"]
        if isinstance(schedule, LambdaLR):
            schedule.lr_lambdas[1] = lambda _: 1.0
        else:
            schedule.min_lrs[1] = self.search.lr  # so that the plateau cannot reduce it
        return found


def search_measure(config: SearchConfig) -> Measure:
    """Return the unit of costs; costs are reported even if they are not part of the loss."""
    return config.cost.measure if config.cost is not None else "gflop"


def _detached(choice: Choice) -> Choice:
    """Return the same choice of operations without the weights that pass gradients to the architecture."""
    return {kind: tuple(tuple((edge, None) for edge, _ in node) for node in cell) for kind, cell in choice.items()}
