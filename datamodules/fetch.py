"""Fetch a record's files from Zenodo: resumed where they were cut off, checked, whole or not there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pooch
import requests

from cytovox.errors import InputError
from cytovox.io.atomic import write_error
from cytovox.io.deletion import remove_file

#: Where Zenodo answers, and the record of SHAPR's red blood cells and nuclei (Waibel et al. 2022).
ZENODO_URL = "https://zenodo.org/api"
SHAPES_RECORD = "7031924"

#: Called with (file, bytes done, bytes in all).
Progress = Callable[[str, int, int], None]

#: Times that a download is taken up again without having come any further.
_ATTEMPTS = 3

#: Seconds without a byte.
_PATIENCE_S = 60

#: Before it is taken up again, times the attempts before.
_WAIT_S = 1.0

#: What a cut may lose of the bytes that came.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record."""

    name: str
    size: int
    """Bytes."""
    checksum: str
    """As `pooch` takes it: `md5:` and the digest."""
    url: str


def list_record(record: str = SHAPES_RECORD, url: str = ZENODO_URL) -> list[RemoteFile]:
    """What a record holds.

    Parameters
    ----------
    record : str
        Its number.
    url : str
        The API's base; a mirror answers the same way.

    Raises
    ------
    InputError
        No network, no such record, or an answer that is not a record's.
    """
    where = f"{url.rstrip('/')}/records/{record}"
    try:
        answer = requests.get(where, timeout=_PATIENCE_S, headers={"Accept": "application/json"})
        _refuse_status(answer, where)
        files = answer.json()["files"]
        found = [_remote_file(entry, f"{where}/files") for entry in files]
    except requests.JSONDecodeError as error:
        raise InputError(f"{where}: the answer is not JSON; is this the API of Zenodo or of a mirror?") from error
    except requests.RequestException as error:
        raise _no_network(where, error) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{where}: the answer is no record of files ({error!r}); check the record and the URL"
        ) from error
    if not found:
        raise InputError(f"{where}: the record holds no files, or they are not public")
    return found


def _remote_file(entry: dict[str, Any], files_url: str) -> RemoteFile:
    """Zenodo's records name a file `key` and its checksum `md5:...`; its deposits `filename`, with the bare digest."""
    name = str(entry["key"] if "key" in entry else entry["filename"])
    if name in ("", ".", "..") or any(sign in name for sign in "/\\:\0"):
        raise InputError(f"{files_url}: a file called {name!r} would lie outside the folder: refused")
    checksum = str(entry["checksum"])
    algorithm, _, digest = checksum.rpartition(":")
    link = entry.get("links", {}).get("self") or f"{files_url}/{name}/content"
    known = (algorithm or "md5") in hashlib.algorithms_available and re.fullmatch("[0-9a-fA-F]{16,}", digest)
    if not known or not link.startswith(("https://", "http://")):
        raise ValueError(f"checksum {checksum}, link {link}")
    size = int(entry["size"] if "size" in entry else entry["filesize"])
    return RemoteFile(name, size, f"{algorithm or 'md5'}:{digest}", link)


