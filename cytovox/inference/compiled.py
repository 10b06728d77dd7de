"""Networks run by torch.compile or as CUDA graphs, for batches of one shape."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import nn

from cytovox.errors import DeviceError, InputError
from cytovox.inference.device import autocast

#: none: unchanged. default: torch.compile with its default backend. cuda_graphs: the kernels of one pass are recorded
#: and launched as a whole, which helps if launching them takes longer than computing.
Compile = Literal["none", "default", "cuda_graphs"]

#: Passes before a graph is recorded, in which cuDNN chooses its algorithms and memory is allocated.
_WARM_UP = 3


def runner(network: nn.Module, compile: Compile, device: str, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that computes a network in a precision.

    Parameters
    ----------
    network : Module
        (B, C, Z, Y, X) to (B, K, Z, Y, X).
    compile : str
        One of `Compile`.
    device : str
        Device of the network.
    precision : str
        As of `autocast`.

    Returns
    -------
    callable
        From a batch to the network's output. An output of `cuda_graphs` is overwritten by the next call.

    Raises
    ------
    InputError
        Another value of `compile`, or CUDA graphs on a device that has none.
    """
    if compile not in get_args(Compile):
        raise InputError(f"compile {compile!r}: expected one of {', '.join(get_args(Compile))}")
    if compile == "cuda_graphs":
        if torch.device(device).type != "cuda":
            raise InputError(f"compile cuda_graphs: expected a CUDA device, got {device}; choose none or default")
        return _Graphs(network, precision)
    called: Callable[[torch.Tensor], torch.Tensor] = network if compile == "none" else _by_torch(network)

    def run(windows_BCZYX: torch.Tensor) -> torch.Tensor:
        with autocast(windows_BCZYX.device.type, precision):
            return called(windows_BCZYX)

    return run


def _by_torch(network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the network compiled for one shape; a missing compiler is an error that the user can fix."""
    from torch._dynamo.exc import TorchDynamoException  # slow to import

    compiled = torch.compile(network, dynamic=False)

    def run(windows_BCZYX: torch.Tensor) -> torch.Tensor:
        try:
            return compiled(windows_BCZYX)
        except TorchDynamoException as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DeviceError(f"compile default: torch.compile failed: {reason}; choose compile none") from error

    return run


@dataclass
class _Recorded:
    """One pass of a network as a CUDA graph."""

    graph: torch.cuda.CUDAGraph
    seen: torch.Tensor
    """Input of the graph."""
    output: torch.Tensor
    """Output of the graph."""
    key: tuple
    """Shape, strides and device of the batch, and addresses of the weights."""


class _Graphs:
    """CUDA graphs of a network: recorded at the first batch of a shape; the previous one is freed."""

    #: Recorded graphs by network and precision, so that the inferer of the next file need not record again.
    _known: ClassVar[WeakKeyDictionary[nn.Module, dict[str, _Recorded]]] = WeakKeyDictionary()

    def __init__(self, network: nn.Module, precision: str) -> None:
        self.network, self.precision, self._recorded = network, precision, self._known.setdefault(network, {})

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
        """Return the addresses of the weights: a graph that was recorded before they were moved reads freed memory."""
        return tuple(tensor.data_ptr() for tensor in chain(self.network.parameters(), self.network.buffers()))

    def _record(self, windows_BCZYX: torch.Tensor, key: tuple) -> _Recorded:
        device = windows_BCZYX.device
        with torch.inference_mode(False):  # so that the tensor can also be written to outside of that mode
            seen = torch.empty_strided(
                windows_BCZYX.shape, windows_BCZYX.stride(), dtype=windows_BCZYX.dtype, device=device
            )
        seen.copy_(windows_BCZYX)
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._run(seen)
        torch.cuda.current_stream(device).wait_stream(side)
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()  # a graph has its own memory, and no memory is freed while it is recorded
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = self._run(seen)
        return _Recorded(graph, seen, output, key)

    def _run(self, windows_BCZYX: torch.Tensor) -> torch.Tensor:
        # casts of weights are part of the graph: weights in the cache of autocast would be freed after recording
        with autocast(windows_BCZYX.device.type, self.precision, cache=False):
            return self.network(windows_BCZYX)
