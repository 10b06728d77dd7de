"""Quality control of an analysis: flags of every cell and frame, exclusions, and whether groups differ in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from cytovox.organelles import WHOLE
from cytovox.quality.control import Flags, cell_state, flag_cells
from cytovox.quality.events import Overlap, overlap_of
from cytovox.quality.lineage_sums import sum_lineages
from cytovox.quality.rules import FLAGS, QualityRules, as_text, excluded_columns, flags_of
from cytovox.statistics.samples import Unit
from cytovox.tracking.tracking import Tracked
from datamodules.steps import STEPS
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.time_lapses import TimeLapse

#: Fields (or dishes) a group from which rates of exclusion are compared by these instead of by cells.
MIN_FIELDS = 2


def quality_rules(config: AnalyzeConfig) -> QualityRules:
    """`quality:` of a config, with its `border`."""
    own = config.quality
    return QualityRules(
        own.exclude, config.border == "exclude", own.volume_jump, own.mass_jump, own.min_contrast_ri, own.max_interval,
        own.merges,
    )  # fmt: skip


def time_lapse_flags(
    time_lapse: TimeLapse, compartments: Sequence[Mapping[str, Any]], tracked: Tracked, config: AnalyzeConfig,
    frame_flags: Mapping[int, Iterable[str]],
) -> Flags:  # fmt: skip
    """Flag every cell of a time-lapse in every frame.

    Parameters
    ----------
    time_lapse : TimeLapse
    compartments : sequence of dict
        Its measurements.
    tracked : Tracked
        Its tracks.
    config : AnalyzeConfig
    frame_flags : dict of frame -> names
        Flags of all cells of a frame, such as `weights_range`.
    """
    rules = quality_rules(config)
    whole = [row for row in compartments if row["compartment"] == WHOLE]
    overlaps = {}
    if rules.merges:
        present = {row["frame"] for row in whole}
        overlaps = {t: _overlap(time_lapse, t, config) for t in sorted(present) if t - 1 in present}
    flags = flag_cells([cell_state(row) for row in whole], tracked, rules, overlaps, config.track.max_distance_um)
    for (t, _), own in flags.items():
        own.update(frame_flags.get(t, ()))
    return flags


def _overlap(time_lapse: TimeLapse, t: int, config: AnalyzeConfig) -> Overlap:
    """Of frame t with the one before; kept beside the frame, since reading two frames takes a second."""
    state, before = time_lapse.state(t), time_lapse.state(t - 1)
    provenance = STEPS["analyze.overlap"].fingerprint(
        config, cells=state.metadata("cells").get("key"), cells_before=before.metadata("cells").get("key")
    )
    if not state.has("overlap", provenance):
        voxel_um3 = float(np.prod(time_lapse.volume.spacing_um))
        found = overlap_of(before.arrays("cells")["cells"], state.arrays("cells")["cells"], voxel_um3)
        pairs = [[a, b, shared] for (a, b), shared in sorted(found.items())]
        state.save("overlap", provenance, {}, pairs=pairs)
    return {(int(a), int(b)): float(shared) for a, b, shared in state.metadata("overlap")["pairs"]}


def quality_columns(row: Mapping[str, Any], flags: Flags, rules: QualityRules) -> dict[str, str]:
    """`flags` and `excluded` of a row: names with blanks between."""
    own = tuple(flags.get((row["frame"], row["cell"]), ()))
    return {"flags": as_text(own), "excluded": " ".join(excluded_columns(own, str(row["compartment"]), rules))}


def study_table(table: pd.DataFrame, tracks: pd.DataFrame, rules: QualityRules) -> pd.DataFrame:
    """The table that curves and tests are made of.

    Returns
    -------
    DataFrame
        One row per compartment, lineage and frame (`sum_lineages`); for every quantity that is left out anywhere a
        boolean         column `excluded_QUANTITY` in the place of the names.
    """
    summed = sum_lineages(table, tracks, rules)
    excluded = summed["excluded"].str.split().map(frozenset)
    names = sorted({name for one in excluded.unique() for name in one} & set(summed.columns))
    flags = {f"excluded_{name}": excluded.map(lambda one, n=name: n in one).astype(bool) for name in names}
    return summed.drop(columns="excluded").assign(**flags)


#: Columns of the table of exclusions.
EXCLUSION_COLUMNS = (
    "reason", "compartment", "quantity", "group", "frames", "excluded_frames", "share", "cells", "excluded_cells",
    "fields", "against", "p", "test", "assumes",
)  # fmt: skip


def exclusion_table(
    study: pd.DataFrame, quantities: Iterable[tuple[str, str]], control: str, rules: QualityRules,
    unit: Unit = "field",
) -> pd.DataFrame:  # fmt: skip
    """Count what is left out of curves and tests, and test whether groups differ in it.

    Parameters
    ----------
    study : DataFrame
        As `study_table` gives it.
    quantities : iterable of (compartment, column)
        Those that are tested.
    control : str
        The group that others are compared with.
    rules : QualityRules
    unit : {"field", "dish"}
        What is independent, as in the tests of groups.

    Returns
    -------
    DataFrame
        For each reason, quantity and group: rows (`frames`: one per cell and frame) and how many of them are left out,
        cells (lineages) and how many of these lose a frame. The reason "any" counts each row once. `p` compares the
        group with the control by the shares of their fields or dishes (Student's t), or, with fewer than two of them
        a group or without any spread, by their cells (Fisher's exact test). Without a group of the control's name the
        first is the control; where the control has no such rows, there is no p.
    """
    rows = []
    names = sorted(study["group"].unique(), key=lambda name: (name != control, name))
    for compartment, column in quantities:
        own = study[study["compartment"] == compartment]
        texts = own["flags"].map(flags_of)
        unknown = sorted({flag for text in texts for flag in text} - set(FLAGS))
        reasons = [name for name in (*FLAGS, *unknown) if column in excluded_columns((name,), compartment, rules)]
        hits = {name: texts.map(lambda text, n=name: n in text).to_numpy(bool) for name in reasons}
        left_out = f"excluded_{column}"
        hits["any"] = own[left_out].to_numpy(bool) if left_out in own else np.zeros(len(own), bool)
        for reason, hit in hits.items():
            if hit.any():
                found = _by_group(own.assign(hit=hit), names, unit)
                rows += [{"reason": reason, "compartment": compartment, "quantity": column, **row} for row in found]
    table = pd.DataFrame(rows, columns=list(EXCLUSION_COLUMNS))
    order = {name: k for k, name in enumerate(("any", *FLAGS))}
    return table.sort_values("reason", kind="stable", key=lambda one: one.map(order).fillna(len(order)))


def _by_group(own: pd.DataFrame, names: Sequence[str], unit: Unit) -> list[dict[str, Any]]:
    """One row per group that has any; the first name is the control's."""
    parts = {name: own[own["group"] == name] for name in names}
    rows = []
    for name in (name for name in names if len(parts[name])):
        part = parts[name]
        cells = part.groupby(["file", "track"])["hit"].any()
        row = {
            "group": name, "frames": len(part), "excluded_frames": int(part["hit"].sum()),
            "share": float(part["hit"].mean()), "cells": len(cells), "excluded_cells": int(cells.sum()),
            "fields": part.groupby(["dish", "field"]).ngroups, "against": "", "p": float("nan"), "test": "",
            "assumes": "",
        }  # fmt: skip
        if name != names[0] and len(parts[names[0]]):
            row |= {"against": names[0], **_compared(parts[names[0]], part, unit)}
        rows.append(row)
    return rows


def _compared(one: pd.DataFrame, other: pd.DataFrame, unit: Unit) -> dict[str, Any]:
    fields = [part.groupby(["dish", "field"])["hit"].mean() for part in (one, other)]
    shares = [(own.groupby("dish").mean() if unit == "dish" else own).to_numpy(float) for own in fields]
    if min(len(values) for values in shares) >= MIN_FIELDS and any(np.ptp(values) > 0 for values in shares):
        p = float(stats.ttest_ind(*shares).pvalue)
        units = "dishes" if unit == "dish" else "fields"
        return {"p": p, "test": f"Student's t, share of each {unit}", "assumes": f"{units} are independent"}
    cells = [part.groupby(["file", "track"])["hit"].any() for part in (one, other)]
    counts = [[int(hit.sum()), int((~hit).sum())] for hit in cells]
    return {
        "p": float(stats.fisher_exact(counts).pvalue), "test": "Fisher's exact, cells",
        "assumes": "cells are independent, though some share a field: p is too small where they are not",
    }  # fmt: skip


def quality_summary(table: pd.DataFrame) -> pd.DataFrame:
    """How often each flag was raised: `flag`, `meaning`, `cell_frames` of `of`, `cells` (tracks)."""
    whole = table[(table["compartment"] == WHOLE) & (table["cell"] > 0)]
    texts = whole["flags"].map(flags_of)
    rows = []
    for name, flag in FLAGS.items():
        hit = whole[texts.map(lambda text, n=name: n in text).astype(bool)]
        if len(hit):
            tracks = len(hit[["file", "track"]].drop_duplicates())
            rows.append(
                {"flag": name, "meaning": flag.meaning, "cell_frames": len(hit), "of": len(whole), "tracks": tracks,
                 "files": hit["file"].nunique()}
            )  # fmt: skip
    return pd.DataFrame(rows, columns=["flag", "meaning", "cell_frames", "of", "tracks", "files"])
