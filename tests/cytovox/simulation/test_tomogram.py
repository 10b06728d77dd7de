"""Simulated volumes: reproducible from their seed, consistent, and with the published differences of cell lines."""

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.simulation import PRESETS, Options, Request, Tomogram, simulate
from cytovox.simulation.cells import Grid, grow
from cytovox.simulation.draw import draw_scene
from cytovox.simulation.optics import Optics
from cytovox.simulation.presets import CellLine
from cytovox.simulation.scene import Scene

SMALL = {"shape": (32, 64, 64), "spacing_um": (0.5, 0.5, 0.5)}
QUICK = Options(optics=Optics(rounds=2))
ROOT = Path(__file__).parents[3]


@lru_cache(maxsize=16)
def volume(preset: str, seed: int = 0) -> Tomogram:
    return simulate(preset, seed, **SMALL)


@lru_cache(maxsize=8)
def scenes(preset: str) -> tuple[Scene, ...]:
    """Scenes of five fields; fast to draw, and without borders."""
    return tuple(draw_scene(PRESETS[preset], seed, (19.2, 40.0, 40.0)) for seed in range(5))


def spread_cells(preset: str) -> list:
    return [cell for scene in scenes(preset) for cell in scene.cells if not cell.lift_um]


def test_there_are_presets_of_five_cell_lines():
    assert list(PRESETS) == ["NIH3T3", "A549", "HeLa", "MDA-MB-231", "RAW264.7"]
    assert all(isinstance(line, CellLine) and line.name == name for name, line in PRESETS.items())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_volume_has_the_documented_arrays(preset):
    tomogram = volume(preset)
    assert list(tomogram.masks) == ["membrane", "nucleus", "nucleolus", "lipid"]
    assert {mask.dtype for mask in tomogram.masks.values()} == {np.dtype(bool)}
    assert tomogram.ri_ZYX.dtype == tomogram.ri_true_ZYX.dtype == np.float32
    assert tomogram.cells_ZYX.dtype == tomogram.nuclei_ZYX.dtype == np.uint16
    arrays = [tomogram.ri_ZYX, tomogram.ri_true_ZYX, tomogram.cells_ZYX, tomogram.nuclei_ZYX, *tomogram.masks.values()]
    assert {array.shape for array in arrays} == {SMALL["shape"]}
    assert np.isfinite(tomogram.ri_ZYX).all()
    assert 1.32 < tomogram.ri_ZYX.min() < tomogram.medium_ri < tomogram.ri_ZYX.max() < 1.46
    assert (tomogram.preset, tomogram.seed, tomogram.spacing_um) == (preset, 0, SMALL["spacing_um"])


@pytest.mark.parametrize("preset", PRESETS)
def test_each_organelle_lies_in_its_parent_compartment(preset):
    tomogram = volume(preset)
    masks, cells, nuclei = tomogram.masks, tomogram.cells_ZYX, tomogram.nuclei_ZYX
    assert all(mask.any() for mask in masks.values())
    assert np.array_equal(masks["membrane"], cells > 0)
    assert np.array_equal(masks["nucleus"], nuclei > 0)
    assert np.array_equal(nuclei[nuclei > 0], cells[nuclei > 0])  # nucleus k in cell k
    assert not (masks["nucleolus"] & ~masks["nucleus"]).any()
    assert not (masks["lipid"] & ~masks["membrane"]).any()
    assert not (masks["lipid"] & masks["nucleus"]).any()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_true_index_of_lipid_is_the_highest_and_of_the_medium_the_lowest(preset):
    tomogram = volume(preset)
    ri, masks = tomogram.ri_true_ZYX, tomogram.masks
    assert ri[masks["lipid"]].mean() > ri[masks["nucleolus"]].mean() > ri[masks["nucleus"]].mean() > 1.343
    assert np.median(ri[~masks["membrane"]]) == pytest.approx(tomogram.medium_ri, abs=1e-4)


def test_preset_and_seed_determine_the_volume():
    first, again = simulate("HeLa", 3, **SMALL), simulate("HeLa", 3, **SMALL)
    assert np.array_equal(first.ri_ZYX, again.ri_ZYX)
    assert np.array_equal(first.cells_ZYX, again.cells_ZYX)
    assert not np.array_equal(first.cells_ZYX, simulate("HeLa", 4, **SMALL).cells_ZYX)
    assert not np.array_equal(first.cells_ZYX, simulate("A549", 3, **SMALL).cells_ZYX)


