"""The tables of benchmarks/shape.py on shapes whose scores are known."""

import numpy as np
import pytest

from benchmarks import _shape_classes as classes
from benchmarks._shape_errors import error_tables, limits_table, model_errors
from benchmarks._shape_predicted import Predicted, is_predicted, read_predicted
from benchmarks._shape_runs import INNER_FOLDS, jobs
from benchmarks._shape_spread import spread_tables
from benchmarks._shape_train import fold_cells
from cytovox.statistics.classify import Forest
from datamodules.shape.cases import ShapeCell

FOLDS = 5


def tilted(half, tilt=0.3):
    """A lens over an elliptic outline: so many voxels up and down in its middle, its columns shifted along z."""
    z, y, x = np.mgrid[:64, :64, :64] - 32.0
    return np.abs(z - np.round(tilt * x)) <= half * (1 - (y / 9) ** 2 - (x / 11) ** 2)


@pytest.fixture(scope="module")
def cells():
    """Thin and thick cells of one outline and one image."""
    made = []
    outline = tilted(6, 0)[32]
    for i in range(10):
        group, half = ("flat", 4 + 0.2 * (i // 2)) if i % 2 else ("round", 10 + 0.2 * (i // 2))
        made.append(ShapeCell(f"{group}_{i}", group, outline * 0.5, outline, tilted(half)))
    return made


def predicted(model, cells, run, samples=lambda obj: [obj]):
    train, held = fold_cells(cells, run)
    shapes = np.array([samples(cell.obj_ZYX) for cell in held])
    names, seen = tuple(cell.name for cell in held), frozenset(cell.name for cell in train)
    return Predicted(model, run, names, seen, shapes[:, 0], shapes, steps=10, seconds=60.0)


def folds(model, cells, samples=lambda obj: [obj]):
    return [predicted(model, cells, f"fold{k}", samples) for k in range(FOLDS)]


def test_a_run_is_read_back_unchanged(tmp_path, cells):
    run = predicted("traits", cells, "fold1_inner2", lambda obj: [obj, ~obj])
    assert not is_predicted(tmp_path, "traits", "fold1_inner2")
    run.write(tmp_path)
    found = read_predicted(tmp_path, "traits", "fold1_inner2")
    assert (found.names, found.seen, found.steps, found.seconds) == (run.names, run.seen, 10, 60.0)
    assert np.array_equal(found.samples_NSZYX, run.samples_NSZYX)
    assert np.array_equal(found.mean_NZYX, run.mean_NZYX)


def test_inner_folds_hold_out_every_training_cell_once_and_no_test_cell(cells):
    for k in range(FOLDS):
        train, tested = fold_cells(cells, f"fold{k}")
        held = [cell.name for i in range(INNER_FOLDS) for cell in fold_cells(cells, f"fold{k}_inner{i}")[1]]
        assert sorted(held) == sorted(cell.name for cell in train)
        assert not {cell.name for cell in tested} & set(held)


def test_classified_models_have_five_outer_and_fifteen_inner_trainings():
    found = jobs(1.0, 0.5)
    assert len({(job.model, job.run) for job in found}) == len(found) == 4 * 5 + 1 + 2 * 15
    assert all(job.steps >= 1 for job in found)


def test_the_truth_has_no_error_and_a_mirror_image_the_same_for_all(cells):
    mirror = lambda obj: [np.roll(obj[::-1], 1, axis=0)] * 5  # noqa: E731
    found = model_errors(cells, {"traits": folds("traits", cells), "shapr": folds("shapr", cells, mirror)})
    tables, rows = error_tables(cells, found)
    assert rows["traits: mean"]["iou_error"] == rows["traits: mean"]["roughness_error"] == 0
    assert rows["shapr: best"]["iou_error"] == rows["shapr: single"]["iou_error"] > 0.1
    assert rows["shapr: mean"]["volume_error"] == 0
    assert {row["model"]: row["iou_error"] for row in rows["change against shapr"]}["traits"] == -1
    assert [row[0] for row in tables[0].rows][:2] == ["cylinder", "ellipsoid"]
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)


def test_the_limits_are_those_of_a_tilted_ellipsoid(cells):
    _, values = limits_table(cells, folds("traits", cells))
    assert values["the mean shape as predicted"] == 0
    assert values["predicted thickness, true middles"] < 0.01
    level = values["true thickness, all middles in the imaged plane"]
    assert 0.1 < level < values["the truth mirrored in the imaged plane"]
    assert values["the truth together with its mirror image"] < values["the truth mirrored in the imaged plane"]


def test_samples_near_the_truth_have_full_coverage_and_a_small_crps(tmp_path, cells):
    # 5 % thicker or thinner: as wide a spread as the truth is sure
    many = lambda obj: [obj] * 10 + [obj | np.roll(obj, 1, axis=0)] * 10  # noqa: E731
    tables, rows = spread_tables(cells, {"traits": folds("traits", cells, many)}, "traits", tmp_path)
    assert [row["coverage"] for row in rows["volumes"]] == [1, 1]
    sampled, conformal = (row["relative_crps"] for row in rows["volumes"])
    assert 0.1 > sampled > conformal == 0
    assert (tmp_path / "shape_reliability.png").stat().st_size > 1000
    assert rows["reliability"]["traits"]["observed"][-1] == 1


@pytest.mark.slow
def test_shapes_separate_classes_with_equal_outlines(tmp_path, cells):
    outer = folds("traits", cells)
    inner = [[predicted("traits", cells, f"fold{k}_inner{i}") for i in range(INNER_FOLDS)] for k in range(FOLDS)]
    forest = Forest(trees=10, seeds=(0,))
    tables, rows = classes.class_tables(cells, {"traits": (outer, inner)}, tmp_path, forest, kinds=("small",))
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    f1 = {row["experiment"]: row["macro_f1"] for row in rows["small: gain over 2d"]}
    assert f1["predicted_3d_mean (traits)"] == f1["true_3d"] == 1
    assert f1["2d+cylinder"] < 0.9
    assert any("Confusion" in table.title for table in tables)
    # the second time the features are read, unless the shapes have changed
    assert len(list(tmp_path.glob("conditioned/*_small.json"))) == FOLDS * (1 + INNER_FOLDS)
    kept = tmp_path / "traits" / "fold0_small.json"
    before = kept.read_text()
    classes.features_of(outer[0], classes.features_3d, tmp_path, "small")
    assert kept.read_text() == before
    other = predicted("traits", cells, "fold0", lambda obj: [obj & ~np.roll(obj, 20, axis=0)])
    classes.features_of(other, classes.features_3d, tmp_path, "small")
    assert kept.read_text() != before


def test_a_model_that_saw_its_test_cells_is_refused(tmp_path, cells):
    outer = folds("traits", cells)
    leaky = [[predicted("traits", cells, f"fold{(k + 1) % 5}_inner{i}") for i in range(3)] for k in range(FOLDS)]
    with pytest.raises(ValueError, match="leak"):
        classes.class_tables(cells, {"traits": (outer, leaky)}, tmp_path, Forest(trees=2, seeds=(0,)), kinds=("small",))
