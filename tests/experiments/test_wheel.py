"""What is shipped: the wheel holds all that a run needs, and works from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cytovox.simulation import simulate

HOME = Path(__file__).resolve().parents[2]


def run(*words: object, cwd: Path, timeout: float = 1800) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files, so that no earlier build slips in."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    try:
        listed = subprocess.run(["git", "-C", str(HOME), "ls-files", "-z"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a wheel is built from the files that git tracks, and this is no clone")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (HOME / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((HOME / name).read_bytes())
    built = run(
        sys.executable, "-m", "pip", "wheel", source, "--no-deps", "--no-build-isolation", "--quiet", "-w", target,
        cwd=target,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (path,) = target.glob("cytovox-*.whl")
    return path


def test_the_wheel_ships_what_a_run_needs_and_no_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, pattern in [
        ("experiments/configs", "*.yaml"),
        ("experiments/report/templates", "*.html"),
        ("experiments/report/templates", "*.css"),
        ("experiments/report/templates", "*.js"),
        ("cytovox/networks/genotypes", "*.json"),
    ]:
        ours = {p.relative_to(HOME).as_posix() for p in (HOME / folder).rglob(pattern)}
        assert ours
        assert ours <= names
    tops = {name.partition("/")[0] for name in names}
    assert not tops & {"tests", "docs", "benchmarks"}
    assert not [name for name in names if "test_" in name or name.endswith(".pyc")]
    modules = {p.relative_to(HOME).as_posix() for top in tops for p in (HOME / top).rglob("*.py")}
    tracked = subprocess.run(["git", "-C", str(HOME), "ls-files", "*.py"], capture_output=True, text=True, check=True)
    assert modules & set(tracked.stdout.split()) <= names


def make_venv(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment that holds the wheel; its dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("venv")
    python = make_venv(folder)
    finished = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    site = Path(finished.stdout.strip())
    done = run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel,
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # a folder named in a .pth is only searched for modules: the .pth of our own editable install in it is not read
    borrowed = dict.fromkeys(sysconfig.get_path(key) for key in ("purelib", "platlib"))
    (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return python


def test_the_installed_wheel_is_the_one_that_runs(installed, tmp_path):
    code = "import cytovox, experiments, transforms; print(cytovox.__file__, experiments.__file__, transforms.__file__)"
    finished = run(installed, "-c", code, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert all(Path(path).is_relative_to(installed.parents[1]) for path in finished.stdout.split())


@pytest.mark.slow
def test_the_installed_wheel_helps_and_checks_from_another_folder(installed, tmp_path):
    helped = run(installed, "-m", "experiments.run", "--help", cwd=tmp_path)
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "CONFIG" in helped.stdout
    checked = run(installed, "-m", "experiments.run", "organelle_demo", "--check", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "organelle_demo: the config is valid" in checked.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_installed_wheel_knows_its_networks_and_its_command(installed, tmp_path):
    script = installed.with_name("cytovox")
    finished = run(script, "check", "organelle_choi", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "scnas" in finished.stdout
    former = run(script, "organelle_choi", "--check", cwd=tmp_path)
    assert (former.returncode, former.stdout) == (0, finished.stdout)
    assert former.stderr.startswith("note: cytovox without a command ends with the next release")


#: From an array to a table: what a notebook does.
SIX_LINES = """
import cytovox, numpy
volume = cytovox.Volume(numpy.load("ri.npy"), spacing_um=(0.3, 0.3, 0.3), medium_ri=1.337)
masks = cytovox.load_model("organelle").predict(volume)
cells = cytovox.find_cells(masks)
table = cytovox.measure(volume, masks, cells)
cytovox.save("organelles.ome.tif", masks)
"""


@pytest.mark.slow
def test_the_installed_wheel_measures_an_array_with_the_masks_of_the_command(installed, tmp_path):
    from cytovox.io import read_volume, write_tcf

    ri = simulate("HeLa", 7, (32, 64, 64)).ri_ZYX
    np.save(tmp_path / "ri.npy", ri)
    loaded = "import sys; print(sorted({'pytorch_lightning', 'omegaconf', 'wandb'} & set(sys.modules)), len(table))"
    done = run(installed, "-W", "ignore", "-c", SIX_LINES + loaded, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    unwanted, rows = done.stdout.split()
    assert unwanted == "[]"
    assert int(rows) > 4
    write_tcf(tmp_path / "cell.TCF", ri, (0.3, 0.3, 0.3), 1.337, encoding="float")
    words = ["organelle", "stages=[predict]", "predict.inputs=[cell.TCF]", "predict.out=out"]
    done = run(installed, "-m", "experiments.run", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "out").glob("*.ome.tif")
    command, api = read_volume(written), read_volume(tmp_path / "organelles.ome.tif")
    assert command.channels == api.channels
    for channel in api.channels:
        np.testing.assert_array_equal(command.frame(0, channel), api.frame(0, channel))


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment(wheel, tmp_path):
    folder = tmp_path / "empty"
    python = make_venv(folder)
    constraints = HOME / "constraints.txt"
    done = run(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "-c", constraints, wheel,
        cwd=tmp_path, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    helped = run(python, "-m", "experiments.run", "--help", cwd=elsewhere)
    assert helped.returncode == 0, helped.stderr
    checked = run(python, "-m", "experiments.run", "organelle_demo", "--check", cwd=elsewhere)
    assert checked.returncode == 0, checked.stderr
