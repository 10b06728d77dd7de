"""Masks and labels as other programs write them, through every command: known volumes and counts, or a refusal.

Every variant of values goes through `analyze` (cells=, organelles=, corrections), `cells_from_masks` and training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.io import write_omezarr
from datamodules.config import FolderData
from datamodules.folder import find_cases
from tests.experiments import scenes
from tests.experiments.scenes import CELLS_UM3, NUCLEI_UM3, NUCLEUS_UM3, SHAPE, SPACING, VOXEL_UM3


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    scenes.quick(monkeypatch)


@pytest.fixture
def field(tmp_path) -> Path:
    """A folder with one tomogram, a.ome.tif."""
    scenes.tomogram(tmp_path / "a.ome.tif")
    return tmp_path


def zarr(path: Path, array: np.ndarray) -> Path:
    return write_omezarr(path.with_name(path.name.replace(".tif", ".ome.zarr")), array[None, None], SPACING, ("mask",))


def as_tif(path: Path, array: np.ndarray) -> Path:
    return scenes.ome(path, array)


def as_plain(path: Path, array: np.ndarray) -> Path:
    return scenes.plain(path, array)


def as_nifti(path: Path, array: np.ndarray) -> Path:
    return scenes.nifti(path.with_name(path.name.replace(".tif", ".nii.gz")), array)


def huge(labels: np.ndarray, step: int) -> np.ndarray:
    return labels.astype(np.uint64) * np.uint64(step)


def soft(labels: np.ndarray) -> np.ndarray:
    """Probabilities: 0.9 inside, 0.2 outside, 0.5 in one slice of what is inside."""
    values = np.where(labels > 0, 0.9, 0.2).astype(np.float32)
    values[4][labels[4] > 0] = 0.5
    return values


Make = Callable[[np.ndarray], np.ndarray]
Write = Callable[[Path, np.ndarray], Path]

#: Values of labels that must all be read as three objects: name, values, file.
LABELS: dict[str, tuple[Make, Write]] = {
    "uint8": (lambda m: m.astype(np.uint8), as_tif),
    "uint16, plain TIFF": (lambda m: m.astype(np.uint16), as_plain),
    "uint32": (lambda m: m.astype(np.uint32), as_nifti),
    "int32 with gaps": (lambda m: (m * 300).astype(np.int32), as_nifti),
    "float32 of whole numbers": (lambda m: m.astype(np.float32), as_tif),
    "float64 of whole numbers": (lambda m: m.astype(np.float64), as_nifti),
    "above 65535": (lambda m: (m * 70_000).astype(np.int32), as_tif),
    "above 2^31": (lambda m: np.where(m > 0, m + 2**31, 0).astype(np.uint32), as_plain),
    "multiples of 65536, uint32": (lambda m: (m * 65_536).astype(np.uint32), as_nifti),
    "above 2^32": (lambda m: huge(m, 2**33), zarr),
    "above 2^63": (lambda m: huge(m, 2**62 + 5), zarr),
    "-1 as background": (lambda m: np.where(m > 0, m, -1).astype(np.int16), as_nifti),
    "-1 as background, int32": (lambda m: np.where(m > 0, m, -1).astype(np.int32), as_tif),
    "big-endian": (lambda m: m.astype(">u2"), as_plain),
}
#: One value, read as a mask: its three parts are the objects.
MASKS: dict[str, tuple[Make, Write]] = {
    "0 and 255": (lambda m: np.where(m > 0, 255, 0).astype(np.uint8), as_tif),
    "0 and 255, NIfTI": (lambda m: np.where(m > 0, 255, 0).astype(np.uint8), as_nifti),
    "0 and 1": (lambda m: (m > 0).astype(np.uint8), as_plain),
    "0 and 65535": (lambda m: np.where(m > 0, 65_535, 0).astype(np.uint16), as_tif),
    "bool": (lambda m: m > 0, zarr),
    "float32 0 and 1": (lambda m: (m > 0).astype(np.float32), as_tif),
    "float64 0 and 255": (lambda m: np.where(m > 0, 255.0, 0.0), as_nifti),
    "0 and 2": (lambda m: np.where(m > 0, 2, 0).astype(np.uint8), as_tif),
    "-1 and 1": (lambda m: np.where(m > 0, 1, -1).astype(np.int8), as_nifti),
    "probabilities": (soft, as_tif),
    "probabilities, float64": (lambda m: soft(m).astype(np.float64), as_nifti),
}


def spoilt(value: float) -> Make:
    def make(labels: np.ndarray) -> np.ndarray:
        values = (labels > 0).astype(np.float32)
        values[0, 0, 0] = value
        return values

    return make


def nested(labels: np.ndarray) -> np.ndarray:
    """Organelles by their values, in the first cell: 1, within it 2, within that 3."""
    values = (labels == 1).astype(np.uint8)
    values[3:8, 4:12, 4:12], values[4:6, 6:9, 6:9] = 2, 3
    return values


#: Values that nobody can mean: refused by every command, with these words.
REFUSED: dict[str, tuple[Make, Write, str]] = {
    "NaN": (spoilt(np.nan), as_tif, "NaN or infinite"),
    "infinity": (spoilt(np.inf), as_nifti, "NaN or infinite"),
    "fractions above 1": (spoilt(1.5), as_tif, "no whole number, such as 1.5"),
    "negative fractions": (spoilt(-0.5), as_tif, "no whole number, such as -0.5"),
    "-1 beside 0": (lambda m: np.where(m == 1, -1, m).astype(np.int16), as_nifti, "negative values"),
    "0 and -1": (lambda m: np.where(m > 0, -1, 0).astype(np.int8), as_nifti, "negative values"),
    "-2 and 1": (lambda m: np.where(m > 0, 1, -2).astype(np.int8), as_nifti, "negative values"),
    "float32 beyond its whole numbers": (
        lambda m: (m * 2.0**25).astype(np.float32), as_tif, "save the labels as integers",
    ),
    "1 and 2": (lambda m: (m > 0).astype(np.uint8) + 1, as_tif, "ilastik counts from 1"),
    "no background": (lambda m: (m + 1).astype(np.uint8), as_tif, "which one is the background"),
    "grey levels": (
        lambda m: np.random.default_rng(0).integers(0, 250, m.shape).astype(np.uint8), as_tif, "like grey levels",
    ),
    "a tomogram": (lambda m: scenes.ri(), as_tif, "no whole number"),
    "organelles by their values": (nested, as_tif, "one inside the other"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*LABELS, *MASKS])
def test_cells_that_are_given_have_their_volumes(cli, field, name):
    make, write = {**LABELS, **MASKS}[name]
    values = make(scenes.cells())
    path = write(field / "c.tif", values)
    result = scenes.analyze(cli, field / "run", field / "a.ome.tif", f"cells={path}", f"organelles={nucleus_of(field)}")
    assert result.code == 0, result.err
    assert result.volumes() == pytest.approx(CELLS_UM3)
    assert result.volumes("nucleus") == pytest.approx(NUCLEI_UM3)
    whole = result.table[result.table["compartment"] == "cell"]
    originals = sorted(whole["original_label"].dropna().astype("uint64").tolist()) if name != "above 2^63" else None
    if name in LABELS and originals is not None:
        assert originals == sorted(int(v) for v in np.unique(values) if v not in (0, -1))
        assert "3 values: read as labels" in result.err
    elif name in MASKS:
        assert originals == []
        assert "whose connected parts are the cells" in result.err


def nucleus_of(field: Path) -> Path:
    """A plain nucleus mask beside the membrane's, as one file with a channel each."""
    both = np.stack([scenes.cells() > 0, scenes.nuclei() > 0]).astype(np.uint8)
    return scenes.ome(field / "organelles.ome.tif", both, ["membrane", "nucleus"])


