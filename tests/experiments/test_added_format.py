"""Commands and functions read and write a file format that an installed package adds."""

import csv
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import cytovox
from cytovox.errors import InputError
from cytovox.io import LabelVolume, StoredSpacing, read_mask, write_ometiff
from cytovox.io import formats as registry
from cytovox.io.file_format import Format, ImageWriter
from experiments.config import load_config
from training.prediction import MaskWriter
from training.rundir import RunFolder

SPACING = (1.0, 0.5, 0.5)


class IdentityInferer:
    """Returns the refractive index as the probability of each of two organelles."""

    def box_shape(self, shape_ZYX, spacing_um):
        return shape_ZYX

    def boxes(self, reader, spacing_um):
        box = tuple(slice(0, n) for n in reader.shape)
        yield box, np.stack([reader.read(box)] * 2)


def _volume(path, spacing_um, spacing_from, series):
    raise AssertionError("masks are opened as labels")


def _labels(path, series):
    with np.load(path) as file:
        labels = file["labels"]
    return LabelVolume(
        path, (1, 1, *labels.shape), SPACING, None, lambda t, c: labels, stored_spacing=StoredSpacing.of(SPACING)
    )


def _write(path, slabs, shape, dtype, spacing_um, channels, times_s, origin_um):
    labels = np.concatenate(list(slabs)).astype(dtype)
    assert labels.shape == tuple(shape[2:])
    np.savez(path, labels=labels, spacing_um=spacing_um, channels=channels)
    return path


NUMPY = Format("numpy", (".npz",), _volume, _labels, writer=ImageWriter("numpy", (".npz",), _write, single=True))


@pytest.fixture
def added(monkeypatch):
    entry = EntryPoint("numpy", f"{__name__}:NUMPY", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == registry.GROUP else [])
    registry.formats.cache_clear()
    yield
    monkeypatch.undo()
    registry.formats.cache_clear()


def test_cells_from_masks_reads_an_added_format(tmp_path, added, cli):
    membrane, nucleus = np.zeros((12, 24, 24), np.uint8), np.zeros((12, 24, 24), np.uint8)
    membrane[2:10, 3:20, 3:20] = 1
    nucleus[4:8, 7:15, 7:15] = 1
    np.savez(tmp_path / "membrane.npz", labels=membrane)
    np.savez(tmp_path / "nucleus.npz", labels=nucleus)
    answer = cli(
        "cells_from_masks", f"membrane={tmp_path}/membrane.npz", f"nucleus={tmp_path}/nucleus.npz", "method=watershed",
        f"out={tmp_path / 'out'}", f"runs_dir={tmp_path / 'runs'}",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    with next((tmp_path / "out").rglob("cells.csv")).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["compartment"] == "cell"]
    assert [float(row["volume_um3"]) for row in rows] == pytest.approx([membrane.sum() * np.prod(SPACING)])


def test_save_writes_an_added_format(tmp_path, added):
    labels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    path = cytovox.save(tmp_path / "cells.npz", labels, cytovox.Volume(np.full((2, 3, 4), 1.34), SPACING))
    np.testing.assert_array_equal(read_mask(path).labels_ZYX, labels)
    np.testing.assert_array_equal(np.load(path)["spacing_um"], SPACING)


def test_predict_writes_masks_in_an_added_format(tmp_path, added):
    assert load_config("organelle_demo", ["predict.format=numpy"]).predict.format == "numpy"
    ri = np.random.default_rng(0).uniform(1.34, 1.40, (2, 4, 6, 6)).astype(np.float32)
    path = write_ometiff(tmp_path / "cell.ome.tif", ri[:, None], SPACING, ["RI"], [0.0, 60.0])
    folder = RunFolder(tmp_path / "run")
    folder.require_writable()
    writer = MaskWriter(folder, ("nucleus", "lipid"), {path: "cell"}, threshold=1.37, file_format="numpy")
    writer(path, IdentityInferer())
    assert writer.errors == []
    for t in range(2):
        for organelle in ("nucleus", "lipid"):
            mask = read_mask(folder.predictions / f"cell_t{t:03d}_{organelle}.npz")
            np.testing.assert_array_equal(mask.labels_ZYX, ri[t] >= np.float32(1.37))


@pytest.mark.parametrize(("given", "near"), [("nifty", "nifti"), ("numpi", "numpy")])
def test_an_unknown_output_format_is_refused(added, given, near):
    expected = f"predict.format: expected one of ome-tiff, nifti, ome-zarr, numpy, got '{given}'; did you mean {near}?"
    with pytest.raises(InputError) as raised:
        load_config("organelle_demo", [f"predict.format={given}"])
    assert expected in str(raised.value)
