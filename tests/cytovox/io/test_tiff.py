"""TIFF: OME-TIFF both ways, ImageJ and plain stacks in."""

import errno
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.io import read_mask
from cytovox.io.ometiff import write_ometiff, write_ometiff_slabs
from cytovox.io.tiff import read_tiff

SPACING = (0.9, 0.2, 0.1)


def stack(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return (np.random.default_rng(3).uniform(0, 200, shape)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_an_ome_tiff_reads_back_with_its_grid_names_and_times(tmp_path: Path, dtype: type) -> None:
    data = stack(2, 3, 4, 5, 6, dtype=dtype)
    names = ("membrane", "nucleus", "lipid")
    path = write_ometiff(tmp_path / "a.ome.tif", data, SPACING, names, times_s=(5, 65.5), origin_um=(1, -2, 3))
    volume = pickle.loads(pickle.dumps(read_tiff(path)))
    assert volume.shape == (2, 3, 4, 5, 6)
    assert volume.spacing_um == SPACING
    assert volume.channels == names
    assert volume.times_s == (0.0, 60.5)
    assert volume.origin_um == (1.0, -2.0, 3.0)
    for t in range(2):
        for c, name in enumerate(names):
            np.testing.assert_array_equal(volume.frame(t, name), data[t, c])


def test_an_independent_reader_sees_the_same_ome_tiff(tmp_path: Path) -> None:
    data = stack(2, 2, 3, 4, 5) > 100
    path = write_ometiff(tmp_path / "a.ome.tif", data, SPACING, ("a", "µ & <b>"), times_s=(0, 60))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert tiff.series[0].axes == "TCZYX"
        assert tiff.pages[0].dtype == np.uint8
        assert tiff.pages[0].compression.name == "ADOBE_DEFLATE"
        np.testing.assert_array_equal(tiff.asarray(), data)
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
    assert (pixels["PhysicalSizeZ"], pixels["PhysicalSizeY"], pixels["PhysicalSizeX"]) == SPACING
    assert pixels["PhysicalSizeXUnit"] == "µm"
    assert pixels["TimeIncrement"] == 60
    assert [c["Name"] for c in pixels["Channel"]] == ["a", "µ & <b>"]


def test_frames_are_written_one_at_a_time(tmp_path: Path) -> None:
    data = stack(3, 2, 4, 5, 6)
    alive = []

    def frames() -> Iterator[np.ndarray]:
        for t in range(3):
            alive.append(t)
            yield data[t]

    path = write_ometiff(tmp_path / "a.ome.tif", frames(), SPACING, ("a", "b"), shape=data.shape)
    assert alive == [0, 1, 2]
    np.testing.assert_array_equal(read_tiff(path).frame(2, "b"), data[2, 1])


@pytest.mark.parametrize("given", [2, 4])
def test_too_few_or_too_many_frames_leave_no_file(tmp_path: Path, given: int) -> None:
    with pytest.raises(ValueError, match="frame"):
        write_ometiff(tmp_path / "a.ome.tif", iter(stack(given, 1, 2, 3, 4)), SPACING, ("a",), shape=(3, 1, 2, 3, 4))
    assert list(tmp_path.iterdir()) == []


def test_slabs_written_one_by_one_give_the_same_file(tmp_path: Path) -> None:
    data = (stack(2, 2, 3, 4, 5) > 1.37).astype(np.uint8)
    whole = write_ometiff(tmp_path / "whole" / "a.ome.tif", data, SPACING, ("a", "b"), (0, 9), (1, 2, 3))
    slabs = (slab for volume in data.reshape(-1, 3, 4, 5) for slab in (volume[:2], volume[2:]))
    slow = write_ometiff_slabs(
        tmp_path / "slow" / "a.ome.tif", slabs, data.shape, np.uint8, SPACING, ("a", "b"), (0, 9), (1, 2, 3)
    )
    np.testing.assert_array_equal(tifffile.imread(slow), tifffile.imread(whole))
    assert read_tiff(slow).times_s == read_tiff(whole).times_s == (0, 9)
    with pytest.raises(ValueError, match="more planes"):
        write_ometiff_slabs(
            tmp_path / "b.ome.tif", data.reshape(-1, 3, 4, 5), (1, 2, 3, 4, 5), "u1", SPACING, ("a", "b")
        )
    assert not (tmp_path / "b.ome.tif").exists()


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield stack(1, 2, 3, 4)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"a\.ome\.tif: no space left on"):
        write_ometiff(tmp_path / "a.ome.tif", frames(), SPACING, ("a",), shape=(2, 1, 2, 3, 4))
    assert list(tmp_path.iterdir()) == []


def test_types_that_ome_has_no_name_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="voxels of type int64"):
        write_ometiff(tmp_path / "a.ome.tif", np.zeros((1, 1, 2, 3, 4), np.int64), SPACING, ("a",))


