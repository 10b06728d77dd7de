"""Files that are whole or not there: written under a temporary name, then renamed."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from formats.errors import InputError

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_IMPOSSIBLE = {errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EISDIR, errno.EFBIG}


#: How temporary names begin.
_PART = ".part-"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well, remove it when not.

    The temporary name starts with a dot and keeps the suffixes of `path`, for writers that choose a format by
    them. Missing parent folders are made. What is written may be a file or a folder; a folder takes the place of an
    existing one in two renames. Close the file before the block ends: Windows does not rename an open one.

    Parameters
    ----------
    path : str or Path
        Where the result shall lie.

    Yields
    ------
    Path
        The name to write to, in the same folder as `path`.

    Raises
    ------
    InputError
        No space left, or `path` may not be written. Any other exception passes unchanged.
    """
    final = Path(path)
    temporary = final.with_name(f"{_PART}{uuid.uuid4().hex[:12]}{''.join(final.suffixes[-2:])[-40:]}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        put_in_place(temporary, final)
    except (OSError, RuntimeError) as error:  # h5py reports a full disk as either
        _remove(temporary)
        fault = write_fault(error, final, temporary)
        if fault is None:
            raise
        raise fault from error
    except BaseException:
        _remove(temporary)
        raise


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder and below; only where nobody else is writing."""
    for path in sorted(folder.rglob(f"{_PART}*")):
        _remove(path)


def write_fault(error: BaseException, path: Path, temporary: Path | None = None) -> InputError | None:
    """What the user should be told when writing `path` raised `error`; None where it is no fault of theirs.

    Parameters
    ----------
    error : exception
        As raised by Python, or by HDF5, which names the number only in its message.
    path : Path
        What was to be written.
    temporary : Path, optional
        The name it was written under. An error about some third file is not about writing.
    """
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"errno = (\d+)", str(error))):
        number = int(found.group(1))
    if number in _FULL:
        return InputError(f"{path}: no space left on the disk that holds it: free some space, or write elsewhere")
    named = getattr(error, "filename", None)
    ours = {os.fspath(p) for p in (path, temporary, *path.parents) if p is not None}
    if named is not None and os.fsdecode(named) not in ours:
        return None
    if number in _FORBIDDEN:
        return InputError(
            f"{path}: may not be written: check the folder's permissions and that no other program has the file open"
        )
    if number in _IMPOSSIBLE:
        return InputError(
            f"{path}: cannot be written there ({error.strerror if isinstance(error, OSError) else error})"
        )
    return None


def put_in_place(temporary: Path, final: Path) -> None:
    """Give a finished file or folder its name, on the same disk.

    A folder that is already there is moved aside first, and removed when the new one lies in its place.
    """
    if not (temporary.is_dir() and final.is_dir()):
        os.replace(temporary, final)
        return
    aside = final.with_name(f"{_PART}{uuid.uuid4().hex[:12]}.old")
    os.replace(final, aside)
    try:
        os.replace(temporary, final)
    except BaseException:
        os.replace(aside, final)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the error that brought us here is the one worth telling
        return
