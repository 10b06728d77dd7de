"""Real commands with files of unusual names, passed by a shell."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cytovox.io import read_volume, write_ometiff
from experiments.commands import dispatch

HOME = Path(__file__).resolve().parents[3]
NAMES = ["a b.TCF", "c,d.TCF", "e[1].TCF", "e1.TCF", "g=h.TCF", "i*.TCF", "ix.TCF", "j${k}.TCF", "-l.TCF", "m'n\".TCF"]
SMALL = ["trainer.accelerator=cpu", "logging.wandb=disabled"]


@pytest.fixture
def folder(tmp_path, cells) -> Path:
    for name in NAMES:
        shutil.copyfile(cells / "HeLa-00001.TCF", tmp_path / name)
    return tmp_path


def run(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = dispatch(words)
    return code, out.getvalue(), err.getvalue()


def test_every_file_of_a_folder_is_passed_by_the_shell(folder):
    """The shell expands the pattern; `./` keeps `-l.TCF` from being an option."""
    command = f"{sys.executable} -m experiments.commands predict ./*.TCF --out masks --check {' '.join(SMALL)}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "PYTHONPATH": str(HOME)}, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{len(NAMES)} volumes, 0 with errors" in done.stdout


def test_one_file_is_one_file(folder, monkeypatch):
    """`e[1].TCF` and `i*.TCF` would match others if they were read as patterns."""
    monkeypatch.chdir(folder)
    code, _, err = run("predict", "e[1].TCF", "i*.TCF", "g=h.TCF", "--out", "m, [1]", *SMALL, "--", "-l.TCF")
    assert code == 0, err
    made = sorted(path.name for path in (folder / "m, [1]").glob("*.ome.tif"))
    assert made == ["-l.ome.tif", "e[1].ome.tif", "g=h.ome.tif", "i_.ome.tif"]


def test_masks_and_results_may_have_such_names_too(folder, monkeypatch, cells):
    monkeypatch.chdir(folder)
    for organelle in ("membrane", "nucleus"):
        shutil.copyfile(cells / f"HeLa-00001_{organelle}.nii.gz", folder / f"[{organelle}], 1=2.nii.gz")
    given = ["--membrane", "[membrane], 1=2.nii.gz", "--nucleus", "[nucleus], 1=2.nii.gz", "--out", "out: #1"]
    code, out, err = run("cells", *given, "method=watershed")
    assert code == 0, err
    assert (folder / "out: #1" / "cells.ome.tif").is_file()
    assert "labels: out: #1" in out


def test_an_analysis_finds_its_groups(folder, monkeypatch, cells):
    monkeypatch.chdir(folder)
    spacing = read_volume(cells / "HeLa-00001.TCF").spacing_um
    masks = read_masks(cells)
    named = {"a b.TCF": "control, [1]_a.TCF", "c,d.TCF": "LPS=1_b.TCF"}
    for name, new in named.items():
        os.rename(name, new)
        write_ometiff(folder / "masks" / f"{Path(new).stem}.ome.tif", masks, spacing, ["membrane", "nucleus"])
    given = [*named.values(), "--groups", "{group}_*.TCF", "--out", "results {1}"]
    more = ["organelles=masks/{stem}.ome.tif", "organelle_names=[membrane,nucleus]", "method=watershed", "meshes=none"]
    code, _, err = run("analyze", *given, *more, "workers=0")
    assert code == 0, err
    assert {row["group"] for row in read_rows(folder / "results {1}" / "tables" / "cells.csv")} == {
        "control, [1]",
        "LPS=1",
    }


def read_masks(cells: Path):
    import nibabel
    import numpy as np

    arrays = [nibabel.load(cells / f"HeLa-00001_{name}.nii.gz").get_fdata() for name in ("membrane", "nucleus")]
    return np.stack([array.T for array in arrays]).astype(np.uint8)[None]


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
