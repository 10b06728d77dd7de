"""Manually corrected masks and labels, found by their file names.

NAME_nucleus_corrected.nii.gz corrects an organelle (or `cells`) in every frame of NAME; it has as many frames.
NAME_t003_nucleus_corrected.nii.gz corrects frame 3, and takes precedence over the former. NAME is the name of the
image's results, which is unique among the inputs, or the image's own name if that is unique, with or without the names
of its folders before it. A correction takes precedence over the prediction or mask of its organelle and frame.
"""

from __future__ import annotations

import dataclasses
import itertools
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

#: End of the name of a correction, before its suffix.
CORRECTED = "_corrected"


@dataclass(frozen=True)
class Correction:
    """A corrected mask."""

    path: Path
    own_frame: bool
    """Whether the number of the frame is in the file name."""


class Corrections:
    """Corrections in a folder, by image.

    Parameters
    ----------
    folder : Path
        Folder of the corrections; it need not exist.
    images : mapping of Path -> str or None
        All images, with the name of their results if it is known.
    names : sequence of str
        Names of organelles, and "cells".
    """

    def __init__(self, folder: Path, images: Mapping[Path, str | None], names: Sequence[str]) -> None:
        self._found: dict[Path, dict[tuple[str, int | None], list[Path]]] = {path: {} for path in images}
        self._shared: dict[Path, str] = {}
        self.orphans: list[Path] = []
        """Corrections that belong to none of the images."""
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
        """Add a file to the corrections of its image: the first whose name, with or without a frame, is in `owners`."""
        bases = [(stem.removesuffix(end), name) for name in names if stem.endswith(end := f"_{name}{CORRECTED}")]
        framed = [(m, name) for base, name in bases if (m := re.fullmatch(r"(.+)_t([0-9]+)", base))]
        readings = [*((base, name, None) for base, name in bases), *((m[1], name, int(m[2])) for m, name in framed)]
        for known, (base, name, frame) in itertools.product(owners, readings):
            own = known.get(base, [])
            if len(own) == 1:
                self._found[own[0]].setdefault((name, frame), []).append(path)
            elif own:
                found = f"{path}: could be the correction of {', '.join(map(str, own))}"
                self._shared |= dict.fromkeys(own, f"{found}; name it by the name of the results of one")
            if own:
                return
        self.orphans.append(path)

    def of(self, image: Path, frames: Sequence[int]) -> dict[tuple[str, int], Correction]:
        """Return the corrections of one image by (name, frame).

        Parameters
        ----------
        image : Path
            One of `images`.
        frames : sequence of int
            Frames corrected by a file without the number of a frame.

        Raises
        ------
        InputError
            A file could correct two images, or two files correct the same organelle and frame.
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
    """Return the names that results of an image may have: its own, with or without the names of its folders."""
    folders = [part for part in Path(os.path.abspath(image)).parent.parts if part.strip("/\\")]
    own = {stem_of(image), image.name.replace(".", "_")}
    return {composed("_".join([*folders[len(folders) - n :], name])) for name in own for n in range(len(folders) + 1)}


def with_corrections(cases: Sequence[FolderCase], config: FolderData) -> list[FolderCase]:
    """Return the cases with the masks of `data.corrections`, and one more case for each other corrected frame.

    Raises
    ------
    InputError
        The folder does not exist, or a correction could belong to two volumes.
    """
    if config.corrections is None:
        return list(cases)
    folder = Path(config.root) / config.corrections
    if not folder.is_dir():
        raise InputError(f"data.corrections: {folder}: no such folder; give the folder of the corrected masks")
    corrections = Corrections(folder, {case.volume: None for case in cases}, config.organelles)
    result = []
    for case in cases:
        by_frame: dict[int, dict[str, Path]] = {}
        for (name, t), correction in corrections.of(case.volume, [case.frame]).items():
            by_frame.setdefault(t, {})[name] = correction.path
        own = by_frame.pop(case.frame, {})
        result.append(dataclasses.replace(case, masks={**case.masks, **own}, corrected=frozenset(own)))
        result += [
            dataclasses.replace(
                case, name=f"{case.name}, frame {t}", frame=t, masks=masks, label_file=None, corrected=frozenset(masks)
            )
            for t, masks in sorted(by_frame.items())
        ]
    return result
