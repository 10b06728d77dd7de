"""Find the grid of a NIfTI file: voxel size, origin and orientation. A header may state each in three ways."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from cytovox.errors import InputError
from cytovox.io.orientation import AxisOrientation, orientation_text, reorders
from cytovox.io.spacing import RTOL, Reading, StoredSpacing
from cytovox.io.volume import ZYX

#: Micrometres in NIfTI's units by nibabel's names; "unknown" is not among them.
UNIT_UM = {"mm": 1e3, "micron": 1.0, "meter": 1e6}

#: NIfTI's names of the positive ends of ITK's physical x, y, z.
_ITK_AXES = axcodes2ornt(("L", "P", "S"))


@dataclass(frozen=True)
class Grid:
    """Grid of the voxels of a NIfTI.

    Attributes
    ----------
    orientation : tuple
        Orientation from the stored axes to ITK's x, y, z.
    spacing : StoredSpacing
        All entries of the header about the voxel size.
    origin_um : (z, y, x)
        Centre of the first voxel; 0 if the unit is not known.
    stated : bool
        Whether the header states directions. It states none without any affine, or with the identity alone.
    """

    orientation: AxisOrientation
    spacing: StoredSpacing
    origin_um: ZYX
    stated: bool = True

    @property
    def stated_orientation(self) -> AxisOrientation | None:
        """`orientation` if the header states it, else None."""
        return self.orientation if self.stated else None


@dataclass(frozen=True)
class _Statement:
    """One of the header's affines, turned to ITK's axes."""

    name: str
    orientation: AxisOrientation
    lengths: tuple[float, float, float]
    """z, y, x in the header's unit."""
    origin: tuple[float, float, float]

    def same_lengths(self, other: _Statement) -> bool:
        return bool(np.allclose(self.lengths, other.lengths, rtol=RTOL, atol=0))


def grid_of(path: Path, header: Any, shape: tuple[int, ...]) -> Grid:
    """Return the grid that a header states.

    The sform is preferred, as in nibabel. An sform that is the identity is ignored if qform or pixdim state something
    else. Without any affine, the axes are not reoriented. The same holds if there is only the identity, because
    programs without a grid write it.

    Parameters
    ----------
    path : Path
        Named in messages.
    header : nibabel.Nifti1Header
    shape : (x, y, z)

    Raises
    ------
    InputError
        The grid is rotated, an affine is invalid, or sform and qform orient the axes differently.
    """
    unit = header.get_xyzt_units()[0]
    statements = _statements(path, header, shape)
    directed = any(int(header[code]) > 0 for code in ("sform_code", "qform_code"))
    if unit != "micron" and _only_identity(header):
        directed = False
        statements = [_statement(path, "", np.diag([-1.0, -1.0, 1.0, 1.0]), shape)]
    stored = [(s, _stored(s, unit)) for s in statements]
    likely = [(s, said) for s, said in stored if any(r.plausible() for r in said.readings)] or stored
    turns = {s.orientation for s, _ in likely}
    if len(turns) > 1:
        names = " and ".join(s.name for s, _ in likely)
        raise InputError(
            f"{path}: its {names} lay the axes differently: which side is left is ambiguous; save it again from "
            "ITK-SNAP, or as OME-TIFF"
        )
    chosen = likely[0][0]
    readings = [r for s, said in stored for r in said.readings if s.orientation == chosen.orientation]
    if len(statements) == 1:
        readings = list(stored[0][1].readings)
    factor = UNIT_UM.get(unit) or ((readings[0].lengths_um[0] or 0.0) / chosen.lengths[0] if readings else 0.0)
    z, y, x = (_round(o * factor) for o in chosen.origin)
    return Grid(chosen.orientation, StoredSpacing(tuple(readings)), (z, y, x), directed)


