"""A small world for the command line: simulated cells in files, a tiny config, and one trained run."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cytovox.io import write_tcf
from cytovox.simulation.files import write as write_cells
from cytovox.simulation.tomogram import simulate
from datamodules.config import SimulatedSet
from datamodules.shape.config import ShapeSimulatorData
from datamodules.shape.simulated import simulated_shapes
from tests.datamodules.shape.write import write_shapes

SHAPE, SPACING = (16, 32, 32), (0.6, 0.6, 0.6)

#: Keys of every tiny config, whatever its data.
TINY = {
    "seed": 3,
    "model": {"network": "residual_unet", "channels": [8, 16]},
    "optimizer": {"name": "adam", "lr": 0.01, "schedule": "constant"},
    "trainer": {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "precision": "32-true",
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
    },
    "predict": {"stride": [16, 32, 32], "pad_yx": [0, 0]},
    "logging": {"wandb": "disabled"},
}
TINY_DATA = {
    "resample_spacing_um": list(SPACING),
    "patch_size": list(SHAPE),
    "batch_size": 2,
    "patches_per_epoch": 4,
    "num_workers": 0,
}
SIMULATED = {
    "source": "simulator",
    "shape": list(SHAPE),
    "spacing_um": list(SPACING),
    "train": {"count": 2, "first_seed": 0},
    "val": {"count": 1, "first_seed": 100},
    "test": {"count": 3, "first_seed": 200},
}
FOLDER = {
    "source": "folder",
    "volumes": "*.TCF",
    "masks": "*_{organelle}.nii.gz",
    "split": {"train": ["HeLa-00001.TCF"], "val": ["HeLa-00002.TCF"], "test": ["HeLa-00003.TCF"]},
}
SWEEP_COMMAND = ["${env}", "python", "-m", "experiments.run", "CONFIG", "${args_no_hyphens}"]

PROGRESS = re.compile(r"(simulating cells|trying networks|preparing \w+ volumes|checking (?:test )?volumes): \d+/\d+")


@dataclass(frozen=True)
class Answer:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Lines of stderr that are no progress."""
        return [line for line in self.err.splitlines() if not PROGRESS.fullmatch(line)]

    @property
    def run(self) -> Path:
        """The run folder, which is the last line printed, but for the folder of predictions."""
        assert self.code == 0, self.err
        *_, last = [line for line in self.out.splitlines() if not line.startswith(("predictions: ", "masks: "))]
        assert last.startswith("run: ")
        return Path(last.removeprefix("run: "))


Cli = Callable[..., Answer]


def _in_process(*words: str) -> Answer:
    from experiments.run import main

    os.environ.pop("CYTOVOX_RUN_DIR", None)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Answer(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def cli(_session_cache: str) -> Cli:
    """The command line, called in this process: importing torch takes seconds."""

    def call(*words: str) -> Answer:
        with pytest.MonkeyPatch.context() as patch:
            if "CYTOVOX_CACHE" not in os.environ:  # a session fixture begins before any test's own environment
                patch.setenv("CYTOVOX_CACHE", _session_cache)
            return _in_process(*words)

    return call


@pytest.fixture(scope="session")
def process(_session_cache: str) -> Callable[..., subprocess.Popen[str]]:
    """The command line as a person starts it: a process of its own, in a folder of their own."""
    home = Path(__file__).resolve().parents[2]

    def start(*words: str, cwd: Path, **more: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "CYTOVOX_CACHE": _session_cache,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(home),
            **more,
        }
        environment.pop("CYTOVOX_RUN_DIR", None)
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.run", *map(str, words)],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def command(process: Callable[..., subprocess.Popen[str]]) -> Cli:
    """A process that is waited for."""

    def run(*words: str, cwd: Path, timeout: float = 1800, **more: str) -> Answer:
        started = process(*words, cwd=cwd, **more)
        try:
            out, err = started.communicate(timeout=timeout)
        except BaseException:
            started.kill()
            raise
        return Answer(started.returncode, out, err)

    return run


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], list[str]]]:
    """Fake commands of SLURM, as lines of bash; what they were asked."""
    folder, output = tmp_path / "slurm-bin", tmp_path / "slurm-calls"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(**scripts: str) -> Callable[[], list[str]]:
        for name, text in scripts.items():
            (folder / name).write_text(f'#!/bin/bash\necho "{name} $@" >> {output}\n{text}\n')
            (folder / name).chmod(0o755)
        return lambda: output.read_text().splitlines() if output.exists() else []

    return write


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tomograms, HeLa-00001 to HeLa-00003, as TCF with a NIfTI an organelle, as the simulator writes them."""
    folder = tmp_path_factory.mktemp("cells")
    for seed in (1, 2, 3):
        write_cells(folder, simulate("HeLa", seed, SHAPE, SPACING))
    return folder


@pytest.fixture(scope="session")
def time_lapse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TCF of two frames, half an hour apart."""
    frames = [simulate("RAW264.7", seed, SHAPE, SPACING).ri_ZYX for seed in (4, 5)]
    path = tmp_path_factory.mktemp("lapse") / "lapse.TCF"
    return write_tcf(path, frames, SPACING, 1.337, times_s=[0.0, 1800.0])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config that trains in a second on simulated cells; its runs lie beside it."""
    folder = tmp_path_factory.mktemp("tiny")
    tree = {"name": "tiny", "runs_dir": str(folder / "runs"), "data": {**SIMULATED, **TINY_DATA}, **TINY}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


@pytest.fixture
def write_sweep(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """A sweep over the tiny config."""

    def build(**more: object) -> Path:
        *command, args = [str(tiny) if word == "CONFIG" else word for word in SWEEP_COMMAND]
        fixed = [f"runs_dir={tmp_path / 'runs'}", "stages=[fit]", "trainer.max_epochs=1"]
        tree = {
            "method": "grid",
            "metric": {"name": "val/dice_mean", "goal": "maximize"},
            "parameters": {
                "optimizer.lr": {"values": [0.01, 0.001]},
                "loss.name": {"values": ["dice_bce", "dice_focal"]},
            },
            "command": [*command, *fixed, args],
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({**tree, **more}))
        return path

    return build


@pytest.fixture(scope="session")
def folder_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Write a tiny config over a folder of cells; its runs lie beside it, in `runs`."""

    def write(root: Path) -> Path:
        folder = tmp_path_factory.mktemp("config")
        tree = {
            "name": "mine",
            "runs_dir": str(folder / "runs"),
            "data": {**FOLDER, "root": str(root), **TINY_DATA},
            **TINY,
        }
        path = folder / "mine.yaml"
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def shape_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight simulated cells of two classes with image, mask and object."""
    config = ShapeSimulatorData(train=SimulatedSet(presets=["HeLa", "RAW264.7"], count=8))
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(simulated_shapes(config, "train"), folder)
    return folder


@pytest.fixture(scope="session")
def trained(cli: Cli, tiny: Path, cells: Path) -> Answer:
    """One run of all stages; tests may read its folder, and no more than that."""
    return cli(tiny, "stages=[fit,test,predict]", f"predict.inputs=[{cells}/HeLa-00001.TCF]")


@pytest.fixture
def copied(tmp_path, trained) -> Path:
    """A copy of the trained run, to be changed."""
    return Path(shutil.copytree(trained.run, tmp_path / "runs" / "tiny" / "copied"))
