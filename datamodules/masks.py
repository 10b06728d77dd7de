"""Which mask files belong to which volume."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from cytovox.errors import InputError
from datamodules.errors import OnError, refuse
from datamodules.file_patterns import Image, composed, files_for, images_of, pattern_errors, wild_regex
from datamodules.paths import matching, split_pattern


class MaskFinder:
    """Which mask files belong to a volume, by a pattern such as `dish*/**/*_{organelle}.nii.gz`.

    Parameters
    ----------
    pattern : str
        Placeholders are those of `datamodules.file_patterns`; without {stem}, {parent} and {relative}, `*` in the
        file's name stands for the volume's name.
    root : Path
        Where it starts, and what {relative} is relative to.
    organelles : iterable of str
        What {organelle} stands for.
    frame : int
        What {frame} stands for, padded with zeros or not.
    """

    def __init__(self, pattern: str, root: Path, organelles: Iterable[str], frame: int = 0) -> None:
        pattern_errors(pattern, "data.masks")
        self.root, self.pattern, self.frame = root, pattern, frame
        self.exact = "{parent}" in pattern or "{relative}" in pattern
        """Whether the pattern itself says which volume a mask is of."""
        self.elsewhere: list[Path] = []
        """Masks named as a volume, in the folder of another one."""
        self.found: dict[str | None, list[tuple[str | None, Path]]] = {}
        for organelle in organelles if "{organelle}" in pattern else (None,):
            chosen = pattern.replace("{organelle}", organelle) if organelle is not None else pattern
            self.found[organelle] = self._search(chosen) if pattern else []
        self._files = {os.path.abspath(mask) for found in self.found.values() for _, mask in found}

    def _search(self, pattern: str) -> list[tuple[str | None, Path]]:
        """(stem or None, file) of everything the pattern matches."""
        if self.exact:
            anything = pattern.replace("{relative}", "**/*").replace("{parent}", "*").replace("{stem}", "*")
            return [(None, path) for path in sorted(matching(self.root / anything.replace("{frame}", "*")))]
        folder, _, name = pattern.rpartition("/")
        if "{stem}" not in pattern and "*" in name:
            if name.count("*") > 1:
                raise InputError(
                    f"data.masks: {pattern}: which * in the file's name is the volume's name? write {{stem}} for it"
                )
            name = name.replace("*", "{stem}")
        whole = self.root / (f"{folder}/{name}" if folder else name)
        base, rest = split_pattern(whole)
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
        """Masks that were given to no volume."""
        taken = {os.path.abspath(path) for path in assigned}
        everything = {os.path.abspath(path): path for found in self.found.values() for _, path in found}
        return [path for key, path in sorted(everything.items()) if key not in taken]

    def is_mask(self, path: Path) -> bool:
        """Whether a file that matched `data.volumes` is one of the masks."""
        return os.path.abspath(path) in self._files

    def assign(self, volumes: list[Path], on_error: OnError = refuse) -> list[tuple[dict[str, Path], Path | None]]:
        """For each volume the mask of each organelle that has one, or the multi-label file.

        Raises
        ------
        InputError
            Two masks are equally near to one volume, or two volumes to one mask, unless `on_error` goes on.
        """
        chosen = {organelle: self._pair(volumes, organelle, on_error) for organelle in self.found}
        result = []
        for volume in volumes:
            masks = {k: pairs[volume] for k, pairs in chosen.items() if k is not None and volume in pairs}
            result.append((masks, chosen[None].get(volume) if None in chosen else None))
        return result

    def _pair(self, volumes: list[Path], organelle: str | None, on_error: OnError) -> dict[Path, Path]:
        """One mask a volume and one volume a mask: without the second, a dish would get its neighbour's masks."""
        by_name: dict[str | None, list[Path]] = {}
        for stem, path in self.found[organelle]:
            by_name.setdefault(stem, []).append(path)
        images = dict(zip(volumes, images_of(volumes, self.root), strict=True))
        takers: dict[Path, list[Path]] = {}
        for volume in volumes:
            mask = self._mask_of(images[volume], organelle, by_name, on_error)
            if mask is not None:
                takers.setdefault(mask, []).append(volume)
        pairs = {}
        for mask, rivals in takers.items():
            owner = _nearest(mask, rivals, "own", on_error)
            if owner is not None:
                pairs[owner] = mask
        return pairs

    def _mask_of(
        self, image: Image, organelle: str | None, by_name: dict[str | None, list[Path]], on_error: OnError
    ) -> Path | None:
        if self.exact:
            found = files_for(str(self.root / self.pattern), image, organelle or "")
            candidates = found.get(self.frame if "{frame}" in self.pattern else None, [])
            if len(candidates) > 1:
                on_error(
                    InputError(f"data.masks: {' and '.join(map(str, candidates))} could both belong to {image.path}")
                )
            return candidates[0] if len(candidates) == 1 else None
        volume = image.path
        named = by_name.get(composed(image.stem), [])
        candidates = [path for path in named if not _of_another_sample(path, volume)]
        self.elsewhere += [path for path in named if path not in candidates]
        beside = [path for path in by_name.get(None, []) if path.parent == volume.parent]
        return _nearest(volume, candidates or beside, "belong to", on_error)


def _of_another_sample(mask: Path, volume: Path) -> bool:
    """Whether a mask lies in a folder that is named like one of the volume's, but for a number: dish2, not dish1."""
    shared = _shared_folders(mask, volume)[0]
    own, other = (path.absolute().parent.parts[shared:] for path in (volume, mask))
    strange = set(other) - set(own)
    return any(_alike(folder, mine) for folder in strange for mine in own if mine not in other)


def _alike(one: str, other: str) -> bool:
    """dish1 and dish2, or p and q: names of samples, not of what a folder holds, such as raw and masks."""
    return re.sub(r"\d+", "", one) == re.sub(r"\d+", "", other) or max(len(one), len(other)) == 1


def _nearest(one: Path, candidates: list[Path], relation: str, on_error: OnError) -> Path | None:
    """Of these files, the one that shares the most folders with the given one."""
    if not candidates:
        return None
    shared = {path: _shared_folders(path, one) for path in candidates}
    best = [path for path in candidates if shared[path] == max(shared.values())]
    if len(best) > 1:
        on_error(
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


def _as_regex(pattern: str, frame: int) -> str:
    """A glob with {stem} as a regular expression that captures it; {frame} is the number of this frame."""
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