def _statements(path: Path, header: Any, shape: tuple[int, ...]) -> list[_Statement]:
    """Return the different statements of sform, qform and pixdim, the preferred one first."""
    zooms = _zooms(header)
    sform = header.get_sform() if int(header["sform_code"]) > 0 else None
    qform = header.get_qform() if int(header["qform_code"]) > 0 else None
    blank = sform is not None and np.array_equal(np.abs(sform), np.eye(4)) and any(zoom != 1 for zoom in zooms)
    found: list[_Statement] = []
    if sform is not None and not (blank and qform is not None):
        found.append(_statement(path, "sform", np.array(sform, float), shape))
    if qform is not None:
        orientation_text = _statement(path, "qform", np.array(qform, float), shape)
        if not found:
            found.append(
                replace(orientation_text, name="qform, as the sform is the identity") if blank else orientation_text
            )
        elif orientation_text.orientation != found[0].orientation or not orientation_text.same_lengths(found[0]):
            found.append(orientation_text)
    elif sform is not None and all(zoom > 0 for zoom in zooms) and any(zoom != 1 for zoom in zooms):
        lengths = np.abs(np.array([zooms[int(np.argmax(np.abs(sform[k, :3])))] for k in (2, 1, 0)]))
        orientation_text = replace(
            found[0], name="pixdim", lengths=(float(lengths[0]), float(lengths[1]), float(lengths[2]))
        )
        if blank:
            return [replace(orientation_text, name="pixdim, as the sform is the identity")]
        if not orientation_text.same_lengths(found[0]):
            found.append(orientation_text)
    if not found:  # no affine was stored: the axes are not reoriented
        found.append(_statement(path, "pixdim", np.diag([-zooms[0], -zooms[1], zooms[2], 1.0]), shape))
    return [replace(s, name="") for s in found] if len(found) == 1 and not blank else found


def _only_identity(header: Any) -> bool:
    """Return whether all stored affines are the identity and pixdim does not contradict them."""
    codes = (("sform_code", header.get_sform), ("qform_code", header.get_qform))
    stored = [np.asarray(affine()) for code, affine in codes if int(header[code]) > 0]
    return bool(stored) and all(np.array_equal(a, np.eye(4)) for a in stored) and all(z == 1 for z in _zooms(header))


def _zooms(header: Any) -> list[float]:
    return [*(float(zoom) for zoom in header.get_zooms()[:3]), 1.0, 1.0][:3]


def _statement(path: Path, name: str, affine: np.ndarray, shape: tuple[int, ...]) -> _Statement:
    orientation, itk = _orientation(path, affine, shape)
    z, y, x = (_round(float(itk[k, k])) for k in (2, 1, 0))
    oz, oy, ox = (float(itk[k, 3]) for k in (2, 1, 0))
    return _Statement(name, orientation, (z, y, x), (oz, oy, ox))


def _stored(statement: _Statement, unit: str) -> StoredSpacing:
    """Return the lengths in micrometres; unknown if all are 1 in millimetres or without a unit."""
    how = f"by its {statement.name}" if statement.name else ""
    if unit not in UNIT_UM:
        said = StoredSpacing.without_unit(statement.lengths, f"its {statement.name or 'voxel size'}")
        return StoredSpacing(tuple(said.readings))
    if unit == "mm" and all(length == 1 for length in statement.lengths):
        return StoredSpacing()
    z, y, x = (_round(length * UNIT_UM[unit]) for length in statement.lengths)
    return StoredSpacing((Reading((z, y, x), how),))


def _orientation(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> tuple[AxisOrientation, np.ndarray]:
    """Return the reorientation of the stored axes to ITK's x, y, z, and the affine after it in ITK's coordinates."""
    columns = affine[:3, :3]
    lengths = np.sqrt((columns**2).sum(axis=0))
    if not np.isfinite(affine).all() or (lengths == 0).any():
        raise InputError(f"{path}: its affine is no grid: {affine[:3].tolist()}; save it again from ITK-SNAP")
    directions = np.abs(columns / lengths)
    if (directions.max(axis=0) < 0.999).any() or len(set(directions.argmax(axis=0))) < 3:
        raise InputError(
            f"{path}: its grid is rotated against x, y, z: expected flips at most; resample it onto the image"
        )
    orientation = ornt_transform(io_orientation(affine), _ITK_AXES)
    to_itk = np.diag([-1.0, -1.0, 1.0, 1.0])
    return tuple((float(axis), float(flip)) for axis, flip in orientation), to_itk @ affine @ inv_ornt_aff(
        orientation, shape
    )


def orientation_notes(path: Path, orientation: AxisOrientation | None) -> tuple[str, ...]:
    """Return a note for the user if the voxels are reordered."""
    if orientation is None or not reorders(orientation):
        return ()
    return (
        f"{path.name}: its header {orientation_text(orientation)} against ITK-SNAP's order of x, y, z; read as "
        "ITK-SNAP shows it, so "
        "files without directions (TIFF, TCF) must lie so, too",
    )


def _round(value: float) -> float:
    """Round to 6 digits, because NIfTI stores 32-bit floats: 0.139 um is read as 0.13899999."""
    return float(f"{value:.6g}")
