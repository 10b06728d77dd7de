"""A second device that computes on the CPU: it refuses what a GPU refuses, and records when the host waits for it.

Tensors on it hold real numbers, so whole fits, validations and predictions run on it. As on a GPU, an operation on
tensors of two devices raises; a CPU tensor without axes passes where CUDA takes it as a number. Every operation for
which CUDA makes the host wait is recorded, with the function of the package that asked for it.

The device is PyTorch's "private use" one, written in Python. Its name is registered once per process and stays; it is
available within `fake_device` only, so nothing else in the process finds an accelerator.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.utils.backend_registration as registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

#: PyTorch's name of the device.
NAME = "testdevice"
CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
aten = torch.ops.aten

#: Operations whose result has a size, or a Python value, that depends on the values: the host waits for the device.
READS = {
    aten._local_scalar_dense: "item", aten.nonzero: "nonzero", aten.nonzero_numpy: "nonzero",
    aten.masked_select: "masked_select", aten.equal: "equal", aten.is_nonzero: "is_nonzero", aten._unique2: "unique",
    aten._unique: "unique", aten.unique_dim: "unique", aten.unique_consecutive: "unique", aten.bincount: "bincount",
    aten.allclose: "allclose",
}  # fmt: skip
#: Indexing: with a mask the host waits for the number of True, with a tensor of the CPU for its copy.
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index, aten._index_put_impl_}
#: Operations that may see tensors of several devices, because copying between them is what they are for.
COPIES = {aten.copy_, aten._to_copy, aten.copy, aten._foreach_copy_}
#: Up to so many values per voxel to the power 0.145, CUDA's `isin` compares one by one; beyond, it sorts and waits.
ISIN_FACTOR, ISIN_POWER = 10.0, 0.145


class DeviceMixError(RuntimeError):
    """Tensors of two devices met in one operation."""


@dataclass(frozen=True)
class Sync:
    """The host waited for the device once."""

    kind: str
    """`item`, `nonzero`, ...; `to_cpu`: a copy to the CPU; `upload`: a blocking copy from the CPU."""
    path: str
    """File of the innermost frame of the package; of PyTorch, Lightning or another library if there is none."""
    function: str
    """Qualified name of its function."""
    line: int

    def __str__(self) -> str:
        return f"{self.kind} {self.path} {self.function}"


@dataclass
class Watch:
    """What was recorded."""

    syncs: list[Sync] = field(default_factory=list)

    def table(self, first: int = 0) -> dict[str, int]:
        """How often at each place, from the sync of this number on."""
        return dict(Counter(map(str, self.syncs[first:])))


class FakeTensor(torch.Tensor):
    """A tensor of the fake device; its numbers lie in a CPU tensor of the same layout."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> FakeTensor:
        tensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
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


