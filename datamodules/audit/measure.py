"""Measurement of one volume and its masks, the job of an audit worker."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from cytovox.errors import InputError
from cytovox.io import open_labels, read_volume
from cytovox.io.values import RI_LIMITS
from cytovox.io.volume import Volume
from cytovox.organelles import UNDRAWN
from datamodules.audit.findings import Error
from datamodules.audit.placement import Misplaced, misplaced
from datamodules.cases import FolderCase
from datamodules.channel_labels import ChannelReport

#: Pairs of an organelle and the organelle that contains it.
INSIDE = (("nucleus", "membrane"), ("nucleolus", "nucleus"), ("lipid", "membrane"))

#: Values at most this far outside data.ri_range are attributed to noise.
MARGIN_RI = 0.002

#: Edge in voxels of the blocks that are checked for constant values.
BLOCK = 8

_SAMPLES = 1_000_000
_LATTICE = 16


@dataclass(frozen=True)
class Job:
    """One volume to check."""

    case: FolderCase
    ri_range: tuple[float, float]
    every_frame: bool = False
    """Whether to read it as `predict` does: all frames, no masks."""


@dataclass(frozen=True)
class RIStatistics:
    """Statistics of the refractive index of one frame."""

    frame: int
    size: int
    low: float
    high: float
    bad: int
    """Number of voxels that are NaN or infinite."""
    first_bad: tuple[int, int, int] | None
    zeros: int
    """Number of voxels that are exactly 0."""
    implausible: int
    """Number of finite voxels that cannot be a refractive index, zeros included."""
    constant: float
    """Fraction of the volume in blocks of a single value."""
    constant_value: float
    span: float
    """Difference between the 0.1st and the 99.9th percentile."""
    medium: float
    """Median outside the cells; without masks the 5th percentile."""
    above: float
    """Fraction of the cells (membrane mask, else voxels unlike the medium) above data.ri_range by `MARGIN_RI`."""
    below: float
    """Fraction of the cells below data.ri_range by `MARGIN_RI`."""
    middle: float
    """Median of all voxels."""


@dataclass
class Measurements:
    """Measurements of one volume."""

    name: str
    errors: list[Error] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shape: tuple[int, int, int] | None = None
    spacing_um: tuple[float, float, float] | None = None
    ri: list[RIStatistics] = field(default_factory=list)
    """Statistics of one frame of a training volume, or of every frame of a volume to predict."""
    shares: dict[str, float] = field(default_factory=dict)
    """Fraction of the annotated voxels of each readable mask that are inside it."""
    annotated: dict[str, float] = field(default_factory=dict)
    """Fraction of the volume that is annotated for each organelle with a readable mask."""
    not_annotated: str = ""
    """Error message of a volume without any annotated voxel; empty for others."""
    outside: dict[tuple[str, str], float] = field(default_factory=dict)
    """(inner, outer) -> fraction of the inner organelle outside the outer one."""
    misplaced: Misplaced | None = None
    channels: list[ChannelReport] = field(default_factory=list)
    """How masks were made from fluorescence channels."""
    voxels: np.ndarray | None = None
    """Signature of copies in any format: float32 voxels on a lattice, the mean, and the mean deviation of planes."""


def measure(job: Job) -> Measurements:
    """Return the measurements of a volume and its masks; errors are collected, not raised."""
    case = job.case
    result = Measurements(case.name)
    volume = _open(case, result)
    if volume is None:
        return _read_alone(case, result)
    result.shape, result.spacing_um = volume.shape[2:], volume.spacing_um
    result.notes += volume.notes
    try:
        if job.every_frame:
            return _measure_frames(volume, job, result)
        ri_ZYX = volume.frame(case.frame)
    except InputError as error:
        result.errors.append(Error("unreadable-volume", case.volume, str(error)))
        return _read_alone(case, result)
    masks, unannotated = _read_masks(case, volume, result)
    whole = {k: mask for k, mask in masks.items() if k not in unannotated}
    statistics = _ri_statistics([(0, ri_ZYX)], ri_ZYX.shape, case.frame, job.ri_range, whole)
    result.ri.append(statistics)
    result.annotated = {k: 1 - float(unannotated[k].mean()) if k in unannotated else 1.0 for k in masks}
    if masks and case.may_be_partial and not any(result.annotated.values()) and not result.errors:
        result.not_annotated = str(case.not_annotated())
    if not statistics.bad and not statistics.implausible:
        masks |= _read_channels(case, volume, ri_ZYX, whole, unannotated, result)
    drawn = {k: mask.size - np.count_nonzero(unannotated.get(k, False)) for k, mask in masks.items()}
    result.shares = {k: float(np.count_nonzero(mask)) / drawn[k] for k, mask in masks.items() if drawn[k]}
    result.outside = _outside(masks, unannotated)
    if not statistics.bad and not statistics.implausible and statistics.high > statistics.low:
        result.misplaced = misplaced(ri_ZYX, whole)
        result.voxels = _signature(ri_ZYX)
    return result


def _open(case: FolderCase, result: Measurements) -> Volume | None:
    try:
        return case.open()
    except InputError as error:
        kind = getattr(error, "kind", "unreadable-volume")
        if kind == "unreadable-volume":
            with contextlib.suppress(InputError):  # if it can be read with a given voxel size, that size is the error
                read_volume(case.volume, (1.0, 1.0, 1.0), "config", case.series)
                kind = "no-spacing" if "states no voxel size" in str(error) else "spacing"
        result.errors.append(Error(kind, case.volume, str(error)))
        return None


def _read_alone(case: FolderCase, result: Measurements) -> Measurements:
    """Return the result with the errors of the masks of a volume that cannot be read."""
    for mask_file in case.mask_files():
        try:
            open_labels(mask_file.file, case.series).stored(0, 0)
        except InputError as error:
            result.errors.append(Error("unreadable-mask", mask_file.file, str(error)))
    return result


def _read_masks(
    case: FolderCase, volume: Volume, result: Measurements
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the bool masks (Z, Y, X) of all organelles that can be read, and the voxels without annotation."""
    masks: dict[str, np.ndarray] = {}
    unannotated: dict[str, np.ndarray] = {}
    unused = [note for note in case.notes if "data.labels_from" in note]
    case.notes.clear()
    case.notes.extend(unused)
    for mask_file in case.mask_files():
        try:
            for organelle, mask_ZYX, unannotated_ZYX in case.read_mask_file(mask_file, volume):
                masks[organelle] = mask_ZYX
                if unannotated_ZYX is not None:
                    unannotated[organelle] = unannotated_ZYX
        except InputError as error:
            result.errors.append(Error(getattr(error, "kind", "unreadable-mask"), mask_file.file, str(error)))
    result.notes += case.notes
    return masks, unannotated


