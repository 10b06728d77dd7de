"""Tables of an analysis, from the stored rows of frames: cells, parts, tracks, files, time series and tests."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cytovox.io.atomic import atomic_path
from cytovox.io.fluorescence import fluorescence_channels
from cytovox.io.provenance import digest_of
from cytovox.measurement import registry
from cytovox.measurement.refractive import CHOI_RULE, concentration_choi_g_per_ml
from cytovox.organelles import WHOLE
from cytovox.quality.control import Flags, detection_of
from cytovox.quality.rules import as_text
from cytovox.tracking.tracking import Tracked, TrackingRules, track_cells
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.frames import rules_of
from experiments.tasks.analyze.quality_tables import (
    exclusion_table,
    quality_columns,
    quality_rules,
    quality_summary,
    study_table,
    time_lapse_flags,
)
from experiments.tasks.analyze.sources import Error
from experiments.tasks.analyze.time_lapses import TimeLapse
from experiments.tasks.analyze.time_series_tables import (
    QUANTITIES,
    change_table,
    curve_table,
    series_notes,
    study_of,
    test_table,
)
from training.rundir import RunFolder

#: Column of the concentration as published.
CHOI = "concentration_choi_g_per_ml"


@dataclass(frozen=True)
class TimeLapseResult:
    """Measurements and tracks of one input."""

    time_lapse: TimeLapse
    compartments: list[dict[str, Any]]
    """Rows of compartments, with their frame."""
    parts: list[dict[str, Any]]
    tracked: Tracked
    unclaimed_um3: list[float | None]
    """Volume of the membrane mask outside all cells, per frame."""
    cells_from: list[str]
    outside_training: list[str]
    """Description of properties outside the range of the weights' training data, per frame."""
    flags: Flags
    """Flags of every cell and frame."""
    key: str
    """Digest of measurements and times."""


def time_lapse_result(time_lapse: TimeLapse, config: AnalyzeConfig) -> TimeLapseResult:
    """Read the stored results of a time-lapse's frames, and track its cells."""
    compartments, parts, unassigned_um3, cells_from, strange, keys = [], [], [], [], [], []
    frame_flags: dict[int, list[str]] = {}
    for t in range(time_lapse.frames):
        metadata = time_lapse.state(t).metadata("rows")
        compartments += [{"frame": t, **row} for row in metadata["compartments"]]
        parts += [{"frame": t, **row} for row in metadata["parts"]]
        unassigned_um3.append(metadata["unclaimed_um3"])
        cells_from.append(metadata["cells_from"])
        strange.append(metadata["outside_training"])
        keys.append(metadata["key"])
        frame_flags[t] = ["weights_range"] if metadata["outside_training"] else []
        time_lapse.notes.extend(note for note in metadata["notes"] if note not in time_lapse.notes)
    time_lapse.notes.extend(
        f"{time_lapse.source.path.name}: outside what the weights were trained on: {text}"
        for text in dict.fromkeys(strange)
        if text
    )
    rules = TrackingRules(**dataclasses.asdict(config.track))
    tracked = track_cells([detection_of(row) for row in compartments if row["compartment"] == WHOLE], rules)
    flags = time_lapse_flags(time_lapse, compartments, tracked, config, frame_flags)
    key = digest_of([keys, list(time_lapse.times_s or ())])
    return TimeLapseResult(time_lapse, compartments, parts, tracked, unassigned_um3, cells_from, strange, flags, key)


def compartment_table(results: Sequence[TimeLapseResult], config: AnalyzeConfig) -> pd.DataFrame:
    """Return one row per compartment, cell and frame, with the flags of quality control and what they leave out."""
    columns = list(registry.columns(_channels(results)))
    if config.uncertainty:
        place = columns.index("volume_um3") + 1
        columns[place:place] = ["volume_low_um3", "volume_high_um3"]
    return _table(results, config, columns, lambda result: result.compartments, rules=True)


def _channels(results: Sequence[TimeLapseResult]) -> list[str]:
    """Return the fluorescence channels of all inputs, in the order of their names."""
    return sorted({name for result in results for name in fluorescence_channels(result.time_lapse.volume)})


