"""The report's section of groups, out of tables that are known."""

import pandas as pd
import pytest

from experiments.report import page
from experiments.tasks.analyze.report_tests import groups_section
from experiments.tasks.analyze.results import write_table
from experiments.tasks.analyze.time_series_tables import curve_table, test_table


def tables(folder, groups=("control", "LPS"), files=3, exclude=False, **keys):
    made = study(noisy(groups, files=files), **keys)
    if exclude:
        made.table["excluded_volume_um3"] = (made.table["group"] == "LPS") & (made.table["cell"] == 1)
    write_table(curve_table(made), folder / "curves.csv")
    write_table(test_table(made), folder / "tests.csv")
    return test_table(made)


def noisy(groups, files):
    """Four cells in each field, over three frames."""
    import numpy as np

    rng, rows = np.random.default_rng(0), []
    for group in groups:
        for k in range(files):
            values = 100 + rng.normal() + rng.normal(size=(4, 3))
            for (cell, t), volume in np.ndenumerate(values):
                rows.append(
                    {
                        "file": f"{group}{k}", "group": group, "dish": "", "field": f"{group}{k}", "frame": t,
                        "track": cell + 1, "cell": cell + 1, "compartment": "cell", "volume_um3": volume,
                        "border": "", "parts": 1,
                    }
                )  # fmt: skip
    names = ("surface_area_um2", "mean_ri", "concentration_g_per_ml", "dry_mass_pg", "mean_part_um3")
    return pd.DataFrame(rows).assign(**dict.fromkeys((*names, "mean_part_area_um2"), float("nan")))


def study(table, **keys):
    from experiments.tasks.analyze.config import AnalyzeConfig
    from experiments.tasks.analyze.time_series_tables import study_of

    return study_of(table, dict.fromkeys(table["file"], (0.0, 60.0, 120.0)), AnalyzeConfig(**keys))


def test_effect_interval_p_q_and_numbers_are_those_of_the_table(tmp_path):
    made = tables(tmp_path, exclude=True)
    shown = groups_section(tmp_path)
    (row,) = [row for row in shown["between"] if row["what"] == "cell volume, µm³"]
    (wanted,) = made.query("exclusions == 'applied' and against == 'control' and quantity == 'volume_um3'").to_dict(
        "records"
    )
    (without,) = made.query("exclusions == 'ignored' and against == 'control' and quantity == 'volume_um3'").to_dict(
        "records"
    )
    assert row["who"] == "LPS - control"
    assert row["effect"] == f"{wanted['effect']:+.3g}"
    assert row["interval"] == f"[{wanted['effect_low']:+.3g}, {wanted['effect_high']:+.3g}]"
    assert (row["p"], row["q"]) == (f"{wanted['p']:.4f}", f"{wanted['q']:.4f}")
    assert row["ignored"] == f"{without['p']:.4f}"
    assert (row["cells"], row["fields"], row["dishes"]) == ("9, 12", "3, 3", "–")
    assert shown["window"] == "0 to 2 min (3 time points)"
    assert "followed through the whole window" in shown["cohort"]
    assert shown["unit"] == "fields of view"
    assert shown["with_exclusions"]
    assert not shown["with_holm"]
    assert [(r["group"], r["first"], r["last"], r["seen"]) for r in shown["followed"]] == [
        ("control", "12", "12", "12"), ("LPS", "9", "9", "9"),
    ]  # fmt: skip


def test_refusals_are_listed_with_their_reason(tmp_path):
    tables(tmp_path, files=1)
    shown = groups_section(tmp_path)
    assert any("needs at least 2 fields" in why for why, _ in shown["refused"])
    assert all(row["p"] == "–" for row in shown["between"])
    assert any("refused: 1 field in the group" in row["remarks"] for row in shown["between"])


def test_several_groups_show_the_correction_for_their_number(tmp_path):
    tables(tmp_path, ("control", "a", "b"))
    assert groups_section(tmp_path)["with_holm"]


@pytest.mark.parametrize("files", [0, 1, 3])
def test_the_page_is_drawn_with_and_without_tests(tmp_path, files):
    if files:
        tables(tmp_path, files=files)
    template = page.templates().get_template("analyze_groups.html")
    html = template.render(groups=groups_section(tmp_path), course=None, boxes=None)
    assert ("Differences between groups" in html) == bool(files)
    assert ("Tests that were refused" in html) == (files == 1)
    assert "effect [95 %]" in html or not files
