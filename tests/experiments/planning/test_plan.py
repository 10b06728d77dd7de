"""`--plan` from the command line: output, files, errors, and (slow) agreement with the run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from cytovox.networks.residual_unet import ResidualUNetConfig
from experiments.planning import machine, planner
from experiments.planning.duration import EpochPlan, FitTimes, RunPlan
from experiments.planning.machine import Machine
from experiments.planning.measure import Measured
from experiments.planning.patch_sizes import MemoryModel, Work
from experiments.planning.summary import FitPlan, Plan, StagePlan
from experiments.planning.tables import duration, warnings_of
from experiments.tasks.organelle import plan as plan_module
from training.fit_metrics import PeakMemory

HOME = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _few_batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure few batches where the figures do not matter."""
    if "slow" not in request.keywords:
        monkeypatch.setattr("experiments.planning.measure.AIM_S", 0.1)
        monkeypatch.setattr("experiments.planning.measure.LEAST", 4)


@pytest.fixture
def alone(tiny: Path, tmp_path: Path) -> Path:
    """The tiny config in a folder where nothing has run."""
    tree = yaml.safe_load(tiny.read_text())
    path = tmp_path / "alone.yaml"
    path.write_text(yaml.safe_dump({**tree, "name": "alone", "runs_dir": str(tmp_path / "runs")}))
    return path


def _cells(out: str, what: str) -> list[str]:
    """Return the cells of a row of a printed table, except the first."""
    row = next(line for line in out.splitlines() if re.match(rf"[│ ]+{re.escape(what)} +│", line))
    return [cell.strip() for cell in row.strip("│ ").split("│")][1:]


def test_a_plan_prints_memory_time_patches_and_the_device(cli, alone, cells):
    answer = cli(
        alone, "--plan", "stages=[fit,test,predict]", f"predict.inputs=[{cells}/*.TCF]", "trainer.max_epochs=7"
    )
    assert answer.code == 0, answer.err
    assert "alone: the plan" in answer.out
    assert _cells(answer.out, "precision") == ["32-true"]
    assert _cells(answer.out, "train volumes") == ["2"]
    assert _cells(answer.out, "epoch") == ["2 steps of each rank, 2 batches"]
    assert 0 < float(_cells(answer.out, "main memory: in all")[0]) < 10
    assert "M parameters" in answer.out
    assert "GFLOP per step" in answer.out
    assert "z: multiples of 2 from 6 (12, 14, 16, 18, 20, ...)" in answer.out
    assert "16x32x32, measured" in answer.out
    assert "7 epochs, 14 steps, ended by trainer.max_epochs" in answer.out
    assert "3 volumes of each rank" in _cells(answer.out, "predict: a window")[-1]
    assert re.fullmatch(r"the run would take .+", answer.out.splitlines()[-1])


def test_a_plan_of_a_plateau_measures_without_a_validation_first(cli, alone):
    words = ["--plan", "stages=[fit]", "optimizer.schedule=plateau", "trainer.early_stopping={patience: 3}"]
    answer = cli(alone, *words)
    assert answer.code == 0, answer.err
    assert "the run would take" in answer.out
    refused = cli(alone, *words, "data.val.count=0")
    assert refused.code == 2
    assert any("plateau follows the validation" in line for line in refused.errors)


def test_a_plan_writes_files_to_the_cache_only(cli, alone, monkeypatch):
    before = sorted(alone.parent.rglob("*"))
    temporary = alone.parent.parent / f"{alone.parent.name}_temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    answer = cli(alone, "--plan")
    assert answer.code == 0, answer.err
    assert sorted(alone.parent.rglob("*")) == before
    assert list(temporary.iterdir()) == []


