"""Find valid patch sizes of a network, their cost, and the batch sizes that fit into memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from cytovox.networks.registry import NetworkConfig

Shape = tuple[int, int, int]

#: Fraction of the memory that a run may use. The rest is for the system and unused memory of the allocator.
USABLE = 0.9
#: Bytes per weight in training: the weight, its gradient, two moments of Adam and the average.
BYTES_A_WEIGHT = 20


@dataclass(frozen=True)
class Work:
    """Cost of a training step, counted and not measured."""

    parameters: int
    flop: int | None
    """Operations of the forward and backward pass of a batch, 2 per multiply-add; None if the network cannot be
    traced."""
    saved_bytes: int | None
    """Features kept for the backward pass: a lower bound of the memory that a step needs besides the weights."""


def count_work(
    network: NetworkConfig, patch_ZYX: Sequence[int], batch_size: int, outputs: int, mixed: bool = False
) -> Work:
    """Count parameters, operations and kept features of a training step, without computing it.

    Parameters
    ----------
    network : NetworkConfig
        Valid options of the network.
    patch_ZYX : three ints
        Valid patch size in voxels.
    batch_size : int
        Number of patches.
    outputs : int
        Number of organelles.
    mixed : bool
        Whether autocast stores features in 16 bits.
    """
    with FakeTensorMode():
        module, patches_BCZYX = network.build(1, outputs), torch.zeros(batch_size, 1, *patch_ZYX)
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
        except RuntimeError:  # control flow of a network from another package may depend on values
            return Work(parameters, None, None)
        return Work(parameters, counter.get_total_flops(), sum(kept.values()))


def axis_sizes(size: int, divisor: int, minimum: int, around: int = 2) -> list[int]:
    """Return the valid sizes of an axis nearest to `size`, `around` of them on either side, smallest first."""
    least = -(-minimum // divisor) * divisor
    middle = max(least, round(size / divisor) * divisor)
    return [n for n in range(middle - around * divisor, middle + around * divisor + 1, divisor) if n >= least]


def candidates(patch_ZYX: Sequence[int], network: NetworkConfig) -> list[Shape]:
    """Return the patch and valid patches of about half to twice its length, smallest first."""
    found = {(patch_ZYX[0], patch_ZYX[1], patch_ZYX[2])}
    for factor in (0.5, 0.75, 1.5, 2.0):
        z, y, x = (
            axis_sizes(round(size * factor), divisor, minimum, around=0)[0]
            for size, divisor, minimum in zip(patch_ZYX, network.divisor, network.minimum, strict=True)
        )
        found.add((z, y, x))
    return sorted(found, key=math.prod)


def smaller_patch(patch_ZYX: Sequence[int], network: NetworkConfig) -> Shape | None:
    """Return the next smaller candidate; None for the smallest."""
    own = math.prod(patch_ZYX)
    below = [c for c in candidates(patch_ZYX, network) if math.prod(c) < own]
    return below[-1] if below else None


@dataclass(frozen=True)
class MemoryModel:
    """Memory of a step at any patch and batch size, from one measurement: features grow with the voxels."""

    fixed_bytes: float
    """Constant part: the program, the weights with their gradients and moments, loader processes."""
    voxel_bytes: float
    """Bytes per voxel of a batch."""

    @classmethod
    def measured(cls, peak_bytes: float, fixed_bytes: float, patch_ZYX: Sequence[int], batch: int) -> Self:
        """Return the model of a peak measured at one patch and batch size, of which `fixed_bytes` is constant."""
        fixed = min(fixed_bytes, peak_bytes)
        return cls(fixed, (peak_bytes - fixed) / (math.prod(patch_ZYX) * batch))

    def peak(self, patch_ZYX: Sequence[int], batch: int) -> float:
        """Return the peak in bytes."""
        return self.fixed_bytes + self.voxel_bytes * math.prod(patch_ZYX) * batch

    def largest_batch(self, patch_ZYX: Sequence[int], memory_bytes: float) -> int:
        """Return the largest batch that fits into the usable memory; 0 if not even one patch does."""
        free = USABLE * memory_bytes - self.fixed_bytes
        return max(0, int(free // max(1.0, self.voxel_bytes * math.prod(patch_ZYX))))


def too_large(work: Work, memory_bytes: float) -> bool:
    """Return whether the features kept for the backward pass alone exceed the memory."""
    return work.saved_bytes is not None and work.saved_bytes > memory_bytes


def advice(
    network: NetworkConfig, patch_ZYX: Sequence[int], batch: int, memory_bytes: float, work: Work | None = None
) -> str:
    """Return advice for a step that does not fit: a batch that may fit, or a smaller patch."""
    known = 0.0 if work is None or work.saved_bytes is None else work.saved_bytes / batch
    fits = min(batch // 2, int(USABLE * memory_bytes / known)) if known else batch // 2
    if fits >= 1:
        return f"try data.batch_size={fits} (and trainer.accumulate_grad_batches={math.ceil(batch / fits)})"
    smaller = smaller_patch(patch_ZYX, network)
    if smaller is None:
        return "choose a smaller network: this is its smallest patch"
    return f"try data.patch_size=[{','.join(map(str, smaller))}]"
