"""Any masks of membrane and nucleus in, labels out, with and without a tomogram."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from cytovox.io import open_labels, write_nifti, write_ometiff
from cytovox.simulation import simulate
from experiments.config import load_config
from training.rundir import RunFolder

SHAPE, SPACING = (32, 64, 64), (0.6, 0.6, 0.6)


@pytest.fixture(scope="module")
def seen():
    return simulate("RAW264.7", 11, SHAPE, SPACING)


@pytest.fixture(scope="module")
def masks(seen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    for name in ("membrane", "nucleus"):
        write_nifti(folder / f"{name}.nii.gz", seen.masks[name].astype(np.uint8), SPACING)
    write_ometiff(folder / "ri.ome.tif", seen.ri_ZYX[None, None], SPACING, ["RI"])
    write_ometiff(folder / "nuclei.ome.tif", seen.nuclei_ZYX[None, None], SPACING, ["nuclei"])
    return folder


@pytest.mark.parametrize("method", ["watershed", "network", "offsets"])
def test_every_method_labels_cells_from_masks_alone(cli, masks, seen, tmp_path, method):
    out = tmp_path / "labels"
    answer = cli(
        "cells_from_masks", f"membrane={masks}/membrane.nii.gz", f"nucleus={masks}/nucleus.nii.gz", f"out={out}",
        f"method={method}", f"runs_dir={tmp_path / 'runs'}",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    time_lapse = open_labels(out / "cells.ome.tif")
    cells = time_lapse.frame(0)
    assert time_lapse.spacing_um == pytest.approx(SPACING)
    assert cells.shape == SHAPE
    assert cells.max() >= 2
    table = pd.read_csv(out / "cells.csv")
    whole = table[(table["compartment"] == "cell") & (table["cell"] > 0)]
    assert sorted(whole["cell"]) == sorted(set(np.unique(cells)) - {0})
    volumes = {int(k): float((cells == k).sum()) * 0.6**3 for k in whole["cell"]}
    assert whole["volume_um3"].tolist() == pytest.approx([volumes[int(k)] for k in whole["cell"]], rel=1e-6)
    assert "mean_ri" not in table
    assert (out / "cells.png").is_file()
    (run,) = (tmp_path / "runs" / "cells_from_masks").iterdir()
    status = RunFolder(run).status()
    assert (status["status"], status["stages_done"]) == ("finished", ["cells_from_masks"])
    page = (run / "report.html").read_text()
    assert re.search(r'src="data:image/png;base64,[^"]{1000,}" alt="Cells of the first frame"', page)
    assert "Cells in 3D" in page
    assert "Drag, or press the arrow keys" in page
    assert load_config(run / "config.yaml").membrane == str(masks / "membrane.nii.gz")
    # most of what is membrane belongs to the cell that the truth says
    nuclei = [k for k in np.unique(seen.nuclei_ZYX)[1:] if (seen.nuclei_ZYX == k).sum() * 0.6**3 > 100]
    hits = [
        np.bincount(cells[seen.cells_ZYX == k]).argmax() == np.bincount(cells[seen.nuclei_ZYX == k]).argmax()
        for k in nuclei
    ]
    assert np.mean(hits) >= 0.6


def test_labels_of_nuclei_are_the_seeds_and_a_tomogram_is_measured(cli, masks, seen, tmp_path):
    answer = cli(
        "cells_from_masks", f"membrane={masks}/membrane.nii.gz", f"nucleus={masks}/nuclei.ome.tif",
        f"ri={masks}/ri.ome.tif", f"out={tmp_path / 'o'}", f"runs_dir={tmp_path / 'runs'}", "method=watershed",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    cells = open_labels(tmp_path / "o" / "cells.ome.tif").frame(0)
    for label in np.unique(seen.nuclei_ZYX)[1:]:
        assert set(np.unique(cells[seen.nuclei_ZYX == label])) == {label}
    table = pd.read_csv(tmp_path / "o" / "cells.csv")
    assert table["mean_ri"].between(1.33, 1.42).any()
    whole = table[(table["compartment"] == "cell") & (table["cell"] > 0)]
    flags = whole["flags"].fillna("").str.split()
    assert [("border" in own) for own in flags] == list(whole["border"].notna())
    assert [("several_nuclei" in own) for own in flags] == list(whole["nuclei"] > 1)
    assert [("low_contrast" in own) for own in flags] == list(whole["contrast_ri"] < 0.003)


@pytest.mark.parametrize(
    ("change", "output"),
    [
        (["nucleus="], "nucleus: expected text"),
        (["membrane=nowhere.nii.gz"], "nowhere.nii.gz"),
        (["method=best"], "method: expected one of"),
        (['out=""'], "out: expected a folder"),
        (["nucleus={masks}/ri.ome.tif"], "no whole number"),
        (["--watch", "."], "only for task analyze"),
    ],
)
def test_bad_input_is_reported_in_a_line(cli, masks, tmp_path, change, output):
    words = [
        "cells_from_masks", f"membrane={masks}/membrane.nii.gz", f"nucleus={masks}/nucleus.nii.gz",
        f"out={tmp_path / 'o'}", f"runs_dir={tmp_path / 'runs'}", *(word.format(masks=masks) for word in change),
    ]  # fmt: skip
    answer = cli(*words)
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert any(output in line for line in answer.errors), answer.err
    assert not (tmp_path / "o" / "cells.ome.tif").exists()


def test_masks_of_two_grids_are_refused_before_anything_is_written(cli, masks, tmp_path):
    write_nifti(tmp_path / "small.nii.gz", np.ones((4, 8, 8), np.uint8), SPACING)
    answer = cli(
        "cells_from_masks", f"membrane={masks}/membrane.nii.gz", f"nucleus={tmp_path}/small.nii.gz",
        f"out={tmp_path / 'o'}", f"runs_dir={tmp_path / 'runs'}",
    )  # fmt: skip
    assert answer.code == 2
    assert any("save both on one grid" in line for line in answer.errors)
    assert not (tmp_path / "o").exists()
