"""Position of the layer of cells along z, from the tomogram alone: the slab of `z: center` is centred on it.

Each slice is measured by the area whose in-plane gradient of the normalised index exceeds that of noise. Means over
whole slices would not do: they are the one part of a tomogram's spectrum that its optics does not measure (the axis of
the missing cone), so a reconstruction smears them along z. The in-plane gradient is measured, does not depend on the
medium's index, and is the same for thick and thin cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from cytovox.inference.transfers import Transfers
from cytovox.inference.windows import Source, TensorSource
from cytovox.io.regions import Shape, grid_boxes

#: Largest edge in voxels of the blocks (y, x) that are averaged before the gradient is computed, to reduce noise.
LARGEST_BLOCK = 4
#: Least number of blocks along each side of a plane, if it has as many voxels.
LEAST_BLOCKS = 64
#: Size z, y, x of the pieces that are read; y and x are multiples of every block size.
PIECE: Shape = (32, 256, 256)
#: Share of the slices, those with the smallest gradients, that the noise is estimated from.
QUIET = 0.1
#: Quantile of the gradients of these slices, and the factor by which a block must exceed it. White noise has Rayleigh
#: distributed gradients: one block in five million exceeds 1.5 times this quantile.
QUIET_QUANTILE, ABOVE_QUIET = 0.999, 1.5
#: Least gradient of a block that counts, of the normalised range: a hundredth of a usual cell's contrast. It applies if
#: the medium lies below that range, so that clipping leaves no noise.
LEAST_GRADIENT = 0.005
#: Least share and number of blocks of the whole volume that must count, or there is no layer.
LEAST_SHARE, LEAST_NUMBER = 2e-5, 8
#: A slab is as good as the best one if it holds at most this share less.
TOLERANCE = 0.005
#: Share of the counted blocks that a slab should hold; if it holds less, the user gets a note.
LEAST_HELD = 0.9
#: Edges of the bins of gradients: finer than any of the thresholds above.
_EDGES = np.geomspace(1e-5, 2.0, 512)


@dataclass(frozen=True)
class Layer:
    """A slab that is centred on the cells."""

    start: int
    """First slice of the slab."""
    stop: int
    """One past its last slice."""
    found: bool
    """False if nothing stands out of the noise: the slab lies in the middle of the volume."""
    share: float
    """Share of the profile of the whole volume that the slab holds, 0 to 1; 1 if nothing was found."""

    @property
    def notes(self) -> list[str]:
        """Notes for the user; empty in the usual case."""
        if not self.found:
            return ["z: center: no layer of cells stands out of the noise; the slab lies in the middle of the volume"]
        if self.share < LEAST_HELD:
            return [
                f"z: center: the slab holds {100 * self.share:.0f} % of what stands out of the noise; the rest lies "
                "above or below it and is left empty (z: tile, and for cells z: fit, take the whole depth)"
            ]
        return []


def middle_slab(size: int, depth: int) -> tuple[int, int]:
    """Return start and stop of `depth` slices in the middle of `size` slices; of all of them if they are fewer."""
    start = max(0, (size - depth) // 2)
    return start, min(size, start + depth)


def find_layer(source: Source, depth: int) -> Layer:
    """Return the slab that is centred on the layer of cells.

    It is the slab of that depth that holds most of the `layer_profile`. If several hold as much, because the layer is
    thinner than the slab, it is the one whose middle is nearest to the layer's centre of mass. Of several layers, the
    slab holds as much as fits.

    Parameters
    ----------
    source : Source
        The normalised volume, 0 to 1.
    depth : int
        Slices of the slab.

    Returns
    -------
    Layer
        The middle of the volume if nothing stands out of the noise.
    """
    size = source.shape[0]
    if size <= depth:
        return Layer(0, size, True, 1.0)
    profile_Z = layer_profile(source)
    total = float(profile_Z.sum())
    if total <= 0:
        start, stop = middle_slab(size, depth)
        return Layer(start, stop, False, 1.0)
    held = np.concatenate([[0.0], np.cumsum(profile_Z)])
    held = held[depth:] - held[:-depth]
    good = np.flatnonzero(held >= (1 - TOLERANCE) * held.max())
    best = int(good[np.argmax(held[good])])
    centre = float(np.average(np.arange(best, best + depth) + 0.5, weights=profile_Z[best : best + depth]))
    # rounded: of two starts at the same distance the lower one is taken, also if the last bits of the centre differ
    start = int(good[np.argmin(np.round(np.abs(good + depth / 2 - centre), 3))])
    return Layer(start, start + depth, True, float(held[start] / total))


def find_slab(rule: str, depth: int, image_ZYX: np.ndarray) -> Layer:
    """Return the slab of a field in memory: of `find_layer` for `center`, in the middle for `middle`, else all of it.

    Parameters
    ----------
    rule : str
        `center`, `middle` or any other word of a config.
    depth : int
        Slices of the slab.
    image_ZYX : float array, (Z, Y, X)
        Normalised index, or else the probability of cells.
    """
    if rule == "center":
        return find_layer(TensorSource(torch.from_numpy(np.ascontiguousarray(image_ZYX, np.float32))[None]), depth)
    start, stop = middle_slab(len(image_ZYX), depth) if rule == "middle" else (0, len(image_ZYX))
    return Layer(start, stop, True, 1.0)


def layer_profile(source: Source) -> np.ndarray:
    """Return the area of each slice that stands out of the noise.

    Parameters
    ----------
    source : Source
        The normalised volume, 0 to 1; it is read once, piece by piece.

    Returns
    -------
    float64 array, (Z,)
        Share of the slice's blocks whose in-plane gradient is above the threshold, less the smallest share of any
        slice; all 0 if too few blocks are above it.
    """
    counts_ZH = _histograms(source)
    blocks = counts_ZH.sum(axis=1)
    above_ZH = blocks[:, None] - np.cumsum(counts_ZH, axis=1)  # blocks beyond the upper edge of each bin
    means = (counts_ZH * np.arange(counts_ZH.shape[1])).sum(axis=1) / np.maximum(blocks, 1)
    quiet = np.argsort(means, kind="stable")[: max(1, round(QUIET * len(means)))]
    beyond = above_ZH[quiet].sum(axis=0) <= (1 - QUIET_QUANTILE) * blocks[quiet].sum()
    noise = _EDGES[min(int(np.argmax(beyond)), len(_EDGES) - 1)]
    threshold = min(int(np.searchsorted(_EDGES, max(ABOVE_QUIET * noise, LEAST_GRADIENT))), counts_ZH.shape[1] - 1)
    active = above_ZH[:, threshold].astype(np.float64)
    if active.sum() < max(LEAST_NUMBER, LEAST_SHARE * blocks.sum()):
        return np.zeros(len(active))
    share_Z = active / np.maximum(blocks, 1)
    return np.asarray(share_Z - share_Z.min())


def _histograms(source: Source) -> np.ndarray:
    """Return the histogram of gradients of each slice: int64 (Z, bins); bin k ends at edge k, the last is open."""
    bins, transfers = len(_EDGES) + 1, Transfers(source.device)
    edges = transfers.upload(torch.from_numpy(_EDGES.astype(np.float32)))
    counts_ZH = torch.zeros((source.shape[0], bins), dtype=torch.int64, device=source.device)
    for first, gradient_ZN in _gradients(source):
        found_ZN = torch.bucketize(gradient_ZN, edges)
        counts_ZH[first : first + len(found_ZN)].scatter_add_(1, found_ZN, torch.ones_like(found_ZN))
    return transfers.download(counts_ZH).wait().numpy()  # the host waits only here


def _gradients(source: Source) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the in-plane gradients between neighbouring blocks of each piece: first slice, float32 (z, blocks)."""
    block = [min(LARGEST_BLOCK, max(1, n // LEAST_BLOCKS)) for n in source.shape[1:]]
    # whole blocks: the gradients of a piece do not depend on how the source is stored
    piece = (PIECE[0], PIECE[1] // block[0] * block[0], PIECE[2] // block[1] * block[1])
    for z, y, x in grid_boxes(source.shape, piece):
        values_CZYX = source.read((z, y, x)).float()
        kernel = [min(n, m) for n, m in zip(block, values_CZYX.shape[2:], strict=True)]
        values_CZYX = avg_pool2d(values_CZYX, kernel)
        # at the end of a piece the difference is 0: in one line of blocks in 64
        dy = torch.diff(values_CZYX, dim=2, append=values_CZYX[:, :, -1:])
        dx = torch.diff(values_CZYX, dim=3, append=values_CZYX[:, :, :, -1:])
        yield z.start, torch.hypot(dy, dx).amax(dim=0).flatten(1)
