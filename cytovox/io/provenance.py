"""Decide whether a stored result is current, by one fingerprint of everything that it depends on.

A step is a unit of work whose result is stored (masks of a file, cells of a frame, tables of an analysis). Its
fingerprint contains every key of the effective config, the content of its inputs and weights, and the version of its
method. Keys that a step ignores are listed with a reason; all other keys count. The parts of the fingerprint are stored
with the result, so that a message can name the part that changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.io.ometiff_set import set_members

#: Name of the part with the version of a step's method.
METHOD = "method version"
#: Nanoseconds. A file that was changed so shortly before it was read may change again with the same time stamp.
RACY_NS = 2_000_000_000
#: Value of a group that is present, but absent by default; its keys are compared separately.
GIVEN = "given"
#: Largest number of parts that are named when a result is computed again.
NAMED = 3
#: Largest number of characters that are shown of a value.
SHOWN = 40


@dataclass(frozen=True)
class Leaf:
    """One key of a config."""

    value: Any
    """Value as read back from JSON."""
    default: Any
    """Its default value."""


@dataclass(frozen=True)
class Fingerprint:
    """Everything that a result depends on.

    Two results with equal parts are equal. A part that is missing from a stored result is a key that was added later.
    It counts as its default, so that a release with more keys keeps all results. A changed default differs from the
    stored value.
    """

    parts: dict[str, Any]
    """Value of each part as read back from JSON: keys of the config, and digests of content."""
    defaults: dict[str, Any] = field(default_factory=dict, compare=False)
    """Default values of the parts that are keys of the config."""

    @property
    def key(self) -> str:
        """Return the digest of all parts, 32 hexadecimal digits. Later steps refer to a stored result by it."""
        return digest_of(self.parts)

    @property
    def name(self) -> str:
        """Return the digest of the parts that differ from their default, for file names that new keys do not change."""
        set_ = {k: v for k, v in self.parts.items() if k not in self.defaults or self.defaults[k] != v}
        return digest_of(set_)

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Return the names of the parts in which a stored result differs."""
        added = [
            k for k in self.parts if k not in stored and (k not in self.defaults or self.defaults[k] != self.parts[k])
        ]
        changed = [k for k in stored if k not in self.parts or self.parts[k] != stored[k]]
        return sorted({*added, *changed})

    def agrees(self, stored: Any) -> bool:
        """Return whether a result with these parts is the one that would be computed now."""
        return isinstance(stored, Mapping) and bool(stored) and not self.differences(stored)

    def why(self, stored: Any) -> str:
        """Return in a few words what changed since a result was stored; empty if there is no result."""
        if not isinstance(stored, Mapping) or not stored:
            return ""
        names = self.differences(stored)
        changes = [self._change(name, stored) for name in names[:NAMED]]
        return ", ".join(changes) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")

    def _change(self, name: str, stored: Mapping[str, Any]) -> str:
        if name not in self.defaults and name != METHOD:
            return f"{name} changed"
        before = stored[name] if name in stored else self.defaults.get(name)
        return f"{name} {_shown(before)} -> {_shown(self.parts.get(name))}"


@dataclass(frozen=True)
class Step:
    """A unit of work whose result is stored."""

    name: str
    version: int
    """Version of the method; it is increased when results change for the same inputs and config."""
    ignored: Mapping[str, str]
    """Keys that do not count, with the reason; `group.*` stands for all keys of a group."""

    def fingerprint(self, config: Any, prefix: str = "", **content: Any) -> Fingerprint:
        """Return the fingerprint of this step.

        Parameters
        ----------
        config : dataclass
            The whole effective config.
        prefix : str
            Position of `config` in the whole config, such as `data.`.
        **content
            Other parts by name: digests of inputs and weights, keys of earlier results. In the fingerprint, underscores
            of the names become spaces.
        """
        leaves = {key: leaf for key, leaf in leaves_of(config, prefix).items() if self.counts(key)}
        parts = {METHOD: self.version, **{key: leaf.value for key, leaf in leaves.items()}}
        parts |= {name.replace("_", " "): _plain(value) for name, value in content.items()}
        return Fingerprint(parts, {key: leaf.default for key, leaf in leaves.items()})

    def counts(self, key: str) -> bool:
        """Return whether a key of the config counts."""
        return self.reason(key) is None

    def reason(self, key: str) -> str | None:
        """Return the reason why a key is ignored; None if it counts."""
        groups = key.split(".")
        listed = [key, f"{key}.*", *(".".join([*groups[:n], "*"]) for n in range(1, len(groups)))]
        return next((self.ignored[name] for name in listed if name in self.ignored), None)

    def unknown(self, keys: Iterable[str]) -> list[str]:
        """Return the entries of `ignored` that match none of these keys."""
        known = list(keys)
        return [
            entry for entry in self.ignored
            if not any(key == entry or (entry.endswith(".*") and key.startswith(entry[:-1])) for key in known)
        ]  # fmt: skip


