"""Draw learning curves, the Dice of every case, and the reliability of probabilities."""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cytovox.metrics.reliability import Reliability
from cytovox.organelles import COLOURS, OTHER_COLOUR, in_order
from cytovox.plots.figures import DPI, INK, MUTED, add_grid, save_figure

#: Colours of Okabe and Ito, distinguishable with any common colour blindness. More models reuse them with dashed lines.
MODEL_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


def read_curves(metrics_csv: str | Path) -> dict[str, list[tuple[float, float]]]:
    """Return the curves of a metrics file: name -> [(epoch, mean value in that epoch), ...].

    Entries that are not numbers, such as those of a truncated last line, are ignored.
    """
    sums: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_rows(metrics_csv):
        epoch = _number(row.get("epoch"))
        for name, text in row.items():
            value = _number(text)
            if name not in ("", "epoch", "step") and math.isfinite(epoch) and math.isfinite(value):
                sums[name][epoch].append(value)
    return {name: [(e, float(np.mean(v))) for e, v in sorted(by.items())] for name, by in sums.items()}


def scored(columns: Iterable[str], prefix: str = "dice_") -> list[str]:
    """Return the names that follow a prefix in the columns of a table: organelles in their order, then the mean."""
    names = [column.removeprefix(prefix) for column in columns if column.startswith(prefix)]
    return in_order(name for name in names if name != "mean") + (["mean"] if "mean" in names else [])


def curves_figure(path: str | Path, metrics_csv: str | Path) -> Path | None:
    """Draw loss and validation Dice by epoch.

    Parameters
    ----------
    path : str or Path
        PNG file to write, complete or not at all.
    metrics_csv : str or Path
        Columns epoch, train/loss, val/loss, val/dice_mean, val/dice_<organelle>; empty entries are allowed, other
        columns ignored.

    Returns
    -------
    Path or None
        None, and no file, if there is nothing to draw yet.
    """
    curves = read_curves(metrics_csv)
    losses = {}
    for stage, label in (("train", "training"), ("val", "validation")):
        name = next((n for n in (f"{stage}/loss_epoch", f"{stage}/loss", f"{stage}/loss_step") if n in curves), None)
        if name is not None:
            losses[label] = curves[name]
    dices = {name: curves[f"val/dice_{name}"] for name in scored(curves, "val/dice_")}
    drawn = {label: group for label, group in (("loss", losses), ("validation Dice", dices)) if group}
    if not drawn:
        return None
    figure = Figure(figsize=(9.0, 3.4), dpi=DPI, layout="constrained")
    for ax, (label, group) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True):
        for name, points in group.items():
            marker = "o" if len(points) < 12 else None
            ax.plot(*zip(*points, strict=True), **_line_style(name), label=name, marker=marker, markersize=3.5)
        ax.set(xlabel="epoch", ylabel=label)
        if label == "loss":
            _log_if_wide(ax, group)
        else:
            ax.set_ylim(0, 1)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        add_grid(ax, "y")
        ax.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=1 if label == "loss" else 2)
    return save_figure(figure, path)


def _log_if_wide(ax: Axes, group: Mapping[str, list[tuple[float, float]]]) -> None:
    """Set a logarithmic axis for values that span more than a factor of 20."""
    values = [value for points in group.values() for _, value in points]
    if min(values) > 0 and max(values) / min(values) > 20:
        ax.set_yscale("log")
    elif min(values) >= 0:
        ax.set_ylim(bottom=0)


def _line_style(name: str) -> dict[str, Any]:
    if name in COLOURS:
        return {"color": COLOURS[name], "linewidth": 1.4}
    return {"color": MUTED if name == "training" else INK, "linewidth": 1.4 if name == "training" else 2.0}


