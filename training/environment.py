"""Description of the software and hardware of a run."""

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
    """Return command, versions, device, seed, data digest and git state of a run.

    Parameters
    ----------
    seed : int
        Random seed of the run.
    data_digest : str, optional
        Hash of the data of the run.

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
    """Return names of the CPU and the GPUs, the number of threads, and the CUDA version of torch."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(count)],
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
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and uncommitted changes of the code, or None if it is an installed package."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, timeout=20, check=True)  # noqa: S603, S607
        return done.stdout.decode("utf-8", errors="replace")  # a diff may hold bytes that are not UTF-8

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != folder:
            return None
        return {"commit": git("rev-parse", "HEAD").strip(), "diff": git("diff", "HEAD")[:200_000]}
    except (OSError, subprocess.SubprocessError):
        return None
