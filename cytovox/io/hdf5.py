"""Read and write HDF5 files of unknown origin, without external links. Errors are one line."""

import contextlib
import importlib.util
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from cytovox.errors import InputError

with contextlib.suppress(ModuleNotFoundError):
    import hdf5plugin  # noqa: F401  registers the compression filters that microscopes use

_MOST_LINKS = 16


@contextmanager
def open_hdf5(path: Path, kind: str = "HDF5") -> Iterator[h5py.File]:
    """Open a file for reading, and close it; errors of HDF5 become an InputError that names the file."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder: expected a {kind} file")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty: expected a {kind} file; copy it again from the microscope")
    try:
        path.open("rb").close()
        if not h5py.is_hdf5(path):
            raise InputError(f"{path}: not a {kind} file (no HDF5 signature): it is of another kind, or damaged")
        # "best-effort": network disks often have no locks, and a reader needs none
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except PermissionError as error:
        raise InputError(f"{path}: may not be read: check its permissions") from error
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if ("filter" in reason or "plugin" in reason) and importlib.util.find_spec("hdf5plugin") is None:
            raise InputError(f"{path}: compressed by a filter that is not installed: pip install hdf5plugin") from error
        raise InputError(f"{path}: cannot be read, truncated or damaged ({reason}): copy it again") from error


def locate(file: h5py.File, where: str) -> h5py.Group | h5py.Dataset | None:
    """Return the object at an absolute path; None if there is none. Links to other files are refused."""
    return _walk(file, where, _MOST_LINKS)


def _walk(start: h5py.Group, where: str, links_left: int) -> h5py.Group | h5py.Dataset | None:
    node: h5py.Group | h5py.Dataset = start.file if where.startswith("/") else start
    for name in filter(None, where.split("/")):
        if not isinstance(node, h5py.Group):
            return None
        link = node.get(name, getlink=True)
        if link is None:
            return None
        if isinstance(link, h5py.SoftLink):
            if links_left == 0:
                raise InputError(f"{start.file.filename}: {node.name}/{name}: links run in a circle")
            target = _walk(node, link.path, links_left - 1)
        elif isinstance(link, h5py.HardLink):
            target = _open(node, name)
        else:
            raise InputError(
                f"{start.file.filename}: {node.name.rstrip('/')}/{name} is an external link: data outside the file are "
                "not read; copy them into it (h5repack, or the microscope's export)"
            )
        if target is None:
            return None
        node = target
    return node


def _open(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    try:
        node = group[name]
    except KeyError as error:  # a header that cannot be decoded
        raise InputError(f"{group.file.filename}: {group.name}/{name}: damaged ({error})") from error
    if isinstance(node, h5py.Dataset) and (node.external or node.is_virtual):
        raise InputError(
            f"{group.file.filename}: {node.name} keeps its voxels in other files: data outside the file are not read; "
            "copy them into it (h5repack, or the microscope's export)"
        )
    return node if isinstance(node, (h5py.Group, h5py.Dataset)) else None


def names_like(group: h5py.Group, pattern: str) -> list[str]:
    """Return the sorted names in a group that match a regular expression; h5py returns damaged names as bytes."""
    return sorted(name for name in group if isinstance(name, str) and re.fullmatch(pattern, name))


def attribute(node: h5py.Group | h5py.Dataset | None, name: str) -> str | float | int | None:
    """Return an attribute as a plain value, stored as a scalar, array of length 1, bytes or str; None if absent."""
    if node is None or name not in node.attrs:
        return None
    try:
        value = node.attrs[name]
    except (TypeError, ValueError, KeyError) as error:  # the attribute has an invalid type
        raise InputError(f"{node.file.filename}: {node.name}: attribute {name} is damaged ({error})") from error
    if isinstance(value, h5py.Empty):
        return None
    if hasattr(value, "ravel"):
        if value.size == 0:
            return None
        value = value.ravel()[0]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return value.strip("\0 ") if isinstance(value, str) else value


def number(node: h5py.Group | h5py.Dataset | None, name: str) -> float | None:
    """Return an attribute as a float; None if it is absent or no number."""
    value = attribute(node, name)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


class Sink(io.RawIOBase):
    """File object that HDF5 writes to and that stores write errors, to be raised in Python.

    If a disk is full, HDF5 cannot close its file, and later crashes the process. This object stores the first error and
    writes all later data to memory, so that HDF5 can close the file. `check` raises the stored error. Call it after
    each frame.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("w+b", buffering=0)
        self._spilt: list[tuple[int, bytes]] = []
        self._at = self._end = 0
        self.error: OSError | None = None

    def check(self) -> None:
        """Raise the error that occurred during writing, if any."""
        if self.error is not None:
            raise self.error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            self._file.seek(self._at)
            while self.error is None and done < len(view):
                done += self._file.write(view[done:]) or 0
        except OSError as error:
            self.error = error
        if done < len(view):
            self._spilt.append((self._at + done, bytes(view[done:])))
        self._at += len(view)
        self._end = max(self._end, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._file.seek(self._at)
        found = self._file.read(len(view)) or b""
        view[:] = found.ljust(len(view), b"\0")
        for start, piece in self._spilt:
            first, last = max(start, self._at), min(start + len(piece), self._at + len(view))
            if first < last:
                view[first - self._at : last - self._at] = piece[first - start : last - start]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._end = self._at if size is None else size
        if self.error is None:
            self._file.truncate(self._end)
        return self._end

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def create_hdf5(path: Path) -> Iterator[tuple[h5py.File, Sink]]:
    """Write an HDF5 file; a full disk raises OSError, independent of the error of HDF5."""
    with Sink(path) as sink:
        with h5py.File(sink, "w") as file:
            yield file, sink
        sink.check()
