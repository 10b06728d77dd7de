"""Quality control of an analysis: flags of every cell and frame, exclusions, and tests of them between groups."""

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
from cytovox.quality.rules import FLAGS, QualityRules, as_text, evidence_flags, excluded_columns, flags_of
from cytovox.statistics.samples import Unit
from cytovox.tracking.tracking import Tracked
from datamodules.steps import STEPS
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.time_lapses import TimeLapse

#: Fewest fields (or dishes) per group for a test of exclusions by fields instead of by cells.
MIN_FIELDS = 2


def quality_rules(config: AnalyzeConfig) -> QualityRules:
    """Return the rules of quality control of a config."""
    own = config.quality
    return QualityRules(
        own.exclude, config.border == "exclude", own.volume_jump, own.mass_jump, own.min_contrast_ri, own.max_interval,
        own.merges, own.evidence,
    )  # fmt: skip


def time_lapse_flags(
    time_lapse: TimeLapse, compartments: Sequence[Mapping[str, Any]], tracked: Tracked, config: AnalyzeConfig,
    frame_flags: Mapping[int, Iterable[str]],
) -> Flags:  # fmt: skip
    """Return the flags of every cell of a time-lapse in every frame.

    Parameters
    ----------
    time_lapse : TimeLapse
    compartments : sequence of dict
        Measurements of the time-lapse.
    tracked : Tracked
        Tracks of the time-lapse.
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
    """Return the overlap of the cells of frame t and the frame before; stored, since it takes a second."""
    state, before = time_lapse.state(t), time_lapse.state(t - 1)
    provenance = STEPS["analyze.overlap"].fingerprint(
        config, cells=state.metadata("cells").get("key"), cells_before=before.metadata("cells").get("key")
    )
    if not state.has("overlap", provenance):
        voxel_um3 = float(np.prod(time_lapse.volume.spacing_um))
        found = overlap_of(before.arrays("cells")["cells"], state.arrays("cells")["cells"], voxel_um3)
        state.save("overlap", provenance, {}, pairs=[[*pair, shared] for pair, shared in sorted(found.items())])
    return {(int(a), int(b)): float(shared) for a, b, shared in state.metadata("overlap")["pairs"]}


def quality_columns(row: Mapping[str, Any], flags: Flags, rules: QualityRules) -> dict[str, str]:
    """Return the columns `flags` and `excluded` of a row: names separated by spaces."""
    own = tuple(flags.get((row["frame"], row["cell"]), ()))
    own += evidence_flags(row.get("evidence"), row.get("expected_dice"), rules)
    return {"flags": as_text(own), "excluded": " ".join(excluded_columns(own, str(row["compartment"]), rules))}


def study_table(table: pd.DataFrame, tracks: pd.DataFrame, rules: QualityRules) -> pd.DataFrame:
    """Return the table from which curves and tests are computed.

    Returns
    -------
    DataFrame
        One row per compartment, lineage and frame (`sum_lineages`). The column `excluded` is replaced by a boolean
        column `excluded_QUANTITY` for every quantity that is excluded in any row.
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
    """Count the values excluded from curves and tests, and test whether groups differ in their exclusions.

    Parameters
    ----------
    study : DataFrame
        Result of `study_table`.
    quantities : iterable of (compartment, column)
        Quantities that are tested between groups.
    control : str
        Group with which the others are compared.
    rules : QualityRules
    unit : {"field", "dish"}
        Independent unit, as in the tests of groups.

    Returns
    -------
    DataFrame
        For each reason, quantity and group: the number of rows (`frames`, one per cell and frame) and of excluded rows,
        and the number of cells (lineages) and of cells with an excluded frame. The reason "any" counts each row once.
        `p` compares the shares of excluded rows per field or dish between the group and the control (Student's t). With
        fewer than two fields or dishes per group, or without any spread, it compares cells (Fisher's exact test).
        If no group has the control's name, the first is the control. There is no p if the control has no such rows.
    """
    rows = []
    names = sorted(study["group"].unique(), key=lambda name: (name != control, name))
    for compartment, column in quantities:
        own = study[study["compartment"] == compartment]
        flags = own["flags"].map(flags_of)
        unknown = sorted({name for names_of_cell in flags for name in names_of_cell} - set(FLAGS))
        reasons = [name for name in (*FLAGS, *unknown) if column in excluded_columns((name,), compartment, rules)]
        hits = {name: flags.map(lambda own_flags, n=name: n in own_flags).to_numpy(bool) for name in reasons}
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
    """Return one row per group with any rows of `own`; the first of `names` is the control."""
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
    """Return p value, test and assumptions of the comparison of two groups' exclusions."""
    fields = [part.groupby(["dish", "field"])["hit"].mean() for part in (one, other)]
    shares = [(own.groupby("dish").mean() if unit == "dish" else own).to_numpy(float) for own in fields]
    if min(len(values) for values in shares) >= MIN_FIELDS and any(np.ptp(values) > 0 for values in shares):
        units = "dishes" if unit == "dish" else "fields"
        return {
            "p": float(stats.ttest_ind(*shares).pvalue),
            "test": f"Student's t, share of each {unit}",
            "assumes": f"{units} are independent",
        }
    cells = [part.groupby(["file", "track"])["hit"].any() for part in (one, other)]
    return {
        "p": float(stats.fisher_exact([[int(hit.sum()), int((~hit).sum())] for hit in cells]).pvalue),
        "test": "Fisher's exact, cells",
        "assumes": "cells are independent; p is too small if cells of one field resemble each other",
    }


def quality_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of the number of cells in frames, tracks and files with each flag in any compartment."""
    cells = table[table["cell"] > 0]
    flags, total = cells["flags"].map(flags_of), int((cells["compartment"] == WHOLE).sum())
    rows = []
    for name, flag in FLAGS.items():
        hit = cells[flags.map(lambda own, n=name: n in own).astype(bool)]
        frames = len(hit[["file", "frame", "cell"]].drop_duplicates())
        tracks = len(hit[["file", "track"]].drop_duplicates())
        rows += [(name, flag.meaning, frames, total, tracks, hit["file"].nunique())] if frames else []
    return pd.DataFrame(rows, columns=["flag", "meaning", "cell_frames", "of", "tracks", "files"])
