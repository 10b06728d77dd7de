"""One volume and its masks, measured: what a worker of the audit does. It reads one volume at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from cytovox.errors import InputError
from cytovox.io import open_labels, read_volume
from cytovox.io.values import RI_LIMITS
from cytovox.io.volume import Volume
from datamodules.audit.findings import Error
from datamodules.audit.placement import Misplaced, misplaced
from datamodules.cases import FolderCase

#: Which organelle lies inside which.
INSIDE = (("nucleus", "membrane"), ("nucleolus", "nucleus"), ("lipid", "membrane"))

#: Clipping this far beyond data.ri_range is noise's.
MARGIN_RI = 0.002

#: Edge of the blocks that are looked at for constant values, in voxels.
BLOCK = 8

_SAMPLES = 1_000_000
_LATTICE = 16


@dataclass(frozen=True)
class Job:
    """One volume to look at."""

    case: FolderCase
    ri_range: tuple[float, float]
    every_frame: bool = False
    """As `predict` reads it: all frames, and no masks."""


@dataclass(frozen=True)
class RIMetadata:
    """Of one frame's refractive index."""

    frame: int
    size: int
    low: float
    high: float
    bad: int
    """Voxels that are NaN or infinite."""
    first_bad: tuple[int, int, int] | None
    zeros: int
    """Voxels of exactly 0."""
    strange: int
    """Finite voxels beyond what a refractive index can be, zeros included."""
    constant: float
    """Part of the volume in blocks of one single value."""
    constant_value: float
    span: float
    """From the 0.1st to the 99.9th percentile."""
    medium: float
    """Median outside the cells; without masks the 5th percentile."""
    above: float
    """Part of the cells (the membrane's mask, else what is unlike the medium) above data.ri_range, by `MARGIN_RI`."""
    below: float
    """The same below it."""
    middle: float
    """Median of all voxels."""


@dataclass
class Measured:
    """All that is known of one volume."""

    name: str
    errors: list[Error] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shape: tuple[int, int, int] | None = None
    spacing_um: tuple[float, float, float] | None = None
    ri: list[RIMetadata] = field(default_factory=list)
    """A frame of a training volume, every frame of one to predict."""
    shares: dict[str, float] = field(default_factory=dict)
    """Part of the volume that each readable mask fills."""
    outside: dict[tuple[str, str], float] = field(default_factory=dict)
    """(inner, outer) -> part of the inner organelle outside the outer one."""
    misplaced: Misplaced | None = None
    voxels: np.ndarray | None = None
    """By what a copy is known in whatever format: float32 voxels on a lattice, then mean and deviation in a plane."""


def measure(job: Job) -> Measured:
    """Read a volume and everything that belongs to it; errors are kept, not raised."""
    case = job.case
    result = Measured(case.name)
    volume = _open(case, result)
    if volume is not None:
        result.shape, result.spacing_um = volume.shape[2:], volume.spacing_um
        result.notes += volume.notes
        try:
            if job.every_frame:
                _measure_frames(volume, job, result)
                return result
            ri_ZYX = volume.frame(case.frame)
        except InputError as error:
            result.errors.append(Error("unreadable-volume", case.volume, str(error)))
            volume = None
    if volume is None:
        _read_alone(case, result)
        return result
    masks = _read_masks(case, volume, result)
    metadata = _metadata([(0, ri_ZYX)], ri_ZYX.shape, case.frame, job.ri_range, masks)
    result.ri.append(metadata)
    result.shares = {k: float(np.count_nonzero(mask)) / mask.size for k, mask in masks.items()}
    result.outside = _outside(masks)
    if not metadata.bad and not metadata.strange and metadata.high > metadata.low:
        result.misplaced = misplaced(ri_ZYX, masks)
        result.voxels = _picked(ri_ZYX)
    return result


def _open(case: FolderCase, result: Measured) -> Volume | None:
    try:
        return case.open()
    except InputError as error:
        kind = getattr(error, "kind", "unreadable-volume")
        if kind == "unreadable-volume":
            with contextlib.suppress(InputError):  # with another answer about its voxel size, can it be read?
                read_volume(case.volume, (1.0, 1.0, 1.0), "config", case.series)
                kind = "no-spacing" if "states no voxel size" in str(error) else "spacing"
        result.errors.append(Error(kind, case.volume, str(error)))
        return None


def _read_alone(case: FolderCase, result: Measured) -> None:
    """Masks whose volume cannot be read: at least they can be."""
    for mask_file in case.mask_files():
        try:
            open_labels(mask_file.file, case.series).stored(0, 0)
        except InputError as error:
            result.errors.append(Error("unreadable-mask", mask_file.file, str(error)))


