"""Compute the memory of a training step on a GPU without one: every tensor of the step is counted, none is computed.

The step runs on fake tensors, which have shapes and no values. Each storage that an operation allocates is counted
until nothing refers to it any more, so the peak includes features kept for the backward pass, gradients and temporary
results. 16 bits are used where autocast on CUDA uses them, which differs from autocast on a CPU.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
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

#: Functions of torch that autocast on CUDA computes in 16 bits, and those that it computes in float32
#: (https://docs.pytorch.org/docs/stable/amp.html). All others keep the type of their arguments.
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
#: Torch's allocator of GPU memory rounds every tensor up to a multiple of this.
BLOCK_BYTES = 512
#: Temporary copies of all weights during a step of Adam.
STEP_COPIES = 1


@dataclass(frozen=True)
class StepMemory:
    """GPU memory of one training step, in bytes."""

    parameters: int
    """Number of learned parameters."""
    weights: int
    """Memory kept between steps: weights, moments of the optimiser, averaged weights."""
    peak: int
    """Peak memory, including `weights`, the batch and the gradients."""


class CudaAutocast(TorchFunctionMode):
    """Apply the type rules of autocast on CUDA where autocast is enabled on the CPU.

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
        """Call the function with its arguments cast as CUDA autocast casts them."""
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
    is_float = isinstance(value, torch.Tensor) and value.dtype in (torch.float32, torch.float16, torch.bfloat16)
    return value.to(dtype) if is_float else value


class LiveBytes(TorchDispatchMode):
    """Count the bytes of all storages that operations allocate, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.kept = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and count the storages of its results."""
        made = func(*args, **(kwargs or {}))
        self._count(leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor))
        return made

    def keep(self, tensors: Sequence[torch.Tensor], more: int) -> None:
        """Count tensors, and so many additional bytes, as memory that is kept between steps."""
        self._count(tensors)
        self.now += more
        self.kept = self.peak = self.now

    def add(self, more: int) -> None:
        """Add so many bytes, which may be negative, that no operation here allocates."""
        self.now += more
        self.peak = max(self.peak, self.now)

    def _count(self, tensors: Iterable[torch.Tensor]) -> None:
        for storage in (tensor.untyped_storage() for tensor in tensors):
            if storage not in self._seen:
                self._seen.add(storage)
                size = _rounded(storage.nbytes())
                self.add(size)
                weakref.finalize(storage, self.add, -size)


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
    """Return the memory of a training step: forward, backward and optimiser.

    Parameters
    ----------
    build : callable
        Function that builds the module to train.
    step : callable
        Function that builds a batch and returns the scalar loss of the module. It is called with fake tensors, under
        autocast.
    precision : str
        `32-true`, `16-mixed` or `bf16-mixed`.
    moments : int
        Tensors that the optimiser keeps per weight: 2 for Adam, 1 for SGD with momentum.
    averaged : bool
        Whether averaged weights are kept.
    ranks : int
        Number of ranks; with more than one, gradients are gathered in additional buckets.

    Raises
    ------
    ValueError
        The step depends on values, which fake tensors do not have.
    """
    live = LiveBytes()
    with _counting():
        parameters = _run(build, step, precision, live, moments + averaged + (ranks > 1))
    return StepMemory(parameters, live.kept, live.peak)


def step_flop(build: Callable[[], nn.Module], step: Callable[[nn.Module], torch.Tensor], precision: str) -> int:
    """Return the operations of the forward and backward pass of a step, 2 per multiply-add.

    Operations that activation checkpointing repeats count twice. Parameters and errors: see `step_memory`.
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
    """Run the step on fake tensors, and return the number of parameters."""
    dtype = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}.get(precision)
    module = build().train()  # with real tensors: not every part of a module can be built with fake ones
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    _make_fake(module, mode)
    learned = [p for p in module.parameters() if p.requires_grad]
    one = sum(_rounded(4 * p.numel()) for p in learned)
    with mode, live or nullcontext(), CudaAutocast(dtype) if dtype is not None else nullcontext():
        if live is not None:
            live.keep([*module.parameters(), *module.buffers()], copies * one)
            live.add(one)  # gradients of the previous step are kept until the loss is known
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False):
            loss = step(module).float()
        if live is not None:
            live.add(-one)
        # Tensor.backward would disable the function mode, but checkpointing calls functions again: call the engine
        engine = torch.autograd.Variable._execution_engine
        engine.run_backward((loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True,
                            accumulate_grad=True)  # fmt: skip
        del loss
        if live is not None:
            live.add(STEP_COPIES * one)
    return sum(p.numel() for p in learned)


def _make_fake(module: nn.Module, mode: FakeTensorMode) -> None:
    """Replace the parameters and buffers of a module by fake tensors of the same shapes, in place."""
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
    """Return the peak GPU memory of a training step of an organelle network, in bytes.

    This is the memory that torch allocates (`torch.cuda.max_memory_allocated`) without the workspace of cuDNN. The
    memory of the driver and unused memory of the allocator are not included.

    Parameters
    ----------
    network : NetworkConfig
        Valid options of the network.
    loss : nn.Module
        Loss of each organelle from logits, target and labelled.
    patch_ZYX : three ints
        Patch size in voxels.
    batch : int
        Number of patches.
    outputs : int
        Number of organelles.
    precision, moments, averaged
        See `step_memory`.
    """

    def step(module: nn.Module) -> torch.Tensor:
        image = torch.zeros(batch, 1, *patch_ZYX)
        mask = torch.zeros(batch, outputs, *patch_ZYX, dtype=torch.uint8)
        return loss(module(image), mask, torch.ones(batch, outputs, dtype=torch.bool)).sum()

    return step_memory(lambda: network.build(1, outputs), step, precision, moments, averaged).peak
