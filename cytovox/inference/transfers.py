"""Copies between main memory and a GPU, made while the GPU computes."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch

from cytovox.io.regions import Box

#: Most boxes that are yielded between two batches of windows, so that the GPU does not wait for their reader.
_BOXES_PER_STEP = 2

#: Item of a pass over a volume: a finished box and its values, or None after each batch.
Step = tuple[Box, torch.Tensor] | None


def indexed(device: torch.device | str) -> torch.device:
    """Return a device with its index, as tensors have it: `cuda:0` for `cuda`."""
    return torch.empty(0, device=device).device


@cache
def _streams(device: torch.device) -> tuple[torch.cuda.Stream | None, torch.cuda.Stream | None]:
    """Return the streams to and from a CUDA device: the same for all volumes, as freed memory belongs to its stream."""
    return (torch.cuda.Stream(device), torch.cuda.Stream(device)) if device.type == "cuda" else (None, None)


@dataclass
class Download:
    """A copy to main memory that may not be complete."""

    host: torch.Tensor
    """The copy; only valid after `wait`."""
    copied: torch.cuda.Event | None
    """Recorded after the copy; None if the copy is complete."""

    def ready(self) -> bool:
        """Return whether the copy is complete, without waiting."""
        return self.copied is None or self.copied.query()

    def wait(self) -> torch.Tensor:
        """Return the copy when it is complete."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.host


class Transfers:
    """Copies from main memory to one device and back.

    On CUDA each direction has its own stream and copies from or to pinned memory, so that neither the host nor the
    computing stream waits. On any other device these are plain copies. The values are the same.

    Parameters
    ----------
    device : torch.device
        The device. Nothing is copied if it is the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device = indexed(device)
        self._upward, self._downward = _streams(device)

    def upload(self, values: torch.Tensor) -> torch.Tensor:
        """Copy a tensor of main memory to the device.

        Parameters
        ----------
        values : tensor
            It may be changed or freed as soon as this returns.

        Returns
        -------
        tensor
            On the device, for use on the stream that is current now.
        """
        if self._upward is None:
            return values.to(self.device)
        pinned = values.pin_memory()
        with torch.cuda.stream(self._upward):
            there = pinned.to(self.device, non_blocking=True)
        computes = torch.cuda.current_stream(self.device)
        computes.wait_stream(self._upward)
        there.record_stream(computes)
        return there

    def download(self, values: torch.Tensor) -> Download:
        """Start to copy a tensor of the device to main memory.

        Parameters
        ----------
        values : tensor
            A result of the current stream. Do not change it afterwards.

        Returns
        -------
        Download
            With a contiguous copy, pinned on CUDA.
        """
        if self._downward is None:
            return Download(values.to("cpu"), None)
        values = values.contiguous()
        self._downward.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._downward):
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(self._downward)
        values.record_stream(self._downward)
        return Download(host, copied)


def to_host(
    steps: Iterator[Step],
    transfers: Transfers,
    budget_bytes: float,
    place: Callable[[Box, int], torch.Tensor] | None = None,
) -> Iterator[tuple[Box, torch.Tensor]]:
    """Copy finished boxes to main memory while the device continues to compute.

    A box is yielded some batches of windows after it was finished, when its copy is complete. The host waits for the
    device only at the end, and when the boxes that are being copied exceed the budget.

    Parameters
    ----------
    steps : iterator of (box, values) or None
        Boxes with (K, z, y, x) values on the device; None after each batch of windows.
    transfers : Transfers
        To and from that device.
    budget_bytes : float
        Main memory for boxes that are being copied.
    place : callable, optional
        From a box and K to the tensor in main memory that its values are written to; a new one if not given.

    Yields
    ------
    box, values
        In the order of `steps`; values in main memory.
    """
    waiting: deque[tuple[Box, Download]] = deque()
    size = 0

    def oldest() -> tuple[Box, torch.Tensor]:
        box, download = waiting.popleft()
        values_KZYX = download.wait()
        return box, values_KZYX if place is None else place(box, len(values_KZYX)).copy_(values_KZYX)

    for step in steps:
        if step is not None:
            waiting.append((step[0], transfers.download(step[1])))
            size += waiting[-1][1].host.nbytes
        count = 0
        while waiting and (size > budget_bytes or (count < _BOXES_PER_STEP and waiting[0][1].ready())):
            box, values = oldest()
            size, count = size - values.nbytes, count + 1
            yield box, values
    while waiting:
        yield oldest()
