"""Tables of curves, changes and tests, out of tables of cells whose growth, groups and fields are known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.tasks.analyze.config import AnalyzeConfig, analyze_errors
from experiments.tasks.analyze.figures import panels_of
from experiments.tasks.analyze.time_series_tables import (
    QUANTITIES,
    cell_series,
    change_table,
    curve_table,
    holm,
    series_notes,
    study_of,
    test_table,
)

HOURS = (0.0, 3600.0, 7200.0)


def cells(file, group, volumes, field=None, dish="", border="", **more):
    """Rows of one file: cell k has `volumes[k]` in every frame, None where it is not seen."""
    rows = []
    for k, own in enumerate(volumes, start=1):
        for t, volume in enumerate(own):
            if volume is None:
                continue
            for compartment in ("cell", "nucleus", "nucleolus", "lipid"):
                rows.append(
                    {
                        "file": file, "group": group, "dish": dish, "field": field or file, "frame": t, "track": k,
                        "cell": k, "compartment": compartment, "volume_um3": volume, "surface_area_um2": volume / 2,
                        "mean_ri": 1.36, "concentration_g_per_ml": 0.1, "dry_mass_pg": volume / 10, "parts": 1,
                        "mean_part_um3": volume, "mean_part_area_um2": volume / 2, "border": border,
                        **{name: value(k, t) for name, value in more.items()},
                    }
                )  # fmt: skip
    return rows


def study(rows, times=HOURS, **keys):
    table = pd.DataFrame(rows).astype({"track": "Int64"})
    known = times if isinstance(times, dict) else dict.fromkeys(table["file"], times)
    groups = keys.pop("groups_of_files", ())
    statistics = {key: keys.pop(key) for key in ("test", "unit", "window") if key in keys}
    config = AnalyzeConfig(**keys)
    for key, value in statistics.items():
        setattr(config.statistics, key, value)
    return study_of(table, known, config, groups)


def grown(start, steps=3):
    return [start * 1.1**t for t in range(steps)]


def one(table, **wanted):
    """The one row of the cell's volume."""
    wanted = {"compartment": "cell", "quantity": "volume_um3", **wanted}
    (row,) = table[np.logical_and.reduce([table[key] == value for key, value in wanted.items()])].to_dict("records")
    return row


def curve_of(table, group):
    own = table[(table["compartment"] == "cell") & (table["quantity"] == "volume_um3") & (table["group"] == group)]
    return own.sort_values("time_s")


@pytest.mark.parametrize("cohort", ["complete", "available"])
def test_every_cell_grows_and_large_ones_drop_out_so_the_curve_rises(cohort):
    rows = cells("a", "LPS", [grown(100), [*grown(1000)[:2], None], [grown(900)[0], None, None], grown(200)])
    plain = pd.DataFrame(rows).query("compartment == 'cell'").groupby("frame")["volume_um3"].mean()
    assert plain[2] < plain[0]
    own = curve_of(curve_table(study(rows, cohort=cohort)), "LPS")
    assert (np.diff(own["mean"]) > 0).all()
    assert list(own["cells"]) == ([2, 2, 2] if cohort == "complete" else [4, 3, 2])
    assert list(own["step_cells"]) == ([2, 2, 2] if cohort == "complete" else [4, 3, 2])
    assert set(own["cells_seen"]) == {4}
    assert set(own["window"]) == {"0 to 2 h (3 time points)"}
    assert set(own["flag"].str[:19]) == {"only 2 of 4 cells w"}


def test_an_empty_cohort_is_said_in_table_and_notes_and_nothing_takes_its_place():
    rows = cells("a", "LPS", [[1.0, 2.0, None], [None, 2.0, 3.0]]) + cells("b", "control", [grown(3)] * 4)
    made = study(rows)
    own = curve_of(curve_table(made), "LPS")
    assert own["mean"].isna().all()
    assert set(own["cells"]) == {0}
    assert set(own["flag"].str[:9]) == {"none of 2"}
    row = one(test_table(made), group="LPS", against="control")
    assert (row["n"], row["cells"], row["n_against"]) == (0, 0, 1)
    assert np.isnan([row["p"], row["effect"]]).all()
    assert "0 fields in the group and 1 field in the control" in row["refused"]
    assert row["flag"].startswith("LPS: none of 2 cells")
    assert any(note.startswith("cohort: LPS: none of 2") for note in series_notes(made, test_table(made)))
    assert change_table(made).query("group == 'LPS'").empty


