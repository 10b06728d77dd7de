"""Groups section of an analysis' report: window, cohort, numbers of cells in curves, and tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cytovox.plots.charts import read_rows
from experiments.report.data import number
from experiments.tasks.analyze.report_quality import shown_p, test_key, tests_by_exclusion

_COLUMNS = {
    "mean_ri": "mean RI", "concentration_g_per_ml": "concentration, g/mL", "surface_area_um2": "area, µm²",
    "volume_um3": "volume, µm³", "dry_mass_pg": "dry mass, pg", "parts": "droplets",
    "mean_part_um3": "volume per droplet, µm³", "mean_part_area_um2": "area per droplet, µm²",
}  # fmt: skip
_COHORTS = {
    "complete": "cells followed through the whole window",
    "available": "cells with values at both ends of the window; curves are sums of the mean changes of the cells "
    "present at each step",
}
Row = dict[str, str]


def groups_section(tables: Path) -> dict[str, Any]:
    """Return the variables of the groups template, from `curves.csv` and `tests.csv`; empty values without these."""
    curves, tests = read_rows(tables / "curves.csv"), read_rows(tables / "tests.csv")
    applied, ignored = tests_by_exclusion(tests)
    between = [row for row in applied if row.get("against")]
    first = (curves or tests or [{}])[0]
    return {
        "window": first.get("window", ""),
        "cohort": _COHORTS.get(first.get("cohort", ""), ""),
        "followed": _followed(curves),
        "between": [_shown(row, ignored) for row in between],
        "within": [_shown(row, ignored) for row in applied if not row.get("against")],
        "with_exclusions": bool(ignored),
        "with_holm": any(number(row.get("p_holm")) > number(row.get("p")) for row in between),
        "of_changes": any("change" in row.get("compares", "") for row in between),
        "unit": {"field": "fields of view", "dish": "dishes"}.get(applied[0].get("unit", ""), "") if applied else "",
        "assumptions": sorted({(row["test"], row.get("assumes", "")) for row in applied if row.get("test")}),
        # reasons, the most frequent first
        "refused": sorted(
            Counter(row["refused"] for row in applied if row.get("refused")).items(),
            key=lambda pair: (-pair[1], pair[0]),
        ),
    }


def _followed(curves: Sequence[Row]) -> list[Row]:
    """Return, for each group, the numbers of cells with a volume at the window's first and last time point."""
    found: dict[str, list[Row]] = {}
    for row in curves:
        if row.get("compartment") == "cell" and row.get("quantity") == "volume_um3":
            found.setdefault(row.get("group", ""), []).append(row)
    return [
        {
            "group": group, "first": rows[0].get("cells", ""), "last": rows[-1].get("cells", ""),
            "seen": rows[0].get("cells_seen", ""),
            **{name: rows[0].get(name, "") for name in ("fields", "dishes", "flag")},
        }
        for group, rows in found.items()
    ]  # fmt: skip


def _shown(row: Row, ignored: dict[tuple[str, ...], Row]) -> dict[str, str]:
    """Return one row of the table of tests."""
    effect, low, high = (number(row.get(name)) for name in ("effect", "effect_low", "effect_high"))
    against = row.get("against", "")
    return {
        "what": f"{row.get('compartment', '')} {_COLUMNS.get(row.get('quantity', ''), row.get('quantity', ''))}",
        "who": f"{row.get('group', '')} - {against}" if against else row.get("group", ""),
        "effect": "–" if effect != effect else f"{effect:+.3g}",
        "interval": "" if low != low else f"[{low:+.3g}, {high:+.3g}]",
        "p": shown_p(row.get("p")), "holm": shown_p(row.get("p_holm")), "q": shown_p(row.get("q")),
        "ignored": shown_p(ignored.get(test_key(row), {}).get("p")),
        **{name: _counts(row, name) for name in ("cells", "fields", "dishes")},
        "remarks": "; ".join(
            text for text in (
                row.get("refused") and f"refused: {row['refused']}",
                "calibrated" if "calibrated" in row.get("test", "") else "", row.get("flag"),
            ) if text
        ),
    }  # fmt: skip


def _counts(row: Row, name: str) -> str:
    """Return the numbers of the group and the control, such as "12, 9"; "–" if unknown."""
    found = [row.get(name, ""), *([row.get(f"{name}_against", "")] if row.get("against") else [])]
    return ", ".join(found) if all(found) else "–"
