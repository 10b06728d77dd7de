"""Benchmarks run, name what they measured, and the docs quote what was measured. No time is asserted."""

import argparse
import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cytovox.inference.device import cpu_has_bfloat16
from cytovox.networks.residual_unet import ResidualUNetConfig

HOME = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(HOME.glob("benchmarks/[a-z]*.py"))


def load(name):
    return importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def quick(tmp_path):
    def run(name, *words, wrote=None):
        folder = tmp_path / "out"
        folder.mkdir()
        out = folder / f"{name}.json"
        command = [sys.executable, f"benchmarks/{name}.py", "--quick", "--repeats", "2", "--out", str(out), *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=HOME, env=environment, capture_output=True, text=True, timeout=1800, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "do not quote these figures" in done.stdout
        written = folder / f"{wrote or name}.json"
        assert list(folder.iterdir()) == [written]
        return json.loads(written.read_text())

    return run


def test_bfloat16_is_left_out_where_the_processor_has_no_instructions_for_it(monkeypatch, capsys):
    common, inference = load("_common"), load("inference")
    monkeypatch.setattr(common, "cpu_has_bfloat16", lambda: False)
    ways = inference.variants_here()
    assert list(ways) == ["MONAI, float32", "ours, float32, nothing skipped", "ours, float32"]
    assert capsys.readouterr().err.startswith("note: this processor has no instructions for bfloat16")
    assert "bfloat16" not in load("_floor").machine_tasks(quick=True, mixed=False)
    monkeypatch.setattr(common, "cpu_has_bfloat16", lambda: True)
    assert inference.variants_here() == inference.VARIANTS
    assert capsys.readouterr().err == ""


def test_every_round_is_said_as_it_ends(capsys):
    common = load("_common")
    arguments = argparse.Namespace(name="x", quick=True, repeats=2)
    assert common.quiet_rounds(arguments, common.Watch(), lambda: 1) == [1, 1]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["x: round 1", "x: round 2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inference", "network_speed"])
def test_a_processor_without_bfloat16_measures_float32_alone(quick, tmp_path, monkeypatch, name):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    words = ["--part", "speed", "--cache", str(tmp_path / "cache")] if name == "inference" else []
    result = quick(name, *words)
    check_form(result, name)
    assert result["machine"]["cpu_bfloat16"] is False
    assert result["ratios"]
    assert not [key for key in result["ratios"] if "bf16" in key or "bfloat16" in key]


def check_form(result, name, rounds=2):
    assert result["benchmark"] == name
    assert result["quick"] is True
    assert {"cpu", "cores", "threads", "torch", "monai"} <= set(result["machine"])
    assert {"load_before", "load_after", "dropped"} <= set(result["watch"])
    assert len(result["watch"]["other_cores"]) == rounds
    for table in result["tables"]:
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    for ratio in result["ratios"].values():
        assert 0 < ratio["low"] <= ratio["high"]
        assert ratio["of_medians"] > 0


@pytest.mark.slow
def test_the_cost_of_a_shape_is_timed_without_any_cells(quick):
    result = quick("shape")
    check_form(result, "shape")
    assert [row[0] for row in result["tables"][0]["rows"]] == ["dispr", "traits", "flow", "shapr"]
    assert set(result["ratios"]) == {f"cost, dispr over {model}" for model in ("traits", "flow", "shapr")}


@pytest.mark.slow
def test_a_step_over_ranks_is_timed_beside_a_loop_written_by_hand(quick):
    result = quick("cluster")
    check_form(result, "cluster")
    assert set(result["rows"]) == {"1", "2"}
    assert "weak scaling, 2 ranks over 1" in result["ratios"]
    assert "a model, not a measurement" in result["tables"][-1]["title"].lower()


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
            assert all(len(seconds) == 2 for seconds in row["seconds"].values())
            assert ("bf16" in row["seconds"]) == cpu_has_bfloat16()
    assert "training: full resolution over default, width 32: float32" in result["ratios"]
    if cpu_has_bfloat16():
        assert "training: checkpointing over none: bf16" in result["ratios"]
        assert "forward: layout: residual_unet 16 (demo)" in result["ratios"]


