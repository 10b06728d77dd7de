"""Networks run as torch.compile or CUDA graphs have them, for batches that all have one shape."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import nn

from cytovox.errors import DeviceError, InputError
from cytovox.inference.precision import autocast

#: none: as it is. default: by torch.compile, fused by its own compiler. cuda_graphs: the kernels of one pass are
#: recorded and launched as a whole, which helps where launching them takes longer than computing.
Compile = Literal["none", "default", "cuda_graphs"]

#: Passes before a graph is recorded, in which cuDNN chooses its algorithms and memory is reserved.
_WARM_UP = 3


def runner(network: nn.Module, compile: Compile, device: str, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return how a network is called.

    Parameters
    ----------
    network : Module
        (B, C, Z, Y, X) to (B, K, Z, Y, X).
    compile : str
        One of `Compile`.
    device : str
        Where it runs.
    precision : str
        As of `autocast`.

    Returns
    -------
    callable
        From a batch to the network's output in that precision. That of `cuda_graphs` is overwritten by the next call.

    Raises
    ------
    InputError
        Another way, or CUDA graphs on a device that has none.
    """
    if compile not in get_args(Compile):
        raise InputError(f"compile {compile!r}: expected one of {', '.join(get_args(Compile))}")
    if compile == "cuda_graphs":
        if torch.device(device).type != "cuda":
            raise InputError(f"compile cuda_graphs: expected a CUDA device, got {device}; choose none or default")
        return _Graphs.of(network, precision)
    called: Callable[[torch.Tensor], torch.Tensor] = network if compile == "none" else _by_torch(network)

    def run(windows_BCZYX: torch.Tensor) -> torch.Tensor:
        with autocast(windows_BCZYX.device.type, precision):
            return called(windows_BCZYX)

    return run


def _by_torch(network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network by torch.compile, for one shape; a missing compiler is the user's to install."""
    from torch._dynamo.exc import TorchDynamoException  # slow to import

    compiled = torch.compile(network, dynamic=False)

    def run(windows_BCZYX: torch.Tensor) -> torch.Tensor:
        try:
            output: torch.Tensor = compiled(windows_BCZYX)
        except TorchDynamoException as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DeviceError(f"compile default: torch.compile failed: {reason}; choose compile none") from error
        return output

    return run


@dataclass
class _Recorded:
    """One pass of a network as a CUDA graph."""

    graph: torch.cuda.CUDAGraph
    seen: torch.Tensor
    """What it reads."""
    output: torch.Tensor
    """What it writes."""
    key: tuple
    """Shape, layout and device of the batch."""


class _Graphs:
    """CUDA graphs of a network: recorded at the first batch of a shape; the one before it is freed."""

    #: Recorded graphs by network and precision, so that the next file's inferer need not record again.
    _known: ClassVar[WeakKeyDictionary[nn.Module, dict[str, _Recorded]]] = WeakKeyDictionary()

    def __init__(self, network: nn.Module, precision: str, recorded: dict[str, _Recorded]) -> None:
        self.network, self.precision, self._recorded = network, precision, recorded

    @classmethod
    def of(cls, network: nn.Module, precision: str) -> "_Graphs":
        return cls(network, precision, cls._known.setdefault(network, {}))

    def __call__(self, windows_BCZYX: torch.Tensor) -> torch.Tensor:
        key = (windows_BCZYX.shape, windows_BCZYX.stride(), windows_BCZYX.device, self._addresses())
        recorded = self._recorded.get(self.precision)
        if recorded is None or recorded.key != key:
            del recorded
            self._recorded.pop(self.precision, None)
            recorded = self._recorded[self.precision] = self._record(windows_BCZYX, key)
        recorded.seen.copy_(windows_BCZYX)
        recorded.graph.replay()
        return recorded.output

    def _addresses(self) -> tuple[int, ...]:
        """Where the parameters lie: a graph that was recorded before they were moved reads freed memory."""
        tensors = [*self.network.parameters(), *self.network.buffers()]
        return tuple(tensor.data_ptr() for tensor in tensors)

    def _record(self, windows_BCZYX: torch.Tensor, key: tuple) -> _Recorded:
        device = windows_BCZYX.device
        shape, strides, dtype = windows_BCZYX.shape, windows_BCZYX.stride(), windows_BCZYX.dtype
        with torch.inference_mode(False):  # so that it may also be written to outside of that mode
            seen = torch.empty_strided(shape, strides, dtype=dtype, device=device)
        seen.copy_(windows_BCZYX)
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._run(seen)
        torch.cuda.current_stream(device).wait_stream(side)
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()  # a graph has memory of its own, and none is freed for it while it is recorded
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = self._run(seen)
        return _Recorded(graph, seen, output, key)

    def _run(self, windows_BCZYX: torch.Tensor) -> torch.Tensor:
        # casts of weights are part of the graph: those that autocast keeps would be freed behind it
        with autocast(windows_BCZYX.device.type, self.precision, cache=False):
            output: torch.Tensor = self.network(windows_BCZYX)
            return output
