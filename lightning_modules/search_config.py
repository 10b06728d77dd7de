"""Section `search:` of a config: the options of an architecture search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cytovox.networks.genotype import OPERATION_NAMES
from datamodules.errors import failed


@dataclass
class CostTerm:
    """Section `search.cost:`: the cost of a network relative to the published genotype of the same width and depth."""

    measure: Literal["gflop", "parameters", "latency_ms"] = "gflop"
    """Unit of cost: billions of operations per patch (2 per multiply-add, 0 for pooling), number of parameters, or
    milliseconds of a forward pass per patch, measured on this device."""
    target: float = 0.5
    """Fraction of the published genotype's cost below which the cost adds nothing to the loss. It is also the largest
    cost of the resulting genotype, unless every sampled network exceeds it."""
    weight: float = 5.0
    """Weight in the loss of the expected cost above `target`, in units of the published genotype's cost."""


@dataclass
class SearchConfig:
    """Section `search:`."""

    operations: list[str] = field(default_factory=lambda: list(OPERATION_NAMES))
    """Candidate operations of an edge."""
    temperature: list[float] = field(default_factory=lambda: [5.0, 0.5])
    """Temperature of the Gumbel-softmax at the first and the last step; it falls by the same factor at each step."""
    warmup: float = 0.2
    """Fraction of the steps in which only weights are trained, with networks sampled uniformly."""
    joint: bool = False
    """Train weights and architecture on the same patches in one pass; else each on its own half of the volumes."""
    lr: float = 0.01
    """Learning rate of the architecture; it does not follow `optimizer.schedule`."""
    betas: list[float] = field(default_factory=lambda: [0.5, 0.999])
    """Decay of the two running moments of the architecture's Adam."""
    weight_decay: float = 0.0
    """Weight decay of the architecture, towards equal probabilities of all operations."""
    candidates: int = 16
    """Networks sampled at the end in addition to the most likely one. The one with the best validation Dice, with the
    supernet's weights and within `cost.target`, becomes the genotype (Pham et al., ICML 2018). 0: the most likely."""
    cost: CostTerm | None = None
    """Cost term of the loss; null: accuracy alone counts."""


def search_errors(config: SearchConfig) -> list[str]:
    """Return the errors of a config's values, one line each, beginning with the key."""
    names, temperature, betas, cost = config.operations, config.temperature, config.betas, config.cost
    checks = [
        *(
            (name in OPERATION_NAMES, f"operations: expected some of {', '.join(OPERATION_NAMES)}, got {name!r}")
            for name in names
        ),
        (len(set(names)) == len(names), f"operations: expected each once, got {names}"),
        (
            len(names) >= 2 and not set(names) <= {"none"},
            "operations: expected two at least, since there is nothing to choose from one",
        ),
        (
            len(temperature) == 2 and temperature[0] >= temperature[1] > 0,
            f"temperature: expected two falling numbers above 0, got {temperature}",
        ),
        (0 <= config.warmup < 1, f"warmup: expected a number from 0 to below 1, got {config.warmup}"),
        (config.lr > 0, f"lr: expected a number above 0, got {config.lr}"),
        (
            len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
            f"betas: expected two numbers from 0 to below 1, got {betas}",
        ),
        (config.candidates >= 0, f"candidates: expected 0 or more, got {config.candidates}"),
        (config.weight_decay >= 0, f"weight_decay: expected 0 or more, got {config.weight_decay}"),
    ]
    if cost is not None:
        checks += [
            (cost.target > 0, f"cost.target: expected a number above 0, got {cost.target}"),
            (cost.weight > 0, f"cost.weight: expected a number above 0, got {cost.weight}; set cost: null for no cost"),
        ]
    return failed(checks)