def _read_masks(case: FolderCase, volume: Volume, result: Measured) -> dict[str, np.ndarray]:
    """Bool masks (Z, Y, X) of all organelles that can be read, as training reads them."""
    masks: dict[str, np.ndarray] = {}
    case.notes.clear()
    for mask_file in case.mask_files():
        try:
            masks.update(case.read_mask_file(mask_file, volume))
        except InputError as error:
            result.errors.append(Error(getattr(error, "kind", "unreadable-mask"), mask_file.file, str(error)))
    result.notes += case.notes
    return masks


def _measure_frames(volume: Volume, job: Job, result: Measured) -> None:
    """Frame by frame and layer by layer: what is predicted may be larger than memory."""
    _, _, depth, height, width = volume.shape
    for t in range(volume.shape[0]):
        reader = volume.reader(t)
        step = BLOCK * max(1, 2**25 // (BLOCK * height * width))
        slabs = (
            (z, reader.read((slice(z, min(z + step, depth)), slice(0, height), slice(0, width))))
            for z in range(0, depth, step)
        )
        result.ri.append(_metadata(slabs, volume.shape[2:], t, job.ri_range, {}))


def _metadata(
    slabs: Iterator[tuple[int, np.ndarray]] | list[tuple[int, np.ndarray]],
    shape: tuple[int, ...],
    frame: int,
    ri_range: tuple[float, float],
    masks: dict[str, np.ndarray],
) -> RIMetadata:
    stride = max(1, round((int(np.prod(shape)) / _SAMPLES) ** (1 / 3)))
    low, high, bad, first, zeros, strange = np.inf, -np.inf, 0, None, 0, 0
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
            strange += int(np.count_nonzero((slab < RI_LIMITS[0]) | (slab > RI_LIMITS[1])))
        found, of_value = _constant_voxels(slab)
        constant, value = constant + found, of_value if found else value
        samples.append(slab[-z0 % stride :: stride, ::stride, ::stride])
    sample = np.concatenate(samples)
    bottom, fifth, top = (float(v) for v in np.percentile(sample, (0.1, 5.0, 99.9)))
    strided = {k: mask[::stride, ::stride, ::stride] for k, mask in masks.items()}
    medium, inside = _medium(sample, strided, fifth)
    above = float((inside > ri_range[1] + MARGIN_RI).mean()) if inside.size else 0.0
    beneath = float((inside < ri_range[0] - MARGIN_RI).mean()) if inside.size else 0.0
    size = int(np.prod(shape))
    return RIMetadata(
        *(frame, size, low, high, bad, first, zeros, strange, constant / size, value, top - bottom, medium),
        *(above, beneath, float(np.median(sample))),
    )


def _medium(sample: np.ndarray, masks: dict[str, np.ndarray], fifth: float) -> tuple[float, np.ndarray]:
    """The medium's index, and the voxels of cells."""
    cells = masks.get("membrane")
    outside = sample[~cells] if cells is not None else sample[:0]
    medium = float(np.median(outside)) if outside.size > 0.01 * sample.size else fifth
    return medium, sample[cells if cells is not None else np.abs(sample - medium) > 2 * MARGIN_RI]


def _constant_voxels(slab_ZYX: np.ndarray) -> tuple[int, float]:
    """How many voxels lie in blocks of a single value, and one such value."""
    size = [min(BLOCK, n) for n in slab_ZYX.shape]
    counts = [n // b for n, b in zip(slab_ZYX.shape, size, strict=True)]
    total, value = 0, 0.0
    for k in range(counts[0]):  # a layer at a time, so that no copy is large
        layer = slab_ZYX[k * size[0] : (k + 1) * size[0], : counts[1] * size[1], : counts[2] * size[2]]
        blocks = layer.reshape(size[0], counts[1], size[1], counts[2], size[2])
        lowest = blocks.min(axis=(0, 2, 4))
        same = lowest == blocks.max(axis=(0, 2, 4))
        if same.any():
            total += int(np.count_nonzero(same)) * int(np.prod(size))
            value = float(lowest[same][0])
    return total, value


def _outside(masks: dict[str, np.ndarray]) -> dict[tuple[str, str], float]:
    shares: dict[tuple[str, str], float] = {}
    for inner, outer in INSIDE:
        outer = "membrane" if outer not in masks else outer
        if inner in masks and outer in masks and (voxels := np.count_nonzero(masks[inner])):
            shares[inner, outer] = float(np.count_nonzero(masks[inner] & ~masks[outer])) / voxels
    return shares


def _picked(ri_ZYX: np.ndarray) -> np.ndarray:
    picks = [np.linspace(0, n - 1, min(n, _LATTICE)).round().astype(int) for n in ri_ZYX.shape]
    mean = float(ri_ZYX.mean(dtype=np.float64))
    deviation = float(np.mean([plane.std(dtype=np.float64) for plane in ri_ZYX]))  # of the whole: a copy in float64
    return np.concatenate([ri_ZYX[np.ix_(*picks)].ravel(), [mean, deviation]]).astype(np.float32)
