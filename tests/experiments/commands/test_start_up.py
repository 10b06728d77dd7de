"""The command line as a process: answers without torch, and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from experiments.commands.command_line import build_parser, verbs_of

HOME = Path(__file__).resolve().parents[3]

#: Packages that take seconds to import.
SLOW = ("torch", "monai", "pytorch_lightning", "wandb", "skimage", "pandas")


def process(*words: str, cwd: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code else ["-m", "experiments.commands"]
    environment = {**os.environ, "PYTHONPATH": str(HOME), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *start, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        "--help", "--version", "completion bash", "cache", "cache prune --older-than 3", "trian", "predict --help",
        "simulate --help", "train analyze", "predict a.TCF --out m --weights shape_rbc", "analyze a.TCF data.root=x",
        "train organelle_demo sead=3", "fetch --help",
    ],
)  # fmt: skip
def test_no_slow_package_is_imported_for_a_quick_answer(tmp_path, words):
    code = (
        "import sys, json; from experiments.commands import dispatch; code = dispatch(); "
        f"print(json.dumps([code, [name for name in {SLOW!r} if name in sys.modules]]), file=sys.stderr)"
    )
    done = process(*words.split(" "), cwd=tmp_path, code=code)
    *_, last = done.stderr.splitlines()
    code, slow = json.loads(last)
    assert slow == []
    assert code == (2 if any(word in words for word in ("trian", "train", "weights", "data.root")) else 0)


def test_the_help_lists_every_verb_and_each_verb_has_an_example(tmp_path):
    done = process("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    verbs = verbs_of(build_parser("completion"))
    assert set(verbs) == {
        "train", "test", "predict", "cells", "analyze", "shapes", "simulate", "sweep", "search", "export", "fetch",
        "check", "plan", "run", "cache", "completion",
    }  # fmt: skip
    for name, parser in verbs.items():
        assert f"\n    {name}" in done.stdout
        text = parser.format_help()
        assert text.startswith(f"usage: cytovox {name} ")
        assert f"example:\n  {'eval ' if name == 'completion' else f'cytovox {name}'}" in text


def test_the_version_is_that_of_the_package(tmp_path):
    done = process("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"cytovox {metadata.version('cytovox')}\n", "")


def test_the_installed_command_is_this_one():
    project = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"cytovox": "experiments.commands:main"}


def test_a_package_of_the_same_name_in_the_working_directory_is_named(tmp_path):
    (tmp_path / "transforms").mkdir()
    (tmp_path / "transforms" / "__init__.py").write_text("")
    done = process("check", "organelle_demo", cwd=tmp_path)
    assert done.returncode == 2
    assert "transforms: Python finds" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_signal_after_the_end_does_not_change_the_exit_code(tmp_path):
    code = (
        "import os, signal, sys; sys.argv = ['cytovox', '--version']; from experiments.commands import main; "
        "code = main(); os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT); sys.exit(code)"
    )
    done = process(cwd=tmp_path, code=code)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_config_is_checked_by_the_real_command(tmp_path):
    done = process("check", "organelle_demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "organelle_demo: the config is valid" in done.stdout
    assert list(tmp_path.iterdir()) == []
