"""Corrections are found by their names, win over what was there, and bring frames of their own."""

import numpy as np
import pytest

from datamodules.config import FolderData
from datamodules.corrections import find_corrections
from datamodules.folder import find_cases
from formats import write_nifti, write_tcf
from formats.errors import InputError

SHAPE, SPACING = (8, 12, 12), (0.5, 0.3, 0.3)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        film = (1.34 + 0.01 * rng.random((3, *SHAPE))).astype(np.float32)
        write_tcf(tmp_path / f"{name}.TCF", film, SPACING, 1.337, [0.0, 60.0, 120.0])
    write_nifti(tmp_path / "a_nucleus.nii.gz", np.ones(SHAPE, np.uint8), SPACING)
    (tmp_path / "mine").mkdir()
    return tmp_path


def corrected(folder, name, value):
    mask = np.zeros(SHAPE, np.uint8)
    mask[value] = 1
    write_nifti(folder / "mine" / f"{name}_corrected.nii.gz", mask, SPACING)


def config(folder, **more):
    return FolderData(root=str(folder), volumes=["*.TCF"], organelles=["nucleus"], corrections="mine", **more)


def test_one_frame_wins_over_the_film_and_other_names_are_passed_over(tmp_path):
    for name in ("a_cells", "a_t002_cells", "ab_cells", "a_cells_old", "a_t001_lipid"):
        (tmp_path / f"{name}_corrected.nii.gz").touch()
    found = find_corrections(tmp_path, ["a"], 3, ["cells", "nucleus"])
    assert {key: path.name for key, path in found.items()} == {
        ("cells", 0): "a_cells_corrected.nii.gz",
        ("cells", 1): "a_cells_corrected.nii.gz",
        ("cells", 2): "a_t002_cells_corrected.nii.gz",
    }
    assert find_corrections(tmp_path / "nowhere", ["a"], 3, ["cells"]) == {}


def test_a_correction_is_trained_on_instead_of_the_mask(folder):
    corrected(folder, "a_t000_nucleus", 3)
    (case,) = [c for c in find_cases(config(folder)) if c.volume.stem == "a"]
    masks = case.load().masks_KZYX
    assert masks[0, 3].all()
    assert masks.sum() == masks[0, 3].size


def test_another_frame_is_another_case_of_the_same_group(folder):
    corrected(folder, "a_t002_nucleus", 5)
    cases = [c for c in find_cases(config(folder, masks="*_{organelle}.nii.gz"), told=lambda fault: None)
             if c.volume.stem == "a"]  # fmt: skip
    assert [(c.frame, c.group) for c in cases] == [(0, "a.TCF"), (2, "a.TCF")]
    assert cases[0].load().masks_KZYX.all()
    assert cases[1].load().masks_KZYX[0, 5].all()


def test_a_folder_that_is_not_there_is_told(folder):
    with pytest.raises(InputError, match=r"data\.corrections: .*no such folder"):
        find_cases(config(folder, masks="*_{organelle}.nii.gz").__class__(**{
            **config(folder, masks="*_{organelle}.nii.gz").__dict__, "corrections": "yours"}))  # fmt: skip