def test_n_is_the_groups_and_n_against_the_controls_and_the_effect_group_minus_control():
    rng = np.random.default_rng(0)
    rows = []
    for k in range(3):
        rows += cells(f"c{k}", "control", [[v, v, v + 1] for v in rng.normal(100, 5, 4)])
    for k in range(2):
        rows += cells(f"l{k}", "LPS", [[v, v, v + 5 + rng.normal()] for v in rng.normal(100, 5, 6)])
    # controls would have no spread in their changes
    rows = [row | {"volume_um3": row["volume_um3"] + (rng.normal() if row["frame"] == 2 else 0)} for row in rows]
    made = study(rows)
    tests, changes = test_table(made), change_table(made)
    row = one(tests, group="LPS", against="control")
    assert {key: row[key] for key in ("n", "n_against", "fields", "fields_against", "cells", "cells_against")} == {
        "n": 2, "n_against": 3, "fields": 2, "fields_against": 3, "cells": 12, "cells_against": 12,
    }  # fmt: skip
    assert (row["unit"], row["compares"]) == ("field", "change between groups")
    own = changes[(changes["compartment"] == "cell") & (changes["quantity"] == "volume_um3")]
    means = own.groupby(["group", "field"])["change"].mean()
    assert row["effect"] == pytest.approx(means["LPS"].mean() - means["control"].mean())
    assert row["effect_low"] < row["effect"] < row["effect_high"]
    assert row["effect"] == pytest.approx(4, abs=1.5)
    wanted = stats.ttest_ind(means["LPS"], means["control"])
    assert row["p"] == pytest.approx(wanted.pvalue)
    within = one(tests, group="LPS", against="")
    assert (within["n"], within["cells"], within["compares"]) == (2, 12, "change")
    assert pd.isna(within["n_against"])
    assert within["p"] == pytest.approx(stats.ttest_1samp(means["LPS"], 0).pvalue)
    assert not tests[tests["against"] != ""]["group"].eq("control").any()


def noisy(groups, seed=0, frames=3, files=3, dish=lambda group, k: ""):
    rng = np.random.default_rng(seed)
    rows = []
    for group in groups:
        for k in range(files):
            shift = rng.normal()
            volumes = [list(100 + shift + rng.normal(size=frames)) for _ in range(4)]
            rows += cells(f"{group}{k}", group, volumes, dish=dish(group, k))
    return rows


def test_q_is_benjamini_hochbergs_over_the_table_and_p_holm_over_the_groups_of_a_quantity():
    tests = test_table(study(noisy(["control", "a", "b", "c"])))
    known = tests[tests["p"].notna()]
    np.testing.assert_allclose(known["q"], stats.false_discovery_control(known["p"]))
    assert tests[tests["p"].isna()]["q"].isna().all()
    between = tests[(tests["compartment"] == "cell") & (tests["quantity"] == "volume_um3") & (tests["against"] != "")]
    assert list(between["group"]) == ["a", "b", "c"]
    assert set(between["against"]) == {"control"}
    np.testing.assert_allclose(between["p_holm"], holm(between["p"]))
    assert (between["p_holm"] >= between["p"]).all()