class _Everything(TorchDispatchMode):
    """Sees what no tensor's own dispatch sees: new tensors, and copies to the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


_ACTIVE: list[Watch] = []
_KEPT: list[Any] = []
"""What PyTorch refers to without owning it."""


def device() -> torch.device:
    """The device; `register` first."""
    return torch.device(NAME, 0)


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Check one operation, record it, and compute it on the CPU tensors within."""
    packet, flat = func.overloadpacket, tree_flatten((args, kwargs))[0]
    ours = [a for a in flat if isinstance(a, FakeTensor)]
    targets = [a for a in flat if isinstance(a, torch.device)]
    to_us = any(target.type == NAME for target in targets)
    if not ours and not to_us:
        return func(*args, **kwargs)
    if _is_composite(func):  # where no gradient is recorded, such operations arrive whole
        with _Everything():
            return func.decompose(*args, **kwargs)
    _check(func, flat, ours)
    kind = _kind(packet, args, kwargs, ours)
    if kind is not None:
        _record(kind)
    with torch.inference_mode(False):  # a view of a weight is no inference tensor, and only torch itself could tell
        inner = tree_map_only(torch.device, lambda _: CPU, tree_map_only(FakeTensor, lambda t: t.raw, (args, kwargs)))
        result = _computed(func, inner[0], {key: value for key, value in inner[1].items() if key != "pin_memory"})
        if packet is aten._to_copy and targets and not to_us:
            return result
        return _wrapped(func, packet, args, kwargs, result)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result on the CPU; in float32, rounded, where it has no kernel for float16."""
    try:
        return func(*args, **kwargs)
    except NotImplementedError as missing:
        if "'Half'" not in str(missing):
            raise

    def wide(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.float() if tensor.dtype == torch.float16 else tensor

    result = func(*tree_map_only(torch.Tensor, wide, args), **tree_map_only(torch.Tensor, wide, kwargs))
    return tree_map_only(torch.Tensor, lambda t: t.half() if t.dtype == torch.float32 else t, result)


@functools.cache
def _is_composite(func: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))


def _wrapped(func: Any, packet: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
    """Results on the device; of an operation in place, the very tensor that it changed."""
    schema = func._schema
    written = [
        args[i] if i < len(args) else kwargs.get(argument.name)
        for i, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    if written and any(r.alias_info is not None and r.alias_info.is_write for r in schema.returns):
        return written[0] if len(schema.returns) == 1 else tuple(written)
    return tree_map(lambda r: FakeTensor(r) if type(r) is torch.Tensor else r, result)


def _check(func: Any, flat: list[Any], ours: list[FakeTensor]) -> None:
    """Refuse tensors of two devices where CUDA does."""
    others = [a for a in flat if isinstance(a, torch.Tensor) and not isinstance(a, FakeTensor)]
    packet = func.overloadpacket
    if not others or not ours or packet in COPIES:
        return
    numbers = all(other.dim() == 0 for other in others)
    if numbers and torch.Tag.pointwise in func.tags:
        return
    whole = all(not other.is_floating_point() or other.dim() == 0 for other in others)
    if packet in INDEXING and isinstance(flat[0], FakeTensor) and whole:
        return
    shapes = [f"{t.device.type}{tuple(t.shape)}" for t in flat if isinstance(t, torch.Tensor)]
    raise DeviceMixError(f"{func}: expected all tensors on one device, got {', '.join(shapes)}")


def _kind(packet: Any, args: Any, kwargs: dict[str, Any], ours: list[FakeTensor]) -> str | None:
    """Why the host waits for this operation; None if it does not."""
    if packet in READS:
        return READS[packet]
    if packet is aten.repeat_interleave:
        return "repeat_interleave" if kwargs.get("output_size") is None else None
    if packet is aten.isin and all(isinstance(a, torch.Tensor) for a in args[:2]):
        return "isin" if args[1].numel() >= ISIN_FACTOR * args[0].numel() ** ISIN_POWER else None
    if packet in INDEXING:
        return _index_kind(args)
    if packet is aten._to_copy:
        to_us = torch.device(kwargs["device"]).type == NAME if kwargs.get("device") is not None else bool(ours)
        return _copy_kind(bool(ours), to_us, bool(kwargs.get("non_blocking")))
    if packet is aten.copy_:
        waits_not = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        return _copy_kind(isinstance(args[1], FakeTensor), isinstance(args[0], FakeTensor), waits_not)
    return None


def _copy_kind(from_us: bool, to_us: bool, non_blocking: bool) -> str | None:
    if from_us == to_us:
        return None
    return "to_cpu" if from_us else (None if non_blocking else "upload")


def _index_kind(args: Any) -> str | None:
    indices = [i for i in args[1] if isinstance(i, torch.Tensor)]
    value = args[2] if len(args) > 2 else None
    filled = value is not None and value.dim() == 0 and len(indices) == 1  # torch makes it a masked_fill
    if not filled and any(i.dtype in (torch.bool, torch.uint8) for i in indices):
        return "mask_index"
    return "upload" if any(not isinstance(i, FakeTensor) for i in indices) else None


def _record(kind: str) -> None:
    """Note the innermost frame of the package; else the innermost that is not torch's, of a test or a library."""
    if not _ACTIVE:
        return
    frame, other = sys._getframe(1), None
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        of_project = path.is_relative_to(ROOT) and ".venv" not in path.parts
        if of_project and "tests" not in path.relative_to(ROOT).parts:
            _ACTIVE[-1].syncs.append(_sync(kind, frame, path.relative_to(ROOT)))
            return
        if other is None and path != Path(__file__) and not _inside_torch(path):
            other = _sync(kind, frame, path.relative_to(ROOT) if of_project else Path(*path.parts[-3:]))
        frame = frame.f_back  # type: ignore[assignment]
    _ACTIVE[-1].syncs.append(other or Sync(kind, "unknown", "unknown", 0))


