"""A person's corrections: masks and labels dropped beside predictions, found by their names.

NAME_nucleus_corrected.nii.gz corrects an organelle (or `cells`) of every frame of NAME, in one file of as many frames;
NAME_t003_nucleus_corrected.nii.gz that of frame 3, and wins over the former. A correction wins over whatever else is
known of that organelle and frame: a prediction, or a mask that was there before.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from datamodules.cases import FolderCase
from datamodules.config import FolderData
from datamodules.paths import is_volume, stem_of
from formats.errors import InputError

#: How the name of a correction ends, before its suffix.
CORRECTED = "_corrected"


def find_corrections(
    folder: Path, stems: Sequence[str], frames: int, names: Sequence[str]
) -> dict[tuple[str, int], Path]:
    """Corrected files of a tomogram.

    Parameters
    ----------
    folder : Path
        Where they lie; there need be no such folder.
    stems : sequence of str
        Names that the tomogram goes by.
    frames : int
        How many it has.
    names : sequence of str
        Organelles, and "cells".

    Returns
    -------
    dict of (name, frame) -> Path
    """
    found: dict[tuple[str, int], Path] = {}
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir()):
        stem = stem_of(path)
        if not is_volume(path) or not stem.endswith(CORRECTED):
            continue
        for name in names:
            for base in stems:
                if stem == f"{base}_{name}{CORRECTED}":
                    for t in range(frames):
                        found.setdefault((name, t), path)
                elif told := re.fullmatch(rf"{re.escape(base)}_t(\d+)_{re.escape(name)}{CORRECTED}", stem):
                    found[(name, int(told[1]))] = path
    return found


def with_corrections(cases: Sequence[FolderCase], config: FolderData) -> list[FolderCase]:
    """Cases whose corrected organelles are taken from `data.corrections`, and one more for each other corrected frame.

    Raises
    ------
    InputError
        No such folder.
    """
    if config.corrections is None:
        return list(cases)
    folder = Path(config.root) / config.corrections
    if not folder.is_dir():
        raise InputError(f"data.corrections: {folder}: no such folder; name the one that the corrected masks lie in")
    result = []
    for case in cases:
        own = find_corrections(folder, [stem_of(case.volume)], case.frame + 1, case.organelles)
        by_frame: dict[int, dict[str, Path]] = {}
        for (name, t), path in own.items():
            by_frame.setdefault(t, {})[name] = path
        result.append(dataclasses.replace(case, masks={**case.masks, **by_frame.get(case.frame, {})}))
        for t in sorted(set(by_frame) - {case.frame}):
            single = {name: path for name, path in by_frame[t].items() if re.search(rf"_t0*{t}_", path.name)}
            if single:
                more = {"name": f"{case.name}, frame {t}", "frame": t, "masks": single, "label_file": None}
                result.append(dataclasses.replace(case, **more))  # type: ignore[arg-type]
    return result
