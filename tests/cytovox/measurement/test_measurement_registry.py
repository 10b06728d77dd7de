"""The registry of measurements: built-in ones, and those that another package adds."""

import importlib.util
import math
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.measurement import registry
from cytovox.measurement.measurements import Rules, measure_frame
from cytovox.measurement.registry import Column, Measurement
from cytovox.quality.lineage_sums import BY_PART, BY_VOLUME, SUMS, UNKNOWN
from cytovox.quality.rules import MEANS, SIZES

CONTRAST = Measurement(
    "contrast",
    3,
    {"mean_contrast": Column("", "Mean RI minus that of the medium"), "depth_um": Column("µm", "Extent along z")},
    lambda region: {
        "mean_contrast": region.ri_ZYX[region.mask_ZYX].mean() - region.medium_ri,
        "depth_um": np.ptp(np.nonzero(region.mask_ZYX)[0]) * region.spacing_um[0] + region.spacing_um[0],
    },
)
#: The columns of both tables, in their order: they are the same in every version of the package.
COLUMNS = (
    "cell", "compartment", "volume_um3", "surface_area_um2", "area_flag", "sphericity", "mean_ri", "sd_ri",
    "concentration_g_per_ml", "dry_mass_pg", "z_um", "y_um", "x_um", "parts", "mean_part_um3", "median_part_um3",
    "largest_part_um3", "mean_part_area_um2", "specks", "specks_um3", "border", "nuclei", "contrast_ri",
    "boundary_contrast", "edge_share", "expected_dice", "evidence",
)  # fmt: skip
#: Columns of each fluorescence channel, which a table without channels does not have.
CHANNEL_COLUMNS = ("fluorescence_mean_{channel}", "fluorescence_sum_{channel}")
PART_COLUMNS = (
    "cell", "compartment", "part", "volume_um3", "equivalent_diameter_um", "surface_area_um2", "area_flag",
    "sphericity", "mean_ri", "concentration_g_per_ml", "dry_mass_pg", "z_um", "y_um", "x_um",
)  # fmt: skip
WRONG = "a string"
SAME_NAME = Measurement("volume", 1, {"v": Column("", "")}, lambda region: {"v": 0.0})
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
    assert [tuple(row) for row in plain] == [COLUMNS] * 4
    assert tuple(registry.columns()) == COLUMNS
    assert tuple(measure_frame(*frame()).parts[0]) == tuple(registry.part_columns()) == PART_COLUMNS
    offer("CONTRAST")
    rows = measure_frame(*frame()).compartments
    for row, before in zip(rows, plain, strict=True):
        assert tuple(row) == (*COLUMNS, "mean_contrast", "depth_um")
        assert repr([row[name] for name in COLUMNS]) == repr(list(before.values()))
    names = ("mean_contrast", "depth_um")
    added = {(row["cell"], row["compartment"]): {name: row[name] for name in names} for row in rows}
    assert added[1, "nucleus"] == pytest.approx({"mean_contrast": 0.03, "depth_um": 1.0})
    assert added[1, "cell"] == pytest.approx({"mean_contrast": 0.02 + 0.01 * 8 / 64, "depth_um": 2.0})
    assert all(math.isnan(value) for value in added[2, "nucleus"].values())
    versions = registry.measurement_versions()
    assert list(versions.items())[-1] == ("contrast", [3, "mean_contrast", "depth_um"])
    assert versions["refractive_index"] == [1, "mean_ri", "sd_ri"]
    assert versions["equivalent_diameter"] == [1, "equivalent_diameter_um"]
    covered = {column for _, *columns in versions.values() for column in columns}
    assert covered == {*COLUMNS, *CHANNEL_COLUMNS, *PART_COLUMNS, *names} - registry.PART_KEYS.keys()
    assert "| `depth_um` | µm | Extent along z | contrast 3 |  |" in registry.column_reference().splitlines()


def test_the_page_of_columns_is_what_the_registry_says():
    docs = Path(__file__).resolve().parents[3] / "docs"
    spec = importlib.util.spec_from_file_location("write_column_reference", docs / "write_column_reference.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (docs / "columns.md").read_text(encoding="utf-8")
    assert page == script.reference(), "run python docs/write_column_reference.py"
    named = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert named == [*COLUMNS, *CHANNEL_COLUMNS, *PART_COLUMNS]


def test_numbers_have_a_type_and_columns_of_the_refractive_index_are_known():
    types = registry.numeric_types(registry.columns())
    assert set(COLUMNS) - set(types) == {"compartment", "area_flag", "border", "evidence"}
    assert {name for name, kind in types.items() if kind == "Int64"} == {"specks", "nuclei"}
    of_ri = {
        "mean_ri",
        "sd_ri",
        "concentration_g_per_ml",
        "dry_mass_pg",
        "contrast_ri",
        "boundary_contrast",
        "edge_share",
        "expected_dice",
        "evidence",
    }
    assert registry.columns_of_ri() == of_ri


def test_a_measurement_that_returns_other_columns_is_an_error(offer):
    offer("OTHER")
    with pytest.raises(ValueError, match=r"'other': expected \['a'\], got \['b'\]"):
        measure_frame(*frame())


@pytest.mark.parametrize(
    ("attribute", "module", "message"),
    [
        ("WRONG", __name__, "got str"),
        ("TAKEN", __name__, "column volume_um3 is taken"),
        ("SAME_NAME", __name__, "name 'volume' is taken"),
        ("CONTRAST", "no_such_module", "cannot be imported"),
    ],
)
def test_what_is_no_measurement_is_refused_with_its_origin(offer, attribute, module, message):
    offer(attribute, module)
    with pytest.raises(InputError, match=f"measurement 'added' .*{message}.*uninstall"):
        registry.measurements()


def test_quality_control_names_only_columns_that_exist():
    named = {*SIZES, *MEANS, *SUMS, *BY_VOLUME, *BY_PART, *UNKNOWN}
    assert named - set(COLUMNS) == {"volume_low_um3", "volume_high_um3", "concentration_choi_g_per_ml"}
