"""Benchmarks run, name what they measured, and the docs quote what was measured. No time is asserted."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(HOME.glob("benchmarks/[a-z]*.py"))


@pytest.fixture(autouse=True)
def _beside_their_helper(monkeypatch):
    monkeypatch.syspath_prepend(HOME / "benchmarks")


def load(name):
    spec = importlib.util.spec_from_file_location(name, HOME / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def quick(tmp_path):
    def run(name):
        out = tmp_path / f"{name}.json"
        command = [sys.executable, f"benchmarks/{name}.py", "--quick", "--repeats", "2", "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=HOME, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "do not quote these figures" in done.stdout
        assert list(tmp_path.iterdir()) == [out]
        return json.loads(out.read_text())

    return run


def check_form(result, name):
    assert result["benchmark"] == name
    assert result["quick"] is True
    assert result["repeats"] == 2
    assert {"cpu", "cores", "threads", "torch", "monai"} <= set(result["machine"])
    assert {"load_before", "load_after", "dropped"} <= set(result["watch"])
    assert len(result["watch"]["other_cores"]) == 2
    for table in result["tables"]:
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    for ratio in result["ratios"].values():
        assert 0 < ratio["low"] <= ratio["high"]
        assert ratio["of_medians"] > 0


@pytest.mark.slow
def test_networks_are_timed_in_both_precisions_beside_those_of_monai(quick):
    result = quick("network_speed")
    check_form(result, "network_speed")
    names = ["residual_unet 32", "residual_unet 16 (demo)", "scnas 12/8/3"]
    names += ["MONAI UNet 32", "MONAI DynUNet 32", "MONAI SegResNet 32"]
    for stage in ("forward", "training"):
        for name in names:
            row = result["rows"][f"{stage}: {name}"]
            assert row["parameters"] > 0
            assert row["gflop"] > 0
            assert all(len(row["seconds"][precision]) == 2 for precision in ("float32", "bf16"))
    assert "training: full resolution over default, width 32: float32" in result["ratios"]
    assert "training: checkpointing over none: bf16" in result["ratios"]
    assert "forward: layout: residual_unet 16 (demo)" in result["ratios"]


@pytest.mark.slow
def test_patches_are_timed_three_ways_and_for_every_shipped_config(quick):
    result = quick("patch_speed")
    check_form(result, "patch_speed")
    for case in ("organelle_demo: turned", "organelle: turned and zoomed"):
        for way in ("separable", "grid_sample 3D", "RandAffined"):
            assert len(result["rows"][f"warp: {case}: {way}"]["ms"]) == 2
            assert f"{way} over separable: {case}" in result["ratios"]
    shipped = {path.stem for path in HOME.glob("experiments/configs/*.yaml")}
    assert {f"sample: {name}" for name in shipped} <= set(result["rows"])


@pytest.mark.slow
def test_waiting_is_told_without_and_with_a_loader_process(quick):
    result = quick("training_wait")
    check_form(result, "training_wait")
    for workers in (0, 1):
        row = result["rows"][f"workers: {workers}"]
        assert 0 < row["medians"]["waited_share"] < 1
        assert len(row["rounds"]["mean_step_ms"]) == 2


def test_no_benchmark_bears_the_name_of_a_package_that_it_would_hide():
    assert SCRIPTS
    for script in SCRIPTS:
        assert not (HOME / script.stem).exists()


def test_the_docs_quote_the_kept_results():
    text = (HOME / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert text == load("_write_docs").page(text), "run python benchmarks/_write_docs.py"
    for script in SCRIPTS:
        assert f"<!-- figures: {script.stem} -->" in text


def test_a_round_beside_busy_neighbours_is_done_again_and_the_first_does_not_count(monkeypatch):
    common = load("_common")
    own = iter(range(0, 1000))
    others = iter([0.0, 0.0, 0.0, 50.0, 50.0, 50.0])  # of the second counted round
    monkeypatch.setattr(common, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(common, "_busy_seconds", lambda: next(own) + next(others))
    played = iter(["warm", "first", "spoilt", "second"])
    told, watch = argparse.Namespace(quick=False, repeats=2), common.Watch()
    assert common.quiet_rounds(told, watch, lambda: next(played)) == ["first", "second"]
    assert watch.dropped == 1
    assert not watch.crowded


def test_a_machine_that_is_never_quiet_gives_crowded_figures_in_the_end(monkeypatch):
    common = load("_common")
    seconds = iter(range(0, 100_000, 50))
    monkeypatch.setattr(common, "_own_seconds", lambda: 0.0)
    monkeypatch.setattr(common, "_busy_seconds", lambda: next(seconds))
    told, watch = argparse.Namespace(quick=False, repeats=1), common.Watch()
    assert common.quiet_rounds(told, watch, lambda: 1) == [1]
    assert watch.dropped == common.PATIENCE
    assert watch.crowded


def test_a_ratio_is_of_the_medians_with_the_range_of_the_rounds():
    value = load("_common").ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert value == {"of_medians": 2.0, "low": 2.0, "high": 3.0}


@pytest.mark.parametrize("spoilt", ["quick", "crowded"])
def test_figures_of_a_quick_run_or_a_crowded_machine_are_not_quoted(spoilt):
    result = {"benchmark": "x", "quick": False, "crowded": False, spoilt: True}
    with pytest.raises(SystemExit, match="not quoted"):
        load("_write_docs").figures(result)
