"""Measurements that another package adds."""

import math
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.measurement import registry
from cytovox.measurement.measurements import Rules, measure_frame
from cytovox.measurement.registry import Column, Measurement
from cytovox.measurement.rows import COLUMNS

CONTRAST = Measurement(
    "contrast",
    3,
    {"mean_contrast": Column("", "Mean RI minus that of the medium"), "depth_um": Column("µm", "Extent along z")},
    lambda region: {
        "mean_contrast": region.ri_ZYX[region.mask_ZYX].mean() - region.medium_ri,
        "depth_um": np.ptp(np.nonzero(region.mask_ZYX)[0]) * region.spacing_um[0] + region.spacing_um[0],
    },
)
WRONG = "a string"
TAKEN = Measurement("taken", 1, {"volume_um3": Column("µm³", "")}, lambda region: {"volume_um3": 0.0})
OTHER = Measurement("other", 1, {"a": Column("", "")}, lambda region: {"b": 0.0})


@pytest.fixture
def offer(monkeypatch):
    def offer(attribute, module=__name__):
        entry = EntryPoint("added", f"{module}:{attribute}", registry.GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == registry.GROUP else [])
        registry.measurements.cache_clear()

    yield offer
    monkeypatch.undo()
    registry.measurements.cache_clear()


def frame():
    cells, nucleus = np.zeros((6, 8, 8), np.int32), np.zeros((6, 8, 8), bool)
    cells[1:5, 2:6, 2:6], cells[:, 7, 7] = 1, 2
    nucleus[2:4, 3:5, 3:5] = True
    ri = np.full(cells.shape, 1.337)
    ri[cells == 1], ri[nucleus] = 1.357, 1.367
    return ri, cells, {"nucleus": nucleus}, (0.5, 0.2, 0.2), Rules(1.337)


def test_an_added_measurement_gives_named_columns_and_changes_no_other(offer):
    plain = measure_frame(*frame()).compartments
    assert [tuple(row.as_dict()) for row in plain] == [COLUMNS] * 4
    offer("CONTRAST")
    rows = measure_frame(*frame()).compartments
    for row, before in zip(rows, plain, strict=True):
        assert tuple(row.as_dict()) == (*COLUMNS, "mean_contrast", "depth_um")
        assert repr([row.as_dict()[name] for name in COLUMNS]) == repr([before.as_dict()[name] for name in COLUMNS])
    added = {(row.cell, row.compartment): row.added for row in rows}
    assert added[1, "nucleus"] == pytest.approx({"mean_contrast": 0.03, "depth_um": 1.0})
    assert added[1, "cell"] == pytest.approx({"mean_contrast": 0.02 + 0.01 * 8 / 64, "depth_um": 2.0})
    assert all(math.isnan(value) for value in added[2, "nucleus"].values())
    assert registry.measurement_versions() == {"contrast": [3, "mean_contrast", "depth_um"]}
    assert "| `depth_um` | µm | Extent along z |" in registry.column_reference().splitlines()


def test_a_measurement_that_returns_other_columns_is_an_error(offer):
    offer("OTHER")
    with pytest.raises(ValueError, match=r"'other': expected \['a'\], got \['b'\]"):
        measure_frame(*frame())


@pytest.mark.parametrize(
    ("attribute", "module", "message"),
    [
        ("WRONG", __name__, "got str"),
        ("TAKEN", __name__, "column volume_um3 is taken"),
        ("CONTRAST", "no_such_module", "cannot be imported"),
    ],
)
def test_what_is_no_measurement_is_refused_with_its_origin(offer, attribute, module, message):
    offer(attribute, module)
    with pytest.raises(InputError, match=f"measurement 'added' .*{message}.*uninstall"):
        registry.measurements()
