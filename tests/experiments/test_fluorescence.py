"""Fluorescence through the command line: audit, training, test and analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cytovox.io import Volume, read_volume, write_nifti, write_ometiff, write_tcf
from cytovox.organelles import UNDRAWN
from cytovox.simulation import __main__ as simulator
from cytovox.simulation import simulate
from cytovox.simulation.files import write
from cytovox.simulation.fluorescence import Stain, stained
from datamodules.folder import find_cases
from datamodules.prepare import Preparer
from experiments.config import load_config
from tests.experiments.conftest import TINY
from tests.experiments.folders import rows

SHAPE, SPACING = (32, 64, 64), (0.4, 0.4, 0.4)
OFFSET = (0.4, -0.6, 0.8)
DATA = {
    "source": "folder",
    "volumes": "*.TCF",
    "masks": "*_{organelle}.nii.gz",
    "organelles": ["membrane", "nucleus"],
    "labels_from": {"nucleus": "CH0"},
    "split": {"train": ["HeLa-00001.TCF"], "val": ["RAW264.7-00004.TCF"], "test": ["HeLa-00011.TCF"]},
    "resample_spacing_um": [0.8, 0.8, 0.8],
    "patch_size": [16, 32, 32],
    "batch_size": 2,
    "patches_per_epoch": 4,
    "num_workers": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three fields with a displaced stain; the first has an unstained cell, the last shows no cytoplasm."""
    root = tmp_path_factory.mktemp("stained")
    for line, seed, unstained in (("HeLa", 1, (1,)), ("RAW264.7", 4, ()), ("HeLa", 11, ())):
        made = simulate(line, seed, SHAPE, SPACING)
        stain = Stain(bleed_through=0.0 if seed == 11 else 30.0)
        write(root, made, stained(made, stain, unstained=unstained, offset_um=OFFSET).volume)
        (root / f"{made.name}_nucleus.nii.gz").unlink()
    return root


def config(folder: Path, tmp_path: Path, **more: object) -> Path:
    tree = {**TINY, "name": "stained", "runs_dir": str(tmp_path / "runs"), "stages": ["fit", "test"]}
    tree["trainer"] = {**TINY["trainer"], "max_epochs": 1}  # type: ignore[dict-item]
    tree["data"] = {**DATA, "root": str(folder), **more}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def test_check_reports_the_offset_and_the_cells_that_are_not_drawn(folder, tmp_path, cli):
    answer = cli(config(folder, tmp_path), "--check")
    assert answer.code == 0, answer.err
    table = [line for line in answer.out.splitlines() if "nucleus from CH0" in line and "│" in line]
    assert len(table) >= 3
    assert "masks from fluorescence" in answer.out
    found = next(line for line in table if "HeLa-00001" in line and "│ yes" in line)
    offset = [float(word) for word in found.split("│")[3].split(",")]
    assert np.abs(np.subtract(offset, OFFSET)).max() <= 0.2  # half a voxel
    assert "no: " in next(line for line in table if "HeLa-00011" in line and "│ no" in line)
    warning = [line.split("│")[2].strip() for line in answer.out.splitlines() if line.startswith("│ warning")]
    assert warning == ["fluorescence", "fluorescence"]  # few cells are stained; an offset is not corrected


def test_training_and_test_use_the_masks_of_the_channel(folder, tmp_path, cli):
    answer = cli(config(folder, tmp_path))
    assert answer.code == 0, answer.err
    table = rows(answer.run / "tables" / "test_channels.csv")
    assert [(r["case"], r["organelle"], r["channel"]) for r in table] == [("HeLa-00011.TCF", "nucleus", "CH0")]
    assert (table[0]["corrected"], table[0]["reason"][:8]) == ("no", "outlines")
    assert int(table[0]["undrawn_cells"]) <= int(table[0]["cells"])
    assert rows(answer.run / "tables" / "test_cases.csv")[0]["dice_nucleus"]
    page = (answer.run / "report.html").read_text(encoding="utf-8")
    assert "Masks from fluorescence" in page
    assert "note: " in answer.err
    loaded = load_config(config(folder, tmp_path))
    (case,) = [c for c in find_cases(loaded.data) if c.name == "HeLa-00001.TCF"]
    raw = case.load()
    truth = simulate("HeLa", 1, SHAPE, SPACING)
    nucleus, drawn = raw.masks_KZYX[1], raw.masks_KZYX[1] != UNDRAWN
    assert list(raw.labelled_K) == [True, True]
    assert (nucleus[truth.nuclei_ZYX == 1] == UNDRAWN).all()
    wanted = (truth.nuclei_ZYX > 1) & drawn
    assert 2 * (wanted & (nucleus == 1)).sum() / (wanted.sum() + (nucleus == 1).sum()) >= 0.9


