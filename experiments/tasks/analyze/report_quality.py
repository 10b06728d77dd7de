"""Quality section of an analysis' report: doubtful measurements, and the effect of leaving them out."""

from pathlib import Path
from typing import Any

from cytovox.plots.charts import read_rows
from cytovox.quality.rules import FLAGS, MEANS, SIZES, flags_of
from experiments.report.data import number, shown_volume

#: Largest number of table rows on the page; the files contain all.
MAX_ROWS = 200
#: p value below which a difference of exclusions between groups is reported.
DIFFERS = 0.05

Row = dict[str, str]


def contents(tables: Path, cells: list[Row]) -> dict[str, Any]:
    """Return the variables of the quality template, from the tables of a run."""
    whole = [row for row in cells if row.get("compartment") == "cell" and row.get("cell") != "0"]
    flagged = [row for row in whole if row.get("flags")]
    exclusions = read_rows(tables / "exclusions.csv")
    return {
        "cell_frames": len(whole),
        "flagged": len(flagged),
        "tracks": len({(row.get("file"), row.get("track")) for row in flagged}),
        "left_out": sum(bool(row.get("excluded")) for row in flagged),
        "flags": read_rows(tables / "quality.csv"),
        "cells": _listed(whole),
        "cut_only": sum("border" in flags_of(row["flags"]) and _common(flags_of(row["flags"])) for row in flagged),
        "outside": [
            (row.get("file", ""), row["outside_training"])
            for row in read_rows(tables / "files.csv")
            if row.get("outside_training")
        ][:MAX_ROWS],
        "more": max(0, sum(not _common(flags_of(row["flags"])) for row in flagged) - MAX_ROWS),
        "exclusions": [_exclusion(row) for row in exclusions][:MAX_ROWS],
        "differ": _differing(exclusions),
        "both": _both(read_rows(tables / "tests.csv")),
    }


#: Flags that follow from the cell being cut by the border of the field.
_CUT_FLAGS = {"border", "rim", "no_nucleus", "low_contrast"}


def _common(flags: tuple[str, ...]) -> bool:
    """Return whether flags follow from a cut cell or concern the whole file: such cells are counted, but not listed."""
    own = set(flags) - {"weights_range"}
    return not own or ("border" in own and own <= _CUT_FLAGS)


def _listed(whole: list[Row]) -> list[dict[str, str]]:
    """Return the rows of flagged cells other than cut ones, by flag in the order of `FLAGS`."""
    order = {name: k for k, name in enumerate(FLAGS)}
    before: dict[tuple[str, str], float] = {}
    rows: list[tuple[int, int, Row]] = []
    for row in sorted(whole, key=lambda one: (one.get("file", ""), number(one.get("frame")))):
        key, volume = (row.get("file", ""), row.get("track", "")), number(row.get("volume_um3"))
        flags = flags_of(row.get("flags", ""))
        if not _common(flags):
            rank = min(order.get(flag, len(order)) for flag in flags)
            was = shown_volume(before[key]) + " → " if key in before else ""
            rows.append((rank, len(rows), {**row, "flags": ", ".join(flags), "volume": was + shown_volume(volume)}))
        before[key] = volume
    listed = [row for _, _, row in sorted(rows, key=lambda one: one[:2])][:MAX_ROWS]
    return [
        {
            "file": row.get("file", ""), "group": row.get("group", ""), "frame": row.get("frame", ""),
            "track": row.get("track", ""), "flags": row["flags"].replace("_", " "), "volume": row["volume"],
            "excluded": _left_out(row.get("excluded", "")),
        }
        for row in listed
    ]  # fmt: skip


def _left_out(text: str) -> str:
    """Return a description of the excluded columns of a whole cell."""
    names = set(text.split())
    found = ["sizes"] if set(SIZES) <= names else sorted(names & set(SIZES))
    found += ["RI and concentration"] if set(MEANS) <= names else sorted(names & set(MEANS))
    return ", ".join(found) or "nothing of the whole cell"


def _exclusion(row: Row) -> dict[str, str]:
    """Return one row of the table of exclusions."""
    share = number(row.get("share"))
    return {
        **{name: row.get(name, "") for name in ("reason", "compartment", "quantity", "group", "test")},
        "frames": f"{row.get('excluded_frames', '')} of {row.get('frames', '')}",
        "cells": f"{row.get('excluded_cells', '')} of {row.get('cells', '')}",
        "share": f"{100 * share:.1f} %" if share == share else "–",
        "p": shown_p(row.get("p")),
    }  # fmt: skip


def _differing(rows: list[Row]) -> list[str]:
    """Return a sentence for each difference of exclusions between a group and the control, for several quantities."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.get("reason") == "any" and number(row.get("p")) < DIFFERS:
            text = f"{100 * number(row.get('share')):.1f} % of {row.get('group')} left out, p = {shown_p(row.get('p'))}"
            key = (str(row.get("compartment")), f"{text} against {row.get('against')} ({row.get('test')})")
            found.setdefault(key, []).append(str(row.get("quantity")))
    return [f"{compartment}: {', '.join(names)}: {text}" for (compartment, text), names in found.items()]


def _both(rows: list[Row]) -> list[dict[str, str]]:
    """Return each test with exclusions applied and ignored."""
    applied, ignored = tests_by_exclusion(rows)
    found = []
    for row in applied:
        if (other := ignored.get(test_key(row))) is None:
            continue
        against = f" against {row['against']}" if row.get("against") else ", first to last"
        found.append(
            {
                "what": f"{row.get('compartment', '')} {row.get('quantity', '')}",
                "who": f"{row.get('group')}{against}",
                "cells": row.get("cells", ""), "effect": _effect(row), "p": shown_p(row.get("p")),
                "cells_all": other.get("cells", ""), "effect_all": _effect(other),
                "p_all": shown_p(other.get("p")),
            }
        )  # fmt: skip
    return found


def _effect(row: Row) -> str:
    value = number(row.get("effect"))
    return f"{value:+.4g}" if value == value else "–"


def test_key(row: Row) -> tuple[str, ...]:
    """Return the columns that identify a test in `tests.csv`."""
    return tuple(row.get(name, "") for name in ("compartment", "quantity", "group", "against"))


def tests_by_exclusion(rows: list[Row]) -> tuple[list[Row], dict[tuple[str, ...], Row]]:
    """Return the tests with exclusions applied, and those with exclusions ignored by `test_key`."""
    ignored = {test_key(row): row for row in rows if row.get("exclusions") == "ignored"}
    return [row for row in rows if row.get("exclusions") == "applied"], ignored


def shown_p(text: object) -> str:
    """Return a p value with four decimals; a dash if there is none."""
    p = number(text)
    return "–" if p != p else "< 0.0001" if p < 1e-4 else f"{p:.4f}"
