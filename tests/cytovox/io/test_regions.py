"""Regions of a frame are slices of the whole, whatever the file."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.io import (
    ArrayReader,
    Volume,
    grid_boxes,
    read_volume,
    write_nifti,
    write_ometiff,
    write_omezarr,
    write_tcf,
)
from cytovox.io.regions import CachedReader, StoredReader
from cytovox.io.tcf import TcfReader
from cytovox.io.values import RI_SCALE

SHAPE, SPACING = (9, 40, 50), (0.8, 0.2, 0.25)
TIMES = (0.0, 60.0)


def _ri() -> np.ndarray:
    """Two frames of an index of four decimals."""
    return np.random.default_rng(1).integers(13300, 14200, (2, *SHAPE)).astype(np.float32) / np.float32(1e4)


def _scaled() -> np.ndarray:
    return np.rint(_ri() * 1e4).astype(np.uint16)


def _holes(path: Path) -> Path:
    """A stitched TCF: its middle holds zeros, and one corner, too."""
    write_tcf(path, _ri(), SPACING, 1.335, TIMES)
    with h5py.File(path, "r+") as file:
        for t in range(2):
            file[f"Data/3D/{t:06d}"][3:6, 10:30, 10:40] = 0
            file[f"Data/3D/{t:06d}"][:2, :4, :5] = 0
    return path


def _large_floats(path: Path) -> Path:
    """Floats x 10 000, the middle and so the first block without data."""
    write_tcf(path, _ri(), SPACING, 1.335, TIMES, encoding="float")
    with h5py.File(path, "r+") as file:
        for t in range(2):
            values = _scaled()[t].astype(np.float32)
            values[:, 10:30, 10:40] = 0
            file[f"Data/3D/{t:06d}"][...] = values
    return path


def _small_chunks(path: Path) -> Path:
    write_omezarr(path, _ri()[:, None], SPACING, ["RI"], TIMES)
    group = zarr.open_group(path, mode="a")
    group.create_array("0", data=_scaled()[:, None], chunks=(1, 1, 4, 16, 16), overwrite=True)
    return path


def _big_endian(path: Path) -> Path:
    tifffile.imwrite(path, _scaled()[0], byteorder=">", photometric="minisblack")
    return path


MAKERS: dict[str, Any] = {
    "array": lambda p: Volume.from_array(_ri(), "tzyx", SPACING),
    "plain.TCF": lambda p: write_tcf(p, _ri(), SPACING, 1.335, TIMES),
    "float.TCF": lambda p: write_tcf(p, _ri(), SPACING, 1.335, TIMES, encoding="float"),
    "tiled.TCF": lambda p: write_tcf(p, _ri(), SPACING, 1.335, TIMES, encoding="tiled"),
    "tiled8.TCF": lambda p: write_tcf(p, _ri(), SPACING, 1.335, TIMES, encoding="tiled8"),
    "holes.TCF": _holes,
    "large_floats.TCF": _large_floats,
    "packed.ome.tif": lambda p: write_ometiff(p, _ri()[:, None], SPACING, ["RI"]),
    "plain.ome.tif": lambda p: write_ometiff(p, _ri()[:, None], SPACING, ["RI"], compression=None),
    "scaled.ome.tif": lambda p: write_ometiff(p, _scaled()[:, None], SPACING, ["RI"], compression=None),
    "foreign.tif": _big_endian,
    "packed.nii.gz": lambda p: write_nifti(p, _ri()[0], SPACING),
    "scaled.nii": lambda p: write_nifti(p, _scaled()[0], SPACING),
    "float.ome.zarr": lambda p: write_omezarr(p, _ri()[:, None], SPACING, ["RI"], TIMES),
    "scaled.ome.zarr": _small_chunks,
    "slice.ome.zarr": lambda p: write_omezarr(p, _ri()[:, None, :1], SPACING, ["RI"], TIMES),
    "slice.TCF": lambda p: write_tcf(p, _ri()[:, :1], SPACING, 1.335, TIMES),
    "slice.ome.tif": lambda p: write_ometiff(p, _ri()[:, None, :1], SPACING, ["RI"], TIMES, compression=None),
}


@pytest.fixture(scope="module", params=list(MAKERS))
def volume(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Volume:
    made = MAKERS[request.param](tmp_path_factory.mktemp("regions") / request.param)
    return made if isinstance(made, Volume) else read_volume(made, SPACING if made.name == "foreign.tif" else None)


@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_a_region_is_a_slice_of_the_whole_frame(volume: Volume, data: st.DataObject) -> None:
    t = data.draw(st.integers(0, volume.shape[0] - 1))
    reader, whole = volume.reader(t), volume.frame(t)
    assert reader.shape == whole.shape
    for _ in range(3):
        bounds = [sorted(data.draw(st.tuples(st.integers(0, n - 1), st.integers(1, n)))) for n in whole.shape]
        z, y, x = (slice(a, max(a + 1, b)) for a, b in bounds)
        region = reader.read((z, y, x))
        assert region.dtype == np.float32
        assert region.flags.c_contiguous
        np.testing.assert_array_equal(region, whole[z, y, x])


def test_a_file_of_chunks_or_tiles_is_never_read_whole(tmp_path: Path) -> None:
    big = np.full((64, 128, 128), 1.34, np.float32)
    for encoding in ("uint16", "tiled"):
        path = write_tcf(tmp_path / f"{encoding}.TCF", big, SPACING, 1.335, encoding=encoding)  # type: ignore[arg-type]
        assert isinstance(read_volume(path).reader(), TcfReader)
    wide = np.random.default_rng(0).uniform(1.33, 1.4, (1, 1, 16, 128, 256)).astype(np.float32)
    path = write_omezarr(tmp_path / "a.ome.zarr", wide, SPACING, ["RI"])
    assert isinstance(read_volume(path).reader(), StoredReader)
    zarr.open_group(path, mode="a").create_array("0", data=wide, chunks=(1, 1, 8, 64, 64), overwrite=True)
    for chunk in (path / "0/c").rglob("*"):
        if chunk.is_file() and chunk.name in "01":  # the left half
            chunk.write_bytes(b"unreadable")
    reader = read_volume(path).reader()
    np.testing.assert_array_equal(reader.read((slice(0, 9), slice(3, 99), slice(128, 256))), wide[0, 0, :9, 3:99, 128:])
    with pytest.raises(InputError, match=r"a\.ome\.zarr: "):
        reader.read((slice(0, 9), slice(3, 99), slice(127, 256)))


def test_a_file_that_is_only_read_whole_is_read_once() -> None:
    class Counted:
        shape, calls = (1, 1, *SHAPE), 0

        def read(self, t: int, c: int) -> np.ndarray:
            self.calls += 1
            return _ri()[0]

    frames = Counted()
    reader = CachedReader(frames, 0, 0)  # type: ignore[arg-type]
    for box in grid_boxes(SHAPE, (4, 20, 20)):
        np.testing.assert_array_equal(reader.read(box), _ri()[0][box])
    assert frames.calls == 1


def test_the_scale_is_the_same_for_regions_without_data() -> None:
    stored = np.zeros((2, 300, 300), np.uint16)
    stored[0, 5, 5], stored[1, 250, 250] = 13370, 14000
    reader = StoredReader(stored.shape, lambda box: stored[box], is_ri=True)
    assert not reader.read((slice(0, 2), slice(100, 120), slice(100, 120))).any()
    region = reader.read((slice(1, 2), slice(250, 251), slice(250, 251)))
    assert region == np.float32(14000 / RI_SCALE)
    nothing = StoredReader((1, 8, 8), lambda box: np.zeros((1, 8, 8), np.uint16)[box], is_ri=True)
    assert not nothing.read((slice(0, 1), slice(0, 8), slice(0, 8))).any()


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.integers(1, 20)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_a_grid_of_boxes_covers_every_voxel_once(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    seen = np.zeros(shape, int)
    for box in grid_boxes(shape, size):
        seen[box] += 1
    assert (seen == 1).all()


def test_a_reader_of_a_missing_frame_or_channel_is_refused() -> None:
    volume = Volume.from_array(np.zeros((2, 2, 2)), "zyx", (1, 1, 1))
    with pytest.raises(InputError, match="no frame 1"):
        volume.reader(1)
    with pytest.raises(InputError, match="no channel GFP"):
        volume.reader(0, "GFP")
    assert isinstance(volume.reader(), StoredReader)
    assert isinstance(Volume.from_array(np.zeros((2, 2, 2)), "zyx", (1, 1, 1), ["GFP"]).reader(0, "GFP"), ArrayReader)