def _read_channels(
    case: FolderCase, volume: Volume, ri_ZYX: np.ndarray, masks: dict[str, np.ndarray],
    unannotated: dict[str, np.ndarray], result: Measurements,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return the bool masks (Z, Y, X) of fluorescence channels; those in which nothing is drawn are left out.

    Their voxels that are not drawn are added to `unannotated`.
    """
    found: dict[str, np.ndarray] = {}
    try:
        for label_ZYX, report in case.channel_masks(volume, ri_ZYX, masks):
            result.channels.append(report)
            if report.undrawn_share < 1:
                found[report.organelle] = label_ZYX == 1
                if (undrawn := label_ZYX == UNDRAWN).any():
                    unannotated[report.organelle] = undrawn
    except InputError as error:
        result.errors.append(Error(getattr(error, "kind", "fluorescence"), case.volume, str(error)))
    return found


def _measure_frames(volume: Volume, job: Job, result: Measurements) -> Measurements:
    """Return the result with statistics of every frame, read in slabs: a file may be larger than memory."""
    frames, _, depth, height, width = volume.shape
    step = BLOCK * max(1, 2**25 // (BLOCK * height * width))
    for t in range(frames):
        reader = volume.reader(t)
        slabs = (
            (z, reader.read((slice(z, min(z + step, depth)), slice(0, height), slice(0, width))))
            for z in range(0, depth, step)
        )
        result.ri.append(_ri_statistics(slabs, volume.shape[2:], t, job.ri_range, {}))
    return result


def _ri_statistics(
    slabs: Iterable[tuple[int, np.ndarray]],
    shape: tuple[int, ...],
    frame: int,
    ri_range: tuple[float, float],
    masks: dict[str, np.ndarray],
) -> RIStatistics:
    """Return the statistics of one frame, given as slabs with their first slice: (z, float array (Z, Y, X))."""
    size = int(np.prod(shape))
    stride = max(1, round((size / _SAMPLES) ** (1 / 3)))
    low, high, bad, first, zeros, implausible = np.inf, -np.inf, 0, None, 0, 0
    constant, value, samples = 0, 0.0, []
    for z0, slab in slabs:
        finite = np.isfinite(slab)
        if not finite.all():
            if first is None:
                z, y, x = (int(i) for i in np.argwhere(~finite)[0])
                first = (z + z0, y, x)
            bad += int(slab.size - np.count_nonzero(finite))
            slab = np.where(finite, slab, np.float32(ri_range[0]))
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        if low < RI_LIMITS[0] or high > RI_LIMITS[1]:
            zeros += int(np.count_nonzero(slab == 0))
            implausible += int(np.count_nonzero((slab < RI_LIMITS[0]) | (slab > RI_LIMITS[1])))
        found, of_value = _constant_voxels(slab)
        constant, value = constant + found, of_value if found else value
        samples.append(slab[-z0 % stride :: stride, ::stride, ::stride])
    sample = np.concatenate(samples)
    bottom, fifth, top = (float(v) for v in np.percentile(sample, (0.1, 5.0, 99.9)))
    cells = masks["membrane"][::stride, ::stride, ::stride] if "membrane" in masks else None
    medium, inside = _medium(sample, cells, fifth)
    above = float((inside > ri_range[1] + MARGIN_RI).mean()) if inside.size else 0.0
    below = float((inside < ri_range[0] - MARGIN_RI).mean()) if inside.size else 0.0
    return RIStatistics(
        frame=frame, size=size, low=low, high=high, bad=bad, first_bad=first, zeros=zeros, implausible=implausible,
        constant=constant / size, constant_value=value, span=top - bottom, medium=medium, above=above, below=below,
        middle=float(np.median(sample)),
    )  # fmt: skip


def _medium(sample: np.ndarray, cells: np.ndarray | None, fifth: float) -> tuple[float, np.ndarray]:
    """Return the medium's index, and the voxels of cells."""
    outside = sample[~cells] if cells is not None else sample[:0]
    medium = float(np.median(outside)) if outside.size > 0.01 * sample.size else fifth
    return medium, sample[cells if cells is not None else np.abs(sample - medium) > 2 * MARGIN_RI]


def _constant_voxels(slab_ZYX: np.ndarray) -> tuple[int, float]:
    """Return the number of voxels in blocks of a single value, and one such value."""
    size = [min(BLOCK, n) for n in slab_ZYX.shape]
    counts = [n // b for n, b in zip(slab_ZYX.shape, size, strict=True)]
    total, value = 0, 0.0
    for k in range(counts[0]):  # one layer at a time, so that no copy is large
        layer = slab_ZYX[k * size[0] : (k + 1) * size[0], : counts[1] * size[1], : counts[2] * size[2]]
        blocks = layer.reshape(size[0], counts[1], size[1], counts[2], size[2])
        lowest = blocks.min(axis=(0, 2, 4))
        if (same := lowest == blocks.max(axis=(0, 2, 4))).any():
            total += int(np.count_nonzero(same)) * int(np.prod(size))
            value = float(lowest[same][0])
    return total, value


def _outside(masks: dict[str, np.ndarray], unannotated: dict[str, np.ndarray]) -> dict[tuple[str, str], float]:
    """Return `Measurements.outside`, of the voxels that are annotated for both organelles."""
    shares: dict[tuple[str, str], float] = {}
    for inner, outer in INSIDE:
        outer = "membrane" if outer not in masks else outer
        if inner not in masks or outer not in masks:
            continue
        mask_ZYX = masks[inner] & ~unannotated[outer] if outer in unannotated else masks[inner]
        if voxels := np.count_nonzero(mask_ZYX):
            shares[inner, outer] = float(np.count_nonzero(mask_ZYX & ~masks[outer])) / voxels
    return shares


def _signature(ri_ZYX: np.ndarray) -> np.ndarray:
    """Return the signature of a volume; see `Measurements.voxels`."""
    picks = [np.linspace(0, n - 1, min(n, _LATTICE)).round().astype(int) for n in ri_ZYX.shape]
    mean = float(ri_ZYX.mean(dtype=np.float64))
    # by plane, since the whole volume would need a float64 copy
    deviation = float(np.mean([plane.std(dtype=np.float64) for plane in ri_ZYX]))
    return np.concatenate([ri_ZYX[np.ix_(*picks)].ravel(), [mean, deviation]]).astype(np.float32)
