"""Random noise of samples, with one generator per sample."""

from collections.abc import Sequence

import torch


class Draws:
    """Normal noise for the samples of a batch, each from a separate generator.

    The generator of sample i is seeded by the i-th number of the given generator. Samples therefore do not depend on
    how many are drawn at once, and two batches drawn from one generator equal one larger batch. The noise is drawn on
    the CPU, so that a seed gives the same sample on every device.

    For a GPU the noise is drawn into pinned memory and copied asynchronously. A sampler that never waits for the GPU
    therefore draws the noise of a step while the GPU still computes that step.

    Parameters
    ----------
    condition_BCYX : tensor
        Conditions, one per sample; the noise is copied to their device.
    shape_CZYX : sequence of int
        Shape of one sample's noise.
    generator : torch.Generator
        Generator of the samples' seeds.
    """

    def __init__(self, condition_BCYX: torch.Tensor, shape_CZYX: Sequence[int], generator: torch.Generator) -> None:
        self.device, self.shape = condition_BCYX.device, tuple(shape_CZYX)
        # one number at a time: the values of a longer tensor may depend on its length
        seeds = [torch.randint(2**62, (1,), generator=generator, device=generator.device) for _ in condition_BCYX]
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def __call__(self) -> torch.Tensor:
        """Return the next noise, float32 (B, C, Z, Y, X)."""
        drawn = torch.empty((len(self.generators), *self.shape), pin_memory=self.device.type == "cuda")
        for sample, generator in zip(drawn, self.generators, strict=True):
            torch.randn(self.shape, generator=generator, out=sample)
        return drawn.to(self.device, non_blocking=True)
