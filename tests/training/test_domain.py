"""Ranges of the training inputs of weights, and inputs outside of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cytovox.io import ArrayReader, write_nifti
from cytovox.models import domain as model_domain
from cytovox.models.domain import UNKNOWN, cell_statistics, frame_outside, outside, volume_statistics
from cytovox.models.metadata import read_checkpoint
from cytovox.networks.weights import shipped_weights
from cytovox.simulation.tomogram import Options, simulate
from datamodules.cases import FolderCase
from training import domain
from training.domain import describe

SPACING = (0.5, 0.25, 0.25)


def reader(ri_ZYX: np.ndarray):
    return ArrayReader(ri_ZYX).read


def test_percentiles_are_those_of_evenly_spaced_planes():
    ri = np.tile(np.linspace(1.33, 1.43, 101, dtype=np.float32), (20, 3, 1))
    found = volume_statistics(reader(ri), ri.shape)
    assert list(found) == ["ri_p1", "ri_p99.9"]
    assert list(found.values()) == pytest.approx([1.331, 1.43], abs=2e-4)
    seen = []
    volume_statistics(lambda box: seen.append(box[0].start) or ri[box], ri.shape)
    assert seen == [0, 2, 5, 7, 10, 12, 14, 17, 19]
    assert volume_statistics(reader(ri[:1]), ri[:1].shape) == found


def test_large_frames_are_subsampled_with_similar_percentiles(monkeypatch):
    ri = np.random.default_rng(0).normal(1.35, 0.01, (9, 200, 200)).astype(np.float32)
    whole = volume_statistics(reader(ri), ri.shape)
    monkeypatch.setattr(model_domain, "VOXELS", 40_000)
    thinned = volume_statistics(reader(ri), ri.shape)
    assert whole != thinned
    assert thinned["ri_p1"] == pytest.approx(whole["ri_p1"], abs=1e-3)


def cell(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return image.astype(np.float32), mask


def test_statistics_of_a_disc_and_of_an_ellipse():
    y, x = np.mgrid[:64, :64] - 31.5
    disc = cell_statistics(*cell(np.full((64, 64), 0.5), np.hypot(y, x) <= 20))
    assert disc["area_px"] == pytest.approx(np.pi * 400, rel=0.01)
    assert disc["axis_ratio"] == pytest.approx(1, abs=0.01)
    assert disc["solidity"] > 0.97
    assert (disc["mean_intensity"], disc["variation"]) == (0.5, 0)
    ellipse = cell_statistics(*cell(np.where(x > 0, 0.75, 0.25), np.hypot(y / 10, x / 20) <= 1))
    assert ellipse["axis_ratio"] == pytest.approx(0.5, abs=0.02)
    assert ellipse["variation"] == pytest.approx(0.5, abs=1e-3)
    assert cell_statistics(*cell(np.ones((64, 64)), np.ones((64, 64), bool)))["area_px"] == 4096


def case(folder: Path, name: str, low: float, spacing: tuple[float, float, float]) -> FolderCase:
    ri = np.linspace(low, low + 0.05, 4 * 6 * 8, dtype=np.float32).reshape(4, 6, 8)
    write_nifti(folder / f"{name}.nii.gz", ri, spacing)
    return FolderCase(name, folder / f"{name}.nii.gz", {}, None, {}, ("nucleus",), name, name)


def test_ranges_span_the_volumes_that_are_read(tmp_path, monkeypatch):
    cases = [case(tmp_path, f"c{k}", 1.33 + 0.001 * k, (0.5, 0.25, 0.25 + 0.01 * k)) for k in range(5)]
    found = describe(cases)
    assert (found["inputs"], found["looked_at"]) == (5, 5)
    assert np.allclose(found["spacing_um"], [[0.5, 0.25, 0.25], [0.5, 0.25, 0.29]])
    low, high = found["statistics"]["ri_p1"]
    assert (low, high) == (pytest.approx(1.3305, abs=1e-4), pytest.approx(1.3345, abs=1e-4))
    monkeypatch.setattr(domain, "VOLUMES", 2)
    assert describe(cases)["looked_at"] == 2
    assert describe(cases)["statistics"] == found["statistics"]  # the first and the last
    assert describe([]) == {}


TRAINED = {"inputs": 9, "looked_at": 9, "spacing_um": [[0.3, 0.2, 0.2], [0.4, 0.2, 0.2]],
           "statistics": {"ri_p1": [1.335, 1.339], "ri_p99.9": [1.38, 1.42]}}  # fmt: skip


@pytest.mark.parametrize(
    ("statistics", "spacing", "expected"),
    [
        ({"ri_p1": 1.335, "ri_p99.9": 1.42}, (0.3, 0.2, 0.2), []),
        ({"ri_p1": 1.3331, "ri_p99.9": 1.4299}, (0.3, 0.2, 0.2), []),  # 0.002, and a quarter of the range
        ({"ri_p1": 1.3329}, None, ["ri_p1 1.333 (trained on 1.335 to 1.339)"]),
        ({"ri_p99.9": 1.4301}, None, ["ri_p99.9 1.43 (trained on 1.38 to 1.42)"]),
        ({"other": 9.0}, None, []),
        ({}, (0.49, 0.25, 0.25), []),
        ({}, (0.51, 0.2, 0.2), ["voxels of 0.51 x 0.2 x 0.2 um, coarser than trained on (0.3-0.4 x 0.2 x 0.2)"]),
        ({}, (0.3, 0.2, 0.26), ["voxels of 0.3 x 0.2 x 0.26 um, coarser than trained on (0.3-0.4 x 0.2 x 0.2)"]),
        ({}, (0.3, 0.051, 0.051), []),
        ({}, (0.3, 0.049, 0.2), ["voxels of 0.3 x 0.049 x 0.2 um, finer than trained on (0.3-0.4 x 0.2 x 0.2)"]),
    ],
)
def test_values_outside_are_reported_with_the_trained_range(statistics, spacing, expected):
    assert outside(TRAINED, statistics, spacing) == expected


def test_weights_without_ranges_are_reported_as_unknown():
    assert outside({}, {"ri_p1": 1.33}, SPACING) == [UNKNOWN]


@pytest.mark.parametrize("name", sorted(shipped_weights()))
def test_shipped_weights_have_ranges(name):
    path = shipped_weights()[name]
    trained_on = read_checkpoint(path, None, "x").metadata.trained_on
    if (beside := path.with_suffix(".json")).is_file():  # weights whose header has no ranges
        assert trained_on == json.loads(beside.read_text())["trained_on"]
    assert trained_on["looked_at"] >= 20
    assert trained_on["inputs"] >= trained_on["looked_at"]
    assert ("spacing_um" in trained_on) == (not name.startswith("shape"))
    for low, high in trained_on["statistics"].values():
        assert low < high


def test_other_media_and_coarser_voxels_are_outside_the_shipped_ranges():
    trained_on = read_checkpoint(shipped_weights()["organelle"], None, "x").metadata.trained_on
    output = {}
    for name, spacing, medium in (("usual", 0.3, 1.337), ("coarse", 0.6, 1.337), ("oil", 0.3, 1.37)):
        tomogram = simulate("HeLa", 555, (32, 64, 64), (spacing,) * 3, Options(medium_ri=medium))
        statistics = volume_statistics(reader(tomogram.ri_ZYX), tomogram.ri_ZYX.shape)
        output[name] = outside(trained_on, statistics, (spacing,) * 3)
    assert output["usual"] == []
    assert any("coarser" in text for text in output["coarse"])
    assert any(text.startswith("ri_p1 ") for text in output["oil"])


def test_an_ensemble_reports_what_is_outside_for_any_member():
    ri = np.full((4, 6, 8), 1.36, np.float32)

    class Opened:
        shape, spacing_um = (1, 1, 4, 6, 8), (0.3, 0.2, 0.2)

    inner = {**TRAINED, "statistics": {"ri_p1": [1.35, 1.37]}}
    assert frame_outside([inner], reader(ri), Opened()) == ""
    assert frame_outside([inner, inner], reader(ri), Opened()) == ""
    assert frame_outside([inner, TRAINED], reader(ri), Opened()).startswith("ri_p1 1.36 (trained on 1.335 to 1.339)")
