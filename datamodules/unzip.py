"""Unpack a zip archive that somebody else made: inside its folder, no links, whole or not there."""

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

#: An archive that unpacks to more than this many times its own size is no set of images.
MOST_GROWTH = 1000

#: What other programs leave in archives.
_LITTER = ("__MACOSX", ".DS_Store")


def unzip(archive: str | Path, folder: str | Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Unpack an archive into a new folder.

    Parameters
    ----------
    archive : path
    folder : path
        Where its content shall lie; what was unpacked there before is replaced when all has been unpacked.
    progress : callable, optional
        Called with (files done, files in all).

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        A damaged or encrypted archive, a member that would lie outside the folder, a link, an archive that would fill
        the disk; or a folder, file or link of that name which holds anything else.
    """
    archive, folder = Path(archive), Path(folder)
    require_replaceable(folder)
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [m for m in packed.infolist() if not m.is_dir() and not _is_litter(m)]
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
        raise InputError(f"{archive}: holds {error.filename} twice: not unpacked") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{archive}: a damaged zip archive ({error}): delete it and fetch it again") from error
    return folder


def require_replaceable(folder: Path) -> None:
    """Refuse to unpack over what no earlier call unpacked.

    Raises
    ------
    InputError
        A folder with a file that its manifest does not list, or has with another size; a link; a file.
    """
    if not os.path.lexists(folder):
        return
    foreign = foreign_file(folder) if folder.is_dir() else "."
    if foreign is not None:
        what = "was not unpacked here" if foreign == "." else f"holds {foreign}, which is not from the archive"
        raise InputError(f"{folder}: is there, and {what}: move it away, or choose another --out")


def _is_litter(member: zipfile.ZipInfo) -> bool:
    return any(part in _LITTER for part in PurePosixPath(member.filename).parts)


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
        raise InputError(f"{archive}: would grow {MOST_GROWTH}-fold and more, to {total / 1e9:.1f} GB: not unpacked")
    parent = next(p for p in folder.absolute().parents if p.is_dir())
    free = shutil.disk_usage(parent).free
    if total > free:
        raise InputError(
            f"{folder}: {total / 1e6:.0f} MB to unpack and {free / 1e6:.0f} MB free on the disk that holds it: free "
            "some space, or choose another --out"
        )
