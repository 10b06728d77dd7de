"""Download of a record's files from Zenodo: resumable, verified by checksum, and complete or absent."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import pooch
import requests

from cytovox.errors import InputError
from cytovox.io.atomic import write_error
from cytovox.io.deletion import remove_file
from datamodules.unzip import require_space

#: Base URL of Zenodo's API, and the record of SHAPR's red blood cells and nuclei (Waibel et al. 2022).
ZENODO_URL = "https://zenodo.org/api"
SHAPES_RECORD = "7031924"

#: Called with (file, bytes done, all bytes).
Progress = Callable[[str, int, int], None]

#: Attempts to resume a download that make no progress.
_ATTEMPTS = 3

#: Timeout in seconds without data.
_PATIENCE_S = 60

#: Seconds to wait before an attempt, multiplied by the number of attempts without progress.
_WAIT_S = 1.0

#: Bytes written at a time; an interrupted download loses fewer than these.
_CHUNK = 1 << 16

#: Advice by HTTP status.
_HINTS = {
    404: "check the record and the URL",
    410: "the record was withdrawn",
    429: "too many requests: wait a while",
}


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record."""

    name: str
    size: int
    """Size in bytes."""
    checksum: str
    """Checksum as `pooch` expects it: `md5:` and the digest."""
    url: str


def list_record(record: str = SHAPES_RECORD, url: str = ZENODO_URL) -> list[RemoteFile]:
    """Return the files of a record.

    Parameters
    ----------
    record : str
        Number of the record.
    url : str
        Base URL of Zenodo's API or of a mirror's.

    Raises
    ------
    InputError
        The server cannot be reached, there is no such record, or the response does not describe a record.
    """
    where = f"{url.rstrip('/')}/records/{record}"
    try:
        response = requests.get(where, timeout=_PATIENCE_S, headers={"Accept": "application/json"})
        _refuse_status(response, where)
        found = [_remote_file(entry, f"{where}/files") for entry in response.json()["files"]]
    except requests.JSONDecodeError as error:
        raise InputError(f"{where}: the response is not JSON; give the API of Zenodo or of a mirror") from error
    except requests.RequestException as error:
        raise _no_network(where, error) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{where}: the response is no record of files ({error!r}); check the record and the URL"
        ) from error
    if not found:
        raise InputError(f"{where}: the record has no files, or they are not public")
    return found


def _remote_file(entry: dict[str, Any], files_url: str) -> RemoteFile:
    """Return the file of an entry; records have `key` and `md5:DIGEST`, deposits `filename` and the digest only."""
    name = str(entry["key"] if "key" in entry else entry["filename"])
    if name in ("", ".", "..") or any(sign in name for sign in "/\\:\0"):
        raise InputError(f"{files_url}: a file called {name!r} would lie outside the folder: refused")
    checksum = str(entry["checksum"])
    algorithm, _, digest = checksum.rpartition(":")
    link = entry.get("links", {}).get("self") or f"{files_url}/{name}/content"
    known = (algorithm or "md5") in hashlib.algorithms_available and re.fullmatch("[0-9a-fA-F]{16,}", digest)
    if not known or not link.startswith(("https://", "http://")):
        raise ValueError(f"checksum {checksum}, link {link}")
    size = entry["size"] if "size" in entry else entry["filesize"]
    return RemoteFile(name, int(size), f"{algorithm or 'md5'}:{digest}", link)


def fetch_record(
    out: str | Path,
    record: str = SHAPES_RECORD,
    url: str = ZENODO_URL,
    only: str = "*",
    progress: Progress | None = None,
) -> list[Path]:
    """Download a record's files into a folder.

    A file that exists with the right checksum is not downloaded again. An interrupted download leaves a hidden `.part`
    file, and the next call resumes it. A file gets its name once its checksum has been verified.

    Parameters
    ----------
    out : path
        Folder of the files; created if needed.
    record, url : str
        See `list_record`.
    only : str
        Glob of the names of files to download.
    progress : callable, optional
        Called with (file, bytes done, all bytes).

    Returns
    -------
    list of Path
        Downloaded files.

    Raises
    ------
    InputError
        The server cannot be reached, a download is interrupted, a checksum is wrong, the disk is full, or the folder is
        not writable.
    """
    out = Path(out).absolute()
    listed = list_record(record, url)
    wanted = [file for file in listed if fnmatchcase(file.name, only)]
    if not wanted:
        raise InputError(f"--only {only}: no such file in record {record}; it has {', '.join(f.name for f in listed)}")
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
    """Return the path of an incomplete download; it contains the checksum, so that versions are not mixed."""
    return out / f".{file.name}.{file.checksum[-12:]}.part"


