"""Worker processes never outlive the process that started them."""

import os
import subprocess
import sys

import psutil
import pytest

from cytovox.io.processes import worker_pool

_PARENT = """
import os, time
from cytovox.io.processes import worker_pool
if __name__ == "__main__":
    pool = worker_pool(2)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(3600)
"""


def test_a_worker_works():
    with worker_pool(1) as pool:
        assert pool.submit(os.getpid).result() != os.getpid()


def test_a_killed_parent_takes_its_workers_with_it(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        try:
            worker.wait(timeout=600)
        except psutil.TimeoutExpired:
            worker.kill()
            pytest.fail("the worker lives on")
