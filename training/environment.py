"""What a run ran on: code, packages, device, seeds, data."""

from __future__ import annotations

import datetime as dt
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

#: Packages whose version can change a result.
PACKAGES = (
    "cytovox", "torch", "pytorch-lightning", "monai", "numpy", "scipy", "scikit-image", "omegaconf", "h5py",
    "hdf5plugin", "nibabel", "tifffile", "zarr", "trimesh", "safetensors", "wandb",
)  # fmt: skip


def describe_environment(seed: int, data_digest: str | None = None) -> dict[str, Any]:
    """Everything needed to say later what produced a number.

    Parameters
    ----------
    seed : int
        The run's seed.
    data_digest : str, optional
        Hash of the data that the run used.

    Returns
    -------
    dict
        Plain types only, ready for JSON.
    """
    return {
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": describe_device(),
        "seed": seed,
        "data_digest": data_digest,
        "git": _git_state(Path(__file__).resolve().parent.parent),
    }


def describe_device() -> dict[str, Any]:
    """Processor and accelerators as torch sees them."""
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and uncommitted changes of the code, or None for an installed package."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)  # noqa: S603
        return done.stdout.decode("utf-8", errors="replace")  # a diff holds whatever the files hold

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != folder:
            return None
        return {"commit": git("rev-parse", "HEAD").strip(), "diff": git("diff", "HEAD")[:200_000]}
    except (OSError, subprocess.SubprocessError):
        return None
