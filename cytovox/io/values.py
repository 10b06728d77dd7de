"""Interpret stored voxels: a refractive index that may be scaled, whole labels, finite values."""

import numpy as np

from cytovox.errors import InputError

#: Factor by which a refractive index is often multiplied to fit 16 bits.
RI_SCALE = 1e4

#: Range of refractive indices, and range of the median of a tomogram of cells in a medium.
RI_LIMITS = (1.0, 2.5)
TYPICAL_RI = (1.25, 1.65)

#: Approximate number of voxels from which the median is computed.
_SAMPLES = 1_000_000

#: Factors in files, each with the range of all non-zero voxels. The second range is narrow, because counts of a camera
#: are near 1000, too.
RI_SCALES = {RI_SCALE: (10_000.0, 20_000.0), 1e3: (1_250.0, 1_700.0)}


def check_finite(frame_ZYX: np.ndarray, where: object, at: tuple[int, int, int] = (0, 0, 0)) -> None:
    """Raise InputError if a frame or region has NaN or infinity; the message has their number and the first position.

    Parameters
    ----------
    frame_ZYX : float array, (Z, Y, X)
        Values from `Volume.frame`.
    where : object
        File and frame, for the message.
    at : (z, y, x)
        Start of the region in its frame.
    """
    with np.errstate(invalid="ignore"):  # one pass without a copy: any NaN or infinity remains in the sum
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
        Whether this is a whole frame, in which most voxels are medium or cell. False for a region, which may be inside
        a droplet or a margin without data.
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
    """Return why this cannot be the median of a tomogram of cells in a medium; None if it can."""
    if TYPICAL_RI[0] <= middle <= TYPICAL_RI[1]:
        return None
    root = TYPICAL_RI[0] <= middle**0.5 <= TYPICAL_RI[1]
    hint = "; its square root would be one: is this a permittivity?" if root else ": is it relative to the medium?"
    return (
        f"the middle value is {middle:.4g}, but a medium and cells have a refractive index of {TYPICAL_RI[0]} to "
        f"{TYPICAL_RI[1]}{hint}"
    )


def unscaled_ri(values_ZYX: np.ndarray) -> np.ndarray:
    """Return the refractive index as float32; it may be stored times 10 000 or times 1000.

    Values are scaled if all non-zero voxels are in 10 000..20 000, or in 1250..1700. Other values are not changed.
    """
    return in_ri_units(values_ZYX, ri_scale(values_ZYX) or 1.0)


def ri_scale(values: np.ndarray) -> float | None:
    """Return the divisor of a stored refractive index: 10 000, 1000, or 1 if it is not scaled.

    Returns
    -------
    float or None
        None if all voxels are 0. NaN is ignored.
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
    """Return stored values as float32, divided by their scale."""
    return values.astype(np.float32, copy=False) if scale == 1 else np.divide(values, scale, dtype=np.float32)


def as_labels(values: np.ndarray, where: object) -> np.ndarray:
    """Return labels as an integer array; InputError if a value is no whole number."""
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
