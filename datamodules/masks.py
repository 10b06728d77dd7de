"""Assignment of mask files to volumes."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

from cytovox.errors import InputError
from datamodules.errors import OnError, refuse
from datamodules.file_patterns import Image, check_placeholders, composed, files_for, images_of, wild_regex
from datamodules.paths import matching, split_pattern


class MaskFinder:
    """Finder of the mask files of volumes, by a pattern such as `dish*/**/*_{organelle}.nii.gz`.

    Parameters
    ----------
    pattern : str
        Pattern with the placeholders of `datamodules.file_patterns`. Without {stem}, {parent} and {relative}, `*` in
        the file name stands for the volume's name.
    root : Path
        Folder that the pattern and {relative} start from.
    organelles : iterable of str
        Values of {organelle}.
    frame : int
        Value of {frame}, with or without leading zeros.
    """

    def __init__(self, pattern: str, root: Path, organelles: Iterable[str], frame: int = 0) -> None:
        check_placeholders(pattern, "data.masks")
        self.root, self.pattern, self.frame = root, pattern, frame
        self.exact = "{parent}" in pattern or "{relative}" in pattern
        """Whether the pattern itself determines the volume of a mask."""
        self.found: dict[str | None, list[tuple[str | None, Path]]] = {}
        for organelle in organelles if "{organelle}" in pattern else (None,):
            self.found[organelle] = self._search(pattern.replace("{organelle}", organelle or "")) if pattern else []
        self._files = {os.path.abspath(path): path for found in self.found.values() for _, path in found}

    def _search(self, pattern: str) -> list[tuple[str | None, Path]]:
        """Return (stem or None, file) of every file that the pattern matches."""
        if self.exact:
            anything = re.sub(r"\{(parent|stem|frame)\}", "*", pattern.replace("{relative}", "**/*"))
            return [(None, path) for path in sorted(matching(self.root / anything))]
        folder, _, name = pattern.rpartition("/")
        if "{stem}" not in pattern and "*" in name:
            if name.count("*") > 1:
                raise InputError(f"data.masks: {pattern}: two * in the file name; write {{stem}} for the volume's name")
            name = name.replace("*", "{stem}")
        base, rest = split_pattern(self.root / folder / name)
        below = re.escape(base.as_posix().rstrip("/") + "/" if base.parts else "")
        reader = re.compile(below + _as_regex(rest, self.frame))
        result: list[tuple[str | None, Path]] = []
        for path in sorted(matching(base / rest.replace("{stem}", "*").replace("{frame}", "*"))):
            match = reader.fullmatch(path.as_posix())
            if match or ("{stem}" not in rest and "{frame}" not in rest):
                stem = match.group("stem") if match and "stem" in reader.groupindex else None
                result.append((None if stem is None else composed(stem), path))
        return result

    def orphans(self, assigned: Iterable[Path]) -> list[Path]:
        """Return the masks that were assigned to no volume."""
        taken = {os.path.abspath(path) for path in assigned}
        return [path for key, path in sorted(self._files.items()) if key not in taken]

    def is_mask(self, path: Path) -> bool:
        """Return whether a file that matched `data.volumes` is one of the masks."""
        return os.path.abspath(path) in self._files

    def assign(self, volumes: list[Path], on_error: OnError = refuse) -> list[tuple[dict[str, Path], Path | None]]:
        """Return for each volume the mask of each organelle that has one, and the multi-label file.

        Raises
        ------
        InputError
            Two masks fit one volume equally well, or two volumes one mask, unless `on_error` continues.
        """
        chosen = {organelle: self._pair(volumes, organelle, on_error) for organelle in self.found}
        shared = chosen.pop(None, {})
        return [({k: pairs[v] for k, pairs in chosen.items() if v in pairs and k}, shared.get(v)) for v in volumes]

    def _pair(self, volumes: list[Path], organelle: str | None, on_error: OnError) -> dict[Path, Path]:
        """Return one mask per volume, used for one volume only: else a dish could get the masks of another one."""
        by_name: dict[str | None, list[Path]] = {}
        for stem, path in self.found[organelle]:
            by_name.setdefault(stem, []).append(path)
        volumes_of_mask: dict[Path, list[Path]] = {}
        for image in images_of(volumes, self.root):
            if (mask := self._mask_of(image, organelle, by_name, on_error)) is not None:
                volumes_of_mask.setdefault(mask, []).append(image.path)
        owners = {
            mask: _nearest(mask, candidates, "be the volume of", on_error)
            for mask, candidates in volumes_of_mask.items()
        }
        return {owner: mask for mask, owner in owners.items() if owner is not None}

    def _mask_of(
        self, image: Image, organelle: str | None, by_name: dict[str | None, list[Path]], on_error: OnError
    ) -> Path | None:
        if self.exact:
            found = files_for(str(self.root / self.pattern), image, organelle or "")
            candidates = found.get(self.frame if "{frame}" in self.pattern else None, [])
            if len(candidates) > 1:
                both = " and ".join(map(str, candidates))
                on_error(InputError(f"data.masks: {both} could both belong to {image.path}"))
            return candidates[0] if len(candidates) == 1 else None
        candidates = [p for p in by_name.get(composed(image.stem), []) if not _of_another_sample(p, image.path)]
        same_folder = [path for path in by_name.get(None, []) if path.parent == image.path.parent]
        return _nearest(image.path, candidates or same_folder, "belong to", on_error)


def _of_another_sample(mask: Path, volume: Path) -> bool:
    """Return whether a mask is in a folder whose name differs from one of the volume's by a number: dish2, dish1."""
    shared = _shared_folders(mask, volume)[0]
    own, other = (path.absolute().parent.parts[shared:] for path in (volume, mask))
    return any(_alike(a, b) for a, b in itertools.product(set(other) - set(own), set(own) - set(other)))


def _alike(one: str, other: str) -> bool:
    """Return whether two names are those of samples, dish1 and dish2 or p and q, not of contents, raw and masks."""
    return re.sub(r"\d+", "", one) == re.sub(r"\d+", "", other) or max(len(one), len(other)) == 1


def _nearest(one: Path, candidates: list[Path], relation: str, on_error: OnError) -> Path | None:
    """Return the candidate that shares the most folders with a file; None without a single best one."""
    shared = {path: _shared_folders(path, one) for path in candidates}
    best = [path for path in candidates if shared[path] == max(shared.values())]
    if len(best) > 1:
        on_error(
            InputError(
                f"data.masks: {best[0]} and {best[1]} could both {relation} {one}; use a pattern "
                "that fits one of them, or data.table"
            )
        )
    return best[0] if len(best) == 1 else None


def _shared_folders(one: Path, other: Path) -> tuple[int, int]:
    """Return the number of common leading folders, then of common names among the rest: raw/dish1 and masks/dish1."""
    mine, theirs = one.absolute().parent.parts, other.absolute().parent.parts
    count = next((n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs)))
    return count, len(set(mine[count:]) & set(theirs[count:]))


def _as_regex(pattern: str, frame: int) -> str:
    """Return a regular expression for a glob, with the group `stem`; {frame} is the number of this frame."""
    out, named = "", False
    for part in re.split(r"(\{stem\}|\{frame\}|(?<![^/])\*\*/)", pattern):
        if part == "{stem}":
            out += "(?P=stem)" if named else "(?P<stem>[^/]+)"
            named = True
        elif part == "{frame}":
            out += f"0*{frame}(?![0-9])"
        else:
            out += "(?:.*/)?" if part == "**/" else wild_regex(part)
    return out
