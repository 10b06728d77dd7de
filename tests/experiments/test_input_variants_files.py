"""Channels, frames, names and voxel sizes of masks, through the commands: known volumes, or a refusal that says why."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cytovox.io import write_ometiff
from tests.experiments import scenes
from tests.experiments.scenes import CELLS_UM3, MEMBRANE_UM3, NUCLEUS_UM3, SPACING


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    scenes.quick(monkeypatch)


def masks() -> np.ndarray:
    """Membrane and nucleus: uint8 (2, Z, Y, X)."""
    return np.stack([scenes.cells() > 0, scenes.nuclei() > 0]).astype(np.uint8)


def by_values() -> np.ndarray:
    """Cells 1, nuclei 2: uint8 (Z, Y, X)."""
    return np.where(scenes.nuclei() > 0, 2, (scenes.cells() > 0) * 1).astype(np.uint8)


#: One file of membrane and nucleus: how it is written, and words of the note. All hold the same masks.
ONE_FILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "channels in order": (lambda p: scenes.ome(p, masks(), ["membrane", "nucleus"]), ""),
    "channels in another order": (lambda p: scenes.ome(p, masks()[::-1], ["Nucleus", "Membrane"]), ""),
    "other names": (lambda p: scenes.ome(p, masks()[::-1], ["DAPI mask", "Plasma_membrane"]), ""),
    "nuclei and cells": (lambda p: scenes.ome(p, masks()[::-1], ["NUCLEI", "cell membrane"]), ""),
    "one channel more": (
        lambda p: scenes.ome(p, np.stack([masks()[1], masks()[0] * 0, masks()[0]]), ["nucleus", "actin", "membrane"]),
        "left out: actin",
    ),
    "no names": (lambda p: scenes.ome(p, masks(), ["Channel:0:0", "Channel:0:1"]), "read as 0 membrane, 1 nucleus"),
    "a value each": (lambda p: scenes.ome(p, by_values()), "nucleus 2 3"),
    "a value each, plain TIFF": (lambda p: scenes.plain(p, by_values()), "nucleus 2 3"),
    "probabilities": (
        lambda p: scenes.ome(p, (0.25 + 0.5 * masks()).astype(np.float32), ["membrane", "nucleus"]),
        "inside from 0.5",
    ),
}


@pytest.mark.parametrize("name", list(ONE_FILE))
def test_one_file_of_all_organelles_is_distinguished_by_names_or_values(cli, tmp_path, name):
    write, words = ONE_FILE[name]
    scenes.tomogram(tmp_path / "a.ome.tif")
    write(tmp_path / "a_masks.tif")
    given = f"organelles={tmp_path}/{{stem}}_masks.tif"
    result = scenes.analyze(cli, tmp_path / "run", tmp_path / "a.ome.tif", given)
    assert result.code == 0, result.err
    assert words in result.err
    assert result.total("membrane", 0) + sum(result.volumes()) == pytest.approx(MEMBRANE_UM3)
    assert len(result.volumes()) == 3
    assert result.total("nucleus") == pytest.approx(NUCLEUS_UM3)


REFUSED_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "too many channels without names": (
        lambda p: scenes.ome(p, np.repeat(masks(), 3, 0), [f"CH{c}" for c in range(6)]), "6 channels without names",
    ),
    "unknown names": (lambda p: scenes.ome(p, masks(), ["actin", "tubulin"]), "(actin, tubulin)"),
    "a name twice": (lambda p: scenes.ome(p, masks(), ["nucleus", "nuclei"]), "(nucleus, nuclei)"),
    "an unknown value": (lambda p: scenes.ome(p, by_values() * 3), "label 6 is in no organelle of label_values"),
    "another shape": (lambda p: scenes.ome(p, masks()[:, 1:], ["membrane", "nucleus"]), "save both on one grid"),
    "another voxel size": (
        lambda p: write_ometiff(p, masks()[None], (0.6, 0.5, 0.25), ["membrane", "nucleus"]), "voxel size",
    ),
    "colours that differ": (
        lambda p: scenes.plain(p, np.stack([*masks(), masks()[0] * 0], -1) * 255, photometric="rgb"), "colour",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED_FILES))
def test_a_file_that_is_not_clear_is_refused_with_what_it_holds(cli, tmp_path, name):
    write, words = REFUSED_FILES[name]
    scenes.tomogram(tmp_path / "a.ome.tif")
    write(tmp_path / "a_masks.tif")
    given = f"organelles={tmp_path}/{{stem}}_masks.tif"
    result = scenes.analyze(cli, tmp_path / "run", tmp_path / "a.ome.tif", given)
    assert result.code == 3
    assert words in result.err
    assert not len(result.table)
    checked = cli("analyze", f"inputs=[{tmp_path}/a.ome.tif]", given, "method=watershed", "--check")
    assert (checked.code, words in checked.err) == (2, True), checked.err


def labels16() -> np.ndarray:
    return scenes.cells().astype(np.uint16)


#: One file of labels of cells.
CELL_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "slices stored as frames": (
        lambda p: write_ometiff(p, labels16()[:, None, None], SPACING, ["cells"]), "frames of one slice are read as",
    ),
    "slices stored as channels": (
        lambda p: write_ometiff(p, labels16()[None, :, None], SPACING, [f"C{c}" for c in range(10)]), "slices",
    ),
    "a grey colour image": (
        lambda p: scenes.plain(p, np.repeat(np.uint8(80) * scenes.cells().astype(np.uint8)[..., None], 3, -1),
                               photometric="rgb"), "",
    ),
    "no voxel size": (lambda p: scenes.plain(p, labels16()), ""),
    "um written as mm": (lambda p: scenes.nifti(p, labels16(), (600.0, 500.0, 500.0)), "read as its tomogram"),
    "a channel of its own name": (lambda p: scenes.ome(p, labels16(), ["Otsu 3"]), ""),
    "one of several channels": (
        lambda p: scenes.ome(p, np.stack([labels16() * 0, labels16()]), ["nuclei", "Cell labels"]),
        "channel Cell labels of 2 is read as cells",
    ),
    "ImageJ": (
        lambda p: scenes.plain(p, labels16(), imagej=True, resolution=(2, 2),
                               metadata={"spacing": 0.6, "unit": "micron", "axes": "ZYX"}), "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CELL_FILES))
def test_labels_in_any_file_have_their_volumes(cli, tmp_path, name):
    write, words = CELL_FILES[name]
    scenes.tomogram(tmp_path / "a.ome.tif")
    path = write(tmp_path / ("c.nii.gz" if "mm" in name else "c.tif"))
    scenes.ome(tmp_path / "m.tif", masks(), ["membrane", "nucleus"])
    result = scenes.analyze(
        cli, tmp_path / "run", tmp_path / "a.ome.tif", f"cells={path}", f"organelles={tmp_path}/m.tif"
    )
    assert result.code == 0, result.err
    assert words in result.err
    assert result.volumes() == pytest.approx(CELLS_UM3)


def test_thirteen_touching_cells_of_0_and_255_are_thirteen(cli, tmp_path):
    """Four rows of cells without a gap, their nuclei apart."""
    membrane, nucleus = np.zeros((12, 40, 52), np.uint8), np.zeros((12, 40, 52), np.uint8)
    for number in range(13):
        y, x = 10 * (number // 5) + 2, 10 * (number % 5) + 1
        membrane[1:11, y : y + 10, x : x + 10] = 255
        nucleus[3:9, y + 2 : y + 8, x + 2 : x + 8] = 255
    for kind, value in (("nii.gz", 255), ("ome.tif", 1)):
        paths = [tmp_path / f"{name}.{kind}" for name in ("membrane", "nucleus")]
        for path, mask in zip(paths, (membrane, nucleus), strict=True):
            (scenes.nifti if kind == "nii.gz" else scenes.ome)(path, mask // 255 * value)
        result = scenes.from_masks(cli, tmp_path / kind, *paths)
        assert result.code == 0, result.err
        assert "cells: 13 in 1 frames" in result.out
        whole = result.table[(result.table["compartment"] == "cell") & (result.table["cell"] > 0)]
        assert whole["volume_um3"].sum() == pytest.approx(13 * 1000 * scenes.VOXEL_UM3)
        assert whole["volume_um3"].tolist() == pytest.approx([1000 * scenes.VOXEL_UM3] * 13, rel=0.15)
    as_one = scenes.from_masks(cli, tmp_path / "one", *paths, "labels=instances")
    assert "cells: 1 in 1 frames" in as_one.out
    checked = cli(
        "cells_from_masks", f"membrane={paths[0]}", f"nucleus={paths[1]}", f"out={tmp_path}/none",
        f"runs_dir={tmp_path}/runs", "method=watershed",
        "--check",
    )  # fmt: skip
    assert checked.code == 0
    assert "13 connected parts" in checked.out
    assert not (tmp_path / "none").exists()


def test_touching_nuclei_that_are_labelled_are_distinguished_in_both_commands(cli, tmp_path):
    """Two nuclei share a face: one part of a mask, but two labels."""
    nuclei = scenes.filled([((3, 5, 6), (5, 8, 8)), ((3, 5, 14), (5, 8, 8))])
    cells = scenes.filled([((1, 2, 2), (8, 14, 24))])
    scenes.tomogram(tmp_path / "a.ome.tif")
    scenes.nifti(tmp_path / "a_membrane.nii.gz", cells.astype(np.uint8))
    scenes.nifti(tmp_path / "a_nucleus.nii.gz", (nuclei * 70_000).astype(np.int32))
    given = f"organelles={tmp_path}/{{stem}}_{{organelle}}.nii.gz"
    result = scenes.analyze(cli, tmp_path / "run", tmp_path / "a.ome.tif", given)
    assert len(result.volumes()) == 2
    files = [tmp_path / f"a_{name}.nii.gz" for name in ("membrane", "nucleus")]
    alone = scenes.from_masks(cli, tmp_path / "labels", *files)
    rows = alone.table[(alone.table["compartment"] == "cell") & (alone.table["cell"] > 0)]
    assert sorted(rows["volume_um3"]) == pytest.approx(result.volumes())
    assert rows["original_label"].tolist() == [70_000, 140_000]
    merged = scenes.analyze(cli, tmp_path / "other", tmp_path / "a.ome.tif", given, "labels={nucleus: binary}")
    assert len(merged.volumes()) == 1


def time_lapse(path: Path, frames: int, values: Callable[[int], np.ndarray]) -> Path:
    return scenes.ome(path, np.stack([values(t) for t in range(frames)]).astype(np.uint16), ["cells"])


def test_a_frame_of_one_label_among_many_is_a_label_image(cli, tmp_path):
    """In frame 1 the only cell lies in two parts: two cells, if that frame decided alone."""
    halves = np.where(scenes.cells() == 3, 1, 0)
    halves[:, 20:23] = 0
    scenes.tomogram(tmp_path / "a.ome.tif", 3)
    time_lapse(tmp_path / "a_cells.tif", 3, lambda t: halves if t == 1 else scenes.cells())
    result = scenes.analyze(cli, tmp_path / "run", tmp_path / "a.ome.tif", f"cells={tmp_path}/{{stem}}_cells.tif",
                            f"organelles={nothing(tmp_path, 3)}")  # fmt: skip
    assert [len(result.volumes(frame=t)) for t in range(3)] == [3, 1, 3], result.err
    binary = scenes.analyze(cli, tmp_path / "2", tmp_path / "a.ome.tif", f"cells={tmp_path}/{{stem}}_cells.tif",
                            f"organelles={nothing(tmp_path, 3)}", "labels=binary")  # fmt: skip
    assert [len(binary.volumes(frame=t)) for t in range(3)] == [3, 2, 3]


def nothing(folder: Path, frames: int = 1) -> Path:
    """Masks of membrane and nucleus for every frame."""
    return scenes.ome(folder / "organelles.tif", np.stack([masks()] * frames), ["membrane", "nucleus"])


@pytest.mark.parametrize(
    ("frames", "words"), [(1, "masks of 1 frame, but a.ome.tif has 3"), (2, "masks of 2 frames"), (4, "4 frames")]
)
def test_labels_of_another_number_of_frames_are_refused(cli, tmp_path, frames, words):
    scenes.tomogram(tmp_path / "a.ome.tif", 3)
    time_lapse(tmp_path / "a_cells.tif", frames, lambda t: scenes.cells())
    result = scenes.analyze(cli, tmp_path / "run", tmp_path / "a.ome.tif", f"cells={tmp_path}/{{stem}}_cells.tif",
                            f"organelles={nothing(tmp_path, 3)}")  # fmt: skip
    assert result.code == 3
    assert words in result.err


@pytest.mark.parametrize("padded", [True, False])
def test_a_file_a_frame_is_found_padded_or_not(cli, tmp_path, padded):
    scenes.tomogram(tmp_path / "w1.ome.tif", 2)
    for stem, factor in (("w1", 1), ("w10", 0)):  # those of w10 are empty
        for t in (0, 1, 10):
            cells = factor * (scenes.cells() if t == 0 else np.where(scenes.cells() < 3, scenes.cells(), 0))
            name = f"{stem}_t{t:03d}_cells.nii.gz" if padded else f"{stem}_t{t}_cells.nii.gz"
            scenes.nifti(tmp_path / name, cells.astype(np.uint8))
    result = scenes.analyze(cli, tmp_path / "run", tmp_path / "w1.ome.tif", f"organelles={nothing(tmp_path, 2)}",
                            f"cells={tmp_path}/{{stem}}_t{{frame}}_cells.nii.gz")  # fmt: skip
    assert result.code == 0, result.err
    assert result.volumes(frame=0) == pytest.approx(CELLS_UM3)
    assert result.volumes(frame=1) == pytest.approx(sorted(CELLS_UM3)[:2])


def test_two_files_of_one_frame_and_a_frame_without_are_refused(cli, tmp_path):
    scenes.tomogram(tmp_path / "a.ome.tif", 2)
    given = [f"organelles={nothing(tmp_path, 2)}", f"cells={tmp_path}/{{stem}}_t{{frame}}_cells.nii.gz"]
    for name in ("a_t0_cells", "a_t000_cells"):
        scenes.nifti(tmp_path / f"{name}.nii.gz", scenes.cells().astype(np.uint8))
    result = scenes.analyze(cli, tmp_path / "run", tmp_path / "a.ome.tif", *given)
    assert result.code == 2
    assert "a_t000_cells.nii.gz and" in result.err
    assert "could both be its cells of frame 0" in result.err
    (tmp_path / "a_t0_cells.nii.gz").unlink()
    result = scenes.analyze(cli, tmp_path / "run", tmp_path / "a.ome.tif", *given)
    assert result.code == 3
    assert "frame 1: no file" in result.err


@pytest.fixture
def twins(tmp_path) -> Path:
    """p/f and q/f, whose labels are in m/p and m/q: all three cells of p, the first of q."""
    for folder, cells in (("p", scenes.cells()), ("q", np.where(scenes.cells() == 1, 5, 0))):
        scenes.tomogram(tmp_path / folder / "f.ome.tif")
        scenes.nifti(tmp_path / "m" / folder / "f_cells.nii.gz", cells.astype(np.uint8))
        scenes.nifti(tmp_path / "flat" / f"{folder}_f_cells.nii.gz", cells.astype(np.uint8))
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    ["m/{relative}_cells.nii.gz", "m/{parent}/{stem}_cells.nii.gz", "m/{parent}/*.nii.gz",
     "flat/{parent}_{stem}_cells.nii.gz", "m/**/{parent}/{stem}_*.nii.gz", "[m]/{relative}_cells.nii.gz"],
)  # fmt: skip
def test_inputs_of_one_name_have_their_own_labels(cli, twins, pattern):
    result = scenes.analyze(cli, twins / "run", f"{twins}/p/f.ome.tif, {twins}/q/f.ome.tif",
                            f"cells={twins}/{pattern}", f"organelles={twins}/o/{{parent}}.tif")  # fmt: skip
    assert result.code == 3  # there are no organelles
    for folder in ("p", "q"):
        scenes.ome(twins / "o" / f"{folder}.tif", masks(), ["membrane", "nucleus"])
    result = scenes.analyze(cli, twins / "run", f"{twins}/p/f.ome.tif, {twins}/q/f.ome.tif",
                            f"cells={twins}/{pattern}", f"organelles={twins}/o/{{parent}}.tif")  # fmt: skip
    assert result.code == 0, result.err
    assert result.volumes(file="p_f") == pytest.approx(CELLS_UM3)
    assert result.volumes(file="q_f") == pytest.approx([7 * 12 * 12 * scenes.VOXEL_UM3])


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("m/p/{stem}_cells.nii.gz", ": matches "),
        ("m/p/f_cells.nii.gz", "one file for 2 inputs"),
        ("m/**/{stem}_cells.nii.gz", "could both be its cells"),
        ("m/{relativ}_cells.nii.gz", "{relativ} is no placeholder"),
    ],
)
def test_a_pattern_that_is_not_clear_is_refused_before_anything_is_written(cli, twins, pattern, words):
    result = scenes.analyze(cli, twins / "run", f"{twins}/p/f.ome.tif, {twins}/q/f.ome.tif",
                            f"cells={twins}/{pattern}", f"organelles={twins}/o/{{parent}}.tif")  # fmt: skip
    assert result.code == 2
    assert words in result.err
    assert not (twins / "run").exists()


def test_files_of_a_list_belong_to_the_input_they_are_named_after(cli, tmp_path):
    for stem, cells in (("w1", scenes.cells()), ("w10", np.where(scenes.cells() == 2, 1, 0))):
        scenes.tomogram(tmp_path / f"{stem}.ome.tif")
        scenes.nifti(tmp_path / "m" / f"{stem}_cells.nii.gz", cells.astype(np.uint8))
        scenes.ome(tmp_path / "m" / f"{stem}_organelles.ome.tif", masks(), ["membrane", "nucleus"])
    organelles = f"organelles=[{tmp_path}/m/w1_organelles.ome.tif, {tmp_path}/m/w10_organelles.ome.tif]"
    result = scenes.analyze(cli, tmp_path / "run", f"{tmp_path}/*.ome.tif", organelles,
                            f"cells=[{tmp_path}/m/*_cells.nii.gz]")  # fmt: skip
    assert result.code == 0, result.err
    assert result.volumes(file="w1") == pytest.approx(CELLS_UM3)
    assert result.volumes(file="w10") == pytest.approx([7 * 12 * 11 * scenes.VOXEL_UM3])
    (tmp_path / "m" / "w1_cells.nii.gz").unlink()
    result = scenes.analyze(cli, tmp_path / "2", f"{tmp_path}/*.ome.tif", organelles,
                            f"cells=[{tmp_path}/m/*_cells.nii.gz]")  # fmt: skip
    assert result.code == 3
    assert "w1.ome.tif: no file of cells=" in result.err
    assert result.volumes(file="w10") == pytest.approx([7 * 12 * 11 * scenes.VOXEL_UM3])


def test_a_name_in_two_forms_of_unicode_is_one_name(cli, tmp_path):
    composed = unicodedata.normalize("NFC", "züri")
    scenes.tomogram(tmp_path / f"{unicodedata.normalize('NFD', 'züri')}.ome.tif")
    scenes.nifti(tmp_path / f"{composed}_cells.nii.gz", scenes.cells().astype(np.uint8))
    result = scenes.analyze(cli, tmp_path / "run", f"{tmp_path}/*.ome.tif", f"organelles={nothing(tmp_path / 'o')}",
                            f"cells={tmp_path}/{{stem}}_cells.nii.gz")  # fmt: skip
    assert result.code == 0, result.err
    assert result.volumes() == pytest.approx(CELLS_UM3)


def test_corrections_are_of_one_input_by_its_results_name(cli, twins):
    for folder in ("p", "q"):
        scenes.ome(twins / "o" / f"{folder}.tif", masks(), ["membrane", "nucleus"])
    inputs, run = f"{twins}/p/f.ome.tif, {twins}/q/f.ome.tif", twins / "run"
    given = [f"cells={twins}/m/{{relative}}_cells.nii.gz", f"organelles={twins}/o/{{parent}}.tif"]
    fixes = twins / "fixes"
    two = np.where(scenes.cells() > 1, scenes.cells(), 0).astype(np.uint8)
    scenes.nifti(fixes / "p_f_cells_corrected.nii.gz", two)
    scenes.nifti(fixes / "f_t000_lipid_corrected_old.nii.gz", two)
    result = scenes.analyze(cli, run, inputs, *given, f"corrections={fixes}")
    assert result.code == 0, result.err
    assert len(result.volumes(file="p_f")) == 2
    assert len(result.volumes(file="q_f")) == 1
    scenes.nifti(fixes / "f_nucleus_corrected.nii.gz", (scenes.nuclei() == 1).astype(np.uint8))
    shared = scenes.analyze(cli, run, inputs, *given, f"corrections={fixes}")
    assert shared.code == 3
    assert "could be the correction of" in shared.err
    (fixes / "f_nucleus_corrected.nii.gz").rename(fixes / "q_f_nucleus_corrected.nii.gz")
    result = scenes.analyze(cli, run, inputs, *given, f"corrections={fixes}")
    assert result.code == 0, result.err
    assert result.volumes("nucleus", file="q_f") == pytest.approx([5 * 6 * 7 * scenes.VOXEL_UM3])
    scenes.nifti(fixes / "typo_cells_corrected.nii.gz", two)
    assert "typo_cells_corrected.nii.gz: corrects none of the inputs" in scenes.analyze(
        cli, run, inputs, *given, f"corrections={fixes}"
    ).err  # fmt: skip


def test_check_opens_every_file_and_reports_all_errors_at_once(cli, tmp_path):
    scenes.tomogram(tmp_path / "a.ome.tif")
    scenes.tomogram(tmp_path / "b.ome.tif", 2)
    broken = scenes.tomogram(tmp_path / "c.ome.tif")
    broken.write_bytes(broken.read_bytes()[:4000])
    scenes.nifti(tmp_path / "m" / "a_cells.nii.gz", (scenes.cells() - 1).astype(np.int8) * 2 - 1)
    time_lapse(tmp_path / "m" / "b_cells.nii.gz.ome.tif", 1, lambda t: scenes.cells())
    (tmp_path / "m" / "b_cells.nii.gz.ome.tif").rename(tmp_path / "m" / "b_cells.ome.tif")
    scenes.ome(tmp_path / "m" / "a_organelles.ome.tif", masks()[:, 1:], ["membrane", "nucleus"])
    scenes.ome(tmp_path / "m" / "b_organelles.ome.tif", np.stack([masks()] * 2), ["membrane", "nucleus"])
    scenes.nifti(tmp_path / "fixes" / "b_t001_nucleus_corrected.nii.gz", np.ones((3, 3, 3), np.uint8))
    words = [
        "analyze", f"inputs=[{tmp_path}/*.ome.tif]", f"organelles={tmp_path}/m/{{stem}}_organelles.ome.tif",
        f"cells=[{tmp_path}/m/*_cells.*]", f"corrections={tmp_path}/fixes", f"runs_dir={tmp_path}/runs",
    ]  # fmt: skip
    answer = cli(*words, "--check")
    assert answer.code == 2
    lines = answer.errors
    assert any("a_organelles.ome.tif" in line and "save both on one grid" in line for line in lines)
    assert any("a_cells.nii.gz" in line and "negative values" in line for line in lines)
    assert any("b_cells.ome.tif" in line and "masks of 1 frame" in line for line in lines)
    assert any("b_t001_nucleus_corrected.nii.gz" in line for line in lines)
    assert any("c.ome.tif" in line for line in lines)
    assert not (tmp_path / "runs").exists()
    alone = ["analyze", f"inputs=[{tmp_path}/b.ome.tif]", f"organelles={tmp_path}/m/{{stem}}_organelles.ome.tif"]
    good = cli(*alone, "method=watershed", f"runs_dir={tmp_path}/runs", "--check")
    assert good.code == 0, good.err
    assert "2 frames, 0.6, 0.5, 0.5 um (z, y, x); membrane from b_organelles.ome.tif" in good.out
