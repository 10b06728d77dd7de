"""Delete only files and folders that the program wrote, inside their folder, without following links.

No other module removes files or folders; a test checks this. A file is removed by its path inside a folder of the
program (`remove_file`), or by a manifest of the written files (`Manifest`). A folder is removed in three cases: this
process created it (`MadeFolder`), it is a working folder with a marker file (`make_scratch`), or its manifest lists all
of its files (`foreign_file`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.names import LONGEST, safe_name

#: Start of temporary names; a random text follows.
PART = ".part-"
_PART_NAME = re.compile(r"\.part-(?:[0-9a-f]{12}.*|bricks-[a-z0-9_]{8})", re.DOTALL)
#: File that marks a working folder as the program's own.
SCRATCH = ".cytovox-scratch"
#: Folder of a run's manifests.
WRITTEN = ".written"


class NotOurs(InputError):
    """Error: a file or folder to be removed was not written by this program."""


def require_inside(path: Path, within: Path) -> Path:
    """Return the path with its folders resolved; raise an error if a link leads to another folder.

    Parameters
    ----------
    path : Path
        Path to remove or replace.
    within : Path
        Folder that must contain it; the path of this folder may contain links.

    Raises
    ------
    NotOurs
        The path leaves the folder, by `..` or through a link.
    """
    root = within.resolve()
    try:
        relative = Path(os.path.abspath(path)).relative_to(Path(os.path.abspath(within)))
    except ValueError:
        relative = Path(os.path.abspath(path.parent.resolve() / path.name))
        relative = relative.relative_to(root) if relative.is_relative_to(root) else Path()
    climbs = path.is_relative_to(within) and ".." in path.relative_to(within).parts
    if not relative.name or climbs or (root / relative).parent.resolve() != (root / relative).parent:
        raise NotOurs(f"{path}: does not lie in {within} itself, but outside or behind a link: it is left as it is")
    return root / relative


def remove_file(path: Path, within: Path) -> None:
    """Remove a file that the program wrote; a link is removed without its target. A missing file is not an error.

    Raises
    ------
    NotOurs
        The path leaves `within`, by `..` or through a link, or is a folder.
    """
    if not (path.exists() or path.is_symlink()):
        return
    found = require_inside(path, within)
    if found.is_dir() and not found.is_symlink():
        raise NotOurs(f"{path}: is a folder where a file was expected: it is left as it is")
    found.unlink(missing_ok=True)


def remove_temporary(path: Path) -> None:
    """Remove a temporary file; errors are ignored, because another exception is being handled."""
    if not _PART_NAME.fullmatch(path.name):
        raise NotOurs(f"{path}: is no temporary name")
    _remove_any(path)


def sweep(folder: Path) -> None:
    """Remove incomplete files of killed processes below a folder; no other process may be writing there.

    Links are not followed, the folder itself included.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    for here, folders, files in os.walk(folder, followlinks=False):
        for name in [*folders, *files]:
            if _PART_NAME.fullmatch(name):
                _remove_any(Path(here) / name)
        folders[:] = [name for name in folders if not _PART_NAME.fullmatch(name)]


def _remove_any(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)  # removes links in it, but not their targets
        return
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def make_scratch(folder: Path) -> None:
    """Create a working folder that can be removed later; an existing empty folder is reused.

    Raises
    ------
    NotOurs
        The name belongs to something else.
    """
    if folder.is_symlink() or (folder.exists() and not _is_scratch(folder)):
        raise NotOurs(_taken(folder))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCRATCH).touch()


def remove_scratch(folder: Path) -> None:
    """Remove a working folder of `make_scratch` with its content. A missing folder is not an error.

    Raises
    ------
    NotOurs
        The path is a link, or the folder has no marker file.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not _is_scratch(folder):
        raise NotOurs(_taken(folder))
    shutil.rmtree(folder, ignore_errors=True)


def remove_in_scratch(path: Path, scratch: Path) -> None:
    """Remove a file or folder inside a working folder that contains the marker file.

    Raises
    ------
    NotOurs
        The path is not inside the folder, or the folder has no marker file.
    """
    if scratch.is_symlink() or not (scratch / SCRATCH).is_file():
        raise NotOurs(_taken(scratch))
    if path.exists() or path.is_symlink():
        _remove_any(require_inside(path, scratch))


def _is_scratch(folder: Path) -> bool:
    """Return whether a folder has the marker file or is empty: its process may have ended before writing the marker."""
    return folder.is_dir() and ((folder / SCRATCH).is_file() or not any(folder.iterdir()))


def _taken(folder: Path) -> str:
    what = "is a link" if folder.is_symlink() else "was not made by Cytovox"
    return f"{folder}: a working folder would lie here, but this {what}: move it away, then run again"


@dataclass(frozen=True)
class MadeFolder:
    """A folder that this process created."""

    path: Path
    device: int
    inode: int

    @classmethod
    def make(cls, path: Path) -> MadeFolder | None:
        """Create a folder with its parents; return None if it exists already."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            return None
        found = path.lstat()
        return cls(path, found.st_dev, found.st_ino)

    def remove(self) -> None:
        """Remove the folder with its content; do nothing if another folder has its name now."""
        with contextlib.suppress(OSError):
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == (self.device, self.inode) and not self.path.is_symlink():
                shutil.rmtree(self.path, ignore_errors=True)


def remove_if_empty(folder: Path) -> None:
    """Remove an empty folder; links and folders with content are kept."""
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            folder.rmdir()