@pytest.mark.slow
def test_patches_are_timed_three_ways_and_for_every_shipped_config(quick):
    result = quick("patch_speed")
    check_form(result, "patch_speed")
    for case in ("organelle_demo: copied", "organelle: rotated and scaled"):
        for way in ("ours", "one after the other", "MONAI alone"):
            assert len(result["rows"][f"patch: {case}: {way}"]["ms"]) == 2
            assert f"{way} over ours: {case}" in result["ratios"]
    shipped = {path.stem for path in HOME.glob("experiments/configs/organelle*.yaml")}
    assert {f"sample: {name}" for name in shipped} <= set(result["rows"])


@pytest.mark.slow
def test_predictions_are_timed_beside_those_of_monai_and_against_the_floor(quick, tmp_path):
    result = quick("inference", "--part", "speed", "--cache", str(tmp_path / "cache"))
    check_form(result, "inference")
    rows = result["rows"]
    mixed = cpu_has_bfloat16()
    assert rows["machine"].keys() == {"float32", "bandwidth", *(["bfloat16"] if mixed else [])}
    assert all(floor > 0 for floor in rows["floor of a window, s"].values())
    ours = "ours" if mixed else "ours, float32"
    assert rows["quick: MONAI, float32"]["dice_mean"] == pytest.approx(rows[f"quick: {ours}"]["dice_mean"], abs=0.002)
    for way in ("MONAI, float32", "ours, float32", *(["MONAI, bfloat16", "ours"] if mixed else [])):
        row = rows[f"quick: {way}"]
        assert all(0 < inside < total for inside, total in zip(row["in_network"], row["seconds"], strict=True))
    assert "float32 in both: quick" in result["ratios"]
    if mixed:
        assert "ours over MONAI in float32 (aim: 5): quick" in result["ratios"]
        assert "ours over MONAI at equal precision and layout (aim: 1.5): quick" in result["ratios"]
    assert rows["profile"]["in the network: convolutions"] > 0
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own_for_each_size(quick, tmp_path):
    words = ("--part", "memory", "--cache", str(tmp_path / "cache"))
    result = quick("inference", *words, wrote="inference_memory")
    check_form(result, "inference_memory", rounds=0)
    for row in result["rows"].values():
        assert 0 < row["before"] < row["peak"]
        assert row["below_2_gib"]
        assert row["written"] > 0
    assert not any((tmp_path / "cache").iterdir())


@pytest.mark.slow
def test_waiting_and_samples_a_second_are_reported_beside_those_of_a_cache_dataset(quick):
    result = quick("training")
    check_form(result, "training")
    for way in ("0", "auto", "MONAI"):
        row = result["rows"][f"organelle_demo|{way}"]
        assert 0 < row["medians"]["waited_share"] < 1
        assert row["medians"]["samples_per_second"] > 0
        assert len(row["rounds"]["mean_step_ms"]) == 2
    assert "samples a second, ours over CacheDataset: organelle_demo" in result["ratios"]


def test_every_shipped_config_can_be_timed_in_training():
    """A config that is added needs a word in the benchmark on how to time it on a small machine."""
    training = load("training")
    for name, cut in training.cuts(quick=False).items():
        config = training.config_of(name, cut, quick=False)
        assert config.trainer.max_steps == cut.steps > cut.skip
        assert config.data.source == "simulator"


def test_no_benchmark_hides_the_package_whose_name_it_bears(tmp_path):
    """Python puts the script's folder first on the path: ``benchmarks/training.py`` would be imported as `training`."""
    assert {script.stem for script in SCRIPTS} & {folder.name for folder in HOME.iterdir()}
    seen = "import importlib.util; print(importlib.util.find_spec('training').origin)"
    for script in SCRIPTS:
        code = [ast.unparse(node) for node in ast.parse(script.read_text(encoding="utf-8")).body]
        fixed = code.index("sys.path.insert(0, str(Path(__file__).resolve().parents[1]))")
        before = {line.split()[1].split(".")[0] for line in code[:fixed] if line.startswith(("import", "from"))}
        assert before <= {*sys.stdlib_module_names}, f"{script}: imported before the path is right"
        if script.stem == "training":  # its first lines, from another folder, with its own folder first on the path
            lines = [f"__file__ = {str(script)!r}", "import sys", f"sys.path.insert(0, {str(script.parent)!r})"]
            for fix, expected in (([], script), (code[1 : fixed + 1], HOME / "training" / "__init__.py")):
                future = [line for line in fix if "__future__" in line]
                probe = "\n".join([*future, *lines, *(line for line in fix if line not in future), seen])
                done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True)
                assert done.stdout.strip() == str(expected), done.stderr


