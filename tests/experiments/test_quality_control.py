"""Quality control from labels to tables, on balls whose merges, splits and divisions are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cytovox.io import write_ometiff
from cytovox.quality.rules import QualityRules
from experiments.tasks.analyze.quality_tables import exclusion_table, quality_summary, study_table
from experiments.tasks.analyze.report_quality import contents

SPACING, SHAPE = (1.0, 1.0, 1.0), (20, 32, 80)
#: Centres z, y, x: the first two touch, the others are apart.
CENTRES = ((10, 16, 16), (10, 16, 28), (10, 16, 60))
Ball = tuple[tuple[int, int, int], float]


def ball(centre, radius):
    z, y, x = np.indices(SHAPE)
    return (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2


def write_frames(folder: Path, name: str, frames: list[list[tuple[int, Ball]]]) -> None:
    """A tomogram, its labels of cells, and masks of cells and nuclei: (label, ball) of each frame."""
    ri = np.full((len(frames), 1, *SHAPE), 1.337, np.float32)
    labels = np.zeros((len(frames), 1, *SHAPE), np.uint16)
    masks = np.zeros((len(frames), 2, *SHAPE), np.uint8)
    for t, cells in enumerate(frames):
        for label, (centre, radius) in cells:
            own = ball(centre, radius)
            labels[t, 0][own], masks[t, 0][own], ri[t, 0][own] = label, 1, 1.36
            masks[t, 1][ball(centre, 2.5)] = 1
    times = [3600.0 * t for t in range(len(frames))]
    write_ometiff(folder / f"{name}.ome.tif", ri, SPACING, ["RI"], times)
    write_ometiff(folder / f"{name}_cells.ome.tif", labels, SPACING, ["cells"], times)
    write_ometiff(folder / f"{name}_masks.ome.tif", masks, SPACING, ["membrane", "nucleus"], times)


def analysed(cli, folder: Path, out: Path, *more: str) -> dict[str, pd.DataFrame]:
    inputs = ",".join(str(path) for path in sorted(folder.glob("*-*.ome.tif")) if "_" not in path.name)
    answer = cli(
        "analyze", f"inputs=[{inputs}]", f"organelles={folder}/{{stem}}_masks.ome.tif", "groups=*-{group}.ome.tif",
        f"cells={folder}/{{stem}}_cells.ome.tif", f"out={out}", "meshes=none", "measure.medium_ri=1.337", "workers=0",
        "measure.area=marching_cubes",
        *more,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    return {
        path.stem: pd.read_csv(path, keep_default_na=False, na_values=[""]) for path in (out / "tables").glob("*.csv")
    }


#: Radius in the last frame of each field's cells: those of LPS grow more.
LAST_UM = {"control": (5.4, 5.5, 5.6), "LPS": (5.6, 5.75, 5.85)}


def write_study(folder: Path, merged: tuple[int, ...]) -> None:
    folder.mkdir()
    for group, lasts in LAST_UM.items():
        for k, last in enumerate(lasts):
            frames = []
            for t in range(3):
                radius = 5.2 + (last - 5.2) * t / 2
                one_mask = group == "control" and k == 0 and t in merged
                frames.append(
                    [(1 if one_mask and n == 1 else n + 1, (centre, radius)) for n, centre in enumerate(CENTRES)]
                )
            write_frames(folder, f"f{k}-{group}", frames)


def volume_test(tables: dict[str, pd.DataFrame], exclusions: str = "applied") -> pd.Series:
    tests = tables["tests"]
    own = tests[(tests["compartment"] == "cell") & (tests["quantity"] == "volume_um3")]
    (row,) = [row for _, row in own.iterrows() if row["against"] == "control" and row["exclusions"] == exclusions]
    return row


@pytest.fixture(scope="module")
def true_study(cli, tmp_path_factory):
    folder = tmp_path_factory.mktemp("true")
    write_study(folder / "in", ())
    return analysed(cli, folder / "in", folder / "run")


def test_nothing_is_flagged_where_nothing_is_wrong(true_study):
    assert true_study["cells"]["flags"].isna().all()
    assert true_study["exclusions"].empty
    assert set(true_study["tests"]["exclusions"]) == {"applied"}


def test_cells_that_merge_in_the_last_frame_do_not_move_the_p_of_their_group(cli, tmp_path, true_study):
    merged = (2,)
    write_study(tmp_path / "in", merged)
    tables = analysed(cli, tmp_path / "in", tmp_path / "run")
    cells = tables["cells"]
    whole = cells[(cells["compartment"] == "cell") & cells["flags"].notna()]
    assert set(zip(whole["file"], whole["frame"], whole["cell"], strict=True)) == {("f0-control", t, 1) for t in merged}
    assert all("merge" in text.split() for text in whole["flags"])
    assert all("volume_um3" in text.split() for text in whole["excluded"])
    true, found = volume_test(true_study), volume_test(tables)
    assert found["p"] == pytest.approx(true["p"], rel=1e-6)
    assert found["effect"] == pytest.approx(true["effect"], rel=1e-6)
    wrong = volume_test(tables, "ignored")
    assert wrong["p"] > 2 * true["p"]  # what it would be without quality control
    exclusions = tables["exclusions"]
    own = exclusions[(exclusions["reason"] == "merge") & (exclusions["quantity"] == "volume_um3")]
    own = own[own["compartment"] == "cell"].set_index("group")
    assert own.loc["control", "excluded_frames"] == len(merged)
    assert (own.loc["control", "excluded_cells"], own.loc["LPS", "excluded_cells"]) == (1, 0)
    assert own["p"].notna().sum() == 1
    assert tables["quality"].set_index("flag").loc["merge", "cell_frames"] == len(merged)
    assert tables["files"].set_index("file").loc["f0-control", "flags"].split()[0] == "merge"
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.index('id="quality"') < page.index('id="scores"')
    assert "→" in page
    assert "holds two cells or more" in page


def test_a_division_is_one_cell_followed_and_three_tracks(cli, tmp_path):
    mother, sisters = ((10, 16, 40), 6.3), (((10, 16, 34), 5.0), ((10, 16, 46), 5.0))
    frames = [[(1, mother)]] * 2 + [[(1, sisters[0]), (2, sisters[1])]] * 2
    folder = tmp_path / "in"
    folder.mkdir()
    write_frames(folder, "a-control", frames)
    tables = analysed(cli, folder, tmp_path / "off")
    (file,) = tables["files"].to_dict("records")
    assert (file["cells_followed"], file["tracks"], file["divisions"]) == (2, 2, 0)
    whole = tables["cells"][tables["cells"]["compartment"] == "cell"]
    assert set(whole.loc[whole["frame"] > 1, "flags"]) == {"possible_division"}
    tables = analysed(cli, folder, tmp_path / "on", "track.divisions=true")
    (file,) = tables["files"].to_dict("records")
    assert (file["cells_followed"], file["tracks"], file["divisions"]) == (1, 3, 1)
    whole = tables["cells"][tables["cells"]["compartment"] == "cell"]
    assert list(whole["track"]) == [1, 1, 2, 3, 2, 3]
    assert set(whole["lineage"]) == {1}
    assert whole["flags"].isna().all()
    assert list(tables["tracks"]["lineage"]) == [1, 1, 1]
    changes = tables["changes"]
    (row,) = changes[(changes["compartment"] == "cell") & (changes["quantity"] == "volume_um3")].to_dict("records")
    assert row["first"] == ball(*mother).sum()
    assert row["last"] == sum(ball(*one).sum() for one in sisters)
    page = (tmp_path / "on" / "report.html").read_text()
    assert "cells followed" in page


@pytest.mark.parametrize("key", ["volume_jump=1", "mass_jump=0.5", "min_contrast_ri=-1", "max_interval=-0.1"])
def test_thresholds_that_cannot_be_are_refused(cli, tmp_path, key):
    answer = cli("analyze", "inputs=[a.TCF]", f"out={tmp_path / 'run'}", f"quality.{key}")
    assert answer.code == 2
    assert any(f"quality.{key.split('=')[0]}" in line for line in answer.errors)


def rows(group, field, flags_of_cells, compartment="cell", dish=""):
    return [
        {
            "file": f"{dish}{field}", "group": group, "dish": dish, "field": field, "frame": 0, "cell": k,
            "compartment": compartment, "track": k, "lineage": k, "border": "", "flags": flags,
            "volume_um3": 1000.0, "mean_ri": 1.36, "parts": 1, "nuclei": 1, "excluded": "volume_um3" if flags else "",
        }
        for k, flags in enumerate(flags_of_cells, start=1)
    ]  # fmt: skip


def excluded(table, unit="field"):
    tracks = table[["file", "track", "lineage"]].drop_duplicates()
    study = study_table(table, tracks, QualityRules())
    found = exclusion_table(study, [("cell", "volume_um3"), ("cell", "mean_ri")], "control", QualityRules(), unit)
    return found.set_index(["reason", "quantity", "group"])


def test_exclusions_are_counted_by_reason_and_tested_by_fields():
    table = pd.DataFrame(
        rows("control", "a", ["", "", "", "border"]) + rows("control", "b", ["", "", "", ""])
        + rows("control", "c", ["", "", "border", ""])
        + rows("LPS", "d", ["low_contrast"] * 3 + [""]) + rows("LPS", "e", ["low_contrast"] * 2 + ["border", ""])
        + rows("LPS", "f", ["low_contrast"] * 2 + ["", ""])
    )  # fmt: skip
    found = excluded(table)
    row = found.loc[("low_contrast", "volume_um3", "LPS")]
    assert (row["excluded_frames"], row["frames"], row["excluded_cells"], row["fields"]) == (7, 12, 7, 3)
    assert row["share"] == pytest.approx(7 / 12)
    assert row["p"] < 0.01
    assert "field" in row["test"]
    assert found.loc[("border", "volume_um3", "LPS"), "p"] > 0.3
    every = found.loc[("any", "volume_um3", "LPS")]
    assert every["excluded_frames"] == 8  # once each
    assert np.isnan(found.loc[("any", "volume_um3", "control"), "p"])
    assert ("border", "mean_ri", "control") not in found.index  # a cut cell counts for its index


def test_with_one_field_a_group_cells_are_compared_and_it_is_said():
    table = pd.DataFrame(rows("control", "a", [""] * 10) + rows("LPS", "b", ["low_contrast"] * 5 + [""] * 5))
    row = excluded(table).loc[("any", "volume_um3", "LPS")]
    assert row["p"] == pytest.approx(0.0325, abs=0.001)
    assert "Fisher" in row["test"]
    assert "too small" in row["assumes"]


def test_the_report_says_what_is_outside_the_weights_range(tmp_path):
    (tmp_path / "files.csv").write_text("file,outside_training\na,voxels of 2 um\nb,\n")
    cells = [
        {"file": "a", "frame": "0", "track": "1", "cell": "1", "compartment": "cell", "flags": flags}
        for flags in ("weights_range", "border weights_range", "merge weights_range", "")
    ]  # fmt: skip
    shown = contents(tmp_path, cells)
    assert shown["outside"] == [("a", "voxels of 2 um")]
    assert (shown["flagged"], shown["cut_only"]) == (3, 1)
    assert [row["flags"] for row in shown["cells"]] == ["merge, weights range"]


def test_flags_of_other_parts_are_listed_and_leave_nothing_out():
    table = pd.DataFrame(rows("control", "a", ["weights_range", ""]))
    table["excluded"] = ""
    assert list(quality_summary(table)["flag"]) == ["weights_range"]
    assert excluded(table).empty


def test_exclusions_are_compared_by_the_unit_of_the_tests_and_fields_of_one_name_in_two_dishes_are_two():
    left_out = {"control": [(0, 1), (1, 1), (0, 0)], "LPS": [(3, 2), (3, 3), (2, 3)]}
    table = pd.DataFrame(
        [
            row
            for group, dishes in left_out.items()
            for d, fields in enumerate(dishes)
            for f, n in enumerate(fields)
            for row in rows(group, f"f{f}", ["low_contrast"] * n + [""] * (4 - n), dish=f"{group}{d}")
        ]
    )
    key = ("any", "volume_um3", "LPS")
    means = {group: [np.mean(fields) / 4 for fields in dishes] for group, dishes in left_out.items()}
    row = excluded(table, "dish").loc[key]
    assert row["p"] == pytest.approx(stats.ttest_ind(means["LPS"], means["control"]).pvalue)
    assert (row["fields"], row["test"]) == (6, "Student's t, share of each dish")
    row = excluded(table, "field").loc[key]
    fields = [np.ravel(left_out[group]) / 4 for group in ("LPS", "control")]
    assert row["p"] == pytest.approx(stats.ttest_ind(*fields).pvalue)


def test_exclusions_are_never_compared_with_another_group_than_the_control():
    table = pd.DataFrame(
        rows("control", "a", ["", ""], "nucleus")  # no whole cell in the control
        + rows("A", "b", ["low_contrast", ""]) + rows("B", "c", ["low_contrast"] * 2)
    )  # fmt: skip
    found = excluded(table)
    assert set(found.loc["any"].loc["volume_um3"].index) == {"A", "B"}
    assert found["p"].isna().all()
    assert (found["against"] == "").all()
