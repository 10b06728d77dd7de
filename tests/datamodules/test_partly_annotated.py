"""Volumes of which only a part is annotated: reading, errors, cache and patches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.io import write_nifti, write_ometiff
from cytovox.organelles import UNDRAWN
from datamodules.cases import FolderCase
from datamodules.cells_config import CellsFolder, cells_data_errors
from datamodules.config import FolderData, data_errors
from datamodules.errors import NotAnnotatedError
from datamodules.folder import find_cases
from datamodules.organelle import OrganelleDataModule, RawCases, is_annotated
from datamodules.prepare import Preparer
from datamodules.sampling import PatchDataset

SHAPE, SPACING = (8, 12, 14), (0.5, 0.25, 0.25)
ORGANELLES = ("membrane", "nucleus")
LABELS = {"membrane": (1, 2), "nucleus": (2,)}


def _labels() -> np.ndarray:
    """Membrane 1 with a nucleus 2, in every slice but the first and the last."""
    labels = np.zeros(SHAPE, np.uint16)
    labels[1:7, 2:10, 2:12], labels[2:6, 4:8, 4:8] = 1, 2
    return labels


def _file(tmp_path: Path, name: str, array: np.ndarray) -> Path:
    return write_nifti(tmp_path / f"{name}.nii.gz", array, SPACING)


def _case(tmp_path: Path, masks: dict[str, Path] | None = None, label_file: Path | None = None, **more: object):
    ri = np.random.default_rng(0).uniform(1.337, 1.39, SHAPE).astype(np.float32)
    volume = tmp_path / "a.nii.gz"
    if not volume.exists():
        write_nifti(volume, ri, SPACING)
    return FolderCase("a", volume, masks or {}, label_file, LABELS, ORGANELLES, "a", "a", **more)  # type: ignore[arg-type]


def _config(tmp_path: Path, **more: object) -> FolderData:
    options = {"cache_dir": str(tmp_path / "cache"), "resample_spacing_um": list(SPACING), **more}
    return FolderData(organelles=list(ORGANELLES), root=str(tmp_path), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [3, 255, 65_535])
def test_an_ignored_voxel_of_a_multi_label_file_is_annotated_for_no_organelle(tmp_path: Path, value: int) -> None:
    labels = _labels()
    labels[:, :, :5], labels[0, 0, 0] = value, 0
    raw = _case(tmp_path, label_file=_file(tmp_path, "m", labels), ignore_value=value).load()
    expected = np.stack([labels > 0, labels == 2]).astype(np.uint8)
    expected[:, labels == value] = UNDRAWN
    np.testing.assert_array_equal(raw.masks_KZYX, expected)
    assert raw.labelled_K.all()


@pytest.mark.parametrize("inside", [1, 7, 255])
def test_an_ignored_voxel_of_a_mask_is_not_annotated_for_its_organelle_alone(tmp_path: Path, inside: int) -> None:
    nucleus = (_labels() == 2) * np.uint8(inside)
    nucleus[4:] = 2
    membrane = (_labels() > 0).astype(np.uint8)
    masks = {"membrane": _file(tmp_path, "e", membrane), "nucleus": _file(tmp_path, "n", nucleus)}
    raw = _case(tmp_path, masks, ignore_value=2).load()
    np.testing.assert_array_equal(raw.masks_KZYX[0], membrane)
    expected = (_labels() == 2).astype(np.uint8)
    expected[4:] = UNDRAWN
    np.testing.assert_array_equal(raw.masks_KZYX[1], expected)


def test_the_meaning_of_the_other_values_does_not_depend_on_ignored_voxels(tmp_path: Path) -> None:
    """Probabilities and -1 as background, and an ignored region that would look like a second organelle."""
    soft = np.where(_labels() == 2, 0.75, 0.25).astype(np.float32)
    soft[:, :2] = 255
    raw = _case(tmp_path, {"nucleus": _file(tmp_path, "p", soft)}, ignore_value=255).load()
    expected = (_labels() == 2).astype(np.uint8)
    expected[:, :2] = UNDRAWN
    np.testing.assert_array_equal(raw.masks_KZYX[1], expected)
    from_one = np.where(_labels() == 2, 5, -1).astype(np.int16)
    from_one[:, :2] = 9
    raw = _case(tmp_path, {"nucleus": _file(tmp_path, "b", from_one)}, ignore_value=9).load()
    np.testing.assert_array_equal(raw.masks_KZYX[1], expected)


def test_with_labelled_slices_the_others_are_not_annotated_for_the_organelles_of_the_file(tmp_path: Path) -> None:
    labels = _labels()
    labels[3:] = 0  # slices 1 and 2 are drawn; slice 1 has no nucleus
    nucleus = np.zeros(SHAPE, np.uint8)
    nucleus[4, 4:8, 4:8] = 1
    multi = _case(tmp_path, label_file=_file(tmp_path, "m", labels), annotated_slices="labelled").load()
    drawn = np.array([False, True, True, False, False, False, False, False])
    for k, mask in enumerate((labels > 0, labels == 2)):
        np.testing.assert_array_equal(multi.masks_KZYX[k][drawn], mask[drawn])
        assert (multi.masks_KZYX[k][~drawn] == UNDRAWN).all()
    own = {"nucleus": _file(tmp_path, "n", nucleus)}
    both = _case(tmp_path, own, _file(tmp_path, "m", labels), annotated_slices="labelled").load()
    np.testing.assert_array_equal(both.masks_KZYX[0], multi.masks_KZYX[0])
    assert np.flatnonzero((both.masks_KZYX[1] != UNDRAWN).any(axis=(1, 2))).tolist() == [4]


def test_a_slice_of_ignored_voxels_alone_holds_no_label(tmp_path: Path) -> None:
    nucleus = np.zeros(SHAPE, np.uint8)
    nucleus[2, 4:8, 4:8], nucleus[2, 0], nucleus[5] = 1, 9, 9
    case = _case(
        tmp_path, {"nucleus": _file(tmp_path, "n", nucleus)}, ignore_value=9, annotated_slices="labelled"
    )  # fmt: skip
    mask = case.load().masks_KZYX[1]
    assert np.flatnonzero((mask != UNDRAWN).any(axis=(1, 2))).tolist() == [2]
    assert (mask[2, 0] == UNDRAWN).all()
    assert (mask[2, 1:] != UNDRAWN).all()


def test_the_channels_of_a_file_share_their_labelled_slices(tmp_path: Path) -> None:
    channels = np.zeros((1, 2, *SHAPE), np.uint8)
    channels[0, 0, 2, 2:10, 2:12], channels[0, 1, 5, 4:8, 4:8] = 1, 1
    path = write_ometiff(tmp_path / "m.ome.tif", channels, SPACING, list(ORGANELLES))
    raw = _case(tmp_path, label_file=path, annotated_slices="labelled").load()
    for mask in raw.masks_KZYX:
        assert np.flatnonzero((mask != UNDRAWN).any(axis=(1, 2))).tolist() == [2, 5]
    assert not (raw.masks_KZYX[0, 5] == 1).any()


def test_a_correction_is_annotated_in_all_slices_and_may_have_ignored_voxels(tmp_path: Path) -> None:
    _case(tmp_path)
    _file(tmp_path, "a_membrane", (_labels() > 0) * (np.arange(SHAPE[0]) == 3)[:, None, None].astype(np.uint8))
    corrected = (_labels() == 2).astype(np.uint8)
    corrected[:, 0] = 9
    _file(tmp_path / "fixed", "a_nucleus_corrected", corrected) if (tmp_path / "fixed").mkdir() is None else None
    config = _config(
        tmp_path, volumes="a.nii.gz", masks="{stem}_{organelle}.nii.gz", corrections="fixed", ignore_value=9,
        annotated_slices="labelled",
    )  # fmt: skip
    [case] = find_cases(config)
    raw = case.load()
    assert case.corrected == {"nucleus"}
    assert np.flatnonzero((raw.masks_KZYX[0] != UNDRAWN).any(axis=(1, 2))).tolist() == [3]
    assert (raw.masks_KZYX[1, :, 0] == UNDRAWN).all()
    np.testing.assert_array_equal(raw.masks_KZYX[1, :, 1:], corrected[:, 1:])


def test_a_volume_without_an_annotated_voxel_is_one_line_and_left_out_of_a_test(tmp_path: Path) -> None:
    empty, ignored = (_file(tmp_path, name, np.full(SHAPE, v, np.uint8)) for name, v in (("e", 0), ("i", 9)))
    slices = _case(tmp_path, {"nucleus": empty}, annotated_slices="labelled")
    voxels = _case(tmp_path, {"nucleus": ignored}, ignore_value=9)
    for case, why in ((slices, "no z slice of its masks holds a label"), (voxels, "data.ignore_value 9")):
        with pytest.raises(NotAnnotatedError, match=why) as error:
            Preparer(_config(tmp_path)).prepare([case])
        assert "\n" not in str(error.value)
        assert str(case.volume) in str(error.value)
        assert RawCases([case])[0] is None
        assert not is_annotated(case)
        assert not is_annotated(case)
        assert sum(note.startswith("left out of the test: ") for note in case.notes) == 1
    assert _case(tmp_path, {"nucleus": empty}).load().labelled_K.tolist() == [False, True], "as without the option"


def test_an_organelle_without_an_annotated_voxel_is_unlabelled_with_a_note(tmp_path: Path) -> None:
    masks = {"membrane": _file(tmp_path, "m", (_labels() > 0).astype(np.uint8))}
    masks["nucleus"] = _file(tmp_path, "n", np.zeros(SHAPE, np.uint8))
    case = _case(tmp_path, masks, annotated_slices="labelled")
    assert case.load().labelled_K.tolist() == [True, False]
    assert case.notes == ["n.nii.gz: no voxel is annotated: nucleus counts as unlabelled in this volume"]


def test_a_mask_of_the_background_and_the_ignore_value_alone_gets_a_note(tmp_path: Path) -> None:
    """Its foreground is probably 255 by mistake."""
    case = _case(tmp_path, {"nucleus": _file(tmp_path, "n", (_labels() == 2) * np.uint8(255))}, ignore_value=255)
    case.load()
    assert case.notes == ["n.nii.gz: holds only the background and data.ignore_value 255, and no nucleus"]


def test_a_label_that_is_neither_listed_nor_ignored_is_refused(tmp_path: Path) -> None:
    labels = _labels()
    labels[0, 0, 0], labels[0, 0, 1] = 9, 8
    with pytest.raises(InputError, match="label 8 is in no organelle of label_values"):
        _case(tmp_path, label_file=_file(tmp_path, "m", labels), ignore_value=9).load()


def test_cache_and_digest_depend_on_the_options_and_on_nothing_new_without_them(tmp_path: Path) -> None:
    case = _case(tmp_path, {"nucleus": _file(tmp_path, "n", (_labels() == 2).astype(np.uint8))})
    others = [
        case,
        replace(case, ignore_value=9),
        replace(case, ignore_value=8),
        replace(case, annotated_slices="labelled"),
        replace(case, annotated_slices="labelled", corrected=frozenset(["nucleus"])),
    ]
    preparer = Preparer(_config(tmp_path))
    assert len({preparer.entry_of(one)[0].path for one in others}) == len(others)
    digests = set()
    for one in others:
        data = OrganelleDataModule(_config(tmp_path), 0)
        data.cases = {"train": [one]}
        digests.add(data.digest())
    assert len(digests) == len(others)
    assert case.settings.endswith(" auto"), "runs of earlier versions can be resumed"
    keys = {Preparer(_config(tmp_path, **more)).entry_of(case)[0].path for more in ({}, {"ignore_value": 9})}
    assert len(keys) == 2


def test_patches_of_a_prepared_volume_are_cut_at_its_only_annotated_slice(tmp_path: Path) -> None:
    nucleus = np.zeros((40, 30, 30), np.uint8)
    nucleus[31, 4:8, 4:8] = 1
    write_nifti(tmp_path / "a.nii.gz", np.full(nucleus.shape, 1.34, np.float32), SPACING)
    case = _case(tmp_path, {"nucleus": _file(tmp_path, "n", nucleus)}, annotated_slices="labelled")
    config = _config(tmp_path, patch_size=[6, 8, 8])
    data = OrganelleDataModule(config, 3)
    data.cases, data.prepared = {"train": [case]}, {"train": Preparer(config).prepare([case])}
    arrays = data.prepared["train"][0].arrays()
    assert set(arrays["annotated"][:, 0]) == {31}
    assert set(arrays["centres_1"][:, 0]) == {31}
    patches = PatchDataset(data.prepared["train"], data._augmentation(), 3)
    annotated = [(patches[0, index]["mask"][1] != UNDRAWN).any() for index in range(60)]
    assert all(annotated)


def test_a_region_that_vanishes_on_a_coarse_grid_is_one_line(tmp_path: Path) -> None:
    nucleus = np.full(SHAPE, 9, np.uint8)
    nucleus[4, 6, 6] = 1
    case = _case(tmp_path, {"nucleus": _file(tmp_path, "n", nucleus)}, ignore_value=9)
    with pytest.raises(InputError, match="no annotated voxel is left on the common grid"):
        Preparer(_config(tmp_path, resample_spacing_um=[2.0, 2.0, 2.0])).prepare([case])


def _errors(**more: object) -> list[str]:
    options = {"volumes": "*.TCF", "masks": "*_{organelle}.nii.gz", **more}
    return data_errors(FolderData(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, 65_536, True])
def test_an_impossible_ignore_value_is_one_line(value: object) -> None:
    [error] = _errors(ignore_value=value)
    assert error.startswith("ignore_value: expected a whole number from 1 to 65535 or null, got ")


def test_an_ignore_value_that_is_a_label_of_a_multi_label_file_is_one_line() -> None:
    assert _errors(ignore_value=3) == [], "label_values is not used with one file per organelle"
    [error] = _errors(ignore_value=3, masks="*_labels.nii.gz")
    assert error.startswith("ignore_value: 3 is also a value of membrane, nucleus, nucleolus in data.label_values")
    assert len(_errors(ignore_value=3, table="t.csv")) == 1
    assert _errors(ignore_value=5, masks="*_labels.nii.gz") == []


def test_labels_of_cells_have_neither_option() -> None:
    config = CellsFolder(volumes="*.TCF", masks="*_{organelle}.nii.gz", ignore_value=9, annotated_slices="labelled")
    errors = cells_data_errors(config)
    assert [error.partition(":")[0] for error in errors] == ["ignore_value", "annotated_slices"]
    assert cells_data_errors(CellsFolder(volumes="*.TCF", masks="*_{organelle}.nii.gz")) == []
