"""Output of python -m cytovox.simulation, read with third-party libraries."""

import h5py
import nibabel
import numpy as np
import pytest
import tifffile

from cytovox.simulation import simulate
from cytovox.simulation.__main__ import main

FIELD = ["--shape", "16", "40", "48", "--spacing", "0.6", "0.4", "0.5"]
ORGANELLES = ("membrane", "nucleus", "nucleolus", "lipid")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated") / "new"
    assert main(["--preset", "HeLa", "A549", "--seed", "3", "7", *FIELD, "--out", str(out)]) == 0
    return out


def test_all_files_of_each_volume_are_written(folder):
    names = [f"{preset}-{seed:05d}" for preset in ("HeLa", "A549") for seed in (3, 7)]
    kinds = [".TCF", "_truth.ome.tif", *(f"_{kind}.nii.gz" for kind in (*ORGANELLES, "cells"))]
    assert {path.name for path in folder.iterdir()} == {name + kind for name in names for kind in kinds}


def test_the_tcf_holds_the_measured_index(folder):
    tomogram = simulate("HeLa", 3, (16, 40, 48), (0.6, 0.4, 0.5))
    with h5py.File(folder / "HeLa-00003.TCF") as file:
        ri_ZYX = file["Data/3D/000000"][()] / 1e4
        spacing = [file["Data/3D"].attrs[f"Resolution{axis}"][0] for axis in "ZYX"]
        assert file["Info/Device"].attrs["RI"][0] == pytest.approx(1.337)
    np.testing.assert_allclose(ri_ZYX, tomogram.ri_ZYX, atol=6e-5)
    assert spacing == pytest.approx([0.6, 0.4, 0.5])


def test_masks_and_true_index_have_the_grid_of_the_tcf(folder):
    tomogram = simulate("HeLa", 3, (16, 40, 48), (0.6, 0.4, 0.5))
    wanted = {**tomogram.masks, "cells": tomogram.cells_ZYX}
    for kind, array_ZYX in wanted.items():
        image = nibabel.load(folder / f"HeLa-00003_{kind}.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), array_ZYX)
        np.testing.assert_allclose(image.header.get_zooms(), [0.5e-3, 0.4e-3, 0.6e-3], rtol=1e-5)  # x, y, z in mm
    truth = tifffile.imread(folder / "HeLa-00003_truth.ome.tif")
    np.testing.assert_allclose(np.squeeze(truth), tomogram.ri_true_ZYX, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "Hela"], "did you mean HeLa"),
        (["--seed", "-4"], "seed -4"),
        (["--shape", "2", "40", "40"], "at least 8"),
        (["--medium-ri", "13.37"], "medium_ri 13.37"),
    ],
)
def test_invalid_arguments_give_one_line_and_exit_code_2(arguments, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*arguments, "--out", str(out)]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not out.exists()


def test_a_folder_that_cannot_be_created_is_reported(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main([*FIELD, "--out", str(tmp_path / "file")]) == 2
    assert "cannot be written" in capsys.readouterr().err
