"""Whether a stored result is current: one fingerprint of everything that it depends on.

A step is a unit of work whose result is stored (masks of a file, cells of a frame, tables of an analysis). Its
fingerprint holds every key of the effective config, the content of its inputs and weights, and the version of its
method. What a step ignores is listed with a reason; a key that is not listed counts. A stored result keeps the parts of
its fingerprint, so that the part that changed can be named.
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

#: Name of the part that holds the version of a step's method.
METHOD = "method version"
#: A file that was changed within so many ns before it was read may change again without another time stamp.
RACY_NS = 2_000_000_000
#: Value of a group that is present, but absent by default; its keys are compared separately.
GIVEN = "given"
#: Parts that are named at most when a result is computed again.
NAMED = 3
#: Longest value that is shown of a part.
SHOWN = 40


@dataclass(frozen=True)
class Leaf:
    """One key of a config."""

    value: Any
    """As JSON has it."""
    default: Any
    """Its default value."""


@dataclass(frozen=True)
class Fingerprint:
    """Everything that a result depends on.

    Two results of equal parts are equal. A part that a stored result lacks is a key that was added since: it counts as
    its default, so that a release with more keys discards nothing. A default that changes differs from what was stored.
    """

    parts: dict[str, Any]
    """Name of a part to its value as JSON has it: keys of the config, and digests of content."""
    defaults: dict[str, Any] = field(default_factory=dict, compare=False)
    """Of the parts that are keys of the config."""

    @property
    def key(self) -> str:
        """Digest of all parts: 32 hexadecimal digits. Later steps refer to a stored result by it."""
        return digest_of(self.parts)

    @property
    def name(self) -> str:
        """Return the digest of the parts that differ from their default, for file names that new keys do not change."""
        set_ = {k: v for k, v in self.parts.items() if k not in self.defaults or self.defaults[k] != v}
        return digest_of(set_)

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Names of the parts in which a stored result differs."""
        added = [
            k for k in self.parts if k not in stored and (k not in self.defaults or self.defaults[k] != self.parts[k])
        ]
        changed = [k for k in stored if k not in self.parts or self.parts[k] != stored[k]]
        return sorted({*added, *changed})

    def agrees(self, stored: Any) -> bool:
        """Whether a result with these parts is the one that would be computed now."""
        return isinstance(stored, Mapping) and bool(stored) and not self.differences(stored)

    def why(self, stored: Any) -> str:
        """What changed since a result was stored, in a few words; empty where there is no result."""
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
    """Of its method: raised when its results change for the same inputs and config."""
    ignored: Mapping[str, str]
    """Keys that do not count, and why; `group.*` stands for all keys of a group."""

    def fingerprint(self, config: Any, prefix: str = "", **content: Any) -> Fingerprint:
        """Fingerprint of this step.

        Parameters
        ----------
        config : dataclass
            The whole effective config.
        prefix : str
            Where it lies in the whole config, such as `data.`.
        **content
            What else counts, by name: digests of inputs and weights, keys of earlier results. Names in the parts have
            spaces instead of underscores.
        """
        leaves = {key: leaf for key, leaf in leaves_of(config, prefix).items() if self.counts(key)}
        parts = {METHOD: self.version, **{key: leaf.value for key, leaf in leaves.items()}}
        parts |= {name.replace("_", " "): _plain(value) for name, value in content.items()}
        return Fingerprint(parts, {key: leaf.default for key, leaf in leaves.items()})

    def counts(self, key: str) -> bool:
        """Whether a key of the config counts."""
        return self.reason(key) is None

    def reason(self, key: str) -> str | None:
        """Why a key is ignored; None for one that counts."""
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
    """All keys of a config with their values and defaults.

    Parameters
    ----------
    config : dataclass
        Groups are dataclasses in it; everything else is a value.
    prefix : str
        Put before every key.
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
                found[f"{prefix}{about.name}"] = Leaf(GIVEN, None)  # a group that need not be there
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
    """Digest of a value as JSON has it: 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def array_digest(array: np.ndarray) -> str:
    """Digest of an array's values, shape and type: 32 hexadecimal digits."""
    text = hashlib.blake2b(f"{array.shape} {array.dtype.str}".encode(), digest_size=16)
    text.update(np.ascontiguousarray(array).data)
    return text.hexdigest()


def files_of(path: Path) -> dict[str, Path]:
    """Files that an input is made of: all of a folder (OME-Zarr), all of an OME-TIFF set, else the file itself.

    Returns
    -------
    dict of str to Path
        By their names in the folder or set, sorted.
    """
    if path.is_dir():
        return {p.relative_to(path).as_posix(): p for p in sorted(path.rglob("*")) if p.is_file()}
    return {member.name: member for member in set_members(path)}


def stamp_of(path: Path) -> list[list[Any]]:
    """Name, size, times of change (ns) and inode of every file of an input.

    The time of the last change of the inode (`st_ctime_ns`) counts, too: no program can set it back, so that content
    that was replaced with its old size and time stamp is seen.
    """
    return [[name, *_state(os.stat(file))] for name, file in files_of(path).items()]


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def settled(stamp: list[list[Any]], read_ns: int) -> bool:
    """Return whether any change of the files after `read_ns` would have changed their time stamps.

    File systems tell times in steps, of up to two seconds: a file that was changed just before it was read may be
    changed again within the same step.
    """
    return all(max(mtime, ctime) + RACY_NS < read_ns for _, _, mtime, ctime, _ in stamp)


def content_digest(path: Path) -> str:
    """SHA-256 of a file's content, or of the names and contents of all files of a folder or set: 64 hexadecimal digits.

    A file is known by its content alone, wherever it lies.
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
    """Cache of results on files, valid until one of them changes, so that a folder of 100 GB is read only once.

    Parameters
    ----------
    folder : Path
        Where the notes lie, one small file a note.
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
            What was found out.
        stamp : list
            `stamp_of` the file before it was read.
        read_ns : int
            `time.time_ns()` before it was read.
        """
        # a folder that takes no notes costs time, not correctness
        with contextlib.suppress(OSError, InputError), atomic_path(self._note(path)) as part:
            part.write_text(json.dumps({"stamp": stamp, "read_ns": read_ns, "found": found}), encoding="utf-8")

    def _note(self, path: Path) -> Path:
        name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()
        return self.folder / name[:2] / name


class ContentDigests:
    """`content_digest` of files and folders, remembered by `StampedRecords`.

    Parameters
    ----------
    root : Path
        The cache folder; notes lie in `digests/` below it.
    once : bool
        Read no file twice for this object, whatever becomes of it meanwhile: for one pass over inputs that belong
        together.
    """

    def __init__(self, root: Path, once: bool = False) -> None:
        self._notes, self._once = StampedRecords(root / "digests"), once
        self._known: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """Digest of a file, or of every file of a folder (OME-Zarr)."""
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
