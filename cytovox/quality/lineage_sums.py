"""Daughters summed into their mother's lineage, so that a cell that divides stays in the cohort."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cytovox.quality.rules import QualityRules, as_text, excluded_columns, flags_of

#: Columns that add up, those that are means over volume, and means over parts.
SUMS = (
    "volume_um3",
    "volume_low_um3",
    "volume_high_um3",
    "surface_area_um2",
    "dry_mass_pg",
    "parts",
    "specks",
    "nuclei",
)
BY_VOLUME = ("mean_ri", "concentration_g_per_ml", "concentration_choi_g_per_ml", "contrast_ri", "z_um", "y_um", "x_um")
BY_PART = ("mean_part_um3", "mean_part_area_um2")
#: What two cells together do not have.
UNKNOWN = ("sphericity", "median_part_um3")


def sum_lineages(table: pd.DataFrame, tracks: pd.DataFrame, rules: QualityRules) -> pd.DataFrame:
    """Sum the rows of a lineage's tracks in each frame.

    Volume, dry mass, area and numbers of parts add up; refractive index and concentration are means weighted by volume.
    A row counts for what all its members count for. Where a daughter was not seen, though the lineage goes on, the row
    is flagged `incomplete`.

    Parameters
    ----------
    table : DataFrame
        One row per compartment, cell and frame, with the columns `file`, `frame`, `compartment`, `track`, `lineage`,
        `flags` and `excluded`, and those of `cytovox.measurement.registry.columns`.
    tracks : DataFrame
        One row per track: `file`, `track`, `parent`, `lineage`, `first_frame`, `last_frame`, `divided`.
    rules : QualityRules
        Whether flags exclude.

    Returns
    -------
    DataFrame
        One row per compartment, lineage and frame, with the table's columns, and `tracks`, the number of cells in it.
        Its `track` is that of the first mother.
    """
    own = table[table["track"].notna() & (table["cell"] > 0)].assign(tracks=1)
    sizes = tracks.groupby(["file", "lineage"])["track"].nunique()
    several = sizes[sizes > 1].index
    keys = pd.MultiIndex.from_frame(own[["file", "lineage"]])
    single, rest = own[~keys.isin(several)], own[keys.isin(several)]
    rows = [
        _summed(members, _expected(tracks, file, lineage, frame), rules)
        for (file, lineage, frame, _), members in rest.groupby(["file", "lineage", "frame", "compartment"], sort=True)
    ]
    if not rows:
        return single.reset_index(drop=True)
    summed = pd.DataFrame(rows, columns=own.columns).astype({"lineage": own["lineage"].dtype})
    together = pd.concat([single.astype({"parts": "float64"}), summed], ignore_index=True)
    order = ["file", "lineage", "frame"]
    return (
        together.sort_values(order, kind="stable").reset_index(drop=True).astype({"track": "Int64", "nuclei": "Int64"})
    )


def _expected(tracks: pd.DataFrame, file: str, lineage: int, frame: int) -> set[int]:
    """Tracks that a lineage should have in a frame: all that began in it and did not divide before.

    Daughters begin where their mother ends: one that is first seen later is expected from then on.
    """
    own = tracks[(tracks["file"] == file) & (tracks["lineage"] == lineage)]
    ends = dict(zip(own["track"], own["last_frame"], strict=True))
    found = set()
    for row in own.itertuples():
        since = row.first_frame if pd.isna(row.parent) else ends[row.parent] + 1
        if since <= frame and not (row.divided and row.last_frame < frame):
            found.add(int(row.track))
    return found


def _summed(members: pd.DataFrame, expected: set[int], rules: QualityRules) -> dict[str, object]:
    first = members.iloc[0]
    row: dict[str, object] = first.to_dict()
    flags = {flag for text in members["flags"] for flag in flags_of(text)}
    if expected - set(members["track"].astype(int)):
        flags.add("incomplete")
    excluded = {column for text in members["excluded"] for column in text.split()}
    excluded |= set(excluded_columns(tuple(flags), str(first["compartment"]), rules))
    row |= {"track": first["lineage"], "tracks": len(members), "flags": as_text(flags)}
    row["border"] = " ".join(sorted({face for text in members["border"].fillna("") for face in str(text).split()}))
    row["excluded"] = " ".join(sorted(excluded))
    if len(members) > 1:
        row |= _sums(members)
    return row


def _sums(members: pd.DataFrame) -> dict[str, object]:
    volumes = members["volume_um3"].to_numpy(float)
    found: dict[str, object] = {name: members[name].sum(min_count=1) for name in SUMS if name in members}
    found |= {name: _mean(members[name], volumes) for name in BY_VOLUME if name in members}
    if {"mean_ri", "sd_ri"} <= set(members):
        squares = members["sd_ri"] ** 2 + members["mean_ri"] ** 2
        spread = _mean(squares, volumes) - _mean(members["mean_ri"], volumes) ** 2
        found["sd_ri"] = float(np.sqrt(max(spread, 0.0))) if np.isfinite(spread) else float("nan")
    numbers = members["parts"].to_numpy(float)
    found |= {name: _mean(members[name], numbers) for name in BY_PART if name in members}
    if "largest_part_um3" in members:
        found["largest_part_um3"] = members["largest_part_um3"].max()
    return found | {name: float("nan") for name in UNKNOWN if name in members}


def _mean(values: pd.Series, weights: np.ndarray) -> float:
    numbers = values.to_numpy(float)
    known = np.isfinite(numbers) & (weights > 0)
    return float(np.average(numbers[known], weights=weights[known])) if known.any() else float("nan")