def test_a_plan_prepares_few_volumes_and_prints_how_many_are_missing(cli, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("CYTOVOX_CACHE", str(tmp_path / "cache"))
    answer = cli(alone, "--plan", "data.train.count=4", "data.train.first_seed=40")
    assert answer.code == 0, answer.err
    assert _cells(answer.out, "simulating volumes")[-1].startswith("5 of 8 volumes")  # 3 train, 2 test
    assert _cells(answer.out, "preparing volumes")[-1] == "3 of 5 volumes"
    assert len(list((tmp_path / "cache" / "simulated").glob("*.npz"))) == 3
    again = cli(alone, "--plan", "data.train.count=1", "data.train.first_seed=40", "data.test.count=1")
    assert _cells(again.out, "simulating volumes") == ["0 s", "0 s", "0 of 3 volumes"]
    assert _cells(again.out, "preparing volumes") == ["0 s", "0 s", "0 of 2 volumes"]


def test_a_plan_of_a_folder_includes_the_reading_of_its_files(cli, folder_config, cells):
    config = folder_config(cells)
    answer = cli(config, "--plan")
    assert answer.code == 0, answer.err
    assert _cells(answer.out, "checking volumes")[-1] == "1 of 1 volumes"
    assert not (config.parent / "runs").exists()


def test_a_plan_of_a_prediction_alone_trains_nothing(cli, tiny, trained, cells):
    words = ["stages=[predict]", f"predict.inputs=[{cells}/HeLa-00001.TCF]", f"predict.checkpoint={trained.run}"]
    answer = cli(tiny, "--plan", *words)
    assert answer.code == 0, answer.err
    assert "fit:" not in answer.out
    assert "1 volumes of each rank" in _cells(answer.out, "predict: a window")[-1]


def test_a_plan_without_a_validation_volume_has_no_validation(cli, alone):
    answer = cli(alone, "--plan", "data.val.count=0", "stages=[fit]")
    assert answer.code == 0, answer.err
    assert _cells(answer.out, "fit: a validation volume") == ["0 s", "0 s", "0 of each rank"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.patch_size=[16,31,32]", "predict.stride=null"], "data.patch_size: patch: 31 voxels along y"),
        (["data.train.count=0"], "data: no volume to train on"),
        (["data.test.count=0"], "data: no volume to test on"),
        (["--check"], "--plan: not with --check or --dry-run"),
        (["--dry-run"], "--plan: not with --check or --dry-run"),
    ],
)
def test_an_invalid_config_is_a_one_line_error(cli, alone, words, expected):
    answer = cli(alone, "--plan", *words)
    assert answer.code == 2
    assert len(answer.errors) == 1
    assert expected in answer.errors[0]


def test_a_resumed_run_is_not_planned(cli, trained):
    answer = cli(f"resume={trained.run}", "--plan")
    assert answer.code == 2
    assert answer.errors == ["resume: not with --plan, which measures a run from its start; leave one of them out"]


def test_a_plan_under_a_launcher_of_several_processes_is_an_error(cli, alone, monkeypatch):
    monkeypatch.setattr(planner, "launched_ranks", lambda: 2)
    answer = cli(alone, "--plan")
    assert (answer.code, len(answer.errors)) == (2, 1)
    assert "a launcher started several" in answer.errors[0]


def test_a_step_that_cannot_fit_is_an_error_before_it_is_computed(cli, alone, monkeypatch):
    monkeypatch.setattr(machine, "memory_limit", lambda: 10**9)
    answer = cli(alone, "--plan", "data.patch_size=[64,512,512]", "data.batch_size=8", "predict.stride=null")
    assert (answer.code, len(answer.errors)) == (2, 1)
    assert "8 patches of 64x512x512 voxels does not fit into 1.0 GB of memory; try data." in answer.errors[0]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
    ],
)
def test_the_error_of_a_full_memory_suggests_a_batch_that_may_fit(cli, alone, monkeypatch, error):
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("lightning_modules.organelle.OrganelleModule.training_step", full)
    answer = cli(alone, "--plan")
    errors = [line for line in answer.errors if not line.startswith("measuring: ")]
    assert (answer.code, len(errors)) == (2, 1)
    assert "2 patches of 16x32x32 voxels does not fit" in errors[0]
    assert "try data.batch_size=1" in errors[0]


def _fit(peak: float = 8e9, seconds: float = 100.0, batch: int = 4, gpu_step: int = 0) -> FitPlan:
    patch = (64, 128, 128)
    return FitPlan(
        work=Work(1_000_000, 10**9, 10**9),
        epoch=EpochPlan(100, 100, batch, 5),
        run=RunPlan(1, 100, seconds, seconds, "max_epochs", False),
        measured=Measured(FitTimes(1.0), [1.0], PeakMemory(), gpu_step_bytes=gpu_step, start_bytes=0),
        host_bytes=int(peak),
        loaders_bytes=0,
        model=MemoryModel.measured(peak, 0.0, patch, batch),
        network=ResidualUNetConfig(),
        patch=patch,
        batch=batch,
        accumulate=1,
    )


