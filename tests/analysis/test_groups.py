"""Groups whose change is known, and tests whose level is."""

import numpy as np
import pytest

from analysis.groups import MIN_FIELDS, Course, between, curve, first_to_last


def course(values, cell="1", group="control", field="a", times=None):
    values = np.asarray(values, float)
    return Course(cell, group, field, np.arange(len(values)) * 60.0 if times is None else np.asarray(times), values)


def test_a_change_is_from_the_first_to_the_last_known_value():
    assert course([1.0, 5.0, 3.0]).change == 2
    assert course([np.nan, 5.0, 3.0, np.nan]).ends == (5, 3)
    assert np.isnan(course([np.nan, 5.0]).change)


def test_a_curve_is_the_mean_of_the_cells_there_are_at_each_time():
    cells = [course([1.0, 2.0, 3.0]), course([3.0, np.nan, 7.0], times=[5.0, 65.0, 130.0])]
    first, second, third = curve(cells, [0.0, 60.0, 120.0], tolerance_s=10.0)
    assert (first.cells, first.mean, first.sd) == (2, 2, pytest.approx(2**0.5))
    assert (second.cells, second.mean) == (1, 2)
    assert np.isnan(second.sd)
    assert third.mean == 5
    (nobody,) = curve(cells, [600.0], tolerance_s=10.0)
    assert nobody.cells == 0
    assert np.isnan(nobody.mean)


def test_cells_that_all_rise_have_the_smallest_p_a_signed_rank_can_have():
    cells = [course([1.0, 1.0 + rise], cell=str(rise)) for rise in (0.5, 1.0, 1.7, 2.2, 2.9, 3.1, 4.0, 4.5)]
    found = first_to_last(cells)
    assert found.n == (8, 8)
    assert found.p == pytest.approx(2 / 2**8)
    assert found.effect == pytest.approx(2.45, abs=0.2)
    assert "paired" in found.test


def test_cells_that_do_not_change_give_no_p():
    found = first_to_last([course([1.0, 1.0]), course([2.0, 2.0])])
    assert np.isnan(found.p)
    assert found.effect == 0
    assert np.isnan(first_to_last([]).effect)


def test_few_fields_are_compared_by_cells_and_it_is_said():
    still = [course([0.0, v], cell=str(v)) for v in (0.0, 0.1, 0.2, 0.3)]
    rising = [course([0.0, v], cell=str(v), group="LPS", field="b") for v in (1.0, 1.1, 1.2, 1.3)]
    found = between(still, rising)
    assert found.test.startswith("Mann-Whitney")
    assert "share a field" in found.assumes
    assert found.p == pytest.approx(2 / 70)  # the most extreme of 8 over 4 orders, both ways
    assert found.effect == pytest.approx(1.0)


def test_with_enough_fields_the_field_is_the_unit():
    def fields(shift, group):
        return [
            course([0.0, shift + 0.1 * k], cell=f"{group}{k}{n}", group=group, field=f"{group}{k}")
            for k in range(MIN_FIELDS)
            for n in range(10)
        ]

    found = between(fields(0.0, "control"), fields(1.0, "LPS"))
    assert found.n == (MIN_FIELDS, MIN_FIELDS)
    assert found.test.startswith("permutation of fields")
    assert found.p == pytest.approx(2 / 70)  # forty cells a group do not make it smaller
    assert found.effect == pytest.approx(1.0)


def test_groups_that_do_not_differ_are_seldom_called_different():
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(200):
        one, two = ([course([0.0, v], field=f"{g}{k}") for k, v in enumerate(rng.normal(size=6))] for g in ("a", "b"))
        called += between(one, two).p < 0.05
    assert called <= 20  # 10 of 200 are expected


def test_a_group_without_cells_has_no_p():
    found = between([], [course([0.0, 1.0])])
    assert found.n == (0, 1)
    assert np.isnan(found.p)
    assert np.isnan(found.effect)