@pytest.mark.parametrize("name", [*LABELS, *MASKS])
def test_nuclei_that_are_given_are_one_cell_each(cli, field, name):
    make, write = {**LABELS, **MASKS}[name]
    scenes.nifti(field / "m_membrane.nii.gz", (scenes.cells() > 0).astype(np.uint8))
    path = write(field / "m_nucleus.tif", make(scenes.nuclei()))
    given = f"organelles=[{field}/m_membrane.nii.gz, {path}]"
    # files of a list are named after their input
    renamed = [Path(p).rename(str(p).replace("m_", "a_")) for p in (field / "m_membrane.nii.gz", path)]
    given = f"organelles=[{renamed[0]}, {renamed[1]}]"
    result = scenes.analyze(cli, field / "run", field / "a.ome.tif", given)
    assert result.code == 0, result.err
    assert len(result.volumes()) == 3
    assert sum(result.volumes()) == pytest.approx(sum(CELLS_UM3))
    assert result.total("nucleus") == pytest.approx(NUCLEUS_UM3)
    alone = scenes.from_masks(cli, field / "labels", renamed[0], renamed[1])
    assert alone.code == 0, alone.err
    assert alone.table is not None
    cells = alone.table[(alone.table["compartment"] == "cell") & (alone.table["cell"] > 0)]
    assert sorted(cells["volume_um3"]) == pytest.approx(result.volumes())