def test_the_floor_counts_what_can_be_counted_by_hand():
    floor = load("_floor")
    network = torch.nn.Sequential(torch.nn.Conv3d(2, 3, 3, padding=1, bias=False), torch.nn.ConvTranspose3d(3, 1, 2, 2))
    conv, up = floor.layers_of(network, (1, 2, 4, 4, 4))
    assert (conv.operations, conv.numbers) == (2 * 64 * 3 * 2 * 27, 2 * 64 + 3 * 64 + 2 * 3 * 27)
    assert (up.operations, up.numbers) == (2 * 512 * 3, 3 * 64 + 512 + 3 * 8 + 1)
    assert floor.floor_seconds([conv], 4, rate=1.0, bandwidth=1e12) == conv.operations
    assert floor.floor_seconds([conv], 4, rate=1e12, bandwidth=4.0) == conv.numbers


def test_the_plain_network_that_others_are_compared_with_is_the_same_function():
    network = ResidualUNetConfig(channels=[8, 16]).build(1, 2).eval()
    plain = load("_plain").PlainResidualUNet(network).eval()
    x = torch.rand(2, 1, 12, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(plain(x), network(x))
    assert not any(type(module).__module__.startswith("cytovox.networks.norms") for module in plain.modules())


def test_the_docs_quote_the_kept_results():
    for page in load("_write_docs").PAGES:
        text = page.read_text(encoding="utf-8")
        assert text == load("_write_docs").page(text), "run python benchmarks/_write_docs.py"
    text = "".join(page.read_text(encoding="utf-8") for page in load("_write_docs").PAGES)
    for script in SCRIPTS:
        assert f"<!-- figures: {script.stem} -->" in text


def test_a_round_beside_busy_neighbours_is_done_again_and_the_first_does_not_count(monkeypatch):
    common = load("_common")
    own = iter(range(0, 1000))
    others = iter([0.0, 0.0, 0.0, 50.0, 50.0, 50.0])  # of the second counted round
    monkeypatch.setattr(common, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(common, "_busy_seconds", lambda: next(own) + next(others))
    played = iter(["warm", "first", "spoilt", "second"])
    arguments, watch = argparse.Namespace(name="x", quick=False, repeats=2), common.Watch()
    assert common.quiet_rounds(arguments, watch, lambda: next(played)) == ["first", "second"]
    assert watch.dropped == 1
    assert not watch.crowded


def test_a_machine_that_is_never_quiet_gives_crowded_figures_in_the_end(monkeypatch):
    common = load("_common")
    seconds = iter(range(0, 100_000, 50))
    monkeypatch.setattr(common, "_own_seconds", lambda: 0.0)
    monkeypatch.setattr(common, "_busy_seconds", lambda: next(seconds))
    arguments, watch = argparse.Namespace(name="x", quick=False, repeats=1), common.Watch()
    assert common.quiet_rounds(arguments, watch, lambda: 1) == [1]
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


@pytest.mark.slow
def test_cells_are_timed_by_every_method_and_the_published_way_grows_with_them(quick):
    result = quick("cells")
    check_form(result, "cells")
    assert [row[0] for row in result["tables"][0]["rows"]] == ["8", "16", "16 over 8"]


@pytest.mark.slow
def test_an_analysis_is_timed_beside_its_inference(quick):
    result = quick("measurements", "--frames", "1")
    check_form(result, "measurements")
    assert set(result["rows"]) == {"inference", "analysis"}