def _machine(memory: float, free: float | None = None, local: int = 1) -> Machine:
    return Machine("cpu", "a CPU", int(memory), int(free or memory), "32-true", "", local, local)


def test_the_warning_of_a_step_that_does_not_fit_names_the_batch_that_fits():
    found = warnings_of(Plan("x", ["fit"], _machine(5e9), fit=_fit(peak=8e9, batch=4)))
    assert found == ["will not fit: 8.0 GB of 5.0 GB (90 % may be used); try data.batch_size=2"]


def test_ranks_of_one_machine_share_its_memory():
    plan = Plan("x", ["fit"], _machine(10e9, local=2), fit=_fit(peak=8e9, batch=4))
    assert warnings_of(plan) == ["will not fit: 16.0 GB of 10.0 GB (90 % may be used); try data.batch_size=2"]


def test_on_a_gpu_the_memory_of_steps_must_fit_and_not_that_of_a_validation():
    fit = _fit(peak=8e9, gpu_step=int(8e9))
    fit.measured.memory.gpu_reserved_bytes = int(79e9)
    machine = Machine("cuda", "a GPU", int(80e9), int(80e9), "bf16-mixed", "", 1, 1)
    assert warnings_of(Plan("x", ["fit"], machine, fit=fit)) == []
    fit = _fit(peak=8e9, gpu_step=int(79e9))
    assert warnings_of(Plan("x", ["fit"], machine, fit=fit))[0].startswith("will not fit: 79.0 GB of 80.0 GB")


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        (1, "predict.window: one window does not fit into memory; choose a smaller one"),
        (9, "predict.batch_size: 9 windows do not fit into memory; set it to 4"),
    ],
)
def test_windows_that_do_not_fit_name_the_key_to_change(cli, tiny, trained, cells, monkeypatch, windows, expected):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(plan_module, "measure_inference", full)
    words = ["stages=[predict]", f"predict.inputs=[{cells}/HeLa-00001.TCF]", f"predict.checkpoint={trained.run}"]
    answer = cli(tiny, "--plan", *words, f"predict.batch_size={windows if windows > 1 else 'auto'}")
    assert (answer.code, [line for line in answer.errors if not line.startswith("measuring: ")]) == (2, [expected])


def test_the_warning_of_one_patch_that_does_not_fit_suggests_a_smaller_patch():
    found = warnings_of(Plan("x", ["fit"], _machine(5e9), fit=_fit(peak=8e9, batch=1)))
    assert found == ["will not fit: 8.0 GB of 5.0 GB (90 % may be used); try data.patch_size=[48,96,96]"]


def test_a_plan_that_fits_has_no_warning_unless_other_programs_use_the_memory():
    assert warnings_of(Plan("x", ["fit"], _machine(10e9), fit=_fit())) == []
    assert "may not fit now" in warnings_of(Plan("x", ["fit"], _machine(10e9, free=2e9), fit=_fit()))[0]
    assert warnings_of(Plan("x", ["test"], _machine(1e9))) == []


def test_the_run_is_the_sum_of_its_stages():
    plan = Plan("x", ["fit", "test"], _machine(10e9), fit=_fit(seconds=100.0), test=StagePlan(10, 27, 0.1, 3.0))
    assert plan.seconds == pytest.approx(130.0)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, "0 s"), (0.123, "0.12 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3599.6, "1 h 00 min"),
        (5 * 3600 + 420, "5 h 07 min"), (52 * 3600, "2 d 4 h"), (float("inf"), "no end"),
    ],
)  # fmt: skip
def test_durations_are_printed_in_suitable_units(seconds, expected):
    assert duration(seconds) == expected


@pytest.mark.slow
def test_memory_and_time_of_a_run_agree_with_its_plan(tmp_path: Path):
    """Other load on the machine during one of the two changes its times: repeat the test then."""
    out = tmp_path / "plan_agreement.json"
    command = [sys.executable, "benchmarks/plan_agreement.py", "--quick", "--repeats", "1", "--out", str(out)]
    subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True, timeout=1800)
    rows = json.loads(out.read_text())["rows"]
    for name in ("seconds a batch", "seconds an epoch", "peak memory, MB"):
        planned, took = rows[name]["plan"][0], rows[name]["run"][0]
        assert planned == pytest.approx(took, rel=0.2), name
