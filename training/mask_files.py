"""Files of masks and probabilities: names, required disk space, writing, and manifests of what they were made from."""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cytovox.errors import InputError
from cytovox.io import (
    Box,
    Volume,
    begin_omezarr,
    find_writer,
    put_in_place,
    read_volume,
    write_error,
    write_ometiff,
    writers,
)
from cytovox.io.deletion import remove_file, remove_in_scratch
from cytovox.io.formats import require_size
from cytovox.io.names import safe_name
from cytovox.io.provenance import digest_of
from training.partial_predictions import PartialPrediction, chunks_for
from training.rundir import read_json, write_json

#: Format in which `PartialPrediction` stores unfinished masks: finished ones are moved, not written again.
STORED_FORMAT = "ome-zarr"

#: Probabilities of a frame up to this many bytes are collected in memory and written as OME-TIFF, larger ones as
#: OME-Zarr.
IN_MEMORY = 2**30

#: Highest expected compression ratios; a prediction that would not fit even at these is refused.
_MASKS_SHRINK, _PROBABILITIES_SHRINK = 1000, 50


def mask_file(name: str, file_format: str, t: int, organelle: str) -> str:
    """Return the name of the file that holds a mask; NIfTI has one file per frame and organelle, as ITK-SNAP reads it.

    Parameters
    ----------
    name : str
        Base name of the output.
    file_format : str
        Format of the masks.
    t : int
        Frame.
    organelle : str
        Name of the mask.
    """
    writer = writers()[file_format]
    part = f"_t{t:03d}_{safe_name(organelle)}" if writer.single else ""
    return name + part + writer.suffixes[0]


def read_masks(files: Sequence[Path], t: int, split: bool) -> Callable[[Box], np.ndarray]:
    """Return a function that reads regions (K, z, y, x), uint8, of the written masks of a frame.

    Parameters
    ----------
    files : sequence of Path
        The file of each organelle.
    t : int
        Frame.
    split : bool
        Whether each file holds one mask of one frame; else all masks are channels of one file.
    """
    readers = [read_volume(file).reader(0 if split else t, 0 if split else k) for k, file in enumerate(files)]
    return lambda box: np.stack([reader.read(box) for reader in readers]).astype(np.uint8)


def require_room_for(path: Path, volume: Volume, masks: int, frames: int, probabilities: bool) -> None:
    """Refuse, before it is computed, a prediction that does not fit on the disk or into the file format.

    Parameters
    ----------
    path : Path
        The file to be written, in a folder that exists.
    volume : Volume
        The input.
    masks, frames : int
        Number of masks of a frame, and of frames that are still to be computed.
    probabilities : bool
        Whether probabilities are written, too.

    Raises
    ------
    InputError
        Less disk space than the masks need at the best compression, or an axis that is too long for the format (NIfTI).
    """
    if writer := find_writer(path):
        require_size(writer, path, volume.shape[2:])
    voxels = math.prod(volume.shape[2:]) * masks * frames
    needed = voxels // _MASKS_SHRINK + (4 * voxels // _PROBABILITIES_SHRINK if probabilities else 0)
    if (free := shutil.disk_usage(path.parent).free) < needed:
        raise InputError(
            f"{path}: needs at least {needed / 1e6:.0f} MB, and the disk that holds it has {free / 1e6:.0f} MB left: "
            "free some space, or write elsewhere (predict.out)"
        )


@contextmanager
def output_errors(path: Path, part: Path | None = None) -> Iterator[None]:
    """Raise errors in writing as `InputError` with the name of the final file.

    Parameters
    ----------
    path : Path
        The final file.
    part : Path, optional
        The temporary file that is written first; its name is replaced in the message.
    """
    try:
        yield
    except OSError as error:
        if (reason := write_error(error, path, part)) is None:
            raise
        raise reason from error
    except InputError as error:
        if part is None:
            raise
        raise InputError(str(error).replace(str(part), str(path))) from error


def begin_masks(volume: Volume, organelles: Sequence[str], name: str) -> Callable[[Path, tuple[int, ...]], Any]:
    """Return the function with which `PartialPrediction` creates its OME-Zarr in a folder, with the given chunks."""
    shape = (volume.shape[0], len(organelles), *volume.shape[2:])
    return lambda folder, chunks: begin_omezarr(
        folder, shape, np.uint8, volume.spacing_um, organelles, volume.times_s, volume.origin_um, chunks=chunks,
        name=Path(name),
    )  # fmt: skip


def write_out(
    store: PartialPrediction, folder: Path, name: str, file_format: str, volume: Volume, organelles: Sequence[str]
) -> None:
    """Write finished masks to their files in a folder, and move the probabilities there.

    Raises
    ------
    InputError
        No space left, or a file may not be written.
    """
    for part in sorted(store.folder.glob("*_probabilities.*")):
        with output_errors(folder / part.name, part):
            put_in_place(part, folder / part.name)
    if file_format == STORED_FORMAT:
        final = folder / mask_file(name, file_format, 0, "masks")
        with output_errors(final, store.masks):
            put_in_place(store.masks, final)
        return
    writer, frames, masks = writers()[file_format], range(volume.shape[0]), range(len(organelles))
    files = [([t], [k]) for t in frames for k in masks] if writer.single else [(frames, masks)]
    for ts, ks in files:
        final = folder / mask_file(name, file_format, ts[0], organelles[ks[0]])
        part = store.folder / final.name
        with output_errors(final, part):
            writer.write(
                part, (slab for t in ts for k in ks for slab in store.slabs(t, k)),
                (len(ts), len(ks), *volume.shape[2:]), np.uint8, volume.spacing_um, [organelles[k] for k in ks],
                None if writer.single else volume.times_s, volume.origin_um,
            )  # fmt: skip
            put_in_place(part, final)


