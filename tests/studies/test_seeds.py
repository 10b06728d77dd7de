"""Scores of two checkouts over seeds: the interval, and that an ended run is not repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.seeds import interval, main

#: What stands for a checkout: a command that writes its score and counts how often it was called.
RUN = """
import json, sys
from pathlib import Path
words = dict(word.split("=", 1) for word in sys.argv[2:])
if "fail" in words:
    print("config: fail: no such key", file=sys.stderr)
    sys.exit(2)
folder = Path(words["runs_dir"]) / words["name"] / "1"
folder.mkdir(parents=True)
score = {offset} + 0.01 * int(words["seed"])
(folder / "metrics.json").write_text(json.dumps({{"test/dice_mean": score, "fit/batch_seconds": 1.0}}))
"""


def checkout(folder: Path, offset: float) -> Path:
    (folder / "experiments").mkdir(parents=True)
    (folder / "experiments" / "__init__.py").write_text("")
    (folder / "experiments" / "run.py").write_text(RUN.format(offset=offset))
    return folder


def test_the_interval_is_students_of_a_mean_of_new_runs() -> None:
    # mean 2, deviation 1, t of 2 degrees of freedom 4.30265
    assert interval([1, 2, 3], 3) == pytest.approx(
        (2 - 4.30265 * (2 / 3) ** 0.5, 2 + 4.30265 * (2 / 3) ** 0.5), abs=1e-4
    )


@pytest.mark.parametrize(("offset", "code"), [(0.805, 0), (0.7, 1)])
def test_a_mean_within_the_interval_is_distinguished_from_one_outside(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], offset: float, code: int
) -> None:
    before, after = checkout(tmp_path / "before", 0.8), checkout(tmp_path / "after", offset)
    words = ["--before", str(before), "--after", str(after), "--work", str(tmp_path / "work"), "--count", "3"]
    for _ in range(2):  # a second call runs nothing: the folders of the runs exist already
        assert main(words) == code
        out, err = capfd.readouterr()
        assert "test/dice_mean" in out
        assert "0.820" in out
        assert ("outside of the interval: test/dice_mean" in err) == bool(code)
    assert main([*words, "data.batch_size=2"]) == 2
    assert "choose another folder" in capfd.readouterr().err


def test_bad_input_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = checkout(tmp_path / "before", 0.8)
    words = ["--before", str(before), "--after", str(before), "--work", str(tmp_path / "work")]
    for more, message in (
        (["--count", "1"], "at least two seeds"),
        (["--before", str(tmp_path / "nowhere")], "no such folder"),
        (["fail=1"], "config: fail: no such key"),
    ):
        assert main([*words, *more]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert message in line
