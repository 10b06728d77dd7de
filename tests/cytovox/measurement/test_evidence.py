"""Contrast and edges at the surface of masks, and the expected Dice, against known answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.measurement.evidence import evidence_of, expected_dice, surface_evidence
from cytovox.measurement.measurements import Rules, measure_frame
from cytovox.organelles import WHOLE
from cytovox.quality.rules import QualityRules, evidence_flags

SPACING = (0.4, 0.3, 0.3)
SHAPE = (40, 56, 56)


def ball(radius_um: float, shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    axes = [(np.arange(n) - (n - 1) / 2) * s - d for n, s, d in zip(SHAPE, SPACING, shift, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius_um**2


CELL, NUCLEUS = ball(7.0), ball(3.5, (0.5, 1.0, -1.0))


def picture(contrast: float, noise: float, seed: int = 0) -> np.ndarray:
    ri = np.where(NUCLEUS, 1.355 + contrast, np.where(CELL, 1.355, 1.337))
    return (ri + np.random.default_rng(seed).normal(0, noise, SHAPE)).astype(np.float32)


@pytest.mark.parametrize("contrast", [0.006, -0.006])
def test_contrast_is_the_difference_over_the_deviation(contrast):
    found = surface_evidence(picture(contrast, 0.002), NUCLEUS, CELL & ~NUCLEUS, SPACING)
    assert found.contrast == pytest.approx(contrast / 0.002, rel=0.05)
    assert found.edge_share > 0.9


def test_nothing_is_seen_at_a_mask_without_an_edge():
    found = surface_evidence(picture(0.0, 0.002), NUCLEUS, CELL & ~NUCLEUS, SPACING)
    assert abs(found.contrast) < 0.1
    assert found.edge_share < 0.65


def test_a_shifted_mask_has_less_contrast_and_fewer_edges():
    ri = picture(-0.006, 0.002)
    right = surface_evidence(ri, NUCLEUS, CELL & ~NUCLEUS, SPACING)
    moved = ball(3.5, (-1.0, -1.5, 1.5))
    wrong = surface_evidence(ri, moved, CELL & ~moved, SPACING)
    assert abs(wrong.contrast) < 0.5 * abs(right.contrast)
    assert wrong.edge_share < right.edge_share - 0.2


def test_evidence_does_not_depend_on_an_offset_or_on_the_unit():
    ri = picture(0.004, 0.001)
    first = surface_evidence(ri, NUCLEUS, CELL & ~NUCLEUS, SPACING)
    other = surface_evidence((ri.astype(np.float64) - 1) * 7, NUCLEUS, CELL & ~NUCLEUS, SPACING)
    assert (other.contrast, other.edge_share) == pytest.approx((first.contrast, first.edge_share), rel=1e-3)


def test_one_side_of_the_surface_may_be_empty():
    found = surface_evidence(picture(0.004, 0.001), NUCLEUS, np.zeros(SHAPE, bool), SPACING)
    assert np.isnan(found.contrast)
    assert np.isnan(found.edge_share)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
@settings(max_examples=25, deadline=None)
def test_the_expected_dice_is_the_mean_dice_of_masks_drawn_from_the_probabilities(seed, threshold):
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.3, 0.3, (12, 14, 13))
    mask = probability >= threshold
    drawn = rng.random((40, *probability.shape)) < probability
    dice = [2 * (mask & truth).sum() / (mask.sum() + truth.sum()) for truth in drawn]
    assert expected_dice(probability, mask) == pytest.approx(np.mean(dice), abs=0.02)


def rows_of(ri, probabilities=None, nucleus=NUCLEUS, **more):
    masks = {"membrane": CELL, "nucleus": nucleus, "nucleolus": np.zeros(SHAPE, bool), **more}
    found = measure_frame(
        ri, CELL.astype(np.int32), masks, SPACING, Rules(1.337), probabilities=probabilities
    ).compartments
    return {row["compartment"]: row for row in found}


def test_rows_hold_the_evidence_of_each_organelle():
    certain = {
        "nucleus": np.where(NUCLEUS, 255, 0).astype(np.uint8),
        "membrane": np.where(CELL, 204, 0).astype(np.uint8),
    }
    rows = rows_of(picture(-0.006, 0.002), certain)
    nucleus, cell = rows["nucleus"], rows[WHOLE]
    assert nucleus["boundary_contrast"] == pytest.approx(-3, rel=0.1)
    assert nucleus["expected_dice"] == 1
    assert cell["boundary_contrast"] > 4
    assert cell["expected_dice"] == pytest.approx(2 * 0.8 / 1.8)
    assert np.isnan(rows["nucleolus"]["boundary_contrast"])
    assert np.isnan(rows["nucleolus"]["expected_dice"])


def test_contents_do_not_count_for_the_contrast():
    """Bright droplets around a nucleus are no edge of the nucleus."""
    lipid = ball(4.5, (0.5, 1.0, -1.0)) & ~ball(3.8, (0.5, 1.0, -1.0)) & (np.arange(SHAPE[2]) % 4 < 2)
    ri = picture(0.0, 0.001) + 0.05 * lipid
    assert abs(rows_of(ri.astype(np.float32), lipid=lipid)["nucleus"]["boundary_contrast"]) < 0.1


@pytest.mark.parametrize(
    ("contrast", "edges", "expected"),
    [(9.0, 1.0, "some"), (-9.0, 1.0, "some"), (0.01, 0.9, "some"), (-3.0, 0.0, "some"), (0.01, 0.1, "none"),
     (0.01, np.nan, "none"), (np.nan, np.nan, "")],
)  # fmt: skip
def test_evidence_is_none_without_contrast_and_edges(contrast, edges, expected):
    assert evidence_of(contrast, edges) == expected


@pytest.mark.parametrize(("contrast", "expected"), [(0.0, "none"), (-0.006, "some")])
def test_a_predicted_nucleus_that_cannot_be_seen_is_flagged(contrast, expected):
    probability = {"nucleus": np.where(NUCLEUS, 255, 0).astype(np.uint8)}
    row = rows_of(picture(contrast, 0.002), probability)["nucleus"]
    assert row["evidence"] == expected
    flags = evidence_flags(row["evidence"], row["expected_dice"], QualityRules(evidence=True))
    assert flags == (("no_evidence",) if expected == "none" else ())
    assert not evidence_flags(row["evidence"], row["expected_dice"], QualityRules())


def test_existing_and_corrected_masks_are_not_flagged():
    row = rows_of(picture(0.0, 0.002))["nucleus"]
    assert row["evidence"] == "none"
    assert not evidence_flags(row["evidence"], row["expected_dice"], QualityRules(evidence=True))


def test_another_cell_is_not_the_surroundings():
    cells = CELL.astype(np.int32)
    cells[:, :, 44:] = 2
    ri = picture(0.0, 0.001) + np.where(cells == 2, 0.2, 0).astype(np.float32)
    found = measure_frame(ri, cells, {"membrane": cells > 0}, SPACING, Rules(1.337)).compartments
    assert 5 < next(row for row in found if row["cell"] == 1)["boundary_contrast"] < 30


def test_an_uncertain_network_that_drew_nothing_expects_no_overlap():
    probability = {"nucleus": np.where(NUCLEUS, 90, 0).astype(np.uint8)}
    row = rows_of(picture(0.0, 0.001), probability, nucleus=np.zeros(SHAPE, bool))["nucleus"]
    assert row["expected_dice"] == 0
