"""The concentration as published is a column beside ours, in the tables of cells and of parts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cytovox.io import Volume
from cytovox.measurement.measurements import Rules, measure_frame
from cytovox.measurement.refractive import CHOI_RULE
from experiments.tasks.analyze.config import AnalyzeConfig, MeasureConfig
from experiments.tasks.analyze.frames import _plain
from experiments.tasks.analyze.results import compartment_table, part_table

MEDIUM, SPACING_UM = 1.337, (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def result() -> Any:
    """One measured frame: a cell with a nucleus, a droplet, and none of the nucleoli."""
    ri = np.full((16, 24, 24), MEDIUM)
    cells = np.zeros(ri.shape, np.int32)
    cells[3:13, 4:20, 4:20] = 1
    nucleus, lipid = np.zeros((2, *ri.shape), bool)
    nucleus[5:11, 6:14, 6:14] = True
    lipid[7:10, 15:18, 15:18] = True
    ri[cells > 0] = 1.360
    ri[nucleus], ri[lipid] = 1.355, 1.420
    found = measure_frame(
        ri, cells, {"nucleus": nucleus, "nucleolus": np.zeros_like(lipid), "lipid": lipid}, SPACING_UM, Rules(MEDIUM)
    )
    source = SimpleNamespace(name="a", group="control", dish="", field="f", path=Path("a.tcf"))
    return SimpleNamespace(
        time_lapse=SimpleNamespace(
            source=source, medium_ri=MEDIUM, medium_from="file", times_s=None, volume=Volume(ri, spacing_um=SPACING_UM)
        ),
        compartments=[{"frame": 0, **_plain(row)} for row in found.compartments],
        parts=[{"frame": 0, **_plain(row)} for row in found.parts],
        tracked=SimpleNamespace(track_of={(0, 1): 0}, tracks=[SimpleNamespace(track=0, lineage=0)]),
        flags={},
        outside_training=[""],
        cells_from=["network"],
    )


def tables(result: Any, **measure: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    config = AnalyzeConfig(measure=MeasureConfig(**measure))
    return compartment_table([result], config), part_table([result], config)


def test_both_are_columns_of_one_table_and_the_rule_says_so(result) -> None:
    cells, parts = tables(result, concentration_choi=True)
    columns = list(cells)
    assert columns[columns.index("concentration_g_per_ml") + 1] == "concentration_choi_g_per_ml"
    rows = cells.set_index("compartment")
    size, droplet, nucleus = 10 * 16 * 16, 27, 6 * 8 * 8
    rest = size - droplet - nucleus
    mean = (rest * 1.360 + nucleus * 1.355 + droplet * 1.420) / size
    published, ours = rows["concentration_choi_g_per_ml"], rows["concentration_g_per_ml"]
    assert published["cell"] == pytest.approx((mean - MEDIUM) / 0.19)
    heavier = droplet * (1.420 - MEDIUM) * (1 / 0.135 - 1 / 0.19) / size
    assert ours["cell"] == pytest.approx(published["cell"] + heavier)
    assert published["nucleus"] == pytest.approx(ours["nucleus"]) == pytest.approx(0.018 / 0.19)
    assert published["lipid"] == pytest.approx(ours["lipid"]) == pytest.approx(0.083 / 0.135)
    assert np.isnan(published["nucleolus"])
    assert set(rows["increments"]) == {f"lipid 0.135, other 0.19 mL/g; {CHOI_RULE}"}
    lipid = parts.set_index("compartment").loc["lipid"]
    assert lipid["concentration_choi_g_per_ml"] == pytest.approx(0.083 / 0.135)


def test_it_keeps_the_published_increments_whatever_ours_are(result) -> None:
    plain, _ = tables(result, concentration_choi=True)
    other, _ = tables(result, concentration_choi=True, lipid_ml_per_g=0.2, other_ml_per_g=0.1)
    column = "concentration_choi_g_per_ml"
    np.testing.assert_array_equal(plain[column], other[column])


def test_without_the_option_the_tables_are_as_before(result) -> None:
    cells, parts = tables(result)
    assert "concentration_choi_g_per_ml" not in [*cells, *parts]
    assert set(cells["increments"]) == {"lipid 0.135, other 0.19 mL/g"}