def loaded(field: Path, path: Path, organelle: str, **more: object) -> np.ndarray:
    """A mask as training reads it."""
    scenes.tomogram(field / "a.ome.tif")
    path.rename(path.with_name(f"a_{organelle}.{path.name.split('.', 1)[1]}"))
    data = FolderData(
        root=str(field), volumes="a.ome.tif", masks=f"{{stem}}_{{organelle}}.{path.name.split('.', 1)[1]}",
        organelles=[organelle], **more,
    )  # type: ignore[arg-type]  # fmt: skip
    (case,) = find_cases(data)
    return case.load().masks_KZYX[0]


@pytest.mark.parametrize("name", [*LABELS, *MASKS])
def test_training_reads_the_same_cells_and_nuclei(tmp_path, name):
    make, write = {**LABELS, **MASKS}[name]
    cells = loaded(tmp_path, write(tmp_path / "x.tif", make(scenes.cells())), "cells")
    sizes = np.bincount(cells.ravel())[1:]
    assert sorted(sizes[sizes > 0] * VOXEL_UM3) == pytest.approx(CELLS_UM3)
    nucleus = loaded(tmp_path, write(tmp_path / "y.tif", make(scenes.nuclei())), "nucleus")
    assert nucleus.sum() * VOXEL_UM3 == pytest.approx(NUCLEUS_UM3)
    assert nucleus.max() == 1


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_neither_a_mask_nor_labels_is_refused_by_every_command(cli, field, name):
    make, write, words = REFUSED[name]
    path = write(field / "x.tif", make(scenes.cells()))
    with pytest.raises(InputError, match=words):
        loaded(field, write(field / "y.tif", make(scenes.cells())), "cells")
    result = scenes.analyze(cli, field / "run", field / "a.ome.tif", f"cells={path}", f"organelles={nucleus_of(field)}")
    assert (result.code, result.table is None or not len(result.table)) == (3, True)
    assert words in result.err
    membrane = scenes.nifti(field / "m.nii.gz", (scenes.cells() > 0).astype(np.uint8))
    refused = scenes.from_masks(cli, field / "labels", membrane, path)
    assert refused.code == 2
    assert words in refused.err
    assert not (field / "labels").exists()
    checked = cli(
        "analyze", f"inputs=[{field}/a.ome.tif]", f"cells={path}", f"organelles={path}", "method=watershed", "--check",
    )  # fmt: skip
    assert checked.code == 2
    assert words in checked.err


