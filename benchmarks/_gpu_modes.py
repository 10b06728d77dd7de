"""How a network is run on a GPU: eagerly, compiled by torch.compile, or replayed as a CUDA graph."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks._gpu_common import NotHere, Settings

#: Modes of a record. `compile` is inductor's default; `reduce-overhead` lets inductor replay CUDA graphs itself.
MODES = ("eager", "compile", "reduce-overhead", "graph")


class FixedBatch(nn.Module):
    """A network that always computes batches of one size: the last window fills up a smaller batch.

    Parameters
    ----------
    network : Module
        (B, C, Z, Y, X) to (B, K, Z, Y, X).
    batch : int
        Windows in every batch; more are refused.
    """

    def __init__(self, network: nn.Module, batch: int) -> None:
        super().__init__()
        self.network, self.batch = network, batch

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Logits of the windows that were given.

        Raises
        ------
        ValueError
            More windows than the batch has.
        """
        given = len(x_BCZYX)
        if given > self.batch:
            raise ValueError(f"{given} windows for batches of {self.batch}")
        if given < self.batch:
            missing = x_BCZYX[-1:].expand(self.batch - given, *x_BCZYX.shape[1:])
            layout = torch.channels_last_3d if _is_last(x_BCZYX) else torch.contiguous_format
            x_BCZYX = torch.cat([x_BCZYX, missing]).contiguous(memory_format=layout)
        logits_BKZYX: torch.Tensor = self.network(x_BCZYX)
        return logits_BKZYX[:given]


def _is_last(x_BCZYX: torch.Tensor) -> bool:
    return x_BCZYX.is_contiguous(memory_format=torch.channels_last_3d)


class Graphed(nn.Module):
    """A network replayed as one CUDA graph, captured at the first call and for the size of that call.

    The graph is captured in the autocast context of that call. Each result is a copy, so that later calls leave it.

    Parameters
    ----------
    network : Module
        In evaluation mode; its work must not depend on values of its input.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._graph: torch.cuda.CUDAGraph | None = None

    def forward(self, x_BCZYX: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of the captured size."""
        if self._graph is None:
            self._capture(x_BCZYX)
        assert self._graph is not None
        self._input_BCZYX.copy_(x_BCZYX)
        self._graph.replay()
        return self._output_BKZYX.clone()

    def _capture(self, x_BCZYX: torch.Tensor) -> None:
        self._input_BCZYX = x_BCZYX.clone(memory_format=torch.preserve_format)
        cast = torch.autocast(
            "cuda",
            dtype=torch.get_autocast_dtype("cuda"),
            enabled=torch.is_autocast_enabled("cuda"),
            cache_enabled=False,  # a cached copy of a weight would lie in the graph's memory
        )
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), cast:
            for _ in range(3):
                self.network(self._input_BCZYX)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), cast:
            self._output_BKZYX = self.network(self._input_BCZYX)
        self._graph = graph


def in_mode(network: nn.Module, mode: str, batch: int, settings: Settings) -> nn.Module:
    """A network to be run in a mode, for batches of at most so many windows.

    Raises
    ------
    NotHere
        A CUDA graph without a CUDA device.
    """
    if mode == "eager":
        return network
    if mode == "graph":
        if not settings.on_gpu:
            raise NotHere("CUDA graphs need a CUDA device")
        return FixedBatch(Graphed(network), batch)
    return FixedBatch(compiled(network, mode, settings), batch)


def compiled(network: nn.Module, mode: str, settings: Settings) -> nn.Module:
    """The network under torch.compile; a quick run traces it, and generates no code."""
    if settings.quick:
        result = torch.compile(network, dynamic=False, backend="eager")
    else:
        result = torch.compile(network, dynamic=False, mode=None if mode == "compile" else mode)
    assert isinstance(result, nn.Module)
    return result