def _inside_torch(path: Path) -> bool:
    """Of torch, but for what it does on its own account in a training: optimisers and the gradient scaler."""
    return path.is_relative_to(Path(torch.__file__).parent) and path.parts[-2] not in ("optim", "amp")


def _sync(kind: str, frame: Any, path: Path) -> Sync:
    name = frame.f_code.co_qualname.split(".<locals>")[0]
    return Sync(kind, path.as_posix(), name, frame.f_lineno)


class _Hook(torch._C._acc.PrivateUse1Hooks if hasattr(torch._C, "_acc") else object):  # type: ignore[misc]
    """There is such a device within `fake_device` only."""

    def is_available(self) -> bool:
        return bool(_ACTIVE)

    def has_primary_context(self, index: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


class _Module:
    """What PyTorch asks a device's module for."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return bool(_ACTIVE)

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Random numbers are those of the CPU's generator."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def synchronize(self, device: Any = None) -> None:
        """Nothing runs apart from the host."""


@functools.cache
def register() -> str | None:
    """Make the device known to PyTorch, once per process; the reason if this version cannot."""
    setup = getattr(registration, "_setup_privateuseone_for_python_backend", None)
    if setup is None:
        return f"torch {torch.__version__} has no device that is written in Python"
    _KEPT.extend([_Module(), _Hook(), registration._DummyDeviceGuard()])  # type: ignore[attr-defined]
    setup(NAME, *_KEPT)
    _autocast_rules()
    return None


#: What autocast computes in 16 bits, and what in float32, as in CUDA's lists (those that this package meets).
LOWER = (
    "conv2d", "conv3d", "conv_transpose2d.input", "conv_transpose3d.input", "linear", "matmul", "mm", "bmm", "addmm",
    "baddbmm", "scaled_dot_product_attention",
)  # fmt: skip
FLOAT32 = (
    "exp", "log", "softmax.int", "log_softmax.int", "sum", "sum.dim_IntList", "cumsum", "group_norm", "prod",
    "binary_cross_entropy_with_logits", "pow.Tensor_Scalar", "mse_loss", "rsqrt",
)  # fmt: skip


def _autocast_rules() -> None:
    """Give the device CUDA's rules for autocast."""
    everything, rules = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in (*LOWER, *FLOAT32):
        packet, _, overload = name.partition(".")
        op = getattr(getattr(aten, packet), overload or "default")
        rules.impl(op, functools.partial(_cast_and_call, op, name in LOWER), "AutocastPrivateUse1")
    _KEPT.extend([everything, rules])


def _cast_and_call(op: Any, lower: bool, *args: Any, **kwargs: Any) -> Any:
    dtype = torch.get_autocast_dtype(NAME) if lower else torch.float32

    def cast(tensor: torch.Tensor) -> torch.Tensor:
        ours = tensor.device.type == NAME and tensor.dtype in (torch.float16, torch.bfloat16, torch.float32)
        return tensor.to(dtype) if ours else tensor

    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
        return op(*tree_map_only(torch.Tensor, cast, args), **tree_map_only(torch.Tensor, cast, kwargs))


@contextlib.contextmanager
def fake_device() -> Iterator[Watch]:
    """The device within the context, and what is recorded of it."""
    watch = Watch()
    _ACTIVE.append(watch)
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(..., device=...) would pass by the mode
    try:
        with _Everything():
            yield watch
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        _ACTIVE.pop()