def dice_figure(path: str | Path, cases_csv: str | Path, windows_csv: str | Path | None = None) -> Path | None:
    """Draw the Dice of every case as a point, per organelle, over a box of the quartiles.

    Parameters
    ----------
    path : str or Path
        PNG file to write, complete or not at all.
    cases_csv : str or Path
        Columns case, dice_<organelle>, dice_mean; empty where a case has no score.
    windows_csv : str or Path, optional
        Columns organelle, dice: Dice of the best single window of refractive index, drawn as a dashed line.

    Returns
    -------
    Path or None
        None, and no file, if no case has a score.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for row in read_rows(cases_csv):
        for name in scored(row):
            value = _number(row.get(f"dice_{name}"))
            if math.isfinite(value):
                scores[name].append(value)
    rows = [] if windows_csv is None else read_rows(windows_csv)
    windows = {row.get("organelle"): _number(row.get("dice")) for row in rows}
    names = scored(scores, "")
    if not names:
        return None
    figure = Figure(figsize=(1.3 + 1.35 * len(names), 3.8), dpi=DPI, layout="constrained")
    ax = figure.add_subplot()
    baseline = None
    for at, name in enumerate(names):
        colour = COLOURS.get(name, OTHER_COLOUR)
        _draw_box(ax, at, np.array(scores[name]), colour)
        if math.isfinite(windows.get(name, math.nan)):
            (baseline,) = ax.plot([at - 0.42, at + 0.42], [windows[name]] * 2, color=INK, linestyle=(0, (3, 2)))
    labels = [f"{name}\nn = {len(scores[name])}" for name in names]
    ax.set(ylim=(0, 1.0), xlim=(-0.6, len(names) - 0.4), ylabel="Dice")
    ax.set_xticks(range(len(names)), labels)
    add_grid(ax, "y")
    if baseline is not None:
        where: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
        ax.legend([baseline], ["best single window of refractive index"], frameon=False, fontsize=9, **where)
    return save_figure(figure, path)


def _draw_box(ax: Axes, at: int, values: np.ndarray, colour: str) -> None:
    style: dict[str, Any] = {"color": INK, "linewidth": 1}
    ax.boxplot(
        values,
        positions=[at],
        widths=0.5,
        whis=1.5,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": (*to_rgb(colour), 0.25), "edgecolor": INK, "linewidth": 1},
        medianprops={"color": INK, "linewidth": 2},
        whiskerprops=style,
        capprops=style,
    )
    # shift points sideways by golden-ratio steps: reproducible, and neighbouring points do not overlap
    shift = ((np.arange(len(values)) * 0.618034) % 1 - 0.5) * 0.36
    ax.scatter(at + shift, values, s=20, color=colour, edgecolor=INK, linewidth=0.5, zorder=3, clip_on=False)


def reliability_figure(path: str | Path, models: Mapping[str, Reliability]) -> Path | None:
    """Draw a reliability diagram: the share of voxels inside over the predicted probability, and the number of voxels.

    Empty bins are omitted. The legend gives the calibration error of the voxels with uncertain predictions.

    Parameters
    ----------
    path : str or Path
        PNG file to write, complete or not at all.
    models : dict of model -> Reliability
        Counts over the test cells.

    Returns
    -------
    Path or None
        None, and no file, if no voxel was counted.

    References
    ----------
    Murphy and Winkler 1977, Applied Statistics 26:41.
    """
    models = {name: diagram for name, diagram in models.items() if diagram.count_B.any()}
    if not models:
        return None
    figure = Figure(figsize=(4.6, 5.8), dpi=DPI, layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
    for at, (name, diagram) in enumerate(models.items()):
        style = {
            "color": MODEL_COLOURS[at % len(MODEL_COLOURS)],
            "linestyle": "-" if at < len(MODEL_COLOURS) else "--",
            "linewidth": 1.6,
        }
        seen = diagram.count_B > 0
        label = f"{name} ({diagram.calibration_error():.3f})".replace("$", r"\$")
        top.plot(diagram.predicted_B[seen], diagram.observed_B[seen], marker="o", markersize=4.5, label=label, **style)
        edges = np.linspace(0, 1, len(seen) + 1)
        below.stairs(np.maximum(diagram.count_B, 0.5), edges, baseline=0.5, **style)
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of voxels truly inside")
    top.legend(
        title="calibration error in brackets",
        title_fontsize=8,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        loc="upper left",
    )
    below.set(xlabel="probability of being inside", ylabel="voxels", yscale="log", ylim=(0.5, None))
    for ax in (top, below):
        add_grid(ax, "both")
    return save_figure(figure, path)


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Return the rows of a CSV table; none if there is no file. Entries missing from a truncated line are empty."""
    if not Path(path).is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        lines = (line.replace("\0", "") for line in file)  # a power failure can leave zero bytes
        return [{k: v or "" for k, v in row.items() if isinstance(k, str)} for row in csv.DictReader(lines)]


def _number(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except (TypeError, ValueError):
        return math.nan
