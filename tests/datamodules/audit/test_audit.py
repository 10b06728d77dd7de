"""The audit has no findings for valid data, continues after every error, and checks files to predict."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from cytovox.io import write_nifti, write_ometiff, write_tcf
from cytovox.simulation import PRESETS, Tomogram, simulate
from cytovox.simulation.tomogram import Options
from datamodules.audit.audit import Audit, audit
from datamodules.audit.placement import misplaced
from datamodules.audit.pool import run_jobs
from datamodules.config import FolderData, SimulatedSet, SimulatorData

SHAPE, SPACING = (16, 32, 32), (0.6, 0.6, 0.6)


def _write(folder: Path, name: str, made: Tomogram, organelles: tuple[str, ...] | None = None) -> None:
    write_tcf(folder / f"{name}.TCF", made.ri_ZYX[None], made.spacing_um, made.medium_ri)
    for organelle in organelles if organelles is not None else made.masks:
        write_nifti(folder / f"{name}_{organelle}.nii.gz", made.masks[organelle].astype(np.uint8), made.spacing_um)


def _data(root: Path, **more: object) -> FolderData:
    given: dict[str, object] = {
        "volumes": "*.TCF", "masks": "*_{organelle}.nii.gz", "resample_spacing_um": list(SPACING),
        "patch_size": list(SHAPE), "num_workers": 0, **more,
    }  # fmt: skip
    return FolderData(root=str(root), **given)  # type: ignore[arg-type]


def _reported(done: Audit) -> list[tuple[str, str, str]]:
    return [(f.severity, f.kind, f.where) for f in done.findings]


@pytest.mark.parametrize("noise_ri", [(0.0, 0.0), (0.0002, 0.0002), (0.0016, 0.0016)])
def test_cells_of_every_line_have_no_findings(tmp_path: Path, noise_ri: tuple[float, float]) -> None:
    options, empty = Options(medium_spread=0.002, noise_ri=noise_ri), []
    for seed in range(30, 34):
        for preset in PRESETS:  # crowded fields, whose cells touch each other and the border
            made = simulate(preset, seed, SHAPE, SPACING, options)
            _write(tmp_path, f"{preset}-{seed}", made)
            empty += [f"{preset}-{seed}_{k}.nii.gz" for k, mask in made.masks.items() if not mask.any()]
    done = audit(_data(tmp_path), 0, ["fit", "test"])
    assert _reported(done) == [
        ("warning", "empty-mask", file) for file in empty
    ]  # reported, since the organelle is absent
    assert done.summary() == f"20 volumes, 0 with errors, {len(empty)} with warnings"
    assert done.counts == {"train": 14, "val": 2, "test": 4}


def test_larger_fields_have_no_findings(tmp_path: Path) -> None:
    shape, spacing = (32, 64, 64), (0.4, 0.3, 0.3)
    for preset in PRESETS:
        _write(tmp_path, preset, simulate(preset, 7, shape, spacing))
    assert _reported(audit(_data(tmp_path, resample_spacing_um=list(spacing)), 0, ["fit", "test"])) == []


def test_masks_of_one_organelle_or_one_cell_have_no_findings(tmp_path: Path) -> None:
    for seed, organelle in enumerate([*("membrane", "nucleus", "nucleolus", "lipid") * 2]):
        _write(tmp_path, f"{organelle}-{seed}", simulate("HeLa", 40 + seed, SHAPE, SPACING), (organelle,))
    done = audit(_data(tmp_path), 0, ["test"])
    assert _reported(done) == []
    for preset in PRESETS:
        made = simulate(preset, 50, SHAPE, SPACING)
        for cell in np.unique(made.cells_ZYX)[1:]:
            one = made.cells_ZYX == cell
            if one.sum() > 200:
                assert misplaced(made.ri_ZYX, {k: mask & one for k, mask in made.masks.items()}) is None


@pytest.mark.parametrize("axes", ["z", "y", "x", "yx"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_mirrored_mask_is_reported_with_the_axes(preset: str, axes: str) -> None:
    made = simulate(preset, 60, SHAPE, SPACING)
    flip = tuple("zyx".index(a) for a in axes)
    for organelles in (tuple(made.masks), ("lipid",)):
        found = misplaced(made.ri_ZYX, {k: np.flip(made.masks[k], flip) for k in organelles})
        assert found is not None
        assert (found.organelle, found.flipped) == (organelles[0], axes)


def test_a_shifted_mask_is_reported_with_the_correction() -> None:
    made = simulate("A549", 61, (32, 64, 64), (0.4, 0.3, 0.3))
    found = misplaced(made.ri_ZYX, {"membrane": np.roll(made.masks["membrane"], 8, axis=2)})
    assert found is not None
    assert (found.flipped, found.shift) == ("", (0, 0, -8))


def test_the_annotated_frame_of_a_time_lapse_is_checked(tmp_path: Path) -> None:
    for name in "abcdefgh":
        first, second = (simulate("RAW264.7", ord(name) + n, SHAPE, SPACING) for n in (0, 100))
        _write(tmp_path, name, second)
        frames = [np.full(SHAPE, np.nan, np.float32) if name == "a" else first.ri_ZYX, second.ri_ZYX]
        write_tcf(tmp_path / f"{name}.TCF", frames, SPACING, 1.337, times_s=[0.0, 60.0], encoding="float")
    assert _reported(audit(_data(tmp_path, frame=1), 0, ["fit", "test"])) == []
    assert {k for _, k, w in _reported(audit(_data(tmp_path, frame=0), 0, ["fit"])) if w == "a.TCF"} == {"not-finite"}
    beyond = audit(_data(tmp_path, frame=2), 0, ["fit", "test"])
    assert _reported(beyond) == [("error", "frame", f"{name}.TCF") for name in "abcdefgh"]
    assert beyond.summary() == "8 volumes, 8 with errors, 0 with warnings"


def test_multi_label_files_are_audited_by_their_labels(tmp_path: Path) -> None:
    for seed in range(3):
        made = simulate("HeLa", 70 + seed, SHAPE, SPACING)
        _write(tmp_path, f"{seed}", made, ())
        labels = np.zeros(SHAPE, np.uint8)
        for value, organelle in enumerate(("membrane", "nucleus", "nucleolus", "lipid"), start=1):
            labels[made.masks[organelle]] = value
        if seed == 2:
            labels[0, 0, 0] = 9
        write_nifti(tmp_path / f"{seed}_seg.nii.gz", labels, SPACING)
    done = audit(_data(tmp_path, masks="*_seg.nii.gz"), 0, ["fit", "test"])
    assert _reported(done) == [("error", "labels", "2_seg.nii.gz")]


def test_missing_files_do_not_hide_other_findings(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        _write(tmp_path, name, simulate("HeLa", ord(name), SHAPE, SPACING))
    (tmp_path / "b.TCF").write_bytes(b"no tomogram")
    table = "volume,nucleus,split\na.TCF,gone.nii.gz,train\nb.TCF,b_nucleus.nii.gz,train\nc.TCF,c_nucleus.nii.gz,val\n"
    table += "c.TCF,c_nucleus.nii.gz,val\nd.TCF,d_nucleus.nii.gz,test\n"
    (tmp_path / "t.csv").write_text(table)
    done = audit(_data(tmp_path, table="t.csv", organelles=["nucleus"]), 0, ["fit", "test"])
    kinds = [(s, k) for s, k, _ in _reported(done)]
    assert kinds == [("error", "files"), ("error", "duplicate"), ("error", "unreadable-volume")]
    assert "line 2: nucleus: no such file" in done.findings[0].found
    assert done.counts == {"train": 1, "val": 1, "test": 1}


def test_an_empty_folder_is_one_finding(tmp_path: Path) -> None:
    done = audit(_data(tmp_path), 0, ["fit", "test"])
    assert _reported(done) == [("error", "files", "data.volumes")]
    assert done.summary() == "0 volumes, 0 with errors, 0 with warnings; of the whole set 1 errors, 0 warnings"


def test_all_frames_of_files_to_predict_are_audited(tmp_path: Path) -> None:
    ri = simulate("HeLa", 80, SHAPE, SPACING).ri_ZYX
    broken = ri.copy()
    broken[2, 3, 4] = np.nan
    write_tcf(tmp_path / "a.TCF", [ri, broken], SPACING, 1.337, encoding="float", times_s=[0.0, 60.0])
    write_ometiff(tmp_path / "b.ome.tif", ri[None, None], SPACING, ["RI"])
    write_ometiff(tmp_path / "c.ome.tif", (ri * 90)[None, None], SPACING, ["RI"])
    write_nifti(tmp_path / "d.nii.gz", ri[:1], SPACING)
    (tmp_path / "e.TCF").write_bytes(b"")
    done = audit(_data(tmp_path), 0, ["predict"], [str(tmp_path), str(tmp_path / "none*.TCF")])
    assert [(s, k, Path(w).name) for s, k, w in _reported(done)] == [
        ("error", "files", "predict.inputs"),
        ("error", "not-finite", "a.TCF"),
        ("error", "not-ri", "c.ome.tif"),
        ("error", "unreadable-volume", "e.TCF"),
        ("warning", "one-slice", "d.nii.gz"),
    ]
    assert done.findings[1].found.startswith("frame 1: 1 of 16384 voxels are NaN or infinite")
    assert done.inputs == 5


@pytest.mark.real_data
@pytest.mark.skipif("CYTOVOX_DATA" not in os.environ, reason="CYTOVOX_DATA names no folder of real data")
def test_a_real_cell_has_no_findings() -> None:
    path = Path(os.environ["CYTOVOX_DATA"]) / "tomograms" / "hl60.TCF"
    done = audit(FolderData(num_workers=0), 0, ["predict"], str(path))
    assert (done.inputs, _reported(done)) == (1, [])


def test_simulated_data_are_audited_by_their_options() -> None:
    good = SimulatorData(patch_size=[32, 64, 64], resample_spacing_um=[0.3, 0.3, 0.3])
    assert _reported(audit(good, 0, ["fit", "test"])) == []
    none = SimulatedSet(count=0)
    bad = SimulatorData(patch_size=[64, 128, 160], medium_ri=1.36, test=none, resample_spacing_um=[0.3, 0.3, 0.3])
    done = audit(bad, 0, ["fit", "test"])
    assert {k for _, k, _ in _reported(done)} == {"empty-split", "ri-range", "small"}
    assert done.simulated
    assert done.volumes == []


def test_a_crashed_process_loses_only_its_own_job() -> None:
    reported: list[tuple[int, int]] = []
    jobs = ["1 + 1", "__import__('os')._exit(3)", "2 + 2", "1 / 0", "3 + 3"]
    done = run_jobs(eval, jobs, lambda job, why: (job, why), 2, lambda *counts: reported.append(counts))  # type: ignore[arg-type]
    assert (done[0], done[2], done[4]) == (2, 4, 6)
    assert done[1] == (jobs[1], "the process that read it was killed, perhaps because memory ran out")
    assert done[3] == (jobs[3], "reading it failed: ZeroDivisionError: division by zero")


def test_several_processes_return_the_results_of_one(tmp_path: Path) -> None:
    for seed in range(3):
        _write(tmp_path, f"{seed}", simulate("HeLa", seed, SHAPE, SPACING))
    shutil.copy(tmp_path / "1_nucleus.nii.gz", tmp_path / "2_nucleus.nii.gz")
    alone, spread = (audit(_data(tmp_path, num_workers=n), 0, ["fit", "test"]) for n in (0, 2))
    assert alone.findings == spread.findings
    assert [f.kind for f in alone.findings] != []
