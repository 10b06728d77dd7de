"""SLURM jobs: options, script, and errors before submission. Tests on a real SLURM are in tests/cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cytovox.errors import InputError
from datamodules.paths import expand, shard_error, shard_of
from experiments.submit import check_node
from experiments.submit.config import SlurmConfig, slurm_errors
from experiments.submit.job import Job, options_of, script_of
from training.run_lock import run_lock
from training.rundir import RunFolder


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("cells", tmp_path / "it's" / "slurm", ["experiments.run resume=x"])


def test_every_key_sets_its_sbatch_option(job: Job) -> None:
    config = SlurmConfig(
        nodes=4, gpus_per_node=8, gpu_type="v100", cpus_per_task=5, time="1-00:00:00", mem="0", account="lab",
        partition="gpu", qos="long", constraint="nvlink&ib", options=["--exclude=n3"], signal_s=90, at_once=2,
    )  # fmt: skip
    job.array, job.after = 6, "17"
    reported = options_of(job, config)
    for option in ("--nodes=4", "--ntasks-per-node=8", "--gres=gpu:v100:8", "--cpus-per-task=5", "--time=1-00:00:00",
                   "--mem=0", "--account=lab", "--partition=gpu", "--qos=long", "--constraint='nvlink&ib'",
                   "--array=0-5%2", "--dependency=afterany:17", "--signal=USR1@90", "--requeue", "--exclude=n3",
                   "--open-mode=append"):  # fmt: skip
        assert option in reported, reported
    assert any(option.startswith("--output=") and "%A_%a" in option for option in reported)


def test_null_keys_set_no_option(job: Job) -> None:
    output = " ".join(options_of(job, SlurmConfig(gpus_per_node=0)))
    for option in ("gres", "account", "partition", "qos", "mem", "array", "dependency"):
        assert f"--{option}" not in output


def test_the_script_is_valid_bash(job: Job, tmp_path: Path) -> None:
    config = SlurmConfig(setup=["module load cuda", "source env/bin/activate"], wrap="apptainer exec --nv a.sif")
    text = script_of(job, config, tmp_path, "/usr/bin/python3")
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    lines = text.splitlines()
    assert lines.index("module load cuda") < next(n for n, line in enumerate(lines) if "srun" in line)
    assert "apptainer exec --nv a.sif /usr/bin/python3 -m experiments.run resume=x" in text


@pytest.mark.parametrize(("code", "killed", "again"), [(0, 0, False), (2, 0, False), (75, 9, True), (137, 0, True),
                                                       (137, 3, False), (3, 0, False)])  # fmt: skip
def test_the_job_runs_again_after_a_stop_or_a_kill_up_to_its_retries(
    job: Job, tmp_path: Path, code: int, killed: int, again: bool
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {"srun": f"exit {code}", "scontrol": 'echo "$@" >> "$CALLS"; [ "$1" != show ] || echo localhost'}
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    job.folder.mkdir(parents=True)
    (job.folder / "killed").write_text("x\n" * killed)
    text = script_of(job, SlurmConfig(gpus_per_node=0), tmp_path, sys.executable)
    done = subprocess.run(
        ["bash"], input=text, text=True, capture_output=True, check=False,
        env={"PATH": f"{tools}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls"), "SLURM_JOB_ID": "12",
             "SLURM_JOB_NODELIST": "localhost", "SLURM_CPUS_PER_TASK": "2"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert ("requeue 12" in (tmp_path / "calls").read_text()) == again


def test_a_refused_job_is_not_run_again(job: Job, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {"srun": 'touch "$CYTOVOX_REFUSED"; exit 137', "scontrol": 'echo "$@" >> "$CALLS"; echo localhost'}
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    job.folder.mkdir(parents=True)
    text = script_of(job, SlurmConfig(gpus_per_node=0), tmp_path, sys.executable)
    subprocess.run(
        ["bash"], input=text, text=True, capture_output=True, check=False,
        env={"PATH": f"{tools}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls"), "SLURM_JOB_ID": "12",
             "SLURM_JOB_NODELIST": "localhost", "SLURM_CPUS_PER_TASK": "2"},
    )  # fmt: skip
    assert "requeue" not in (tmp_path / "calls").read_text()


def test_a_dependent_job_is_submitted_if_requeue_is_forbidden(job: Job, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {"srun": "exit 75", "scontrol": '[ "$1" = show ] && echo localhost', "sbatch": 'echo "$@" > "$CALLS"'}
    for name, text in scripts.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    text = script_of(job, SlurmConfig(gpus_per_node=0), tmp_path, sys.executable)
    subprocess.run(
        ["bash"], input=text, text=True, capture_output=True, check=False,
        env={"PATH": f"{tools}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls"), "SLURM_JOB_ID": "12",
             "SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "4", "SLURM_JOB_NODELIST": "localhost",
             "SLURM_CPUS_PER_TASK": "2"},
    )  # fmt: skip
    assert (
        tmp_path / "calls"
    ).read_text().strip() == f"--parsable --dependency=afterany:12 --array=4 {job.folder}/job.sh"


@pytest.mark.parametrize(
    ("key", "value", "output"),
    [
        ("nodes", 0, "nodes: expected 1 or more, got 0"),
        ("time", "tomorrow", "time: expected D-HH:MM:SS, HH:MM:SS or minutes, got 'tomorrow'"),
        ("tasks_per_node", 3, "tasks_per_node: there is one rank per GPU"),
        ("array", 0, "array: expected 1 or more"),
        ("at_once", 2, "at_once: only with array"),
        ("account", "a\nrm -rf /", "account: expected one line"),
        ("options", ["exclude=n3"], "options: expected an option of sbatch"),
        ("options", ["--a\nrm"], "options: expected an option of sbatch"),
        ("options", "exclude=n3", "options: expected an option of sbatch such as --exclude=n3, got 'exclude=n3'"),
    ],
)
def test_invalid_options_are_reported(key: str, value: object, output: str) -> None:
    (error,) = slurm_errors(SlurmConfig(**{key: value}))
    assert output in error


def test_a_dry_run_prints_the_script_and_writes_nothing(cli, tiny, tmp_path: Path) -> None:
    words = [f"runs_dir={tmp_path / 'runs'}", "slurm.nodes=2", "slurm.gpus_per_node=8"]
    answer = cli(tiny, "--submit", "--dry-run", *words)
    assert answer.code == 0, answer.err
    assert "#SBATCH --nodes=2" in answer.out
    assert "#SBATCH --ntasks-per-node=8" in answer.out
    assert not (tmp_path / "runs").exists()


def test_without_slurm_submit_is_refused_and_writes_nothing(cli, tiny, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = cli(tiny, "--submit", f"runs_dir={tmp_path / 'runs'}")
    assert answer.code == 2
    (error,) = answer.errors
    assert "no SLURM on this machine" in error
    assert not (tmp_path / "runs").exists()


def test_a_refusal_by_slurm_is_one_line_and_leaves_no_folder(cli, tiny, tmp_path: Path, monkeypatch) -> None:
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        "#!/bin/bash\necho 'sbatch: error: invalid partition' >&2\necho 'sbatch: error: no' >&2\nexit 1\n"
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:/usr/bin:/bin")
    answer = cli(tiny, "--submit", f"runs_dir={tmp_path / 'runs'}", "slurm.partition=nowhere")
    assert answer.code == 2
    (error,) = answer.errors
    assert "SLURM refuses: sbatch: error: invalid partition sbatch: error: no" in error
    assert not list((tmp_path / "runs").glob("*/*"))


def test_a_refusal_keeps_an_earlier_analysis(cli, cells, tmp_path: Path, monkeypatch) -> None:
    """The same analysis has the same folder, whose content is not of the refused job."""
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/bash\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:/usr/bin:/bin")
    out = tmp_path / "results"
    (out / "tables").mkdir(parents=True)
    (out / "config.yaml").write_text("task: analyze\n")
    (out / "status.json").write_text("{}\n")
    (out / "tables" / "cells.csv").write_text("precious\n")
    answer = cli("analyze", f"inputs=[{cells}/*.TCF]", f"out={out}", "--submit")
    assert answer.code == 2
    assert "SLURM refuses" in answer.err
    assert (out / "tables" / "cells.csv").read_text() == "precious\n"


def test_a_run_started_without_slurm_can_be_submitted(cli, tiny, tmp_path: Path, monkeypatch) -> None:
    run = cli(tiny, f"runs_dir={tmp_path}", "stages=[fit]", "trainer.max_epochs=1").run
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text("#!/bin/bash\necho 7\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:/usr/bin:/bin")
    assert cli(f"resume={run}", "--submit", "slurm.gpus_per_node=0").code == 0
    assert check_node.main([str(run / "slurm" / "needs.json")]) == 0


def test_the_config_takes_precedence_over_the_site(cli, tiny, tmp_path: Path, monkeypatch) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("slurm: {account: lab, partition: gpu, setup: [module load cuda]}")
    monkeypatch.setenv("CYTOVOX_SITE", str(site))
    out = cli(tiny, "--submit", "--dry-run", "slurm.partition=debug").out
    assert "--account=lab" in out
    assert "--partition=debug" in out
    assert "\nmodule load cuda\n" in out
    site.write_text("slurm: {acount: lab}")
    answer = cli(tiny, "--submit", "--dry-run")
    assert answer.code == 2
    assert "site.yaml: slurm.acount: no such key" in answer.err
    assert "account" in answer.err
    monkeypatch.setenv("CYTOVOX_SITE", str(tmp_path / "none.yaml"))
    assert "no such file" in cli(tiny, "--submit", "--dry-run").err


def test_an_array_of_a_training_is_refused(cli, tiny) -> None:
    answer = cli(tiny, "--submit", "--dry-run", "slurm.array=4")
    assert answer.code == 2
    assert "slurm.array" in answer.err
    assert "stages=[predict]" in answer.err


def test_shards_partition_the_inputs() -> None:
    items = list(range(11))
    parts = [shard_of(items, f"{n}/4") for n in range(4)]
    assert sorted(item for part in parts for item in part) == items
    assert {len(part) for part in parts} == {2, 3}
    assert shard_of(items, None) == items
    for wrong in ("4/4", "1", "a/2", "-1/3", "1/2/3"):
        assert "expected I/N" in str(shard_error(wrong))


def test_paths_in_a_list_are_relative_to_its_folder(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("# cells\nb.tif\n\na.tif\n")
    assert expand(["list.txt"], tmp_path, "inputs") == [tmp_path / "b.tif", tmp_path / "a.tif"]
    (tmp_path / "list.txt").write_text("gone.tif\n")
    with pytest.raises(InputError, match=r"1 of its files do not exist, such as .*gone\.tif"):
        expand(["list.txt"], tmp_path, "inputs")


def test_a_node_without_data_space_or_gpus_is_reported(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    needs = tmp_path / "needs.json"
    needs.write_text(json.dumps({"run": str(tmp_path), "paths": [str(tmp_path / "gone")], "gpus": 0, "free_gb": 0.1}))
    assert check_node.main([str(needs)]) == 2
    assert re.fullmatch(r"node n7: \S*gone: is not there; .* a disk that nodes share\n", capsys.readouterr().err)
    needs.write_text(json.dumps({"run": str(tmp_path), "paths": [], "gpus": 0, "free_gb": 1e9}))
    assert check_node.main([str(needs)]) == 2
    assert "are free, expected" in capsys.readouterr().err
    needs.write_text(json.dumps({"run": str(tmp_path), "paths": [], "gpus": 99, "free_gb": 0.1}))
    assert check_node.main([str(needs)]) == 2
    assert "GPUs, expected 99" in capsys.readouterr().err


def test_ranks_that_do_not_meet_are_reported_within_the_limit(tmp_path: Path, capsys, monkeypatch) -> None:
    job = {"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "MASTER_ADDR": "127.0.0.1", "SLURM_JOB_ID": "4711"}
    for key, value in job.items():
        monkeypatch.setenv(key, value)
    needs = tmp_path / "needs.json"
    needs.write_text(json.dumps({"run": str(tmp_path), "paths": [], "gpus": 0, "free_gb": 0.1}))
    assert check_node.main([str(needs), "--limit-s", "2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "rank 0 of 2 did not meet the others within 2 s at 127.0.0.1:44711" in line


def test_a_job_of_several_tasks_without_srun_is_refused(cli, tiny, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    answer = cli(tiny)
    assert answer.code == 2
    assert "put srun before the command" in answer.err


def test_a_second_process_in_a_run_folder_is_refused(cli, tiny, tmp_path: Path) -> None:
    answer = cli(tiny, f"runs_dir={tmp_path}", "stages=[fit]", "trainer.max_epochs=1")
    assert answer.code == 0, answer.err
    run = answer.run
    with run_lock(RunFolder(run)):
        answer = cli(f"resume={run}", "stages=[fit]")
    assert answer.code == 2
    error = answer.errors[-1]
    assert "another process is working in it" in error


def test_shards_of_a_prediction_are_gathered_by_the_same_command(cli, tiny, trained, cells, tmp_path: Path) -> None:
    listed = tmp_path / "all.txt"
    listed.write_text("\n".join(str(cells / f"HeLa-0000{n}.TCF") for n in (1, 2, 3)))
    asked = [tiny, "stages=[predict]", f"predict.checkpoint={trained.run}", f"predict.inputs=[{listed}]"]
    whole = cli(*asked, f"runs_dir={tmp_path / 'whole'}")
    assert whole.code == 0, whole.err
    first = cli(*asked, f"runs_dir={tmp_path / 'parts'}", "predict.shard=0/2")
    assert first.code == 0, first.err
    assert not (first.run / "tables" / "predictions.csv").exists()
    with run_lock(RunFolder(first.run), "0of2"):  # shards work side by side
        assert cli(f"resume={first.run}", "stages=[predict]", "predict.shard=1/2").code == 0
    assert cli(f"resume={first.run}").code == 0

    def table(run: Path) -> list[str]:
        return (run / "tables" / "predictions.csv").read_text().splitlines()

    assert table(first.run) == table(whole.run)
