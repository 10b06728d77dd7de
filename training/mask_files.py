"""Files of masks and probabilities: their names, their room on the disk, and how they come out of a hidden folder."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cytovox.errors import InputError
from cytovox.io import (
    Box,
    Volume,
    begin_omezarr,
    put_in_place,
    read_volume,
    write_error,
    write_nifti,
    write_ometiff,
    write_ometiff_planes,
)
from cytovox.io.deletion import remove_in_scratch
from cytovox.io.names import safe_name
from cytovox.io.nifti import require_nifti_size
from training.partial_predictions import PartialPrediction, chunks_for

Format = Literal["ome-tiff", "ome-zarr", "nifti"]
SUFFIX = {"ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr", "nifti": ".nii.gz"}

#: Probabilities of a frame are an OME-TIFF up to this many bytes, gathered in memory; larger ones are an OME-Zarr.
IN_MEMORY = 2**30

#: How many times smaller files become at most: a disk with less room than that is full before the end.
_MASKS_SHRINK, _PROBABILITIES_SHRINK = 1000, 50


def mask_file(name: str, file_format: Format, t: int, organelle: str) -> str:
    """Name of the file that holds a mask: NIfTI, as ITK-SNAP reads it, has one per frame and organelle."""
    part = f"_t{t:03d}_{safe_name(organelle)}" if file_format == "nifti" else ""
    return name + part + SUFFIX[file_format]


def read_masks(files: Sequence[Path], t: int, split: bool) -> Callable[[Box], np.ndarray]:
    """Regions (K, z, y, x), uint8, of a frame's masks as they were written.

    Parameters
    ----------
    files : sequence of Path
        For each organelle its file.
    t : int
        The frame.
    split : bool
        Whether each file holds one mask of one frame; all of them are channels of one file otherwise.
    """
    readers = [read_volume(file).reader(0 if split else t, 0 if split else k) for k, file in enumerate(files)]
    return lambda box: np.stack([reader.read(box) for reader in readers]).astype(np.uint8)


def require_room_for(path: Path, volume: Volume, masks: int, frames: int, probabilities: bool) -> None:
    """Refuse what cannot end well before it is computed: a disk without room, and axes that a format cannot count.

    Parameters
    ----------
    path : Path
        The file to be written, in a folder that exists.
    masks, frames : int
        Masks of a frame, and frames that are still to be computed.

    Raises
    ------
    InputError
        Less room than the masks need however well they are compressed.
    """
    if path.name.endswith(SUFFIX["nifti"]):
        require_nifti_size(path, volume.shape[2:])
    voxels = math.prod(volume.shape[2:]) * masks * frames
    needed = voxels // _MASKS_SHRINK + (4 * voxels // _PROBABILITIES_SHRINK if probabilities else 0)
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise InputError(
            f"{path}: needs at least {needed / 1e6:.0f} MB, and the disk that holds it has {free / 1e6:.0f} MB left: "
            "free some space, or write elsewhere (predict.out)"
        )


@contextmanager
def told_of_output(path: Path, part: Path | None = None) -> Iterator[None]:
    """Errors of the disk in one line that names the file to be, not the hidden one that is written first."""
    try:
        yield
    except OSError as error:
        reason = write_error(error, path, part)
        if reason is None:
            raise
        raise reason from error
    except InputError as error:
        if part is None:
            raise
        raise InputError(str(error).replace(str(part), str(path))) from error


def begin_masks(volume: Volume, organelles: Sequence[str], name: str) -> Callable[[Path, tuple[int, ...]], Any]:
    """What begins the OME-Zarr of `PartialPrediction`."""
    shape = (volume.shape[0], len(organelles), *volume.shape[2:])

    def begin(folder: Path, chunks: tuple[int, ...]) -> Any:
        return begin_omezarr(
            folder, shape, np.uint8, volume.spacing_um, organelles, volume.times_s, volume.origin_um, chunks=chunks,
            name=Path(name),
        )  # fmt: skip

    return begin


def write_out(
    store: PartialPrediction, folder: Path, name: str, file_format: Format, volume: Volume, organelles: Any
) -> None:
    """Give finished masks, and probabilities beside them, their files in a folder.

    Raises
    ------
    InputError
        No space left, or a file may not be written.
    """
    for part in sorted(store.folder.glob("*_probabilities.*")):
        with told_of_output(folder / part.name, part):
            put_in_place(part, folder / part.name)
    if file_format == "nifti":
        for t in range(volume.shape[0]):
            for k, organelle in enumerate(organelles):
                _write_nifti(store, t, k, folder / mask_file(name, "nifti", t, organelle), volume)
        return
    final = folder / (name + SUFFIX[file_format])
    part = store.masks if file_format == "ome-zarr" else store.folder / final.name
    with told_of_output(final, part):
        if file_format == "ome-tiff":
            planes = (
                plane for t in range(volume.shape[0]) for k in range(len(organelles)) for slab in store.slabs(t, k)
                for plane in slab
            )  # fmt: skip
            write_ometiff_planes(
                part, planes, store.array.shape, np.uint8, volume.spacing_um, organelles, volume.times_s,
                volume.origin_um,
            )  # fmt: skip
        put_in_place(part, final)


def _write_nifti(store: PartialPrediction, t: int, k: int, final: Path, volume: Volume) -> None:
    part = store.folder / final.name
    with told_of_output(final, part):
        write_nifti(
            part, store.slabs(t, k), volume.spacing_um, volume.origin_um, shape=volume.shape[2:], dtype=np.uint8
        )
        os.replace(part, final)


class ProbabilityFile:
    """Probabilities of one frame, as they come box by box: an OME-TIFF, or an OME-Zarr where they are large.

    Parameters
    ----------
    folder : Path
        Where the file is made.
    stem : str
        Its name without the suffix.
    box : (z, y, x)
        Size of the boxes.
    """

    def __init__(self, folder: Path, stem: str, volume: Volume, organelles: Sequence[str], box: Any) -> None:
        self._volume, self._organelles = volume, organelles
        shape = (len(organelles), *volume.shape[2:])
        self._zarr: Any = None
        if 4 * math.prod(shape) <= IN_MEMORY:
            self.path = folder / f"{stem}.ome.tif"
            self._array = np.empty(shape, np.float32)
            return
        self.path = folder / f"{stem}.ome.zarr"
        remove_in_scratch(self.path, folder)
        self._zarr = begin_omezarr(
            self.path, (1, *shape), np.float32, volume.spacing_um, organelles, origin_um=volume.origin_um,
            chunks=chunks_for(box),
        )  # fmt: skip

    def write(self, box: Box, values_Kzyx: np.ndarray) -> None:
        """Put a box."""
        if self._zarr is None:
            self._array[(slice(None), *box)] = values_Kzyx
        else:
            self._zarr[(0, slice(None), *box)] = values_Kzyx

    def close(self) -> None:
        """Write what was gathered."""
        if self._zarr is None:
            volume = self._volume
            write_ometiff(self.path, self._array[None], volume.spacing_um, self._organelles, origin_um=volume.origin_um)