def test_holm_is_the_published_example():
    assert holm([0.01, 0.04, float("nan"), 0.03, 0.005]) == pytest.approx([0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True)
    assert holm([]) == []


def test_without_a_control_every_pair_is_compared_and_it_is_said():
    made = study(noisy(["a", "b", "c"]))
    tests = test_table(made)
    pairs = tests[tests["against"] != ""][["group", "against"]].drop_duplicates()
    assert pairs.values.tolist() == [["b", "a"], ["c", "a"], ["c", "b"]]
    assert any("no group is named control" in note for note in made.notes)


def test_a_control_without_any_cell_is_refused_and_no_other_group_takes_its_place():
    rows = [row for n in range(6) for row in cells(f"{n}", "AB"[n % 2], [grown(100 + 7 * n), grown(90 + n)])]
    own = study(rows, groups_of_files=["A", "B", "control"])
    tests = test_table(own)
    between = tests[tests["against"] != ""]
    assert set(zip(between["group"], between["against"], strict=True)) == {("A", "control"), ("B", "control")}
    assert between["p"].isna().all()
    assert between["effect"].isna().all()
    assert set(between["refused"]) == {"0 fields in the control: needs at least 2 fields in each"}
    assert set(between["cells_against"]) == {0}
    assert own.notes == ("groups: no cell was found in group control",)


def test_a_control_without_droplets_is_refused_for_their_volume_alone():
    rows = [
        row
        for n in range(6)
        for row in cells(
            f"{n}", ("control", "A", "B")[n % 3], [[100 + 7 * n], [90 + n]],
            mean_part_um3=lambda k, t, n=n: 2.0 + n * k if n % 3 else None,
        )
    ]  # fmt: skip
    tests = test_table(study(rows, (0.0,)))
    drops = tests[tests["quantity"] == "mean_part_um3"]
    assert list(zip(drops["group"], drops["against"], strict=True)) == [("A", "control"), ("B", "control")]
    assert drops["p"].isna().all()
    assert drops["refused"].str.contains("0 fields in the control").all()
    assert one(tests, group="A")["p"] > 0


def test_single_frames_are_compared_by_their_values():
    made = study(noisy(["control", "LPS"], frames=1), times=1)
    tests = test_table(made)
    assert set(tests["compares"]) == {"value between groups"}
    row = one(tests, group="LPS")
    means = made.table.query("compartment == 'cell'").groupby(["group", "field"])["volume_um3"].mean()
    assert row["p"] == pytest.approx(stats.ttest_ind(means["LPS"], means["control"]).pvalue)
    assert change_table(made).empty


def test_the_unit_is_the_dish_where_a_dish_holds_one_group():
    per_dish = study(noisy(["control", "LPS"], files=4, dish=lambda group, k: f"{group}{k // 2}"))
    row = one(test_table(per_dish), group="LPS", against="control")
    assert (row["unit"], row["n"], row["n_against"], row["dishes"], row["fields"]) == ("dish", 2, 2, 2, 4)
    assert per_dish.notes == ()
    in_dish = study(noisy(["control", "LPS"], files=4, dish=lambda group, k: f"{k}"))
    row = one(test_table(in_dish), group="LPS", against="control")
    assert (row["unit"], row["n"], row["dishes"]) == ("field", 4, 4)
    assert any("dishes hold several groups" in note for note in in_dish.notes)
    asked = study(noisy(["control", "LPS"], files=4, dish=lambda group, k: f"{group}{k // 2}"), unit="field")
    assert one(test_table(asked), group="LPS", against="control")["n"] == 4


def test_fields_of_one_name_in_two_dishes_are_two():
    rows = [row for k in range(4) for row in cells(f"f{k}", "control", [grown(100 + k)] * 3, field="1", dish=f"d{k}")]
    assert set(curve_table(study(rows))["fields"]) == {4}


def test_time_lapses_of_other_lengths_are_compared_in_the_window_they_share():
    rows = cells("long", "control", [grown(100, 4)] * 3) + cells("short", "LPS", [grown(50, 2)] * 3)
    made = study(rows, times={"long": (0.0, 3600.0, 7200.0, 10800.0), "short": (0.0, 3600.0)})
    assert one(test_table(made), group="control", against="")["window"] == "0 to 1 h (2 time points)"
    changes = change_table(made).query("compartment == 'cell' and quantity == 'volume_um3' and group == 'control'")
    assert changes["change"].tolist() == pytest.approx([10.0] * 3)  # not to 133, its own last
    assert set(curve_table(made)["time_s"]) == {0.0, 3600.0}
    assert any("1 time-lapses have later frames (long)" in note for note in made.notes)
    asked = study(rows, times={"long": (0.0, 3600.0, 7200.0, 10800.0), "short": (0.0, 3600.0)}, window=[0, 3])
    assert set(curve_table(asked)["group"]) == {"control"}
    assert any("short is left out" in note for note in asked.notes)


def test_without_a_common_time_point_there_are_no_curves_and_it_is_said():
    rows = cells("a", "control", [grown(100)] * 3) + cells("b", "LPS", [grown(50)] * 3)
    made = study(rows, times={"a": HOURS, "b": tuple(t + 1e6 for t in HOURS)})
    assert curve_table(made).empty
    assert test_table(made).empty
    assert any("no time point that all time-lapses have" in note for note in series_notes(made, test_table(made)))


def test_a_cell_at_the_border_in_one_frame_is_not_followed_through_the_window():
    rows = cells("a", "control", [grown(100)] * 4)
    rows = [row | {"border": "x-" if (row["cell"], row["frame"]) == (2, 1) else ""} for row in rows]
    assert set(curve_table(study(rows))["cells"]) == {3}
    assert set(curve_table(study(rows, border="include"))["cells"]) == {4}


def test_excluded_values_are_missing_of_that_quantity_and_tests_are_shown_with_and_without():
    rows = noisy(["control", "LPS"], files=3)
    bad = [row for row in rows if row["group"] == "LPS" and row["cell"] == 1]
    for row in rows:
        row["excluded_volume_um3"] = row in bad and row["compartment"] == "cell" and row["frame"] == 2
        row["excluded"] = None  # unknown is not excluded
    made = study(rows)
    tests = test_table(made)
    applied = one(tests, group="LPS", against="control", exclusions="applied")
    ignored = one(tests, group="LPS", against="control", exclusions="ignored")
    assert (applied["cells"], ignored["cells"]) == (9, 12)
    assert applied["p"] != ignored["p"]
    assert one(tests, group="LPS", against="", quantity="dry_mass_pg", exclusions="applied")["cells"] == 12
    for exclusions in ("applied", "ignored"):
        known = tests[(tests["exclusions"] == exclusions) & tests["p"].notna()]
        np.testing.assert_allclose(known["q"], stats.false_discovery_control(known["p"]))
    for row in rows:
        row["excluded"], row["excluded_volume_um3"] = row in bad, False
    assert (
        one(test_table(study(rows)), group="LPS", against="", quantity="dry_mass_pg", exclusions="applied")["cells"]
        == 9
    )
    for row in rows:
        row["excluded"] = False
    assert set(test_table(study(rows))["exclusions"]) == {"applied"}


def test_cells_without_droplets_have_no_lipid_area_and_no_mean_droplet():
    rows = cells("a", "control", [grown(10)] * 3)
    for row in rows:
        if row["compartment"] == "lipid" and row["cell"] == 1 and row["frame"] == 0:
            row |= {"parts": 0, "volume_um3": 0.0, "surface_area_um2": np.nan, "mean_part_um3": np.nan}
    made = study(rows)
    by_name = {(q.compartment, q.column): cell_series(made, q).values_NT for q in QUANTITIES}
    assert by_name["lipid", "surface_area_um2"][0, 0] == 0
    assert np.isnan(by_name["lipid", "mean_part_um3"][0, 0])


def test_figure_4_of_the_paper_is_complete():
    wanted = {
        (compartment, column)
        for compartment in ("cell", "nucleus", "nucleolus", "lipid")
        for column in ("mean_ri", "concentration_g_per_ml", "surface_area_um2", "volume_um3")
    } | {("lipid", "parts"), ("lipid", "mean_part_um3"), ("lipid", "mean_part_area_um2")}
    assert wanted <= {(quantity.compartment, quantity.column) for quantity in QUANTITIES}
    made = study(noisy(["control", "LPS"]))
    for table in (test_table(made), change_table(made), curve_table(made)):
        assert wanted <= set(zip(table["compartment"], table["quantity"], strict=True))
    panels = panels_of(made)
    assert len(panels) == len(QUANTITIES)
    assert all(set(panel.groups) == {"control", "LPS"} for panel in panels)


@pytest.mark.parametrize(("window", "expected"), [([2, 1], True), ([1], True), ([-1, 2], True), ([0, 8], False)])
def test_a_window_that_is_none_is_refused(window, expected):
    config = AnalyzeConfig()
    config.statistics.window = window
    assert any(error.startswith("statistics.window") for error in analyze_errors(config)) == expected
