"""The benchmark of data that the simulator did not make: its microscope, its phantoms and its scores."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _phantom_sets
from benchmarks._phantom_cells import Kind, draw_phantom
from benchmarks._phantom_microscope import Microscope, observe
from benchmarks._phantom_scores import cell_scores, mask_scores
from benchmarks._phantom_sets import SETS, Case, PhantomSet, cached_cases, make_case

HOME = Path(__file__).resolve().parents[2]
SPACING = (0.25, 0.2, 0.2)


def ball(radius_um: float, shape=(48, 64, 64), shift=(0.0, 0.0, 0.0), spacing=SPACING) -> np.ndarray:
    axes = [(np.arange(n) - (n - 1) / 2) * s - d for n, s, d in zip(shape, spacing, shift, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius_um**2


@pytest.mark.parametrize(("full_angle", "single"), [(False, False), (True, False), (False, True)])
def test_the_microscope_recovers_the_index_and_place_of_a_ball(full_angle, single):
    spacing = (0.2, 0.2, 0.2) if full_angle else SPACING
    inside = ball(2.0, shape=(60, 60, 60) if full_angle else (48, 64, 64), shift=(0.5, -0.8, 1.2), spacing=spacing)
    scope = Microscope(noise_ri=0.0, illuminations=24, full_angle=full_angle, single_scattering=single)
    seen = observe(np.where(inside, 1.347, 1.337), spacing, scope, np.random.default_rng(0)) - 1.337
    assert np.median(seen[ball(1.0, inside.shape, (0.5, -0.8, 1.2), spacing)]) == pytest.approx(0.010, rel=0.2)
    weight = np.clip(seen, 0.003, None) - 0.003
    for axis, (n, s, d) in enumerate(zip(inside.shape, spacing, (0.5, -0.8, 1.2), strict=True)):
        profile = weight.sum(tuple(k for k in range(3) if k != axis))
        centre = ((np.arange(n) - (n - 1) / 2) * s * profile).sum() / profile.sum()
        assert centre == pytest.approx(d, abs=0.25)


@pytest.mark.parametrize("single", [False, True])
def test_noise_has_the_given_standard_deviation(single):
    empty = np.full((32, 48, 48), 1.337)
    scope = Microscope(noise_ri=0.0006, illuminations=12, rounds=0, single_scattering=single)
    assert observe(empty, SPACING, scope, np.random.default_rng(0)).std() == pytest.approx(0.0006, rel=0.05)


def test_both_kinds_of_scattering_agree_for_a_weak_object():
    """A small ball of little contrast scatters once only: both pictures agree, but for the angles they measure."""
    weak = np.where(ball(1.5), 1.338, 1.337)
    kinds = [Microscope(noise_ri=0.0, illuminations=60, single_scattering=single, rounds=0) for single in (True, False)]
    once, often = (observe(weak, SPACING, scope, np.random.default_rng(0)) - 1.337 for scope in kinds)
    assert np.corrcoef(once.ravel(), often.ravel())[0, 1] > 0.9
    assert once[24, 32, 32] == pytest.approx(often[24, 32, 32], rel=0.25)


def test_a_grid_that_cannot_hold_the_fields_is_refused():
    with pytest.raises(ValueError, match="at most"):
        observe(np.full((16, 32, 32), 1.337), (0.3, 0.4, 0.4), Microscope(), np.random.default_rng(0))
    scope = Microscope(single_scattering=True, full_angle=True)
    with pytest.raises(ValueError, match="multiple scattering only"):
        observe(np.full((16, 16, 16), 1.337), (0.2, 0.2, 0.2), scope, np.random.default_rng(0))


def test_phantoms_follow_their_kind_and_their_seed():
    kind = Kind(cells=(2, 2), nuclei=(0.0, 0.0, 1.0), nucleus_contrast=(0.004, 0.005))
    first, again = (draw_phantom(kind, (40, 90, 90), (0.35, 0.35, 0.35), 1.337, np.random.default_rng(3)) for _ in "ab")
    assert np.array_equal(first.ri_ZYX, again.ri_ZYX)
    assert 1 <= first.cells_ZYX.max() <= 2
    inside = first.nuclei_ZYX > 0
    assert inside.any()
    assert (first.cells_ZYX[inside] > 0).all()
    assert all(0.004 <= abs(contrast) <= 0.005 for contrast in first.contrast.values())
    assert not (first.nucleolus_ZYX & ~inside).any()


@pytest.fixture
def small(monkeypatch) -> str:
    chosen = PhantomSet("small", 2, Kind(cells=(1, 1)), (8.0, 12.0, 12.0), ((0.4, 0.5), (0.3, 0.4)))
    monkeypatch.setitem(SETS, "small", chosen)
    return "small"


def test_a_case_is_resampled_with_its_truth(small):
    case = make_case(small, 0)
    assert case.ri_ZYX.shape == case.cells_ZYX.shape
    assert 0.4 <= case.spacing_um[0] <= 0.5
    extent = np.array(case.ri_ZYX.shape) * case.spacing_um
    assert extent == pytest.approx([8, 12, 12], abs=0.6)
    assert case.ri_ZYX[case.cells_ZYX > 0].mean() > case.ri_ZYX[case.cells_ZYX == 0].mean() + 0.003


def test_cached_phantoms_are_read_back_and_belong_to_their_source(tmp_path, monkeypatch):
    case = Case("single_000", np.full((4, 5, 6), 1.35, np.float32), SPACING, *[np.ones((4, 5, 6), np.uint16)] * 2,
                *[np.zeros((4, 5, 6), bool)] * 2, {1: 1}, {1: -0.004})  # fmt: skip
    monkeypatch.setattr(_phantom_sets, "make_case", lambda name, number: case)
    folder = tmp_path / _phantom_sets.source_digest()
    folder.mkdir()
    _phantom_sets._store("single", 0, str(folder))
    (read,) = cached_cases("single", 1, tmp_path)
    assert np.allclose(read.ri_ZYX, case.ri_ZYX, atol=1e-5)
    assert (read.spacing_um, read.owner, read.contrast) == (SPACING, {1: 1}, {1: -0.004})


def test_scores_of_a_perfect_and_of_a_shifted_mask():
    truth = ball(3.0)
    same = mask_scores(truth, truth, SPACING)
    assert (same.dice, same.surface_dice, same.hausdorff_um, same.volume_error) == (1, 1, 0, 0)
    shifted = mask_scores(truth, ball(3.0, shift=(0, 0, 1.0)), SPACING)
    assert shifted.hausdorff_um == pytest.approx(1.0, abs=0.2)
    assert 0.2 < shifted.surface_dice < 0.8
    assert shifted.volume_error == pytest.approx(0, abs=0.02)
    assert mask_scores(truth, np.zeros_like(truth), SPACING).hausdorff_um == math.inf
    assert math.isnan(mask_scores(np.zeros_like(truth), truth, SPACING).dice)


def test_nuclei_are_scored_inside_their_cells():
    cells = np.where(ball(4.0), 1, 0).astype(np.uint16)
    cells[:, :, :8] = 2
    nucleus = ball(2.0, shift=(0, 0, 1.0))
    case = Case("a", np.where(nucleus, 1.34, 1.35).astype(np.float32), SPACING, cells, nucleus.astype(np.uint16),
                np.zeros(cells.shape, bool), np.zeros(cells.shape, bool), {1: 1}, {1: -0.01})  # fmt: skip
    predicted = nucleus.copy()
    predicted[20:28, 28:36, 2:6] = True  # in the cell without a nucleus
    first, second = cell_scores(case, predicted)
    assert (first.nuclei, first.found, first.dice) == (1, 1, 1)
    assert first.offset == pytest.approx(1.0 / 4.0, abs=0.02)
    assert (second.nuclei, second.predicted_share > 0) == (0, True)
    assert math.isnan(second.dice)


def test_the_data_are_made_without_the_simulator():
    for source in (*_phantom_sets.SOURCES, "_phantom_scores.py", "_independent_cells.py"):
        tree = ast.parse((HOME / "benchmarks" / source).read_text(encoding="utf-8"))
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not any("simulation" in module for module in modules), source
