"""The GPU benchmark: what is recorded when figures fail, hang or run out of time, and figures with known answers."""

import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.autograd import DeviceType

from benchmarks import _gpu_common as common
from benchmarks import _gpu_record as records_of
from benchmarks import _gpu_tables as tables
from benchmarks import gpu
from benchmarks._gpu_batches import NUCLEI, cells_batch, organelle_batch, shape_batch
from benchmarks._gpu_card import datasheet, describe_card
from benchmarks._gpu_forward import flop_of_window
from benchmarks._gpu_inference import Variant, agreement, inference_groups
from benchmarks._gpu_modes import FixedBatch, in_mode
from benchmarks._gpu_profile import kernels_of
from benchmarks._gpu_training import CONFIGS, flop_of_sample, ways_of
from datamodules.shape.cases import ShapeCell
from datamodules.shape.dataset import ShapeDataset
from experiments.compose import shipped_configs

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(tmp_path):
    return common.Settings("cpu", quick=True, out=tmp_path)


@pytest.fixture
def bench(settings):
    return records_of.Recorder("part", settings, time.monotonic() + 60)


def statuses(records):
    return {record["name"]: (record["status"], record.get("error")) for record in records}


def test_a_figure_that_fails_is_recorded_in_one_line_and_the_others_go_on(bench):
    def fails():
        raise RuntimeError("no kernel\nof this kind")

    def fills():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 TiB\nand more")

    assert bench.measure("first", fails, precision="float32") is None
    assert bench.measure("second", fills) is None
    assert bench.measure("third", lambda: {"median_ms": 1.0})["median_ms"] == 1.0
    assert statuses(bench.records) == {
        "first": ("failed", "RuntimeError: no kernel"),
        "second": ("failed", "out of memory"),
        "third": ("ok", None),
    }
    assert bench.records[0]["precision"] == "float32"
    journal = json.loads(common.journal_of(bench.settings.out, "part").read_text())
    assert journal == {"records": bench.records, "running": None}


def test_a_figure_is_not_begun_without_the_time_it_needs(settings, tmp_path):
    slow = records_of.Recorder("part", common.Settings("cpu", False, tmp_path), time.monotonic() + 5)
    assert slow.measure("long", lambda: {}, needs_s=50) is None
    assert slow.measure("short", lambda: {}, needs_s=1)["status"] == "ok"
    assert statuses(slow.records)["long"] == ("not measured", "out of time")
    kept = [{"name": "known", "status": "ok", "median_ms": 2.0}]
    again = records_of.Recorder("part", settings, time.monotonic() + 5, kept)
    assert again.measure("known", lambda: pytest.fail("measured again"))["median_ms"] == 2.0


def test_nothing_follows_an_error_after_which_cuda_refuses_all_work(bench):
    def breaks():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(records_of.PartAborted):
        bench.measure("broken", breaks)
    assert statuses(bench.records)["broken"][0] == "failed"


def test_calls_are_repeated_within_their_budget_and_the_first_ones_do_not_count(tmp_path, settings, monkeypatch):
    calls, clock = [], [0.0]
    monkeypatch.setattr(common, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))

    def task():
        calls.append(0)
        clock[0] += 0.1 if len(calls) <= 1 else 0.002

    seconds = common.repeated(task, common.Settings("cpu", False, tmp_path), budget_s=10.0, most=7)
    assert len(seconds) == 7 == len(calls) - 2
    assert seconds == pytest.approx([0.002] * 7)
    assert len(common.repeated(task, common.Settings("cpu", False, tmp_path), budget_s=0.0)) == 3
    assert len(common.repeated(task, settings)) == 1
    assert common.spread([0.002, 0.001, 0.009]) == {"median_ms": 2.0, "low_ms": 1.0, "high_ms": 9.0, "repeats": 3}


def test_candidates_are_timed_in_turn_and_one_that_fails_later_leaves_the_others(tmp_path):
    bench = records_of.Recorder("part", common.Settings("cpu", False, tmp_path), time.monotonic() + 60)
    calls = []

    def candidate(name, fails_at=None):
        def task():
            calls.append(name)
            if calls.count(name) == fails_at:
                raise ValueError("late")
            return len(name)

        return records_of.Candidate(name, lambda: task, {"batch": 1}, lambda seconds, result: {"result": result}, 0.0)

    bench.interleave([candidate("a"), candidate("bb", fails_at=4), candidate("ccc", fails_at=1)], 10.0, most=3)
    assert calls == ["a", "a", "bb", "bb", "ccc", "a", "bb", "a", "bb", "a"]
    assert statuses(bench.records) == {
        "a": ("ok", None),
        "bb": ("failed", "ValueError: late"),
        "ccc": ("failed", "ValueError: late"),
    }
    record = next(record for record in bench.records if record["name"] == "a")
    assert (record["repeats"], record["result"], record["batch"]) == (3, 1, 1)
    assert 0 < record["low_ms"] <= record["median_ms"] <= record["high_ms"]


