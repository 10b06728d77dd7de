"""Reading of cells from folders; all errors are reported together."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cytovox.errors import InputError
from cytovox.preprocess.cell_images import cell_mask, cell_object, grey_image
from datamodules.shape.cases import ShapeFiles, read_cell
from datamodules.shape.config import ShapeFolderData, ShapeSimulatorData, shape_data_errors
from datamodules.shape.files import read_array
from datamodules.shape.folder import find_inputs, find_shapes, read_shapes, shape_notes

Save = Callable[..., Path]


def ball(side: int = 64, radius: float = 20) -> np.ndarray:
    z, y, x = np.ogrid[:side, :side, :side]
    return (z - side / 2) ** 2 + (y - side / 2) ** 2 + (x - side / 2) ** 2 < (radius * side / 64) ** 2


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(name: str, values: np.ndarray) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.fromarray(values).save(path)
        elif path.suffix == ".npy":
            np.save(path, values)
        else:
            tifffile.imwrite(path, values)
        return path

    return write


def write_cell(save: Save, name: str, folder: str = "", suffix: str = ".tif") -> None:
    obj = ball().astype(np.uint8) * 255
    save(f"{folder}image/{name}{suffix}", (50 + obj[32] // 4).astype(np.uint8))
    save(f"{folder}mask/{name}{suffix}", obj[32])
    save(f"{folder}obj/{name}.tif", obj)


def reader(check: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda path, notes=None: check(read_array(path), path, notes)


read_image, read_mask, read_object = map(reader, (grey_image, cell_mask, cell_object))


def one_line(read: Callable[[Path], object], path: Path, text: str) -> None:
    with pytest.raises(InputError, match=text) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".npy"])
def test_a_cell_is_the_same_in_every_file_format(save: Save, tmp_path: Path, suffix: str) -> None:
    write_cell(save, "a_1", suffix=suffix)
    (files,) = find_shapes(ShapeFolderData(root=str(tmp_path)))
    cell = read_cell(files)
    assert (cell.name, cell.group, cell.notes, cell.slice_iou) == ("a_1", "a", (), 1.0)
    assert cell.image_YX.dtype == np.float32
    assert cell.image_YX[32, 32] == pytest.approx(113 / 255)
    assert cell.obj_ZYX is not None
    assert np.array_equal(cell.obj_ZYX, ball())
    assert np.array_equal(cell.mask_YX, ball()[32])


def test_grey_masks_are_thresholded_at_half_of_the_full_scale(save: Save) -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    notes: list[str] = []
    assert np.array_equal(read_mask(save("m.tif", ramp), notes), ramp > 127)
    assert len(notes) == 1
    wide = ramp.astype(np.uint16) * 257
    assert np.array_equal(read_mask(save("w.tif", wide)), ramp > 127)
    share = ramp.astype(np.float32) / 255
    assert np.array_equal(read_mask(save("f.tif", share)), ramp > 127)


@pytest.mark.parametrize("high", [1, 7, 255])
def test_the_larger_of_two_mask_values_is_the_inside(save: Save, high: int) -> None:
    notes: list[str] = []
    assert np.array_equal(read_mask(save("m.png", ball()[32].astype(np.uint8) * high), notes), ball()[32])
    assert notes == []


def test_colours_become_luminance_and_colour_masks_are_refused(save: Save) -> None:
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[..., 0], colours[..., 1] = 255, 100
    notes: list[str] = []
    assert read_image(save("i.png", colours), notes)[0, 0] == pytest.approx((0.299 * 255 + 0.587 * 100) / 255, abs=1e-5)
    assert "luminance" in notes[0]
    one_line(read_mask, save("m.png", colours), "a colour image")
    grey = np.repeat(ball()[32][..., None].astype(np.uint8) * 255, 4, axis=2)
    assert np.array_equal(read_mask(save("g.png", grey)), ball()[32])


@pytest.mark.parametrize("side", [32, 128, 100])
def test_squares_and_cubes_of_another_size_are_resampled(save: Save, tmp_path: Path, side: int) -> None:
    obj = ball(side).astype(np.uint8) * 255
    save("image/a_1.tif", np.full((side, side), 51, np.uint8))
    save("mask/a_1.tif", obj[side // 2])
    save("obj/a_1.tif", obj)
    (cell,) = read_shapes(find_shapes(ShapeFolderData(root=str(tmp_path))))
    assert cell.image_YX.shape == (64, 64)
    assert np.allclose(cell.image_YX, 0.2)
    assert cell.obj_ZYX is not None
    assert cell.obj_ZYX.sum() == pytest.approx(ball().sum(), rel=0.05)
    assert cell.slice_iou is not None
    assert cell.slice_iou > 0.93
    assert shape_notes([cell]) == ["resampled to 64 pixels an axis: 1 (a_1)"]


def test_unusable_files_are_one_line_each(save: Save, tmp_path: Path) -> None:
    nan = np.full((64, 64), np.nan, np.float32)
    one_line(read_image, save("nan.tif", nan), "4096 of 4096 values are NaN")
    one_line(read_image, save("wide.tif", np.ones((64, 60), np.uint8)), "expected a square")
    one_line(read_image, save("low.npy", np.full((64, 64), -1.0)), "negative")
    one_line(read_image, save("high.npy", np.full((64, 64), 1e6)), "values up to 1e")
    one_line(read_mask, save("empty.tif", np.zeros((64, 64), np.uint8)), "mask is empty")
    one_line(read_mask, save("full.tif", np.full((64, 64), 255, np.uint8)), "fills all of its frame")
    dim = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 200
    one_line(read_mask, save("dim.tif", dim), "grey levels up to 199, and nothing above 32767.5")
    one_line(read_object, save("flat.tif", np.ones((20, 64, 64), np.uint8)), "expected a cube")
    one_line(read_object, save("plane.tif", np.ones((64, 64), np.uint8)), "expected a cube")
    text = tmp_path / "text.png"
    text.write_text("no image")
    one_line(read_image, text, "cannot be read")
    (tmp_path / "none.tif").touch()
    one_line(read_image, tmp_path / "none.tif", "is empty")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    one_line(read_image, tmp_path / "objects.npy", "cannot be read")
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps([1, 2]))
    one_line(read_image, tmp_path / "pickle.npy", "cannot be read")
    whole = save("cut.tif", ball().astype(np.uint8))
    whole.write_bytes(whole.read_bytes()[:100_000])
    one_line(read_object, whole, "cut off|cannot be read")


def test_a_mask_of_another_image_is_refused_with_both_sizes(save: Save, tmp_path: Path) -> None:
    write_cell(save, "a_1")
    save("mask/a_1.tif", ball(32)[16].astype(np.uint8))
    with pytest.raises(InputError) as error:
        read_shapes(find_shapes(ShapeFolderData(root=str(tmp_path))))
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert "the mask is 32 x 32, but its image" in lines[0]
    assert "the object is 64 x 64 x 64, but its mask" in lines[1]


def test_all_errors_of_all_cells_are_reported_together(save: Save, tmp_path: Path) -> None:
    for number in range(30):
        write_cell(save, f"a_{number}")
        if number % 10 == 0:
            save(f"mask/a_{number}.tif", np.zeros((64, 64), np.uint8))
            save(f"image/a_{number}.tif", np.full((64, 64), np.nan, np.float32))
    with pytest.raises(InputError) as error:
        read_shapes(find_shapes(ShapeFolderData(root=str(tmp_path))))
    assert len(str(error.value).splitlines()) == 6


def test_missing_files_duplicates_and_names_without_class_are_reported_together(save: Save, tmp_path: Path) -> None:
    for name in ("a_1", "a_2", "b_1", "nameless"):
        write_cell(save, name)
    (tmp_path / "obj" / "a_1.tif").unlink()
    (tmp_path / "mask" / "b_1.tif").unlink()
    save("image/a_2.png", np.zeros((64, 64), np.uint8))
    (tmp_path / "image" / ".a_3.tif").touch()
    with pytest.raises(InputError) as error:
        find_shapes(ShapeFolderData(root=str(tmp_path)))
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    for text in (
        "mask: no file for 1 (b_1)",
        "obj: no file for 1 (a_1)",
        "keep one of them",
        "class_pattern: 1 (nameless)",
    ):
        assert sum(text in line for line in lines) == 1


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("A_cell_clusters000639", "A_cell_clusters"),
        ("nucleus_001", "nucleus"),
        ("B2 round - 7", "B2 round"),
        ("a1b22", "a1b"),
    ],
)
def test_the_class_is_the_name_up_to_its_number(save: Save, tmp_path: Path, name: str, group: str) -> None:
    write_cell(save, name)
    assert find_shapes(ShapeFolderData(root=str(tmp_path)))[0].group == group
    write_cell(save, "123")
    with pytest.raises(InputError, match=r"class_pattern: 1 \(123\)"):
        find_shapes(ShapeFolderData(root=str(tmp_path)))
    found = find_shapes(ShapeFolderData(root=str(tmp_path), class_pattern=None))
    assert [files.group for files in found] == ["cell", "cell"]


def test_an_object_that_differs_from_its_mask_is_noted_with_the_iou(save: Save, tmp_path: Path) -> None:
    write_cell(save, "a_1")
    save("obj/a_1.tif", np.roll(ball(), 12, axis=1).astype(np.uint8))
    cell = read_cell(find_shapes(ShapeFolderData(root=str(tmp_path)))[0])
    assert cell.slice_iou == pytest.approx(0.45, abs=0.05)
    (note,) = shape_notes([cell])
    assert f"a_1 (IoU {cell.slice_iou:.2f})" in note


def test_dispr_folders_keep_their_own_split(save: Save, tmp_path: Path) -> None:
    for split, names in (("train", ("a_1", "a_2")), ("test", ("a_3",))):
        for name in names:
            write_cell(save, name, f"{split}/")
    found = find_shapes(ShapeFolderData(root=str(tmp_path)))
    assert [(f.name, f.split) for f in found] == [("a_1", "train"), ("a_2", "train"), ("a_3", "test")]
    write_cell(save, "a_1", "test/")
    with pytest.raises(InputError, match=r"1 \(a_1\) in train and in test"):
        find_shapes(ShapeFolderData(root=str(tmp_path)))


def test_missing_folders_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_shapes(ShapeFolderData(root=str(tmp_path / "none")))
    with pytest.raises(InputError, match="found none of them"):
        find_shapes(ShapeFolderData(root=str(tmp_path)))
    with pytest.raises(InputError, match=r"no folder image, mask, obj; data\.layout is flat"):
        find_shapes(ShapeFolderData(root=str(tmp_path), layout="flat"))


def test_prediction_needs_only_an_image_and_a_mask(save: Save, tmp_path: Path) -> None:
    save("image/some cell.png", np.zeros((64, 64), np.uint8))
    save("mask/some cell.tif", ball()[32].astype(np.uint8))
    (files,) = find_inputs(tmp_path)
    assert files == ShapeFiles("some cell", "", tmp_path / "image/some cell.png", tmp_path / "mask/some cell.tif")
    assert read_cell(files).obj_ZYX is None
    (tmp_path / "mask/some cell.tif").unlink()
    with pytest.raises(InputError, match="mask: no file for 1"):
        find_inputs(tmp_path)
    with pytest.raises(InputError, match="with the folders image and mask"):
        find_inputs(tmp_path / "image")


def test_all_errors_of_a_config_are_reported_together() -> None:
    assert shape_data_errors(ShapeFolderData()) == []
    assert shape_data_errors(ShapeSimulatorData()) == []
    config = ShapeFolderData(batch_size=0, zoom=[2.0, 1.0], folds=3, fold=3, class_pattern="(", val=1.0, noise=-1)
    keys = [error.partition(":")[0] for error in shape_data_errors(config)]
    assert keys == ["batch_size", "zoom", "noise", "class_pattern", "fold", "val"]
    simulated = ShapeSimulatorData()
    simulated.test.first_seed, simulated.val.presets = 0, ["HeLo"]
    keys = [error.partition(":")[0] for error in shape_data_errors(simulated)]
    assert keys == ["val.presets", "test.first_seed"]


@pytest.mark.real_data
@pytest.mark.skipif("CYTOVOX_DATA" not in os.environ, reason="CYTOVOX_DATA names no folder of real data")
def test_real_cells_have_the_described_properties() -> None:
    root = Path(os.environ["CYTOVOX_DATA"])
    found = find_shapes(ShapeFolderData(root=str(root / "rbc")))
    groups = [files.group for files in found]
    counts = {group: groups.count(group) for group in sorted(set(groups))}
    assert counts == {"A_cell_clusters": 52, "B_keratocytes": 23, "C_knizocytes": 17, "D_multilobate_cells": 9}
    cells = read_shapes(found[::10])
    assert min(cell.slice_iou or 0 for cell in cells) > 0.98
    assert any("grey levels in the mask" in note for note in shape_notes(cells))
    raw = tifffile.imread(found[0].obj)
    assert cells[0].obj_ZYX is not None
    assert cells[0].obj_ZYX.sum() == (raw > 127).sum()
    nuclei = read_shapes(find_shapes(ShapeFolderData(root=str(root / "nuclei")))[:5])
    assert {cell.group for cell in nuclei} == {"nucleus"}
    assert [cell.slice_iou for cell in nuclei] == [1.0] * 5
    assert len(find_inputs(root / "rbc")) == 101
