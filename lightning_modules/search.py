"""The search task: weights of a supernet and the chances of its choices, learnt together (Kim et al. 2019).

In a step one network is drawn for the weights, and another for the architecture, which learns from the other half of
the data while the weights stand still: the first-order way of DARTS (Liu et al., ICLR 2019, arXiv 1806.09055).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
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
from lightning_modules.optim import Adam, configure
from lightning_modules.organelle import MONITOR, OrganelleModule
from lightning_modules.search_config import SearchConfig


class SearchModule(OrganelleModule):
    """Searches.

    Parameters
    ----------
    network : Supernet
        Holds all networks of the space.
    metadata : SearchMetadata
        Stored in every checkpoint.
    tiling : SlidingWindow
        Windows of the validation, which scores the likeliest network with the supernet's weights.
    loss : Module
        Per-organelle loss.
    optimizer : Adam
        Of the weights, and the kind of the architecture's.
    search : SearchConfig
        How it searches.
    seed : int
        The run's: names the networks that are drawn.
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
        # kept in checkpoints, so that a latency is measured once and is the same on every rank
        for kind in CELL_TYPES:
            self.register_buffer(f"cost_{kind}", torch.full((len(EDGES), len(OPERATION_NAMES)), torch.nan))
        self._published_cost: float | None = None

    def setup(self, stage: str) -> None:
        """Know what operations cost on this device; and that no step uses all parameters."""
        if isinstance(self.trainer.strategy, DDPStrategy):
            self.trainer.strategy._ddp_kwargs["find_unused_parameters"] = True
        if stage != "fit" or self.trainer.ckpt_path is not None or not self.get_buffer("cost_reduction").isnan().any():
            return
        for kind, table in self._measured_costs().items():
            self.get_buffer(f"cost_{kind}").copy_(self.trainer.strategy.broadcast(table))

    def _measured_costs(self) -> dict[str, torch.Tensor]:
        """Of every operation on every edge; a latency on this run's device, in its precision."""
        measure = search_measure(self.search)
        timed = measure == "latency_ms"
        with self.trainer.precision_plugin.forward_context() if timed else contextlib.nullcontext():
            return cost_tables(
                self.network.config, OPERATION_NAMES, self.metadata.patch_size, measure,
                str(self.trainer.strategy.root_device),
            )  # fmt: skip

    @property
    def cost_tables(self) -> dict[str, torch.Tensor]:
        """Of the operations that are searched, by cell type; see `cytovox.networks.search_cost.cost_tables`."""
        columns = [OPERATION_NAMES.index(name) for name in self.metadata.operations]
        tables = {kind: self.get_buffer(f"cost_{kind}") for kind in CELL_TYPES}
        # not by a list of indices, which would be copied to the device at every step
        return {kind: torch.stack([table[:, column] for column in columns], dim=1) for kind, table in tables.items()}

    def cost_of(self, genotype: Genotype) -> float:
        """Of one network's operations, in the measure that was asked for (GFLOP if none was)."""
        tables = {kind: self.get_buffer(f"cost_{kind}") for kind in CELL_TYPES}
        return cost_of(genotype, tables, OPERATION_NAMES, self.network.config.multiplier)

    @property
    def published_cost(self) -> float:
        """Of the published genotype, in which the cost term is counted."""
        if self._published_cost is None:
            self._published_cost = self.cost_of(load_genotype("published"))
        return self._published_cost

    def progress(self) -> float:
        """Part of the steps that is done, 0 to below 1."""
        return min(1.0, self.trainer.global_step / max(1.0, float(self.trainer.estimated_stepping_batches)))

    def learns_choices(self) -> bool:
        """Whether the warm-up is over; a dry run, of one step, does all that a search does."""
        return self.progress() >= self.search.warmup or self.trainer.estimated_stepping_batches <= 1

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        """Loss of one drawn network's weights, and of another's choices on the other half.

        The host waits for the device once for each network that is drawn (`Architecture.sample`).
        """
        high, low = self.search.temperature
        temperature = high * (low / high) ** self.progress()
        stream = self._stream(index)
        choice = self.network.architecture.sample(temperature, stream)
        learning = self.learns_choices()
        if self.search.joint:
            self.network.choose(choice if learning else _standing(choice))
            total = super().training_step(batch, index)
        else:
            self.network.choose(_standing(choice))
            total = super().training_step(batch, index)
            if learning:
                self.network.choose(self.network.architecture.sample(temperature, stream))
                total = total + self._architecture_loss(batch["architecture"])
        if learning and self.search.cost is not None:
            total = total + self._charge()
        # made on the device: a number of Python's would be copied there, and the host would wait for it
        logged = torch.full((), temperature, device=self.device)
        self.log("search/temperature", logged, batch_size=len(batch["image"]))
        return total

    def _architecture_loss(self, batch: dict[str, Any]) -> torch.Tensor:
        assert self.loss is not None
        with _still(self.network.weights()):
            logits = self.network(self._laid_out(batch["image"]))
            total: torch.Tensor = self.loss(logits, batch["mask"], batch["labelled"]).sum()
        self.log("train/loss_architecture", total.detach(), batch_size=len(batch["image"]))
        return total

    def _charge(self) -> torch.Tensor:
        """What the expected cost above the target adds to the loss."""
        term = self.search.cost
        assert term is not None
        share = expected_cost(self.network.architecture, self.cost_tables) / self.published_cost
        excess = share - term.target
        return term.weight * excess.relu()

    def _stream(self, index: int) -> torch.Generator:
        """The same on every rank, so that all of them compute the same network."""
        place = (self.seed * 1_000_003 + self.trainer.current_epoch) * 1_000_003 + index
        return torch.Generator().manual_seed(place % 2**63)

    def on_validation_epoch_start(self) -> None:
        """The likeliest network is what is scored."""
        self.network.choose(fixed(self.network.architecture.genotype()))

    def on_validation_epoch_end(self) -> None:
        """Scores, and how far the search has come."""
        super().on_validation_epoch_end()
        architecture = self.network.architecture
        with torch.no_grad():
            self.log("search/entropy", architecture.entropy(), prog_bar=True)
            self.log("search/cost_expected", expected_cost(architecture, self.cost_tables))
        self.log("search/cost_derived", self.cost_of(architecture.genotype()))

    def candidates(self) -> list[Genotype]:
        """What the search comes to: the likeliest network and some that are drawn, within the cost that was asked for.

        A search that is not decided yet has a likeliest network that is not like those it draws, in cost for one.
        """
        term = self.search.cost
        most = math.inf if term is None else term.target * self.published_cost
        stream = torch.Generator().manual_seed(self.seed)
        return candidates(self.network.architecture, self.search.candidates, stream, self.cost_of, most)

    @torch.no_grad()
    def score(self, genotype: Genotype, volumes: Iterable[dict[str, Any]]) -> float:
        """Mean Dice of a network with the supernet's weights, as the validation has it; NaN without volumes."""
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
        """One optimiser of two groups: the architecture's learning rate stays as it is."""
        config = self.optimizer_config
        assert config is not None
        own = {"lr": self.search.lr, "betas": tuple(self.search.betas), "weight_decay": self.search.weight_decay}
        groups = [{"params": self.network.weights()}, {"params": [*self.network.architecture.parameters()], **own}]
        found = configure(config, groups, float(self.trainer.estimated_stepping_batches), MONITOR)  # type: ignore[arg-type]
        schedule = found["lr_scheduler"]["scheduler"]
        if isinstance(schedule, LambdaLR):
            schedule.lr_lambdas[1] = lambda _: 1.0
        else:
            schedule.min_lrs[1] = self.search.lr  # the plateau finds no room below it
        return found


def search_measure(config: SearchConfig) -> Measure:
    """Return the unit of costs; costs are reported even where they are not part of the loss."""
    return config.cost.measure if config.cost is not None else "gflop"


def _standing(choice: Choice) -> Choice:
    """The same network, which teaches its choices nothing."""
    return {kind: tuple(tuple((edge, None) for edge, _ in node) for node in cell) for kind, cell in choice.items()}


@contextlib.contextmanager
def _still(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """A pass in which these do not learn."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
