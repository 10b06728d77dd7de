"""Patches that a network takes, what they cost, and how many of them fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from cytovox.networks.registry import NetworkConfig

Shape = tuple[int, int, int]

#: Part of the memory that a run may take: the rest is the system's, and the allocator's leavings.
USABLE = 0.9
#: Bytes of a weight in training: itself, its gradient, two moments of Adam and the average.
BYTES_A_WEIGHT = 20


@dataclass(frozen=True)
class Work:
    """What a step is, counted and not measured."""

    parameters: int
    flop: int | None
    """Forward and backward of a batch, 2 a multiply-add; None of a network that cannot be traced."""
    saved_bytes: int | None
    """Features kept for the backward pass: a lower bound of what a step needs beside the weights."""


def count_work(
    network: NetworkConfig, patch_ZYX: Sequence[int], batch_size: int, outputs: int, mixed: bool = False
) -> Work:
    """Count parameters, operations and kept features of a training step, without computing it.

    Parameters
    ----------
    network : NetworkConfig
        Valid options.
    patch_ZYX : three ints
        A legal size in voxels.
    batch_size : int
        Patches.
    outputs : int
        Organelles.
    mixed : bool
        Whether features are of 16 bits where autocast makes them so.
    """
    with FakeTensorMode():  # shapes without numbers
        return _traced(network.build(1, outputs), torch.zeros(batch_size, 1, *patch_ZYX), mixed)


def _traced(module: nn.Module, patches_BCZYX: torch.Tensor, mixed: bool) -> Work:
    parameters = sum(p.numel() for p in module.parameters())
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    try:
        with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                logits_BKZYX = module(patches_BCZYX)
            logits_BKZYX.float().sum().backward()
    except RuntimeError:  # a network of another package may need numbers to decide its way
        return Work(parameters, None, None)
    return Work(parameters, counter.get_total_flops(), sum(kept.values()))


def axis_sizes(size: int, divisor: int, minimum: int, around: int = 2) -> list[int]:
    """Legal sizes of an axis: the given one's place and so many on either side, smallest first."""
    least = -(-minimum // divisor) * divisor
    middle = max(least, round(size / divisor) * divisor)
    return [n for n in range(middle - around * divisor, middle + around * divisor + 1, divisor) if n >= least]


def candidates(patch_ZYX: Sequence[int], network: NetworkConfig) -> list[Shape]:
    """The patch itself and legal ones of about a half to twice its length, smallest first."""
    found = {(patch_ZYX[0], patch_ZYX[1], patch_ZYX[2])}
    for factor in (0.5, 0.75, 1.5, 2.0):
        z, y, x = (
            axis_sizes(round(size * factor), divisor, minimum, around=0)[0]
            for size, divisor, minimum in zip(patch_ZYX, network.divisor, network.minimum, strict=True)
        )
        found.add((z, y, x))
    return sorted(found, key=math.prod)


def smaller_patch(patch_ZYX: Sequence[int], network: NetworkConfig) -> Shape | None:
    """The next smaller of the candidates; None for the smallest."""
    own = math.prod(patch_ZYX)
    below = [c for c in candidates(patch_ZYX, network) if math.prod(c) < own]
    return below[-1] if below else None


@dataclass(frozen=True)
class MemoryModel:
    """Memory of a step at any patch and batch, from one that was measured: features grow with the voxels."""

    fixed_bytes: float
    """What does not: the program, the weights with their gradients and moments, loader processes."""
    voxel_bytes: float
    """A voxel of a batch."""

    @classmethod
    def measured(cls, peak_bytes: float, fixed_bytes: float, patch_ZYX: Sequence[int], batch: int) -> MemoryModel:
        """From the peak at one patch and batch; `fixed_bytes` is what of it does not grow."""
        fixed = min(fixed_bytes, peak_bytes)
        return cls(fixed, (peak_bytes - fixed) / (math.prod(patch_ZYX) * batch))

    def peak(self, patch_ZYX: Sequence[int], batch: int) -> float:
        """Bytes."""
        return self.fixed_bytes + self.voxel_bytes * math.prod(patch_ZYX) * batch

    def largest_batch(self, patch_ZYX: Sequence[int], memory_bytes: float) -> int:
        """Largest batch that leaves the machine some room; 0 where not even one patch fits."""
        room = USABLE * memory_bytes - self.fixed_bytes
        return max(0, int(room // max(1.0, self.voxel_bytes * math.prod(patch_ZYX))))


def too_large(work: Work, memory_bytes: float) -> bool:
    """Whether a step cannot fit for certain: the features that it keeps fill the memory alone."""
    return work.saved_bytes is not None and work.saved_bytes > memory_bytes


def advice(
    network: NetworkConfig, patch_ZYX: Sequence[int], batch: int, memory_bytes: float, work: Work | None = None
) -> str:
    """What to set where a step does not fit: a smaller batch that does by what is known of it, else a smaller patch."""
    known = 0.0 if work is None or work.saved_bytes is None else work.saved_bytes / batch
    fits = min(batch // 2, int(USABLE * memory_bytes / known)) if known else batch // 2
    if fits >= 1:
        return f"try data.batch_size={fits} (and trainer.accumulate_grad_batches={math.ceil(batch / fits)})"
    smaller = smaller_patch(patch_ZYX, network)
    if smaller is None:
        return "take a smaller network: this is the smallest patch it takes"
    return f"try data.patch_size=[{','.join(map(str, smaller))}]"
