"""Noise for samples, one generator each."""

from collections.abc import Sequence

import torch


class Draws:
    """Normal noise for the samples of a batch, each from a generator of its own.

    Sample i's generator is seeded by the i-th number of the one given: samples do not depend on how many are made at
    once, and two batches drawn from one generator are the samples of one larger batch. Always drawn on the CPU, so
    that a seed names the same sample on every device.

    On a GPU the noise is drawn into pinned memory and copied asynchronously. A sampler that reads nothing back from
    the device therefore draws the noise of a step while the device still computes that step.

    Parameters
    ----------
    condition_BCYX : tensor
        One row a sample; the noise goes to its device.
    shape_CZYX : sequence of int
        Of one sample's noise.
    generator : torch.Generator
        Seeds the samples.
    """

    def __init__(self, condition_BCYX: torch.Tensor, shape_CZYX: Sequence[int], generator: torch.Generator) -> None:
        self.device, self.shape = condition_BCYX.device, tuple(shape_CZYX)
        # one at a time: what a generator fills a longer tensor with may depend on its length
        seeds = [torch.randint(2**62, (1,), generator=generator, device=generator.device) for _ in condition_BCYX]
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def __call__(self) -> torch.Tensor:
        """The next noise, float32 (B, C, Z, Y, X)."""
        drawn = torch.empty((len(self.generators), *self.shape), pin_memory=self.device.type == "cuda")
        for sample, generator in zip(drawn, self.generators, strict=True):
            torch.randn(self.shape, generator=generator, out=sample)
        return drawn.to(self.device, non_blocking=True)
