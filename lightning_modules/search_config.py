"""The keys of an architecture search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cytovox.networks.genotype import OPERATION_NAMES


@dataclass
class CostTerm:
    """`search.cost:`. What a network may cost, against the published genotype at the same width and layers."""

    measure: Literal["gflop", "parameters", "latency_ms"] = "gflop"
    """Billions of operations a patch (2 a multiply-add; pooling counts none), numbers that are learned, or milliseconds
    a patch, forward, measured on this device."""
    target: float = 0.5
    """Part of the published genotype's cost from which on nothing is charged; and what the genotype may cost, where
    any network that is drawn keeps to it."""
    weight: float = 5.0
    """What one whole of the published genotype's cost above the target adds to the loss."""


@dataclass
class SearchConfig:
    """`search:`."""

    operations: list[str] = field(default_factory=lambda: list(OPERATION_NAMES))
    """What an edge may do."""
    temperature: list[float] = field(default_factory=lambda: [5.0, 0.5])
    """Of the Gumbel-softmax, at the first step and the last; it falls by the same factor at each."""
    warmup: float = 0.2
    """Part of the steps in which only weights learn, of networks drawn with equal chances."""
    joint: bool = False
    """Weights and architecture learn from the same patches, in one pass; else each from its half of the volumes."""
    lr: float = 0.01
    """Learning rate of the architecture; it does not follow `optimizer.schedule`."""
    betas: list[float] = field(default_factory=lambda: [0.5, 0.999])
    """Decay of its two running moments."""
    weight_decay: float = 0.0
    """Pulls all choices towards equal chances."""
    candidates: int = 16
    """Networks drawn at the end beside the likeliest; the one with the best validation Dice, with the supernet's
    weights and within `cost.target`, is the genotype (Pham et al., ICML 2018). 0: the likeliest."""
    cost: CostTerm | None = None
    """What a network may cost; null: accuracy alone counts."""


def search_errors(config: SearchConfig) -> list[str]:
    """What cannot work in these numbers, one line each, beginning with the key."""
    errors = []
    known = ", ".join(OPERATION_NAMES)
    for name in config.operations:
        if name not in OPERATION_NAMES:
            errors.append(f"operations: expected some of {known}, got {name!r}")
    if len(set(config.operations)) < len(config.operations):
        errors.append(f"operations: expected each once, got {config.operations}")
    if len(config.operations) < 2 or set(config.operations) <= {"none"}:
        errors.append("operations: expected two at least, since there is nothing to choose from one")
    if len(config.temperature) != 2 or not config.temperature[0] >= config.temperature[1] > 0:
        errors.append(f"temperature: expected two falling numbers above 0, got {config.temperature}")
    if not 0 <= config.warmup < 1:
        errors.append(f"warmup: expected a part from 0 to below 1, got {config.warmup}")
    if not config.lr > 0:
        errors.append(f"lr: expected a number above 0, got {config.lr}")
    if len(config.betas) != 2 or not all(0 <= beta < 1 for beta in config.betas):
        errors.append(f"betas: expected two numbers from 0 to below 1, got {config.betas}")
    if config.candidates < 0:
        errors.append(f"candidates: expected 0 or more, got {config.candidates}")
    if config.weight_decay < 0:
        errors.append(f"weight_decay: expected 0 or more, got {config.weight_decay}")
    if config.cost is not None:
        if not config.cost.target > 0:
            errors.append(f"cost.target: expected a number above 0, got {config.cost.target}")
        if not config.cost.weight > 0:
            errors.append(f"cost.weight: expected a number above 0, got {config.cost.weight}; null charges nothing")
    return errors
