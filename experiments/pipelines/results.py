"""From the rows of frames to tidy tables: tracks, courses, changes and tests."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.measurements import WHOLE, Compartment, Part
from analysis.tracking import Sighting, Tracked, TrackingRules, track_cells
from experiments.pipelines.config import AnalyzeConfig
from experiments.pipelines.films import Film
from experiments.pipelines.frames import rules_of
from experiments.pipelines.time_series_tables import change_table, curve_table, series_notes, study_of, test_table
from formats.atomic import atomic_path
from formats.provenance import digest_of
from training.rundir import RunFolder

if TYPE_CHECKING:
    from experiments.pipelines.analyze import Fault


@dataclass(frozen=True)
class FilmResult:
    """All numbers of one input."""

    film: Film
    compartments: list[dict[str, Any]]
    """Rows with their frame."""
    parts: list[dict[str, Any]]
    tracked: Tracked
    unclaimed_um3: list[float | None]
    """Of each frame."""
    cells_from: list[str]
    outside_training: list[str]
    """What of each frame lies outside what its weights were trained on."""
    key: str
    """Digest of all that went in."""


def film_result(film: Film, config: AnalyzeConfig) -> FilmResult:
    """Read what is known of a film's frames, and track its cells."""
    compartments, parts, lone, told, strange, keys = [], [], [], [], [], []
    for t in range(film.frames):
        facts = film.state(t).facts("rows")
        compartments += [{"frame": t, **row} for row in facts["compartments"]]
        parts += [{"frame": t, **row} for row in facts["parts"]]
        lone.append(facts["unclaimed_um3"])
        told.append(facts["cells_from"])
        strange.append(facts["outside_training"])
        keys.append(facts["key"])
        film.notes.extend(note for note in facts["notes"] if note not in film.notes)
    film.notes.extend(
        f"{film.source.path.name}: outside what the weights were trained on: {text}"
        for text in dict.fromkeys(strange)
        if text
    )
    sightings = [
        Sighting(row["frame"], row["cell"], (row["z_um"], row["y_um"], row["x_um"]), row["volume_um3"])
        for row in compartments
        if row["compartment"] == WHOLE
    ]
    rules = TrackingRules(**dataclasses.asdict(config.track))
    key = digest_of([keys, dataclasses.asdict(rules), list(film.times_s or ())])
    return FilmResult(film, compartments, parts, track_cells(sightings, rules), lone, told, strange, key)


def compartment_table(results: Iterable[FilmResult], config: AnalyzeConfig) -> pd.DataFrame:
    """A row a compartment, cell and frame."""
    columns = [field.name for field in dataclasses.fields(Compartment)]
    columns.insert(columns.index("cell") + 1, "original_label")
    if config.uncertainty:
        place = columns.index("volume_um3") + 1
        columns[place:place] = ["volume_low_um3", "volume_high_um3"]
    return _table(results, config, columns, lambda result: result.compartments, rules=True)


def part_table(results: Iterable[FilmResult], config: AnalyzeConfig) -> pd.DataFrame:
    """A row a droplet, nucleolus and nucleus."""
    return _table(results, config, [f.name for f in dataclasses.fields(Part)], lambda result: result.parts, rules=False)


def _table(
    results: Iterable[FilmResult], config: AnalyzeConfig, columns: Sequence[str], rows_of: Any, rules: bool
) -> pd.DataFrame:
    first = ["file", "group", "dish", "field", "frame", "time_s", "track"]
    last = ["cells_from", "medium_ri", "medium_from", "increments", "area_estimator", "outside_training"]
    last = last if rules else []
    rows = []
    for result in results:
        film, source = result.film, result.film.source
        told = rules_of(film.medium_ri, config.measure)
        for row in rows_of(result):
            t = row["frame"]
            rows.append(
                {
                    "file": source.name, "group": source.group, "dish": source.dish, "field": source.field, "frame": t,
                    "time_s": film.times_s[t] if film.times_s is not None else None,
                    "track": result.tracked.track_of.get((t, row["cell"])),
                    **{column: row[column] for column in columns},
                    "cells_from": result.cells_from[t], "medium_ri": film.medium_ri, "medium_from": film.medium_from,
                    "increments": told.increments.rule, "area_estimator": told.area,
                    "outside_training": result.outside_training[t],
                }
            )  # fmt: skip
    frame = pd.DataFrame(rows, columns=[*first, *columns, *last])
    whole = {name: "Int64" for name in ("track", "nuclei", "specks") if name in frame}
    whole |= {"original_label": "UInt64"} if "original_label" in frame else {}
    return frame.astype({**whole, "time_s": "float64"})