class ProbabilityFile:
    """Writer for the probabilities of one frame, box by box: an OME-TIFF, or an OME-Zarr for large frames.

    Parameters
    ----------
    folder : Path
        Folder of the file.
    stem : str
        File name without the suffix.
    volume : Volume
        The input.
    organelles : sequence of str
        Names of the channels.
    box : (z, y, x)
        Size of the boxes.
    """

    def __init__(self, folder: Path, stem: str, volume: Volume, organelles: Sequence[str], box: Any) -> None:
        self._volume, self._organelles = volume, organelles
        shape = (1, len(organelles), *volume.shape[2:])
        self._in_memory = 4 * math.prod(shape) <= IN_MEMORY
        self.path = folder / f"{stem}{'.ome.tif' if self._in_memory else '.ome.zarr'}"
        if self._in_memory:
            self._array: Any = np.empty(shape, np.float32)
            return
        remove_in_scratch(self.path, folder)
        self._array = begin_omezarr(
            self.path, shape, np.float32, volume.spacing_um, organelles, origin_um=volume.origin_um,
            chunks=chunks_for(box),
        )  # fmt: skip

    def write(self, box: Box, values_Kzyx: np.ndarray) -> None:
        """Write the probabilities of a box."""
        self._array[(0, slice(None), *box)] = values_Kzyx

    def close(self) -> None:
        """Write the OME-TIFF; an OME-Zarr is complete already."""
        if self._in_memory:
            volume = self._volume
            write_ometiff(self.path, self._array, volume.spacing_um, self._organelles, origin_um=volume.origin_um)


class PredictionManifest:
    """The manifests in a folder of masks, one JSON file per input, and their copies in the run folder.

    Parameters
    ----------
    folder : Path
        Folder of the masks.
    copies : Path
        Folder `predictions/` of the run; the same folder unless `predict.out` is set.
    file_format : str
        Format of the masks.
    """

    def __init__(self, folder: Path, copies: Path, file_format: str) -> None:
        self.folder, self.copies, self.file_format = folder, copies, file_format

    def path(self, name: str) -> Path:
        """Return the path of a manifest, by the base name of the output."""
        return self.folder / f"{name}.json"

    def read(self, name: str) -> dict[str, Any]:
        """Return `rows`, `made_from` (parts of the fingerprint) and `input` of a finished file; else an empty dict."""
        return read_json(self.path(name))

    def write(self, name: str, source: Path, provenance: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Record that the masks of a file are finished."""
        write_json(self.path(name), {
            "input": str(source.absolute()), "key": digest_of(provenance), "made_from": provenance, "rows": rows,
        })  # fmt: skip

    def remove(self, name: str) -> None:
        """Remove a manifest before its masks are replaced."""
        remove_file(self.path(name), self.folder)

    def keep(self, name: str) -> None:
        """Copy the rows into the run folder, with absolute paths of the masks and without `made_from`."""
        if self.folder != self.copies:
            rows = [{**row, "output": str(self.folder / row["output"])} for row in self.read(name).get("rows", [])]
            write_json(self.copies / f"{name}.json", {"rows": rows})

    def require_free(self, name: str, source: Path, begun: bool) -> None:
        """Refuse to overwrite files in `predict.out` that are not the masks of this input.

        Parameters
        ----------
        name : str
            Base name of the output.
        source : Path
            The input.
        begun : bool
            Whether an unfinished prediction of this input exists there.

        Raises
        ------
        InputError
            The folder holds masks of another input that still exists, the input itself, or a file of unknown origin.
        """
        final, manifest = self.folder / (name + writers()[self.file_format].suffixes[0]), self.path(name)
        owner = self.read(name).get("input")
        if final.exists() and final.resolve() == source.resolve():
            raise InputError(f"predict.out: {final} is the input itself: choose another folder")
        if owner is not None and owner != str(source.absolute()) and Path(owner).exists():
            raise InputError(f"predict.out: {manifest} belongs to masks of {owner}: choose another folder")
        existing = next((path for path in (final, manifest) if path.exists()), None)
        if owner is None and not begun and existing is not None:
            raise InputError(f"predict.out: {existing} exists and is not a prediction: choose another folder")


def require_free(out: str | Path, names: dict[Path, str], file_format: str) -> None:
    """Call `PredictionManifest.require_free` for all inputs, before anything is computed.

    Parameters
    ----------
    out : str or Path
        Value of `predict.out`.
    names : dict
        Base name of each input's output.
    file_format : str
        Format of the masks.

    Raises
    ------
    InputError
        One line for each file that is in the way.
    """
    folder, errors = Path(out).absolute(), []
    for source, name in names.items():
        try:
            begun = (folder / f".unfinished-{name}").exists()
            PredictionManifest(folder, folder, file_format).require_free(name, source, begun)
        except InputError as error:
            errors.append(str(error))
    if errors:
        raise InputError("\n".join(errors))