def leaves_of(config: Any, prefix: str = "", default: Any = None) -> dict[str, Leaf]:
    """Return all keys of a config with their values and defaults.

    Parameters
    ----------
    config : dataclass
        Config; fields that are dataclasses are groups, and all other fields are values.
    prefix : str
        Start of every key.
    default : dataclass, optional
        The config with default values; the defaults of its class if not given.

    Returns
    -------
    dict of str to Leaf
        By dotted key.
    """
    found: dict[str, Leaf] = {}
    for about in dataclasses.fields(config):
        value = getattr(config, about.name)
        usual = getattr(default, about.name) if type(default) is type(config) else _default(about)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            if usual is None:
                found[f"{prefix}{about.name}"] = Leaf(GIVEN, None)  # an optional group
            found |= leaves_of(value, f"{prefix}{about.name}.", usual)
        else:
            usual = None if dataclasses.is_dataclass(usual) else usual
            found[f"{prefix}{about.name}"] = Leaf(_plain(value), _plain(usual))
    return found


def _default(about: Any) -> Any:
    if about.default is not dataclasses.MISSING:
        return about.default
    return None if about.default_factory is dataclasses.MISSING else about.default_factory()


def _plain(value: Any) -> Any:
    """Return the value as read back from JSON: tuples become lists, paths become strings."""
    return json.loads(json.dumps(value, default=str))


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def digest_of(value: Any) -> str:
    """Return the digest of a value in JSON, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def array_digest(array: np.ndarray) -> str:
    """Return the digest of an array's values, shape and type, 32 hexadecimal digits."""
    text = hashlib.blake2b(f"{array.shape} {array.dtype.str}".encode(), digest_size=16)
    text.update(np.ascontiguousarray(array).data)
    return text.hexdigest()


def files_of(path: Path) -> dict[str, Path]:
    """Return the files of an input: all files of a folder (OME-Zarr) or of an OME-TIFF set, else the file itself.

    Returns
    -------
    dict of str to Path
        Files by their name in the folder or set, sorted.
    """
    if path.is_dir():
        return {p.relative_to(path).as_posix(): p for p in sorted(path.rglob("*")) if p.is_file()}
    return {member.name: member for member in set_members(path)}


def stamp_of(path: Path) -> list[list[Any]]:
    """Return the name, size, times of change (ns) and inode of every file of an input.

    It includes the time of the last change of the inode (`st_ctime_ns`), which no program can set back. New content
    with the old size and time stamp is therefore detected.
    """
    return [[name, *_state(os.stat(file))] for name, file in files_of(path).items()]


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def settled(stamp: list[list[Any]], read_ns: int) -> bool:
    """Return whether any change of the files after `read_ns` would have changed their time stamps.

    File systems store times in steps of up to two seconds. A file that was changed just before it was read may be
    changed again within the same step.
    """
    return all(max(mtime, ctime) + RACY_NS < read_ns for _, _, mtime, ctime, _ in stamp)


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, or of the names and contents of all files of a folder or set.

    It has 64 hexadecimal digits. The path of a file has no influence.
    """
    files = files_of(path)
    if not path.is_dir() and len(files) == 1:
        return _sha256(path)
    text = "".join(f"{name}:{_sha256(file)}\n" for name, file in files.items())
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class StampedRecords:
    """Cache of results about files, valid until one of the files changes, so that a folder of 100 GB is read only once.

    Parameters
    ----------
    folder : Path
        Folder of the records, one small file per record.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, path: Path) -> Any:
        """Return the cached record of a file or folder; None if there is none or the file may have changed."""
        try:
            stamp = stamp_of(path)
            note = json.loads(self._note(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(note, dict) or note.get("stamp") != stamp or not settled(stamp, int(note.get("read_ns", 0))):
            return None
        return note.get("found")

    def write(self, path: Path, found: Any, stamp: list[list[Any]], read_ns: int) -> None:
        """Store a record of a file.

        Parameters
        ----------
        path : Path
            File or folder.
        found : JSON
            Content of the record.
        stamp : list
            `stamp_of` the file before it was read.
        read_ns : int
            `time.time_ns()` before it was read.
        """
        # a folder that cannot be written costs time, not correctness
        with contextlib.suppress(OSError, InputError), atomic_path(self._note(path)) as part:
            part.write_text(json.dumps({"stamp": stamp, "read_ns": read_ns, "found": found}), encoding="utf-8")

    def _note(self, path: Path) -> Path:
        name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()
        return self.folder / name[:2] / name


class ContentDigests:
    """Compute `content_digest` of files and folders, with a cache of `StampedRecords`.

    Parameters
    ----------
    root : Path
        Cache folder; the records are in its subfolder `digests/`.
    once : bool
        Whether this object reads each file only once, even if it changes meanwhile; for one pass over related inputs.
    """

    def __init__(self, root: Path, once: bool = False) -> None:
        self._notes, self._once = StampedRecords(root / "digests"), once
        self._known: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """Return the digest of a file, or of all files of a folder (OME-Zarr)."""
        if path in self._known:
            return self._known[path]
        digest = self._notes.read(path)
        if not isinstance(digest, str) or len(digest) != 64:
            stamp, read_ns = stamp_of(path), time.time_ns()
            digest = content_digest(path)
            if stamp_of(path) == stamp:
                self._notes.write(path, digest, stamp, read_ns)
        if self._once:
            self._known[path] = digest
        return digest
