"""Which mask files belong to which volume."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from datamodules.faults import Told, refuse
from datamodules.paths import matching, split_pattern, stem_of
from formats.errors import InputError


class MaskFinder:
    """Which mask files belong to a volume, by a pattern such as `dish*/**/*_{organelle}.nii.gz`."""

    def __init__(self, pattern: str, root: Path, organelles: Iterable[str]) -> None:
        self.root = root
        self.found: dict[str | None, list[tuple[str | None, Path]]] = {}
        for organelle in organelles if "{organelle}" in pattern else (None,):
            chosen = pattern.replace("{organelle}", organelle) if organelle is not None else pattern
            self.found[organelle] = self._search(chosen) if pattern else []
        self._files = {os.path.abspath(mask) for found in self.found.values() for _, mask in found}

    def _search(self, pattern: str) -> list[tuple[str | None, Path]]:
        """(stem or None, file) of everything the pattern matches."""
        folder, _, name = pattern.rpartition("/")
        if "{stem}" not in pattern and "*" in name:
            if name.count("*") > 1:
                raise InputError(
                    f"data.masks: {pattern}: which * in the file's name is the volume's name? write {{stem}} for it"
                )
            name = name.replace("*", "{stem}")
        whole = self.root / (f"{folder}/{name}" if folder else name)
        base, rest = split_pattern(whole)
        reader = re.compile(re.escape(base.as_posix().rstrip("/") + "/" if base.parts else "") + _as_regex(rest))
        result: list[tuple[str | None, Path]] = []
        for path in sorted(matching(base / rest.replace("{stem}", "*"))):
            match = reader.fullmatch(path.as_posix())
            if match or "{stem}" not in rest:
                result.append((match.group("stem") if match and "stem" in reader.groupindex else None, path))
        return result

    def orphans(self, assigned: Iterable[Path]) -> list[Path]:
        """Masks that were given to no volume."""
        taken = {os.path.abspath(path) for path in assigned}
        everything = {os.path.abspath(path): path for found in self.found.values() for _, path in found}
        return [path for key, path in sorted(everything.items()) if key not in taken]

    def is_mask(self, path: Path) -> bool:
        """Whether a file that matched `data.volumes` is one of the masks."""
        return os.path.abspath(path) in self._files

    def assign(self, volumes: list[Path], told: Told = refuse) -> list[tuple[dict[str, Path], Path | None]]:
        """For each volume the mask of each organelle that has one, or the multi-label file.

        Raises
        ------
        InputError
            Two masks are equally near to one volume, or two volumes to one mask, unless `told` goes on.
        """
        chosen = {organelle: self._pair(volumes, organelle, told) for organelle in self.found}
        result = []
        for volume in volumes:
            masks = {k: pairs[volume] for k, pairs in chosen.items() if k is not None and volume in pairs}
            result.append((masks, chosen[None].get(volume) if None in chosen else None))
        return result

    def _pair(self, volumes: list[Path], organelle: str | None, told: Told) -> dict[Path, Path]:
        """One mask a volume and one volume a mask: without the second, a dish would get its neighbour's masks."""
        by_name: dict[str | None, list[Path]] = {}
        for stem, path in self.found[organelle]:
            by_name.setdefault(stem, []).append(path)
        takers: dict[Path, list[Path]] = {}
        for volume in volumes:
            beside = [path for path in by_name.get(None, []) if path.parent == volume.parent]
            mask = _nearest(volume, by_name.get(stem_of(volume)) or beside, "belong to", told)
            if mask is not None:
                takers.setdefault(mask, []).append(volume)
        pairs = {}
        for mask, rivals in takers.items():
            owner = _nearest(mask, rivals, "own", told)
            if owner is not None:
                pairs[owner] = mask
        return pairs


def _nearest(one: Path, candidates: list[Path], relation: str, told: Told) -> Path | None:
    """Of these files, the one that shares the most folders with the given one."""
    if not candidates:
        return None
    shared = {path: _shared_folders(path, one) for path in candidates}
    best = [path for path in candidates if shared[path] == max(shared.values())]
    if len(best) > 1:
        told(
            InputError(
                f"data.masks: {best[0]} and {best[1]} could both {relation} {one}; make the pattern "
                "say which, or use data.table"
            )
        )
        return None
    return best[0]


def _shared_folders(one: Path, other: Path) -> tuple[int, int]:
    """Leading folders that are the same; then names among the others: raw/dish1 goes with masks/dish1."""
    mine, theirs = one.absolute().parent.parts, other.absolute().parent.parts
    count = next((n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))
    return count, len(set(mine[count:]) & set(theirs[count:]))


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
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end].replace("\\", "\\\\")
            out, at = out + "[" + ("^" + inside[1:] if inside[0] == "!" else inside) + "]", end + 1
        else:
            out, at = out + re.escape(pattern[at]), at + 1
    return out
