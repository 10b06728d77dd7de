"""Find tomograms and the masks that belong to them."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterable
from pathlib import Path

from datamodules.cases import FolderCase
from datamodules.config import FolderData
from datamodules.splits import SPLITS
from formats import KINDS
from formats.errors import InputError

#: Ends of the file names that volumes and masks have, the longer ones first.
VOLUME_SUFFIXES = (".ome.tif", ".ome.tiff", ".ome.zarr", *KINDS)


def is_volume(path: Path) -> bool:
    """Whether a path is of a known kind: a file, or the folder that an OME-Zarr is."""
    kind = next((kind for end, kind in KINDS.items() if path.name.lower().endswith(end)), None)
    return kind is not None and path.is_dir() == (kind == "omezarr")


def find_cases(config: FolderData) -> list[FolderCase]:
    """Every tomogram with its masks, in order of name.

    Raises
    ------
    InputError
        Nothing found, tomograms without any mask, masks that could belong to two tomograms.
    """
    cases = _from_table(config) if config.table is not None else _from_folders(config)
    if not cases:
        raise InputError(f"data.volumes: {config.volumes}: no tomogram found below {Path(config.root).absolute()}")
    bare = [c for c in cases if not c.masks and c.label_file is None]
    if bare:
        names = ", ".join(_below(c.volume, Path(config.root)) for c in bare[:5]) + (", ..." if len(bare) > 5 else "")
        raise InputError(
            f"data.masks: {len(bare)} of {len(cases)} volumes have no mask: {names}; "
            "draw one, or leave them out of data.volumes"
        )
    return cases


def expand(patterns: str | Iterable[str], root: Path, key: str) -> list[Path]:
    """Files and folders (as OME-Zarr is one) named by globs, files or folders of tomograms.

    Raises
    ------
    InputError
        A pattern that names nothing.
    """
    found: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        full = root / pattern
        if full.is_dir() and not is_volume(full):
            paths = sorted(p for p in full.iterdir() if is_volume(p))
        elif full.exists():
            paths = [full]
        else:
            paths = sorted(Path(p) for p in glob.glob(str(full), recursive=True) if is_volume(Path(p)))
        if not paths:
            raise InputError(
                f"{key}: {pattern}: no such file, and nothing of a known kind matches ({', '.join(VOLUME_SUFFIXES)})"
            )
        found.update(dict.fromkeys(paths))
    return list(found)


def stem_of(path: Path) -> str:
    """A file's name without its known suffixes: `0007.ome.tif` -> `0007`."""
    lower = path.name.lower()
    suffix = max((s for s in VOLUME_SUFFIXES if lower.endswith(s)), key=len, default=path.suffix)
    return path.name[: len(path.name) - len(suffix)] if suffix else path.name


def _below(path: Path, root: Path) -> str:
    try:
        return path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        return path.as_posix()


def _from_folders(config: FolderData) -> list[FolderCase]:
    root = Path(config.root)
    finder = MaskFinder(config.masks or "", root, config.organelles)
    volumes = [p for p in expand(config.volumes, root, "data.volumes") if not finder.is_mask(p)]
    cases = []
    for volume in volumes:
        masks, label_file = finder.masks_of(volume)
        cases.append(
            _case(config, volume, masks, label_file, _folder_word(volume, config.group, "group"), _line(volume, config))
        )
    return cases


def _case(
    config: FolderData, volume: Path, masks: dict[str, Path], label_file: Path | None, group: str | None,
    line: str | None, split: str | None = None,
) -> FolderCase:  # fmt: skip
    spacing = tuple(config.spacing_um) if config.spacing_um is not None else None
    name = _below(volume, Path(config.root))
    return FolderCase(
        name=name,
        volume=volume,
        masks=masks,
        label_file=label_file,
        labels={k: tuple(v) for k, v in config.labels.items()},
        organelles=tuple(config.organelles),
        group=group or name,
        line=line or group or "all",
        split=split,
        frame=config.frame,
        spacing_um=spacing,  # type: ignore[arg-type]
        check_spacing=config.check_spacing,
    )


def _line(volume: Path, config: FolderData) -> str | None:
    return _folder_word(volume, config.line, "line")


def _folder_word(volume: Path, word: str | None, key: str) -> str | None:
    """The folder on the volume's path that begins with the word."""
    if word is None:
        return None
    for part in reversed(volume.parent.parts):
        if part.lower().startswith(word.lower()):
            return part
    raise InputError(
        f"data.{key}: {word}: no folder on the path of {volume} begins with that; "
        "name one, or use a column of data.table"
    )