def part_table(results: Sequence[TimeLapseResult], config: AnalyzeConfig) -> pd.DataFrame:
    """Return one row per droplet, nucleolus and nucleus."""
    return _table(results, config, list(registry.part_columns()), lambda result: result.parts, rules=False)


def _table(
    results: Sequence[TimeLapseResult], config: AnalyzeConfig, columns: Sequence[str], rows_of: Any, rules: bool
) -> pd.DataFrame:
    columns, choi = list(columns), config.measure.concentration_choi
    if choi:
        columns.insert(columns.index("concentration_g_per_ml") + 1, CHOI)
    if any("original_label" in row for result in results for row in rows_of(result)):
        columns.insert(columns.index("cell") + 1, "original_label")
    first = ["file", "group", "dish", "field", "frame", "time_s", "track", "lineage"]
    last = [
        "flags", "excluded", "cells_from", "medium_ri", "medium_from", "increments", "area_estimator",
        "outside_training",
    ]  # fmt: skip
    rows, quality = [], quality_rules(config)
    for result in results:
        time_lapse, source = result.time_lapse, result.time_lapse.source
        lineages = {track.track: track.lineage for track in result.tracked.tracks}
        rules_used = rules_of(time_lapse.medium_ri, config.measure)
        increments = f"{rules_used.increments.rule}; {CHOI_RULE}" if choi else rules_used.increments.rule
        for row in rows_of(result):
            row = {**row, CHOI: _choi(row, time_lapse.medium_ri)}
            t = row["frame"]
            track = result.tracked.track_of.get((t, row["cell"]))
            rows.append(
                {
                    "file": source.name, "group": source.group, "dish": source.dish, "field": source.field, "frame": t,
                    "time_s": time_lapse.times_s[t] if time_lapse.times_s is not None else None,
                    "track": track, "lineage": None if track is None else lineages[track],
                    **{column: row.get(column) for column in columns},
                    **(quality_columns(row, result.flags, quality) if rules else {}),
                    "cells_from": result.cells_from[t], "medium_ri": time_lapse.medium_ri,
                    "medium_from": time_lapse.medium_from,
                    "increments": increments, "area_estimator": rules_used.area,
                    "outside_training": result.outside_training[t],
                }
            )  # fmt: skip
    frame = pd.DataFrame(rows, columns=[*first, *columns, *(last if rules else [])])
    types = {"time_s": "float64", "track": "Int64", "lineage": "Int64", "original_label": "UInt64"}
    types |= registry.numeric_types(registry.part_columns() | registry.columns(_channels(results)))
    return frame.astype({name: kind for name, kind in types.items() if name in frame})


def _choi(row: dict[str, Any], medium_ri: float) -> float | None:
    """Return the published concentration of a row, computed from its mean refractive index."""
    mean_ri = row["mean_ri"]
    return None if mean_ri is None else concentration_choi_g_per_ml(mean_ri, row["compartment"], medium_ri)


def track_table(results: Iterable[TimeLapseResult]) -> pd.DataFrame:
    """Return one row per track, with its parent and its lineage."""
    rows = [
        {"file": r.time_lapse.source.name, "group": r.time_lapse.source.group, **dataclasses.asdict(track)}
        for r in results
        for track in r.tracked.tracks
    ]
    columns = ["file", "group", "track", "parent", "lineage", "first_frame", "last_frame", "detections", "divided"]
    return pd.DataFrame(rows, columns=columns).astype({"parent": "Int64"})


