"""A second device that computes on the CPU: it refuses what a GPU refuses, and counts when the host waits for it.

Tensors on it hold real numbers, so whole fits, validations and predictions run on it. As on a GPU, an operation on
tensors of two devices raises; a CPU tensor without axes is let through where CUDA takes it as a number. Every
operation for which CUDA makes the host wait is recorded with the line of the package that asked for it.

PyTorch knows the device as ``privateuseone``; the registration is per process and cannot be undone, so tests that use
it share one file group and nothing else in the process may see that name.
"""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.utils.backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

#: PyTorch's name of the device.
NAME = "testdevice"
CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
aten = torch.ops.aten

#: Operations whose result has a size, or a Python value, that depends on the values: the host waits for the device.
READS = {
    aten._local_scalar_dense: "item",
    aten.nonzero: "nonzero",
    aten.nonzero_numpy: "nonzero",
    aten.masked_select: "masked_select",
    aten.equal: "equal",
    aten.is_nonzero: "is_nonzero",
    aten._unique2: "unique",
    aten.unique_dim: "unique",
    aten.unique_consecutive: "unique",
    aten.bincount: "bincount",
    aten.histc: "histc",
    aten.allclose: "allclose",
}
#: Indexing: with a mask the host waits for the number of True, with a tensor of the CPU for its copy.
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index, aten._index_put_impl_}
#: Operations that may see tensors of several devices, because copying between them is what they are for.
COPIES = {aten.copy_, aten._to_copy, aten.copy, aten._foreach_copy_, aten.set_}


class DeviceMixError(RuntimeError):
    """Tensors of two devices met in one operation."""


@dataclass
class Sync:
    """The host waited for the device once."""

    kind: str
    """`item`, `nonzero`, ..., `to_cpu` (a copy to the CPU) or `upload` (a blocking copy from the CPU)."""
    place: str
    """`path:line function` of the innermost frame of the project; of PyTorch or Lightning where there is none."""


@dataclass
class Watch:
    """What was recorded."""

    syncs: list[Sync] = field(default_factory=list)
    enabled: bool = True
    """Recording stops where this is False."""

    def of(self, *kinds: str) -> list[str]:
        """Places of these kinds, or of all, in order."""
        return [f"{sync.kind} {sync.place}" for sync in self.syncs if not kinds or sync.kind in kinds]

    def table(self) -> dict[str, int]:
        """How often at each place."""
        return dict(Counter(self.of()))