class MaskFinder:
    """Which mask files belong to a volume, by a pattern such as `dish*/**/*_{organelle}.nii.gz`."""

    def __init__(self, pattern: str, root: Path, organelles: Iterable[str]) -> None:
        self.root = root
        self.found: dict[str | None, list[tuple[str | None, Path]]] = {}
        for organelle in organelles if "{organelle}" in pattern else (None,):
            chosen = pattern.replace("{organelle}", organelle) if organelle is not None else pattern
            self.found[organelle] = self._search(chosen) if pattern else []

    def _search(self, pattern: str) -> list[tuple[str | None, Path]]:
        """(stem or None, file) of everything the pattern matches."""
        folder, _, name = pattern.rpartition("/")
        if "{stem}" not in pattern and "*" in name:
            at = name.rindex("*")
            name = name[:at] + "{stem}" + name[at + 1 :]
        whole = f"{folder}/{name}" if folder else name
        paths = glob.glob(str(self.root / whole.replace("{stem}", "*")), recursive=True)
        reader = re.compile(_as_regex((self.root / whole).as_posix()))
        result: list[tuple[str | None, Path]] = []
        for path in sorted(paths):
            match = reader.fullmatch(Path(path).as_posix())
            result.append((match.group("stem") if match and "stem" in reader.groupindex else None, Path(path)))
        return result

    def is_mask(self, path: Path) -> bool:
        """Whether a file that matched `data.volumes` is one of the masks."""
        return any(path == mask for found in self.found.values() for _, mask in found)

    def masks_of(self, volume: Path) -> tuple[dict[str, Path], Path | None]:
        """Mask of each organelle that has one, or the multi-label file."""
        chosen = {organelle: self._nearest(volume, found) for organelle, found in self.found.items()}
        label_file = chosen.pop(None, None)
        return {str(k): v for k, v in chosen.items() if v is not None}, label_file

    def _nearest(self, volume: Path, found: list[tuple[str | None, Path]]) -> Path | None:
        """Of the files with the volume's name, the one that shares the most folders with it."""
        named = [path for stem, path in found if stem == stem_of(volume)]
        beside = [path for stem, path in found if stem is None and path.parent == volume.parent]
        candidates = named or beside
        if not candidates:
            return None
        shared = {path: _shared_folders(path, volume) for path in candidates}
        best = [path for path in candidates if shared[path] == max(shared.values())]
        if len(best) > 1:
            raise InputError(
                f"data.masks: {best[0]} and {best[1]} could both belong to {volume}; make the pattern say which"
            )
        return best[0]


def _shared_folders(one: Path, other: Path) -> int:
    count = 0
    for a, b in zip(one.absolute().parent.parts, other.absolute().parent.parts, strict=False):
        if a != b:
            break
        count += 1
    return count


def _as_regex(pattern: str) -> str:
    """A glob with {stem} as a regular expression that captures it."""
    out, at, named = "", 0, False
    while at < len(pattern):
        if pattern.startswith("{stem}", at):
            out, at = out + ("(?P=stem)" if named else "(?P<stem>[^/]+)"), at + 6
            named = True
        elif pattern.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif pattern[at] == "*":
            out, at = out + "[^/]*", at + 1
        elif pattern[at] == "?":
            out, at = out + "[^/]", at + 1
        else:
            out, at = out + re.escape(pattern[at]), at + 1
    return out


def _from_table(config: FolderData) -> list[FolderCase]:
    """Cases of a CSV; paths in it start from the table's folder."""
    table = Path(config.root) / str(config.table)
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [{(k or "").strip(): (v or "").strip() for k, v in row.items() if k} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise InputError(
            f"data.table: {table}: cannot be read ({fault}); expected a CSV with a column 'volume'"
        ) from None
    if not rows or "volume" not in rows[0]:
        raise InputError(
            f"data.table: {table}: no column 'volume'; expected volume, then mask or {', '.join(config.organelles)}"
        )
    for key in ("group", "line"):
        column = getattr(config, key)
        if column is not None and column not in rows[0]:
            raise InputError(f"data.{key}: {table.name} has no column {column!r}; it has {', '.join(rows[0])}")
    return [_row_case(config, table, number, row) for number, row in enumerate(rows, start=2)]


def _row_case(config: FolderData, table: Path, number: int, row: dict[str, str]) -> FolderCase:
    def path(column: str) -> Path | None:
        text = row.get(column, "")
        if not text:
            return None
        full = table.parent / text
        if not full.exists():
            raise InputError(f"data.table: {table.name} line {number}: {column}: no such file: {full}")
        return full

    volume = path("volume")
    if volume is None:
        raise InputError(f"data.table: {table.name} line {number}: no volume named")
    split = row.get("split", "").lower() or None
    if split is not None and split not in SPLITS:
        raise InputError(f"data.table: {table.name} line {number}: split: expected train, val or test, got {split!r}")
    masks = {organelle: found for organelle in config.organelles if (found := path(organelle)) is not None}
    group = row.get(config.group or "group") or None
    line = row.get(config.line or "line") or None
    return _case(config, volume, masks, path("mask"), group, line, split)
