"""OME-Zarr: 0.5 both ways, 0.4 in, and nothing from it is ever run."""

import errno
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.common.omero import Omero
from ome_zarr_models.v05 import Image

from cytovox.errors import InputError
from cytovox.io import read_mask
from cytovox.io.omezarr import read_omezarr
from cytovox.io.omezarr_writer import begin_omezarr, create_omezarr, resume_omezarr, write_omezarr

SPACING = (0.9, 0.2, 0.1)


def stack(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(1.33, 1.42, shape).astype(np.float32)


def test_an_image_reads_back_with_its_grid_names_and_times(tmp_path: Path) -> None:
    data = stack(2, 2, 4, 5, 6)
    path = write_omezarr(
        tmp_path / "a.ome.zarr", data, SPACING, ("RI", "CH0"), (5, 65.5), origin_um=(1, -2, 3), medium_ri=1.337
    )
    volume = pickle.loads(pickle.dumps(read_omezarr(path)))
    assert volume.shape == data.shape
    assert volume.spacing_um == SPACING
    assert volume.channels == ("RI", "CH0")
    assert volume.times_s == (0.0, 60.5)
    assert volume.origin_um == (1.0, -2.0, 3.0)
    assert volume.medium_ri == 1.337
    for t in range(2):
        for c in range(2):
            np.testing.assert_array_equal(volume.frame(t, c), data[t, c])
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["a.ome.zarr"]


@pytest.mark.parametrize("times", [None, (0.0,), (0.0, 30.0)])
def test_the_metadata_are_valid_by_an_independent_model(tmp_path: Path, times: tuple[float, ...] | None) -> None:
    data = stack(len(times or (0,)), 2, 4, 5, 6)
    write_omezarr(tmp_path / "a.ome.zarr", data, SPACING, ("RI", "CH0"), times)
    group = open_ome_zarr(zarr.open_group(tmp_path / "a.ome.zarr", mode="r"))
    assert isinstance(group, Image)
    image = group.attributes.ome.multiscales[0]
    assert [axis.name for axis in image.axes] == list("tczyx")
    assert [axis.unit for axis in image.axes[2:]] == ["micrometer"] * 3
    assert image.datasets[0].coordinateTransformations[0].scale[2:] == list(SPACING)
    assert [channel.label for channel in Omero.model_validate(group.attributes.ome.omero).channels] == ["RI", "CH0"]


def test_regions_can_be_written_in_any_order(tmp_path: Path) -> None:
    data = stack(2, 1, 8, 20, 30)
    with create_omezarr(
        tmp_path / "a.zarr", data.shape, data.dtype, SPACING, ("RI",), (0, 1), chunks=(1, 1, 4, 16, 16)
    ) as array:
        for t in (1, 0):
            for z in (4, 0):
                array[t, 0, z : z + 4] = data[t, 0, z : z + 4]
        assert not (tmp_path / "a.zarr").exists()
    np.testing.assert_array_equal(read_omezarr(tmp_path / "a.zarr").frame(1), data[1, 0])


def test_an_image_begun_in_one_process_is_finished_in_another(tmp_path: Path) -> None:
    data = (stack(1, 2, 8, 20, 30) > 1.37).astype(np.uint8)
    chunks = (1, 1, 4, 16, 16)
    array = begin_omezarr(tmp_path / "a.ome.zarr", data.shape, bool, SPACING, ("a", "b"), chunks=chunks)
    array[0, :, :4] = data[0, :, :4]
    torn = next(p for p in (tmp_path / "a.ome.zarr/0/c").rglob("*") if p.is_file()).with_suffix(".0f.partial")
    torn.write_bytes(b"half a chunk")
    again = resume_omezarr(tmp_path / "a.ome.zarr")
    assert not torn.exists()
    np.testing.assert_array_equal(again[0, :, :4], data[0, :, :4])
    again[0, :, 4:] = data[0, :, 4:]
    volume = read_omezarr(tmp_path / "a.ome.zarr")
    assert volume.channels == ("a", "b")
    np.testing.assert_array_equal(volume.frame(0, "b"), data[0, 1])


def test_an_exception_leaves_the_old_image_and_nothing_half_written(tmp_path: Path) -> None:
    path = write_omezarr(tmp_path / "a.zarr", stack(1, 1, 2, 3, 4), SPACING, ("RI",))

    def frames() -> Any:
        yield np.zeros((1, 2, 3, 4), np.float32)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"a\.zarr: no space left on"):
        write_omezarr(path, frames(), SPACING, ("RI",), shape=(2, 1, 2, 3, 4))
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["a.zarr"]
    np.testing.assert_array_equal(read_omezarr(path).frame(), stack(1, 1, 2, 3, 4)[0, 0])
    write_omezarr(path, np.zeros((1, 1, 2, 3, 4), np.float32), SPACING, ("RI",))
    assert read_omezarr(path).frame().max() == 0
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["a.zarr"]


