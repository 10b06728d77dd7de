"""Memory of a training step on a GPU that need not be there: every tensor of the step is counted, none is computed.

The step runs on fake tensors, which have shapes and no numbers. Each storage that an operation makes counts from then
until nothing refers to it any more, so that the peak includes what the backward pass keeps, gradients and temporary
results. 16 bits are used where autocast on CUDA uses them, which is not quite where autocast on a CPU does.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from cytovox.networks.registry import NetworkConfig

#: What autocast on CUDA computes in 16 bits, and what in float32, by the names of torch's functions
#: (https://docs.pytorch.org/docs/stable/amp.html); all others take their arguments as they are.
SHORT = frozenset(
    (
        "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear", "matmul",
        "mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention", "prelu", "__matmul__", "__rmatmul__",
    )
)  # fmt: skip
LONG = frozenset(
    (
        "group_norm", "layer_norm", "softmax", "log_softmax", "softplus", "cross_entropy", "nll_loss", "l1_loss",
        "mse_loss", "smooth_l1_loss", "kl_div", "binary_cross_entropy_with_logits", "exp", "expm1", "log", "log10",
        "log2", "log1p", "pow", "__pow__", "__rpow__", "__rdiv__", "reciprocal", "rsqrt", "sum", "prod", "cumsum",
        "cumprod", "norm", "normalize", "dist", "cdist", "cosine_similarity", "acos", "asin", "cosh", "sinh", "tan",
        "erfinv",
    )
)  # fmt: skip
#: Torch's allocator of GPU memory rounds every tensor up to this.
BLOCK_BYTES = 512
#: Copies of all weights that Adam's step makes at once.
STEP_COPIES = 1


@dataclass(frozen=True)
class StepMemory:
    """One training step, in bytes of GPU memory."""

    parameters: int
    """Numbers that are learned."""
    weights: int
    """Weights, moments of the optimiser, averaged weights: what stays between steps."""
    peak: int
    """The most at once, `weights`, the batch and gradients included."""


class CudaAutocast(TorchFunctionMode):
    """Where autocast is enabled on the CPU, choose what autocast on CUDA would.

    Parameters
    ----------
    dtype : torch.dtype
        float16 or bfloat16.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Cast the arguments of functions that have a precision of their own; CPU autocast casts none."""
        kwargs = kwargs or {}
        if not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        wanted = self.dtype if name in SHORT else torch.float32 if name in LONG else None
        with torch.autocast("cpu", enabled=False):
            if wanted is not None:
                args, kwargs = tree_map(lambda value: _cast(value, wanted), (tuple(args), kwargs))
            return func(*args, **kwargs)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    floats = (torch.float32, torch.float16, torch.bfloat16)
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.dtype in floats else value


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.kept = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and count what it made."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return made

    def keep(self, tensors: Sequence[torch.Tensor], more: int) -> None:
        """These tensors, and so many bytes beside them, stay between steps."""
        for tensor in tensors:
            self._count(tensor.untyped_storage())
        self.now += more
        self.kept = self.peak = self.now

    def add(self, more: int) -> None:
        """So many bytes more, or less, that no operation here makes."""
        self.now += more
        self.peak = max(self.peak, self.now)

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = _rounded(storage.nbytes())
        self.add(size)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size


def _rounded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def step_memory(
    build: Callable[[], nn.Module],
    step: Callable[[nn.Module], torch.Tensor],
    precision: str,
    moments: int = 2,
    averaged: bool = False,
    ranks: int = 1,
) -> StepMemory:
    """Count the memory of a training step: forward, backward, and the optimiser's.

    Parameters
    ----------
    build : callable
        Makes the module that learns, as it is.
    step : callable
        Makes a batch and returns the loss of the module, a scalar; called where tensors are fake, under autocast.
    precision : str
        `32-true`, `16-mixed` or `bf16-mixed`.
    moments : int
        Tensors that the optimiser keeps of each weight: 2 of Adam, 1 of SGD with momentum.
    averaged : bool
        Whether there is an average of the weights.
    ranks : int
        With more than one, gradients are gathered in buckets of their own.

    Raises
    ------
    ValueError
        The step needs numbers, which fake tensors do not have.
    """
    live = LiveBytes()
    with _counting():
        parameters = _run(build, step, precision, live, moments + averaged + (ranks > 1))
    return StepMemory(parameters, live.kept, live.peak)


def step_flop(build: Callable[[], nn.Module], step: Callable[[nn.Module], torch.Tensor], precision: str) -> int:
    """Return the operations of a step forward and backward, 2 a multiply-add.

    What activation checkpointing computes again counts again. Parameters and errors as of `step_memory`.
    """
    with _counting(), FlopCounterMode(display=False) as flops:
        _run(build, step, precision)
    return flops.get_total_flops()


@contextmanager
def _counting() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(f"the step cannot be counted without numbers: {str(error).splitlines()[0]}") from error


def _run(
    build: Callable[[], nn.Module], step: Callable[[nn.Module], torch.Tensor], precision: str,
    live: LiveBytes | None = None, copies: int = 0,
) -> int:  # fmt: skip
    """Take the step on fake tensors; the number of parameters."""
    dtype = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision)
    module = build().train()  # with numbers: not all that surrounds a network can be made without
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    _make_fake(module, mode)
    learned = [p for p in module.parameters() if p.requires_grad]
    one = sum(_rounded(4 * p.numel()) for p in learned)
    with mode, live or nullcontext(), CudaAutocast(dtype) if dtype is not None else nullcontext():
        if live is not None:
            live.keep([*module.parameters(), *module.buffers()], copies * one)
            live.add(one)  # gradients of the step before live until the loss is known
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False):
            loss = step(module).float()
        if live is not None:
            live.add(-one)
        # the engine itself: within Tensor.backward a mode of functions is off, and checkpointing calls functions again
        engine = torch.autograd.Variable._execution_engine
        engine.run_backward((loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True,
                            accumulate_grad=True)  # fmt: skip
        del loss
        if live is not None:
            live.add(STEP_COPIES * one)
    return sum(p.numel() for p in learned)


def _make_fake(module: nn.Module, mode: FakeTensorMode) -> None:
    """Give a module parameters and buffers of the same shapes without numbers, in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                fake = mode.from_tensor(parameter.detach())
                part._parameters[name] = nn.Parameter(fake, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = mode.from_tensor(buffer)


def predicted_peak_bytes(
    network: NetworkConfig,
    loss: nn.Module,
    patch_ZYX: Sequence[int],
    batch: int,
    outputs: int,
    precision: str,
    moments: int = 2,
    averaged: bool = False,
) -> int:
    """Return the most GPU memory that a training step of an organelle network takes, in bytes.

    What torch counts as allocated (`torch.cuda.max_memory_allocated`), without the workspace of cuDNN; the driver's
    own memory and what the allocator leaves unused come on top.

    Parameters
    ----------
    network : NetworkConfig
        Valid options.
    loss : nn.Module
        (logits, target, labelled) to the loss of each organelle.
    patch_ZYX : three ints
        Voxels.
    batch : int
        Patches.
    outputs : int
        Organelles.
    precision, moments, averaged
        See `step_memory`.
    """

    def step(module: nn.Module) -> torch.Tensor:
        image = torch.zeros(batch, 1, *patch_ZYX)
        mask = torch.zeros(batch, outputs, *patch_ZYX, dtype=torch.uint8)
        return loss(module(image), mask, torch.ones(batch, outputs, dtype=torch.bool)).sum()

    return step_memory(lambda: network.build(1, outputs), step, precision, moments, averaged).peak
