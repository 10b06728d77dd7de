"""A table that leaks is refused."""

import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.statistics.feature_tables import Fold, Table, joined, stacked, table_of


def table(cells, values=None, seen=(), names=("a", "b")):
    values = np.arange(len(cells) * len(names), dtype=float).reshape(len(cells), -1) if values is None else values
    return Table(tuple(cells), names, values, tuple(frozenset(s) for s in seen))


def test_rows_cells_and_columns_are_chosen_with_what_their_model_saw():
    whole = table("xyxz", seen=("yz", "x", "yz", "y"))
    assert whole.of("zx").cells == ("x", "x", "z")
    assert whole.of("z").seen == (frozenset("y"),)
    with pytest.raises(ValueError, match="read-only"):
        whole.values_NF[0, 0] = 9


def test_a_nan_names_its_cell_and_feature():
    with pytest.raises(InputError, match=r"^y: feature b is nan"):
        table("xy", np.array([[0, 1], [2, np.nan]]))


def test_joined_puts_the_cell_in_front_of_each_of_its_samples():
    image = table("xy", np.array([[1.0], [2.0]]), names=("area",))
    samples = table("yxy", np.array([[10.0], [20.0], [30.0]]), seen=("x", "y", "x"), names=("volume",))
    found = joined(image, samples)
    assert found.names == ("area", "volume")
    assert found.values_NF.tolist() == [[2, 10], [1, 20], [2, 30]]
    assert found.seen == samples.seen
    with pytest.raises(InputError, match=r"^z: its shape has features, its image has none"):
        joined(image, table("z", np.ones((1, 1)), names=("volume",)))
    with pytest.raises(ValueError, match="twice"):
        joined(table("xx", np.ones((2, 1)), names=("area",)), samples)


def test_stacked_keeps_what_was_measured_as_seen_by_nobody():
    found = stacked(table("x"), table("y", seen=("x",)))
    assert found.cells == ("x", "y")
    assert found.seen == (frozenset(), frozenset("x"))
    with pytest.raises(ValueError, match="different features"):
        stacked(table("x"), table("y", names=("a", "c")))


def test_table_of_reads_rows_of_features():
    found = table_of([{"a": 1.0, "b": 2.0}, {"b": 4.0, "a": 3.0}], ["x", "y"], [["y"], ["x"]])
    assert found.values_NF.tolist() == [[1, 2], [3, 4]]
    assert found.seen == (frozenset("y"), frozenset("x"))


@pytest.mark.parametrize(
    ("train_seen", "test_seen", "said"),
    [
        (("x", "x"), ("xy", "xy"), "training row of x was trained on it"),
        (("yz", "x"), ("xy", "xy"), "training row of x saw test cell z"),
        (("y", "x"), ("xyz", "xy"), "test row of z was trained on it"),
        (("y", "x"), ("xy", "xyz"), "test row of w saw test cell z"),
    ],
)
def test_every_way_to_leak_is_refused(train_seen, test_seen, said):
    with pytest.raises(ValueError, match=f"leak: .*{said}"):
        Fold(table("xy", seen=train_seen), table("zw", seen=test_seen))


def test_nested_predictions_are_taken_and_a_cell_on_both_sides_is_not():
    Fold(table("xy", seen=("y", "x")), table("zw", seen=("xy", "xy")))
    with pytest.raises(ValueError, match="x is a training and a test cell"):
        Fold(table("xy"), table("xz"))
    with pytest.raises(ValueError, match="different features"):
        Fold(table("xy"), table("zw", names=("a", "c")))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected 2 x 2"):
        table("xy", np.zeros((3, 2)))
    with pytest.raises(ValueError, match="twice"):
        table("xy", names=("a", "a"))