def track_table(results: Iterable[FilmResult]) -> pd.DataFrame:
    """The lineage: a row a track."""
    rows = [
        {"file": r.film.source.name, "group": r.film.source.group, **dataclasses.asdict(track)}
        for r in results
        for track in r.tracked.tracks
    ]
    columns = ["file", "group", "track", "parent", "first_frame", "last_frame", "sightings", "divided"]
    return pd.DataFrame(rows, columns=columns).astype({"parent": "Int64"})


def file_table(results: Sequence[FilmResult], faults: Sequence[Fault]) -> pd.DataFrame:
    """A row an input: what it is, and how its analysis went."""
    rows = []
    for result in results:
        film, cells = result.film, [row for row in result.compartments if row["compartment"] == WHOLE]
        lone = [value for value in result.unclaimed_um3 if value is not None]
        z, y, x = film.volume.spacing_um
        rows.append(
            {
                "file": film.source.name, "path": str(film.source.path), "group": film.source.group,
                "frames": film.frames, "cells": len({row["cell"] for row in cells if row["frame"] == 0}),
                "tracks": len(result.tracked.tracks),
                "cells_at_border": len({(r["frame"], r["cell"]) for r in cells if r["border"]}),
                "cells_without_nucleus": len({(r["frame"], r["cell"]) for r in cells if r["nuclei"] == 0}),
                "unclaimed_um3": float(np.mean(lone)) if lone else None,
                "z_um": z, "y_um": y, "x_um": x, "medium_ri": film.medium_ri, "medium_from": film.medium_from,
                "outside_training": "; ".join(dict.fromkeys(text for text in result.outside_training if text)),
                "state": "done", "fault": "",
            }
        )  # fmt: skip
    for fault in faults:
        rows.append(
            {"file": fault.source.name, "path": str(fault.source.path), "group": fault.source.group, "state": "broken",
             "fault": fault.text}
        )  # fmt: skip
    columns = [
        "file", "path", "group", "frames", "cells", "tracks", "cells_at_border", "cells_without_nucleus",
        "unclaimed_um3", "z_um", "y_um", "x_um", "medium_ri", "medium_from", "outside_training", "state", "fault",
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    counts = ("frames", "cells", "tracks", "cells_at_border", "cells_without_nucleus")
    return frame.astype(dict.fromkeys(counts, "Int64"))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """CSV and Parquet, each whole or not at all; the same table gives the same bytes."""
    text = io.StringIO()
    table.to_csv(text, index=False, float_format="%.8g", lineterminator="\n")
    with atomic_path(path.with_suffix(".csv")) as part:
        part.write_text(text.getvalue(), encoding="utf-8", newline="\n")
    with atomic_path(path.with_suffix(".parquet")) as part:
        table.to_parquet(part, index=False, engine="pyarrow")


def write_results(
    results: Sequence[FilmResult], faults: Sequence[Fault], notes: Sequence[str], folder: RunFolder,
    config: AnalyzeConfig,
) -> None:  # fmt: skip
    """All tables, all figures and the numbers of the run."""
    from experiments.pipelines.figures import draw_results

    table = compartment_table(results, config)
    study = study_of(
        table, {result.film.source.name: result.film.times_s or result.film.frames for result in results}, config
    )
    tables = {
        "cells": table, "parts": part_table(results, config), "tracks": track_table(results),
        "changes": change_table(study), "tests": test_table(study), "curves": curve_table(study),
        "files": file_table(results, faults),
    }  # fmt: skip
    notes = [*notes, *series_notes(study, tables["tests"])]
    for name, rows in tables.items():
        write_table(rows, folder.tables / f"{name}.csv")
    with atomic_path(folder.tables / "notes.txt") as part:
        part.write_text("".join(f"{note}\n" for note in dict.fromkeys(notes)), encoding="utf-8")
    draw_results(study, tables["tracks"], folder)
    cells = table[(table["compartment"] == WHOLE) & (table["cell"] > 0)]
    folder.update_metrics(
        {
            "analyze/files": len(results), "analyze/broken": len(faults),
            "analyze/frames": sum(result.film.frames for result in results),
            "analyze/cells": len(cells), "analyze/tracks": len(tables["tracks"]),
        }
    )  # fmt: skip
