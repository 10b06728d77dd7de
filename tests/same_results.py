"""Compare the results of two checkouts bit for bit: the demo's training, shipped weights, cells and tables.

    python -m tests.same_results record OUT.json [--checkout DIR] [--epochs N] [--tomogram FILE.TCF]
    python -m tests.same_results compare BEFORE.json AFTER.json

A refactoring must not change results. Both records have to be made on one machine: the last bits depend on the
processor and on the number of threads. Only commands are run, so that a checkout may have any layout.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

#: Columns that hold durations, paths or versions rather than results.
IGNORED = re.compile(r"_s$|seconds|time$|^time|source|path|file|version|per_second|fingerprint|provenance")


def main() -> int:
    """Record or compare; the exit code is 1 where results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    record_ = commands.add_parser("record", help="run the commands of one checkout and write digests of the results")
    record_.add_argument("out", type=Path)
    record_.add_argument("--checkout", type=Path, default=Path.cwd())
    record_.add_argument("--epochs", type=int, default=20, help="of the demo's training; 20 is the whole demo")
    record_.add_argument("--tomogram", type=Path, help="a measured TCF file, predicted by the shipped weights too")
    compare_ = commands.add_parser("compare", help="print every result that differs between two records")
    compare_.add_argument("before", type=Path)
    compare_.add_argument("after", type=Path)
    args = parser.parse_args()
    if args.command == "compare":
        return compare(json.loads(args.before.read_text()), json.loads(args.after.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        record = Recorder(args.checkout.resolve(), Path(folder)).record(args.epochs, args.tomogram)
    args.out.write_text(json.dumps(record, indent=1))
    print(f"{len(record)} results: {args.out}")
    return 0


def compare(before: dict[str, str], after: dict[str, str]) -> int:
    """Print what differs; 0 where nothing does."""
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    for name in differing:
        print(f"{name}: {before.get(name, 'missing')} before, {after.get(name, 'missing')} after")
    print(
        f"{len(before.keys() & after.keys()) - len(differing)} of {len(before.keys() | after.keys())} results are equal"
    )
    return 1 if differing else 0


class Recorder:
    """Run the commands of a checkout in a folder of their own.

    Parameters
    ----------
    checkout : Path
        Root of the repository.
    work : Path
        Where everything is written.
    """

    def __init__(self, checkout: Path, work: Path) -> None:
        self.checkout, self.work = checkout, work
        self.simulator = "cytovox.simulation" if (checkout / "cytovox" / "simulation").is_dir() else "simulator"

    def record(self, epochs: int, tomogram: Path | None) -> dict[str, str]:
        """Digests and numbers by name."""
        found: dict[str, str] = {}
        size = ["--shape", "64", "128", "128", "--spacing", "0.3", "0.3", "0.3"]
        self.run(self.simulator, "--preset", "HeLa", "--seed", "900001", *size, "--out", "sample")
        time_lapse = ["--preset", "RAW264.7", "--seed", "910001", "--film", "LPS", "--frames", "3", "--interval", "120"]
        self.run(self.simulator, *time_lapse, *size, "--out", "movies")
        sample = "predict.inputs=[sample/*.TCF]"
        self.experiment(
            "organelle_demo", "demo", sample, "stages=[fit,test,predict]", f"trainer.max_epochs={epochs}",
            "trainer.max_time=null",
        )  # fmt: skip
        self.experiment("organelle", "organelle", sample, "stages=[predict]")
        for name in ("cells", "cells_network"):
            self.experiment(name, name, "stages=[test]", "data.test.counts={HeLa: 1}", "data.shape=[64,128,128]")
        if tomogram is not None:
            measured = f"predict.inputs=[{tomogram.resolve()}]"
            self.experiment("organelle", "measured", measured, "stages=[predict]", "predict.probabilities=true")
        self.experiment("shape_demo", "shape", "stages=[fit,test]", "trainer.max_epochs=1", "trainer.max_time=null")
        for method in ("fast", "network", "watershed"):
            self.experiment("analyze", f"analyze_{method}", "inputs=[movies/*.TCF]", f"method={method}")
        for path in sorted(p for p in self.work.rglob("*") if p.is_file()):
            name = "/".join(part for part in path.relative_to(self.work).parts if not part[:8].isdigit())
            found.update(results_of(name, path))
        return found

    def experiment(self, config: str, name: str, *overrides: str) -> None:
        """Run a shipped config."""
        self.run("experiments.run", config, f"name={name}", *overrides)

    def run(self, module: str, *args: str) -> None:
        """Run a module of the checkout."""
        environment = {**os.environ, "PYTHONPATH": str(self.checkout), "CYTOVOX_CACHE": str(self.work / ".cache")}
        print(module, *args, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", module, *args], cwd=self.work, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{module} {' '.join(args)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")


def results_of(name: str, path: Path) -> dict[str, str]:
    """What a file holds that a refactoring must not change, by the file's name and what it is."""
    if "/.cache/" in f"/{name}" or "/checkpoints/" in f"/{name}":
        return {}
    suffix = path.name.lower()
    if suffix.endswith(".csv"):
        return table(name, path)
    if suffix.endswith("metrics.json"):
        return {f"{name}: {key}": str(value) for key, value in json.loads(path.read_text()).items() if kept(key)}
    if suffix.endswith((".nii", ".nii.gz")):
        import nibabel

        return {name: digest(nibabel.load(path).dataobj)}
    if suffix.endswith((".tif", ".tiff")):
        import tifffile

        return {name: digest(tifffile.imread(path))}
    if suffix.endswith(".npz"):
        import numpy as np

        with np.load(path) as arrays:
            return {f"{name}: {key}": digest(arrays[key]) for key in arrays.files}
    return {}


def table(name: str, path: Path) -> dict[str, str]:
    """A digest of each column."""
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    columns = [k for k, title in enumerate(header) if kept(title)]
    return {f"{name}: {header[k]}": digest_text([row[k] for row in rows]) for k in columns}


def kept(title: str) -> bool:
    """Whether a column or number is a result."""
    return IGNORED.search(title) is None


def digest(array: object) -> str:
    """SHA-256 of an array's values, with its shape and type."""
    import numpy as np

    values = np.ascontiguousarray(array)
    return hashlib.sha256(f"{values.shape} {values.dtype}".encode() + values.tobytes()).hexdigest()[:16]


def digest_text(values: list[str]) -> str:
    """SHA-256 of values as they are written, or the values themselves where they are few and short."""
    text = " ".join(values)
    return text if len(text) <= 60 else hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
