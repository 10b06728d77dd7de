"""Partial predictions of a file, stored by frame: an interrupted prediction resumes at the first missing frame."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cytovox.io import Box, resume_omezarr
from cytovox.io.deletion import make_scratch, remove_in_scratch, remove_scratch, sweep
from cytovox.io.provenance import Fingerprint
from cytovox.segmentation.holes import closed_holes
from training.rundir import read_json, write_json

#: Largest chunk (z, y, x) of the masks, as viewers prefer it; and fewest voxels of a chunk, since a large volume would
#: become a million files otherwise.
CHUNK, FEWEST = (32, 256, 256), 2**18

_STATE, MASKS = "state.json", "masks"


class PartialPrediction:
    """A hidden folder next to the results: the masks as an OME-Zarr, and `state.json` about the finished frames.

    Existing content is discarded if its provenance differs (other weights, settings or input). A frame is discarded if
    its number of voxels is not the recorded one.

    Parameters
    ----------
    folder : Path
        The hidden folder; created if it does not exist.
    provenance : Fingerprint
        Everything that the masks depend on.
    begin : callable
        Creates an empty OME-Zarr (T, K, Z, Y, X) in a folder, with the given chunks.
    box : (z, y, x)
        Size of the boxes that will be written.
    """

    def __init__(
        self, folder: Path, provenance: Fingerprint, begin: Callable[[Path, tuple[int, ...]], zarr.Array], box: Any
    ) -> None:
        self.folder, self._provenance = folder, provenance.parts
        self.masks = folder / MASKS
        """Path of the OME-Zarr."""
        self._frames: dict[int, list[int]] = {}
        self._outside: dict[int, str] = {}
        self._drawn: list[list[Any]] = []
        self._rows: list[dict[str, Any]] | None = None
        state = read_state(folder)
        if provenance.agrees(state.get("made_from")) and self.masks.is_dir():
            sweep(folder)
            self.array = resume_omezarr(self.masks)
            self._frames = {int(t): voxels for t, voxels in state["frames"].items() if self._is_whole(int(t), voxels)}
            self._outside = {int(t): text for t, text in state.get("outside", {}).items() if int(t) in self._frames}
            self._drawn = [entry for entry in state["drawn"] if entry[0] in self._frames]
            for t in set(range(self.array.shape[0])) - set(self._frames):
                remove_in_scratch(self.masks / "0" / "c" / str(t), folder)  # an incomplete frame
            return
        remove_scratch(folder)
        make_scratch(folder)
        self.array = begin(self.masks, chunks_for(box))
        self._save()

    def voxels(self, t: int) -> list[int] | None:
        """Return the number of voxels of each mask of a finished frame; None for an unfinished one."""
        return self._frames.get(t)

    def write(self, t: int, box: Box, masks_Kzyx: np.ndarray) -> None:
        """Write the masks of a box of a frame."""
        self.array[(t, slice(None), *box)] = masks_Kzyx

    def outside(self, t: int) -> str:
        """Return which properties of a finished frame lie outside the training data of the weights."""
        return self._outside.get(t, "")

    def fill_holes(self, t: int, k: int, most_voxels: float) -> int:
        """Fill the holes of one mask of a frame of which all boxes are written; return the number of added voxels."""
        added = z = 0
        for hole in closed_holes(lambda: self.slabs(t, k, 2**24), most_voxels):
            depth = self._step(2**24) if hole is None else len(hole)
            if hole is not None:
                added += int(np.count_nonzero(hole))
                self.array[t, k, z : z + depth] = np.asarray(self.array[t, k, z : z + depth]) | hole
            z += depth
        return added

    def frame_done(self, t: int, voxels: list[int], outside: str = "") -> None:
        """Record that a frame is finished, its voxels per mask, and what lies outside the training data."""
        self._frames[t], self._outside[t] = voxels, outside
        self._save()

    def is_drawn(self, t: int, folder: Path) -> bool:
        """Return whether the figures of a frame were drawn in a folder."""
        return [t, str(folder)] in self._drawn

    def drawn(self, t: int, folder: Path) -> None:
        """Record that the figures of a frame were drawn in a folder."""
        self._drawn.append([t, str(folder)])
        self._save()

    def close(self, rows: list[dict[str, Any]]) -> None:
        """Record the rows of the table; after this, the masks may be moved to their final place."""
        self._rows = rows
        self._save()

    def region(self, t: int, box: Box) -> np.ndarray:
        """Return the masks (K, z, y, x) of a region, uint8."""
        return np.asarray(self.array[(t, slice(None), *box)])

    def slabs(self, t: int, k: int, most: int = 2**27) -> Iterator[np.ndarray]:
        """Yield one mask of a frame as slabs (z, Y, X), of the depth of a chunk and of about `most` voxels at most."""
        step = self._step(most)
        for z in range(0, self.array.shape[2], step):
            yield np.asarray(self.array[t, k, z : z + step])

    def _step(self, most: int) -> int:
        """Return the depth of a slab."""
        return max(1, min(self.array.chunks[2], most // (self.array.shape[3] * self.array.shape[4])))

    def _is_whole(self, t: int, voxels: list[int]) -> bool:
        """Return whether a frame has the recorded numbers of voxels: after a power cut, chunks may be missing."""
        try:
            found = [sum(np.count_nonzero(slab) for slab in self.slabs(t, k)) for k in range(self.array.shape[1])]
        except (OSError, ValueError, RuntimeError):
            return False
        return found == voxels

    def _save(self) -> None:
        write_json(
            self.folder / _STATE,
            {
                "made_from": self._provenance,
                "frames": {str(t): voxels for t, voxels in self._frames.items()},
                "outside": {str(t): text for t, text in self._outside.items()},
                "drawn": self._drawn,
                "rows": self._rows,
            },
        )


def moved_rows(folder: Path, provenance: Fingerprint) -> list[dict[str, Any]] | None:
    """Return the rows of masks that a killed process had moved to their final place but not yet recorded; else None."""
    state = read_state(folder)
    moved = provenance.agrees(state.get("made_from")) and not (folder / MASKS).exists()
    return state.get("rows") if moved else None


def read_state(folder: Path) -> dict[str, Any]:
    """Return `made_from`, finished `frames`, `drawn` and `rows` of an unfinished prediction; empty without a state."""
    return read_json(folder / _STATE)


def chunks_for(box: Any) -> tuple[int, ...]:
    """Return chunks (t, c, z, y, x) of which each belongs to one box, or holds whole boxes if these are small.

    Parameters
    ----------
    box : (z, y, x)
        Size of the boxes of a regular grid.
    """
    size = [_part(n, most) for n, most in zip(box, CHUNK, strict=True)]
    while int(np.prod(size)) < FEWEST:
        # only whole boxes are doubled: twice a part of a box would not end at the border of a box
        room = [most / n if n % b == 0 else 0.0 for n, b, most in zip(size, box, CHUNK, strict=True)]
        axis = int(np.argmax(room))
        if room[axis] < 2:
            break
        size[axis] *= 2
    return 1, 1, *size


def _part(size: int, most: int) -> int:
    """Return the largest divisor of `size` up to `most`; `size` itself if that is smaller than a quarter of `most`."""
    divisor = next(size // n for n in range(1, size + 1) if size % n == 0 and size // n <= most)
    return divisor if divisor >= most // 4 or size <= most else size
