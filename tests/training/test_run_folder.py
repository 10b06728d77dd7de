"""The run folder, its metrics, and the device settings of a run."""

from __future__ import annotations

import csv
import json
import os
import threading
from pathlib import Path

import pytest
import torch

from cytovox.errors import InputError
from cytovox.inference import device
from cytovox.inference.device import _runs_on, choose_precision, require_supported_gpu
from training import rundir
from training.environment import describe_environment
from training.metrics_log import MetricsCSV
from training.rundir import ENV_RUN_DIR, RunFolder, newest_run
from training.wandb_log import wandb_mode


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rundir.rank_zero_only, "rank", 0, raising=False)


def test_metrics_and_status_are_merged(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "a")
    folder.update_metrics({"val/dice_mean": 0.5, "fit/steps": 3})
    folder.update_metrics({"val/dice_mean": 0.75, "test/dice_mean": 1})
    assert folder.metrics() == {"val/dice_mean": 0.75, "fit/steps": 3.0, "test/dice_mean": 1.0}
    assert RunFolder(tmp_path / "none").status() == {"status": "new", "stages_done": []}
    folder.update_status(status="running", started="now")
    for stage in ("fit", "test", "fit"):
        folder.stage_done(stage)
    assert folder.status() == {"status": "running", "started": "now", "stages_done": ["fit", "test"]}


def test_two_runs_of_one_process_have_two_folders(tmp_path: Path) -> None:
    first, second = RunFolder.create(tmp_path, "a"), RunFolder.create(tmp_path, "a")
    assert first.path != second.path
    assert os.environ[ENV_RUN_DIR] == str(second.path)


def test_ranks_started_by_lightning_use_the_folder_of_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = RunFolder.create(tmp_path, "a")
    monkeypatch.setattr(rundir.rank_zero_only, "rank", 1, raising=False)
    assert RunFolder.create(tmp_path, "a").path == first.path


def test_a_requeued_job_keeps_its_folder_and_a_second_run_gets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_PROCID", "0")
    first = RunFolder.create(tmp_path, "a")
    assert first.path.name == "slurm-77"
    first.update_status(status="interrupted")
    assert RunFolder.create(tmp_path, "a").path == first.path
    first.update_status(status="finished")
    second = RunFolder.create(tmp_path, "a")
    assert second.path.name == "slurm-77-2"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "78")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert RunFolder.create(tmp_path, "a").path.name == "slurm-78_4"


