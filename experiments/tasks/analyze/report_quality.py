"""The first section of an analysis' report: which measurements are doubtful, and what follows from leaving them out."""

from pathlib import Path
from typing import Any

from cytovox.plots.charts import read_rows
from cytovox.quality.rules import FLAGS, MEANS, SIZES, flags_of
from experiments.report.data import number, shown_volume

#: Rows of a table that the page shows; the files have all.
MAX_ROWS = 200
#: p from which on groups are said to differ in what is left out.
DIFFERS = 0.05

Row = dict[str, str]


def contents(tables: Path, cells: list[Row]) -> dict[str, Any]:
    """What the template of quality control reads, out of the run's tables."""
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


#: Flags that a cell which is cut bears for no other reason.
_OF_CUT = {"border", "rim", "no_nucleus", "low_contrast"}


def _common(flags: tuple[str, ...]) -> bool:
    """Whether a cell is merely cut, or has no flag but that of its whole file: these are counted, and not listed."""
    own = set(flags) - {"weights_range"}
    return not own or ("border" in own and own <= _OF_CUT)


def _listed(whole: list[Row]) -> list[dict[str, str]]:
    """Flagged cells that are not merely cut, merges first."""
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
    """Columns of a whole cell that do not count, in words."""
    names = set(text.split())
    found = ["sizes"] if set(SIZES) <= names else sorted(names & set(SIZES))
    found += ["RI and concentration"] if set(MEANS) <= names else sorted(names & set(MEANS))
    return ", ".join(found) or "nothing of the whole cell"


def _exclusion(row: Row) -> dict[str, str]:
    p, share = number(row.get("p")), number(row.get("share"))
    return {
        **{name: row.get(name, "") for name in ("reason", "compartment", "quantity", "group", "test")},
        "frames": f"{row.get('excluded_frames', '')} of {row.get('frames', '')}",
        "cells": f"{row.get('excluded_cells', '')} of {row.get('cells', '')}",
        "share": f"{100 * share:.1f} %" if share == share else "–",
        "p": "–" if p != p else shown_p(p),
    }  # fmt: skip


def _differing(rows: list[Row]) -> list[str]:
    """Groups that lose another share than the control, in a sentence for all quantities with the same figures."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.get("reason") == "any" and number(row.get("p")) < DIFFERS:
            share, p = 100 * number(row.get("share")), shown_p(number(row.get("p")))
            text = f"{share:.1f} % of {row.get('group')} left out, p = {p} against {row.get('against')}"
            key = (str(row.get("compartment")), f"{text} ({row.get('test')})")
            found.setdefault(key, []).append(str(row.get("quantity")))
    return [f"{compartment}: {', '.join(names)}: {text}" for (compartment, text), names in found.items()]


def _both(rows: list[Row]) -> list[dict[str, str]]:
    """Each test with what is flagged left out, and with all."""

    def key(row: Row) -> tuple[str, ...]:
        return tuple(row.get(name, "") for name in ("compartment", "quantity", "group", "against"))

    ignored = {key(row): row for row in rows if row.get("exclusions") == "ignored"}
    found = []
    for row in rows:
        if row.get("exclusions") != "applied" or key(row) not in ignored:
            continue
        other = ignored[key(row)]
        against = f" against {row['against']}" if row.get("against") else ", first to last"
        found.append(
            {
                "what": f"{row.get('compartment', '')} {row.get('quantity', '')}",
                "who": f"{row.get('group')}{against}",
                "cells": row.get("cells", ""), "effect": _effect(row), "p": shown_p(number(row.get("p"))),
                "cells_all": other.get("cells", ""), "effect_all": _effect(other),
                "p_all": shown_p(number(other.get("p"))),
            }
        )  # fmt: skip
    return found


def _effect(row: Row) -> str:
    value = number(row.get("effect"))
    return f"{value:+.4g}" if value == value else "–"


def shown_p(p: float) -> str:
    """A p value as it is printed; a dash where there is none."""
    return "–" if p != p else "< 0.0001" if p < 1e-4 else f"{p:.4f}"
