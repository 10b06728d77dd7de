"""Safe unpacking of downloaded zip archives: no file outside the folder, no links, all files or none."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.io.deletion import foreign_file

#: Largest ratio of the unpacked size to the size of the archive; images do not reach it.
MOST_GROWTH = 1000

#: Names of files and folders that other programs add to archives.
_LITTER = {"__MACOSX", ".DS_Store"}


def unzip(archive: str | Path, folder: str | Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Unpack an archive into a new folder.

    Parameters
    ----------
    archive : path
        Zip archive.
    folder : path
        Folder for its content. If an archive was unpacked there before, the folder is replaced once all files have been
        unpacked.
    progress : callable, optional
        Called with (number of files done, number of all files).

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        The archive is damaged or encrypted, would fill the disk, or has a link or a member outside the folder; or the
        folder contains other files, or is a file or a link.
    """
    archive, folder = Path(archive), Path(folder)
    require_replaceable(folder)
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [
                m for m in packed.infolist() if not m.is_dir() and _LITTER.isdisjoint(PurePosixPath(m.filename).parts)
            ]
            _refuse_bad(archive, members, folder)
            with atomic_path(folder) as temporary:
                temporary.mkdir()
                for done, member in enumerate(members, start=1):
                    target = temporary / PurePosixPath(member.filename)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with packed.open(member) as source, target.open("xb") as copy:
                        shutil.copyfileobj(source, copy, 1 << 20)
                    if progress is not None:
                        progress(done, len(members))
    except FileNotFoundError:
        raise InputError(f"{archive}: no such file") from None
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{archive}: has {error.filename} twice: not unpacked") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{archive}: damaged zip archive ({error}): delete it and download it again") from error
    return folder


def require_replaceable(folder: Path) -> None:
    """Check that a folder does not exist, or was unpacked by an earlier call.

    Raises
    ------
    InputError
        The folder has a file that its manifest does not list, or lists with another size; or it is a link or a file.
    """
    if os.path.lexists(folder) and (foreign := foreign_file(folder) if folder.is_dir() else ".") is not None:
        what = "was not unpacked here" if foreign == "." else f"contains {foreign}, which is not from the archive"
        raise InputError(f"{folder}: exists, and {what}: move it away, or choose another --out")


def require_space(folder: Path, size: int, action: str) -> None:
    """Raise InputError if the disk of a folder has less free space than `size` bytes; `action` is a verb for it."""
    free = shutil.disk_usage(next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())).free
    if size > free:
        raise InputError(
            f"{folder}: {size / 1e6:.0f} MB to {action} and {free / 1e6:.0f} MB free on the disk that holds it: free "
            "some space, or choose another --out"
        )


def _refuse_bad(archive: Path, members: list[zipfile.ZipInfo], folder: Path) -> None:
    for member in members:
        name = member.filename
        strange = PureWindowsPath(name).drive or PureWindowsPath(name).root or "\\" in name
        if strange or ".." in PurePosixPath(name).parts or not PurePosixPath(name).parts:
            raise InputError(f"{archive}: {name!r} would lie outside the folder: not unpacked")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise InputError(f"{archive}: {name!r} is a link or a device, not a file: not unpacked")
        if member.flag_bits & 1:
            raise InputError(f"{archive}: {name!r} is encrypted: expected an archive without a password")
    total = sum(m.file_size for m in members)
    if total > MOST_GROWTH * max(1, archive.stat().st_size):
        raise InputError(
            f"{archive}: would unpack to more than {MOST_GROWTH} times its size, {total / 1e9:.1f} GB: not unpacked"
        )
    require_space(folder, total, "unpack")
