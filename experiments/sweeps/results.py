"""Results of a sweep: a table of its runs and a figure."""

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cytovox.io.atomic import atomic_path
from experiments.sweeps.state import SweepRun
from experiments.sweeps.sweep_file import Sweep
from training.rundir import write_csv


def best_of(sweep: Sweep, runs: list[SweepRun]) -> SweepRun | None:
    """Return the run with the best metric, or None."""
    _, larger = sweep.metric
    known = [run for run in runs if run.metric is not None and math.isfinite(run.metric)]
    return max(known, key=lambda run: (run.metric or 0.0) * (1 if larger else -1), default=None)


def write_results(sweep: Sweep, runs: list[SweepRun]) -> None:
    """Write `sweep.csv` and `sweep.png` to the folder of the sweep."""
    keys = list(sweep.parameters)
    metric = sweep.metric[0] or "metric"
    rows = [
        {"run": run.number, "state": run.state, metric: run.metric, **run.suggested, "folder": run.folder}
        for run in runs
    ]
    columns = ["run", "state", metric, *keys, "folder"]
    write_csv(sweep.folder / "sweep.csv", columns, ({key: row.get(key) for key in columns} for row in rows))
    if any(run.metric is not None for run in runs):
        _draw(sweep, runs, keys, sweep.folder / "sweep.png")


def print_results(sweep: Sweep, runs: list[SweepRun]) -> None:
    """Print the table, the best run first, and the paths of the results."""
    name, larger = sweep.metric
    keys = list(sweep.parameters)
    table = Table(title=sweep.id)
    for head in ("run", "state", name or "metric", *keys):
        table.add_column(head, justify="right" if head != "state" else "left")
    worst = -math.inf if larger else math.inf
    for run in sorted(runs, key=lambda run: worst if run.metric is None else run.metric, reverse=larger):
        metric = "" if run.metric is None else f"{run.metric:.4g}"
        table.add_row(str(run.number), run.state, metric, *(_short(run.suggested.get(key)) for key in keys))
    Console(width=None if Console().is_terminal else 140).print(table)
    if (best := best_of(sweep, runs)) is not None:
        print(f"best: {best.folder}")
    print(f"table: {sweep.folder / 'sweep.csv'}\nfigure: {sweep.folder / 'sweep.png'}", flush=True)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _draw(sweep: Sweep, runs: list[SweepRun], keys: list[str], path: Path) -> None:
    """Plot the metric and its best value so far over the runs, and the metric over each parameter that varied."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    name, larger = sweep.metric
    known = [run for run in runs if run.metric is not None]
    varied = [key for key in keys if len({str(run.suggested.get(key)) for run in known}) > 1]
    columns = min(3, 1 + len(varied))
    rows = -(-(1 + len(varied)) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, n + 1) for n in range(1 + len(varied))]
    metrics = [float(run.metric or 0.0) for run in known]
    so_far = [(max if larger else min)(metrics[: n + 1]) for n in range(len(metrics))]
    order = [run.number for run in known]
    axes[0].step(order, so_far, where="post", color="#d55e00", label="best so far")
    axes[0].scatter(order, metrics, color="#0072b2", s=24, zorder=3, label="run")
    axes[0].set(xlabel="run", ylabel=name)
    axes[0].legend(frameon=False)
    for ax, key in zip(axes[1:], varied, strict=True):
        values = [run.suggested.get(key) for run in known]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        numeric = len(numbers) == len(values)
        ax.scatter(numbers if numeric else [str(value) for value in values], metrics, color="#0072b2", s=24)
        if numeric and min(numbers) > 0 and max(numbers) / min(numbers) > 20:
            ax.set_xscale("log")
        ax.set(xlabel=key, ylabel=name)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
