"""The scores of two checkouts over several seeds: whether those of one lie within the interval of the other.

    python -m studies.seeds --before CHECKOUT
    python -m studies.seeds --before CHECKOUT --count 3 trainer.max_epochs=5

Random augmentation may be changed, and with it every bit of a training, as long as the scores stay what they were. Each
seed is trained and tested by the command line of either checkout. A run that has ended is not repeated: start the same
command again after an interruption. The interval is that in which the mean of as many new runs lies in 95 of 100 cases,
if nothing but the seeds differs (Student's t). The exit code is 1 where a mean lies outside.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import t

from cytovox.errors import InputError
from studies._common import print_table, require_folder, run_study

HERE = Path(__file__).resolve().parents[1]


def score(checkout: Path, work: Path, config: str, seed: int, overrides: Sequence[str]) -> dict[str, float]:
    """Train and test one seed with a checkout's own command, and return the test's numbers.

    Parameters
    ----------
    checkout : Path
        Root of a repository; it is only read.
    work : Path
        Folder of this checkout's runs; a seed that has ended there is not run again.
    config : str
        Name of a config that the checkout ships.
    seed : int
        Of the run.
    overrides : sequence of str
        `key=value`, the same for every seed.

    Returns
    -------
    dict
        `test/dice_mean` and the like.

    Raises
    ------
    InputError
        The command fails; its last line is given.
    """
    name = f"seed_{seed}"
    ended = work / f"{name}.json"
    settings = {"config": config, "overrides": list(overrides)}
    if ended.is_file():
        found = json.loads(ended.read_text(encoding="utf-8"))
        if found["settings"] != settings:
            raise InputError(f"--work: {ended}: is of {found['settings']}; expected {settings}: choose another folder")
        return found["scores"]
    words = [config, f"name={name}", f"seed={seed}", f"runs_dir={work / 'runs'}", "stages=[fit,test]"]
    words += ["logging.wandb=disabled", "trainer.max_time=null", "trainer.enable_progress_bar=false", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    work.mkdir(parents=True, exist_ok=True)
    print(f"{checkout}: seed {seed}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", *words], cwd=work, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise InputError(f"{checkout}: experiments.run {' '.join(words)}: exit code {done.returncode}: {lines[-1]}")
    newest = max((work / "runs" / name).glob("*/metrics.json"), key=lambda path: path.stat().st_mtime)
    metrics = json.loads(newest.read_text(encoding="utf-8"))
    scores = {key: float(value) for key, value in metrics.items() if key.startswith("test/dice")}
    ended.write_text(json.dumps({"settings": settings, "scores": scores}, indent=1) + "\n", encoding="utf-8")
    return scores


def interval(values: Sequence[float], new: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `new` further runs, from the scores of at least two.

    Parameters
    ----------
    values : sequence of float
        Scores, one per seed.
    new : int
        Number of further runs.

    Returns
    -------
    low, high : float
    """
    n = len(values)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(values) * math.sqrt(1 / n + 1 / new)
    return statistics.mean(values) - half, statistics.mean(values) + half


def compare(arguments: argparse.Namespace) -> None:
    """Run what has not ended yet, and print both checkouts' scores."""
    if arguments.count < 2:
        raise InputError(f"--count: {arguments.count}: expected at least two seeds, for an interval")
    checkouts = {"before": arguments.before.resolve(), "after": arguments.after.resolve()}
    for option, checkout in checkouts.items():
        require_folder(checkout, f"--{option}", "experiments")
    work = arguments.work.resolve()
    scores: dict[str, list[dict[str, float]]] = {side: [] for side in checkouts}
    for seed in range(1, arguments.count + 1):
        for side, checkout in checkouts.items():
            scores[side].append(score(checkout, work / side, arguments.config, seed, arguments.overrides))
    rows, outside = [], []
    for key in scores["before"][0]:
        before, after = ([found[key] for found in scores[side]] for side in checkouts)
        low, high = interval(before, len(after))
        mean = statistics.mean(after)
        within = low <= mean <= high
        outside += [] if within else [key]
        rows.append([key, statistics.mean(before), f"{low:.3f} to {high:.3f}", mean, "yes" if within else "no"])
    print_table(
        f"{arguments.config}, {arguments.count} seeds", ["score", "before", "interval", "after", "within"], rows
    )
    if outside:
        raise Outside(f"outside of the interval: {', '.join(outside)}")


class Outside(InputError):
    """A mean lies outside of the interval."""

    exit_code = 1


def main(words: Sequence[str] | None = None) -> int:
    """Compare, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.seeds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, help="a checkout with the scores to keep")
    parser.add_argument("--after", type=Path, default=HERE, help="the checkout to judge; default: this one")
    parser.add_argument("--config", default="organelle_demo", help="shipped config (%(default)s)")
    parser.add_argument("--count", type=int, default=5, help="seeds, from 1 on (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("runs/studies/seeds"), help="run folders (%(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the config to change")
    return run_study(compare, parser.parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
