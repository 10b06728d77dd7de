"""How much memory the prediction of a volume larger than memory takes; each volume in a process of its own.

Run as a script with an OME-Zarr, this is that process: it predicts the file as a run does, and prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import numpy as np
import torch
from rich.progress import track

from benchmarks._common import Table, Watch, finish
from cytovox.inference.predictor import DenseInferer
from cytovox.inference.tiling import SlidingWindow
from cytovox.io.omezarr_writer import create_omezarr
from cytovox.io.regions import Shape
from cytovox.networks.residual_unet import ResidualUNet, ResidualUNetConfig
from cytovox.preprocess.resampling import ResampleTo
from cytovox.simulation import simulate
from datamodules.cache import cache_root
from training.prediction import MaskWriter
from training.rundir import RunFolder

#: The one of the claim, half and twice its depth.
SIZES: tuple[Shape, ...] = ((256, 2048, 2048), (512, 2048, 2048), (1024, 2048, 2048))
QUICK: tuple[Shape, ...] = ((32, 64, 64), (64, 64, 64))
SPACING_UM = (0.3, 0.3, 0.3)
CHUNK: Shape = (32, 256, 256)
ORGANELLES = ("membrane", "nucleus", "nucleolus", "lipid")
GIB = 1 << 30


def write_input(path: Path, shape: Shape) -> None:
    """An OME-Zarr of cells, chunk by chunk: a simulated field, repeated, each time with noise of its own."""
    field = simulate("HeLa", 1, (CHUNK[0], 64, 64), SPACING_UM).ri_ZYX
    tile = np.pad(field, ((0, 0), (0, 64), (0, 64)), mode="symmetric")
    tile = np.tile(tile, (1, CHUNK[1] // 128 + 1, CHUNK[2] // 128 + 1))
    rng = np.random.default_rng(0)
    # indices of four decimals, as microscopes store them, so that the file is of a moderate size
    noisy = [np.round(tile + rng.normal(scale=2e-4, size=tile.shape), 4).astype(np.float32) for _ in range(4)]
    with create_omezarr(path, (1, 1, *shape), np.float32, SPACING_UM, ["RI"], medium_ri=1.337) as array:
        starts = list(product(*(range(0, n, c) for n, c in zip(shape, CHUNK, strict=True))))
        for i, (z, y, x) in enumerate(starts):
            size = [min(c, n - a) for a, c, n in zip((z, y, x), CHUNK, shape, strict=True)]
            part = noisy[i % len(noisy)][: size[0], : size[1], : size[2]]
            array[0, 0, z : z + size[0], y : y + size[1], x : x + size[2]] = part


def resident(word: str) -> int:
    """Bytes in memory now (``VmRSS``) or at most so far (``VmHWM``), as Linux counts them."""
    status = Path("/proc/self/status")
    if not status.is_file():
        raise SystemExit("the memory part reads /proc/self/status: run it on Linux")
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{word}:"))
    return 1024 * int(line.split()[1])


def thresholds() -> ResidualUNet:
    """A small network of random weights whose head looks past them at the image: masks of cells, not of noise.

    Noise has a surface in every voxel, and drawing that would be most of the memory.
    """
    torch.manual_seed(0)
    network = ResidualUNetConfig(channels=[8]).build(1, len(ORGANELLES))
    assert isinstance(network, ResidualUNet)
    with torch.no_grad():
        network.head.weight.mul_(1e-3)
        network.head.weight[:, -1, 1, 1, 1] = 100.0
        network.head.bias.copy_(-100.0 * torch.tensor([0.15, 0.3, 0.5, 0.8]))  # type: ignore[union-attr]
    return network


def predict(path: Path, folder: Path, quick: bool) -> dict[str, float]:
    """Predict a file as a run does, and tell what that took."""
    network = thresholds()
    window, stride = ((24, 32, 32), (12, 16, 16)) if quick else ((64, 128, 128), (48, 96, 96))
    inferer = DenseInferer(
        network,
        resample=ResampleTo.chosen("spacing_um", list(SPACING_UM), []),
        tiling=SlidingWindow(window, stride, pad_yx=(0, 0)),
        precision="32-true",  # its activations are the larger ones
    )
    writer = MaskWriter(RunFolder(folder), ORGANELLES, {path: "streamed"}, file_format="ome-zarr")
    before, begun = resident("VmRSS"), time.perf_counter()
    writer(path, inferer)
    if writer.errors:
        raise SystemExit(writer.errors[0])
    written = sum(file.stat().st_size for file in folder.rglob("*.ome.zarr/**/*") if file.is_file())
    seconds = time.perf_counter() - begun
    return {"before": before, "peak": resident("VmHWM"), "seconds": seconds, "written": written}


def measure_memory(arguments: argparse.Namespace) -> None:
    """Each size in turn, and what it took above the model and the libraries."""
    rows: dict[str, Any] = {}
    table = Table(
        "Peak memory above the model, OME-Zarr to OME-Zarr at its own spacing, nothing skipped",
        ["voxels", "float32 input, GiB", "model and libraries, MiB", "peak above them, MiB"],
    )
    scratch = arguments.cache or cache_root(None) / "benchmarks"
    scratch.mkdir(parents=True, exist_ok=True)
    with Watch() as watch:
        for shape in track(QUICK if arguments.quick else SIZES, "volumes", transient=True):
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                source = Path(folder) / "input.ome.zarr"
                write_input(source, shape)
                command = [
                    sys.executable,
                    __file__,
                    str(source),
                    str(Path(folder) / "run"),
                    *["--quick"] * arguments.quick,
                ]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            name, found = "x".join(map(str, shape)), json.loads(done.stdout.splitlines()[-1])
            above = found["peak"] - found["before"]
            rows[name] = {**found, "above_bytes": above, "below_2_gib": above < 2 * GIB}
            size = f"{4 * math.prod(shape) / GIB:.1f}"
            table.rows.append([name, size, f"{found['before'] / 2**20:.0f}", f"{above / 2**20:.0f}"])
    finish(argparse.Namespace(**{**vars(arguments), "repeats": 1}), rows, {}, [table], watch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Predict one OME-Zarr and print what memory it took.")
    parser.add_argument("input", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    print(json.dumps(predict(chosen.input, chosen.run, chosen.quick)))
