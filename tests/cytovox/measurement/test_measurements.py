"""A frame of known cells: every number of the table is known without the code."""

from types import SimpleNamespace

import numpy as np
import pytest

from cytovox.measurement.measurements import Rules, measure_frame
from cytovox.measurement.refractive import Increments
from cytovox.organelles import WHOLE

SPACING = (0.4, 0.2, 0.2)
MEDIUM = 1.337


def ball(shape, centre_um, radius_um, spacing_um=SPACING):
    axes = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing_um, strict=True)), indexing="ij")
    return sum((a - c) ** 2 for a, c in zip(axes, centre_um, strict=True)) <= radius_um**2


@pytest.fixture
def frame():
    """Cell 1: a ball with a nucleus and two droplets. Cell 4: half a ball at the border, no nucleus."""
    shape = (40, 80, 120)
    cells = np.zeros(shape, np.uint16)
    cells[ball(shape, (8, 8, 8), 6)] = 1
    cells[ball(shape, (8, 8, 24), 5)] = 4
    nucleus = ball(shape, (8, 8, 8), 3)
    lipid = ball(shape, (8, 12.4, 8), 1.0) | ball(shape, (8, 4, 8), 0.6)
    stray = np.zeros(shape, bool)
    stray[2, 70, 3:6] = True
    ri = np.full(shape, MEDIUM, np.float32)
    ri[cells > 0] = MEDIUM + 0.19 * 0.1
    ri[lipid] = MEDIUM + 0.135 * 0.4
    return ri, cells, {"membrane": (cells > 0) | stray, "nucleus": nucleus, "lipid": lipid | stray}


def rows_of(found, **wanted):
    """Rows or parts with some values, their columns as attributes."""
    rows = [SimpleNamespace(**row) for row in found]
    return [row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())]


def only(found, **wanted):
    (row,) = rows_of(found, **wanted)
    return row


def test_the_numbers_of_a_known_cell(frame):
    ri, cells, organelles = frame
    measured = measure_frame(ri, cells, organelles, SPACING, Rules(MEDIUM))
    cell = only(measured.compartments, cell=1, compartment=WHOLE)
    assert cell.volume_um3 == pytest.approx(4 / 3 * np.pi * 216, rel=0.01)
    assert cell.surface_area_um2 == pytest.approx(4 * np.pi * 36, rel=0.01)
    assert cell.sphericity == pytest.approx(1, abs=0.01)
    assert (cell.z_um, cell.y_um, cell.x_um) == pytest.approx((8, 8, 8), abs=0.02)
    assert (cell.parts, cell.border, cell.nuclei) == (1, "", 1)
    droplets = 4 / 3 * np.pi * (1 + 0.6**3)
    assert cell.dry_mass_pg == pytest.approx(0.1 * (cell.volume_um3 - droplets) + 0.4 * droplets, rel=0.01)
    assert cell.concentration_g_per_ml == pytest.approx(cell.dry_mass_pg / cell.volume_um3)
    nucleus = only(measured.compartments, cell=1, compartment="nucleus")
    assert nucleus.volume_um3 == pytest.approx(4 / 3 * np.pi * 27, rel=0.02)
    assert nucleus.concentration_g_per_ml == pytest.approx(0.1, rel=1e-4)
    assert nucleus.mean_ri == pytest.approx(MEDIUM + 0.019)
    assert nucleus.sd_ri == pytest.approx(0, abs=1e-6)


def test_droplets_are_counted_and_sized(frame):
    ri, cells, organelles = frame
    measured = measure_frame(ri, cells, organelles, SPACING, Rules(MEDIUM))
    lipid = only(measured.compartments, cell=1, compartment="lipid")
    first, second = rows_of(measured.parts, cell=1, compartment="lipid")
    assert (lipid.parts, first.part, second.part) == (2, 1, 2)
    assert first.equivalent_diameter_um == pytest.approx(2.0, rel=0.05)
    assert lipid.volume_um3 == pytest.approx(first.volume_um3 + second.volume_um3)
    assert lipid.dry_mass_pg == pytest.approx(first.dry_mass_pg + second.dry_mass_pg)
    assert lipid.largest_part_um3 == first.volume_um3 > second.volume_um3
    assert np.isnan(lipid.sphericity)
    assert (second.z_um, second.y_um, second.x_um) == pytest.approx((8, 4, 8), abs=0.05)


def test_a_cell_at_the_border_and_one_without_a_nucleus_are_flagged(frame):
    measured = measure_frame(*frame, SPACING, Rules(MEDIUM))
    cell = only(measured.compartments, cell=4, compartment=WHOLE)
    assert cell.border == "x+"
    assert cell.nuclei == 0
    nucleus = only(measured.compartments, cell=4, compartment="nucleus")
    assert (nucleus.volume_um3, nucleus.parts, nucleus.dry_mass_pg) == (0, 0, 0)
    assert np.isnan(nucleus.mean_ri)


def test_what_lies_in_no_cell_is_a_row_of_cell_0(frame):
    measured = measure_frame(*frame, SPACING, Rules(MEDIUM))
    assert [row.compartment for row in rows_of(measured.compartments, cell=0)] == ["membrane", "lipid"]
    stray = only(measured.compartments, cell=0, compartment="membrane")
    assert stray.volume_um3 == pytest.approx(3 * 0.4 * 0.2 * 0.2)
    assert (stray.z_um, stray.y_um, stray.x_um) == pytest.approx((0.8, 14.0, 0.8))


