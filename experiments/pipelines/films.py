"""One input over time: what is asked for of each of its frames, and by which keys its results are known."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from analysis.organelles import CELLS
from analysis.refractive import PAPER_MEDIUM_RI
from datamodules.cases import checked_ri
from datamodules.corrections import find_corrections
from datamodules.paths import stem_of
from experiments.pipelines.config import AnalyzeConfig
from experiments.pipelines.frames import MIRRORS, FrameJob, rules_of
from experiments.pipelines.predictors import digest
from experiments.pipelines.sources import Source, given_file, read_labels
from experiments.pipelines.state import FrameState, array_digest, key_of
from formats import Volume, open_labels, read_volume
from formats.atomic import atomic_path
from formats.errors import InputError
from transforms.holes import FILLED, fill_holes


@dataclass
class Film:
    """One input, opened."""

    source: Source
    volume: Volume
    folder: Path
    """Of the states of its frames."""
    medium_ri: float
    medium_from: str
    """given, file or paper."""
    times_s: tuple[float, ...] | None
    corrections: dict[tuple[str, int], Path]
    notes: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """How many."""
        return self.volume.shape[0]

    def state(self, t: int) -> FrameState:
        """What is known of a frame."""
        return FrameState(self.folder / f"t{t:04d}")


def open_film(source: Source, config: AnalyzeConfig, states: Path, corrections: Path) -> Film:
    """Open an input.

    Raises
    ------
    InputError
        It cannot be read, or its time stamps do not rise.
    """
    spacing = tuple(config.spacing_um) if config.spacing_um is not None else None
    volume = read_volume(source.path, spacing, config.spacing_from, config.series)
    notes = list(volume.notes)
    medium, told = config.measure.medium_ri, "given"
    if medium is None:
        medium, told = volume.medium_ri, "file"
    if medium is None:
        medium, told = PAPER_MEDIUM_RI, "paper"
        notes.append(
            f"{source.path.name}: tells no index of its medium; {PAPER_MEDIUM_RI} (Choi et al. 2021) was taken, and an "
            "error of 0.003 is 14 % of a concentration: give measure.medium_ri"
        )
    names = [*config.organelle_names, CELLS]
    found = find_corrections(corrections, (source.name, stem_of(source.path)), volume.shape[0], names)
    times = _times(source, volume, config.interval_min, notes)
    return Film(source, volume, states / source.name, float(medium), told, times, found, notes)


def _times(source: Source, volume: Volume, interval_min: float | None, notes: list[str]) -> tuple[float, ...] | None:
    count = volume.shape[0]
    if interval_min is not None:
        return tuple(60.0 * interval_min * t for t in range(count))
    if volume.times_s is None:
        if count > 1:
            notes.append(f"{source.path.name}: no time stamps; frames are counted instead: give interval_min")
        return None
    for t, (before, after) in enumerate(pairwise(volume.times_s)):
        if after <= before:
            raise InputError(
                f"{source.path}: the time stamps of frames {t} and {t + 1} are {before:g} and {after:g} s; expected "
                "times that rise: mend the file, or give interval_min"
            )
    return volume.times_s


#: From a frame to masks by organelle, and probabilities of membrane and nucleus (2, Z, Y, X) or None.
Predict = Callable[[np.ndarray, tuple[float, float, float]], tuple[dict[str, np.ndarray], np.ndarray | None]]


@dataclass(frozen=True)
class Asked:
    """What an analysis asks of every frame."""

    config: AnalyzeConfig
    sources: int
    """Number of inputs."""
    weights_key: str
    """Digest of what predicts organelles; empty where masks are given."""
    cell_weights: Path | None
    cells_key: str
    """Digest of what tells cells from each other."""


class Frames:
    """The frames of a film, each brought as far as its organelles; what is left is a job for a worker."""

    def __init__(self, film: Film, asked: Asked, predict: Predict) -> None:
        self.film, self.asked, self.predict = film, asked, predict
        self._digests = self._known_digests()

    def job(self, t: int) -> FrameJob | None:
        """Organelles of a frame, and the job that is left; None where nothing is.

        Raises
        ------
        InputError
            The frame cannot be read, is no refractive index, or its masks do not fit it.
        """
        film, asked, config = self.film, self.asked, self.asked.config
        state, ri = film.state(t), None
        if t not in self._digests:
            ri = checked_ri(film.volume.frame(t), f"{film.source.path}, frame {t}")
            self._note_digest(t, array_digest(ri))
        given = self._given(t)
        spacing = list(film.volume.spacing_um)
        key = key_of(self._digests[t], spacing, [(n, digest(p), c) for n, p, c in given] or asked.weights_key)
        if not state.has("organelles", key):
            ri = film.volume.frame(t) if ri is None else ri
            self._organelles(t, key, ri, given)
        members = len(MIRRORS) if config.uncertainty else 0
        for k, axes in enumerate(MIRRORS[:members], start=1):
            if not state.member(k).has("organelles", key):
                ri = film.volume.frame(t) if ri is None else ri
                self._mirrored(t, k, axes, key, ri)
        corrected = tuple((n, p) for (n, at), p in sorted(film.corrections.items()) if at == t and n != CELLS)
        cells, cells_from = self._cells(t)
        cells_key = key_of(
            key, members, [(n, digest(p)) for n, p in corrected],
            digest(cells) if cells is not None and cells.is_file() else str(cells or asked.cells_key),
        )  # fmt: skip
        rules = rules_of(film.medium_ri, config.measure)
        rows_key = key_of(cells_key, film.medium_ri, rules.increments.rule, rules.area, cells_from)
        if state.has("cells", cells_key) and state.has("rows", rows_key):
            return None
        return FrameJob(
            film.source.path, t, tuple(config.spacing_um) if config.spacing_um else None,  # type: ignore[arg-type]
            config.spacing_from, config.series,
            state.folder, config.method, asked.cell_weights, config.seeds.rule(), rules, cells, cells_from,
            corrected, bool(given or corrected), members, cells_key, rows_key,
        )  # fmt: skip

    def _given(self, t: int) -> list[tuple[str, Path, int]]:
        """Existing masks: organelle, file, channel."""
        config, source = self.asked.config, self.film.source
        if config.organelles is None:
            return []
        patterns = [config.organelles] if isinstance(config.organelles, str) else list(config.organelles)
        if any("{organelle}" in pattern for pattern in patterns):
            found = {
                name: given_file(config.organelles, source, self.asked.sources, t, name, "organelles")
                for name in config.organelle_names
            }
            files = [(name, path, 0) for name, path in found.items() if path is not None]
        else:
            path = given_file(config.organelles, source, self.asked.sources, t, "", "organelles")
            files = [] if path is None else self._channels(path)
        if not files:
            raise InputError(f"{source.path}, frame {t}: no file of organelles={config.organelles} is there")
        return files

    def _channels(self, path: Path) -> list[tuple[str, Path, int]]:
        film, names = open_labels(path), self.asked.config.organelle_names
        told = film.channels if film.channels and set(film.channels) & set(names) else tuple(names[: film.shape[1]])
        return [(name, path, channel) for channel, name in enumerate(told)]

    def _cells(self, t: int) -> tuple[Path | None, str]:
        """Labels that are not to be predicted, and where they come from; the correction wins."""
        corrected = self.film.corrections.get((CELLS, t))
        if corrected is not None:
            return corrected, "corrected"
        config = self.asked.config
        if config.cells is None:
            return None, "predicted"
        path = given_file(config.cells, self.film.source, self.asked.sources, t, CELLS, "cells")
        if path is None:
            raise InputError(f"{self.film.source.path}, frame {t}: no file of cells={config.cells} is there")
        return path, "given"

    def _organelles(self, t: int, key: str, ri: np.ndarray, given: list[tuple[str, Path, int]]) -> None:
        film, state = self.film, self.film.state(t)
        said: np.ndarray | None = None
        if given:
            masks = {n: read_labels(path, t, channel, film.volume, film.notes) != 0 for n, path, channel in given}
        else:
            masks, said = self._predicted(ri)
        if said is not None:
            state.folder.mkdir(parents=True, exist_ok=True)
            state.save_said(said)
        state.save_masks(key, masks, ri.shape)

    def _predicted(self, ri: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Masks and probabilities of a frame; cells are filled."""
        masks, said = self.predict(ri, self.film.volume.spacing_um)
        if FILLED in masks:
            masks[FILLED] = fill_holes(masks[FILLED], self.film.volume.spacing_um)
        return masks, said

    def _mirrored(self, t: int, k: int, axes: tuple[int, ...], key: str, ri: np.ndarray) -> None:
        """What the network says of a mirror image, turned back."""
        state = self.film.state(t).member(k)
        masks, said = self._predicted(np.ascontiguousarray(np.flip(ri, axes)))
        if said is not None:
            state.folder.mkdir(parents=True, exist_ok=True)
            state.save_said(np.flip(said, tuple(1 + axis for axis in axes)))
        state.save_masks(key, {name: np.flip(mask, axes) for name, mask in masks.items()}, ri.shape)

    def _known_digests(self) -> dict[int, str]:
        """Of frames that were read before, if the file is what it was."""
        with contextlib.suppress(OSError, ValueError):
            told: dict[str, Any] = json.loads((self.film.folder / "film.json").read_text(encoding="utf-8"))
            if told["stamp"] == stamp_of(self.film.source.path):
                return {int(t): text for t, text in told["frames"].items()}
        return {}

    def _note_digest(self, t: int, text: str) -> None:
        self._digests[t] = text
        with atomic_path(self.film.folder / "film.json") as part:
            told = {"stamp": stamp_of(self.film.source.path), "frames": self._digests}
            part.write_text(json.dumps(told, sort_keys=True), encoding="utf-8")


def stamp_of(path: Path) -> list[list[Any]]:
    """Names, sizes and times of change of a file, or of those of a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
