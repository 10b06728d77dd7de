"""Time-lapses: opening of inputs, and the results of their frames that must be computed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cytovox.errors import InputError
from cytovox.io import Volume, read_volume
from cytovox.io.fluorescence import fluorescence_channels, read_channel
from cytovox.io.provenance import ContentDigests, Fingerprint, StampedRecords, array_digest, stamp_of
from cytovox.measurement.refractive import PAPER_MEDIUM_RI
from cytovox.measurement.registry import measurement_versions
from cytovox.models.domain import frame_outside
from cytovox.organelles import CELLS
from cytovox.segmentation.holes import FILLED, fill_holes
from datamodules.cases import checked_ri
from datamodules.errors import OnError, refuse
from datamodules.label_source import LabelSource
from datamodules.steps import STEPS
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.frames import MIRRORS, FrameJob, rules_of
from experiments.tasks.analyze.given import Existing, open_existing
from experiments.tasks.analyze.predictors import trained_on
from experiments.tasks.analyze.sources import Source
from experiments.tasks.analyze.state import FrameState


@dataclass
class TimeLapse:
    """An opened input."""

    source: Source
    volume: Volume
    folder: Path
    """Folder of the intermediate results of its frames."""
    medium_ri: float
    medium_from: str
    """Origin of `medium_ri`: given, file or paper."""
    times_s: tuple[float, ...] | None
    corrections: dict[tuple[str, int], LabelSource]
    masks: dict[str, dict[int, LabelSource]] = field(default_factory=dict)
    """Existing masks, by organelle and frame."""
    cells: dict[int, LabelSource] = field(default_factory=dict)
    """Existing labels of cells, by frame."""
    notes: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.volume.shape[0]

    def state(self, t: int) -> FrameState:
        """Return the intermediate results of a frame."""
        return FrameState(self.folder / f"t{t:04d}")


def open_time_lapse(
    source: Source, config: AnalyzeConfig, states: Path, existing: Existing, on_error: OnError = refuse
) -> TimeLapse:  # fmt: skip
    """Open an input with its masks, labels and corrections.

    Parameters
    ----------
    source, config
        The input, and the config of the analysis.
    states : Path
        Folder of the intermediate results of all inputs.
    existing : Existing
        Existing masks, labels and corrections.
    on_error : callable
        Called with each error of masks, labels and corrections. The default raises it.

    Raises
    ------
    InputError
        The input cannot be read, its time stamps do not ascend, or masks, labels or corrections are invalid and
        `on_error` raises.
    """
    spacing = tuple(config.spacing_um) if config.spacing_um is not None else None
    volume = read_volume(source.path, spacing, config.spacing_from, config.series)
    notes = list(volume.notes)
    medium, medium_from = config.measure.medium_ri, "given"
    if medium is None:
        medium, medium_from = volume.medium_ri, "file"
    if medium is None:
        medium, medium_from = PAPER_MEDIUM_RI, "paper"
        notes.append(
            f"{source.path.name}: refractive index of the medium missing; {PAPER_MEDIUM_RI} (Choi et al. 2021) is "
            "used. An error of 0.003 changes concentrations by 14 %: set measure.medium_ri"
        )
    times = _times(source, volume, config.interval_min, notes)
    time_lapse = TimeLapse(source, volume, states / source.name, float(medium), medium_from, times, {}, notes=notes)
    time_lapse.corrections, time_lapse.masks, time_lapse.cells = open_existing(
        existing, source, config, volume, notes, on_error
    )
    return time_lapse


def _times(source: Source, volume: Volume, interval_min: float | None, notes: list[str]) -> tuple[float, ...] | None:
    count = volume.shape[0]
    if interval_min is not None:
        return tuple(60.0 * interval_min * t for t in range(count))
    if volume.times_s is None:
        if count > 1:
            notes.append(f"{source.path.name}: no time stamps; times are numbers of frames: set interval_min")
        return None
    for t, (before, after) in enumerate(pairwise(volume.times_s)):
        if after <= before:
            raise InputError(
                f"{source.path}: the time stamps of frames {t} and {t + 1} are {before:g} and {after:g} s; expected "
                "ascending times: fix the file, or set interval_min"
            )
    return volume.times_s


#: Function from a frame to masks by organelle, and probabilities by organelle, uint8.
Predict = Callable[[np.ndarray, tuple[float, float, float]], tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]


@dataclass(frozen=True)
class Asked:
    """Config, weights and file digests of an analysis, the same for every frame."""

    config: AnalyzeConfig
    sources: int
    """Number of inputs."""
    organelle_weights: Path | None
    """Weights that predict organelles; None with existing masks."""
    cell_weights: Path | None
    """Weights that separate cells; None for methods without weights, or with existing labels."""
    digests: ContentDigests
    """Digests of weights, masks and labels."""


class Frames:
    """Frames of a time-lapse: their organelles are computed here, and the rest by a job in a worker process."""

    def __init__(self, time_lapse: TimeLapse, asked: Asked, predict: Predict) -> None:
        self.time_lapse, self.asked, self.predict = time_lapse, asked, predict
        self.recomputed: Counter[str] = Counter()
        """Number of frames that are computed again, by reason."""
        self._notes = StampedRecords(time_lapse.folder / "read")
        self._stamp, self._read_ns = stamp_of(time_lapse.source.path), time.time_ns()
        known = self._notes.read(time_lapse.source.path)
        self._digests = {int(t): str(text) for t, text in known.items()} if isinstance(known, dict) else {}
        self._channel_notes = StampedRecords(time_lapse.folder / "read_fluorescence")
        stored = self._channel_notes.read(time_lapse.source.path)
        self._channel_digests: dict[str, dict[str, str]] = stored if isinstance(stored, dict) else {}
        self._held: tuple[int, np.ndarray] | None = None  # the last frame that was read

    def job(self, t: int) -> FrameJob | None:
        """Compute the organelles of a frame if necessary, and return the job for the rest; None if all is current.

        Raises
        ------
        InputError
            The frame cannot be read, is not a refractive index, or does not match its masks.
        """
        time_lapse, asked, config = self.time_lapse, self.asked, self.asked.config
        state = time_lapse.state(t)
        given = self._given(t)
        cells, cells_from = self._cells(t)
        seeds = None if cells is not None else self._seeds(t)
        corrected = tuple((n, p) for (n, at), p in sorted(time_lapse.corrections.items()) if at == t and n != CELLS)
        members = len(MIRRORS) if config.uncertainty else 0
        provenance = self._organelles_from(t, given)
        mirrors = {k: self._organelles_from(t, given, axes) for k, axes in enumerate(MIRRORS[:members], start=1)}

        def cells_provenance() -> Fingerprint:
            return STEPS["analyze.cells"].fingerprint(
                config, organelles=state.key("organelles", provenance),
                mirror_images=[state.member(k).key("organelles", mirror) for k, mirror in mirrors.items()],
                corrected_masks=[[n, *self._read_from(source)] for n, source in corrected],
                labels_of_cells=None if cells is None else self._read_from(cells),
                labels_of_nuclei=None if seeds is None else self._read_from(seeds),
                cell_weights=None if cells is not None or asked.cell_weights is None
                else self._digest(asked.cell_weights),
            )  # fmt: skip

        found = state.has("cells", cells_provenance())
        why = ""
        for k, axes, wanted in [(0, (), provenance), *((k, MIRRORS[k - 1], mirror) for k, mirror in mirrors.items())]:
            own = state.member(k) if k else state
            current = own.has("organelles", wanted)
            lost = current and not found and not given and not own.has_probabilities
            if not current or lost:
                why = why or wanted.why(own.provenance("organelles")) or ("probabilities are missing" if lost else "")
                self._organelles(t, own, wanted, axes, given)
            time_lapse.notes.extend(n for n in own.metadata("organelles").get("notes", []) if n not in time_lapse.notes)
        cells_from_these = cells_provenance()
        fluorescence = self._fluorescence_digests(t)
        more: dict[str, Any] = {"fluorescence": fluorescence} if fluorescence else {}
        rows_from_these = STEPS["analyze.rows"].fingerprint(
            config, cells=state.key("cells", cells_from_these), refractive_index_of_medium=time_lapse.medium_ri,
            origin_um=list(time_lapse.volume.origin_um), cells_are=cells_from,
            measurements=measurement_versions(), **more,
        )  # fmt: skip
        has_cells, has_rows = state.has("cells", cells_from_these), state.has("rows", rows_from_these)
        why = why or ("" if has_cells else cells_from_these.why(state.provenance("cells")))
        why = why or ("" if has_rows else rows_from_these.why(state.provenance("rows")))
        self.recomputed.update([why] if why else [])
        if has_cells and has_rows:
            return None
        return FrameJob(
            time_lapse.source.path, t, tuple(config.spacing_um) if config.spacing_um else None,  # type: ignore[arg-type]
            config.spacing_from, config.series, state.folder, config.method, asked.cell_weights, config.seeds.rule(),
            rules_of(time_lapse.medium_ri, config.measure), cells, cells_from, seeds,
            corrected, bool(given or corrected),
            members, cells_from_these, rows_from_these,
        )  # fmt: skip

    def _organelles_from(self, t: int, given: list[tuple[str, LabelSource]], axes: tuple[int, ...] = ()) -> Fingerprint:
        """Return the fingerprint of the organelles of a frame, or of its mirror image along `axes`."""
        weights = self.asked.organelle_weights
        return STEPS["analyze.organelles"].fingerprint(
            self.asked.config, tomogram=self._frame_digest(t), voxel_size=list(self.time_lapse.volume.spacing_um),
            given_masks=[[name, *self._read_from(source)] for name, source in given],
            organelle_weights=None if given or weights is None else self._digest(weights), mirrored=list(axes),
        )  # fmt: skip

    def _read_from(self, source: LabelSource) -> list[str]:
        return [self._digest(source.path), source.key]

    def _digest(self, path: Path) -> str:
        return self.asked.digests.of(path)

    def _frame_digest(self, t: int) -> str:
        """Return the digest of a frame's refractive indices; the frame is read only if the file has changed."""
        if t not in self._digests:
            self._digests[t] = array_digest(self._ri(t))
            self._notes.write(self.time_lapse.source.path, self._digests, self._stamp, self._read_ns)
        return self._digests[t]

    def _fluorescence_digests(self, t: int) -> dict[str, str]:
        """Return the digest of each fluorescence channel of a frame on the tomogram's grid; none without channels."""
        volume = self.time_lapse.volume
        names = fluorescence_channels(volume)
        if names and list(self._channel_digests.get(str(t), {})) != list(names):
            digests = {name: array_digest(read_channel(volume, t, name).values_ZYX) for name in names}
            self._channel_digests[str(t)] = digests
            self._channel_notes.write(self.time_lapse.source.path, self._channel_digests, self._stamp, self._read_ns)
        return self._channel_digests[str(t)] if names else {}

    def _ri(self, t: int) -> np.ndarray:
        if self._held is None or self._held[0] != t:
            time_lapse = self.time_lapse
            self._held = (t, checked_ri(time_lapse.volume.frame(t), f"{time_lapse.source.path}, frame {t}"))
        return self._held[1]

    def _given(self, t: int) -> list[tuple[str, LabelSource]]:
        """Return the existing masks of a frame: organelle and file."""
        return [(name, by_frame[t]) for name, by_frame in self.time_lapse.masks.items() if t in by_frame]

    def _cells(self, t: int) -> tuple[LabelSource | None, str]:
        """Return corrected or else existing labels of cells, and the origin of the cells."""
        corrected = self.time_lapse.corrections.get((CELLS, t))
        if corrected is not None:
            return corrected, "corrected"
        return (self.time_lapse.cells[t], "given") if self.time_lapse.cells else (None, "predicted")

    def _seeds(self, t: int) -> LabelSource | None:
        """Return corrected or else existing labels of nuclei; None if there are only masks."""
        nuclei = self.time_lapse.corrections.get(("nucleus", t)) or self.time_lapse.masks.get("nucleus", {}).get(t)
        return nuclei if nuclei is not None and nuclei.instances else None

    def _organelles(
        self, t: int, state: FrameState, provenance: Fingerprint, axes: tuple[int, ...],
        given: list[tuple[str, LabelSource]],
    ) -> None:  # fmt: skip
        """Store the existing masks of a frame, or those predicted from the frame or a mirror image of it."""
        time_lapse, ri = self.time_lapse, self._ri(t)
        outside, weights = "", self.asked.organelle_weights
        state.remove_probabilities()
        if given:
            masks = {name: source.mask() for name, source in given}
        else:
            if weights is not None:
                outside = frame_outside([trained_on(weights)], lambda box: ri[box], time_lapse.volume)
            spacing_um = time_lapse.volume.spacing_um
            masks, probabilities = self.predict(np.ascontiguousarray(np.flip(ri, axes)), spacing_um)
            if FILLED in masks:
                masks[FILLED] = fill_holes(masks[FILLED], spacing_um)
            masks = {name: np.flip(mask, axes) for name, mask in masks.items()}
            state.save_probabilities({name: np.flip(values, axes) for name, values in probabilities.items()})
        state.save_masks(provenance, masks, ri.shape, notes=[], outside=outside)
