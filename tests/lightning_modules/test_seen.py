"""Weights record the content of their training data, independent of file names and formats."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cytovox.errors import InputError
from cytovox.models.metadata import SHAPRMetadata, read_checkpoint
from cytovox.networks.weights import shipped_weights
from cytovox.statistics.feature_tables import Fold, read_features
from datamodules.fingerprints import DIGITS, cell_fingerprint, volume_fingerprints
from datamodules.shape.cases import ShapeFiles, read_cell
from datamodules.shape.config import ShapeFolderData
from datamodules.shape.datamodule import ShapeDataModule
from datamodules.shape.folder import find_shapes, read_shapes
from lightning_modules.seen import begun_from, counted_seen, resumed_from, seen_by_all, seen_note, trained_on

NEW = SHAPRMetadata(task="shapr", model={})


def cell(seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] - 31.5
    return rng.integers(0, 256, (64, 64), dtype=np.uint8), np.hypot(y, x) < 12 + seed


def seen_in_training(metadata, *fingerprints):
    return counted_seen(metadata, fingerprints)[0]


def test_the_fingerprint_of_a_cell_is_the_same_in_every_format_and_data_type(tmp_path: Path):
    image, mask = cell()
    tifffile.imwrite(tmp_path / "a.tif", image)
    Image.fromarray(image).save(tmp_path / "b.png")
    np.save(tmp_path / "c.npy", image.astype(np.float32) / 255)
    tifffile.imwrite(tmp_path / "d.tif", image.astype(np.uint16) * 257)
    np.save(tmp_path / "mask.npy", mask)
    tifffile.imwrite(tmp_path / "mask.tif", mask.astype(np.uint8) * 255)
    found = {
        read_cell(ShapeFiles("cell", "", tmp_path / name, tmp_path / drawn)).fingerprint
        for name in ("a.tif", "b.png", "c.npy", "d.tif")
        for drawn in ("mask.npy", "mask.tif")
    }
    assert found == {cell_fingerprint(image / 255, mask)}
    assert len(found.pop()) == DIGITS


def test_the_fingerprint_depends_on_image_mask_and_position():
    image, mask = cell()
    image = image / 255
    own = cell_fingerprint(image, mask)
    grey = image.copy()
    grey[5, 5] = 1 - grey[5, 5]
    others = [(grey, mask), (image, np.roll(mask, 1, 0)), (image[::-1], mask), (image, ~mask)]
    assert own not in {cell_fingerprint(*other) for other in others}


def test_the_fingerprint_of_a_volume_depends_on_its_content_and_on_all_files_of_a_folder(tmp_path: Path):
    (tmp_path / "a.tif").write_bytes(b"one")
    (tmp_path / "b.tif").write_bytes(b"one")
    (tmp_path / "c.zarr" / "0").mkdir(parents=True)
    (tmp_path / "c.zarr" / "0" / "x").write_bytes(b"one")
    cache = tmp_path / "cache"
    a, b, c = volume_fingerprints([tmp_path / name for name in ("a.tif", "b.tif", "c.zarr")], cache)
    assert a == b != c
    (tmp_path / "a.tif").write_bytes(b"two!")
    (tmp_path / "c.zarr" / "0" / "x").write_bytes(b"two!")
    assert not {a, c} & set(volume_fingerprints([tmp_path / "a.tif", tmp_path / "c.zarr"], cache))


def test_training_adds_its_data_to_those_of_the_weights():
    fresh = begun_from(NEW, None)
    first = trained_on(fresh, ["b", "a"])
    assert (first.seen, first.seen_all) == (["a", "b"], True)
    assert seen_in_training(first, "a", "c") == ["yes", "no"]
    tuned = trained_on(begun_from(NEW, first), ["c"])
    assert tuned.seen == ["a", "b", "c"]
    # weights from before fingerprints were stored: their training data remain unknown
    old = trained_on(begun_from(NEW, NEW), ["c"])
    assert (old.seen, old.seen_all) == (["c"], False)
    assert seen_in_training(old, "a", "c") == ["unknown", "yes"]
    assert resumed_from(first, ["z"], True).seen == ["a", "b", "z"]
    assert not resumed_from(first, [], False).seen_all
    both = seen_by_all(first, [tuned, old])
    assert (both.seen, both.seen_all) == (["a", "b", "c"], False)
    assert first.seen == ["a", "b"]


def test_the_note_counts_items_seen_and_possibly_seen():
    first = trained_on(begun_from(NEW, None), ["a"])
    assert seen_note(counted_seen(first, ["b"])[1], "cells", "x") is None
    assert seen_note(counted_seen(first, ["a", "b"])[1], "cells", "so what") == (
        "note: 1 of 2 cells were seen in training by these weights: so what"
    )
    doubtful = dataclasses.replace(first, seen_all=False)
    assert "of 1 of 2 cells it is not known" in str(seen_note(counted_seen(doubtful, ["a", "b"])[1], "cells", "x"))


TABLE = "cell,unit,seen_in_training,area_px2,volume_voxels\nx,px,{},1,2\ny,px,no,3,4\nz,px,no,5,6\n"


def test_features_of_new_cells_are_read(tmp_path: Path):
    path = tmp_path / "predicted_features.csv"
    path.write_text(TABLE.format("no"))
    table = read_features(path)
    assert (table.cells, table.names) == (("x", "y", "z"), ("area_px2", "volume_voxels"))
    assert table.values_NF.tolist() == [[1, 2], [3, 4], [5, 6]]
    Fold(table.of("xy"), table.of("z"))


@pytest.mark.parametrize(("seen", "expected"), [("yes", "1 of 3 cells were seen"), ("unknown", "and 1 may have been")])
def test_features_of_training_cells_are_refused_unless_allowed(tmp_path: Path, seen, expected):
    path = tmp_path / "predicted_features.csv"
    path.write_text(TABLE.format(seen))
    with pytest.raises(InputError, match=rf"{expected}.*\(first: x\).*allow_seen=True") as caught:
        read_features(path)
    assert "\n" not in str(caught.value)
    assert read_features(path, allow_seen=True).cells == ("x", "y", "z")


@pytest.mark.parametrize(
    "text",
    ["", "cell,unit,area_px2\nx,px,1\n", TABLE.format("no") + "w,px,no,7\n", TABLE.format("no") + "w,px,no,a,7\n"],
)
def test_another_table_is_refused_as_features(tmp_path: Path, text):
    path = tmp_path / "predicted_features.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="predict again"):
        read_features(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_features(tmp_path / "none.csv")


@pytest.mark.real_data
@pytest.mark.skipif("CYTOVOX_DATA" not in os.environ, reason="CYTOVOX_DATA names no folder of real data")
def test_shipped_weights_record_exactly_their_training_cells(tmp_path: Path):
    root = Path(os.environ["CYTOVOX_DATA"])
    cells = {
        name: read_shapes(find_shapes(ShapeFolderData(root=str(root / name), folds=0))) for name in ("rbc", "nuclei")
    }
    for name, other in (("rbc", "nuclei"), ("nuclei", "rbc")):
        metadata = read_checkpoint(shipped_weights()[f"shape_{name}"], "shape", "x").metadata
        own = [cell.fingerprint for cell in cells[name]]
        assert set(seen_in_training(metadata, *own)) == {"yes"}
        assert metadata.seen == sorted(own)
        assert set(seen_in_training(metadata, *(cell.fingerprint for cell in cells[other]))) == {"no"}
    # a copy in another format is the same cell, another crop of it is not
    first = cells["rbc"][0]
    np.save(tmp_path / "image.npy", first.image_YX)
    np.save(tmp_path / "mask.npy", first.mask_YX)
    copy = read_cell(ShapeFiles("copy", "", tmp_path / "image.npy", tmp_path / "mask.npy"))
    assert copy.fingerprint == first.fingerprint
    assert cell_fingerprint(np.roll(first.image_YX, 1, 0), np.roll(first.mask_YX, 1, 0)) != first.fingerprint


@pytest.mark.real_data
@pytest.mark.skipif("CYTOVOX_DATA" not in os.environ, reason="CYTOVOX_DATA names no folder of real data")
def test_weights_of_a_fold_record_its_training_cells_and_not_its_test_cells():
    config = ShapeFolderData(root=str(Path(os.environ["CYTOVOX_DATA"]) / "rbc"), folds=5, fold=2, val=0.1)
    data = ShapeDataModule(config, seed=1)
    metadata = trained_on(begun_from(NEW, None), data.fingerprints(("train", "val")))
    assert set(seen_in_training(metadata, *data.fingerprints(("train", "val")))) == {"yes"}
    tested = data.fingerprints(("test",))
    assert len(tested) in (20, 21)
    assert set(seen_in_training(metadata, *tested)) == {"no"}


@pytest.mark.parametrize("name", sorted(shipped_weights()))
def test_shipped_weights_record_their_training_data(name):
    metadata = read_checkpoint(shipped_weights()[name], None, "x").metadata
    assert metadata.seen_all
    assert len(metadata.seen) == {"organelle": 845, "shape_rbc": 101, "shape_nuclei": 58}.get(name, 0)
    assert all(len(one) == DIGITS for one in metadata.seen)
