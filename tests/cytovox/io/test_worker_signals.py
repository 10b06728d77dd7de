"""Signals to a whole process group: workers leave them to their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

HOME = str(Path(__file__).resolve().parents[3])

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="only Linux reports the sender of a signal")


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    """A script as the first process of a group of its own."""
    path = folder / "main.py"
    path.write_text(textwrap.dedent(code))
    environment = {**os.environ, "PYTHONPATH": HOME, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip


POOL = """
    import signal, sys, time
    from cytovox.io.processes import worker_pool

    def work(seconds):
        time.sleep(seconds)
        return seconds

    if __name__ == "__main__":
        came = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda number, _: came.append(number))
        with worker_pool(2) as pool:
            early = [pool.submit(work, 0.1) for _ in range(2)]  # signals come while the workers still import
            print("started", flush=True)
            print([job.result() for job in early], flush=True)
            late = [pool.submit(work, 1.0) for _ in range(2)]
            print("working", flush=True)
            print([job.result() for job in late], sorted(set(came)), flush=True)
"""


def test_workers_of_a_pool_outlive_signals_to_the_group(tmp_path: Path) -> None:
    with start(POOL, tmp_path) as parent:
        for line in ("started\n", "[0.1, 0.1]\n", "working\n"):
            assert parent.stdout.readline() == line
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                os.killpg(parent.pid, number)
        out, err = parent.communicate(timeout=60)
    assert err == ""
    assert out == "[1.0, 1.0] [2, 10, 15]\n"
    assert parent.returncode == 0


STOPPED = """
    import time
    from cytovox.io.processes import worker_pool

    if __name__ == "__main__":
        try:
            with worker_pool(1) as pool:
                pool.submit(time.sleep, 0).result()
                pool.submit(time.sleep, 600)
                print(next(iter(pool._processes)), flush=True)
                time.sleep(60)
        except KeyboardInterrupt:
            print("stopped", flush=True)
"""


def test_ctrl_c_does_not_wait_for_what_the_workers_are_at(tmp_path: Path) -> None:
    with start(STOPPED, tmp_path) as parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        os.killpg(parent.pid, signal.SIGINT)
        out, err = parent.communicate(timeout=60)
    assert (out, err, parent.returncode) == ("stopped\n", "", 0)
    assert not worker.is_running()


LOADER = """
    import signal, time
    import torch
    from datamodules.loading import ResumableDataLoader, begin_worker

    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            time.sleep(0.05)
            return torch.tensor(index)

    if __name__ == "__main__":
        came = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda number, _: came.append(number))
        loader = ResumableDataLoader(Slow(), num_workers=2, worker_init_fn=begin_worker, persistent_workers=True)
        for epoch in range(3):
            found = []
            for batch in loader:
                if not found:
                    print("epoch", epoch, flush=True)
                    input()
                found.append(int(batch))
            assert found == list(range(8))
        assert set(came) == {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
        print("whole", flush=True)
"""


def test_workers_of_a_loader_outlive_signals_to_the_group_and_end_with_it(tmp_path: Path) -> None:
    path = tmp_path / "main.py"
    path.write_text(textwrap.dedent(LOADER))
    environment = {**os.environ, "PYTHONPATH": HOME, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, start_new_session=True,
    ) as parent:  # fmt: skip
        for epoch in range(3):
            assert parent.stdout.readline() == f"epoch {epoch}\n"
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                os.killpg(parent.pid, number)
            parent.stdin.write("\n")
            parent.stdin.flush()
        out, err = parent.communicate(timeout=60)
    assert (out, err, parent.returncode) == ("whole\n", "", 0)
