"""What stored voxels mean: an index that may be scaled, labels that must be whole, values that must be finite."""

import numpy as np

from cytovox.errors import InputError

#: Stored refractive index is often multiplied by this, to fit 16 bits.
RI_SCALE = 1e4

#: What a refractive index can be, and what the middle one of a tomogram of cells in a medium can be.
RI_LIMITS = (1.0, 2.5)
TYPICAL_RI = (1.25, 1.65)

#: Voxels that are looked at for the middle one, about.
_SAMPLES = 1_000_000

#: Factors met in files, each with the range that all non-zero voxels lie in then. The second is narrow: counts of a
#: camera lie near 1000, too.
RI_SCALES = {RI_SCALE: (10_000.0, 20_000.0), 1e3: (1_250.0, 1_700.0)}


def check_finite(frame_ZYX: np.ndarray, where: object, at: tuple[int, int, int] = (0, 0, 0)) -> None:
    """Raise InputError where a frame, or a region of one, holds NaN or infinity, with how many and where the first is.

    Parameters
    ----------
    frame_ZYX : float array, (Z, Y, X)
        As `Volume.frame` gives it.
    where : object
        Named in the message: the file, with the frame.
    at : (z, y, x)
        Where a region begins in its frame.
    """
    with np.errstate(invalid="ignore"):  # one pass and no copy: the sum carries any NaN or infinity
        if np.isfinite(np.sum(frame_ZYX, dtype=np.float64)):
            return
    bad = np.flatnonzero(~np.isfinite(frame_ZYX))
    first = tuple(int(i) + a for i, a in zip(np.unravel_index(bad[0], frame_ZYX.shape), at, strict=True))
    raise InputError(
        f"{where}: {bad.size} of {frame_ZYX.size} voxels are NaN or infinite, the first at z, y, x = {first}: "
        "expected finite values; repair the file or leave it out"
    )


def ri_error(values_ZYX: np.ndarray, whole: bool = True) -> str | None:
    """Return why finite values cannot be refractive indices of cells in a medium; None if they can.

    Parameters
    ----------
    values_ZYX : float array
    whole : bool
        Whether this is a whole frame, of which most voxels are medium or cell; False for a region, which may lie in a
        single droplet or in a margin without data.
    """
    low, high = float(values_ZYX.min()), float(values_ZYX.max())
    if low == 0 and RI_LIMITS[0] <= high <= RI_LIMITS[1]:
        empty = values_ZYX == 0
        if float(values_ZYX.min(where=~empty, initial=high)) >= RI_LIMITS[0]:
            return (
                f"{100 * float(empty.mean()):.3g} % of the voxels are exactly 0, which is no refractive index: fill "
                "them with the medium's"
            )
    if low < RI_LIMITS[0] or high > RI_LIMITS[1]:
        return (
            f"values from {low:.4g} to {high:.4g} are no refractive index ({RI_LIMITS[0]} to {RI_LIMITS[1]}): is this "
            "another channel, a normalised image, or a difference from the medium?"
        )
    if not whole:
        return None
    stride = max(1, round((values_ZYX.size / _SAMPLES) ** (1 / 3)))
    sample = values_ZYX[::stride, ::stride, ::stride]
    if np.array_equal(sample, np.rint(sample)):
        return f"whole numbers from {low:g} to {high:g} are no refractive index: is this a mask?"
    return middle_error(float(np.median(sample)))


def middle_error(middle: float) -> str | None:
    """Why this is no median of a tomogram of cells in a medium; None where it may be one."""
    if TYPICAL_RI[0] <= middle <= TYPICAL_RI[1]:
        return None
    root = TYPICAL_RI[0] <= middle**0.5 <= TYPICAL_RI[1]
    hint = "; its square root would be one: is this a permittivity?" if root else ": is it relative to the medium?"
    return (
        f"the middle value is {middle:.4g}, but a medium and cells have a refractive index of {TYPICAL_RI[0]} to "
        f"{TYPICAL_RI[1]}{hint}"
    )


def unscaled_ri(values_ZYX: np.ndarray) -> np.ndarray:
    """Refractive index as float32, where a file or an array may hold it times 10 000 or times 1000.

    Taken for scaled: every non-zero voxel lies in 10 000..20 000, or in 1250..1700. Anything else stays as it is.
    """
    return in_ri_units(values_ZYX, ri_scale(values_ZYX) or 1.0)


def ri_scale(values: np.ndarray) -> float | None:
    """By what stored values are divided to be a refractive index: 10 000, 1000, or 1 where they are not scaled.

    Returns
    -------
    float or None
        None where there is no voxel but 0. NaN is passed over.
    """
    if values.dtype.kind not in "iuf" or not values.size:
        return 1.0
    high = np.fmax.reduce(values, axis=None)
    if high == 0 and not np.any(values):
        return None
    for scale, (least, most) in RI_SCALES.items():
        if least <= high <= most:
            low = np.fmin.reduce(values, axis=None, where=values != 0, initial=high)
            return scale if low >= least else 1.0
    return 1.0


def in_ri_units(values: np.ndarray, scale: float) -> np.ndarray:
    """Stored values as float32, divided by their scale."""
    return values.astype(np.float32, copy=False) if scale == 1 else np.divide(values, scale, dtype=np.float32)


def as_labels(values: np.ndarray, where: object) -> np.ndarray:
    """Labels as an integer array; InputError where a value is no whole number."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind != "f":
        raise InputError(f"{where}: a mask of type {values.dtype}: expected whole numbers")
    rounded = np.rint(values)
    wrong = ~(values == rounded)  # NaN is wrong too
    if wrong.any():
        example = values[wrong][0]
        raise InputError(
            f"{where}: {int(wrong.sum())} voxels hold no whole number, such as {example:g}: expected a mask of labels"
        )
    low, high = (int(rounded.min()), int(rounded.max())) if rounded.size else (0, 0)
    return rounded.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)))
