"""Submission to SLURM: commands, answers, and files after a refusal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cytovox.errors import InputError
from experiments.submit.config import SlurmConfig, slurm_errors
from experiments.submit.job import Job, script_of


def test_runs_submitted_from_within_one_job_have_separate_folders(
    cli, tiny, tmp_path: Path, slurm, monkeypatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "jupyter")
    slurm(sbatch="echo 7")
    words = [tiny, f"runs_dir={tmp_path / 'runs'}", "--submit"]
    first, second = cli(*words, "seed=1").run, cli(*words, "seed=2").run
    assert first != second
    slurm(sbatch="exit 1")
    assert cli(*words, "seed=3").code == 2
    for run, seed in ((first, 1), (second, 2)):
        assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == seed


def test_submitting_again_resets_the_retries(cli, tiny, tmp_path: Path, slurm) -> None:
    slurm(sbatch="echo 7")
    run = cli(tiny, f"runs_dir={tmp_path / 'runs'}", "--submit").run
    for name in ("killed", "killed3"):
        (run / "slurm" / name).write_text("7 ended with 137\n" * 3)
    assert cli(f"resume={run}", "--submit").code == 0
    assert not list((run / "slurm").glob("killed*"))


def test_other_output_of_sbatch_is_ignored(cli, tiny, tmp_path: Path, slurm) -> None:
    slurm(sbatch="echo 'Welcome to the 3rd cluster'; echo; echo '17;main'")
    answer = cli(tiny, f"runs_dir={tmp_path / 'runs'}", "--submit")
    assert "job 17: squeue --job 17\n" in answer.out


def test_sbatch_without_a_job_number_is_reported_and_the_folder_is_kept(cli, tiny, tmp_path: Path, slurm) -> None:
    slurm(sbatch="echo 'Submitted, have'; echo 'a nice day'")
    answer = cli(tiny, f"runs_dir={tmp_path / 'runs'}", "--submit")
    assert answer.code == 2
    (error,) = answer.errors
    assert "sbatch printed 'Submitted, have a nice day', expected a job's number in the last line; see squeue" in error
    assert len(list((tmp_path / "runs").glob("*/*/slurm/job.sh"))) == 1  # the job may have begun


@pytest.mark.parametrize("scancel", ["true", "exit 1"])
def test_an_array_is_cancelled_if_its_gathering_job_is_refused(
    cli, tiny, trained, cells, tmp_path: Path, slurm, scancel: str
) -> None:
    output = slurm(sbatch='case "$*" in *gather*) echo "too many jobs" >&2; exit 1;; esac; echo 17', scancel=scancel)
    words = ["stages=[predict]", f"predict.checkpoint={trained.run}", f"predict.inputs=[{cells}/*.TCF]"]
    answer = cli(tiny, f"runs_dir={tmp_path / 'runs'}", *words, "slurm.array=3", "--submit")
    assert answer.code == 2
    assert output()[-1] == "scancel 17"
    assert "SLURM refuses: too many jobs" in answer.errors[-1]
    left = list((tmp_path / "runs").glob("*/*/config.yaml"))
    if scancel == "true":
        assert not left
    else:  # its tasks may be at work there
        assert len(left) == 1
        assert "job 17, which it would gather, could not be cancelled" in answer.errors[-1]


def test_submitting_as_one_job_removes_the_gathering_job(cli, tiny, trained, cells, tmp_path: Path, slurm) -> None:
    slurm(sbatch="echo 17")
    words = ["stages=[predict]", f"predict.checkpoint={trained.run}", f"predict.inputs=[{cells}/*.TCF]"]
    run = cli(tiny, f"runs_dir={tmp_path / 'runs'}", *words, "slurm.array=3", "--submit").run
    assert (run / "slurm" / "gather" / "job.sh").is_file()
    assert cli(f"resume={run}", "slurm.array=null", "--submit").code == 0
    assert not (run / "slurm" / "gather" / "job.sh").exists()


def test_a_gathering_job_follows_the_dependent_job_of_a_task(tmp_path: Path, slurm) -> None:
    """By the job's own script, for a run in a container or a killed run."""
    job = Job("cells", tmp_path / "it's" / "slurm", ["experiments.run resume=x"])
    (job.folder / "gather").mkdir(parents=True)
    (job.folder / "gather" / "job.sh").touch()
    output = slurm(srun="exit 137", scontrol='[ "$1" = show ] && echo localhost', sbatch="echo Hello; echo '33;main'")
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "localhost",
                   "SLURM_CPUS_PER_TASK": "2", "SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "4"}  # fmt: skip
    text = script_of(job, SlurmConfig(gpus_per_node=0), tmp_path, sys.executable)
    done = subprocess.run(["bash"], input=text, text=True, capture_output=True, check=False, env=environment)
    assert done.returncode == 137
    assert "job 33 continues when 11_4 has ended" in done.stdout
    assert [line for line in output() if line.startswith("sbatch")] == [
        f"sbatch --parsable --dependency=afterany:12 --array=4 {job.folder}/job.sh",
        f"sbatch --dependency=afterany:33 {job.folder}/gather/job.sh",
    ]


def test_names_and_folders_with_line_breaks_are_refused(cli, tiny, tmp_path: Path, slurm) -> None:
    output = slurm(sbatch="echo 7")
    strange = tmp_path / "a\ndate"
    answer = cli(tiny, f"runs_dir='{tmp_path}/a\n\ndate'", "--submit")
    assert answer.code == 2
    (error,) = answer.errors
    assert r"a\ndate': expected a name or folder of one line" in error
    assert not strange.exists()
    assert not output()
    for job, cwd in ((Job("a\nb", tmp_path, []), tmp_path), (Job("a", strange, []), tmp_path),
                     (Job("a", tmp_path, []), strange)):  # fmt: skip
        with pytest.raises(InputError, match="expected a name or folder of one line"):
            script_of(job, SlurmConfig(), cwd, "python")


@pytest.mark.parametrize("task", ["organelle", "analyze"])
def test_a_name_has_no_unprintable_characters(cli, tiny, cells, task: str) -> None:
    words = [tiny] if task == "organelle" else ["analyze", f"inputs=[{cells}/*.TCF]"]
    answer = cli(*words, r'name="a\ndate"', "--submit", "--dry-run")
    assert answer.code == 2
    (error,) = answer.errors
    assert error == r"command line: name: expected a name that can be a folder's, got 'a\ndate'"


def test_options_can_be_one_text(cli, tiny) -> None:
    assert slurm_errors(SlurmConfig(options="--exclude=n3")) == []
    answer = cli(tiny, "--submit", "--dry-run", "slurm.options=--exclude=n3")
    assert answer.code == 0, answer.err
    assert "#SBATCH --exclude=n3\n" in answer.out
