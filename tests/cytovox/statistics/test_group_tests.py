"""Tests of groups against independent implementations, known answers, and their rate of false positives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cytovox.statistics import false_positives as levels
from cytovox.statistics.group_tests import compare_groups, compare_with_zero
from cytovox.statistics.mixed_model import fit_mixed
from cytovox.statistics.samples import Sample


def sample(fields, dishes=None):
    """Cells of each field, named by their place."""
    values = np.concatenate([np.asarray(cells, float) for cells in fields])
    names = [f"f{k}" for k, cells in enumerate(fields) for _ in cells]
    of = None if dishes is None else [dishes[k] for k, cells in enumerate(fields) for _ in cells]
    return Sample(values, names, of)


def drawn(rng, counts, icc, shift=0.0):
    """Fields of nested normal cells of total variance 1."""
    return sample([shift + icc**0.5 * rng.normal() + (1 - icc) ** 0.5 * rng.normal(size=n) for n in counts])


def means(one):
    return one.units("field").means


def test_students_t_on_field_means_is_scipys_and_its_effect_is_group_minus_control():
    rng = np.random.default_rng(0)
    group, control = drawn(rng, [5] * 3, 0.5, 2.0), drawn(rng, [5] * 4, 0.5)
    found = compare_groups(group, control)
    wanted = stats.ttest_ind(means(group), means(control))
    interval = wanted.confidence_interval(0.95)
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.effect == pytest.approx(means(group).mean() - means(control).mean())
    assert found.n == (3, 4)
    assert "Student" in found.test
    assert "calibrated" not in found.test


def test_more_cells_in_the_same_fields_are_no_more_evidence():
    fields = [0.0, 1.0, 3.0]
    few = compare_groups(sample([[v] for v in fields]), sample([[v + 1] for v in fields]))
    many = compare_groups(sample([[v] * 50 for v in fields]), sample([[v + 1] * 50 for v in fields]))
    assert many.p == pytest.approx(few.p)
    assert many.n == few.n == (3, 3)


@pytest.mark.parametrize("test", ["student", "welch"])
def test_a_change_within_a_group_is_a_one_sample_t_of_field_means(test):
    rng = np.random.default_rng(1)
    changes = drawn(rng, [3, 8, 20, 5], 0.3, 1.0)
    found = compare_with_zero(changes, test)
    wanted = stats.ttest_1samp(means(changes), 0)
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval(0.95)))
    assert found.effect == pytest.approx(means(changes).mean())


def test_welch_is_scipys():
    rng = np.random.default_rng(2)
    group, control = drawn(rng, [5] * 4, 0.5), drawn(rng, [5] * 5, 0.5)
    found, wanted = compare_groups(group, control, "welch"), stats.ttest_ind(means(group), means(control), equal_var=0)
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval(0.95)))


def test_permutation_of_four_against_four_fields_that_do_not_overlap():
    group, control = sample([[10.0], [11], [12], [13]]), sample([[0.0], [1], [2], [3]])
    found = compare_groups(group, control, "permutation")
    assert found.p == pytest.approx(2 / 70)
    assert found.low < found.effect == 10 < found.high
    assert found.low > 0  # the interval holds 0 if and only if p is above 0.05
    assert compare_groups(group, sample([[9.0], [11], [12], [14]]), "permutation").low < 0


def test_sign_flips_need_six_fields():
    rising = sample([[float(k)] for k in range(1, 7)])
    assert compare_with_zero(rising, "permutation").p == pytest.approx(2 / 64)
    refused = compare_with_zero(sample([[1.0]] * 5), "permutation")
    assert np.isnan(refused.p)
    assert "at least 6 fields" in refused.refused


def test_dishes_are_the_unit_where_asked_and_count_as_means_of_their_fields():
    group = sample([[1.0, 1], [3.0], [5.0]], ["A", "A", "B"])
    control = sample([[0.0], [1.0], [1.0]], ["C", "D", "E"])
    assert group.units("dish").means.tolist() == [2.0, 5.0]
    assert group.units("dish").cells == ((2, 1), (1,))
    found = compare_groups(group, control, unit="dish")
    assert found.n == (2, 3)
    assert "dishes" in found.test
    one = compare_groups(sample([[1.0], [2.0], [3.0]], ["A"] * 3), control, unit="dish")
    assert np.isnan(one.p)
    assert one.refused.startswith("1 dish in the group: needs at least 2 dishes")
    with pytest.raises(ValueError, match="no dishes"):
        compare_groups(sample([[1.0], [2.0]]), control, unit="dish")


@pytest.mark.parametrize("test", ["student", "welch", "permutation", "mixed"])
def test_one_field_is_refused_but_its_effect_is_stated(test):
    found = compare_groups(sample([[1.0, 2.0, 3.0]]), sample([[0.0], [1.0]]), test)
    assert np.isnan([found.p, found.low, found.high]).all()
    assert found.effect == 1.5
    assert "1 field in the group: needs at least 2 fields in each" in found.refused
    within = compare_with_zero(sample([[1.0, 2.0]]), test)
    assert np.isnan(within.p)
    assert "needs at least" in within.refused
    nobody = compare_groups(Sample(np.zeros(0), []), sample([[0.0], [1.0]]), test)
    assert np.isnan([nobody.p, nobody.effect]).all()
    assert nobody.n == (0, 2)


def test_without_spread_there_is_no_p():
    found = compare_groups(sample([[1.0], [1.0]]), sample([[2.0], [2.0]]))
    assert np.isnan(found.p)
    assert found.effect == -1
    assert "no spread" in found.refused
    assert "no spread" in compare_with_zero(sample([[0.0], [0.0]])).refused


#: (cells of the fields of the group, of the control): equal, unequal numbers of fields, of cells, and of both.
DESIGNS = {
    "2 and 2": ([10] * 2, [10] * 2), "3 and 3": ([10] * 3, [10] * 3), "6 and 6": ([10] * 6, [10] * 6),
    "2 and 6": ([10] * 2, [10] * 6), "unequal cells in fields": ([3, 10, 30], [3, 10, 30]),
    "fewer cells in the group": ([4] * 3, [20] * 3), "fewer fields and cells": ([4] * 2, [20] * 6),
    "fewer fields, more cells": ([20] * 2, [4] * 6), "3 of 3 and 6 of 30": ([3] * 3, [30] * 6),
}  # fmt: skip


def design_of(name):
    return tuple(tuple((n,) for n in cells) for cells in DESIGNS[name])


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("icc", [0.0, 0.2, 0.5])
def test_false_positives_stay_at_the_level_whatever_the_share_between_fields(name, icc):
    one, two = design_of(name)
    counts = np.array([fields[0] for fields in one + two])
    draws = 4000
    field_means = np.random.default_rng(7).normal(size=(draws, len(counts))) * np.sqrt(icc + (1 - icc) / counts)
    called = 0
    for row in field_means[:400]:  # the function itself
        called += levels.student(levels.Units(row[: len(one)], one), levels.Units(row[len(one) :], two)).p <= 0.05
    assert called <= stats.binom.isf(1e-6, 400, levels.MAX_LEVEL)
    if levels.student_level((one, two)) <= levels.DECIDING_LEVEL:  # and the same rule for many draws at once
        rejected = levels.t_rejects(field_means, len(one))
    else:
        t = stats.ttest_ind(field_means[:, : len(one)], field_means[:, len(one) :], axis=1).statistic
        rejected = np.abs(t) > levels.critical_t((one, two))
    assert rejected[:400].sum() == called
    assert rejected.sum() <= stats.binom.isf(0.01, draws, levels.MAX_LEVEL)
    for test in ("welch", "permutation"):
        if not levels.refusal(test, levels.Units(field_means[0, : len(one)], one),
                              levels.Units(field_means[0, len(one) :], two), "fields"):  # fmt: skip
            assert levels.REJECTS[test](field_means, len(one)).sum() <= stats.binom.isf(0.01, draws, levels.MAX_LEVEL)


def test_the_plain_t_is_left_where_it_would_exceed_the_level():
    design = design_of("fewer fields and cells")
    assert levels.student_level(design) > 0.15
    rng = np.random.default_rng(3)
    group, control = drawn(rng, [4] * 2, 0.2), drawn(rng, [20] * 6, 0.2)
    found = compare_groups(group, control)
    assert "calibrated" in found.test
    plain = stats.ttest_ind(means(group), means(control))
    assert found.p > plain.pvalue
    # the interval is that of the same test: at its end, p is 0.05
    moved = Sample(group.values - found.low, group.fields)
    assert compare_groups(moved, control).p == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize("name", ["fewer fields and cells", "3 of 3 and 6 of 30", "fewer cells in the group"])
def test_the_level_of_a_design_is_that_of_its_simulation(name):
    design = design_of(name)
    exact, simulated = levels.student_level(design), levels.simulated_level("student", design)
    assert exact == pytest.approx(simulated, abs=4 * (exact / levels.DRAWS) ** 0.5 + 0.002)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(2, 8), st.integers(1, 30), st.floats(0.01, 30))
def test_with_equal_cells_the_distribution_is_students(k1, k2, cells, t):
    design = (((cells,),) * k1, ((cells,),) * k2)
    assert levels.student_tail(t, design) == pytest.approx(2 * stats.t.sf(t, k1 + k2 - 2), abs=1e-4)


def test_dishes_with_unequal_fields_are_calibrated_over_three_variances():
    design = (((2,), (2,)), tuple([(20, 20, 20)] * 6))
    assert levels.student_level(design) > 0.15
    assert levels.student_tail(levels.critical_t(design), design) == pytest.approx(0.05, abs=1e-4)


def test_refusals_say_how_many_fields_they_need():
    def refused(test, one, two):
        units = [levels.Units(np.zeros(len(cells)), tuple((n,) for n in cells)) for cells in (one, two)]
        return levels.refusal(test, units[0], units[1], "fields")

    assert "needs at least 4 fields in each group" in refused("permutation", [10] * 3, [10] * 3)
    assert refused("permutation", [10] * 4, [10] * 4) == ""
    assert refused("welch", [10] * 3, [10] * 3) == ""
    output = refused("welch", [4] * 2, [20] * 6)
    assert "false positives up to 1" in output
    assert "needs at least 6 fields in each group" in output
    least = 4  # three gave up to 0.07 between groups
    assert f"needs at least {least} fields in each group" in refused("mixed", [10] * (least - 1), [10] * 6)
    assert refused("mixed", [10] * least, [10] * least) == ""
    assert refused("student", [1] * 2, [30] * 6) == ""


def test_a_balanced_mixed_model_is_students_t_on_means():
    rng = np.random.default_rng(5)
    group, control = drawn(rng, [10] * 5, 0.5, 1.0), drawn(rng, [10] * 5, 0.5)
    found, wanted = compare_groups(group, control, "mixed"), compare_groups(group, control)
    assert found.p == pytest.approx(wanted.p, rel=1e-3)
    assert (found.effect, found.low, found.high) == pytest.approx((wanted.effect, wanted.low, wanted.high), rel=1e-3)
    assert "at least 5 fields" in compare_with_zero(drawn(rng, [10] * 4, 0.5), "mixed").refused
    within, t = compare_with_zero(group, "mixed"), compare_with_zero(group)
    assert (within.p, within.effect) == pytest.approx((t.p, t.effect), rel=1e-3)


def test_a_mixed_model_with_a_vanishing_variance_still_has_its_effect():
    rng = np.random.default_rng(6)
    fields = rng.normal(size=(8, 10))
    fields -= fields.mean(axis=1, keepdims=True)  # no variance between fields at all
    found = fit_mixed([sample(1.0 + fields[:4]), sample(fields[4:])], "field")
    assert found.effect == pytest.approx(1.0)
    assert found.p < 1e-4
    assert found.low < 1 < found.high


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_mixed_model_does_not_depend_on_the_unit_of_the_quantity(scale):
    rng = np.random.default_rng(8)
    group, control = drawn(rng, [5, 9, 7, 4], 0.4, 1.0), drawn(rng, [6, 6, 12, 3], 0.4)
    plain = fit_mixed([group, control], "field")
    scaled = fit_mixed([Sample(1.34 + scale * s.values, s.fields) for s in (group, control)], "field")
    assert scaled.p == pytest.approx(plain.p, rel=1e-3)
    assert scaled.effect == pytest.approx(scale * plain.effect, rel=1e-4)


def test_mixed_models_of_dishes_have_fields_as_a_second_effect():
    rng = np.random.default_rng(9)
    samples = []
    for shift in (1.0, 0.0):
        fields, dishes = [], []
        for dish in range(4):
            common = rng.normal()
            for _ in range(3):
                fields.append(shift + common + 0.5 * rng.normal() + rng.normal(size=6))
                dishes.append(f"d{dish}")
        samples.append(sample(fields, dishes))
    found = compare_groups(*samples, "mixed", "dish")
    wanted = compare_groups(*samples, "student", "dish")  # balanced: the same
    assert found.n == (4, 4)
    assert found.p == pytest.approx(wanted.p, rel=1e-2)


def test_mixed_models_hold_their_level_where_they_are_not_refused():
    rng = np.random.default_rng(10)
    counts, draws = [levels.MIN_MIXED_UNITS * [5], levels.MIN_MIXED_UNITS * [5]], 200
    called = sum(
        compare_groups(drawn(rng, counts[0], 0.2), drawn(rng, counts[1], 0.2), "mixed").p <= 0.05 for _ in range(draws)
    )
    assert called <= stats.binom.isf(1e-4, draws, levels.MAX_LEVEL)


def test_one_cell_in_every_field_is_no_mixed_model():
    one = sample([[float(v)] for v in (1, 2, 4, 3)])
    assert "one cell in every field" in compare_groups(one, one, "mixed").refused
