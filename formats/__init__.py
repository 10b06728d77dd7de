"""Reading and writing of volumes: TCF, OME-TIFF, plain TIFF, NIfTI and OME-Zarr, by the name of the file.

``read_volume("cell.TCF").frame()`` is the refractive index of the first frame as float32 (Z, Y, X).
"""

from collections.abc import Sequence
from pathlib import Path

from formats.atomic import atomic_path, put_in_place, write_fault
from formats.errors import InputError
from formats.label_film import LabelFilm
from formats.nifti import open_nifti_labels, read_nifti, read_nifti_mask, write_nifti
from formats.ometiff import write_ometiff, write_ometiff_planes
from formats.omezarr import open_omezarr_labels, read_omezarr, read_omezarr_mask
from formats.omezarr_writer import begin_omezarr, create_omezarr, resume_omezarr, write_omezarr
from formats.regions import ArrayReader, Box, FrameReader, grid_boxes
from formats.tcf import read_fluorescence, read_tcf
from formats.tcf_writer import write_tcf
from formats.tiff import open_tiff_labels, read_tiff, read_tiff_mask, settle_spacing
from formats.values import check_finite
from formats.volume import Mask, Volume, spacing_agrees

__all__ = [
    "KINDS",
    "ArrayReader",
    "Box",
    "FrameReader",
    "InputError",
    "LabelFilm",
    "Mask",
    "Volume",
    "atomic_path",
    "begin_omezarr",
    "check_finite",
    "create_omezarr",
    "grid_boxes",
    "kind_of",
    "open_labels",
    "put_in_place",
    "read_fluorescence",
    "read_mask",
    "read_volume",
    "resume_omezarr",
    "spacing_agrees",
    "write_fault",
    "write_nifti",
    "write_ometiff",
    "write_ometiff_planes",
    "write_omezarr",
    "write_tcf",
]

#: Ends of file names, in small letters, and the kind of file they tell.
KINDS = {
    ".tcf": "tcf",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".zarr": "omezarr",
}


def read_volume(path: str | Path, spacing_um: Sequence[float] | None = None) -> Volume:
    """Open a volume of any kind; voxels are read when asked for.

    Parameters
    ----------
    path : str or Path
        .TCF, .ome.tif(f), .tif(f), .nii, .nii.gz, .ome.zarr or .zarr.
    spacing_um : (z, y, x), optional
        For files that tell none, which is every plain TIFF. Where the file tells its own, both must agree.

    Returns
    -------
    Volume
        Refractive index is the index itself, however it was stored.

    Raises
    ------
    InputError
        An unknown kind of file, or one that cannot be read; the message names the file.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "tiff":
        return read_tiff(path, spacing_um)
    if kind == "omezarr":
        return read_omezarr(path, spacing_um)
    volume = read_tcf(path) if kind == "tcf" else read_nifti(path)
    settle_spacing(path, volume.spacing_um, spacing_um)
    return volume


def read_mask(path: str | Path) -> Mask:
    """Read labels of one frame: OME-TIFF, plain TIFF, NIfTI (as ITK-SNAP writes it) or OME-Zarr.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Mask
        Integer labels (Z, Y, X) that lie as the tomogram does; see `spacing_agrees` for comparing their grids.

    Raises
    ------
    InputError
        An unknown kind of file, one that cannot be read, or values that are no labels.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "tiff":
        return read_tiff_mask(path)
    if kind == "nifti":
        return read_nifti_mask(path)
    if kind == "omezarr":
        return read_omezarr_mask(path)
    raise InputError(f"{path}: a TCF file holds no masks: expected .nii.gz, .nii, .ome.tif, .tif or .ome.zarr")


def open_labels(path: str | Path) -> LabelFilm:
    """Open labels of any number of frames and channels; each is read when asked for.

    Parameters
    ----------
    path : str or Path
        As for `read_mask`.

    Raises
    ------
    InputError
        An unknown kind of file, or one that cannot be read.
    """
    kind = kind_of(path)
    openers = {"tiff": open_tiff_labels, "nifti": open_nifti_labels, "omezarr": open_omezarr_labels}
    if kind not in openers:
        raise InputError(f"{path}: a TCF file holds no masks: expected .nii.gz, .nii, .ome.tif, .tif or .ome.zarr")
    return openers[kind](path)


def kind_of(path: str | Path) -> str:
    """Which reader a file's name asks for: "tcf", "tiff", "nifti" or "omezarr"; InputError for any other."""
    name = Path(path).name.lower()
    for end, kind in KINDS.items():
        if name.endswith(end):
            return kind
    raise InputError(f"{path}: unknown kind of file: expected .TCF, .ome.tif, .tif, .nii, .nii.gz, .ome.zarr or .zarr")
