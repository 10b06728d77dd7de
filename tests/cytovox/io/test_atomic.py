"""Files are whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.io.deletion import sweep


def write_half(path: Path, error: Exception) -> None:
    with atomic_path(path) as part:
        part.write_bytes(b"half")
        raise error


def test_a_finished_file_takes_its_name_and_leaves_nothing_else(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "a.ome.tif") as part:
        assert part.parent == tmp_path / "new"
        assert part.name.endswith(".ome.tif")
        part.write_bytes(b"whole")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.ome.tif"]


def test_an_exception_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "a.txt", ZeroDivisionError())
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),
        RuntimeError("Unable to flush (errno = 28, error message = 'No space left on device')"),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(InputError, match=r"a\.TCF: no space left on") as caught:
        write_half(tmp_path / "a.TCF", error)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_forbidden_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="may not be written"), atomic_path(tmp_path / "a.txt") as part:
        raise OSError(errno.EROFS, "Read-only file system", os.fspath(part))


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written there"), atomic_path(tmp_path / "file" / "a.txt"):
        raise AssertionError("the block must not be entered")


def test_an_error_about_another_file_passes_unchanged(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), atomic_path(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(tmp_path / "input.TCF"))


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with atomic_path(tmp_path / "a.zarr") as part:
            part.mkdir()
            (part / text).write_text(text)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.zarr.written.json", "a.zarr"]
    assert [p.name for p in (tmp_path / "a.zarr").iterdir()] == ["second"]


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    writing = [atomic_path(tmp_path / "a.txt"), atomic_path(tmp_path / "deep" / "b.ome.zarr")]
    file, folder = (left.__enter__() for left in writing)  # held and never left, as in a process that was killed
    file.write_text("half")
    folder.mkdir()
    (folder / "zarr.json").write_text("half")
    (tmp_path / "deep" / "whole.txt").write_text("whole")
    assert len(list(tmp_path.rglob(".part-*"))) == 2
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "whole.txt"]
