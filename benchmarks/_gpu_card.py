"""Name, versions and memory of the device that the GPU benchmark ran on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from typing import Any

import torch

from training.environment import describe_device

#: Part of a card's name to its datasheet: TFLOP/s without sparsity in 16 bits, TF32 and float32, and memory in GB/s.
#: The first part that the name contains counts. NVIDIA's datasheets of the H200, H100, A100 and V100.
DATASHEETS: dict[str, dict[str, float]] = {
    "H200": {"float16": 989, "bfloat16": 989, "tf32": 494, "float32": 67, "copy": 4800},
    "H100 PCIe": {"float16": 756, "bfloat16": 756, "tf32": 378, "float32": 51, "copy": 2000},
    "H100 NVL": {"float16": 835, "bfloat16": 835, "tf32": 417, "float32": 60, "copy": 3900},
    "H100": {"float16": 989, "bfloat16": 989, "tf32": 494, "float32": 67, "copy": 3350},
    "A100": {"float16": 312, "bfloat16": 312, "tf32": 156, "float32": 19.5, "copy": 2039},
    "V100-SXM": {"float16": 125, "float32": 15.7, "copy": 900},
    "V100": {"float16": 112, "float32": 14, "copy": 900},
}


def datasheet(name: str) -> dict[str, float]:
    """TFLOP/s and GB/s that the maker gives for a card; empty for one that is not listed."""
    return next((values for part, values in DATASHEETS.items() if part in name), {})


def describe_card(wanted: str | None) -> dict[str, Any]:
    """Plain values for JSON: device, compute capability, memory, driver, CUDA, cuDNN, torch and other versions.

    Parameters
    ----------
    wanted : str or None
        `cpu` does not start CUDA in this process; `cuda` or None does where there is a CUDA device.

    Returns
    -------
    dict
        `kind` is `cuda` or `cpu`.
    """
    on_gpu = wanted != "cpu" and torch.cuda.is_available()
    host = {} if on_gpu else describe_device()
    properties = torch.cuda.get_device_properties(0) if on_gpu else None
    capability = torch.cuda.get_device_capability(0) if on_gpu else None
    return {
        "kind": "cuda" if on_gpu else "cpu",
        "device": host["cpu"] if properties is None else properties.name,
        "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
        "memory_gb": None if properties is None else round(properties.total_memory / 1e9, 1),
        "multiprocessors": None if properties is None else properties.multi_processor_count,
        "driver": _driver() if on_gpu else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "torch": torch.__version__,
        "triton": _version("triton"),
        "monai": _version("monai"),
        "lightning": _version("pytorch-lightning"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "compiler": next((name for name in ("g++", "gcc", "cc") if shutil.which(name)), None),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    """Version of NVIDIA's driver, as nvidia-smi prints it; None where that cannot be run."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None
