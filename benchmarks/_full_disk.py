"""A disk that fills while a run saves: what is left of the checkpoint, and whether the run goes on."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import Table
from tests.cluster.jobs import Jobs, differences, trained


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of its own in memory; needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that leaves so many bytes free."""
    path = disk / "full"
    with path.open("wb") as file:
        file.write(b"\0" * max(0, shutil.disk_usage(disk).free - leave))
    return path


def full_disk_run(work: Path, leave: int) -> dict[str, Any]:
    """A run whose disk fills after its first checkpoint, but for `leave` bytes; then there is room, and it goes on."""
    jobs = Jobs({}, work)
    config = jobs.config("disk.yaml", trainer={"devices": 1, "accelerator": "cpu", "max_epochs": 30})
    whole = jobs.cli(config, "name=whole")
    assert whole.returncode == 0, whole.stderr
    expected = trained(Path(whole.stdout.splitlines()[-1].removeprefix("run: ")))
    with small_disk(work / "disk", 24) as disk:
        command = [sys.executable, "-m", "experiments.run", str(config), f"runs_dir={disk / 'runs'}"]
        process = subprocess.Popen(command, cwd=work, env=jobs.environment, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)  # fmt: skip
        last = _first_checkpoint(disk)
        filler = fill(disk, leave)
        _, output = process.communicate(timeout=180)
        saved = torch.load(last, map_location="cpu", weights_only=True)
        parts = [path.name for path in disk.rglob(".part-*")]
        filler.unlink()
        resumed = jobs.cli(f"resume={last.parents[1]}")
        equal = resumed.returncode == 0 and not differences(expected, trained(last.parents[1]))
    return {
        "left free": leave, "exit code": process.returncode, "step on the disk": int(saved["global_step"]),
        "half-written files": len(parts), "reported": [line for line in output.splitlines() if "no space" in line][:1],
        "traceback": "Traceback" in output, "resumed": resumed.returncode == 0, "equal": equal,
    }  # fmt: skip


def _first_checkpoint(disk: Path) -> Path:
    for _ in range(1200):
        found = list(disk.rglob("last.ckpt"))
        if found:
            return found[0]
        time.sleep(0.05)
    raise RuntimeError("the run saved nothing within a minute")


def disk_table(work: Path) -> tuple[Table, dict[str, Any]]:
    """Runs that fill the disk to different degrees: no room at all, and room for a part of a checkpoint."""
    rows, found = [], {}
    for leave in (0, 4096, 65536, 262144):
        folder = work / str(leave)
        folder.mkdir()
        output = full_disk_run(folder, leave)
        found[str(leave)] = output
        rows.append([str(leave), str(output["exit code"]), str(output["step on the disk"]),
                     str(output["half-written files"]), "yes" if output["resumed"] else "no",
                     "yes" if output["equal"] else "no"])  # fmt: skip
    heads = ["bytes left free", "exit code", "last step on the disk", "half-written files", "resumed",
             "weights equal bit for bit"]  # fmt: skip
    return Table("A disk that fills while a run saves", heads, rows), found