def test_a_folder_that_holds_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.zarr").mkdir()
    (tmp_path / "thesis.zarr" / "chapter1.txt").write_text("years of work")
    with pytest.raises(InputError, match="will not be replaced"):
        write_omezarr(tmp_path / "thesis.zarr", stack(1, 1, 2, 3, 4), SPACING, ("RI",))
    assert (tmp_path / "thesis.zarr" / "chapter1.txt").exists()


def test_frames_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for given in (1, 3):
        with pytest.raises(ValueError, match="frame"):
            write_omezarr(tmp_path / "a.zarr", iter(stack(given, 1, 2, 3, 4)), SPACING, ("RI",), shape=(2, 1, 2, 3, 4))
    assert list(tmp_path.iterdir()) == []


def version_04(path: Path, data: np.ndarray, axes: str, unit: str | None, scale: list[float], **array: Any) -> Path:
    """An image as other software writes it: Zarr 2, and a second scale for all datasets."""
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("s0", data=data, **array)
    kinds = {"t": {"type": "time", "unit": "minute"}, "c": {"type": "channel"}}
    space = {"type": "space"} | ({"unit": unit} if unit else {})
    image = {
        "version": "0.4",
        "axes": [{"name": a, **kinds.get(a, space)} for a in axes],
        "datasets": [
            {
                "path": "s0",
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale},
                    {"type": "translation", "translation": [10.0 * s for s in scale]},
                ],
            }
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [2.0] * len(axes)}],
    }
    group.attrs.update({"multiscales": [image]})
    return path


def test_version_04_is_read_with_units_and_both_scales(tmp_path: Path) -> None:
    data = stack(2, 4, 5, 6)
    volume = read_omezarr(version_04(tmp_path / "a.zarr", data, "tzyx", "nanometer", [0.5, 450, 100, 50]))
    assert volume.shape == (2, 1, 4, 5, 6)
    assert volume.spacing_um == SPACING
    assert volume.origin_um == pytest.approx((9.0, 2.0, 1.0))
    assert volume.times_s == (0.0, 60.0)
    np.testing.assert_array_equal(volume.frame(1), data[1])


def test_numbers_without_a_unit_are_read_in_the_one_unit_that_fits(tmp_path: Path) -> None:
    for k, (scale, spacing) in enumerate((([0.45, 0.1, 0.05], SPACING), ([450, 100, 50], SPACING))):
        path = version_04(tmp_path / f"{k}.zarr", stack(4, 5, 6), "zyx", None, scale)
        volume = read_omezarr(path)
        assert volume.spacing_um == pytest.approx(spacing)
        assert "names no unit" in volume.notes[0]
    path = version_04(tmp_path / "ones.zarr", stack(4, 5, 6), "zyx", None, [0.5, 0.5, 0.5])
    with pytest.raises(InputError, match=r"data\.spacing_um"):
        read_omezarr(path)
    assert read_omezarr(path, SPACING).spacing_um == SPACING


