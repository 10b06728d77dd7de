"""Masks whose directions are in doubt, through every command: refused, or read as `mask_axes` says, by known voxels."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import tifffile

from cytovox.errors import InputError
from cytovox.io import open_labels
from datamodules.config import FolderData
from datamodules.folder import find_cases
from datamodules.prepare import Preparer
from tests.experiments import scenes
from tests.experiments.scenes import CELLS_UM3, SHAPE, SPACING

TWO_WAYS = "its header mirrors x, y, but a.ome.tif states no directions"
NONE_STATED = "states no directions, but the header of a.nii mirrors x, y"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    scenes.quick(monkeypatch)


def positive(path: Path, array: np.ndarray) -> Path:
    """NIfTI as nibabel writes it with positive lengths: its header mirrors x and y."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*(s / 1000 for s in SPACING[::-1]), 1.0])
    affine[:2, 3] = -affine[[0, 1], [0, 1]] * (np.array(array.shape[:0:-1]) - 1)  # the first voxel, as shown, is at 0
    image = nib.Nifti1Image(np.ascontiguousarray(array.T), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def masks() -> dict[str, np.ndarray]:
    return {"membrane": (scenes.cells() > 0).astype(np.uint8), "nucleus": (scenes.nuclei() > 0).astype(np.uint8)}


def mirrored(array: np.ndarray) -> np.ndarray:
    return array[:, ::-1, ::-1]


@pytest.fixture
def field(tmp_path) -> Path:
    """A tomogram a.ome.tif and, of the same array, a.nii with positive lengths; masks of both kinds of file."""
    scenes.tomogram(tmp_path / "a.ome.tif")
    positive(tmp_path / "a.nii", scenes.ri())
    for name, array in {**masks(), "cells": scenes.cells().astype(np.uint8)}.items():
        positive(tmp_path / "m" / f"a_{name}.nii", array)
        scenes.ome(tmp_path / "m" / f"a_{name}.ome.tif", array)
    return tmp_path


def first_cell(table: pd.DataFrame) -> tuple[float, float]:
    """y and x in um of the centre of the smallest cell, which lies alike in no mirror image."""
    cells = table[(table["compartment"] == "cell") & (table["cell"] > 0)]
    row = cells.loc[cells["volume_um3"].idxmin()]
    return float(row["y_um"]), float(row["x_um"])


#: Centre of that cell in the order of the stored arrays, and mirrored in x and y.
STORED = ((2 + 5.5) * 0.5, (16 + 5) * 0.5)
MIRRORED = ((SHAPE[1] - 1) * 0.5 - STORED[0], (SHAPE[2] - 1) * 0.5 - STORED[1])


def case_of(field: Path, volume: str, end: str, **more: object):
    data = FolderData(
        root=str(field), volumes=volume, masks=f"m/{{stem}}_{{organelle}}.{end}", organelles=["membrane", "nucleus"],
        cache_dir=str(field / "cache"), **more,
    )  # type: ignore[arg-type]  # fmt: skip
    (case,) = find_cases(data)
    return data, case


@pytest.mark.parametrize(
    ("volume", "end", "words"), [("a.ome.tif", "nii", TWO_WAYS), ("a.nii", "ome.tif", NONE_STATED)]
)
def test_training_refuses_it_or_reads_it_as_configured(field, volume, end, words):
    _, case = case_of(field, volume, end)
    with pytest.raises(InputError, match=words) as error:
        case.load()
    assert "data.mask_axes=header" in str(error.value)
    raws, names = {}, set()
    for mode in ("header", "stored"):
        data, case = case_of(field, volume, end, mask_axes=mode)
        raws[mode] = case.load()
        names.add(Preparer(data).entry_of(case)[0].path)
    assert len(names) == 2, "one preparation is not taken for the other"
    shown = mirrored if volume == "a.nii" else np.asarray
    for k, array in enumerate(masks().values()):
        np.testing.assert_array_equal(raws["stored"].masks_KZYX[k], shown(array))  # voxel on voxel
        np.testing.assert_array_equal(raws["header"].masks_KZYX[k], array if volume == "a.nii" else mirrored(array))
    np.testing.assert_allclose(raws["stored"].ri_ZYX, shown(scenes.ri()), atol=1e-6)
    assert any("against ITK-SNAP's order" in note for note in case_notes(field, volume, end))


def case_notes(field: Path, volume: str, end: str) -> list[str]:
    _, case = case_of(field, volume, end, mask_axes="header")
    case.load()
    return case.notes


def test_a_file_of_all_organelles_is_refused_or_read_as_configured_too(field):
    values = np.where(scenes.nuclei() > 0, 2, (scenes.cells() > 0) * 1).astype(np.uint8)
    positive(field / "all" / "a.nii", values)
    for mode in ("auto", "header", "stored"):
        data = FolderData(
            root=str(field), volumes="a.ome.tif", masks="all/{stem}.nii", organelles=["membrane", "nucleus"],
            label_values={"membrane": [1, 2], "nucleus": [2]}, mask_axes=mode,  # type: ignore[arg-type]
        )  # fmt: skip
        (case,) = find_cases(data)
        if mode == "auto":
            with pytest.raises(InputError, match=TWO_WAYS):
                case.load()
            continue
        lies = mirrored if mode == "header" else np.asarray
        for found, array in zip(case.load().masks_KZYX, masks().values(), strict=True):
            np.testing.assert_array_equal(found, lies(array))


@pytest.mark.parametrize(
    ("volume", "end", "words", "header", "stored"),
    [("a.ome.tif", "nii", TWO_WAYS, MIRRORED, STORED), ("a.nii", "ome.tif", NONE_STATED, STORED, MIRRORED)],
)
def test_analyze_refuses_it_or_reads_it_as_configured(cli, field, volume, end, words, header, stored):
    given = [f"organelles={field}/m/{{stem}}_{{organelle}}.{end}", "organelle_names=[membrane, nucleus]"]
    labelled = [f"cells={field}/m/{{stem}}_cells.{end}"]
    for more in ([], labelled):
        result = scenes.analyze(cli, field / "refused", field / volume, *given, *more)
        assert result.code == 3
        assert f"a_membrane.{end}: {words}" in result.err
        assert "set mask_axes=header" in result.err
        assert "data.mask_axes" not in result.err
        checked = cli("analyze", f"inputs=[{field}/{volume}]", *given, *more, "method=watershed", "--check")
        assert checked.code == 2
        assert [f"a_{name}.{end}" in checked.err for name in ("membrane", "cells")] == [True, bool(more)]
        assert words in checked.err
    for mode, place in (("header", header), ("stored", stored), ("header", header)):
        result = scenes.analyze(cli, field / "run", field / volume, *given, *labelled, f"mask_axes={mode}")
        assert result.code == 0, result.err
        assert result.volumes() == pytest.approx(CELLS_UM3)
        assert first_cell(result.table) == pytest.approx(place)
    checked = cli("analyze", f"inputs=[{field}/{volume}]", *given, "mask_axes=stored", "method=watershed", "--check")
    assert checked.code == 0, checked.err


def test_corrections_are_refused_or_read_as_configured(cli, field):
    given = [f"organelles={field}/m/{{stem}}_{{organelle}}.ome.tif", "organelle_names=[membrane, nucleus]"]
    positive(field / "fixes" / "a_cells_corrected.nii", scenes.cells().astype(np.uint8))
    given.append(f"corrections={field}/fixes")
    result = scenes.analyze(cli, field / "run", field / "a.ome.tif", *given)
    assert result.code == 3
    assert f"a_cells_corrected.nii: {TWO_WAYS}" in result.err
    for mode, place in (("header", MIRRORED), ("stored", STORED)):
        result = scenes.analyze(cli, field / "run", field / "a.ome.tif", *given, f"mask_axes={mode}")
        assert result.code == 0, result.err
        assert first_cell(result.table) == pytest.approx(place)


def test_a_correction_of_a_prediction_lies_right_beside_masks_that_are_laid_as_stored(cli, field):
    """Predictions of a turned NIfTI tomogram are NIfTI that states its directions: both are followed."""
    scenes.nifti(field / "fixes" / "a_cells_corrected.nii.gz", mirrored(scenes.cells()).astype(np.uint8))
    given = [f"organelles={field}/m/{{stem}}_{{organelle}}.ome.tif", "organelle_names=[membrane, nucleus]"]
    given += [f"corrections={field}/fixes", "mask_axes=stored"]
    result = scenes.analyze(cli, field / "run", field / "a.nii", *given)
    assert result.code == 0, result.err
    assert "lie outside" not in result.err
    assert first_cell(result.table) == pytest.approx(MIRRORED)
    rows = result.table[(result.table["compartment"] == "cell") & (result.table["cell"] > 0)]
    assert (rows["mean_ri"] > 1.356).all()


@pytest.mark.parametrize("owner", ["nii", "ome.tif"])
def test_cells_from_masks_compares_the_two_masks(cli, field, owner):
    """Without a tomogram the membrane gives the grid and its directions."""
    other = "ome.tif" if owner == "nii" else "nii"
    files = field / "m" / f"a_membrane.{owner}", field / "m" / f"a_nucleus.{other}"
    words = "states no directions, but the header of a_membrane.nii mirrors x, y"
    if owner == "ome.tif":
        words = "a_nucleus.nii: its header mirrors x, y, but a_membrane.ome.tif states no directions"
    for more in ([], ["--check"]):
        refused = scenes.from_masks(cli, field / "labels", *files, *more)
        assert refused.code == 2
        assert words in refused.err
    assert not (field / "labels").exists()
    result = scenes.from_masks(cli, field / "labels", *files, "mask_axes=stored")
    assert result.code == 0, result.err
    assert "lie outside the cells" not in result.err
    assert result.volumes() == pytest.approx(CELLS_UM3)
    assert first_cell(result.table) == pytest.approx(MIRRORED if owner == "nii" else STORED)
    cells = open_labels(field / "labels" / "cells.ome.tif").frame()
    np.testing.assert_array_equal(cells > 0, (mirrored if owner == "nii" else np.asarray)(scenes.cells()) > 0)
    result = scenes.from_masks(cli, field / "shown", *files, "mask_axes=header")
    assert result.code == 0, result.err
    assert "of the nuclei lie outside the cells" in result.err


def test_cells_from_masks_with_a_tomogram_goes_by_it(cli, field):
    files = [field / "m" / f"a_{name}.nii" for name in ("membrane", "nucleus")]
    ri = f"ri={field}/a.ome.tif"
    refused = scenes.from_masks(cli, field / "labels", *files, ri)
    assert refused.code == 2
    assert f"a_membrane.nii: {TWO_WAYS}" in refused.err
    for mode, place in (("stored", STORED), ("header", MIRRORED)):
        result = scenes.from_masks(cli, field / mode, *files, ri, f"mask_axes={mode}")
        assert result.code == 0, result.err
        assert first_cell(result.table) == pytest.approx(place)
    alone = scenes.from_masks(cli, field / "alone", *files)  # both state directions, and the same ones
    assert alone.code == 0, alone.err
    tomogram = scenes.from_masks(cli, field / "both", *files, f"ri={field}/a.nii")
    assert tomogram.code == 0, tomogram.err
    cells = tomogram.table[(tomogram.table["compartment"] == "cell") & (tomogram.table["cell"] > 0)]
    assert (cells["mean_ri"] > 1.356).all()


def swapped(path: Path, array: np.ndarray) -> Path:
    """NIfTI whose stored axes run along z, y, x."""
    x, y, z = (s / 1000 for s in SPACING[::-1])
    affine = np.array([[0, 0, -z, 0], [0, -y, 0, 0], [x, 0, 0, 0], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(np.ascontiguousarray(array.T), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def test_a_voxel_size_goes_with_the_axes_that_it_was_stored_for(cli, field):
    """Without a tomogram the voxel size is that of the only mask that states one, in the order in which it is laid."""
    membrane = scenes.plain(field / "membrane.tif", masks()["membrane"])
    nucleus = swapped(field / "nucleus.nii", masks()["nucleus"])
    assert "swaps x and z" in scenes.from_masks(cli, field / "labels", membrane, nucleus).err
    result = scenes.from_masks(cli, field / "labels", membrane, nucleus, "mask_axes=stored")
    assert result.code == 0, result.err
    assert open_labels(field / "labels" / "cells.ome.tif").spacing_um == pytest.approx(SPACING)
    assert first_cell(result.table) == pytest.approx(STORED)


def test_swapped_axes_are_compared_as_they_will_lie(cli, field):
    """By their headers these masks are of another shape, and as stored of the tomogram's."""
    for name, array in masks().items():
        swapped(field / "m" / f"a_{name}.nii", array)
    given = [f"organelles={field}/m/{{stem}}_{{organelle}}.nii", "organelle_names=[membrane, nucleus]"]
    refused = scenes.analyze(cli, field / "refused", field / "a.ome.tif", *given)
    assert "its header swaps x and z, but a.ome.tif states no directions" in refused.err
    shown = scenes.analyze(cli, field / "refused", field / "a.ome.tif", *given, "mask_axes=header")
    assert "save both on one grid" in shown.err
    result = scenes.analyze(cli, field / "run", field / "a.ome.tif", *given, "mask_axes=stored")
    assert result.code == 0, result.err
    assert sum(result.volumes()) == pytest.approx(sum(CELLS_UM3))
    assert first_cell(result.table) == pytest.approx(STORED)


def test_nifti_of_itk_snap_beside_tiff_is_read_without_a_word(cli, field):
    for name, array in masks().items():
        scenes.nifti(field / "plain" / f"a_{name}.nii.gz", array)
    given = [f"organelles={field}/plain/{{stem}}_{{organelle}}.nii.gz", "organelle_names=[membrane, nucleus]"]
    for mode in ("auto", "header", "stored"):
        result = scenes.analyze(cli, field / "run", field / "a.ome.tif", *given, f"mask_axes={mode}")
        assert result.code == 0, result.err
        assert "directions" not in result.err
        assert "ITK-SNAP" not in result.err
        assert first_cell(result.table) == pytest.approx(STORED)


def test_masks_of_one_of_several_images_are_found_by_the_tomograms_series(cli, tmp_path):
    for name, arrays in (
        ("a", [scenes.ri()] * 2), ("membrane", [np.zeros_like(masks()["membrane"]), masks()["membrane"]]),
        ("nucleus", [np.zeros_like(masks()["nucleus"]), masks()["nucleus"]]),
    ):  # fmt: skip
        about = {"axes": "ZYX", **{f"PhysicalSize{a}": s for a, s in zip("ZYX", SPACING, strict=True)}}
        with tifffile.TiffWriter(tmp_path / f"{name}.ome.tif", ome=True) as writer:
            for array in arrays:
                writer.write(array, photometric="minisblack", metadata=about)
    given = [f"organelles={tmp_path}/{{organelle}}.ome.tif", "organelle_names=[membrane, nucleus]", "series=1"]
    result = scenes.analyze(cli, tmp_path / "run", tmp_path / "a.ome.tif", *given)
    assert result.code == 0, result.err
    assert sum(result.volumes()) == pytest.approx(sum(CELLS_UM3))
