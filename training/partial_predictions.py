"""Masks of a file while they are computed, kept frame by frame: a killed prediction goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cytovox.io import Box, resume_omezarr
from cytovox.io.deletion import make_scratch, remove_in_scratch, remove_scratch, sweep
from cytovox.io.provenance import Fingerprint
from cytovox.segmentation.holes import closed_holes
from training.rundir import write_json

#: Most voxels along z, y, x of one file of the masks, as viewers like them; and fewest voxels of one, or a large
#: volume would become a million files.
CHUNK, FEWEST = (32, 256, 256), 2**18

_STATE, MASKS = "state.json", "masks"


class PartialPrediction:
    """A hidden folder beside the results: the masks as an OME-Zarr, and what is known of the frames that are done.

    Nothing in it bears a result's name. What was made from other things (weights, settings, an earlier version of the
    input) is thrown away, and so is a frame whose voxels are not those that were counted when it was computed.

    Parameters
    ----------
    folder : Path
        Where it lies; made where it is not there yet.
    provenance : Fingerprint
        Everything that the masks depend on.
    begin : callable
        Begins an empty OME-Zarr (T, K, Z, Y, X) in the folder given, its chunks as given.
    box : (z, y, x)
        Size of the boxes that will be written.
    """

    def __init__(
        self, folder: Path, provenance: Fingerprint, begin: Callable[[Path, tuple[int, ...]], zarr.Array], box: Any
    ) -> None:
        self.folder, self._provenance = folder, provenance.parts
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
                remove_in_scratch(self.masks / "0" / "c" / str(t), folder)  # half a frame, perhaps a torn chunk
            return
        remove_scratch(folder)
        make_scratch(folder)
        self.array = begin(self.masks, chunks_for(box))
        self._save()

    @property
    def masks(self) -> Path:
        """The OME-Zarr."""
        return self.folder / MASKS

    def voxels(self, t: int) -> list[int] | None:
        """Voxels of each mask of a frame that is done; None for one that is not."""
        return self._frames.get(t)

    def write(self, t: int, box: Box, masks_Kzyx: np.ndarray) -> None:
        """Put a box of a frame."""
        self.array[(t, slice(None), *box)] = masks_Kzyx

    def outside(self, t: int) -> str:
        """What of a frame that is done lies outside what the weights were trained on."""
        return self._outside.get(t, "")

    def fill_holes(self, t: int, k: int, most_voxels: float) -> int:
        """Fill the holes of one mask of a frame whose boxes were all put; return how many voxels were added."""
        added = z = 0
        for hole in closed_holes(lambda: self.slabs(t, k, 2**24), most_voxels):
            depth = self._step(2**24) if hole is None else len(hole)
            if hole is not None:
                added += int(np.count_nonzero(hole))
                self.array[t, k, z : z + depth] = np.asarray(self.array[t, k, z : z + depth]) | hole
            z += depth
        return added

    def frame_done(self, t: int, voxels: list[int], outside: str = "") -> None:
        """Note that every box of a frame was put, how many voxels they hold, and what lies outside the training's."""
        self._frames[t] = voxels
        self._outside[t] = outside
        self._save()

    def is_drawn(self, t: int, folder: Path) -> bool:
        """Whether the pictures of a frame lie in a folder."""
        return [t, str(folder)] in self._drawn

    def drawn(self, t: int, folder: Path) -> None:
        """Note that they do."""
        self._drawn.append([t, str(folder)])
        self._save()

    def close(self, rows: list[dict[str, Any]]) -> None:
        """Keep the rows of the table: from now on the masks may be moved to where they belong."""
        self._rows = rows
        self._save()

    def region(self, t: int, box: Box) -> np.ndarray:
        """Masks (K, z, y, x) of a region, uint8."""
        return np.asarray(self.array[(t, slice(None), *box)])

    def slabs(self, t: int, k: int, most: int = 2**27) -> Iterator[np.ndarray]:
        """One mask of a frame, (z, Y, X) after (z, Y, X): of a chunk's depth, or less where that is very large."""
        step = self._step(most)
        for z in range(0, self.array.shape[2], step):
            yield np.asarray(self.array[t, k, z : z + step])

    def _step(self, most: int) -> int:
        """Depth of a slab."""
        return max(1, min(self.array.chunks[2], most // (self.array.shape[3] * self.array.shape[4])))

    def _is_whole(self, t: int, voxels: list[int]) -> bool:
        """Whether a frame holds what was counted: after a power cut, files may be missing that were written."""
        try:
            found = [sum(np.count_nonzero(slab) for slab in self.slabs(t, k)) for k in range(self.array.shape[1])]
        except (OSError, ValueError, RuntimeError):
            return False
        return found == voxels

    def _save(self) -> None:
        frames = {str(t): voxels for t, voxels in self._frames.items()}
        outside = {str(t): text for t, text in self._outside.items()}
        state = {
            "made_from": self._provenance, "frames": frames, "outside": outside, "drawn": self._drawn,
            "rows": self._rows,
        }  # fmt: skip
        write_json(self.folder / _STATE, state)


def moved_rows(folder: Path, provenance: Fingerprint) -> list[dict[str, Any]] | None:
    """Rows of masks that were moved out already, when a process was killed before it could say so; else None."""
    state = read_state(folder)
    moved = provenance.agrees(state.get("made_from")) and not (folder / MASKS).exists()
    return state.get("rows") if moved else None


def read_state(folder: Path) -> dict[str, Any]:
    """What a folder says of itself: `provenance`, `frames` that are done, `drawn`, `rows`. Empty where it is silent."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def chunks_for(box: Any) -> tuple[int, ...]:
    """Chunks (t, c, z, y, x) that boxes of a regular grid fill: parts of a box, or whole boxes where those are small.

    Parameters
    ----------
    box : (z, y, x)
        Size of the boxes.
    """
    size = [_part(n, most) for n, most in zip(box, CHUNK, strict=True)]
    while int(np.prod(size)) < FEWEST:
        # a part of a box must not be doubled: it would no longer end where the box does
        room = [most / n if n % b == 0 else 0.0 for n, b, most in zip(size, box, CHUNK, strict=True)]
        axis = int(np.argmax(room))
        if room[axis] < 2:
            break
        size[axis] *= 2
    return 1, 1, *size


def _part(size: int, most: int) -> int:
    """The largest divisor up to `most`, where that is not tiny; else the size itself."""
    divisor = next(size // n for n in range(1, size + 1) if size % n == 0 and size // n <= most)
    return divisor if divisor >= most // 4 or size <= most else size
