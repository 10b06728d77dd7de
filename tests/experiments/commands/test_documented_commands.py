"""Run every command `cytovox ...` of README.md and the docs on small data."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cytovox.simulation.files import write as write_cells
from cytovox.simulation.tomogram import simulate
from experiments.commands import dispatch
from experiments.commands.command_line import build_parser, verbs_of

HOME = Path(__file__).resolve().parents[3]
PAGES = [HOME / "README.md", *sorted((HOME / "docs").glob("*.md"))]
SHAPE, SPACING = (16, 32, 32), (0.6, 0.6, 0.6)

CPU = ["trainer.accelerator=cpu", "logging.wandb=disabled"]
TINY = [
    *CPU, "data.num_workers=0", "data.resample_spacing_um=[0.6,0.6,0.6]", "data.patch_size=[16,32,32]",
    "data.batch_size=2", "data.patches_per_epoch=4", "model.channels=[8,16]", "trainer.max_epochs=1",
    "predict.stride=[16,32,32]",
]  # fmt: skip
SIMULATED = [
    *TINY, "data.shape=[16,32,32]", "data.spacing_um=[0.6,0.6,0.6]", "data.train.count=2", "data.val.count=1",
    "data.test.count=1",
]  # fmt: skip
FOLDER = [*TINY, "data.split={train: [dish1], val: [dish2], test: [dish3, dish]}"]

#: Words that are added to the commands that begin so, to make them small; the others run as they stand.
SMALL: dict[str, list[str]] = {
    "cytovox train organelle_demo": SIMULATED,
    "cytovox train organelle data": FOLDER,
    "cytovox train runs/": CPU,
    "cytovox test": SIMULATED,
    "cytovox search": ["--check"],
    "cytovox sweep": ["--check"],
    "cytovox plan": SIMULATED[:-1],
    "cytovox predict": CPU,
    "cytovox analyze --watch": [
        "method=watershed", "watch.every_s=0.1", "watch.settle_s=0.1", "watch.stop_after_min=0.02",
    ],
    "cytovox analyze": ["method=watershed", "meshes=none", "workers=0"],
    "cytovox cells": ["method=watershed"],
    "cytovox shapes": [*CPU, "predict.samples=1"],
    "cytovox simulate": ["--shape", "16", "32", "32", "--spacing", "0.6", "0.6", "0.6"],
    "cytovox run": SIMULATED,
}  # fmt: skip


def commands(page: Path) -> list[str]:
    """Return the lines of a page's code blocks that begin with `cytovox`."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.split("   #")[0].rstrip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"cytovox( |$)", line)]


ALL = list(dict.fromkeys(line for page in PAGES for line in commands(page)))


def split(line: str, cwd: Path) -> tuple[list[str], Path | None]:
    """Return the arguments of a command, as bash expands them, and the file of its output."""
    line, _, target = line.partition(" > ")
    asked = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], cwd=cwd, capture_output=True, text=True, check=True
    )
    words = asked.stdout.split("\0")[:-1]
    return words[1:], cwd / target if target else None


@pytest.fixture(scope="module")
def world(tmp_path_factory, trained, cells, shape_folder) -> Iterator[Path]:
    """Folder with the files that the pages mention."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CYTOVOX_CACHE", str(folder / "cache"))
        shutil.copytree(trained.run, folder / "runs" / "organelle_demo" / "ID")
        for target in ("cells", "dish", "dish1", "dish2", "dish3", "microscope"):
            (folder / target).mkdir()
        shutil.copyfile(cells / "HeLa-00001.TCF", folder / "cells" / "HeLa-00001.TCF")
        shutil.copyfile(cells / "HeLa-00002.TCF", folder / "microscope" / "new.TCF")
        for name in ("-1.TCF", "dish=3 [a].TCF"):
            shutil.copyfile(cells / "HeLa-00001.TCF", folder / name)
        for number, group in enumerate(("control", "LPS"), start=11):
            made = tmp_path_factory.mktemp(group)
            write_cells(made, simulate("HeLa", number, SHAPE, SPACING))
            for path in made.iterdir():
                shutil.copyfile(path, folder / "dish" / f"{group}_{path.name}")
        for number in (1, 2, 3):
            for path in cells.glob(f"HeLa-0000{number}*"):
                shutil.copyfile(path, folder / f"dish{number}" / path.name)
        for organelle in ("membrane", "nucleus"):
            shutil.copyfile(cells / f"HeLa-00001_{organelle}.nii.gz", folder / f"{organelle[0]}.nii.gz")
        for kind in ("image", "mask"):
            (folder / "images" / kind).mkdir(parents=True)
            path = sorted((shape_folder / kind).iterdir())[0]
            shutil.copyfile(path, folder / "images" / kind / path.name)
        yield folder


@pytest.fixture
def there(world, monkeypatch) -> Path:
    monkeypatch.chdir(world)
    monkeypatch.setenv("CYTOVOX_CACHE", str(world / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    return world


def run(words: list[str]) -> tuple[int, str, str]:
    os.environ.pop("CYTOVOX_RUN_DIR", None)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = dispatch(words)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize("line", ALL)
def test_a_documented_command_runs(line, there, monkeypatch):
    if line.startswith("cytovox fetch"):
        monkeypatch.setattr("experiments.fetch.fetch_shapes", lambda out, *_: [out / "cells"])  # no network in tests
    words, target = split(line, there)
    key = max((start for start in SMALL if line.startswith(start)), key=len, default=None)
    extra = SMALL[key] if key is not None else []  # of two values of a key, the later one counts
    at = words.index("--") if "--" in words else len(words)
    code, out, err = run([*words[:at], *extra, *words[at:]])
    assert code == 0, f"{line}\n{err}"
    assert "note: cytovox without a command" not in err
    if target is not None:
        target.write_text(out, encoding="utf-8")
        assert len(out) > 1000
    if "--out" in words and not line.startswith("cytovox fetch"):
        assert any((there / words[words.index("--out") + 1]).iterdir())
    if words[0] == "export":
        assert (there / words[2]).stat().st_size > 1000


def test_every_verb_is_documented_with_a_command_that_runs():
    page = commands(HOME / "docs" / "commands.md")
    verbs = set(verbs_of(build_parser()))
    assert {line.split()[1] for line in page} == {*verbs, "--version"}
    text = (HOME / "docs" / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z]+)", text, re.MULTILINE)) == verbs


def test_the_examples_of_the_help_are_read(monkeypatch, world):
    """Every example in the help of a command is valid."""
    monkeypatch.chdir(world)
    calls: list[list[str]] = []
    for module in ("experiments.run", "experiments.sweep", "experiments.export", "experiments.fetch"):
        monkeypatch.setattr(f"{module}.main", lambda argv: calls.append(list(argv)) or 0)
    monkeypatch.setattr("cytovox.simulation.__main__.main", lambda argv: calls.append(list(argv)) or 0)
    for name, parser in verbs_of(build_parser()).items():
        if name in ("cache", "completion"):
            continue  # above, as they stand
        for line in str(parser.epilog).splitlines()[1:]:
            assert line.startswith(f"  cytovox {name} ")
            before = len(calls)
            code, _, err = run(split(line.strip(), world)[0])
            assert (code, len(calls)) == (0, before + 1), f"{line}\n{err}"
