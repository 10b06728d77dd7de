"""Outputs of one or several networks for windows and their mirror images."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import torch
from torch import nn

from cytovox.errors import InputError
from cytovox.inference.bricks import BatchOutput
from cytovox.inference.compiled import Compile, runner
from cytovox.inference.device import autocast


def probability_predictor(
    network: Callable[[torch.Tensor], torch.Tensor], precision: str = "32-true"
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a predictor of probabilities from a network of logits.

    The sigmoid is taken window by window, in float32, so that stitching averages probabilities.

    Parameters
    ----------
    network : callable
        (B, C, Z, Y, X) to logits (B, K, Z, Y, X).
    precision : str
        `32-true`, `bf16-mixed` or `16-mixed`, as Lightning names them.

    Returns
    -------
    callable
        (B, C, Z, Y, X) to float32 probabilities (B, K, Z, Y, X).

    Raises
    ------
    InputError
        Another precision.
    """
    autocast("cpu", precision)

    def predict(windows_BCZYX: torch.Tensor) -> torch.Tensor:
        with autocast(windows_BCZYX.device.type, precision):
            logits_BKZYX = network(windows_BCZYX)
        return logits_BKZYX.float().sigmoid()

    return predict


class Ensemble:
    """Networks of one task, applied to windows and their mirror images; the probabilities are averaged.

    Parameters
    ----------
    networks : sequence of Module
        Logits (B, K, Z, Y, X) from windows (B, C, Z, Y, X).
    flips : sequence of str
        Axes out of z, y, x. Every combination of them is mirrored: n axes are 2 ** n predictions per network.
    precision : str
        `32-true`, `bf16-mixed` or `16-mixed`.
    channels_last : bool
        Convert windows to channels_last_3d; a network with such weights then computes in that memory format.
    compile : str
        `none`, `default` or `cuda_graphs`: see `cytovox.inference.compiled`. An output of `cuda_graphs` is only valid
        until the next one.
    device : str
        Device of the networks.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        flips: Sequence[str] = (),
        precision: str = "32-true",
        channels_last: bool = False,
        compile: Compile = "none",
        device: str = "cpu",
    ) -> None:
        if not networks:
            raise InputError("ensemble: no network: expected at least one")
        if len(set(flips)) != len(flips) or not set(flips) <= set("zyx"):
            raise InputError(f"flips {list(flips)}: expected different axes out of z, y, x")
        autocast("cpu", precision)
        axes = sorted("zyx".index(axis) for axis in flips)
        self.networks, self.channels_last = tuple(networks), channels_last
        self._runners = [runner(network, compile, device, precision) for network in networks]
        self.mirrored = [chosen for n in range(len(axes) + 1) for chosen in combinations(axes, n)]

    def __call__(self, windows_BCZYX: torch.Tensor) -> Iterator[BatchOutput]:
        """Yield one output after the other, so that only one is in memory."""
        for axes in self.mirrored:
            seen_BCZYX = self._formatted(windows_BCZYX.flip([2 + axis for axis in axes]) if axes else windows_BCZYX)
            for run in self._runners:
                yield BatchOutput(run(seen_BCZYX), logits=True, flips=axes)

    def _formatted(self, windows_BCZYX: torch.Tensor) -> torch.Tensor:
        if not self.channels_last:
            return windows_BCZYX.contiguous()
        if windows_BCZYX.shape[1] > 1:
            return windows_BCZYX.contiguous(memory_format=torch.channels_last_3d)
        # with one channel both formats have the same bytes; torch distinguishes them by the strides
        b, c, z, y, x = windows_BCZYX.shape
        return windows_BCZYX.contiguous().as_strided((b, c, z, y, x), (z * y * x, 1, y * x, x, 1))