def file_table(results: Sequence[TimeLapseResult], errors: Sequence[Error]) -> pd.DataFrame:
    """Return one row per input, with counts and the state of its analysis."""
    rows = []
    for result in results:
        time_lapse, cells = result.time_lapse, [row for row in result.compartments if row["compartment"] == WHOLE]
        unassigned_um3 = [value for value in result.unclaimed_um3 if value is not None]
        z, y, x = time_lapse.volume.spacing_um
        rows.append(
            {
                "file": time_lapse.source.name, "path": str(time_lapse.source.path), "group": time_lapse.source.group,
                "frames": time_lapse.frames, "cells": len({row["cell"] for row in cells if row["frame"] == 0}),
                "cells_followed": len({track.lineage for track in result.tracked.tracks}),
                "tracks": len(result.tracked.tracks), "divisions": sum(t.divided for t in result.tracked.tracks),
                "cells_flagged": sum(bool(own) for own in result.flags.values()),
                "flags": as_text({flag for own in result.flags.values() for flag in own}),
                "cells_at_border": len({(r["frame"], r["cell"]) for r in cells if r["border"]}),
                "cells_without_nucleus": len({(r["frame"], r["cell"]) for r in cells if r["nuclei"] == 0}),
                "unclaimed_um3": float(np.mean(unassigned_um3)) if unassigned_um3 else None,
                "z_um": z, "y_um": y, "x_um": x, "medium_ri": time_lapse.medium_ri,
                "medium_from": time_lapse.medium_from,
                "outside_training": "; ".join(dict.fromkeys(text for text in result.outside_training if text)),
                "state": "done", "fault": "",
            }
        )  # fmt: skip
    for error in errors:
        rows.append(
            {"file": error.source.name, "path": str(error.source.path), "group": error.source.group, "state": "broken",
             "fault": error.text}
        )  # fmt: skip
    columns = [
        "file", "path", "group", "frames", "cells", "cells_followed", "tracks", "divisions", "cells_flagged", "flags",
        "cells_at_border", "cells_without_nucleus",
        "unclaimed_um3", "z_um", "y_um", "x_um", "medium_ri", "medium_from", "outside_training", "state",
        "fault",
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    counts = (
        "frames", "cells", "cells_followed", "tracks", "divisions", "cells_flagged", "cells_at_border",
        "cells_without_nucleus",
    )  # fmt: skip
    return frame.astype(dict.fromkeys(counts, "Int64"))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV and Parquet, atomically and with reproducible bytes."""
    text = io.StringIO()
    table.to_csv(text, index=False, float_format="%.8g", lineterminator="\n")
    with atomic_path(path.with_suffix(".csv")) as part:
        part.write_text(text.getvalue(), encoding="utf-8", newline="\n")
    with atomic_path(path.with_suffix(".parquet")) as part:
        table.to_parquet(part, index=False, engine="pyarrow")


def write_results(
    results: Sequence[TimeLapseResult], errors: Sequence[Error], notes: Sequence[str], folder: RunFolder,
    config: AnalyzeConfig,
) -> list[str]:  # fmt: skip
    """Write all tables, figures and metrics of the run; return the notes on time series."""
    from experiments.tasks.analyze.figures import draw_results

    table, tracks, rules = compartment_table(results, config), track_table(results), quality_rules(config)
    summed = study_table(table, tracks, rules)
    times = {result.time_lapse.source.name: result.time_lapse.times_s or result.time_lapse.frames for result in results}
    # exclusions already include the quantities that are invalid for cut cells
    groups = {source.group for source in [*(r.time_lapse.source for r in results), *(error.source for error in errors)]}
    study = study_of(summed, times, dataclasses.replace(config, border="include"), groups)
    quantities = [(one.compartment, one.column) for one in QUANTITIES]
    tables = {
        "cells": table, "parts": part_table(results, config), "tracks": tracks, "quality": quality_summary(table),
        "exclusions": exclusion_table(summed, quantities, config.control, rules, study.unit),
        "changes": change_table(study), "tests": test_table(study), "curves": curve_table(study),
        "files": file_table(results, errors),
    }  # fmt: skip
    found = series_notes(study, tables["tests"])
    for name, rows in tables.items():
        write_table(rows, folder.tables / f"{name}.csv")
    with atomic_path(folder.tables / "notes.txt") as part:
        part.write_text("".join(f"{note}\n" for note in dict.fromkeys([*notes, *found])), encoding="utf-8")
    draw_results(study, tracks, folder)
    cells = table[(table["compartment"] == WHOLE) & (table["cell"] > 0)]
    folder.update_metrics(
        {
            "analyze/files": len(results), "analyze/broken": len(errors),
            "analyze/frames": sum(result.time_lapse.frames for result in results),
            "analyze/cells": len(cells), "analyze/tracks": len(tracks),
            "analyze/cells_followed": len(tracks[["file", "lineage"]].drop_duplicates()),
            "analyze/cells_flagged": int((cells["flags"] != "").sum()),
        }
    )  # fmt: skip
    return found