def test_shape_of_the_scene_is_what_the_numbers_say():
    assert scenes.cells().shape == SHAPE
    assert len(np.unique(scenes.cells())) == 4


def test_a_mask_without_background_is_refused_though_it_is_called_binary(cli, field):
    path = as_plain(field / "c.tif", (scenes.cells() > 0).astype(np.uint8) + 1)
    given = [f"cells={path}", f"organelles={nucleus_of(field)}", "labels=binary"]
    result = scenes.analyze(cli, field / "run", field / "a.ome.tif", *given)
    assert result.code == 3
    assert "which one is the background" in result.err
    nuclei = scenes.nifti(field / "n.nii.gz", scenes.nuclei().astype(np.uint8))
    alone = scenes.from_masks(cli, field / "labels", path, nuclei, "labels={membrane: binary}")
    assert alone.code == 2
    assert "which one is the background" in alone.err


def test_an_inverted_mask_and_hollow_cells_are_said(cli, field):
    inverted = as_tif(field / "i.tif", np.where(scenes.cells() > 0, 0, 255).astype(np.uint8))
    nuclei = scenes.nifti(field / "n.nii.gz", scenes.nuclei().astype(np.uint8))
    result = scenes.from_masks(cli, field / "labels", inverted, nuclei)
    assert "i.tif: nearly every voxel on the sides of the field is inside; is the mask inverted?" in result.err
    assert "n.nii.gz: nearly" not in result.err
    hollow = scenes.cells()
    hollow[4, 6, 6] = 0
    path = as_tif(field / "c.tif", hollow.astype(np.uint8))
    result = scenes.analyze(cli, field / "run", field / "a.ome.tif", f"cells={path}", f"organelles={nucleus_of(field)}")
    assert "1 voxels lie in holes of the given cells" in result.err


def with_affine(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array.astype(np.int16).T, affine), path)
    return path


def test_labels_of_nibabel_lie_as_the_array_or_are_refused_as_perhaps_mirrored(cli, field):
    """The identity tells no directions; any other affine may or may not be meant."""
    given = f"organelles={nucleus_of(field)}"
    plain = with_affine(field / "c.nii", scenes.cells(), np.eye(4))
    result = scenes.analyze(cli, field / "run", field / "a.ome.tif", f"cells={plain}", given)
    assert result.code == 0, result.err
    rows = result.table[(result.table["compartment"] == "cell") & (result.table["cell"] > 0)]
    assert (rows["mean_ri"] > 1.356).all()
    assert "mirrors" not in result.err
    ras = with_affine(field / "r.nii", scenes.cells(), np.diag([0.0005, 0.0005, 0.0006, 1.0]))
    result = scenes.analyze(cli, field / "other", field / "a.ome.tif", f"cells={ras}", given)
    assert result.code == 3
    assert "r.nii: its header mirrors x, y, but a.ome.tif states no directions" in result.err
    result = scenes.analyze(cli, field / "other", field / "a.ome.tif", f"cells={ras}", given, "mask_axes=header")
    assert result.code == 0, result.err
    assert "r.nii: its header mirrors x, y against ITK-SNAP's order" in result.err


def test_masks_that_are_swapped_are_said_in_both_commands(cli, field):
    cells = scenes.nifti(field / "a_nucleus.nii.gz", (scenes.cells() > 0).astype(np.uint8))
    nuclei = scenes.nifti(field / "a_membrane.nii.gz", (scenes.nuclei() > 0).astype(np.uint8))
    words = f"{100 * (1 - NUCLEUS_UM3 / sum(CELLS_UM3)):.0f} % of the nuclei lie outside the cells"
    assert words in scenes.from_masks(cli, field / "labels", nuclei, cells).err
    assert "lie outside" not in scenes.from_masks(cli, field / "right", cells, nuclei).err
    given = f"organelles={field}/{{stem}}_{{organelle}}.nii.gz"
    assert words in scenes.analyze(cli, field / "run", field / "a.ome.tif", given).err
