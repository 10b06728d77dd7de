"""Corrections are found by their names, take precedence over masks, and add frames."""

from pathlib import Path

import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.io import write_nifti, write_tcf
from datamodules.config import FolderData
from datamodules.corrections import Corrections
from datamodules.folder import find_cases

SHAPE, SPACING = (8, 12, 12), (0.5, 0.3, 0.3)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        time_lapse = (1.34 + 0.01 * rng.random((3, *SHAPE))).astype(np.float32)
        write_tcf(tmp_path / f"{name}.TCF", time_lapse, SPACING, 1.337, [0.0, 60.0, 120.0])
    write_nifti(tmp_path / "a_nucleus.nii.gz", np.ones(SHAPE, np.uint8), SPACING)
    (tmp_path / "mine").mkdir()
    return tmp_path


def corrected(folder, name, value):
    mask = np.zeros(SHAPE, np.uint8)
    mask[value] = 1
    write_nifti(folder / "mine" / f"{name}_corrected.nii.gz", mask, SPACING)


def config(folder, **more):
    return FolderData(root=str(folder), volumes=["*.TCF"], organelles=["nucleus"], corrections="mine", **more)


def test_a_correction_of_one_frame_takes_precedence_and_other_names_are_ignored(tmp_path):
    for name in ("a_cells", "a_t002_cells", "ab_cells", "a_cells_old", "a_t001_lipid"):
        (tmp_path / f"{name}_corrected.nii.gz").touch()
    corrections = Corrections(tmp_path, {Path("x/a.TCF"): "a"}, ["cells", "nucleus"])
    found = corrections.of(Path("x/a.TCF"), range(3))
    assert {key: (one.path.name, one.own_frame) for key, one in found.items()} == {
        ("cells", 0): ("a_cells_corrected.nii.gz", False),
        ("cells", 1): ("a_cells_corrected.nii.gz", False),
        ("cells", 2): ("a_t002_cells_corrected.nii.gz", True),
    }
    orphans = ["a_cells_old_corrected.nii.gz", "a_t001_lipid_corrected.nii.gz", "ab_cells_corrected.nii.gz"]
    assert [path.name for path in corrections.orphans] == orphans
    assert Corrections(tmp_path / "nowhere", {Path("a.TCF"): "a"}, ["cells"]).of(Path("a.TCF"), range(3)) == {}


def test_images_with_the_same_name_never_share_a_correction(tmp_path):
    images = {Path("p/f.tif"): "p_f", Path("q/f.tif"): "q_f", Path("w1.tif"): "w1", Path("w10.tif"): "w10"}
    for name in ("p_f_nucleus", "w10_nucleus"):
        (tmp_path / f"{name}_corrected.nii.gz").touch()
    corrections = Corrections(tmp_path, images, ["nucleus"])
    found = {image: sorted(one.path.name for one in corrections.of(image, [0]).values()) for image in images}
    assert list(found.values()) == [["p_f_nucleus_corrected.nii.gz"], [], [], ["w10_nucleus_corrected.nii.gz"]]
    (tmp_path / "f_nucleus_corrected.nii.gz").touch()
    corrections = Corrections(tmp_path, images, ["nucleus"])
    for image in list(images)[:2]:
        with pytest.raises(InputError, match=r"f_nucleus_corrected.*could be the correction of p/f.tif, q/f.tif"):
            corrections.of(image, [0])
    assert corrections.of(Path("w10.tif"), [0])


def test_the_name_of_results_is_exact_and_two_corrections_of_one_mask_are_refused(tmp_path):
    (tmp_path / "f_t001_nucleus_corrected.nii.gz").touch()
    images = {Path("f.tif"): "f", Path("f_t001.tif"): "f_t001"}  # an image that is named like a frame of another
    corrections = Corrections(tmp_path, images, ["nucleus"])
    assert corrections.of(Path("f.tif"), range(2)) == {}
    assert corrections.of(Path("f_t001.tif"), [0]).keys() == {("nucleus", 0)}
    (tmp_path / "f_nucleus_corrected.nii.gz").touch()
    (tmp_path / "f_nucleus_corrected.ome.tif").touch()
    with pytest.raises(InputError, match=r"two corrections of one mask; keep one"):
        Corrections(tmp_path, images, ["nucleus"]).of(Path("f.tif"), [0])


def test_a_correction_replaces_the_mask_in_training(folder):
    corrected(folder, "a_t000_nucleus", 3)
    (case,) = [c for c in find_cases(config(folder)) if c.volume.stem == "a"]
    masks = case.load().masks_KZYX
    assert masks[0, 3].all()
    assert masks.sum() == masks[0, 3].size


def test_another_frame_is_another_case_of_the_same_group(folder):
    corrected(folder, "a_t002_nucleus", 5)
    cases = [c for c in find_cases(config(folder, masks="*_{organelle}.nii.gz"), on_error=lambda error: None)
             if c.volume.stem == "a"]  # fmt: skip
    assert [(c.frame, c.group) for c in cases] == [(0, "a.TCF"), (2, "a.TCF")]
    assert cases[0].load().masks_KZYX.all()
    assert cases[1].load().masks_KZYX[0, 5].all()


def test_a_missing_folder_is_refused(folder):
    with pytest.raises(InputError, match=r"data\.corrections: .*no such folder"):
        find_cases(config(folder, masks="*_{organelle}.nii.gz").__class__(**{
            **config(folder, masks="*_{organelle}.nii.gz").__dict__, "corrections": "yours"}))  # fmt: skip