def _refuse_full(out: Path, files: list[RemoteFile]) -> None:
    missing = sum(
        file.size - (part.stat().st_size if (part := part_path(out, file)).is_file() else 0)
        for file in files
        if not (out / file.name).is_file()
    )
    require_space(out, missing, "fetch")


def _fetch_file(file: RemoteFile, out: Path, progress: Progress | None) -> Path:
    _require_replaceable(file, out / file.name)
    pooch.get_logger().setLevel("WARNING")  # `progress` reports downloads
    downloader = partial(_download, file, part_path(out, file), progress)
    try:
        path = pooch.retrieve(file.url, known_hash=file.checksum, fname=file.name, path=out, downloader=downloader)
    except ValueError as error:  # wrong checksum; pooch has removed the file
        raise InputError(
            f"{out / file.name}: the download does not have the record's checksum ({file.checksum}) and was removed: "
            "download it again; if that does not help, the server or the mirror has another file"
        ) from error
    if progress is not None:
        progress(file.name, file.size, file.size)
    return Path(path)


def _require_replaceable(file: RemoteFile, path: Path) -> None:
    """Raise InputError if the file exists with another content: a complete download has the record's checksum."""
    algorithm, _, digest = file.checksum.partition(":")
    if os.path.lexists(path) and not (path.is_file() and pooch.file_hash(str(path), alg=algorithm) == digest.lower()):
        raise InputError(
            f"{path}: exists, but its content differs from the record's file of this name: move it away, or choose "
            "another --out"
        )


def _download(
    file: RemoteFile, part: Path, progress: Progress | None, url: str, output_file: str | Path, _: object
) -> None:
    """Download a file to `output_file`, and resume an earlier download; pooch's own downloaders always start again.

    Parameters
    ----------
    file : RemoteFile
        The file.
    part : Path
        File for incomplete data.
    progress : callable, optional
        Called with (file, bytes done, all bytes).
    url, output_file, _
        Arguments that pooch gives to a downloader.
    """
    done, idle = _size_of(part, file), 0
    last: Exception | None = None
    while done < file.size and idle < _ATTEMPTS:
        time.sleep(_WAIT_S * idle)
        try:
            _append(file, part, progress, url, done)
        except requests.RequestException as error:
            last = error
        now = _size_of(part, file)
        idle, done = (0 if now > done else idle + 1), now
    if done == 0 and isinstance(last, requests.ConnectionError | requests.Timeout):
        raise _no_network(url, last) from last
    if done < file.size:
        reason = "the server closed the connection" if last is None else _reason(last)
        raise InputError(
            f"{file.name}: cut off at {done} of {file.size} bytes ({reason}): they are kept, so run the same command "
            "again to resume the download"
        ) from last
    part.touch()  # an empty file needs no request
    os.replace(part, output_file)


def _size_of(part: Path, file: RemoteFile) -> int:
    """Return the size of an incomplete download in bytes; remove one that is longer than the file."""
    size = part.stat().st_size if part.is_file() else 0
    if size > file.size:
        remove_file(part, part.parent)
        return 0
    return size


def _append(file: RemoteFile, part: Path, progress: Progress | None, url: str, done: int) -> None:
    """Request the bytes after the first `done` ones, and append them to the incomplete download."""
    headers = {"Accept-Encoding": "identity"}  # else a range would refer to compressed bytes
    if done:
        headers["Range"] = f"bytes={done}-"
    with requests.get(url, headers=headers, stream=True, timeout=_PATIENCE_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            remove_file(part, part.parent)
            return
        _refuse_status(response, url)
        resumed = response.status_code == requests.codes.partial_content
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise requests.ConnectionError("the server sent another range than the requested one")
        done = done if resumed else 0
        with part.open("ab" if resumed else "wb") as stream:
            for chunk in response.iter_content(_CHUNK):
                stream.write(chunk)
                done += len(chunk)
                if done > file.size:
                    raise InputError(f"{url}: sends more than the {file.size} bytes of the record: not fetched")
                if progress is not None:
                    progress(file.name, done, file.size)


def _refuse_status(response: requests.Response, where: str) -> None:
    if not response.ok:
        hint = _HINTS.get(response.status_code, "try again later" if response.status_code >= 500 else "check the URL")
        raise InputError(f"{where}: the server returned {response.status_code} {response.reason}; {hint}")


def _no_network(where: str, error: Exception) -> InputError:
    return InputError(f"{where}: cannot be reached ({_reason(error)}): check the network, or give a mirror with --url")


def _reason(error: Exception) -> str:
    """Return the innermost cause of an error, in at most 120 characters."""
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    return " ".join(str(cause).split())[:120] or type(cause).__name__
