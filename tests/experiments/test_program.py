"""A user's own folder named like one of ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.program import shadowed

HOME = Path(__file__).resolve().parents[2]


def test_nothing_is_shadowed_here():
    assert shadowed() is None


@pytest.mark.parametrize("package", ["transforms", "training", "cytovox"])
def test_a_package_in_the_working_directory_is_named(tmp_path, package: str):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("")
    run = subprocess.run(
        [sys.executable, "-m", "experiments.run", "organelle_demo", "--check"],
        cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(HOME), "PATH": ""}, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert f"{package}: Python finds" in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_folder_that_is_no_package_does_no_harm(tmp_path):
    (tmp_path / "transforms").mkdir()
    run = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--help"],
        cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(HOME), "PATH": ""}, check=False,
    )  # fmt: skip
    assert run.returncode == 0
    assert "CONFIG" in run.stdout