class Manifest:
    """Files that a step wrote into a run folder. Only these are removed when the step is repeated.

    Parameters
    ----------
    root : Path
        The run folder.
    name : str
        Name of the step and its input. Two processes never write the same manifest at the same time.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root, self.file = root, root / WRITTEN / f"{safe_name(name)}.jsonl"

    def add(self, path: Path) -> Path:
        """Add a file that was just written, and return its path; a file that was not needed may be missing."""
        if not path.is_file():
            return path
        self.file.parent.mkdir(parents=True, exist_ok=True)
        relative = Path(os.path.abspath(path)).relative_to(Path(os.path.abspath(self.root))).as_posix()
        line = json.dumps({"path": relative, "size": path.stat().st_size, "digest": _digest(path)})
        with self.file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        return path

    def listed(self) -> dict[str, tuple[int, str]]:
        """Return the size and digest of every listed file by its path in the run folder."""
        found: dict[str, tuple[int, str]] = {}
        with contextlib.suppress(OSError):
            for line in self.file.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # incomplete line of a killed process
                    entry = json.loads(line)
                    found[str(entry["path"])] = (int(entry["size"]), str(entry["digest"]))
        return found

    def require_free(self, paths: Iterable[Path]) -> None:
        """Refuse to overwrite files that this step did not write.

        Raises
        ------
        NotOurs
            There is such a file; the message names the first one.
        """
        known = self.listed()
        for path in paths:
            relative = Path(os.path.abspath(path)).relative_to(Path(os.path.abspath(self.root))).as_posix()
            if os.path.lexists(path) and relative not in known:
                raise NotOurs(f"{path}: is there, and no result of an earlier call: choose another folder")

    def remove_all(self) -> None:
        """Remove every listed file that was not changed since it was written, and folders that are then empty.

        Files that were changed or replaced, and targets of links, are kept.
        """
        folders: set[Path] = set()
        for relative, (size, digest) in self.listed().items():
            path = self.root / relative
            with contextlib.suppress(OSError, NotOurs):
                if path.is_symlink() or path.stat().st_size != size or _digest(path) != digest:
                    continue
                remove_file(path, self.root)
                folders.add(path.parent)
        for folder in sorted(folders, key=lambda path: -len(path.parts)):
            while len(folder.relative_to(self.root).parts) > 1:
                remove_if_empty(folder)
                folder = folder.parent
        remove_file(self.file, self.root)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def note_folder(folder: Path, final: Path) -> None:
    """Write the manifest of a complete folder, with names and sizes of its files, before it is moved to `final`."""
    files = {relative: path.lstat().st_size for relative, path in _files(folder)}
    manifest = _folder_manifest(final)
    if manifest.is_symlink():
        raise NotOurs(f"{manifest}: is a link where a manifest would lie: move it away, then run again")
    manifest.write_text(json.dumps({"files": files}), encoding="utf-8")


def foreign_file(folder: Path) -> str | None:
    """Return a file in a folder that the program did not write or that was changed since; None if there is none.

    Parameters
    ----------
    folder : Path
        Folder of `note_folder`.

    Returns
    -------
    str or None
        Path inside the folder; `.` if there is no manifest, or the folder is a link.
    """
    try:
        known = json.loads(_folder_manifest(folder).read_text(encoding="utf-8"))["files"]
        if folder.is_symlink():
            return "."
        return next((name for name, path in _files(folder) if known.get(name) != path.lstat().st_size), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "."


def has_manifest(folder: Path) -> bool:
    """Return whether this program wrote the folder as a whole; files may have been added since."""
    return folder.is_dir() and not folder.is_symlink() and _folder_manifest(folder).is_file()


def remove_own_folder(aside: Path) -> None:
    """Remove a replaced earlier result, after `foreign_file` found only files written by the program in it.

    Parameters
    ----------
    aside : Path
        Its temporary name. If this is a link, only the link is removed.
    """
    remove_temporary(aside)


def _folder_manifest(folder: Path) -> Path:
    name = folder.name
    if len(name.encode()) > LONGEST:
        name = safe_name(name)
    return folder.with_name(f".{name}.written.json")


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files and links below a folder; links are not followed."""
    for here, folders, files in os.walk(folder, followlinks=False):
        for name in [*files, *(name for name in folders if (Path(here) / name).is_symlink())]:
            path = Path(here) / name
            yield path.relative_to(folder).as_posix(), path


#: Folders and files of a run that are written; none of them may be a link.
RUN_PARTS = (
    "checkpoints", "predictions", "tables", "figures", "meshes", "slurm", "retrained", "wandb", ".frames", WRITTEN,
    ".lock", ".lock-status",
)  # fmt: skip


def require_no_links(run: Path) -> None:
    """Raise an error if an output folder of a run is a link: results would be written into another folder.

    Parameters
    ----------
    run : Path
        Run folder; it and its parents may be links.

    Raises
    ------
    NotOurs
        A folder is a link; the message names the link and its target.
    """
    for name in RUN_PARTS:
        path = run / name
        if path.is_symlink():
            raise NotOurs(
                f"{path}: is a link to {os.readlink(path)}: results are not written, and not removed, through a link; "
                "remove the link (and move the folder here), or link the whole run folder"
            )
    frames = run / ".frames"
    if frames.is_dir():
        for entry in os.scandir(frames):
            if entry.is_symlink():
                raise NotOurs(f"{entry.path}: is a link to {os.readlink(entry.path)}: remove it, then run again")