def test_a_volume_does_not_depend_on_the_number_of_threads():
    code = (
        "import hashlib; from cytovox.simulation import simulate;"
        "m = simulate('A549', 5, (24, 64, 64), (0.5, 0.4, 0.4));"
        "print(hashlib.sha256(m.ri_ZYX.tobytes() + m.cells_ZYX.tobytes()).hexdigest())"
    )
    found = set()
    for threads in ("1", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
        found.add(run.stdout)
    assert len(found) == 1


def test_noise_changes_the_measured_index_only():
    calm = simulate("HeLa", 1, **SMALL, options=Options(noise_ri=(0.0, 0.0)))
    noisy = simulate("HeLa", 1, **SMALL, options=Options(noise_ri=(0.003, 0.003)))
    assert np.array_equal(calm.ri_true_ZYX, noisy.ri_true_ZYX)
    top = np.s_[-6:]
    assert noisy.ri_ZYX[top].std() > 2 * calm.ri_ZYX[top].std()


def test_the_medium_is_medium_ri_within_medium_spread():
    assert simulate("A549", 0, (16, 32, 32), (0.6, 0.6, 0.6), QUICK).medium_ri == 1.337
    options = Options(medium_ri=1.335, medium_spread=0.002, optics=Optics(rounds=2))
    media = {simulate("A549", seed, (16, 32, 32), (0.6, 0.6, 0.6), options).medium_ri for seed in range(4)}
    assert len(media) == 4
    assert all(1.333 <= medium <= 1.337 for medium in media)


@settings(deadline=None, max_examples=10)
@given(
    preset=st.sampled_from(list(PRESETS)),
    shape=st.tuples(*[st.integers(8, 40)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.15, 0.3, 0.5, 0.9])] * 3),
    seed=st.integers(0, 50),
)
def test_any_shape_and_spacing_can_be_simulated(preset, shape, spacing, seed):
    tomogram = simulate(preset, seed, shape, spacing, QUICK)
    assert tomogram.ri_ZYX.shape == shape
    assert np.isfinite(tomogram.ri_ZYX).all()
    inside = tomogram.nuclei_ZYX > 0
    assert np.array_equal(tomogram.nuclei_ZYX[inside], tomogram.cells_ZYX[inside])


def test_cell_volume_does_not_depend_on_spacing():
    scene = draw_scene(PRESETS["HeLa"], 0, (16.0, 32.0, 32.0))
    volumes = []
    for step in (0.25, 0.5):
        shape = tuple(round(side / step) for side in (16, 32, 32))
        volumes.append(np.count_nonzero(grow(scene, Grid.around(shape, (step,) * 3, (0, 0, 0))).cells_ZYX) * step**3)
    assert volumes[0] == pytest.approx(volumes[1], rel=0.07)  # a skirt is 2 to 4 coarse voxels high


@pytest.mark.parametrize("preset", PRESETS)
def test_a_cell_is_connected_in_projection_and_stands_on_the_coverslip(preset):
    scene = draw_scene(PRESETS[preset], 0, (16.0, 30.0, 30.0))
    shape, step = (32, 60, 60), 0.5
    cells = grow(scene, Grid.around(shape, (step,) * 3, (0, 0, 0))).cells_ZYX
    floor = int(np.ceil(scene.coverslip_um / step - 0.5))
    assert not cells[:floor].any()
    assert cells[floor].any()
    for k in np.unique(cells)[1:]:
        assert scipy.ndimage.label((cells == k).any(0))[1] <= 2  # a sliver thinner than a voxel may break it


def test_cells_touch():
    tomogram = volume("NIH3T3", 1)
    cells = tomogram.cells_ZYX
    meets = (cells[:, 1:] != cells[:, :-1]) & (cells[:, 1:] > 0) & (cells[:, :-1] > 0)
    assert meets.any()


def test_a_larger_field_holds_more_cells():
    small = draw_scene(PRESETS["A549"], 2, (19.2, 30.0, 30.0))
    large = draw_scene(PRESETS["A549"], 2, (19.2, 120.0, 120.0))
    assert len(large.cells) > 4 * len(small.cells)


def test_cells_are_as_large_as_real_ones():
    for preset in PRESETS:
        for cell in spread_cells(preset):
            assert 10 <= 2 * cell.semi_um[0] <= 30
            assert 5 <= cell.height_um <= 12


