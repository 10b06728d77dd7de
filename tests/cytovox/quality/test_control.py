"""Cells with known errors: each is flagged, and those without are not."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.ndimage as ndi
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.measurement.cell_contrast import cell_contrast
from cytovox.quality.control import CellState, flag_cells
from cytovox.quality.events import find_events, overlap_of
from cytovox.quality.lineage_sums import sum_lineages
from cytovox.quality.rules import FLAGS, MEANS, SIZES, QualityRules, as_text, excluded_columns
from cytovox.tracking.tracking import Detection, TrackingRules, track_cells


def state(frame, label, y, volume, mass=None, nuclei=1, border="", contrast=0.02, interval=None):
    seen = Detection(frame, label, (5.0, y, 0.0), volume)
    return CellState(seen, 0.2 * volume if mass is None else mass, border, nuclei, contrast, interval)


def cell_contrasts(ri, cells, spacing_um, **shell):
    boxes = enumerate(ndi.find_objects(cells), start=1)
    return {label: cell_contrast(ri, cells, label, box, spacing_um, **shell) for label, box in boxes}


def flagged(states, rules=None, overlaps=None, tracking=None):
    tracked = track_cells([one.detection for one in states], tracking)
    found = flag_cells(states, tracked, rules or QualityRules(), overlaps)
    assert set(found) == {one.key for one in states}
    return {key: flags for key, flags in found.items() if flags}, tracked


def two_cells(merged, frames=6, nuclei=(1, 1, 2), volumes=(786, 488, 1274)):
    """Cells at 0 and 10 µm, one mask of both at 4 µm in some frames."""
    found = []
    for t in range(frames):
        if t in merged:
            found.append(state(t, 1, 4, volumes[2], nuclei=nuclei[2]))
        else:
            found += [state(t, 1, 0, volumes[0], nuclei=nuclei[0]), state(t, 2, 10, volumes[1], nuclei=nuclei[1])]
    return found + [state(t, 9, 80, 1000) for t in range(frames)]


@pytest.mark.parametrize("merged", [{2}, {5}, {3, 4, 5}, {2, 3}, {1, 2, 3, 4, 5}])
@pytest.mark.parametrize("nuclei", [(1, 1, 2), (None, None, None)])
def test_two_cells_in_one_mask_are_a_merge_in_these_frames_and_no_others(merged, nuclei):
    flags, _ = flagged(two_cells(merged, nuclei=nuclei))
    assert {key for key, own in flags.items() if "merge" in own} == {(t, 1) for t in merged}
    assert not any("volume_jump" in own or "split" in own for own in flags.values())


@pytest.mark.parametrize("merged", [{0}, {0, 1}])
def test_a_merge_from_the_first_frame_on_is_found_when_the_cells_part(merged):
    for nuclei in ((1, 1, 2), (None, None, None)):
        flags, _ = flagged(two_cells(merged, nuclei=nuclei))
        assert {key for key, own in flags.items() if "merge" in own} == {(t, 1) for t in merged}


def test_nuclei_decide_which_of_two_states_is_wrong():
    # one nucleus in all: what fell in two was one cell, however long
    flags, _ = flagged(two_cells({0, 1}, nuclei=(1, 0, 1)))
    assert {key for key, own in flags.items() if "split" in own} == {(t, k) for t in (2, 3, 4, 5) for k in (1, 2)}
    # two nuclei: two cells were one mask, however long
    flags, _ = flagged(two_cells({0, 1, 2, 3, 4}, nuclei=(1, 1, 2)))
    assert {key for key, own in flags.items() if "merge" in own} == {(t, 1) for t in range(5)}
    flags, _ = flagged(two_cells({1, 2, 3, 4, 5}, nuclei=(1, 0, 1)))
    assert {key for key, own in flags.items() if "split" in own} == {(0, 1), (0, 2)}


def test_without_nuclei_a_mask_that_falls_in_two_for_a_frame_is_a_split():
    flags, _ = flagged(two_cells({0, 1, 3, 4, 5}, nuclei=(None, None, None)))
    assert {key for key, own in flags.items() if "split" in own} == {(2, 1), (2, 2)}


def test_a_large_neighbour_that_leaves_while_a_cell_stays_is_no_merge():
    states = [state(t, 1, 0, 786) for t in range(5)] + [state(t, 2, 10, 488) for t in range(3)]
    assert flagged(states)[0] == {}
    # and what is much smaller or larger than what was gained is none either
    grown = [state(t, 1, 0, 786 if t < 3 else 786 + 0.4 * 488) for t in range(5)] + states[5:]
    assert not any("merge" in own for own in flagged(grown)[0].values())


def test_overlap_finds_a_merge_that_volumes_hide():
    states = two_cells({3}, volumes=(786, 488, 1100))
    overlaps = {3: {(1, 1): 700.0, (2, 1): 400.0, (9, 9): 1000.0}, 4: {(1, 1): 700.0, (1, 2): 400.0, (9, 9): 1000.0}}
    assert (3, 1) in {key for key, own in flagged(states, overlaps=overlaps)[0].items() if "merge" in own}
    # a cell that moved on is not merged with the one that took its place
    moved = [state(0, 1, 0, 800), state(0, 2, 10, 800), state(1, 1, 8, 800), state(1, 2, 18, 800)]
    assert flagged(moved, overlaps={1: {(1, 1): 100.0, (2, 1): 700.0, (2, 2): 90.0}})[0] == {}


def test_specks_that_come_and_go_are_no_merges():
    states = [state(t, 1, 0, 1000 - (t != 2) * 25) for t in range(5)] + [state(t, 2, 9, 25) for t in (0, 1, 3, 4)]
    flags, _ = flagged(states)
    assert not any({"merge", "split"} & own for own in flags.values())


def test_a_division_is_no_split_where_divisions_are_followed():
    states = [state(t, 1, 0, 1000) for t in range(3)]
    states += [state(t, k, y, 500) for t in (3, 4, 5) for k, y in ((1, -4), (2, 4))]
    assert flagged(states, tracking=TrackingRules(divisions=True))[0] == {}
    # otherwise the frames after it do not count for sizes, and the mother's do
    assert flagged(states)[0] == {(t, k): {"possible_division"} for t in (3, 4, 5) for k in (1, 2)}


@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_volume_that_jumps_in_one_frame_is_flagged_there_and_nowhere_else(at):
    states = [state(t, 1, 0, 1000 * (1.5 if t == at else 1), mass=200) for t in range(6)]
    flags, _ = flagged(states)
    assert flags == {(at, 1): {"volume_jump"}}


def test_a_track_that_jumps_to_a_neighbour_is_flagged_from_there_on():
    states = [state(t, 1, 0, 786 if t < 4 else 1274) for t in range(6)]
    flags, _ = flagged(states)
    assert flags == {(t, 1): {"volume_jump", "mass_jump"} for t in (4, 5)}


@pytest.mark.parametrize(("factor", "jumps"), [(1.29, False), (1.31, True), (1 / 1.29, False), (1 / 1.31, True)])
def test_the_factor_of_a_jump_is_that_of_the_rules(factor, jumps):
    states = [state(t, 1, 0, 1000 * (factor if t == 2 else 1), mass=100) for t in range(5)]
    assert flagged(states)[0] == ({(2, 1): {"volume_jump"}} if jumps else {})
    masses = [state(t, 1, 0, 1000, mass=100 * (factor if t == 2 else 1)) for t in range(5)]
    assert flagged(masses)[0] == ({(2, 1): {"mass_jump"}} if jumps else {})
    assert flagged(masses, QualityRules(mass_jump=None))[0] == {}


def test_growth_is_no_jump_and_neither_is_what_all_cells_do():
    growing = [state(t, 1, 0, 500 * 1.15**t) for t in range(12)]
    assert flagged(growing)[0] == {}
    swell = [state(t, k, 30 * k, (1000 + 50 * k) * (2 if t > 2 else 1)) for t in range(6) for k in (1, 2, 3, 4)]
    assert flagged(swell)[0] == {}
    one_does_not = [state(t, k, 30 * k, 1000 * (2 if t > 2 and k != 4 else 1)) for t in range(6) for k in (1, 2, 3, 4)]
    assert set(flagged(one_does_not)[0]) == {(t, 4) for t in (3, 4, 5)}


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(2, 8), st.integers(1, 5))
def test_cells_within_the_errors_of_a_segmentation_are_never_flagged(seed, frames, cells):
    rng = np.random.default_rng(seed)
    size, rate = rng.uniform(300, 3000, cells), rng.uniform(0.97, 1.08, cells)
    states = [
        state(t, k + 1, 60.0 * k + rng.normal(), size[k] * rate[k] ** t * float(np.exp(rng.uniform(-0.05, 0.05))))
        for t in range(frames)
        for k in range(cells)
    ]
    assert flagged(states)[0] == {}


def test_what_one_frame_tells():
    one = [
        state(0, 1, 0, 1000, border="z- y+"), state(0, 2, 50, 1000, nuclei=2), state(0, 3, 100, 1000, nuclei=0),
        state(0, 4, 150, 1000, contrast=0.0029), state(0, 5, 200, 1000, interval=(700, 1201)),
        state(0, 6, 250, 1000, contrast=0.0031, interval=(750, 1249), nuclei=None),
        state(0, 7, 300, 1000, contrast=math.nan),
    ]  # fmt: skip
    flags, _ = flagged(one)
    assert flags == {
        (0, 1): {"border"}, (0, 2): {"several_nuclei"}, (0, 3): {"no_nucleus"}, (0, 4): {"low_contrast"},
        (0, 5): {"wide_interval"},
    }  # fmt: skip
    assert flagged([state(0, 1, 0, 30, border="y-", nuclei=0)])[0] == {(0, 1): {"border", "rim", "no_nucleus"}}
    assert flagged([state(0, 1, 0, 30, border="y-", nuclei=None)])[0] == {(0, 1): {"border"}}
    off = QualityRules(min_contrast_ri=None, max_interval=None)
    assert set(flagged(one, off)[0]) == {(0, 1), (0, 2), (0, 3)}


def test_each_flag_leaves_out_quantities_and_no_more():
    rules = QualityRules()

    def left_out(flag, compartment="cell", own=rules):
        return set(excluded_columns((flag,), compartment, own))

    assert "volume_um3" in left_out("border")
    assert not left_out("border") & set(MEANS)
    assert left_out("merge") == set(SIZES + MEANS)
    assert not left_out("split") & set(MEANS)
    assert left_out("several_nuclei") == {"nuclei"}
    assert "volume_um3" in left_out("several_nuclei", "nucleus")
    assert not left_out("several_nuclei", "nucleus") & set(MEANS)
    assert not left_out("several_nuclei", "lipid")
    assert "volume_um3" not in left_out("mass_jump")
    assert {"dry_mass_pg", "concentration_g_per_ml"} <= left_out("mass_jump")
    assert "mean_ri" in left_out("no_nucleus", "nucleus")  # an empty nucleus is no measurement
    assert "volume_um3" not in left_out("no_nucleus")
    assert not left_out("weights_range")
    assert not left_out("merge", own=QualityRules(exclude=False))
    assert left_out("border", own=QualityRules(exclude=False))  # `border` has a key of its own
    assert not left_out("border", own=QualityRules(border=False))
    assert left_out("rim") == set(SIZES + MEANS)
    assert not left_out("rim", own=QualityRules(border=False))
    assert all(flag.meaning for flag in FLAGS.values())
    assert as_text({"split", "merge", "own"}) == "merge split own"


def test_overlaps_are_counted_in_volumes():
    before, after = np.zeros((2, 4, 4), int), np.zeros((2, 4, 4), int)
    before[:, :2], before[:, 2:] = 3, 70000
    after[:, :3] = 5
    assert overlap_of(before, after, 0.5) == {(3, 5): 8.0, (70000, 5): 4.0}
    assert overlap_of(before, np.zeros_like(before), 0.5) == {}


def test_events_name_the_track_and_its_pieces():
    states = two_cells({2, 3})
    seen = [one.detection for one in states]
    tracked = track_cells(seen)
    join, part = find_events(seen, tracked, {}, 15.0)
    assert (join.frame, join.joins, join.pieces) == (2, True, ((1, 1), (1, 2)))
    assert (part.frame, part.joins, part.pieces) == (4, False, ((4, 1), (4, 2)))
    assert join.track == part.track == tracked.track_of[(2, 1)]


def test_contrast_is_that_of_a_cell_against_its_surroundings_in_the_plane():
    cells = np.zeros((12, 40, 40), int)
    cells[4:8, 10:20, 10:20], cells[4:8, 10:20, 20:30] = 1, 2
    ri = np.full(cells.shape, 1.337)
    ri[cells == 1], ri[cells == 2] = 1.36, 1.338
    ri[8:] = 1.35  # what lies above counts for nothing
    found = cell_contrasts(ri, cells, (0.5, 0.5, 0.5))
    assert found == {1: pytest.approx(0.023), 2: pytest.approx(0.001)}
    everywhere = cell_contrasts(ri, np.ones_like(cells), (0.5, 0.5, 0.5))
    assert math.isnan(everywhere[1])


def rows_of(frame, track, lineage, volume, flags="", excluded="", **more):
    return {
        "file": "a", "group": "g", "field": "a", "frame": frame, "time_s": 60.0 * frame, "cell": track,
        "compartment": "cell", "track": track, "lineage": lineage, "volume_um3": volume, "surface_area_um2": volume / 2,
        "sphericity": 0.9, "mean_ri": 1.36, "sd_ri": 0.0, "concentration_g_per_ml": 0.1, "dry_mass_pg": 0.1 * volume,
        "parts": 1, "mean_part_um3": volume, "median_part_um3": volume, "largest_part_um3": volume, "border": "",
        "nuclei": 1, "z_um": 0.0, "y_um": 0.0, "x_um": 0.0, "flags": flags, "excluded": excluded, **more,
    }  # fmt: skip


def lineage_tracks(last=(5, 5)):
    columns = ["file", "track", "parent", "lineage", "first_frame", "last_frame", "divided"]
    rows = [("a", 1, None, 1, 0, 2, True), ("a", 2, 1, 1, 3, last[0], False), ("a", 3, 1, 1, 3, last[1], False)]
    return pd.DataFrame(rows, columns=columns)


def test_daughters_are_summed_into_their_mothers_lineage():
    rows = [rows_of(t, 1, 1, 1000) for t in range(3)]
    rows += [rows_of(t, 2, 1, 600, mean_ri=1.37, concentration_g_per_ml=0.2, sd_ri=0.001) for t in (3, 4, 5)]
    rows += [rows_of(t, 3, 1, 400, mean_ri=1.35, concentration_g_per_ml=0.1, sd_ri=0.001) for t in (3, 4, 5)]
    table = sum_lineages(pd.DataFrame(rows), lineage_tracks(), QualityRules())
    assert list(table["frame"]) == list(range(6))
    assert set(table["track"]) == {1}
    np.testing.assert_allclose(table["volume_um3"], 1000)
    np.testing.assert_allclose(table["dry_mass_pg"], 100)
    np.testing.assert_allclose(table["surface_area_um2"], 500)
    last = table.iloc[-1]
    assert last["mean_ri"] == pytest.approx(0.6 * 1.37 + 0.4 * 1.35)
    assert last["concentration_g_per_ml"] == pytest.approx(0.16)
    assert last["sd_ri"] == pytest.approx(np.sqrt(1e-6 + 0.24 * 0.02**2))  # within and between the two
    assert (last["nuclei"], last["parts"], last["tracks"]) == (2, 2, 2)
    assert math.isnan(last["sphericity"])
    assert set(table["flags"]) == {""}


def test_a_lineage_without_one_of_its_daughters_is_incomplete():
    rows = [rows_of(t, 1, 1, 1000) for t in range(3)] + [rows_of(t, 2, 1, 600) for t in (3, 4, 5)]
    rows += [rows_of(3, 3, 1, 400)]
    table = sum_lineages(pd.DataFrame(rows), lineage_tracks(last=(5, 3)), QualityRules()).set_index("frame")
    assert list(table["flags"]) == ["", "", "", "", "incomplete", "incomplete"]
    assert "volume_um3" in table.loc[4, "excluded"].split()
    assert "mean_ri" not in table.loc[4, "excluded"].split()


def test_a_lineage_counts_for_what_all_its_cells_count_for():
    rows = [rows_of(0, 2, 1, 600, flags="merge", excluded="volume_um3 mean_ri"), rows_of(0, 3, 1, 400)]
    tracks = lineage_tracks()
    tracks["first_frame"] = [-1, 0, 0]
    tracks["last_frame"] = [-1, 5, 5]
    (row,) = sum_lineages(pd.DataFrame(rows), tracks, QualityRules()).to_dict("records")
    assert {"volume_um3", "mean_ri"} <= set(row["excluded"].split())
    assert "merge" in row["flags"].split()


def test_cells_that_do_not_divide_are_left_as_they_are():
    rows = [rows_of(t, k, k, 500 * k) for t in range(2) for k in (2, 3)]
    tracks = lineage_tracks().assign(lineage=[1, 2, 3], parent=None, divided=False)
    table = sum_lineages(pd.DataFrame(rows), tracks, QualityRules())
    pd.testing.assert_frame_equal(table[list(rows[0])], pd.DataFrame(rows), check_dtype=False)


@pytest.mark.parametrize(("piece", "counts"), [(115, True), (105, False)])
def test_pieces_below_a_tenth_of_the_joined_volume_do_not_count(piece, counts):
    flags, _ = flagged(two_cells({2}, volumes=(1000, piece, 1100)))
    assert any("merge" in own for own in flags.values()) == counts


@pytest.mark.parametrize(("inside", "counts"), [(0.52, True), (0.48, False)])
def test_half_of_a_cell_must_lie_in_the_mask_that_holds_it(inside, counts):
    # the mask gained 0.6 of the lost volume: too little to decide by the volume alone
    states = two_cells({2}, volumes=(1000, 500, 1000 + 500 * 0.6), frames=3)
    states = [one for one in states if one.key[1] != 9]
    far = [one for one in states if one.key != (1, 2)] + [state(1, 2, 20, 500)]
    overlaps = {2: {(1, 1): 900.0, (2, 1): inside * 500}}
    assert any("merge" in own for own in flagged(far, overlaps=overlaps)[0].values()) == counts


@pytest.mark.parametrize(("gained", "counts"), [(0.52, True), (0.48, False), (1.48, True), (1.52, False)])
def test_a_mask_must_have_gained_about_the_volume_that_is_gone(gained, counts):
    flags, _ = flagged(two_cells({2}, volumes=(1000, 400, 1000 + 400 * gained)))
    assert any("merge" in own for own in flags.values()) == counts


def test_a_common_change_needs_three_cells():
    def swelling(cells):
        return [state(t, k, 30 * k, 1000 * (1.5 if t > 2 else 1)) for t in range(6) for k in range(1, cells + 1)]

    assert flagged(swelling(3))[0] == {}
    assert len(flagged(swelling(2))[0]) == 6


def test_the_surroundings_reach_as_far_as_they_should():
    cells = np.zeros((4, 60, 60), int)
    cells[:, 25:35, 25:35] = 1
    ri = np.full(cells.shape, 1.30)
    near = (slice(None), slice(22, 38), slice(22, 38))  # 1.5 µm around
    ri[near] = 1.337
    ri[cells == 1] = 1.35
    assert cell_contrasts(ri, cells, (0.5, 0.5, 0.5))[1] == pytest.approx(0.013)
    assert cell_contrasts(ri, cells, (0.5, 0.5, 0.5), shell_um=3.0)[1] == pytest.approx(0.05)
    ri[:, 23:37, 23:37] = 1.33
    ri[cells == 1] = 1.35
    assert cell_contrasts(ri, cells, (0.5, 0.5, 0.5))[1] == pytest.approx(0.02)
    # two of three rings of voxels are medium; with a fourth, half of the surroundings are not
    ri, large = np.full(cells.shape, 1.30), np.zeros_like(cells)
    large[:, 10:50, 10:50] = 1
    ri[:, 8:52, 8:52] = 1.337
    ri[large == 1] = 1.35
    assert cell_contrasts(ri, large, (0.5, 0.5, 0.5))[1] == pytest.approx(0.013)
    assert cell_contrasts(ri, large, (0.5, 0.5, 0.5), shell_um=2.0)[1] == pytest.approx(0.05)
    few = np.full((1, 12, 12), 1)
    few[0, 0, :] = 0  # twelve voxels are too few
    assert math.isnan(cell_contrasts(np.full(few.shape, 1.34), few, (0.5, 0.5, 0.5))[1])
