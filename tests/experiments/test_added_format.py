"""A command reads a file format that an installed package adds."""

import csv
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from cytovox.io import LabelVolume, StoredSpacing
from cytovox.io import formats as registry
from cytovox.io.file_format import Format

SPACING = (1.0, 0.5, 0.5)


def _volume(path, spacing_um, spacing_from, series):
    raise AssertionError("masks are opened as labels")


def _labels(path, series):
    with np.load(path) as file:
        labels = file["labels"]
    return LabelVolume(
        path, (1, 1, *labels.shape), SPACING, None, lambda t, c: labels, stored_spacing=StoredSpacing.of(SPACING)
    )


NUMPY = Format("numpy", (".npz",), _volume, _labels)


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
        f"out={tmp_path / 'out'}",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    with next((tmp_path / "out").rglob("cells.csv")).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["compartment"] == "cell"]
    assert [float(row["volume_um3"]) for row in rows] == pytest.approx([membrane.sum() * np.prod(SPACING)])
