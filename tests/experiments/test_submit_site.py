"""The site's defaults: below what a person chose, above what a resolved config only repeats."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.submit.site import WITH_SITE
from training.rundir import RunFolder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text("slurm:\n  account: lab\n  gpus_per_node: 8\n  time: 12:30:00\n  setup: [module load cuda]\n")
    monkeypatch.setenv("CYTOVOX_SITE", str(path))
    return path


def test_a_time_in_the_sites_file_needs_no_quotes(cli, tiny, site: Path) -> None:
    assert "#SBATCH --time=12:30:00\n" in cli(tiny, "--submit", "--dry-run").out
    assert "#SBATCH --time=2:00:00\n" in cli(tiny, "--submit", "--dry-run", "slurm.time=2:00:00").out


def test_defaults_of_the_site_apply_to_a_run_started_without_slurm(cli, tiny, tmp_path: Path, site: Path) -> None:
    run = cli(tiny, f"runs_dir={tmp_path}", "stages=[fit]", "trainer.max_epochs=1", "slurm.cpus_per_task=7").run
    for words in ([f"resume={run}"], [run / "config.yaml"]):
        out = cli(*words, "--submit", "--dry-run").out
        for option in ("--account=lab", "--ntasks-per-node=8", "--time=12:30:00", "--cpus-per-task=7"):
            assert f"#SBATCH {option}\n" in out
        assert "\nmodule load cuda\n" in out
    out = cli(f"resume={run}", "--submit", "--dry-run", "slurm.gpus_per_node=1", "slurm.time=24:00:00").out
    assert "#SBATCH --ntasks-per-node=1\n" in out  # what is said is said, be it our own default
    assert "#SBATCH --time=24:00:00\n" in out


def test_an_explicit_value_equal_to_the_default_is_kept(cli, tiny, tmp_path: Path, site: Path, slurm) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"{tiny.read_text()}slurm: {{gpus_per_node: 1}}\n")
    assert "#SBATCH --ntasks-per-node=1\n" in cli(mine, "--submit", "--dry-run").out
    slurm(sbatch="echo 7")
    run = cli(mine, f"runs_dir={tmp_path / 'runs'}", "--submit").run
    assert RunFolder(run).status()[WITH_SITE]
    assert "#SBATCH --ntasks-per-node=1\n" in cli(f"resume={run}", "--submit", "--dry-run").out


def test_an_analysis_is_one_process_with_any_site(cli, cells, tmp_path: Path, site: Path) -> None:
    site.write_text("slurm: {nodes: 2, gpus_per_node: 8, gpu_type: v100}")
    out = cli("analyze", f"inputs=[{cells}/*.TCF]", f"out={tmp_path / 'out'}", "--submit", "--dry-run").out
    assert re.findall(r"--(?:nodes|ntasks-per-node|gres)=(\S+)", out) == ["1", "1", "gpu:v100:1"]
    site.write_text("slurm: {tasks_per_node: 4}")
    out = cli("analyze", f"inputs=[{cells}/*.TCF]", f"out={tmp_path / 'out'}", "--submit", "--dry-run").out
    assert "#SBATCH --ntasks-per-node=1\n" in out
    assert "gres" not in out


def test_an_analysis_in_a_step_of_several_tasks_is_refused(cli, cells, tmp_path: Path, monkeypatch) -> None:
    step = {"SLURM_JOB_ID": "5", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "1"}
    for key, value in {**step, "SLURM_STEP_NUM_TASKS": "8", "SLURM_JOB_NAME": "cells"}.items():
        monkeypatch.setenv(key, value)
    words = ["analyze", f"inputs=[{cells}/*.TCF]", f"out={tmp_path / 'out'}"]
    answer = cli(*words)
    assert answer.code == 2
    (error,) = answer.errors
    assert "a step of several tasks, but this task is one process: put srun --ntasks=1" in error
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert cli(*words, "--check").code == 0