def test_nih3t3_is_long_and_raw_is_round():
    length = {p: np.mean([cell.semi_um[0] / cell.semi_um[1] for cell in spread_cells(p)]) for p in PRESETS}
    assert length["NIH3T3"] > 2.2
    assert length["RAW264.7"] < 1.25
    assert max(length, key=length.get) == "NIH3T3"
    assert PRESETS["NIH3T3"].overlapping


def test_a549_is_thin_with_large_droplets_and_hela_is_thick_with_a_large_nucleus():
    height = {p: np.mean([cell.height_um for cell in spread_cells(p)]) for p in PRESETS}
    assert min(height, key=height.get) == "A549"
    assert max(height, key=height.get) == "HeLa"
    droplet = {p: np.mean([d.semi_um[0] for c in spread_cells(p) for d in c.droplets]) for p in PRESETS}
    assert max(droplet, key=droplet.get) == "A549"
    nucleus = {p: np.mean([np.prod(cell.nucleus.body.semi_um) for cell in spread_cells(p)]) for p in PRESETS}
    assert max(nucleus, key=nucleus.get) == "HeLa"


def test_mda_mb_231_has_one_or_two_large_nucleoli():
    cells = spread_cells("MDA-MB-231")
    assert {len(cell.nucleus.nucleoli) for cell in cells} <= {1, 2}
    size = {p: np.mean([n.semi_um.max() for c in spread_cells(p) for n in c.nucleus.nucleoli]) for p in PRESETS}
    assert max(size, key=size.get) == "MDA-MB-231"


def test_the_nucleus_fills_most_of_raw_264_7():
    share = {}
    for preset in PRESETS:
        cells = spread_cells(preset)
        seen = [np.prod(c.nucleus.body.semi_um[1:]) / np.prod(c.semi_um) for c in cells]
        share[preset] = np.mean(seen)
    assert max(share, key=share.get) == "RAW264.7"
    width = {p: np.mean([2 * cell.semi_um[0] for cell in spread_cells(p)]) for p in PRESETS}
    assert min(width, key=width.get) == "RAW264.7"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Hela", 0), "did you mean HeLa"),
        (("HeLa", -1), "seed -1"),
        (("HeLa", 0, (64, 64)), "shape (64, 64)"),
        (("HeLa", 0, (4, 64, 64)), "at least 8"),
        (("HeLa", 0, (16, 16, 16), (0.3, 0.3, 0.0)), "spacing"),
        (("HeLa", 0, (16, 16, 16), (300.0, 300.0, 300.0)), "µm"),
        (("HeLa", 0, (16, 16, 16), (0.3, 0.3, 0.3), Options(noise_ri=(0.0, 0.001))), "noise_ri (0.0, 0.001)"),
        (("HeLa", 0, (16, 16, 16), (0.3, 0.3, 0.3), Options(medium_ri=13370)), "medium_ri 13370"),
        (("HeLa", 0, (16, 16, 16), (0.3, 0.3, 0.3), Options(medium_spread=-0.1)), "medium_spread -0.1"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(arguments, message):
    with pytest.raises(InputError) as error:
        simulate(*arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_low_density_gives_fewer_cells_and_density_1_is_the_default():
    fields = {many: [simulate("RAW264.7", s, (32, 96, 96), options=Options(density=(many, many))) for s in (1, 2)]
              for many in (0.1, 1.0)}  # fmt: skip
    counts = {many: [len(np.unique(field.cells_ZYX)) - 1 for field in found] for many, found in fields.items()}
    assert sum(counts[0.1]) < 0.5 * sum(counts[1.0])
    plain = simulate("RAW264.7", 1, (32, 96, 96))
    np.testing.assert_array_equal(fields[1.0][0].ri_ZYX, plain.ri_ZYX)


def test_density_changes_the_file_name_only_if_it_is_not_the_default():
    plain, chosen = Request("HeLa", 3), Request("HeLa", 3, options=Options(density=(0.1, 1.0)))
    assert plain.filename != chosen.filename
    assert plain.filename == "HeLa-00003-70a55deb4500f153.npz"


@pytest.mark.parametrize("density", [(0.0, 1.0), (1.0, 0.5), (0.5, 9.0)])
def test_an_invalid_density_is_refused(density):
    with pytest.raises(InputError, match="density"):
        simulate("HeLa", 0, (8, 16, 16), options=Options(density=density))
