"""Broken and hostile TCF files: one line that names the file, and nothing read from outside it."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.io.hdf5 import Sink
from cytovox.io.tcf import read_tcf
from cytovox.io.tcf_writer import write_tcf


@pytest.fixture
def tcf(tmp_path: Path) -> Path:
    ri = np.random.default_rng(1).uniform(1.33, 1.4, (2, 4, 6, 8))
    return write_tcf(tmp_path / "cell.TCF", ri, (0.9, 0.2, 0.1), 1.337, times_s=(0, 30))


def read_whole(path: Path) -> None:
    volume = read_tcf(path)
    for t in range(volume.shape[0]):
        volume.frame(t)


def error(path: Path) -> str:
    """The one line that reading the whole file gives."""
    with pytest.raises(InputError) as raised:
        read_whole(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)
    return str(raised.value)


def test_a_missing_file_a_folder_and_an_empty_file_are_distinguished(tmp_path: Path) -> None:
    (tmp_path / "folder.TCF").mkdir()
    (tmp_path / "empty.TCF").write_bytes(b"")
    (tmp_path / "text.TCF").write_text("no tomogram at all, but some words about one" * 20)
    assert "no such file" in error(tmp_path / "nowhere.TCF")
    assert "is a folder" in error(tmp_path / "folder.TCF")
    assert "empty" in error(tmp_path / "empty.TCF")
    assert "not a TCF file" in error(tmp_path / "text.TCF")


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_named(tcf: Path, kept: float) -> None:
    whole = tcf.read_bytes()
    tcf.write_bytes(whole[: int(len(whole) * kept)])
    assert "truncated or damaged" in error(tcf)


def test_voxels_that_cannot_be_decompressed_are_named(tcf: Path) -> None:
    with h5py.File(tcf) as file:
        chunk = file["Data/3D/000001"].id.get_chunk_info(0)
    data = bytearray(tcf.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    tcf.write_bytes(bytes(data))
    assert "truncated or damaged" in error(tcf)


def no_tomogram(file: h5py.File) -> None:
    del file["Data/3D"]


def no_data(file: h5py.File) -> None:
    del file["Data"]


def no_resolution(file: h5py.File) -> None:
    del file["Data/3D"].attrs["ResolutionZ"]


def zero_resolution(file: h5py.File) -> None:
    file["Data/3D"].attrs["ResolutionY"] = [0.0]


def lost_frame(file: h5py.File) -> None:
    del file["Data/3D/000001"]


def flat_frame(file: h5py.File) -> None:
    del file["Data/3D/000001"]
    file["Data/3D/000001"] = np.zeros((6, 8), np.uint16)


def other_shape(file: h5py.File) -> None:
    del file["Data/3D/000001"]
    file["Data/3D/000001"] = np.zeros((4, 6, 9), np.uint16)


def other_size(file: h5py.File) -> None:
    file["Data/3D"].attrs["SizeX"] = [80]


def text_voxels(file: h5py.File) -> None:
    del file["Data/3D/000001"]
    file["Data/3D/000001"] = np.full((4, 6, 8), b"x")


def bytes_without_minimum(file: h5py.File) -> None:
    del file["Data/3D/000001"]
    file["Data/3D/000001"] = np.ones((4, 6, 8), np.uint8)
    del file["Data/3D"].attrs["RIMin"]


def tiles_of_nothing(file: h5py.File) -> None:
    del file["Data/3D/000001"]
    file.create_group("Data/3D/000001")


def tile_outside(file: h5py.File) -> None:
    tiles_of_nothing(file)
    tile = file["Data/3D/000001"].create_dataset("TILE_0", data=np.ones((4, 6, 8), np.uint16))
    for axis, last in zip("ZYX", (3, 5, 8), strict=True):
        tile.attrs[f"DataIndexOffsetPoint{axis}"], tile.attrs[f"DataIndexLastPoint{axis}"] = [0], [last]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (no_tomogram, "no tomogram (Data/3D)"),
        (no_data, "no tomogram (Data/3D)"),
        (no_resolution, "no voxel size"),
        (zero_resolution, "three positive lengths"),
        (lost_frame, "1 of 2 frames"),
        (flat_frame, "000001 has shape (6, 8)"),
        (other_shape, "expected (z, y, x) = (4, 6, 8)"),
        (other_size, "expected (z, y, x) = (4, 6, 80)"),
        (text_voxels, "expected integers or floats"),
        (bytes_without_minimum, "without RIMin"),
        (tiles_of_nothing, "no tile"),
        (tile_outside, "does not lie inside its frame"),
    ],
)
def test_what_is_missing_or_wrong_is_said(tcf: Path, damage: Callable[[h5py.File], None], said: str) -> None:
    with h5py.File(tcf, "a") as file:
        damage(file)
    assert said in error(tcf)


def external_link(file: h5py.File, secret: Path) -> None:
    file["Data/3D/000001"] = h5py.ExternalLink(str(secret), "/voxels")


def external_group(file: h5py.File, secret: Path) -> None:
    del file["Data/3D"]
    file["Data/3D"] = h5py.ExternalLink(str(secret), "/")


def soft_link_to_external(file: h5py.File, secret: Path) -> None:
    file["elsewhere"] = h5py.ExternalLink(str(secret), "/")
    file["Data/3D/000001"] = h5py.SoftLink("/elsewhere/voxels")


def external_storage(file: h5py.File, secret: Path) -> None:
    file["Data/3D"].create_dataset("000001", (4, 6, 8), np.uint16, external=[(str(secret), 0, 384)])


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4, 6, 8), np.uint16)
    layout[:] = h5py.VirtualSource(str(secret), "voxels", (4, 6, 8))
    file["Data/3D"].create_virtual_dataset("000001", layout)


def circle(file: h5py.File, _: Path) -> None:
    file["a"] = h5py.SoftLink("/b")
    file["b"] = h5py.SoftLink("/a")
    file["Data/3D/000001"] = h5py.SoftLink("/a")


@pytest.mark.parametrize(
    "trick", [external_link, external_group, soft_link_to_external, external_storage, virtual, circle]
)
def test_nothing_is_read_from_outside_the_file(tcf: Path, trick: Callable[[h5py.File, Path], None]) -> None:
    secret = tcf.with_name("secret.h5")
    with h5py.File(secret, "w") as file:
        file["voxels"] = np.full((4, 6, 8), 13370, np.uint16)
    with h5py.File(tcf, "a") as file:
        del file["Data/3D/000001"]
        trick(file, secret)
    assert any(words in error(tcf) for words in ("outside the file", "links run in a circle"))


def test_a_soft_link_inside_the_file_is_followed(tcf: Path) -> None:
    with h5py.File(tcf, "a") as file:
        file["Data/kept"] = file["Data/3D/000001"]
        del file["Data/3D/000001"]
        file["Data/3D/000001"] = h5py.SoftLink("../nothing")
    assert "000001" in error(tcf)
    with h5py.File(tcf, "a") as file:
        del file["Data/3D/000001"]
        file["Data/3D/000001"] = h5py.SoftLink("/Data/kept")
    assert read_tcf(tcf).frame(1).shape == (4, 6, 8)


class FullDisk:
    """A file that takes so many bytes and no more."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: memoryview) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(data[: self.room])
        self.room -= written
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 100, 2000, 20_000, 100_000])
def test_a_disk_that_fills_up_while_hdf5_writes_is_one_line(tmp_path: Path, monkeypatch: Any, room: int) -> None:
    real = Sink.__init__

    def init(sink: Sink, path: Path) -> None:
        real(sink, path)
        sink._file = FullDisk(sink._file, room)  # type: ignore[assignment]

    monkeypatch.setattr(Sink, "__init__", init)
    ri = np.random.default_rng(1).uniform(1.33, 1.4, (4, 20, 50, 60))
    asked = []

    def frames() -> Any:
        for t in range(4):
            asked.append(t)
            yield ri[t]

    with pytest.raises(InputError, match=r"a\.TCF: no space left on"):
        write_tcf(tmp_path / "a.TCF", frames(), (1, 1, 1), 1.337, times_s=range(4))
    assert list(tmp_path.iterdir()) == []
    assert len(asked) < 4  # those that follow are not computed for nothing


@pytest.mark.parametrize("room", [0, 7, 50, 1000])
def test_what_a_full_disk_did_not_take_is_read_back_all_the_same(tmp_path: Path, room: int) -> None:
    rng = np.random.default_rng(room)
    truth = bytearray()
    with Sink(tmp_path / "a") as sink:
        sink._file = FullDisk(sink._file, room)  # type: ignore[assignment]
        for _ in range(30):
            at, data = int(rng.integers(0, 200)), rng.bytes(int(rng.integers(1, 40)))
            sink.seek(at)
            assert sink.write(data) == len(data)
            truth = truth.ljust(at, b"\0")
            truth[at : at + len(data)] = data
            assert sink.seek(0, 2) == len(truth)
        held = bytearray(len(truth))
        sink.seek(0)
        sink.readinto(held)
        assert held == truth
        if room < 500:
            with pytest.raises(OSError, match="No space left"):
                sink.check()