def test_prepared_volumes_depend_on_the_options_and_other_configs_are_unchanged(folder, tmp_path):
    def entry(*words: str, **more: object) -> str:
        loaded = load_config(config(folder, tmp_path, **more), list(words))
        return Preparer(loaded.data).fingerprint(find_cases(loaded.data)[0]).name

    first = entry()
    changes = (
        "max_offset_um=0",
        "min_volume_um3=5",
        "threshold=field",
        "smoothing_um=0.5",
        "min_contrast=3",
        "reach_um=9",
    )
    found = [entry(f"data.fluorescence.{change}") for change in changes]
    assert len({first, *found}) == 1 + len(changes)
    assert entry() == first
    loaded = load_config(config(folder, tmp_path, labels_from={}, organelles=["membrane"]))
    assert "CH0" not in find_cases(loaded.data)[0].settings


def test_a_mask_file_is_not_used_and_a_correction_is(folder, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    made = simulate("HeLa", 1, SHAPE, SPACING)
    write(root, made, stained(made).volume)
    loaded = load_config(config(root, tmp_path))
    (case,) = find_cases(loaded.data)
    assert list(case.masks) == ["membrane"]
    assert case.notes == [f"{root / 'HeLa-00001_nucleus.nii.gz'}: not used, since data.labels_from makes this mask"]
    assert len(case.load().channels) == 1
    fixed = np.zeros(SHAPE, np.uint8)
    fixed[4:8, 4:8, 4:8] = 1
    (root / "fixed").mkdir()
    write_nifti(root / "fixed" / "HeLa-00001_nucleus_corrected.nii.gz", fixed, SPACING)
    loaded = load_config(config(root, tmp_path, corrections="fixed"))
    (case,) = find_cases(loaded.data)
    raw = case.load()
    assert not raw.channels
    assert (raw.masks_KZYX[1] == fixed).all()


def test_files_and_options_without_a_channel_are_refused_in_one_line(folder, tmp_path, cli):
    def errors(root: Path, *words: str, **more: object) -> list[str]:
        answer = cli(config(root, tmp_path, **more), *words)
        assert answer.code == 2
        assert "Traceback" not in answer.err
        return answer.errors

    assert "no such channel: it has CH0" in errors(folder, labels_from={"nucleus": "CH3"})[0]
    assert "expected some of membrane, nucleus" in errors(folder, labels_from={"lipid": "CH0"})[0]
    assert (
        "data.fluorescence.max_offset_um: expected 0 or more" in errors(folder, "data.fluorescence.max_offset_um=-1")[0]
    )
    other = tmp_path / "other"
    other.mkdir()
    made = simulate("HeLa", 1, SHAPE, SPACING)
    write_ometiff(other / "a.ome.tif", made.ri_ZYX[None, None], SPACING, ["RI"])
    split = {"train": ["a.ome.tif"], "val": [], "test": []}
    line = errors(other, volumes="*.ome.tif", masks=None, split=split, organelles=["nucleus"])[0]
    assert "a.ome.tif: nucleus from CH0: expected a TCF file with fluorescence" in line
    (tmp_path / "plain").mkdir()
    write_tcf(tmp_path / "plain" / "a.TCF", made.ri_ZYX, SPACING, 1.337)
    split = {"train": ["a.TCF"], "val": [], "test": []}
    line = errors(tmp_path / "plain", "stages=[fit]", masks=None, split=split, organelles=["nucleus"])[0]
    assert "it has no fluorescence (Data/3DFL)" in line
    flat = stained(made).volume.frame(0, "CH0").max(axis=0)[None, None, None].astype(np.uint16)
    projection = Volume(flat, (5.0, 0.4, 0.4), ("CH0",), origin_um=(6.0, 0.0, 0.0))
    write_tcf(tmp_path / "plain" / "a.TCF", made.ri_ZYX, SPACING, 1.337, fluorescence=projection)
    (line,) = errors(tmp_path / "plain", "stages=[fit]", masks=None, split=split, organelles=["nucleus"])
    assert "one slice" in line


def test_an_analysis_measures_fluorescence_in_every_frame_and_again_when_it_changes(tmp_path, cli):
    made = simulate("HeLa", 1, SHAPE, SPACING)
    counts = stained(made).volume.frame(0, "CH0")
    for name, frames in (("a", (1.0, 2.0)), ("b", ())):
        ri = np.stack([made.ri_ZYX] * 2)
        light = Volume(
            np.stack([f * counts for f in frames])[:, None].astype(np.uint16), SPACING, ("CH0",), times_s=(0.0, 60.0)
        ) if frames else None  # fmt: skip
        write_tcf(tmp_path / f"{name}.TCF", ri, SPACING, 1.337, (0.0, 60.0), fluorescence=light)
        cells = np.stack([made.cells_ZYX] * 2)[:, None]
        write_ometiff(tmp_path / f"{name}_cells.ome.tif", cells, SPACING, ["cells"], [0, 60])
        masks = np.stack([np.stack([made.masks[k] for k in ("membrane", "nucleus")])] * 2).astype(np.uint8)
        write_ometiff(tmp_path / f"{name}_masks.ome.tif", masks, SPACING, ["membrane", "nucleus"], [0, 60])

    def table(*inputs: str) -> pd.DataFrame:
        words = [
            "analyze", f"inputs=[{','.join(str(tmp_path / f'{name}.TCF') for name in inputs)}]",
            f"organelles={tmp_path}/{{stem}}_masks.ome.tif", f"cells={tmp_path}/{{stem}}_cells.ome.tif",
            f"out={tmp_path / '-'.join(inputs)}", "method=watershed", "meshes=none", "workers=0",
        ]  # fmt: skip
        answer = cli(*words)
        assert answer.code == 0, answer.err
        return pd.read_csv(tmp_path / "-".join(inputs) / "tables" / "cells.csv")

    both = table("a", "b")
    own, other = both[both["file"] == "a"], both[both["file"] == "b"]
    nuclei = own[(own["compartment"] == "nucleus") & (own["volume_um3"] > 0)].set_index(["frame", "cell"])
    for cell in {cell for _, cell in nuclei.index if cell > 0}:
        first, second = (nuclei.loc[(t, cell)] for t in (0, 1))
        inside = (made.nuclei_ZYX == cell) & (made.cells_ZYX == cell)
        background = np.median(counts[made.cells_ZYX == 0])
        assert first["fluorescence_mean_CH0"] == pytest.approx(counts[inside].mean() - background, rel=0.02)
        assert second["fluorescence_mean_CH0"] == pytest.approx(2 * first["fluorescence_mean_CH0"], rel=0.02)
        assert first["fluorescence_sum_CH0"] == pytest.approx(first["fluorescence_mean_CH0"] * inside.sum(), rel=1e-6)
    assert own[own["compartment"] == "cell"]["fluorescence_sum_CH0"].notna().all()
    assert other["fluorescence_mean_CH0"].isna().all()
    assert "fluorescence" not in " ".join(table("b").columns)
    light = Volume(np.stack([3 * counts] * 2)[:, None].astype(np.uint16), SPACING, ("CH0",), times_s=(0.0, 60.0))
    write_tcf(tmp_path / "a.TCF", np.stack([made.ri_ZYX] * 2), SPACING, 1.337, (0.0, 60.0), fluorescence=light)
    again = table("a", "b")
    again = again[(again["file"] == "a") & (again["frame"] == 0)].set_index(["compartment", "cell"])
    before = own[own["frame"] == 0].set_index(["compartment", "cell"])
    ratio = again["fluorescence_mean_CH0"] / before["fluorescence_mean_CH0"]
    assert ratio.dropna().between(2.9, 3.1).all()


def test_the_simulator_writes_a_stain(tmp_path, capsys):
    words = ["--seed", "1", "--shape", "16", "32", "32", "--spacing", "0.6", "0.6", "0.6", "--out", str(tmp_path)]
    assert simulator.main([*words, "--stain", "--stain-offset", "0", "1.2", "0"]) == 0
    volume = read_volume(tmp_path / "HeLa-00001.TCF")
    assert volume.channels == ("RI", "CH0")
    expected = stained(simulate("HeLa", 1, (16, 32, 32), (0.6, 0.6, 0.6)), offset_um=(0, 1.2, 0)).volume
    np.testing.assert_array_equal(volume.frame(0, "CH0"), expected.frame(0, "CH0"))
    assert simulator.main([*words, "--stain", "--time-lapse", "LPS"]) == 2
    assert "--stain: a time-lapse is written without fluorescence" in capsys.readouterr().err