def test_a_collection_gives_its_first_image(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    version_04(tmp_path / "a.zarr" / "0", stack(4, 5, 6), "zyx", "micrometer", [1, 1, 1])
    assert read_omezarr(tmp_path / "a.zarr").spacing_um == (2.0, 2.0, 2.0)


def test_masks_are_integers_of_one_frame_and_channel(tmp_path: Path) -> None:
    labels = np.arange(24, dtype=np.uint32).reshape(1, 1, 2, 3, 4)
    mask = read_mask(write_omezarr(tmp_path / "m.zarr", labels, SPACING, ("cells",), origin_um=(1, 2, 3)))
    np.testing.assert_array_equal(mask.labels_ZYX, labels[0, 0])
    assert (mask.spacing_um, mask.origin_um) == (SPACING, (1.0, 2.0, 3.0))
    assert read_mask(write_omezarr(tmp_path / "b.zarr", labels > 3, SPACING, ("c",))).labels_ZYX.max() == 1
    write_omezarr(tmp_path / "two.zarr", stack(1, 2, 2, 3, 4), SPACING, ("a", "b"))
    with pytest.raises(InputError, match="1 frames and 2 channels"):
        read_mask(tmp_path / "two.zarr")


class Trap:
    """Unpickled, it makes a file: a codec that unpickles would run any code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    "codecs",
    [
        {"compressor": {"id": "pickle"}},
        {"filters": [{"id": "pickle"}]},
        {"filters": [{"id": "delta", "dtype": "<f4"}, {"id": "pickle"}]},
    ],
)
def test_a_codec_that_unpickles_is_refused_before_it_runs(tmp_path: Path, codecs: dict[str, Any]) -> None:
    path = version_04(
        tmp_path / "a.zarr", np.ones((2, 3, 4), np.float32), "zyx", "micrometer", [1, 1, 1], compressors=None
    )
    about = json.loads((path / "s0" / ".zarray").read_text())
    (path / "s0" / ".zarray").write_text(json.dumps(about | codecs))
    (path / "s0" / "0.0.0").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    with pytest.raises(InputError, match="pickle"):
        read_omezarr(path).frame()
    assert not (tmp_path / "ran").exists()
    pickle.loads((path / "s0" / "0.0.0").read_bytes()).close()
    assert (tmp_path / "ran").exists()  # so the trap was a real one


def test_sharded_arrays_are_read(tmp_path: Path) -> None:
    path = write_omezarr(tmp_path / "a.zarr", stack(1, 1, 4, 8, 8), SPACING, ("RI",))
    data = stack(1, 1, 4, 8, 8)
    zarr.open_group(path, mode="a").create_array(
        "0", data=data, chunks=(1, 1, 2, 4, 4), shards=(1, 1, 4, 8, 8), overwrite=True
    )
    np.testing.assert_array_equal(read_omezarr(path).frame(), data[0, 0])


def cut_chunk(path: Path) -> None:
    chunk = next(p for p in (path / "0" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:20])


def cut_metadata(path: Path) -> None:
    (path / "zarr.json").write_text((path / "zarr.json").read_text()[:80])


def lose_array(path: Path) -> None:
    (path / "0" / "zarr.json").unlink()


def lose_axes(path: Path) -> None:
    about = json.loads((path / "zarr.json").read_text())
    del about["attributes"]["ome"]
    (path / "zarr.json").write_text(json.dumps(about))


@pytest.mark.parametrize("damage", [cut_chunk, cut_metadata, lose_array, lose_axes])
def test_damage_is_one_line(tmp_path: Path, damage: Any) -> None:
    path = write_omezarr(tmp_path / "a.zarr", stack(1, 1, 4, 8, 8), SPACING, ("RI",))
    damage(path)
    with pytest.raises(InputError, match=r"a\.zarr: ") as error:
        read_omezarr(path).frame()
    assert "\n" not in str(error.value)


def test_a_missing_folder_and_a_foreign_one_are_distinguished(tmp_path: Path) -> None:
    (tmp_path / "b.zarr").mkdir()
    for name, said in (("a.zarr", "no such folder"), ("b.zarr", "not an OME-Zarr")):
        with pytest.raises(InputError, match=said):
            read_omezarr(tmp_path / name)