class FakeTensor(torch.Tensor):
    """A tensor of the fake device; its numbers lie in a CPU tensor of the same layout."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> FakeTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            layout=raw.layout, device=device(), requires_grad=raw.requires_grad,
        )  # fmt: skip
        tensor.raw = raw
        return tensor

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"FakeTensor({tuple(self.shape)}, {self.dtype})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As the CPU tensor: a checkpoint of a GPU is read where there is none."""
        return self.detach().cpu().requires_grad_(self.requires_grad).__reduce_ex__(protocol)

    def tolist(self) -> Any:
        """Through the CPU, as of a GPU."""
        return self.detach().cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """As of a GPU: only after a copy to the CPU."""
        raise TypeError(f"can't convert a tensor of {self.device} to numpy: copy it to the CPU first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


_ACTIVE: list[Watch] = []
_KEPT: list[Any] = []
"""What PyTorch holds without owning it."""


def device() -> torch.device:
    """The device; `register` first."""
    return torch.device(NAME, 0)


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Check one operation, record it, and compute it on the CPU tensors within."""
    packet = func.overloadpacket
    flat = tree_flatten((args, kwargs))[0]
    ours = [a for a in flat if isinstance(a, FakeTensor)]
    targets = [a for a in flat if isinstance(a, torch.device)]
    to_us = any(target.type == NAME for target in targets)
    if not ours and not to_us:
        return func(*args, **kwargs)
    if _is_composite(func):  # where no gradient is recorded, such operations arrive whole
        with _Factories():
            return func.decompose(*args, **kwargs)
    _check(func, packet, flat, ours)
    _record(func, packet, args, kwargs, ours)
    with torch.inference_mode(False):  # a view of a weight is no inference tensor, and only torch itself could tell
        result = func(*tree_map_only(FakeTensor, lambda t: t.raw, args), **_on_cpu(kwargs))
        if packet is aten._to_copy and targets and not to_us:
            return result
        return _wrapped(func, packet, args, kwargs, result)


@functools.cache
def _is_composite(func: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))


def _on_cpu(kwargs: dict[str, Any]) -> dict[str, Any]:
    inner = tree_map_only(FakeTensor, lambda t: t.raw, kwargs)
    if inner.get("device") is not None:
        inner["device"] = CPU
    inner.pop("pin_memory", None)
    return inner


def _wrapped(func: Any, packet: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
    """Results on the device; of an operation in place, the very tensor that it changed."""
    schema = func._schema
    written = [
        args[i] if i < len(args) else kwargs.get(a.name)
        for i, a in enumerate(schema.arguments)
        if a.alias_info is not None and a.alias_info.is_write
    ]
    if written and any(r.alias_info is not None and r.alias_info.is_write for r in schema.returns):
        return written[0] if len(schema.returns) == 1 else tuple(written)
    if packet is aten._local_scalar_dense or not schema.returns:
        return result
    return tree_map(lambda r: FakeTensor(r) if type(r) is torch.Tensor else r, result)


def _check(func: Any, packet: Any, flat: list[Any], ours: list[FakeTensor]) -> None:
    strangers = [a for a in flat if isinstance(a, torch.Tensor) and not isinstance(a, FakeTensor)]
    if not strangers or packet in COPIES or not ours:
        return
    if packet in INDEXING and all(s.dtype in (torch.int64, torch.int32, torch.bool, torch.uint8) or s.dim() == 0 for s in strangers):
        if isinstance(flat[0], FakeTensor):
            return
    if all(s.dim() == 0 for s in strangers) and torch.Tag.pointwise in func.tags:
        return
    shapes = [f"{t.device.type}{tuple(t.shape)}" for t in flat if isinstance(t, torch.Tensor)]
    raise DeviceMixError(f"{func}: expected all tensors on one device, got {', '.join(shapes)}")


def _record(func: Any, packet: Any, args: Any, kwargs: dict[str, Any], ours: list[FakeTensor]) -> None:
    kind = _kind(func, packet, args, kwargs, ours)
    if kind is not None and _ACTIVE:
        watch = _ACTIVE[-1]
        if watch.enabled:
            watch.syncs.append(Sync(kind, _place()))


def _kind(func: Any, packet: Any, args: Any, kwargs: dict[str, Any], ours: list[FakeTensor]) -> str | None:
    if packet in READS:
        return READS[packet]
    if packet is aten.repeat_interleave and kwargs.get("output_size") is None:
        return "repeat_interleave"
    if packet in INDEXING:
        indices = [i for i in args[1] if isinstance(i, torch.Tensor)]
        values = args[2] if len(args) > 2 else None
        masks = [i for i in indices if i.dtype in (torch.bool, torch.uint8)]
        filled = values is not None and values.dim() == 0 and len(indices) == 1  # becomes masked_fill
        if masks and not filled:
            return "mask_index"
        return "upload" if any(not isinstance(i, FakeTensor) for i in indices) else None
    if packet is aten._to_copy:
        to_us = torch.device(kwargs["device"]).type == NAME if kwargs.get("device") is not None else bool(ours)
        if bool(ours) == to_us:
            return None
        return "to_cpu" if ours else (None if kwargs.get("non_blocking") else "upload")
    if packet is aten.copy_:
        into, source = args[0], args[1]
        if isinstance(into, FakeTensor) == isinstance(source, FakeTensor):
            return None
        blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        return "to_cpu" if not isinstance(into, FakeTensor) else ("upload" if blocking else None)
    return None


def _place() -> str:
    frames = [f for f in traceback.extract_stack() if f.filename != __file__]
    own = [f for f in frames if Path(f.filename).is_relative_to(ROOT) and "/.venv/" not in f.filename]
    deepest = frames[-1]
    for frame in reversed(frames):
        if "/torch/" not in frame.filename:
            deepest = frame
            break
    # what a library does on its own account inside a test's call is the library's
    index = max((i for i, f in enumerate(frames) if f in own), default=-1)
    chosen = frames[index] if index >= 0 and "tests/" not in frames[index].filename else deepest
    path = Path(chosen.filename)
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(*path.parts[-3:])
    return f"{name}:{chosen.lineno} {chosen.name}"


class _Factories(TorchDispatchMode):
    """Makes new tensors of the device, which no tensor's own dispatch sees."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class _Hook(torch._C._acc.PrivateUse1Hooks):
    """There is such a device within `fake_device` only: nothing else in the process finds an accelerator."""

    def is_available(self) -> bool:
        return bool(_ACTIVE)

    def has_primary_context(self, index: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


class _Module(torch.utils.backend_registration._DummyBackendModule):
    """What PyTorch asks a device's module for."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def synchronize(self, device: Any = None) -> None:
        pass


#: What autocast computes in 16 bits, and what in float32, as CUDA's lists have it (those that this package uses).
LOWER = (
    "conv2d", "conv3d", "conv_transpose2d.input", "conv_transpose3d.input", "linear", "matmul", "mm", "bmm", "addmm",
    "baddbmm", "scaled_dot_product_attention",
)  # fmt: skip
FLOAT32 = (
    "exp", "log", "softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "cumsum", "group_norm", "prod",
    "binary_cross_entropy_with_logits", "pow.Tensor_Scalar", "norm.Scalar", "mse_loss", "rsqrt", "cosh", "acos",
)  # fmt: skip


def _autocast_rules() -> None:
    """Give the device CUDA's rules for autocast."""
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    rules = torch.library.Library("aten", "IMPL")
    for name in (*LOWER, *FLOAT32):
        packet, _, overload = name.partition(".")
        op = getattr(getattr(aten, packet), overload or "default")
        rules.impl(op, functools.partial(_cast_and_call, op, name in LOWER), "AutocastPrivateUse1")
    _KEPT.extend([everything, rules])


def _cast_and_call(op: Any, lower: bool, *args: Any, **kwargs: Any) -> Any:
    dtype = torch.get_autocast_dtype(NAME) if lower else torch.float32
    floats = (torch.float16, torch.bfloat16, torch.float32)

    def cast(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype) if tensor.dtype in floats and tensor.device.type == NAME else tensor

    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
        return op(*tree_map_only(torch.Tensor, cast, args), **tree_map_only(torch.Tensor, cast, kwargs))


@functools.cache
def register() -> str | None:
    """Make the device known to PyTorch, once; the reason if this version cannot."""
    setup = getattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend", None)
    if setup is None:
        return f"torch {torch.__version__} has no device written in Python"
    _KEPT.extend([_Module(), _Hook(), torch.utils.backend_registration._DummyDeviceGuard()])
    setup(NAME, *_KEPT)
    _autocast_rules()
    return None


@contextlib.contextmanager
def fake_device() -> Iterator[Watch]:
    """The device within the context, and what is recorded of it."""
    watch = Watch()
    _ACTIVE.append(watch)
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with _Factories():
            yield watch
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        _ACTIVE.pop()
