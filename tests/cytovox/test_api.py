"""The public functions: the results of the commands, without Lightning, and bad input in one line."""

from __future__ import annotations

import doctest
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cytovox
from cytovox import api
from cytovox.io import read_mask, read_volume, write_tcf
from cytovox.models import load as model_loading
from cytovox.networks.weights import shipped_weights
from cytovox.segmentation.field import SeedRule
from experiments.run import main

SHAPE, SPACING = (40, 72, 80), (0.4, 0.3, 0.3)


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated TCF file of touching cells."""
    truth = cytovox.simulate("HeLa", seed=7, shape=SHAPE, spacing_um=SPACING)
    folder = tmp_path_factory.mktemp("tomograms")
    write_tcf(folder / "field.TCF", truth.volume.frame(), SPACING, truth.volume.medium_ri)
    return folder / "field.TCF"


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def test_masks_are_those_of_the_predict_command(tomogram: Path, tmp_path: Path):
    run("organelle", "stages=[predict]", f"predict.inputs=[{tomogram}]", f"predict.out={tmp_path / 'out'}",
        f"runs_dir={tmp_path / 'runs'}", "predict.format=nifti")  # fmt: skip
    masks = cytovox.load_model("organelle").predict(cytovox.read(tomogram))
    assert list(masks) == ["membrane", "nucleus", "nucleolus", "lipid"]
    assert masks["membrane"].any()
    assert masks["nucleus"].any()
    for name, mask in masks.items():
        (path,) = (tmp_path / "out").glob(f"*_{name}.nii.gz")
        np.testing.assert_array_equal(read_mask(path).labels_ZYX != 0, mask)


@pytest.mark.parametrize("method", ["offsets", "network", "watershed"])
def test_a_segmentation_is_that_of_the_analyze_command(tomogram: Path, tmp_path: Path, method: str):
    run("analyze", f"inputs=[{tomogram}]", f"out={tmp_path / 'out'}", f"method={method}", "uncertainty=false",
        "meshes=none")  # fmt: skip
    found = cytovox.segment(cytovox.read(tomogram), method=method)
    organelles = read_volume(tmp_path / "out" / "predictions" / "field_organelles.ome.tif")
    for number, name in enumerate(organelles.channels):
        np.testing.assert_array_equal(organelles.frame(0, number) != 0, found.masks[name])
    cells = read_volume(tmp_path / "out" / "predictions" / "field_cells.ome.tif").frame()
    assert found.cells_ZYX.max() > 1
    np.testing.assert_array_equal(cells, found.cells_ZYX)
    table = pd.read_parquet(tmp_path / "out" / "tables" / "cells.parquet")
    shared = [column for column in found.table if column in table]
    assert {"cell", "volume_um3", "mean_ri", "dry_mass_pg", "flags", "contrast_ri", "medium_from"} <= set(shared)
    # an analysis adds the weights that the text refers to, unless it refers to all
    table["outside_training"] = table["outside_training"].fillna("").str.removeprefix("organelles: ")
    pd.testing.assert_frame_equal(table[shared], found.table[shared], check_dtype=False, check_exact=True)


def test_the_readme_example_needs_neither_lightning_nor_omegaconf_nor_wandb(tomogram: Path, tmp_path: Path):
    script = f"""
        import cytovox
        volume = cytovox.read({str(tomogram)!r})
        masks = cytovox.load_model("organelle").predict(volume)
        cells = cytovox.find_cells(masks)
        table = cytovox.measure(volume, masks, cells)
        assert table["cell"].max() > 1
        import sys
        print([name for name in ("pytorch_lightning", "lightning", "omegaconf", "wandb") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(Path(cytovox.__file__).parents[1]), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_the_package_loads_its_parts_at_their_first_use():
    script = "import cytovox, sys; print([n for n in ('torch', 'numpy', 'pandas') if n in sys.modules], dir(cytovox))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                           env={"PYTHONPATH": str(Path(cytovox.__file__).parents[1])}).stdout  # fmt: skip
    assert found.startswith("[] ")
    assert all(name in found for name in cytovox.__all__)
    assert all(hasattr(cytovox, name) for name in cytovox.__all__)


@pytest.mark.parametrize("module", [cytovox, api, model_loading], ids=lambda module: module.__name__)
def test_the_examples_of_the_docstrings_run(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cytovox.QualityWarning)
        failed, tried = doctest.testmod(module)
    assert tried > 0
    assert failed == 0


def test_the_examples_of_the_docs_run():
    page = Path(cytovox.__file__).parents[1] / "docs" / "python.md"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cytovox.QualityWarning)
        failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried > 10
    assert failed == 0


def test_every_public_function_has_an_example():
    functions = ("find_cells", "measure", "save", "segment", "simulate", "track", "load_model")
    assert all(">>> " in (getattr(cytovox, name).__doc__ or "") for name in functions)


def test_a_scaled_index_is_converted_and_noted():
    ri = cytovox.simulate("HeLa", seed=7, shape=(16, 32, 32)).volume.frame()
    scaled = cytovox.Volume(np.rint(1e4 * ri).astype(np.uint16), SPACING)
    np.testing.assert_allclose(scaled.frame(), ri, atol=1e-4)
    assert scaled.notes == ("volume: the values were divided by 10000: taken for a scaled refractive index",)
    assert cytovox.Volume(ri, SPACING).notes == ()


def test_arrays_of_one_frame_several_frames_and_several_channels():
    assert cytovox.Volume(np.full((2, 3, 4), 1.34), SPACING).shape == (1, 1, 2, 3, 4)
    assert cytovox.Volume(np.full((5, 2, 3, 4), 1.34), SPACING).shape == (5, 1, 2, 3, 4)
    both = cytovox.Volume(np.full((5, 2, 2, 3, 4), 1.34), SPACING)
    assert (both.shape, both.channels) == ((5, 2, 2, 3, 4), ("CH0", "CH1"))


def model_of(name: str):
    return cytovox.load_model(name, device="cpu")


RI = np.full((8, 8, 8), 1.34, np.float32)
NAN = RI.copy()
NAN[1, 2, 3] = np.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cytovox.Volume(RI), "voxel size missing: give spacing_um"),
        (lambda: cytovox.Volume(RI, (0.1, 0.0, 0.1)), "expected three positive lengths"),
        (lambda: cytovox.Volume(RI[0], SPACING), r"shape \(8, 8\): expected numbers \(z, y, x\)"),
        (lambda: cytovox.Volume(RI > 1, SPACING), "an array of bool"),
        (lambda: model_of("organelle").predict(RI), "expected a cytovox.Volume, got ndarray"),
        (lambda: model_of("organelle").predict(cytovox.Volume(RI - 1.3, SPACING)), "no refractive index"),
        (lambda: model_of("organelle").predict(cytovox.Volume(100 * RI, SPACING)), "no refractive index"),
        (lambda: model_of("organelle").predict(cytovox.Volume(NAN, SPACING)), "NaN or infinite"),
        (lambda: model_of("organelle").predict(cytovox.Volume(RI, SPACING), 1), "no frame 1"),
        (lambda: cytovox.load_model("no_such_weights"), "no such checkpoint"),
        (lambda: cytovox.load_model("cells_offsets", task="organelle"), "a checkpoint of task cells"),
        (lambda: cytovox.load_model(["organelle", "cells_offsets"]), "weights of one task"),
        (lambda: cytovox.load_model([]), "no weights named"),
        (lambda: cytovox.load_model("shape_rbc", threshold=0.5), "ShapeModel has no option threshold"),
        (lambda: cytovox.load_model("organelle", device="tpu"), "expected auto, cpu, cuda"),
        (lambda: cytovox.load_model("organelle", device="cuda:99"), "CUDA devices; choose auto or cpu"),
        (lambda: cytovox.find_cells({"membrane": RI > 1}), "no mask of nucleus"),
        (lambda: cytovox.find_cells({"membrane": RI > 1, "nucleus": RI > 1}), "voxel size missing"),
        (lambda: cytovox.find_cells({"membrane": RI > 1, "nucleus": RI[1:] > 1}, spacing_um=SPACING), "one shape"),
        (lambda: cytovox.find_cells({"membrane": RI > 1, "nucleus": RI > 1}, "votes", spacing_um=SPACING), "votes"),
        (
            lambda: cytovox.find_cells(
                {"membrane": RI > 1, "nucleus": RI > 1}, "network", spacing_um=SPACING, model=model_of("cells_offsets")
            ),
            "the model's method is offsets, not network",
        ),
        (lambda: cytovox.measure(cytovox.Volume(RI, SPACING), {}, RI > 1), "expected integer labels"),
        (lambda: cytovox.measure(cytovox.Volume(RI, SPACING), {}, np.ones((2, 2, 2), int)), "one shape"),
        (lambda: cytovox.track(pd.DataFrame({"frame": [0]})), "no column cell"),
        (lambda: cytovox.save("cells.png", np.ones((2, 2, 2), int), cytovox.Volume(RI, SPACING)), "ends in .ome.tif"),
        (lambda: cytovox.save("cells.ome.tif", np.ones((2, 2, 2), int)), "voxel size missing"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::cytovox.QualityWarning")
def test_bad_input_is_one_line(call, message):
    with pytest.raises(cytovox.InputError, match=message) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_without_weights_and_weights_of_a_run(tmp_path: Path):
    with pytest.raises(cytovox.InputError, match=r"no checkpoints/best\.ckpt"):
        cytovox.load_model(tmp_path)
    copied = tmp_path / "mine.safetensors"
    copied.write_bytes(shipped_weights()["organelle"].read_bytes())
    assert cytovox.load_model(copied).organelles == model_of("organelle").organelles


def test_cells_without_a_nucleus_are_reported_and_flagged():
    truth = cytovox.simulate("HeLa", seed=7, shape=(16, 32, 32))
    masks = {**truth.masks, "nucleus": np.zeros_like(truth.masks["nucleus"])}
    with pytest.warns(cytovox.QualityWarning, match="no nucleus"):
        assert not cytovox.find_cells(masks, "watershed", volume=truth.volume).any()
    table = cytovox.measure(truth.volume, masks, truth.cells_ZYX)
    assert table.loc[table["compartment"] == "cell", "flags"].str.contains("no_nucleus").all()


def test_a_field_outside_the_training_data_of_the_cells_weights_is_reported():
    truth = cytovox.simulate("HeLa", seed=7, shape=(16, 24, 24), spacing_um=(1.2, 0.3, 0.3))
    with pytest.warns(cytovox.QualityWarning, match="outside the training data of the cells' weights: voxels of 1.2"):
        cytovox.find_cells(truth.masks, volume=truth.volume, device="cpu")


def test_the_medium_of_the_paper_is_taken_with_a_warning():
    truth = cytovox.simulate("HeLa", seed=7, shape=(16, 32, 32))
    unknown = cytovox.Volume(truth.volume.frame(), truth.volume.spacing_um)
    with pytest.warns(cytovox.QualityWarning, match="give medium_ri"):
        table = cytovox.measure(unknown, truth.masks, truth.cells_ZYX)
    assert set(table["medium_from"]) == {"paper"}
    given = cytovox.measure(unknown, truth.masks, truth.cells_ZYX, medium_ri=truth.volume.medium_ri)
    known = cytovox.measure(truth.volume, truth.masks, truth.cells_ZYX)
    pd.testing.assert_series_equal(given["dry_mass_pg"], known["dry_mass_pg"])


def test_tracks_of_two_frames_follow_the_cells():
    truth = cytovox.simulate("HeLa", seed=7, shape=SHAPE, spacing_um=SPACING)
    first = cytovox.measure(truth.volume, truth.masks, truth.cells_ZYX)
    relabelled = np.where(truth.cells_ZYX > 0, truth.cells_ZYX.max() + 1 - truth.cells_ZYX, 0)
    second = cytovox.measure(truth.volume, truth.masks, relabelled).assign(frame=1)
    tracked = cytovox.track([first, second])
    whole = tracked[(tracked["compartment"] == "cell") & (tracked["cell"] > 0)]
    both = whole.pivot(index="track", columns="frame", values="cell")
    assert len(both) == len(np.unique(truth.cells_ZYX)) - 1
    assert (both[0] + both[1] == truth.cells_ZYX.max() + 1).all()
    assert tracked.loc[tracked["cell"] == 0, "track"].isna().all()
    with pytest.raises(cytovox.InputError, match="twice in frame 0"):
        cytovox.track([first, first])


def test_arguments_that_contradict_predicted_masks_are_refused():
    volume = cytovox.simulate("HeLa", seed=7, shape=(16, 32, 32)).volume
    masks = model_of("organelle").predict(volume)
    cells = np.zeros(volume.shape[2:], int)
    assert "membrane" in repr(masks)
    with pytest.raises(cytovox.InputError, match="belong to a volume already"):
        cytovox.find_cells(masks, "watershed", spacing_um=SPACING)
    with pytest.raises(cytovox.InputError, match="the masks are of frame 0"):
        cytovox.measure(volume, masks, cells, frame=1)
    with pytest.raises(cytovox.InputError, match="give rule to load_model"):
        cytovox.find_cells(masks, "offsets", model=model_of("cells_offsets"), rule=SeedRule(1.0))
    with pytest.raises(KeyError, match="mitochondria: not predicted; there are membrane"):
        masks["mitochondria"]


@pytest.mark.parametrize("ending", [".ome.tif", ".ome.zarr", ".nii.gz"])
def test_saved_labels_and_masks_come_back_with_their_voxel_size(tmp_path: Path, ending: str):
    truth = cytovox.simulate("HeLa", seed=7, shape=(16, 24, 32), spacing_um=(0.5, 0.25, 0.3))
    path = cytovox.save(tmp_path / f"cells{ending}", truth.cells_ZYX, like=truth.volume)
    mask = read_mask(path)
    np.testing.assert_array_equal(mask.labels_ZYX, truth.cells_ZYX)
    assert mask.spacing_um == pytest.approx((0.5, 0.25, 0.3))
    if ending != ".nii.gz":
        masks = read_volume(cytovox.save(tmp_path / f"masks{ending}", truth.masks, like=truth.volume))
        assert masks.channels == tuple(truth.masks)
        np.testing.assert_array_equal(masks.frame(0, "nucleus") != 0, truth.masks["nucleus"])
    else:
        with pytest.raises(cytovox.InputError, match="one channel"):
            cytovox.save(tmp_path / f"masks{ending}", truth.masks, like=truth.volume)


@pytest.mark.parametrize("ending", [".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize("times_s", [(0.0, 60.0, 180.5), (0.0, 0.1, 0.2), None])
def test_saved_time_lapses_come_back_with_their_times(tmp_path: Path, ending: str, times_s: tuple[float, ...] | None):
    ri = np.random.default_rng(0).uniform(1.33, 1.4, (3, 4, 5, 6)).astype(np.float32)
    volume = cytovox.Volume(ri, (0.5, 0.25, 0.3), times_s=times_s)
    output = cytovox.read(cytovox.save(tmp_path / f"lapse{ending}", volume))
    assert output.times_s == times_s
    for t in range(3):
        np.testing.assert_array_equal(output.frame(t), ri[t])
    # the frame of a single array is not known, so that it has no time
    labels = cytovox.save(tmp_path / f"cells{ending}", np.ones((4, 5, 6), np.uint8), like=volume)
    assert cytovox.read(labels).times_s is None


def test_an_image_too_long_for_nifti_names_the_formats_that_can_store_it(tmp_path: Path):
    labels = np.zeros((1, 1, 40000), np.uint8)
    like = cytovox.Volume(np.full((1, 1, 40000), 1.35, np.float32), SPACING)
    with pytest.raises(cytovox.InputError, match="stores at most 32767 along an axis; write ome-tiff or ome-zarr"):
        cytovox.save(tmp_path / "a.nii.gz", labels, like=like)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_saved_tables_come_back(tmp_path: Path, ending: str):
    table = pd.DataFrame({"cell": [1, 2], "volume_um3": [1.5, 2.25]})
    path = cytovox.save(tmp_path / f"table{ending}", table)
    pd.testing.assert_frame_equal((pd.read_csv if ending == ".csv" else pd.read_parquet)(path), table)
    with pytest.raises(cytovox.InputError, match=r"\.csv or \.parquet"):
        cytovox.save(tmp_path / "table.xlsx", table)


def test_a_given_model_and_labelled_nuclei_are_used():
    truth = cytovox.simulate("HeLa", seed=7, shape=SHAPE, spacing_um=SPACING)
    labelled = {"membrane": truth.masks["membrane"], "nucleus": np.where(truth.masks["nucleus"], truth.cells_ZYX, 0)}
    cells = cytovox.find_cells(labelled, volume=truth.volume, model=model_of("cells_offsets"))
    assert set(np.unique(cells)) == set(np.unique(labelled["nucleus"]))
