"""Find and measure the cells of one frame: the job of a worker process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cytovox.errors import InputError
from cytovox.io import read_volume
from cytovox.io.fluorescence import fluorescence_channels, read_channel
from cytovox.io.provenance import Fingerprint
from cytovox.io.spacing import SpacingFrom
from cytovox.measurement.measurements import Rules, measure_frame
from cytovox.measurement.refractive import Increments
from cytovox.measurement.volume_interval import VolumeInterval, agreement, volume_intervals
from cytovox.models.domain import frame_outside
from cytovox.organelles import WHOLE
from cytovox.segmentation.checks import nuclei_outside_note
from cytovox.segmentation.field import CellField, FoundCells, SeedRule, finder_inputs
from cytovox.segmentation.holes import fill_cells
from cytovox.segmentation.watershed import unassigned
from datamodules.label_source import LabelSource
from experiments.tasks.analyze.predictors import cell_finder, trained_on
from experiments.tasks.analyze.state import FrameState

#: Axes (of z, y, x) of the mirror images: in the plane, since the missing cone lies along z.
MIRRORS: tuple[tuple[int, ...], ...] = ((1,), (2,), (1, 2))


@dataclass(frozen=True)
class FrameJob:
    """Arguments of `finish_frame`: a frame whose organelles are stored, and the rules for its cells."""

    source: Path
    t: int
    spacing_um: tuple[float, float, float] | None
    """Voxel size from the config, for a file without it."""
    spacing_from: SpacingFrom
    series: int | str | None
    """Number or name of the image in a file with several images."""
    state: Path
    method: str
    weights: Path | None
    rule: SeedRule
    rules: Rules
    cells: LabelSource | None
    """Existing or corrected labels of cells."""
    cells_from: str
    """Origin of the cells: predicted, given or corrected."""
    seeds: LabelSource | None
    """Existing labels of nuclei."""
    corrected: tuple[tuple[str, LabelSource], ...]
    """Corrected masks: organelle and file."""
    binary: bool
    """Whether masks exist or were corrected, so that probabilities are not used."""
    members: int
    """Number of mirror images of the frame that were predicted, too."""
    cells_provenance: Fingerprint
    rows_provenance: Fingerprint


def finish_frame(job: FrameJob) -> list[str]:
    """Find and measure the cells of a frame, unless the stored results are current.

    Returns
    -------
    list of str
        Notes for the user.

    Raises
    ------
    InputError
        Labels do not match the tomogram.
    """
    torch.set_num_threads(1)  # the network uses the other threads; and results are the same in any process
    state, notes = FrameState(job.state), list[str]()
    volume = read_volume(job.source, job.spacing_um, job.spacing_from, job.series)
    if state.has("cells", job.cells_provenance) and state.has("rows", job.rows_provenance):
        return notes
    ri = volume.frame(job.t)
    corrected = {name: source.mask() for name, source in job.corrected}
    masks = {**state.masks(), **corrected}
    if not state.has("cells", job.cells_provenance):
        found = _found(job, state, ri, masks, volume.spacing_um, notes)
        kind = np.uint16 if found.cells_ZYX.max(initial=0) < 2**16 else np.uint32
        arrays = {"cells": found.cells_ZYX.astype(kind), "seeds": found.seeds_ZYX.astype(kind)}
        arrays |= {f"mask_{name}": np.packbits(mask) for name, mask in corrected.items()}
        intervals: dict[int, VolumeInterval] = {}
        if job.members and job.cells is None:
            members = _members(job, ri, volume.spacing_um)
            intervals = volume_intervals(found.cells_ZYX, members, float(np.prod(volume.spacing_um)))
            arrays["agreement"] = np.rint(255 * agreement(found.cells_ZYX, members)).astype(np.uint8)
        outside = ""
        if job.cells is None and job.weights is not None:
            outside = frame_outside([trained_on(job.weights)], lambda box: ri[box], volume)
        state.save(
            "cells", job.cells_provenance, arrays, corrected=sorted(corrected), outside=outside,
            intervals={str(k): [found.low_um3, found.high_um3] for k, found in intervals.items()},
        )  # fmt: skip
    cells = state.arrays("cells")["cells"].astype(np.int32)
    stored_intervals = state.metadata("cells")["intervals"]
    probabilities = {name: values for name, values in _mean_probabilities(job, state).items() if name not in corrected}
    channels = {name: read_channel(volume, job.t, name) for name in fluorescence_channels(volume)}
    measured = measure_frame(ri, cells, masks, volume.spacing_um, job.rules, volume.origin_um, probabilities, channels)
    unassigned_um3 = float(unassigned(masks["membrane"], cells).sum()) if "membrane" in masks else math.nan
    for k in range(job.members + 1):  # before the rows, with which the frame is complete and not visited again
        (state.member(k) if k else state).compress_probabilities()
    state.save(
        "rows", job.rows_provenance, {},
        compartments=[
            {**_plain(row), **_interval(row, stored_intervals), **_original(job.cells, row["cell"])}
            for row in measured.compartments
        ],
        parts=[_plain(row) for row in measured.parts],
        unclaimed_um3=None if math.isnan(unassigned_um3) else unassigned_um3 * float(np.prod(volume.spacing_um)),
        cells_from=job.cells_from, notes=notes, outside_training=_outside(state),
    )  # fmt: skip
    return notes


def _mean_probabilities(job: FrameJob, state: FrameState) -> dict[str, np.ndarray]:
    """Return the mean of the probabilities of a frame and of its mirror images, uint8; empty for existing masks."""
    views = [state.probabilities(), *(state.member(k).probabilities() for k in range(1, job.members + 1))]
    if len(views) == 1:
        return views[0]
    return {name: np.rint(np.mean([view[name] for view in views], axis=0)).astype(np.uint8) for name in views[0]}


def _outside(state: FrameState) -> str:
    """Return a description of properties of a frame outside the range of the weights' training data."""
    found = {"organelles": state.metadata("organelles").get("outside"), "cells": state.metadata("cells").get("outside")}
    if found["organelles"] == found["cells"]:
        return found["cells"] or ""
    return "; ".join(f"{what}: {text}" for what, text in found.items() if text)


