"""A person's corrections: masks and labels dropped beside predictions, found by their names.

NAME_nucleus_corrected.nii.gz corrects an organelle (or `cells`) of every frame of NAME, in one file of as many frames;
NAME_t003_nucleus_corrected.nii.gz that of frame 3, and takes precedence over the former. NAME is the name of the
image's results, which is unique among the inputs; or the image's own name, with the names of its folders before it or
not, where that is unique. A correction takes precedence over whatever else is known of that organelle and frame: a
prediction, or a mask that was there before.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.formats import is_volume
from datamodules.cases import FolderCase
from datamodules.config import FolderData
from datamodules.file_patterns import composed
from datamodules.paths import stem_of

#: How the name of a correction ends, before its suffix.
CORRECTED = "_corrected"


@dataclass(frozen=True)
class Correction:
    """A corrected mask."""

    path: Path
    own_frame: bool
    """Whether its name says which frame it is of."""


class Corrections:
    """Corrected files of a folder, and whose they are.

    Parameters
    ----------
    folder : Path
        Where they lie; there need be no such folder.
    images : mapping of Path -> str or None
        All images, and the name of each one's results where that is known.
    names : sequence of str
        Organelles, and "cells".
    """

    def __init__(self, folder: Path, images: Mapping[Path, str | None], names: Sequence[str]) -> None:
        self._found: dict[Path, dict[tuple[str, int | None], list[Path]]] = {path: {} for path in images}
        self._shared: dict[Path, str] = {}
        self.orphans: list[Path] = []
        """Corrections of none of the images."""
        results: dict[str, list[Path]] = {}
        aliases: dict[str, list[Path]] = {}
        for image, result in images.items():
            if result is not None:
                results.setdefault(composed(result), []).append(image)
            for alias in _aliases(image):
                aliases.setdefault(alias, []).append(image)
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            stem = composed(stem_of(path))
            if is_volume(path) and stem.endswith(CORRECTED):
                self._sort(path, stem, names, (results, aliases))

    def _sort(self, path: Path, stem: str, names: Sequence[str], owners: tuple[dict[str, list[Path]], ...]) -> None:
        readings = [
            (stem.removesuffix(f"_{name}{CORRECTED}"), name) for name in names if stem.endswith(f"_{name}{CORRECTED}")
        ]
        for known in owners:  # a name of results is exact; an image's own name only where it is the only one
            for framed in (False, True):
                for base, name in readings:
                    split = re.fullmatch(r"(.+)_t([0-9]+)", base)
                    if framed and split is None:
                        continue
                    own = known.get(split[1] if framed and split else base, [])
                    if not own:
                        continue
                    for image in own if len(own) > 1 else ():
                        others = ", ".join(str(one) for one in own)
                        self._shared[image] = (
                            f"{path}: could be the correction of {others}; name it by the name of the results of one"
                        )
                    if len(own) == 1:
                        key = (name, int(split[2]) if framed and split else None)
                        self._found[own[0]].setdefault(key, []).append(path)
                    return
        self.orphans.append(path)

    def of(self, image: Path, frames: Sequence[int]) -> dict[tuple[str, int], Correction]:
        """Corrections of one image.

        Parameters
        ----------
        image : Path
            One of `images`.
        frames : sequence of int
            Those that a file without the number of a frame corrects.

        Returns
        -------
        dict of (name, frame) -> Correction

        Raises
        ------
        InputError
            A file that could correct two images, or two files of one organelle and frame.
        """
        if image in self._shared:
            raise InputError(self._shared[image])
        found: dict[tuple[str, int], Correction] = {}
        for (name, t), paths in sorted(self._found[image].items(), key=lambda item: item[0][1] is not None):
            if len(paths) > 1:
                raise InputError(f"{paths[0]} and {paths[1].name}: two corrections of one mask; keep one of them")
            for frame in frames if t is None else (t,):
                found[(name, frame)] = Correction(paths[0], t is not None)
        return found


def _aliases(image: Path) -> set[str]:
    """Names that results of an image may have: its own, or with the names of its folders before it."""
    folders = [part for part in Path(os.path.abspath(image)).parent.parts if part.strip("/\\")]
    own = {stem_of(image), image.name.replace(".", "_")}
    return {composed("_".join([*folders[len(folders) - n :], name])) for name in own for n in range(len(folders) + 1)}


def with_corrections(cases: Sequence[FolderCase], config: FolderData) -> list[FolderCase]:
    """Cases whose corrected organelles are taken from `data.corrections`, and one more for each other corrected frame.

    Raises
    ------
    InputError
        No such folder, or a correction that could be of two volumes.
    """
    if config.corrections is None:
        return list(cases)
    folder = Path(config.root) / config.corrections
    if not folder.is_dir():
        raise InputError(f"data.corrections: {folder}: no such folder; name the one that the corrected masks lie in")
    corrections = Corrections(folder, {case.volume: None for case in cases}, config.organelles)
    result = []
    for case in cases:
        by_frame: dict[int, dict[str, Correction]] = {}
        for (name, t), found in corrections.of(case.volume, [case.frame]).items():
            by_frame.setdefault(t, {})[name] = found
        own = {name: found.path for name, found in by_frame.pop(case.frame, {}).items()}
        result.append(dataclasses.replace(case, masks={**case.masks, **own}))
        for t, names in sorted(by_frame.items()):
            single = {name: found.path for name, found in names.items()}
            more = {"name": f"{case.name}, frame {t}", "frame": t, "masks": single, "label_file": None}
            result.append(dataclasses.replace(case, **more))  # type: ignore[arg-type]
    return result