def fetch_record(
    out: str | Path,
    record: str = SHAPES_RECORD,
    url: str = ZENODO_URL,
    only: str = "*",
    progress: Progress | None = None,
) -> list[Path]:
    """Download a record's files into a folder.

    A file that is there and has its checksum is not fetched again. One that is cut off leaves a hidden `.part` file,
    and the next call goes on from there. A file takes its name when its checksum is right.

    Parameters
    ----------
    out : path
        Made if needed.
    record, url : str
        See `list_record`.
    only : str
        A glob over the files' names.
    progress : callable, optional
        Called with (file, bytes done, bytes in all).

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        No network, a download cut off, a wrong checksum, a full disk, a folder that may not be written.
    """
    out = Path(out).absolute()
    listed = list_record(record, url)
    wanted = [file for file in listed if fnmatchcase(file.name, only)]
    if not wanted:
        raise InputError(
            f"--only {only}: no such file in record {record}; it holds {', '.join(f.name for f in listed)}"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        _refuse_full(out, wanted)
        return [_fetch_file(file, out, progress) for file in wanted]
    except OSError as error:
        named = Path(error.filename) if isinstance(error.filename, str) else None
        refused = write_error(error, out, named if named and named.is_relative_to(out.absolute()) else None)
        if refused is None:
            raise
        raise refused from error


def part_path(out: Path, file: RemoteFile) -> Path:
    """Where the beginning of a file waits for the rest; named by the checksum: no two versions are joined."""
    return out / f".{file.name}.{file.checksum[-12:]}.part"


def _refuse_full(out: Path, files: list[RemoteFile]) -> None:
    missing = sum(
        file.size - (part.stat().st_size if (part := part_path(out, file)).is_file() else 0)
        for file in files
        if not (out / file.name).is_file()
    )
    free = shutil.disk_usage(out).free
    if missing > free:
        raise InputError(
            f"{out}: {missing / 1e6:.0f} MB to fetch and {free / 1e6:.0f} MB free on the disk that holds it: free some "
            "space, or choose another --out"
        )


def _fetch_file(file: RemoteFile, out: Path, progress: Progress | None) -> Path:
    _require_replaceable(file, out / file.name)
    pooch.get_logger().setLevel("WARNING")  # the caller says what is fetched
    downloader = ResumingDownloader(file, part_path(out, file), progress)
    try:
        path = pooch.retrieve(file.url, known_hash=file.checksum, fname=file.name, path=out, downloader=downloader)
    except ValueError as error:  # how pooch says that the checksum is wrong; it has removed the file
        raise InputError(
            f"{out / file.name}: the download does not have the record's checksum ({file.checksum}) and was removed: "
            "fetch it again; if that does not help, the server or the mirror holds another file"
        ) from error
    if progress is not None:
        progress(file.name, file.size, file.size)
    return Path(path)


def _require_replaceable(file: RemoteFile, path: Path) -> None:
    """Refuse to download over another file of this name: one of the record's, once it is whole, has its checksum."""
    algorithm, _, digest = file.checksum.partition(":")
    if os.path.lexists(path) and not (path.is_file() and pooch.file_hash(str(path), alg=algorithm) == digest.lower()):
        raise InputError(
            f"{path}: is there with another content than the record's file of this name: move it away, or choose "
            "another --out"
        )


class ResumingDownloader:
    """A downloader for `pooch`, which itself begins anew each time.

    Parameters
    ----------
    file : RemoteFile
    part : Path
        Where the bytes are kept until there are `file.size` of them.
    progress : callable, optional
        Called with (file, bytes done, bytes in all).
    """

    def __init__(self, file: RemoteFile, part: Path, progress: Progress | None = None) -> None:
        self.file, self.part, self.progress = file, part, progress

    def __call__(self, url: str, output_file: str | Path, pooch: Any = None) -> None:
        """Bring the file to `output_file`, where pooch takes its checksum."""
        done, idle = self._done(), 0
        last: Exception | None = None
        while done < self.file.size and idle < _ATTEMPTS:
            time.sleep(_WAIT_S * idle)
            try:
                self._go_on(url, done)
            except requests.RequestException as error:
                last = error
            now = self._done()
            idle, done = (0 if now > done else idle + 1), now
        if done == 0 and isinstance(last, requests.ConnectionError | requests.Timeout):
            raise _no_network(url, last) from last
        if done < self.file.size:
            reason = "the server closed the connection" if last is None else _reason(last)
            raise InputError(
                f"{self.file.name}: cut off at {done} of {self.file.size} bytes ({reason}): what came is kept, run the "
                "same command again to go on from there"
            ) from last
        self.part.touch()  # an empty file is never asked for
        os.replace(self.part, output_file)

    def _done(self) -> int:
        """Bytes that are there; a part that is too long belongs to something else and is thrown away."""
        size = self.part.stat().st_size if self.part.is_file() else 0
        if size > self.file.size:
            remove_file(self.part, self.part.parent)
            return 0
        return size

    def _go_on(self, url: str, done: int) -> None:
        headers = {"Accept-Encoding": "identity"}  # or a range would count compressed bytes
        if done:
            headers["Range"] = f"bytes={done}-"
        with requests.get(url, headers=headers, stream=True, timeout=_PATIENCE_S) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                remove_file(self.part, self.part.parent)
                return
            _refuse_status(answer, url)
            resumed = answer.status_code == requests.codes.partial_content
            if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
                raise requests.ConnectionError("the server sent another range than it was asked for")
            done = done if resumed else 0
            with self.part.open("ab" if resumed else "wb") as stream:
                for chunk in answer.iter_content(_CHUNK):
                    stream.write(chunk)
                    done += len(chunk)
                    if done > self.file.size:
                        raise InputError(
                            f"{url}: sends more than the {self.file.size} bytes of the record: not fetched"
                        )
                    if self.progress is not None:
                        self.progress(self.file.name, done, self.file.size)


def _refuse_status(answer: requests.Response, where: str) -> None:
    if answer.ok:
        return
    hints = {
        404: "check the record and the URL",
        410: "the record was withdrawn",
        429: "too many requests: wait a while",
    }
    hint = hints.get(answer.status_code, "try again later" if answer.status_code >= 500 else "check the URL")
    raise InputError(f"{where}: the server says {answer.status_code} {answer.reason}; {hint}")


def _no_network(where: str, error: Exception) -> InputError:
    return InputError(f"{where}: cannot be reached ({_reason(error)}): check the network, or give a mirror with --url")


def _reason(error: Exception) -> str:
    """The innermost cause, in a few words."""
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    return " ".join(str(cause).split())[:120] or type(cause).__name__
