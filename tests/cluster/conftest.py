"""One cluster for all tests of this folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.jobs import Jobs
from tests.cluster.two_nodes import missing, two_nodes


@pytest.fixture(scope="session")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """The cluster as its user meets it."""
    if (why := missing()) is not None:
        pytest.skip(why)
    base = tmp_path_factory.mktemp("cluster")
    with two_nodes(base / "slurm") as environment:
        work = base / "work"
        work.mkdir()
        yield Jobs(environment, work)


@pytest.fixture
def idle(jobs: Jobs) -> Iterator[Jobs]:
    """The same with nothing left of an earlier test."""
    yield jobs
    jobs.slurm("scancel", "--user=root")
    jobs.wait(lambda: not jobs.states(), 60)


@pytest.fixture(scope="session")
def finished(jobs: Jobs) -> Path:
    """A run of two nodes that came to its end."""
    _, run = jobs.submit(jobs.config("whole.yaml", stages=["fit", "test"], data={"val": {"count": 5, "first_seed": 100},
                                     "test": {"count": 3, "first_seed": 200}}))  # fmt: skip
    jobs.wait(lambda: jobs.finished(run), 240, "a run on two nodes")
    return run


@pytest.fixture(scope="session")
def tomograms(jobs: Jobs) -> list[Path]:
    """Five small TCF files."""
    out = jobs.folder / "cells"
    words = [
        "--preset",
        "HeLa",
        "--seed",
        1,
        2,
        3,
        4,
        5,
        "--shape",
        16,
        32,
        32,
        "--spacing",
        0.6,
        0.6,
        0.6,
        "--out",
        out,
    ]
    done = jobs.cli(*words, "--out", out, module="cytovox.simulation")
    assert done.returncode == 0, done.stderr
    return sorted(out.glob("*.TCF"))


@pytest.fixture
def server(idle: Jobs) -> Iterator[dict[str, str]]:
    """The loopback server of W&B's protocol, and what the real client needs to find it."""
    data = os.environ.get("CYTOVOX_DATA")
    script = Path(data).parent / "tools" / "wandb" / "local_server.py" if data else None
    if script is None or not script.is_file():
        pytest.skip("needs the loopback W&B server beside CYTOVOX_DATA")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = idle.folder / "wandb-server.log"
    process = subprocess.Popen([sys.executable, str(script), str(port), str(log)])
    environment = {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": "a" * 40, "WANDB_MODE": "online"}
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield environment
    process.kill()
    process.wait()