@pytest.mark.parametrize("shell", ["bash", "interactive"])
def test_runs_started_in_an_interactive_job_have_separate_folders(
    tmp_path: Path, shell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", shell)
    first, second = RunFolder.create(tmp_path, "a"), RunFolder.create(tmp_path, "a")
    assert first.path != second.path
    assert "slurm" not in first.path.name


def test_a_fresh_run_has_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example a run that is submitted from within a job of any name."""
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_PROCID", "0")
    mine = RunFolder.create(tmp_path, "a")
    first, second = (RunFolder.create(tmp_path, "a", fresh=True) for _ in range(2))
    assert len({mine.path, first.path, second.path}) == 3


def test_concurrent_status_updates_are_all_kept(tmp_path: Path) -> None:
    def say(task: int) -> None:
        for time in range(10):
            RunFolder(tmp_path).update_status(**{f"job_{task}of6": str(time)})

    tasks = [threading.Thread(target=say, args=(task,)) for task in range(6)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert {key: value for key, value in RunFolder(tmp_path).status().items() if "of6" in key} == {
        f"job_{task}of6": "9" for task in range(6)
    }


def test_ranks_of_torchrun_share_a_folder_with_and_without_a_run_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "abc")
    assert RunFolder.create(tmp_path, "a").path.name == "elastic-abc"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    first = RunFolder.create(tmp_path, "a").path
    assert RunFolder.create(tmp_path, "a").path == first
    assert first.name.endswith(str(os.getppid()))


@pytest.mark.parametrize("blocked", ["", "checkpoints"])
def test_a_file_in_place_of_the_folder_is_reported_at_once(
    tmp_path: Path, blocked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    path = tmp_path / "a/elastic-x" / blocked
    path.parent.mkdir(parents=True)
    path.write_text("in the way")
    with pytest.raises(InputError, match=r"run folder .*elastic-x: cannot be written .*runs_dir="):
        RunFolder.create(tmp_path, "a")


def test_a_folder_without_a_config_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"resume: .*no config\.yaml"):
        RunFolder.existing(tmp_path)


def test_the_newest_run_has_weights_and_is_no_dry_run(tmp_path: Path) -> None:
    for age, (name, weights, dry) in enumerate(
        [("dry", "last", True), ("empty", None, False), ("new", "last", False), ("old", "best", False)]
    ):
        folder = RunFolder(tmp_path / "a" / name)
        folder.require_writable()
        (folder.path / "config.yaml").write_text("")
        os.utime(folder.path / "config.yaml", (1e9 - age, 1e9 - age))
        folder.update_status(dry_run=dry)
        if weights:
            (folder.checkpoints / f"{weights}.ckpt").touch()
    newest = newest_run(tmp_path, "a")
    assert newest is not None
    assert newest.path.name == "new"
    (newest.checkpoints / "best.ckpt").touch()
    assert newest.weights() == newest.best_checkpoint
    assert newest_run(tmp_path, "other") is None


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_have_one_row_per_step_also_after_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsCSV(path)
    for step in range(6):
        log.log_metrics({"train/loss": 1.0 / (step + 1), "epoch": step // 2}, step)
        log.log_metrics({"lr": 0.1}, step)
    log.finalize("success")
    assert [row["step"] for row in _read(path)] == list("012345")
    resumed = MetricsCSV(path, resume_step=4)
    for step in (4, 5, 6):
        resumed.log_metrics({"train/loss": 9.0, "val/dice_mean": 0.5}, step)
    resumed.log_metrics({"test/dice_mean": 0.7}, 0)
    resumed.finalize("success")
    rows = _read(path)
    assert [row["step"] for row in rows] == list("0123456")
    assert [row["train/loss"] for row in rows[3:]] == ["0.25", "9.0", "9.0", "9.0"]
    assert (rows[0]["test/dice_mean"], rows[0]["lr"], rows[6]["lr"]) == ("0.7", "0.1", "")
    assert list(rows[0])[:2] == ["epoch", "step"]


def test_the_metrics_file_is_complete_at_any_time(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log, broken, done = MetricsCSV(path), [], threading.Event()

    def watch() -> None:
        while not done.is_set():
            if path.is_file():
                text = path.read_text()
                if not text.startswith("epoch,step,a") or not text.endswith("\n"):
                    broken.append(text)

    reader = threading.Thread(target=watch)
    reader.start()
    for step in range(300):
        log.log_metrics({"a": float(step)}, step)
        log.save()
    log.finalize("success")
    done.set()
    reader.join()
    assert not broken
    assert len(_read(path)) == 300
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("built", "runs", "does_not"),
    [
        (CU126, [(5, 2), (6, 1), (7, 0), (7, 5), (8, 0), (8, 9), (9, 0)], [(10, 0), (12, 0), (3, 7)]),
        (CU130, [(7, 5), (8, 6), (8, 9), (9, 0), (10, 3), (12, 0), (12, 1), (13, 0)], [(7, 0), (6, 1), (11, 0)]),
        (["sm_90a"], [(9, 0)], [(9, 1), (10, 0)]),
        (["compute_90a"], [(9, 0)], [(10, 0)]),
        (["sm_120a"], [(12, 0)], [(12, 1)]),
        (["sm_100f", "compute_100f"], [(10, 0), (10, 3)], [(12, 0)]),
        (["compute_70"], [(7, 0), (12, 0)], [(6, 1)]),
        (["", "gfx90a", "sm_", "sm_x"], [], [(9, 0)]),
    ],
)
def test_a_torch_build_runs_on_the_architectures_it_contains(
    built: list[str], runs: list[tuple], does_not: list[tuple]
) -> None:
    assert all(any(_runs_on(arch, *gpu) for arch in built) for gpu in runs)
    assert not any(_runs_on(arch, *gpu) for arch in built for gpu in does_not)


def _gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, built: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")


def test_a_v100_with_a_cuda_13_build_is_refused_with_the_build_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _gpu(monkeypatch, (7, 0), CU130)
    with pytest.raises(InputError, match=r"Tesla V100 \(sm_70; built for sm_75.*cu126"):
        require_supported_gpu("auto")
    require_supported_gpu("cpu")
    _gpu(monkeypatch, (7, 0), CU126)
    require_supported_gpu("gpu")
    _gpu(monkeypatch, (9, 0), ["gfx90a"])
    monkeypatch.setattr(torch.version, "hip", "6.4")
    require_supported_gpu("gpu")


@pytest.mark.parametrize(
    ("capability", "accelerator", "bfloat16", "chosen"),
    [
        ((7, 0), "auto", True, "16-mixed"),
        ((8, 0), "gpu", False, "bf16-mixed"),
        ((9, 0), "cpu", False, "32-true"),
        ((7, 0), "cpu", True, "bf16-mixed"),
        (None, "auto", True, "bf16-mixed"),
        (None, "gpu", True, "32-true"),
        (None, "mps", True, "32-true"),
    ],
)
def test_automatic_precision_depends_on_the_device(
    capability: tuple[int, int] | None, accelerator: str, bfloat16: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _gpu(monkeypatch, capability, [])
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: bfloat16)
    assert choose_precision("auto", accelerator) == chosen
    assert choose_precision("32-true", accelerator) == "32-true"


@pytest.mark.parametrize(
    ("most", "has"), [(None, True), ("DEFAULT", True), ("avx2", False), ("AVX512_CORE_BF16", True)]
)
def test_bfloat16_needs_support_by_processor_and_onednn(
    most: str | None, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if most is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    assert device.cpu_has_bfloat16() is has
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert device.cpu_has_bfloat16() is False


def test_the_environment_is_plain_json_with_uncommitted_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = describe_environment(3, "abc")
    assert json.loads(json.dumps(found)) == found
    assert (found["seed"], found["data_digest"], found["packages"]["torch"] is not None) == (3, "abc", True)
    fake = tmp_path / "git"
    fake.write_text(
        f"#!/bin/sh\ncase $* in *toplevel*) echo {tmp_path};; *diff*) printf '+\\351t\\351';; *) echo 1;; esac"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    from training.environment import _git_state

    assert _git_state(tmp_path.resolve()) == {"commit": "1", "diff": "+�t�"}


def test_wandb_is_offline_without_a_key_and_follows_wandb_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_mode("auto") == "disabled"  # the variable that these tests set
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode("auto") == "offline"
    with pytest.raises(InputError, match=r"logging\.wandb: online needs a W&B key"):
        wandb_mode("online")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert (wandb_mode("auto"), wandb_mode("online"), wandb_mode("offline")) == ("online", "online", "offline")