def _interval(row: dict[str, Any], intervals: dict[str, list[float]]) -> dict[str, float | None]:
    """Return the columns of the volume interval; None for other compartments than whole cells."""
    low, high = intervals.get(str(row["cell"]), (None, None)) if row["compartment"] == WHOLE else (None, None)
    return {"volume_low_um3": low, "volume_high_um3": high}


def _original(cells: LabelSource | None, label: int) -> dict[str, int | None]:
    """Return the column of the label in the file of given cells; None for voxels outside all cells."""
    if cells is None:
        return {}
    return {"original_label": cells.reading.original(label) if label > 0 else None}


def _members(job: FrameJob, ri: np.ndarray, spacing_um: Any) -> list[np.ndarray]:
    """Return the cells of the mirror images, in the orientation of the frame."""
    found = []
    for k, axes in enumerate(MIRRORS[: job.members], start=1):
        state = FrameState(job.state).member(k)
        membrane, nucleus = finder_inputs(state.masks(), state.probabilities())
        mirrored = [np.flip(image, axes) for image in (membrane, nucleus, ri)]
        finder = cell_finder(job.method, job.weights, job.rule)
        field = CellField(mirrored[0], mirrored[1], spacing_um, mirrored[2])
        found.append(np.flip(fill_cells(finder(field).cells_ZYX), axes))
    return found


def _found(
    job: FrameJob, state: FrameState, ri: np.ndarray, masks: dict[str, np.ndarray], spacing_um: Any, notes: list[str]
) -> FoundCells:
    if job.cells is not None:
        cells = job.cells.objects()
        if hollow := int(np.count_nonzero(fill_cells(cells) != cells)):
            notes.append(f"frame {job.t}: {hollow} voxels lie in holes of the given cells, which are not filled")
        nuclei = masks.get("nucleus")
        return FoundCells(cells, np.where(nuclei, cells, 0) if nuclei is not None else np.zeros_like(cells))
    if "nucleus" not in masks or "membrane" not in masks:
        raise InputError(
            f"{job.source}, frame {job.t}: cells are found from masks of membrane and nucleus, but there are only "
            f"{', '.join(masks) or 'none'}; give both, or cells=..."
        )
    membrane, nucleus = finder_inputs(masks, {} if job.binary else state.probabilities())
    seeds = None if job.seeds is None else job.seeds.objects()
    field = CellField(membrane, nucleus, spacing_um, ri, seeds)
    if outside := nuclei_outside_note(masks["nucleus"], masks["membrane"]):
        notes.append(f"frame {job.t}: {outside}")
    if not masks["nucleus"].any():
        notes.append(f"frame {job.t}: no nucleus, so no cells were separated")
    found = cell_finder(job.method, job.weights, job.rule)(field)
    return FoundCells(fill_cells(found.cells_ZYX), found.seeds_ZYX)


def rules_of(medium_ri: float, measure: Any) -> Rules:
    """Return the rules of measurement from `measure:` of a config and the refractive index of the medium."""
    return Rules(
        medium_ri, Increments(measure.lipid_ml_per_g, measure.other_ml_per_g, measure.uniform), str(measure.area)
    )


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for JSON, with None instead of nan."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
