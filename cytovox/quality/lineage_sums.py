"""Sum daughters into their mother's lineage, so that a dividing cell stays in the cohort."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cytovox.quality.rules import QualityRules, as_text, excluded_columns

#: Columns that are summed, averaged with the volume as weight, and averaged with the number of parts as weight.
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
#: Columns that cannot be computed from those of the single cells.
UNKNOWN = ("sphericity", "median_part_um3")


def sum_lineages(table: pd.DataFrame, tracks: pd.DataFrame, rules: QualityRules) -> pd.DataFrame:
    """Sum the rows of a lineage's tracks in each frame.

    Volume, dry mass, area and number of parts are summed; refractive index and concentration are means weighted by
    volume. A quantity is excluded if it is excluded for any member. A row is flagged `incomplete` if a daughter is
    missing while the lineage continues.

    Parameters
    ----------
    table : DataFrame
        One row per compartment, cell and frame, with the columns `file`, `frame`, `compartment`, `track`, `lineage`,
        `flags` and `excluded`, and those of `cytovox.measurement.registry.columns`.
    tracks : DataFrame
        One row per track: `file`, `track`, `parent`, `lineage`, `first_frame`, `last_frame`, `divided`.
    rules : QualityRules
        Decide whether flags exclude quantities.

    Returns
    -------
    DataFrame
        One row per compartment, lineage and frame, with the table's columns and `tracks`, the number of cells. Its
        `track` is that of the first mother.
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
    together = together.sort_values(["file", "lineage", "frame"], kind="stable", ignore_index=True)
    return together.astype({"track": "Int64", "nuclei": "Int64"})


def _expected(tracks: pd.DataFrame, file: str, lineage: int, frame: int) -> set[int]:
    """Return the tracks that a lineage should have in a frame: all that have started and not yet divided.

    A daughter starts in the frame after her mother's last one, even if she is first detected later.
    """
    own = tracks[(tracks["file"] == file) & (tracks["lineage"] == lineage)]
    ends = dict(zip(own["track"], own["last_frame"], strict=True))
    return {
        int(row.track)
        for row in own.itertuples()
        if (row.first_frame if pd.isna(row.parent) else ends[row.parent] + 1) <= frame
        and not (row.divided and row.last_frame < frame)
    }


def _summed(members: pd.DataFrame, expected: set[int], rules: QualityRules) -> dict[str, object]:
    """Return one row for the members of a lineage in one frame and compartment."""
    first = members.iloc[0]
    flags = _words(members["flags"])
    if expected - set(members["track"].astype(int)):
        flags.add("incomplete")
    excluded = _words(members["excluded"]) | {*excluded_columns(tuple(flags), str(first["compartment"]), rules)}
    return first.to_dict() | {
        "track": first["lineage"],
        "tracks": len(members),
        "flags": as_text(flags),
        "border": " ".join(sorted(_words(members["border"]))),
        "excluded": " ".join(sorted(excluded)),
        **(_sums(members) if len(members) > 1 else {}),
    }


def _words(texts: pd.Series) -> set[str]:
    return {word for text in texts.fillna("") for word in str(text).split()}


def _sums(members: pd.DataFrame) -> dict[str, object]:
    volumes, parts = (members[name].to_numpy(float) for name in ("volume_um3", "parts"))
    found: dict[str, object] = {name: members[name].sum(min_count=1) for name in SUMS if name in members}
    found |= {name: _mean(members[name], volumes) for name in BY_VOLUME if name in members}
    if {"mean_ri", "sd_ri"} <= set(members):
        squares = members["sd_ri"] ** 2 + members["mean_ri"] ** 2
        variance = _mean(squares, volumes) - _mean(members["mean_ri"], volumes) ** 2
        found["sd_ri"] = float(np.sqrt(np.maximum(variance, 0.0)))
    found |= {name: _mean(members[name], parts) for name in BY_PART if name in members}
    if "largest_part_um3" in members:
        found["largest_part_um3"] = members["largest_part_um3"].max()
    return found | {name: float("nan") for name in UNKNOWN if name in members}


def _mean(values: pd.Series, weights: np.ndarray) -> float:
    numbers = values.to_numpy(float)
    known = np.isfinite(numbers) & (weights > 0)
    return float(np.average(numbers[known], weights=weights[known])) if known.any() else float("nan")
