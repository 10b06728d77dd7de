"""Read and write volumes: TCF, OME-TIFF, plain TIFF, NIfTI and OME-Zarr. The file name determines the format.

``read_volume("cell.TCF").frame()`` is the refractive index of the first frame as float32 (Z, Y, X).
"""

from collections.abc import Sequence
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path, put_in_place, write_error
from cytovox.io.csv_files import existing
from cytovox.io.file_format import Format, ImageWriter
from cytovox.io.formats import expected, find_format, find_writer, writers
from cytovox.io.label_volume import LabelVolume
from cytovox.io.nifti import write_nifti
from cytovox.io.ometiff import write_ometiff, write_ometiff_slabs
from cytovox.io.ometiff_set import one_of_each_set, set_members
from cytovox.io.omezarr_writer import begin_omezarr, create_omezarr, resume_omezarr, write_omezarr
from cytovox.io.regions import ArrayReader, Box, FrameReader, grid_boxes
from cytovox.io.series import Series
from cytovox.io.spacing import Resolved, SpacingFrom, StoredSpacing, match_spacing, resolve_spacing
from cytovox.io.tcf import read_fluorescence
from cytovox.io.tcf_writer import write_tcf
from cytovox.io.values import check_finite
from cytovox.io.volume import Mask, Volume

__all__ = [
    "ArrayReader",
    "Box",
    "Format",
    "FrameReader",
    "ImageWriter",
    "InputError",
    "LabelVolume",
    "Mask",
    "Resolved",
    "StoredSpacing",
    "Volume",
    "atomic_path",
    "begin_omezarr",
    "check_finite",
    "create_omezarr",
    "find_writer",
    "grid_boxes",
    "kind_of",
    "match_spacing",
    "one_of_each_set",
    "open_labels",
    "put_in_place",
    "read_fluorescence",
    "read_mask",
    "read_volume",
    "resolve_spacing",
    "resume_omezarr",
    "set_members",
    "write_error",
    "write_nifti",
    "write_ometiff",
    "write_ometiff_slabs",
    "write_omezarr",
    "write_tcf",
    "writers",
]


def read_volume(
    path: str | Path,
    spacing_um: Sequence[float] | None = None,
    spacing_from: SpacingFrom = "file",
    series: Series = None,
) -> Volume:
    """Open a volume of any format; its voxels are read when they are accessed.

    Parameters
    ----------
    path : str or Path
        A file of a format in `cytovox.io.formats`: .TCF, .ome.tif(f), .tif(f), .nii, .nii.gz, .ome.zarr, .zarr.
    spacing_um : (z, y, x), optional
        Voxel size of a file that does not state it, such as every plain TIFF. If the file states one, both must agree.
    spacing_from : "file" or "config"
        "config": `spacing_um` replaces the voxel size of the file, and `notes` lists differences.
    series : int or str, optional
        Number or name of the image in a file with several images; such a file is refused without it.

    Returns
    -------
    Volume
        The refractive index is the index itself, even if it is stored with a factor. The caller must report `notes`.

    Raises
    ------
    InputError
        Unknown format, or a file that cannot be read; the message names the file.
    """
    path = existing(Path(path))
    return _format_of(path).open_volume(path, spacing_um, spacing_from, series)


def read_mask(path: str | Path, series: Series = None) -> Mask:
    """Read labels of one frame: OME-TIFF, plain TIFF, NIfTI (as ITK-SNAP writes it) or OME-Zarr.

    Parameters
    ----------
    path : str or Path
    series : int or str, optional
        Number or name of the image in a file with several images; ignored for a file with one image.

    Returns
    -------
    Mask
        Integer labels (Z, Y, X) in the orientation of the tomogram; `match_spacing` compares their grids.

    Raises
    ------
    InputError
        Unknown format, a file that cannot be read, more than one frame or channel, or values that are no labels.
    """
    label_volume = open_labels(path, series)
    if label_volume.shape[:2] != (1, 1):
        t, c = label_volume.shape[:2]
        raise InputError(f"{path}: {t} frames and {c} channels: expected a mask of one frame in one channel")
    return Mask(label_volume.frame(), label_volume.spacing_um, label_volume.origin_um, label_volume.path)


def open_labels(path: str | Path, series: Series = None) -> LabelVolume:
    """Open labels of any number of frames and channels; each is read when it is accessed.

    Parameters
    ----------
    path, series
        As for `read_mask`.

    Raises
    ------
    InputError
        Unknown format, or a file that cannot be read.
    """
    path = existing(Path(path))
    found = _format_of(path)
    if found.open_labels is None:
        raise InputError(f"{path}: a {found.name.upper()} file holds no masks: expected {expected('labels')}")
    return found.open_labels(path, series)


def kind_of(path: str | Path) -> str:
    """Return the name of the format of a file by its suffix, such as "tcf"; InputError for an unknown suffix."""
    return _format_of(Path(path)).name


def _format_of(path: Path) -> Format:
    found = find_format(path)
    if found is None:
        raise InputError(f"{path}: unknown kind of file: expected {expected()}")
    return found
