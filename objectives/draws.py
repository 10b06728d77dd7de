"""Noise for samples, one generator each."""

from collections.abc import Sequence

import torch


class Draws:
    """Normal noise for the samples of a batch, each from a generator of its own.

    Sample i's generator is seeded by the i-th number of the one given: samples do not depend on how many are made at
    once, and two batches drawn from one generator are the samples of one larger batch. Always drawn on the CPU, so
    that a seed names the same sample on every device.

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
        drawn = [torch.randn(self.shape, generator=generator) for generator in self.generators]
        return torch.stack(drawn).to(self.device)
