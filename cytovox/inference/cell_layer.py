"""Where the layer of cells lies along z, from the tomogram alone: the slab of `z: center` is centred on it.

Each slice is measured by the area that stands out of the quiet slices: where the in-plane gradient of the normalised
index exceeds what noise alone makes. Means over whole slices would not do: they are the one part of a tomogram's
spectrum that its optics does not measure (the axis of the missing cone), so a reconstruction smears them along z. The
in-plane gradient is measured, does not depend on the medium's index, and is the same for thick and thin cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from cytovox.inference.transfers import Transfers
from cytovox.inference.windows import Source, TensorSource
from cytovox.io.regions import Shape

#: Voxels of the largest block (y, x) that is averaged before the gradient is taken: noise falls, cells stay.
LARGEST_BLOCK = 4
#: A plane is cut into at least so many blocks a side, where it has as many voxels.
LEAST_BLOCKS = 64
#: Size z, y, x of what is looked at at once; y and x are whole blocks of any size.
PIECE: Shape = (32, 256, 256)
#: Share of the slices, those with the smallest gradients, that show what noise alone makes.
QUIET = 0.1
#: Quantile of the gradients of these slices, and how far above it a block must lie. Of white noise, whose gradients are
#: Rayleigh distributed, 1.5 times this quantile is exceeded by one block in five million.
QUIET_QUANTILE, ABOVE_QUIET = 0.999, 1.5
#: The least that a block must stand out by, of the normalised range: a hundredth of a usual cell's contrast. It decides
#: where the medium lies below that range, so that clipping leaves no noise.
LEAST_GRADIENT = 0.005
#: Blocks of the whole volume that must stand out, as a share and as a number, or there is no layer.
LEAST_SHARE, LEAST_NUMBER = 2e-5, 8
#: A start counts as good as the best if its slab loses no more than this share of what the best slab holds.
TOLERANCE = 0.005
#: Share of what stands out that a slab should hold; where it is less, a note says so.
LEAST_HELD = 0.9
#: Edges of the bins of gradients, per block: finer than any of the thresholds above.
_EDGES = np.geomspace(1e-5, 2.0, 512)


@dataclass(frozen=True)
class Layer:
    """A slab that is centred on the cells."""

    start: int
    """First slice of the slab."""
    stop: int
    """One past its last slice."""
    found: bool
    """False where nothing stands out of the noise: the slab lies in the middle of the volume."""
    share: float
    """Part of what stands out in the whole volume that the slab holds, 0 to 1; 1 where nothing was found."""

    @property
    def notes(self) -> list[str]:
        """What the user should know of it; nothing in the usual case."""
        if not self.found:
            return ["z: center: no layer of cells stands out of the noise; the slab lies in the middle of the volume"]
        if self.share < LEAST_HELD:
            return [
                f"z: center: the slab holds {100 * self.share:.0f} % of what stands out of the noise; the rest lies "
                "above or below it and is left empty (z: tile, and for cells z: fit, take the whole depth)"
            ]
        return []


def middle_slab(size: int, depth: int) -> tuple[int, int]:
    """Start and stop of the slab of `depth` slices in the middle of `size` slices; all of them where they are fewer."""
    if size <= depth:
        return 0, size
    start = (size - depth) // 2
    return start, start + depth


def find_layer(source: Source, depth: int) -> Layer:
    """Find the slab that is centred on the layer of cells.

    Of all slabs of that depth the one that holds most of the area that stands out (`layer_profile`); where several
    hold as much, because the layer is thinner than the slab, the one whose middle is nearest to the layer's centre of
    mass. Of several layers, the slab holds as much as fits.

    Parameters
    ----------
    source : Source
        The normalised volume, 0 to 1.
    depth : int
        Slices of the slab.

    Returns
    -------
    Layer
        The middle of the volume where nothing stands out.
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
    places = np.arange(best, best + depth)
    inside = profile_Z[best : best + depth]
    centre = float((inside * (places + 0.5)).sum() / inside.sum())
    # a thousandth: of two starts at one distance the lower, whatever the last bits of the centre
    start = int(good[np.argmin(np.round(np.abs(good + depth / 2 - centre), 3))])
    return Layer(start, start + depth, True, float(held[start] / total))


def find_slab(rule: str, depth: int, image_ZYX: np.ndarray) -> Layer:
    """Slab of a field in memory by a rule: `center` (`find_layer`), `middle`, or the whole depth for any other word.

    Parameters
    ----------
    rule : str
        A word such as a config has it.
    depth : int
        Slices of the slab.
    image_ZYX : float array, (Z, Y, X)
        Normalised index; without one, the probability of cells.
    """
    size = image_ZYX.shape[0]
    if rule == "center":
        return find_layer(TensorSource(torch.from_numpy(np.ascontiguousarray(image_ZYX, np.float32))[None]), depth)
    start, stop = middle_slab(size, depth) if rule == "middle" else (0, size)
    return Layer(start, stop, True, 1.0)


def layer_profile(source: Source) -> np.ndarray:
    """Area of each slice that stands out of the noise.

    Parameters
    ----------
    source : Source
        The normalised volume, 0 to 1; it is read once, piece by piece.

    Returns
    -------
    float64 array, (Z,)
        Share of the slice's blocks whose in-plane gradient is above the threshold, less the smallest share of any
        slice; all 0 where too few blocks stand out.
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
    """Numbers of blocks of each slice by their gradient: int64 (Z, bins); bin k ends at edge k, the last is open."""
    bins, transfers = len(_EDGES) + 1, Transfers(source.device)
    edges = transfers.upload(torch.from_numpy(_EDGES.astype(np.float32)))
    counts_ZH = torch.zeros((source.shape[0], bins), dtype=torch.int64, device=source.device)
    for first, gradient_ZN in _gradients(source):
        found_ZN = torch.bucketize(gradient_ZN, edges)
        counts_ZH[first : first + len(found_ZN)].scatter_add_(1, found_ZN, torch.ones_like(found_ZN))
    return transfers.download(counts_ZH).wait().numpy()  # the one time that the host waits


def _gradients(source: Source) -> Iterator[tuple[int, torch.Tensor]]:
    """In-plane gradients between neighbouring blocks, piece by piece: first slice, float32 (z, blocks)."""
    shape = source.shape
    block = [min(LARGEST_BLOCK, max(1, n // LEAST_BLOCKS)) for n in shape[1:]]
    # whole blocks a piece: what a piece shows does not depend on how the source is stored
    step = (PIECE[0], PIECE[1] // block[0] * block[0], PIECE[2] // block[1] * block[1])
    for z in range(0, shape[0], step[0]):
        for y in range(0, shape[1], step[1]):
            for x in range(0, shape[2], step[2]):
                box = [slice(a, min(a + n, m)) for a, n, m in zip((z, y, x), step, shape, strict=True)]
                values_CZYX = source.read((box[0], box[1], box[2])).float()
                kernel = [min(n, m) for n, m in zip(block, values_CZYX.shape[2:], strict=True)]
                values_CZYX = avg_pool2d(values_CZYX, kernel)
                # beside a border of the piece the other difference is 0: a line of blocks in 64
                dy = torch.diff(values_CZYX, dim=2, append=values_CZYX[:, :, -1:])
                dx = torch.diff(values_CZYX, dim=3, append=values_CZYX[:, :, :, -1:])
                yield z, torch.hypot(dy, dx).amax(dim=0).flatten(1)