@settings(deadline=None, max_examples=25)
@given(st.permutations("tcz"), st.sets(st.sampled_from("tcz")), st.booleans())
def test_axes_may_be_stored_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, order: list, drop: set, zip_: bool
) -> None:
    axes = "".join(a for a in order if a not in drop) + "yx"
    sizes = dict(zip("tczyx", (2, 3, 4, 5, 6), strict=True))
    data = stack(*(sizes[a] for a in axes))
    path = tmp_path_factory.mktemp("tiff") / "a.ome.tif"
    metadata = {"axes": axes.upper(), "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.2, "PhysicalSizeZ": 0.9}
    tifffile.imwrite(path, data, ome=True, metadata=metadata, compression="zlib" if zip_ else None)
    if "t" in axes and "z" not in axes and not ("c" in axes and "t" not in axes):
        with pytest.raises(InputError, match="2 frames of one slice each"):
            read_tiff(path)
        return
    volume = read_tiff(path)
    assert volume.shape == tuple(sizes[a] if a in axes else 1 for a in "tczyx")
    t, c = volume.shape[0] - 1, volume.shape[1] - 1
    index = tuple({"t": t, "c": c}.get(a, slice(None)) for a in axes)
    np.testing.assert_array_equal(np.squeeze(volume.frame(t, c)), data[index])


@pytest.mark.parametrize(("unit", "size"), [("nm", 250), ("mm", 0.00025), ("µm", 0.25), ("m", 2.5e-7), ("Å", 2500)])
def test_every_unit_of_length_becomes_micrometres(tmp_path: Path, unit: str, size: float) -> None:
    sizes = {f"PhysicalSize{a}": size for a in "XYZ"} | {f"PhysicalSize{a}Unit": unit for a in "XYZ"}
    tifffile.imwrite(
        tmp_path / "a.ome.tif", stack(2, 3, 4), ome=True, metadata={"axes": "ZYX", **sizes}, photometric="minisblack"
    )
    assert read_tiff(tmp_path / "a.ome.tif").spacing_um == pytest.approx((0.25, 0.25, 0.25), rel=1e-9)


def test_an_imagej_stack_is_read_by_its_own_metadata(tmp_path: Path) -> None:
    data = stack(3, 4, 2, 5, 6)  # T Z C Y X
    metadata = {"axes": "TZCYX", "spacing": 0.9, "unit": "um", "finterval": 30.0}
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, resolution=(10, 5), metadata=metadata)
    volume = read_tiff(tmp_path / "a.tif")
    assert volume.shape == (3, 2, 4, 5, 6)
    assert volume.spacing_um == pytest.approx(SPACING)
    assert volume.times_s == (0.0, 30.0, 60.0)
    assert volume.channels == ("CH0", "CH1")
    np.testing.assert_array_equal(volume.frame(2, "CH1"), data[2, :, 1])


def test_a_plain_tiff_needs_a_spacing_and_says_how_to_give_it(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack(4, 5, 6), photometric="minisblack")
    with pytest.raises(InputError, match=r"a\.tif: .*data\.spacing_um for training, predict\.spacing_um"):
        read_tiff(tmp_path / "a.tif")
    volume = read_tiff(tmp_path / "a.tif", (0.9, 0.2, 0.1))
    assert volume.shape == (1, 1, 4, 5, 6)
    assert volume.channels == ("RI",)
    assert volume.spacing_um == SPACING


def test_a_given_spacing_must_agree_with_the_files_own(tmp_path: Path) -> None:
    path = write_ometiff(tmp_path / "a.ome.tif", stack(1, 1, 2, 3, 4), SPACING, ("RI",))
    assert read_tiff(path, (0.901, 0.2, 0.1)).spacing_um == SPACING
    with pytest.raises(InputError, match="the one given"):
        read_tiff(path, (0.1, 0.2, 0.9))


