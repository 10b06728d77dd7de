"""TCF: what is written is read back, by our reader and by an independent one."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from TCFile import TCFile

from cytovox.errors import InputError
from cytovox.io.tcf import read_fluorescence, read_tcf
from cytovox.io.tcf_writer import write_tcf
from cytovox.io.volume import Volume

SPACING = (0.9, 0.2, 0.1)
#: Half a step of each encoding.
STEP = {"uint16": 0.51e-4, "float": 1e-7, "tiled": 0.51e-4, "tiled8": 0.51e-3}


def tomogram(t: int = 2, shape: tuple[int, int, int] = (5, 70, 90)) -> np.ndarray:
    return np.random.default_rng(7).uniform(1.33, 1.42, (t, *shape)).astype(np.float32)


@pytest.fixture
def tcf(tmp_path: Path) -> Path:
    return write_tcf(tmp_path / "cell.TCF", tomogram(shape=(4, 6, 8)), SPACING, 1.337, times_s=(0, 30))


@pytest.mark.parametrize("encoding", STEP)
def test_every_encoding_reads_back_as_the_index_itself(tmp_path: Path, encoding: str) -> None:
    ri = tomogram()
    volume = read_tcf(write_tcf(tmp_path / "a.tcf", ri, SPACING, 1.334, times_s=(0, 60.5), encoding=encoding))
    assert volume.shape == (2, 1, 5, 70, 90)
    assert volume.spacing_um == SPACING
    assert volume.medium_ri == 1.334
    assert volume.times_s == (0.0, 60.5)
    assert volume.recorded_at == ("2000-01-01T00:00:00", "2000-01-01T00:01:00.500000")
    for t in range(2):
        assert volume.frame(t).dtype == np.float32
        np.testing.assert_allclose(volume.frame(t), ri[t], atol=STEP[encoding] + 1e-7)


@pytest.mark.parametrize("encoding", STEP)
def test_an_independent_reader_sees_the_same_file(tmp_path: Path, encoding: str) -> None:
    ri = tomogram()
    path = write_tcf(tmp_path / "a.TCF", ri, SPACING, 1.334, times_s=(0, 60), encoding=encoding)
    other = TCFile(str(path), "3D")
    assert (len(other), other.data_shape, other.data_resolution) == (2, [5, 70, 90], list(SPACING))
    for t in range(2):
        np.testing.assert_allclose(np.asarray(other[t]), ri[t], atol=STEP[encoding] + 1e-6)
    if encoding != "tiled8":  # its projection is 16 bits in every file
        np.testing.assert_allclose(np.asarray(TCFile(str(path), "2DMIP")[1]), ri[1].max(axis=0), atol=1e-4)


def test_an_independent_reader_sees_the_same_fluorescence(tmp_path: Path) -> None:
    light = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(2, 3, 4, 5)
    green = Volume.from_array(light, "tzyx", (1, 0.5, 0.5), ("CH0",), times_s=(0, 9))
    path = write_tcf(tmp_path / "a.TCF", tomogram(), SPACING, 1.337, times_s=(0, 9), fluorescence=green)
    other = TCFile(str(path), "3DFL")
    assert other.max_channels == 1
    np.testing.assert_array_equal(np.asarray(other[1]), light[1])


def test_frames_are_written_one_at_a_time_from_an_iterator(tmp_path: Path) -> None:
    ri = tomogram()
    path = write_tcf(tmp_path / "a.TCF", iter(ri), SPACING, 1.337, times_s=(0, 1), stage_um=((1, 2, 3), (4, 5, 6)))
    volume = read_tcf(path)
    assert volume.stage_um == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    np.testing.assert_allclose(volume.frame(1), ri[1], atol=1e-4)


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_tcf(tmp_path / n, tomogram(1)[0], SPACING, 1.337).read_bytes() for n in ("a.TCF", "b.TCF"))
    assert first == second


def test_a_volume_can_be_pickled_and_keeps_no_file_open(tcf: Path) -> None:
    volume = pickle.loads(pickle.dumps(read_tcf(tcf)))
    before = volume.frame(1)
    tcf.rename(tcf.with_name("moved.TCF"))  # Windows refuses this for an open file
    with pytest.raises(InputError, match="no such file"):
        volume.frame(1)
    tcf.with_name("moved.TCF").rename(tcf)
    np.testing.assert_array_equal(volume.frame(1), before)


def test_opening_reads_no_voxel(tmp_path: Path) -> None:
    path = tmp_path / "large.TCF"
    write_tcf(path, tomogram(1, (2, 4, 4)), SPACING, 1.337)
    with h5py.File(path, "a") as file:  # 100 GB that were never written
        del file["Data/3D/000000"]
        file.create_dataset("Data/3D/000000", (500, 10_000, 10_000), np.uint16, chunks=(1, 100, 100))
        for axis, size in zip("ZYX", (500, 10_000, 10_000), strict=True):
            file["Data/3D"].attrs[f"Size{axis}"] = [size]
    assert read_tcf(path).shape == (1, 1, 500, 10_000, 10_000)


def test_voxels_without_data_get_the_mediums_index(tmp_path: Path) -> None:
    ri = tomogram(1, (2, 4, 4))
    ri[0, 1, 2, 3] = 0
    for encoding in ("uint16", "float", "tiled"):
        path = write_tcf(tmp_path / f"{encoding}.TCF", ri, SPACING, 1.3345, encoding=encoding)
        assert read_tcf(path).frame()[1, 2, 3] == np.float32(1.3345)
    with h5py.File(path, "a") as file:
        del file["Info/Device"].attrs["RI"]
    volume = read_tcf(path)
    assert volume.medium_ri is None
    assert volume.frame()[1, 2, 3] == np.float32(1.337)


def test_a_region_that_no_tile_covers_gets_the_mediums_index(tmp_path: Path) -> None:
    ri = tomogram(1)
    for encoding in ("tiled", "tiled8"):
        path = write_tcf(tmp_path / f"{encoding}.TCF", ri, SPACING, 1.3345, encoding=encoding)
        with h5py.File(path, "a") as file:
            del file["Data/3D/000000/TILE_001"]  # y 0..63, x 64..89
        frame = read_tcf(path).frame()
        np.testing.assert_array_equal(frame[:, :64, 64:], np.float32(1.3345))
        np.testing.assert_allclose(frame[:, 64:], ri[0][:, 64:], atol=1e-3)


def test_overlapping_tiles_do_not_add_up(tmp_path: Path) -> None:
    path = write_tcf(tmp_path / "a.TCF", tomogram(1), SPACING, 1.337, encoding="tiled")
    before = read_tcf(path).frame()
    with h5py.File(path, "a") as file:
        file.copy("Data/3D/000000/TILE_000", "Data/3D/000000/TILE_777")
    np.testing.assert_array_equal(read_tcf(path).frame(), before)


def test_scaled_floats_and_scaled_limits_are_recognised(tmp_path: Path) -> None:
    ri = tomogram(1, (2, 70, 90))
    path = write_tcf(tmp_path / "a.TCF", ri * 1e4, SPACING, 1.337, encoding="float")
    np.testing.assert_allclose(read_tcf(path).frame(), ri[0], rtol=1e-6)
    path = write_tcf(tmp_path / "b.TCF", ri, SPACING, 1.337, encoding="tiled8")
    with h5py.File(path, "a") as file:
        file["Data/3D/000000"].attrs["RIMin"] = file["Data/3D/000000"].attrs["RIMin"] * 1e4
        file["Info/Device"].attrs["RI"] = [13370.0]
    assert read_tcf(path).medium_ri == 1.337
    np.testing.assert_allclose(read_tcf(path).frame(), ri[0], atol=1e-3)


def test_attributes_may_be_scalars_or_text(tcf: Path) -> None:
    with h5py.File(tcf, "a") as file:
        file["Data/3D"].attrs["ResolutionX"] = 0.1
        file["Data/3D"].attrs["ResolutionY"] = "0.2"
        file["Data/3D/000000"].attrs["RecordingTime"] = "2024-05-06 07:08:09.5"
        file["Data/3D/000001"].attrs["RecordingTime"] = np.array(["2024-05-06 07:08:39.5"], dtype=object)
    volume = read_tcf(tcf)
    assert volume.spacing_um == SPACING
    assert volume.recorded_at == ("2024-05-06T07:08:09.500000", "2024-05-06T07:08:39.500000")


def test_times_fall_back_from_time_to_recording_time_to_interval(tcf: Path) -> None:
    with h5py.File(tcf, "a") as file:
        frames = [file["Data/3D/000000"], file["Data/3D/000001"]]
        frames[1].attrs["RecordingTime"] = [b"2000-01-01 00:00:40.000"]
        frames[1].attrs["Time"] = [0.0]  # a clock that stands still
    assert read_tcf(tcf).times_s == (0.0, 40.0)
    with h5py.File(tcf, "a") as file:
        for frame in (file["Data/3D/000000"], file["Data/3D/000001"]):
            del frame.attrs["Time"], frame.attrs["RecordingTime"]
        file["Data/3D"].attrs["TimeInterval"] = [50.0]
    volume = read_tcf(tcf)
    assert volume.times_s == (0.0, 50.0)
    assert volume.recorded_at == ("2000-01-01T00:00:00", "2000-01-01T00:00:50")
    with h5py.File(tcf, "a") as file:
        del file["Data/3D"].attrs["TimeInterval"]
    assert read_tcf(tcf).times_s is None


def test_not_a_number_is_passed_on_for_the_caller_to_see(tmp_path: Path) -> None:
    ri = tomogram(1, (2, 4, 4))
    ri[0, 0, 1, 2] = np.nan
    assert np.isnan(read_tcf(write_tcf(tmp_path / "a.TCF", ri, SPACING, 1.337, encoding="float")).frame()[0, 1, 2])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.full((1, 2, 2, 2), 13370.0), "expected the refractive index itself"),
        (np.full((1, 2, 2), 1.34)[0], "expected"),
    ],
)
def test_the_writer_refuses_what_is_no_refractive_index(tmp_path: Path, bad: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        write_tcf(tmp_path / "a.TCF", bad, SPACING, 1.337)
    assert list(tmp_path.iterdir()) == []


# Fluorescence


def ramp(shape: tuple[int, int, int], spacing: tuple[float, float, float], origin: tuple[float, ...]) -> np.ndarray:
    """100 + 3 z + 5 y + 7 x micrometres: linear interpolation is exact on it."""
    z, y, x = (o + s * np.arange(n) for n, s, o in zip(shape, spacing, origin, strict=True))
    return 100 + 3 * z[:, None, None] + 5 * y[:, None] + 7 * x


def with_fluorescence(path: Path, offset_z: float | None, dtype: type = np.float32) -> np.ndarray:
    """A tomogram of (8, 9, 11) with a finer and smaller fluorescence grid in it; returns the truth on its grid."""
    shape, spacing = (8, 9, 11), (1.0, 0.4, 0.4)
    own_shape, own_spacing = (6, 25, 31), (1.25, 0.1, 0.1)
    origin = [
        ((n - 1) * s - (m - 1) * r) / 2 for n, s, m, r in zip(shape, spacing, own_shape, own_spacing, strict=True)
    ]
    if offset_z is not None:
        origin[0] = offset_z
    write_tcf(path, tomogram(1, shape), spacing, 1.337)
    with h5py.File(path, "a") as file:
        group = file.create_group("Data/3DFL")
        names = [f"{kind}{axis}" for kind in ("Size", "Resolution") for axis in "ZYX"]
        for name, value in zip(names, (*own_shape, *own_spacing), strict=True):
            group.attrs[name] = [value]
        group.attrs["DataCount"], group.attrs["Channels"] = [1], [2]
        for c in (0, 1):
            group[f"CH{c}/000000"] = ((1 + c) * ramp(own_shape, own_spacing, tuple(origin))).astype(dtype)
        if offset_z is not None:
            group["CH1"].attrs["OffsetZ"] = [offset_z]
            group.attrs["OffsetZ"] = [offset_z]
    return ramp(shape, spacing, (0, 0, 0))


@pytest.mark.parametrize("offset_z", [None, 1.5])
def test_fluorescence_lies_where_its_grid_says(tmp_path: Path, offset_z: float | None) -> None:
    truth = with_fluorescence(tmp_path / "a.TCF", offset_z)
    volume = read_tcf(tmp_path / "a.TCF")
    assert volume.channels == ("RI", "CH0", "CH1")
    z = slice(1, 7) if offset_z is None else slice(2, 8)
    inside = (z, slice(2, 7), slice(2, 9))
    np.testing.assert_allclose(volume.frame(0, "CH0")[inside], truth[inside], rtol=1e-5)
    np.testing.assert_allclose(volume.frame(0, "CH1")[inside], 2 * truth[inside], rtol=1e-5)
    assert volume.frame(0, "CH0")[0, 0, 0] == 0  # outside its field
    own = read_fluorescence(tmp_path / "a.TCF")
    assert own.shape == (1, 2, 6, 25, 31)
    assert own.spacing_um == (1.25, 0.1, 0.1)
    np.testing.assert_allclose(own.frame(0, "CH0"), ramp(own.shape[2:], own.spacing_um, own.origin_um), rtol=1e-5)


def test_fluorescence_on_the_same_grid_is_left_as_it_is(tmp_path: Path) -> None:
    light = np.random.default_rng(0).integers(0, 60000, (1, 4, 6, 8)).astype(np.uint16)
    green = Volume.from_array(light, "tzyx", SPACING, ("CH0",))
    write_tcf(tmp_path / "a.TCF", tomogram(1, (4, 6, 8)), SPACING, 1.337, fluorescence=green)
    np.testing.assert_array_equal(read_tcf(tmp_path / "a.TCF").frame(0, "CH0"), light[0])
    assert read_fluorescence(tmp_path / "a.TCF").frame(0, 0).dtype == np.float32


def test_fewer_fluorescence_frames_are_matched_by_time(tmp_path: Path) -> None:
    light = np.stack([np.full((2, 4, 4), v) for v in (10, 20)]).astype(np.uint8)
    green = Volume.from_array(light, "tzyx", (1, 1, 1), ("CH0",), times_s=(0, 120))
    path = tmp_path / "a.TCF"
    write_tcf(path, tomogram(5, (2, 4, 4)), (1, 1, 1), 1.337, times_s=(0, 30, 59, 61, 120), fluorescence=green)
    volume = read_tcf(path)
    assert [volume.frame(t, "CH0")[0, 0, 0] for t in range(5)] == [10, 10, 10, 20, 20]
    with h5py.File(path, "a") as file:
        for t in (0, 1):
            node = file[f"Data/3DFL/CH0/{t:06d}"]
            del node.attrs["Time"], node.attrs["RecordingTime"]
    assert [read_tcf(path).frame(t, "CH0")[0, 0, 0] for t in range(5)] == [10, 20, 20, 20, 20]


def test_a_file_without_fluorescence_says_so(tcf: Path) -> None:
    with pytest.raises(InputError, match=r"cell\.TCF: no fluorescence"):
        read_fluorescence(tcf)


# The real cell


@pytest.mark.real_data
def test_the_real_hl60_cell_reads_as_an_independent_reader_reads_it() -> None:
    folder = os.environ.get("CYTOVOX_DATA")
    if not folder:
        pytest.skip("CYTOVOX_DATA does not name the folder of real data")
    path = Path(folder) / "tomograms" / "hl60.TCF"
    volume, other = read_tcf(path), TCFile(str(path), "3D")
    assert volume.shape == (2, 1, 96, 96, 96)
    assert volume.spacing_um == pytest.approx((0.139, 0.139, 0.139))
    assert volume.medium_ri == 1.335
    assert volume.times_s == (0.0, 60.0)
    for t in range(2):
        np.testing.assert_allclose(volume.frame(t), other[t], atol=1e-6)
    assert 1.33 < volume.frame(0).min() < volume.frame(0).max() < 1.37
