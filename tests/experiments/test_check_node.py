"""Check of the nodes by all ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from experiments.program import ENV_REFUSED

HOME = Path(__file__).resolve().parents[2]

#: A node whose one GPU is seen by runs that did not ask for it.
SEEN = """
import sys, torch
from experiments.submit import check_node
torch.cuda.is_available = lambda: True
torch.distributed.is_nccl_available = lambda: True
def refuse(*_, **__): raise RuntimeError("invalid device ordinal")
torch.cuda.set_device = refuse
sys.exit(check_node.main(sys.argv[1:]))
"""
#: Wires between GPUs that nothing comes over.
BLOCKED = """
import time
from experiments.submit.check_node import _refusing_after
with _refusing_after(600.0, "quick"):
    pass
with _refusing_after(0.3, "rank 1 of 2: its GPU did not meet the others'"):
    time.sleep(3600)
"""


def start(code: str, *words: str, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_run_on_cpus_does_not_touch_the_gpus_of_its_node(tmp_path: Path) -> None:
    needs = tmp_path / "needs.json"
    needs.write_text(json.dumps({"run": str(tmp_path), "paths": [], "gpus": 0, "free_gb": 0.001}))
    job = {"SLURM_NTASKS": "2", "MASTER_ADDR": "127.0.0.1", "SLURM_JOB_ID": str(os.getpid())}
    ranks = [start(SEEN, str(needs), SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), **job) for rank in range(2)]
    for rank in ranks:
        _, output = rank.communicate(timeout=1800)
        assert rank.returncode == 0, output


def test_gpus_that_do_not_meet_are_reported_in_one_line_and_not_retried(tmp_path: Path) -> None:
    refused = tmp_path / "refused"
    rank = start(BLOCKED, **{ENV_REFUSED: str(refused), "SLURMD_NODENAME": "n7"})
    _, output = rank.communicate(timeout=1800)
    assert rank.returncode == 2, output
    (line,) = output.splitlines()
    assert line.startswith("node n7: rank 1 of 2: its GPU did not meet the others' within 0 s (NCCL); are nodes")
    assert refused.exists()  # and so the job is not run again