@pytest.fixture
def parts(monkeypatch):
    """Three parts that do no work of their own: `good`, `crashes` and `hangs`; the calls of each are files."""
    module = types.ModuleType("benchmarks._gpu_fake")

    def good(bench):
        bench.measure("one", lambda: {"median_ms": 1.0})

    def crashes(bench):
        bench.measure("before", lambda: {"median_ms": 1.0})
        bench.measure("at", lambda: os._exit(7), precision="tf32")

    def hangs(bench):
        bench.measure("before", lambda: {"median_ms": 1.0})
        bench.measure("at", lambda: time.sleep(3600))

    module.good, module.crashes, module.hangs = good, crashes, hangs
    monkeypatch.setitem(sys.modules, "benchmarks._gpu_fake", module)
    names = ("good", "crashes", "hangs")
    monkeypatch.setattr(gpu, "PARTS", {name: ("_gpu_fake", name, 1) for name in names})
    monkeypatch.setattr(gpu, "GRACE_S", 2.0)
    monkeypatch.setattr(gpu, "QUICK_S", 4.0)
    for name in names:
        monkeypatch.setitem(
            tables.PARTS_SHOWN, name, lambda records, _: [("t", ["name"], [[r["name"]] for r in records])]
        )
    return module


def results(folder):
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.iterdir())}


def test_a_part_that_crashes_or_hangs_leaves_its_records_and_the_next_call_goes_on(parts, tmp_path, capsys):
    words = ["--quick", "--device", "cpu", "--out", str(tmp_path)]
    assert gpu.main(words) == 0
    found = results(tmp_path)
    assert {name: result["status"] for name, result in found.items()} == {
        "good": "complete",
        "crashes": "cut short",
        "hangs": "cut short",
    }
    assert statuses(found["crashes"]["records"])["at"] == ("failed", "the process ended with 7")
    assert found["crashes"]["records"][1]["precision"] == "tf32"
    assert statuses(found["hangs"]["records"])["at"] == ("failed", "stopped: it did not end in time")
    assert all(statuses(found[name]["records"])["before"][0] == "ok" for name in ("crashes", "hangs"))
    assert found["good"]["card"]["torch"] == torch.__version__
    assert "A QUICK RUN" in capsys.readouterr().out

    parts.good = parts.crashes = lambda bench: bench.measure("new", lambda: {})
    assert gpu.main([*words, "--part", "good", "crashes"]) == 0
    assert "good: there already" in capsys.readouterr().out
    again = results(tmp_path)
    assert again["good"] == found["good"]
    assert again["crashes"]["status"] == "complete"
    assert list(statuses(again["crashes"]["records"])) == ["before", "at", "new"]

    (tmp_path / "good.json").write_text(json.dumps({**found["good"], "card": {**found["good"]["card"], "torch": "1"}}))
    assert gpu.main([*words, "--part", "good"]) == 0
    assert list(statuses(results(tmp_path)["good"]["records"])) == ["new"]
    parts.good = lambda bench: bench.measure("newer", lambda: {})
    assert gpu.main([*words, "--part", "good", "--again"]) == 0
    assert list(statuses(results(tmp_path)["good"]["records"])) == ["newer"]


