"""Prediction on a device with too little memory: smaller batches of windows, then sums in main memory."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from cytovox.errors import DeviceError
from cytovox.io.regions import Box


@dataclass
class DeviceLimits:
    """Limits of a device's memory, lowered when it runs out and kept for the next volumes."""

    batch: int
    """Largest batch of windows."""
    sums_on_host: bool = False
    """Whether windows are summed up in main memory."""

    def halve_batch(self, tried: int, things: str = "windows") -> bool:
        """Halve a batch of `tried` things that did not fit; return False if it was a single one."""
        if tried < 2:
            return False
        self.batch = min(self.batch, tried // 2)
        note(f"a batch of {tried} {things} does not fit into the device's memory: batches of {self.batch} from now on")
        return True

    def lower(self, error: torch.OutOfMemoryError, sums_on_device: bool) -> None:
        """Use less of the device's memory: batches of one window, then sums in main memory.

        Raises
        ------
        DeviceError
            Both are in use already.
        """
        if self.batch > 1:
            self.halve_batch(self.batch)
        elif sums_on_device and not self.sums_on_host:
            self.sums_on_host = True
            note("one window and the sums do not fit into the device's memory: windows are summed up on the host")
        else:
            raise DeviceError(
                "out of memory on the device with one window at a time and sums in main memory: choose a smaller "
                "window, precision 16-mixed or bf16-mixed, or the CPU, or end other programs that use the device"
            ) from error


def with_less_memory(
    limits: DeviceLimits,
    device: torch.device,
    sums_on_device: bool,
    attempt: Callable[[], Iterator[tuple[Box, torch.Tensor]]],
) -> Iterator[tuple[Box, torch.Tensor]]:
    """Predict a volume; if the device runs out of memory, start again with lower limits.

    Parameters
    ----------
    limits : DeviceLimits
        Lowered before each new attempt.
    device : torch.device
        Device of the network.
    sums_on_device : bool
        Whether the first attempt sums windows up on it.
    attempt : callable
        Returns the boxes of the whole volume, predicted within the current limits.

    Yields
    ------
    box, values
        Each box once, also if a later attempt computes it again.

    Raises
    ------
    DeviceError
        The device has too little memory for one window.
    """
    yielded: set[tuple[int, ...]] = set()
    while True:
        try:
            for box, values in attempt():
                corner = tuple(side.start for side in box)
                if corner not in yielded:
                    yield box, values
                    yielded.add(corner)
            return
        except torch.OutOfMemoryError as error:
            limits.lower(error, sums_on_device)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # after the except clause, when the tensors of the attempt are freed


def note(text: str) -> None:
    """Print a note to stderr."""
    print(f"note: {text}", file=sys.stderr)
