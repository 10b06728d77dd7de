"""Write files atomically: each is written under a temporary name, then renamed."""

import errno
import itertools
import os
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.deletion import PART, foreign_file, note_folder, remove_own_folder, remove_temporary

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_IMPOSSIBLE = {errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EISDIR, errno.EFBIG}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success, remove it after an error.

    The temporary name starts with a dot. It keeps the suffixes of `path`, because some writers choose the format by
    them. Missing parent folders are created. The result may be a file or a folder. `put_in_place` explains how existing
    files and folders are replaced. Close the file before the block ends, because Windows does not rename an open file.

    Parameters
    ----------
    path : str or Path
        Final path of the result.

    Yields
    ------
    Path
        Temporary path, in the same folder as `path`.

    Raises
    ------
    InputError
        No space is left, or `path` may not be written. Any other exception is not changed.
    """
    final = Path(path)
    temporary = final.with_name(f"{PART}{uuid.uuid4().hex[:12]}{''.join(final.suffixes[-2:])[-40:]}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        put_in_place(temporary, final)
    except (OSError, RuntimeError) as error:  # h5py reports a full disk as either
        remove_temporary(temporary)
        reason = write_error(error, final, temporary)
        if reason is None:
            raise
        raise reason from error
    except BaseException:
        remove_temporary(temporary)
        raise


def write_error(error: BaseException, path: Path, temporary: Path | None = None) -> InputError | None:
    """Return the message for an error in writing `path`; None if the user cannot fix it.

    Parameters
    ----------
    error : exception
        Error of Python, or of HDF5, which has the error number only in its message.
    path : Path
        File to write.
    temporary : Path, optional
        Temporary name of the file. An error about any other file is not an error of writing.
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
    """Rename a complete file or folder to its final name on the same disk.

    A file replaces a file or a link, but not the target of the link. Its permissions follow the umask, because some
    libraries write files that only their user can read.

    A folder replaces an earlier folder that this function put there, if no file was added to it since. Any other folder
    belongs to the user. It is kept beside the new one under another name, and one line reports this.
    """
    if not temporary.is_dir():
        _obey_umask(temporary)
        os.replace(temporary, final)
        return
    if not final.is_dir() and not final.is_symlink():
        note_folder(temporary, final)
        os.replace(temporary, final)
        return
    foreign = None if final.is_symlink() else foreign_file(final)
    aside = final.with_name(f"{PART}{uuid.uuid4().hex[:12]}.old") if foreign is None else _kept(final)
    note_folder(temporary, final)
    os.replace(final, aside)
    try:
        os.replace(temporary, final)
    except BaseException:
        os.replace(aside, final)
        raise
    if foreign is None:
        remove_own_folder(aside)
        return
    what = "which Cytovox did not write" if foreign == "." else f"with {foreign}, which Cytovox did not write so"
    print(f"note: {final}: there was a folder of this name, {what}: it is kept as {aside}", file=sys.stderr)


def _kept(folder: Path) -> Path:
    """Return the first unused name to which an existing folder can be renamed."""
    return next(
        path for n in itertools.count(1) if not os.path.lexists(path := folder.with_name(f"{folder.name}.kept-{n}"))
    )


def _obey_umask(path: Path) -> None:
    """Set the permissions of a new file according to the umask and the folder's default permissions."""
    if os.name != "posix" or path.is_symlink() or path.stat().st_mode & 0o077:
        return
    probe = path.with_name(f"{PART}{uuid.uuid4().hex[:12]}.mode")  # the umask cannot be read without changing it
    try:
        number = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        mode = os.fstat(number).st_mode & 0o777
        os.close(number)
    finally:
        remove_temporary(probe)
    if mode & 0o077:
        path.chmod(mode)