def test_without_a_nucleus_mask_nobody_knows_how_many_there_are(frame):
    ri, cells, _ = frame
    measured = measure_frame(ri, cells, {}, SPACING, Rules(MEDIUM))
    assert [row["compartment"] for row in measured.compartments] == [WHOLE, WHOLE]
    assert measured.compartments[0]["nuclei"] is None
    assert measured.parts == []


def test_uniform_increments_and_the_published_area_are_options(frame):
    usual = measure_frame(*frame, SPACING, Rules(MEDIUM)).compartments
    other = measure_frame(*frame, SPACING, Rules(MEDIUM, Increments(uniform=True), "marching_cubes")).compartments
    one, two = (only(rows, cell=1, compartment="lipid") for rows in (usual, other))
    assert two.dry_mass_pg / one.dry_mass_pg == pytest.approx(0.135 / 0.19)
    cells = [only(rows, cell=1, compartment=WHOLE).surface_area_um2 for rows in (usual, other)]
    assert 1.05 < cells[1] / cells[0] < 1.2


def test_the_names_of_labels_and_the_place_of_the_volume_change_no_size(frame):
    ri, cells, organelles = frame
    usual = measure_frame(ri, cells, organelles, SPACING, Rules(MEDIUM)).compartments
    renamed = np.choose(cells.clip(0, 2), [0, 7, 0]) + np.where(cells == 4, 2, 0)
    moved = measure_frame(ri, renamed, organelles, SPACING, Rules(MEDIUM), origin_um=(1.0, 2.0, 3.0)).compartments
    one, two = only(usual, cell=1, compartment=WHOLE), only(moved, cell=7, compartment=WHOLE)
    assert two.x_um == pytest.approx(one.x_um + 3)
    own = {"cell": 1, "z_um": one.z_um, "y_um": one.y_um, "x_um": one.x_um}
    assert vars(two) | own == vars(one)


def test_arrays_that_do_not_fit_are_refused(frame):
    ri, cells, organelles = frame
    with pytest.raises(ValueError, match="one shape"):
        measure_frame(ri[1:], cells, organelles, SPACING, Rules(MEDIUM))
    with pytest.raises(ValueError, match="'smooth': expected one of enclosing, marching_cubes"):
        measure_frame(ri, cells, organelles, SPACING, Rules(MEDIUM, area="smooth"))


def test_a_speck_does_not_hide_the_form_of_a_cell_or_its_nucleus(frame):
    ri, cells, organelles = frame
    clean = measure_frame(ri, cells, organelles, SPACING, Rules(MEDIUM)).compartments
    dusty, nucleus = cells.copy(), organelles["nucleus"].copy()
    dusty[2, 8:11, 8] = 1  # 3 voxels of 0.016 µm³, away from the cell
    dusty[37, 70:72, 8] = 1
    nucleus[20, 40, 62:64] = True  # inside cell 1, away from its nucleus
    assert cells[20, 40, 62] == 1
    found = measure_frame(ri, dusty, {**organelles, "nucleus": nucleus}, SPACING, Rules(MEDIUM)).compartments
    for name, specks, volume in ((WHOLE, 2, 5 * 0.016), ("nucleus", 1, 2 * 0.016)):
        one, two = (only(rows, cell=1, compartment=name) for rows in (clean, found))
        assert (one.specks, one.specks_um3, one.parts) == (0, 0.0, 1)
        assert (two.specks, two.parts) == (specks, specks + 1)
        assert two.specks_um3 == pytest.approx(volume)
        assert two.volume_um3 == pytest.approx(one.volume_um3 + volume)
        assert two.sphericity == one.sphericity


def test_a_second_nucleus_is_no_speck_and_droplets_never_are(frame):
    ri, cells, organelles = frame
    two = ball(cells.shape, (8, 8, 5.2), 2.0) | ball(cells.shape, (8, 8, 10.8), 2.2)
    found = measure_frame(ri, cells, {**organelles, "nucleus": two}, SPACING, Rules(MEDIUM)).compartments
    nucleus, lipid = (only(found, cell=1, compartment=name) for name in ("nucleus", "lipid"))
    assert (nucleus.nuclei, nucleus.parts, nucleus.specks, nucleus.specks_um3) == (2, 2, 0, 0.0)
    assert nucleus.sphericity == pytest.approx(1, abs=0.02)  # of the larger one
    assert (lipid.parts, lipid.specks) == (2, None)
    assert np.isnan(lipid.specks_um3)
    # the smallest volume that counts as a nucleus decides
    strict = measure_frame(
        ri, cells, {**organelles, "nucleus": two}, SPACING, Rules(MEDIUM, min_nucleus_um3=40.0)
    ).compartments
    assert only(strict, cell=1, compartment="nucleus").specks == 1


def test_a_thin_cell_is_flagged(frame):
    ri, cells, _ = frame
    thin = np.zeros_like(cells)
    thin[20:22, 10:70, 10:70] = 1
    found = measure_frame(ri, np.where(thin, 1, np.where(cells == 4, 4, 0)), {}, SPACING, Rules(MEDIUM)).compartments
    assert [(row["cell"], row["area_flag"]) for row in found] == [(1, "thin"), (4, "")]