def test_index_times_ten_thousand_is_the_index_itself(tmp_path: Path) -> None:
    scaled = np.random.default_rng(0).integers(13300, 14200, (3, 4, 5)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", scaled, compression="zlib", photometric="minisblack")
    np.testing.assert_allclose(read_tiff(tmp_path / "a.tif", SPACING).frame(), scaled / 1e4, rtol=1e-6)


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colours_are_grey_where_they_are_equal_and_refused_where_not(
    tmp_path: Path, samples: int, compression: str | None
) -> None:
    rgb = np.repeat(stack(3, 4, 5, 1, dtype=np.uint8), samples, axis=-1)
    alpha = {"extrasamples": ["unassalpha"]} if samples == 4 else {}
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", compression=compression, **alpha)
    volume = read_tiff(tmp_path / "a.tif", SPACING)
    assert volume.shape == (1, 1, 3, 4, 5)
    np.testing.assert_array_equal(volume.frame(), rgb[..., 0])
    np.testing.assert_array_equal(volume.reader().read((slice(0, 3), slice(1, 4), slice(2, 5))), rgb[:, 1:, 2:, 0])
    rgb[1, 2, 3, 1] ^= 1
    tifffile.imwrite(tmp_path / "b.tif", rgb, photometric="rgb", compression=compression, **alpha)
    with pytest.raises(InputError, match=r"b\.tif: a colour image"):
        read_tiff(tmp_path / "b.tif", SPACING).frame()


def test_masks_are_integers_and_a_plain_one_has_no_spacing(tmp_path: Path) -> None:
    labels = stack(4, 5, 6, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "m.tif", labels, photometric="minisblack")
    mask = read_mask(tmp_path / "m.tif")
    np.testing.assert_array_equal(mask.labels_ZYX, labels)
    assert mask.spacing_um is None
    write_ometiff(tmp_path / "m.ome.tif", labels[None, None] > 9, SPACING, ("nucleus",))
    mask = read_mask(tmp_path / "m.ome.tif")
    assert mask.labels_ZYX.dtype == np.uint8
    assert mask.spacing_um == SPACING
    write_ometiff(tmp_path / "p.ome.tif", labels[None, None] / np.float32(200), SPACING, ("nucleus",))
    with pytest.raises(InputError, match=r"p\.ome\.tif: .* no whole number"):
        read_mask(tmp_path / "p.ome.tif")
    write_ometiff(tmp_path / "c.ome.tif", np.zeros((1, 2, 3, 4, 5), bool), SPACING, ("a", "b"))
    with pytest.raises(InputError, match="1 frames and 2 channels"):
        read_mask(tmp_path / "c.ome.tif")


def read_all(path: Path) -> None:
    volume = read_tiff(path, SPACING)
    for t in range(volume.shape[0]):
        for c in range(volume.shape[1]):
            volume.frame(t, c)


@pytest.mark.parametrize("kind", ["ome", "plain", "compressed", "imagej"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.6, 0.9])
def test_a_truncated_tiff_is_one_line(tmp_path: Path, kind: str, kept: float) -> None:
    path, data = tmp_path / "a.tif", stack(2, 4, 30, 40)
    if kind == "ome":
        write_ometiff(path, data[:, None], SPACING, ("RI",))
    else:
        tifffile.imwrite(path, data, compression="zlib" if kind == "compressed" else None, imagej=kind == "imagej")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match=r"a\.tif: ") as error:
        read_all(path)
    assert "\n" not in str(error.value)


def test_missing_empty_and_foreign_files_are_distinguished(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("words")
    for name, said in (
        ("none.tif", "no such file"),
        ("empty.tif", "empty"),
        ("text.tif", "not a TIFF"),
        ("", "folder"),
    ):
        with pytest.raises(InputError, match=said):
            read_tiff(tmp_path / name, SPACING)


@pytest.mark.real_data
def test_the_real_tissue_and_its_labels_lie_on_one_grid() -> None:
    folder = os.environ.get("CYTOVOX_DATA")
    if not folder:
        pytest.skip("CYTOVOX_DATA does not name the folder of real data")
    volume = read_tiff(Path(folder) / "tissue" / "ovule.ome.tif")
    mask = read_mask(Path(folder) / "tissue" / "ovule_cells.ome.tif")
    assert volume.spacing_um == mask.spacing_um == (0.235, 0.15, 0.15)
    assert volume.shape[2:] == mask.labels_ZYX.shape == (32, 128, 128)
    assert len(np.unique(mask.labels_ZYX)) - 1 == 50
    np.testing.assert_array_equal(volume.frame(), tifffile.imread(Path(folder) / "tissue" / "ovule.ome.tif"))
