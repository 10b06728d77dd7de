"""Partly annotated volumes through the command line: training, test, audit and refused options."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from cytovox.io import write_nifti
from tests.experiments.folders import numbers, rows, same_everywhere

SPACING = (0.6, 0.6, 0.6)
NAMES = ("HeLa-00001", "HeLa-00002", "HeLa-00003")
#: z slices of 16 that are not annotated.
IGNORED = (0, 1, 2, 3, 4, 11, 12, 13, 14, 15)
MULTI = ("data.masks=*_labels.nii.gz", "stages=[fit,test]", "trainer.max_epochs=1", "data.patches_per_epoch=2")


def labels_of(cells: Path, name: str) -> np.ndarray:
    """Labels 1 (cytoplasm) to 4 (lipid) of a simulated cell: uint8 (Z, Y, X)."""
    labels = np.zeros((16, 32, 32), np.uint8)
    for value, organelle in enumerate(("membrane", "nucleus", "nucleolus", "lipid"), start=1):
        stored = np.asarray(nib.load(cells / f"{name}_{organelle}.nii.gz").dataobj)
        labels[stored.T != 0] = value
    return labels


@pytest.fixture
def folder(cells: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write the tomograms with multi-label files whose slices `IGNORED` hold another value."""

    def write(name: str, value: int, empty: tuple[str, ...] = ()) -> Path:
        root = tmp_path / name
        root.mkdir()
        for case in NAMES:
            shutil.copy(cells / f"{case}.TCF", root)
            labels = labels_of(cells, case)
            labels[list(IGNORED)] = value
            assert labels.any(axis=(1, 2))[5:11].all(), "the other slices hold labels"
            write_nifti(root / f"{case}_labels.nii.gz", labels if case not in empty else labels * 0, SPACING)
        return root

    return write


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_training_does_not_depend_on_what_is_in_ignored_slices(cli, folder_config, folder) -> None:
    """Slices of the ignore value, and slices drawn as empty by mistake that are not annotated: the same to the bit."""
    config = folder_config(folder("ignored", 9))
    marked = cli(config, *MULTI, "data.ignore_value=9")
    wrong = cli(config, *MULTI, f"data.root={folder('wrong', 0)}", "data.annotated_slices=labelled")
    believed = cli(config, *MULTI, f"data.root={folder('believed', 0)}")
    assert marked.errors == wrong.errors == []
    first, second, third = (weights(answer.run) for answer in (marked, wrong, believed))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], third[key]) for key in first)
    one, other = same_everywhere(marked.run), same_everywhere(wrong.run)
    assert one == other
    assert one["test/cases"] == 1
    assert 0 <= one["test/dice_membrane"] <= 1
    assert numbers(believed.run)["test/window_dice_membrane"] < one["test/window_dice_membrane"]


def test_a_test_leaves_out_a_volume_without_annotation_with_a_note(cli, folder_config, folder) -> None:
    root = folder("some", 0, empty=("HeLa-00003",))
    split = "data.split={train: [HeLa-00001.TCF], val: [], test: [HeLa-00002.TCF, HeLa-00003.TCF]}"
    words = (*MULTI, split, "data.annotated_slices=labelled")
    done = cli(folder_config(root), *words)
    assert done.code == 0, done.err
    [note] = [line for line in done.errors if "left out of the test" in line]
    assert note.startswith("note: left out of the test: ")
    assert "HeLa-00003.TCF: no z slice of its masks holds a label" in note
    assert [row["case"] for row in rows(done.run / "tables" / "test_cases.csv")] == ["HeLa-00002.TCF"]
    assert numbers(done.run)["test/cases"] == 1
    only = "data.split={train: [HeLa-00001.TCF, HeLa-00002.TCF], val: [], test: [HeLa-00003.TCF]}"
    refused = cli(folder_config(root), *words, only)
    assert refused.code == 2
    assert refused.errors == [
        "data: none of 1 test volumes has an annotated voxel; annotate a part of one, or leave out the test stage"
    ]


def test_a_training_volume_without_annotation_is_one_line(cli, folder_config, folder) -> None:
    root = folder("some", 0, empty=("HeLa-00001",))
    words = (*MULTI, "stages=[fit]", "data.annotated_slices=labelled")
    refused = cli(folder_config(root), *words)
    assert refused.code == 2
    [error] = refused.errors
    assert "HeLa-00001.TCF: no z slice of its masks holds a label (data.annotated_slices labelled)" in error
    audited = cli(folder_config(root), *words, "--check")
    assert audited.code == 2
    assert "unannotated" in audited.out
    assert "the test leaves it out" not in audited.out


def test_the_audit_reports_the_annotated_share_of_each_volume(cli, folder_config, folder) -> None:
    config = folder_config(folder("marked", 9))
    done = cli(config, *MULTI, "data.ignore_value=9", "--check")
    assert done.code == 0, done.err
    text = " ".join(done.out.replace("│", " ").split())
    assert text.count("partly-annotated") == 3
    assert text.count("annotated voxels: 37.5 % (membrane, nucleus,") == 3
    for kind in ("misplaced", "outside", "full-mask", "not-annotated"):
        assert kind not in done.out
    assert "partly-annotated" not in cli(config, *MULTI, f"data.root={folder('whole', 0)}", "--check").out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("data.ignore_value=0",), "data.ignore_value: expected a whole number from 1 to 65535 or null, got 0"),
        (("data.ignore_value=3",), "data.ignore_value: 3 is also a value of membrane, nucleus, nucleolus"),
        (("data.ignore_value=none",), "data.ignore_value: "),
        (("data.annotated_slices=some",), "data.annotated_slices: "),
    ],
)
def test_bad_options_are_one_line(cli, folder_config, cells, words, error) -> None:
    refused = cli(folder_config(cells), "data.masks=*_labels.nii.gz", *words)
    assert refused.code == 2
    assert len(refused.errors) == 1
    assert error in refused.errors[0]


def test_the_cells_task_and_the_simulator_refuse_the_options(cli, cells) -> None:
    words = (f"data.root={cells}", "data.volumes=*.TCF", "data.masks=*_{organelle}.nii.gz", "data.source=folder")
    for option in ("data.ignore_value=9", "data.annotated_slices=labelled"):
        refused = cli("cells", *words, option)
        assert refused.code == 2
        assert len(refused.errors) == 1
        assert f"{option.partition('=')[0]}: labels of cells are read as completely annotated" in refused.errors[0]
        assert cli("organelle_demo", option).code == 2
