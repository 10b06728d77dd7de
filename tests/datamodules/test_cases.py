"""Reading of a tomogram with its masks: accepted files, and errors of one line."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile

from cytovox.errors import InputError
from cytovox.io import write_nifti, write_ometiff
from datamodules.cases import FolderCase

SHAPE, SPACING = (6, 10, 12), (0.5, 0.2, 0.25)
ORGANELLES = ("membrane", "nucleus", "nucleolus", "lipid")
LABELS = {"membrane": (1, 2, 3, 4), "nucleus": (2, 3), "nucleolus": (3,), "lipid": (4,)}


def _ri() -> np.ndarray:
    return np.random.default_rng(0).uniform(1.337, 1.39, SHAPE).astype(np.float32)


def _mask() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 2:7, 3:5] = 1  # differs from each of its mirror images
    return mask


def _case(tmp_path: Path, masks: dict[str, Path] | None = None, label_file: Path | None = None, **more: object):
    volume = tmp_path / "a.nii.gz"
    if not volume.exists():
        write_nifti(volume, _ri(), SPACING)
    given = {"volume": volume, **more}
    return FolderCase(
        name="a", masks=masks or {}, label_file=label_file, label_values=LABELS, organelles=ORGANELLES, group="a",
        cell_line="a", **given,  # type: ignore[arg-type]
    )  # fmt: skip


def _nifti(tmp_path: Path, array: np.ndarray, spacing: tuple[float, float, float] = SPACING, name: str = "m") -> Path:
    return write_nifti(tmp_path / f"{name}.nii.gz", array, spacing)


def test_an_absent_mask_is_unlabelled_and_an_empty_one_is_labelled(tmp_path: Path) -> None:
    masks = {"nucleus": _nifti(tmp_path, _mask()), "lipid": _nifti(tmp_path, np.zeros(SHAPE, np.uint8), name="e")}
    raw = _case(tmp_path, masks).load()
    assert raw.labelled_K.tolist() == [False, True, False, True]
    np.testing.assert_array_equal(raw.masks_KZYX[1], _mask())
    assert not raw.masks_KZYX[[0, 2, 3]].any()
    np.testing.assert_allclose(raw.ri_ZYX, _ri())
    assert raw.spacing_um == pytest.approx(SPACING)


def test_each_organelle_has_its_values_of_a_multi_label_file(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:5, 1:9, 1:9], labels[2:4, 2:6, 2:6], labels[3, 3, 3], labels[4, 8, 8] = 1, 2, 3, 4
    raw = _case(tmp_path, label_file=_nifti(tmp_path, labels)).load()
    assert raw.labelled_K.all()
    for k, organelle in enumerate(ORGANELLES):
        np.testing.assert_array_equal(raw.masks_KZYX[k], np.isin(labels, LABELS[organelle]))


def test_a_label_of_no_organelle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.nii\.gz: label 9 is in no organelle of label_values"):
        _case(tmp_path, label_file=_nifti(tmp_path, _mask() * 9)).load()


def test_a_multi_label_file_is_refused_as_the_mask_of_one_organelle(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:5, 1:9, 1:9], labels[2:4, 2:6, 2:6] = 1, 2
    with pytest.raises(InputError, match=r"holds 2 different labels \(1, 2\), one inside the other.*label_values"):
        _case(tmp_path, {"nucleus": _nifti(tmp_path, labels)}).load()
    raw = _case(tmp_path, {"nucleus": tmp_path / "m.nii.gz"}, labels="binary").load()
    np.testing.assert_array_equal(raw.masks_KZYX[1], labels != 0)


def test_labels_of_nuclei_are_one_mask_with_a_note(tmp_path: Path) -> None:
    labels = _mask()
    labels[4, 8:, 8:] = 2
    case = _case(tmp_path, {"nucleus": _nifti(tmp_path, labels)})
    np.testing.assert_array_equal(case.load().masks_KZYX[1], labels != 0)
    assert case.notes == ["m.nii.gz: 2 values: read as one mask of what is not background"]


def test_the_inside_of_a_mask_may_be_255_or_1(tmp_path: Path) -> None:
    raw = _case(tmp_path, {"nucleus": _nifti(tmp_path, _mask() * 255)}).load()
    np.testing.assert_array_equal(raw.masks_KZYX[1], _mask())


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mask of shape \(5, 10, 12\).*has \(6, 10, 12\)"):
        _case(tmp_path, {"nucleus": _nifti(tmp_path, _mask()[1:])}).load()


def test_a_mask_of_another_spacing_is_refused_unless_the_config_allows_it(tmp_path: Path) -> None:
    masks = {"nucleus": _nifti(tmp_path, _mask(), (0.5, 0.2, 0.2))}
    with pytest.raises(InputError, match=r"voxel size \(0\.5, 0\.2, 0\.2\) um.*\(0\.5, 0\.2, 0\.25\).*check_spacing"):
        _case(tmp_path, masks).load()
    assert _case(tmp_path, masks, check_spacing=False).load().masks_KZYX[1].sum() == _mask().sum()


def test_a_mask_spacing_in_um_stored_as_mm_is_accepted_with_a_note(tmp_path: Path) -> None:
    case = _case(tmp_path, {"nucleus": _nifti(tmp_path, _mask(), (500.0, 200.0, 250.0))})
    assert case.load().masks_KZYX[1].sum() == _mask().sum()
    assert len(case.notes) == 1
    assert case.notes[0].startswith("m.nii.gz: its spacing")


@pytest.mark.parametrize("signs", [(-1, -1, 1), (1, 1, 1), (1, -1, -1), (-1, 1, -1)])
def test_a_mask_with_a_flipped_affine_is_aligned_with_its_tomogram(tmp_path: Path, signs: tuple[int, int, int]) -> None:
    itk = (-1, -1, 1)  # how an unflipped one is written
    flips = [slice(None, None, s * t) for s, t in zip(signs, itk, strict=True)]
    spacing_xyz = np.array(SPACING[::-1]) / 1000
    affine = np.diag([*(spacing_xyz * signs), 1.0])
    for axis, (s, t, n) in enumerate(zip(signs, itk, SHAPE[::-1], strict=True)):
        affine[axis, 3] = 0 if s == t else t * spacing_xyz[axis] * (n - 1)
    image = nib.Nifti1Image(np.ascontiguousarray(_mask().T[tuple(flips)]), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "flipped.nii.gz")
    raw = _case(tmp_path, {"nucleus": tmp_path / "flipped.nii.gz"}).load()
    np.testing.assert_array_equal(raw.masks_KZYX[1], _mask())


def test_a_plain_tiff_needs_a_spacing_and_its_mask_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", _ri(), photometric="minisblack")
    tifffile.imwrite(tmp_path / "m.tif", _mask(), photometric="minisblack")
    masks = {"nucleus": tmp_path / "m.tif"}
    with pytest.raises(InputError, match=r"no voxel size.*data\.spacing_um"):
        _case(tmp_path, masks, volume=tmp_path / "a.tif").load()
    raw = _case(tmp_path, masks, volume=tmp_path / "a.tif", spacing_um=SPACING).load()
    assert raw.spacing_um == SPACING
    np.testing.assert_array_equal(raw.masks_KZYX[1], _mask())


def test_nan_in_a_tomogram_is_refused_with_its_position(tmp_path: Path) -> None:
    ri = _ri()
    ri[1, 2, 3] = np.nan
    write_nifti(tmp_path / "nan.nii.gz", ri, SPACING)
    with pytest.raises(InputError, match=r"nan\.nii\.gz: 1 of 720 voxels are NaN.*\(1, 2, 3\)"):
        _case(tmp_path, volume=tmp_path / "nan.nii.gz").load()


def test_fluorescence_is_no_refractive_index(tmp_path: Path) -> None:
    write_ometiff(tmp_path / "f.ome.tif", (_ri() * 100)[None, None].astype(np.uint16), SPACING, ["RI"])
    with pytest.raises(InputError, match=r"values from 133 to 1\d\d are no refractive index"):
        _case(tmp_path, volume=tmp_path / "f.ome.tif").load()


def test_an_index_multiplied_by_ten_thousand_is_converted(tmp_path: Path) -> None:
    write_ometiff(tmp_path / "s.ome.tif", np.rint(_ri() * 1e4)[None, None].astype(np.uint16), SPACING, ["RI"])
    np.testing.assert_allclose(_case(tmp_path, volume=tmp_path / "s.ome.tif").load().ri_ZYX, _ri(), atol=6e-5)


def test_a_missing_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 1 frames, so there is no data\.frame 3"):
        _case(tmp_path, frame=3).load()