def test_a_part_that_cannot_be_imported_is_a_failure_of_its_own(parts, tmp_path, monkeypatch):
    monkeypatch.setitem(gpu.PARTS, "crashes", ("_gpu_that_is_not_there", "measure", 1))
    assert gpu.main(["--quick", "--device", "cpu", "--out", str(tmp_path), "--part", "good", "crashes"]) == 0
    found = results(tmp_path)
    assert found["crashes"]["records"][0]["error"].startswith("ModuleNotFoundError")
    assert found["good"]["status"] == "complete"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--part", "inferense"], "--part: inferense: no such part; expected some of ceilings, inference"),
        (["--minutes", "0"], "--minutes: expected a number above 0, got 0.0"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr(words, expected, capsys):
    with pytest.raises(SystemExit) as stopped:
        gpu.main(words)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(expected)
    assert printed.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_measured(capsys, tmp_path):
    assert gpu.main(["--out", str(tmp_path / "out")]) == 0
    assert "no CUDA device here: not measured" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as stopped:
        gpu.main(["--device", "cuda"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "--device cuda: torch finds no CUDA device here\n"


def test_utilisation_is_the_share_of_what_the_same_card_reached(tmp_path):
    settings = common.Settings("cuda", False, tmp_path, "NVIDIA H100 80GB HBM3")
    assert common.utilisation(1e12, 0.5, "bfloat16", settings)["mfu"] is None
    records = [{"name": "m", "status": "ok", "rate_of": "bfloat16", "rate": 8e12}, {"name": "n", "status": "failed"}]
    common.write_json(common.result_of(tmp_path, "ceilings"), {"records": records})
    found = common.utilisation(1e12, 0.5, "bfloat16", settings)
    assert (found["gflop"], found["tflop_per_s"], found["mfu"]) == (1000.0, 2.0, 0.25)
    assert found["of_datasheet"] == pytest.approx(2 / 989)
    assert common.utilisation(1e12, 0.5, "tf32", settings)["mfu"] is None


@pytest.mark.parametrize(
    ("name", "bandwidth"),
    [("NVIDIA H200", 4800), ("NVIDIA H100 80GB HBM3", 3350), ("NVIDIA H100 PCIe", 2000), ("Tesla V100-SXM2-32GB", 900)],
)
def test_the_datasheet_is_that_of_the_card(name, bandwidth):
    assert datasheet(name)["copy"] == bandwidth
    assert datasheet("AMD EPYC") == {}


def test_the_card_is_described_in_plain_values():
    card = describe_card("cpu")
    assert card["kind"] == "cpu"
    assert card["torch"] == torch.__version__
    assert json.loads(json.dumps(card)) == card


def test_agreement_is_the_largest_difference_and_the_dice_of_the_masks():
    reference = np.array([[[[0.9, 0.9, 0.1, 0.1]]], [[[0.0, 0.0, 0.0, 0.0]]]], np.float32)
    other = np.array([[[[0.9, 0.4, 0.1, 0.1]]], [[[0.2, 0.0, 0.0, 0.0]]]], np.float32)
    found = agreement(other, reference)
    assert found["most"] == pytest.approx(0.5)
    assert found["dice"] == [pytest.approx(2 / 3), None]
    assert agreement(other, None) == {}


def test_a_fixed_batch_is_filled_up_and_cut_again():
    class Counted(torch.nn.Conv3d):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    sizes: list[int] = []
    network = Counted(1, 2, 3, padding=1)
    x = torch.rand(3, 1, 4, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(FixedBatch(network, 4)(x), torch.nn.Conv3d.forward(network, x))
        assert sizes == [4]
        with pytest.raises(ValueError, match="3 windows for batches of 2"):
            FixedBatch(network, 2)(x)


def test_a_cuda_graph_needs_a_cuda_device(settings):
    with pytest.raises(common.NotHere):
        in_mode(torch.nn.Identity(), "graph", 1, settings)


def test_operations_of_a_window_are_those_counted_by_hand():
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 3, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(3, 2, 1))
    assert flop_of_window(network, (4, 5, 6)) == 2 * 120 * (27 * 3 + 3 * 2)
    assert next(network.parameters()).device.type == "cpu"


def test_operations_of_a_step_come_from_an_earlier_record_of_the_config():
    records = [
        {"config": "shapr", "second_stage": True, "gflop": 90.0, "batch": 3},
        {"config": "shapr", "second_stage": False, "gflop": None, "batch": 3},
        {"config": "shapr", "second_stage": False, "gflop": 10.0, "batch": 2},
    ]
    assert flop_of_sample(records, "shapr", False) == 5e9
    assert flop_of_sample(records, "shapr", True) == 30e9
    assert flop_of_sample(records, "organelle", False) is None


def test_the_ways_have_names_of_their_own():
    names = [way.name for group in inference_groups() for way in group]
    names += [Variant("ours", skip_below=0.1).name, Variant("ours", stitch="host").name]
    assert len(set(names[:-2])) == len(names) - 2
    for name in CONFIGS:
        assert name in shipped_configs()
        ways = ways_of(name, False)
        assert len(set(ways)) == len(ways)


def test_kernels_are_those_of_the_device_the_longest_first():
    def event(key, device, cpu, gpu_time, note=False):
        return SimpleNamespace(
            key=key, device_type=device, self_cpu_time_total=cpu, self_device_time_total=gpu_time, count=2,
            is_user_annotation=note,
        )  # fmt: skip

    events = [
        event("aten::add", DeviceType.CPU, 5000, 0),
        event("conv", DeviceType.CUDA, 0, 3000),
        event("step", DeviceType.CUDA, 0, 9000, note=True),
        event("norm", DeviceType.CUDA, 0, 4000),
    ]
    assert [kernel["kernel"] for kernel in kernels_of(events, on_gpu=True)] == ["norm", "conv"]
    assert kernels_of(events, on_gpu=True)[0] == {"kernel": "norm", "ms": 4.0, "calls": 2}
    assert [kernel["kernel"] for kernel in kernels_of(events, on_gpu=False)] == ["aten::add"]


def test_random_batches_have_the_shapes_and_types_of_real_ones():
    obj = np.zeros((64, 64, 64), bool)
    obj[20:44, 16:48, 16:48] = True
    cell = ShapeCell("one", "group", obj[32] * 0.5, obj[32], obj)
    real = ShapeDataset([cell], None, 0)[(0, 0)]
    made = shape_batch(3, "cpu")
    for key in ("image", "mask", "obj", "distance"):
        assert (made[key].shape, made[key].dtype) == ((3, *real[key].shape), real[key].dtype)
    assert (made["obj"][:, 0, 32] == made["mask"][:, 0]).all()
    organelle = organelle_batch([4, 5, 6], 3, 2, "cpu")
    assert organelle["mask"].shape == (2, 3, 4, 5, 6)
    assert organelle["mask"].dtype == torch.uint8
    assert organelle["labelled"].dtype == torch.bool


def test_random_cells_are_nearest_to_their_own_nuclei():
    batch = cells_batch([6, 8, 10], "offsets", 2, "cpu")
    assert batch["cells"].dtype == torch.int64
    for cells, nuclei in zip(batch["cells"], batch["nuclei"], strict=True):
        assert nuclei[:, 0].tolist() == list(range(1, NUCLEI + 1))
        places = torch.nonzero(cells)
        far = torch.cdist(places * 0.5, nuclei[:, 1:])
        assert (far.argmin(dim=1) + 1 == cells[tuple(places.T)]).all()
    network = cells_batch([6, 8, 10], "network", 2, "cpu")
    assert not (network["positive"] * network["negative"]).any()
    assert (network["positive"][network["target"] > 0] > 0).float().mean() > 0.99


def test_results_become_tables_and_markdown_and_quick_ones_are_not_quoted(tmp_path, capsys):
    record = {
        "name": "organelle", "status": "ok", "kind": "step", "config": "organelle", "precision": "bfloat16",
        "layout": "channels_last", "mode": "eager", "batch": 2, "second_stage": False, "median_ms": 12.34,
        "low_ms": 12.0, "high_ms": 13.0, "repeats": 5, "samples_per_s": 162.1, "tflop_per_s": 251.0, "mfu": 0.3512,
        "of_datasheet": 0.254, "allocated_mb": 1500.0, "reserved_mb": 2500.0,
    }  # fmt: skip
    failed = {"name": "shapr", "status": "failed", "error": "out of memory"}
    card = {**describe_card("cpu"), "device": "NVIDIA H100 80GB HBM3", "driver": "570.1"}
    result = {
        "part": "training", "status": "complete", "quick": False, "measured": "2026-11-27T01:00:00+00:00",
        "seconds": 3.0, "card": card, "records": [record, failed],
    }  # fmt: skip
    assert tables.markdown(tmp_path) == ""
    common.write_json(tmp_path / "training.json", result)
    text = tables.markdown(tmp_path)
    row = "| organelle | bf16 | last | eager | 2 | 12.3 ±5% | 162 | 251 | 35.1 | 25.4 | 1.5/2.5 |"
    assert row in text
    assert "**training**: NVIDIA H100 80GB HBM3" in text
    assert "| shapr | failed | out of memory |" in text
    assert gpu.main(["--show", "--out", str(tmp_path), "--part", "training", "memory"]) == 0
    shown = capsys.readouterr().out
    assert "== memory: not measured" in shown
    assert "35.1" in shown
    common.write_json(tmp_path / "training.json", {**result, "quick": True})
    with pytest.raises(SystemExit, match="not quoted"):
        tables.markdown(tmp_path)


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--device", "cpu", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(2):
        done = subprocess.run(
            command, cwd=HOME, env=environment, capture_output=True, text=True, timeout=1800, check=False
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout[done.stdout.index("== ceilings") :]) < 12_000
    assert done.stdout.count("there already") == len(gpu.PARTS)
    found = results(tmp_path)
    assert set(found) == set(gpu.PARTS)
    for part, result in found.items():
        assert result["status"] == "complete", part
        assert not [record for record in result["records"] if record["status"] == "failed"], part
    steps = [record for record in found["training"]["records"] if record["name"] != "trainer"]
    assert {record["config"] for record in steps} == set(CONFIGS)
    whole = [record for record in found["inference"]["records"] if record.get("kind") == "tomogram"]
    exact = [r for r in whole if r["status"] == "ok" and r["precision"] == "float32"]
    assert {record["engine"] for record in exact} == {"ours", "MONAI"}
    assert max(record["most"] for record in exact) < 1e-4
