"""`python -m experiments.run`, with MONAI's DiNTS added; finished runs are not repeated."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py


def run_once(work: Path, name: str, config: str, words: list[str]) -> Path:
    """The finished run of these very words; done now, on one thread, if it was not.

    Raises
    ------
    RuntimeError
        It failed; the reason is in its log.
    """
    name = f"{name}-{hashlib.sha256(repr((config, words)).encode()).hexdigest()[:8]}"
    if (done := _finished(work / name)) is not None:
        return done
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, config, *words, f"name={name}", f"runs_dir={work}", "logging.wandb=disabled"]
    log, one = work / f"{name}.log", dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with log.open("wb") as file:
        subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False, env={**os.environ, **one})
    if (done := _finished(work / name)) is None:
        raise RuntimeError(f"{name}: failed, see {log}")
    return done


def _finished(folder: Path) -> Path | None:
    for run in sorted(folder.glob("*")):
        status = run / "status.json"
        if status.is_file() and json.loads(status.read_text())["status"] == "finished":
            return run
    return None


if __name__ == "__main__":
    from benchmarks._dints import DiNTSConfig
    from cytovox.networks.registry import NETWORKS
    from experiments.run import main

    NETWORKS["dints"] = DiNTSConfig
    sys.exit(main(sys.argv[1:]))
