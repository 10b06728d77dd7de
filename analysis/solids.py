"""What stereology would guess of a cell from its outline alone: a cylinder, an ellipsoid.

SHAPR's baselines. Both take an ellipse fitted to the outline of the mask and are as high as its mean semi-axis is long:
half as high as the cell is wide. Measured on 101 real red blood cells these definitions give, as 1 - IoU / volume /
surface / roughness error, 0.486 / 0.348 / 0.393 / 0.325 for the cylinder and 0.620 / 0.503 / 0.506 / 0.552 for the
ellipsoid. On the 135 cells of which they are a part the figures known are 0.481 / 0.345 / 0.384 / 0.319 and 0.617 /
0.499 / 0.501 / 0.546. An ellipse from the mask's moments is further off (ellipsoid 0.57 / 0.39).
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi
from skimage.measure import EllipseModel, find_contours, label, regionprops

#: Where the known slice lies in the output, which is this twice in depth.
SLICE = 32
DEPTH = 64


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in a mask's plane, in pixels."""

    centre_yx: tuple[float, float]
    semi_major: float
    semi_minor: float
    angle: float
    """Of the major axis, in radians from x towards y."""

    @property
    def mean_semi_axis(self) -> float:
        """Mean of the two semi-axes."""
        return (self.semi_major + self.semi_minor) / 2


def cylinder(mask_YX: np.ndarray, height: int | None = None) -> np.ndarray:
    """The mask, its holes filled, extruded about z = 32.

    Parameters
    ----------
    mask_YX : bool array, (Y, X)
        True inside the cell.
    height : int, optional
        In voxels, 1 to 64. None takes the mean semi-axis of `outline_ellipse`, as SHAPR's baseline does.

    Returns
    -------
    bool array, (64, Y, X)
        Slice 32 is the filled mask; where the height is even, one slice more lies below it (z < 32) than above.

    Raises
    ------
    ValueError
        The mask is empty, or the height is outside 1..64.

    References
    ----------
    Waibel et al. 2022, SHAPR, iScience 25:105298, "cylindrical fit".
    """
    filled_YX = _filled(mask_YX)
    if height is None:
        height = min(max(round(2 * outline_ellipse(mask_YX).mean_semi_axis) // 2, 1), DEPTH)
    if not 1 <= height <= DEPTH:
        raise ValueError(f"a cylinder {height} voxels high in a depth of {DEPTH}: expected 1 to {DEPTH}")
    obj_ZYX = np.zeros((DEPTH, *filled_YX.shape), bool)
    first = SLICE - height // 2
    obj_ZYX[first : first + height] = filled_YX
    return obj_ZYX


def ellipsoid(mask_YX: np.ndarray) -> np.ndarray:
    """The ellipse of the mask's outline as an ellipsoid about z = 32, its z semi-axis half the mean of the other two.

    Parameters
    ----------
    mask_YX : bool array, (Y, X)
        True inside the cell.

    Returns
    -------
    bool array, (64, Y, X)
        True where a voxel's centre is inside. Slice 32 is the ellipse, not the mask.

    Raises
    ------
    ValueError
        The mask is empty.

    References
    ----------
    Waibel et al. 2022, SHAPR, iScience 25:105298, "ellipsoid fit".
    """
    ellipse = outline_ellipse(mask_YX)
    z_Z11 = np.arange(DEPTH, dtype=np.float64)[:, None, None] - SLICE
    y_Y1 = np.arange(mask_YX.shape[0], dtype=np.float64)[:, None] - ellipse.centre_yx[0]
    x_X = np.arange(mask_YX.shape[1], dtype=np.float64) - ellipse.centre_yx[1]
    cos, sin = math.cos(ellipse.angle), math.sin(ellipse.angle)
    along_YX, across_YX = x_X * cos + y_Y1 * sin, y_Y1 * cos - x_X * sin
    flat_YX = (along_YX / ellipse.semi_major) ** 2 + (across_YX / ellipse.semi_minor) ** 2
    return flat_YX + (z_Z11 / (ellipse.mean_semi_axis / 2)) ** 2 <= 1


def outline_ellipse(mask_YX: np.ndarray) -> Ellipse:
    """Ellipse fitted to the outline of the largest component of a mask, by direct least squares.

    The outline runs half-way between pixels inside and outside. Where no ellipse fits it (a mask of a few pixels, a
    line) or one longer than the plane's diagonal, the ellipse with the component's second moments stands for it.

    Parameters
    ----------
    mask_YX : bool array, (Y, X)
        True inside the cell; holes do not count.

    Raises
    ------
    ValueError
        The mask is empty.

    References
    ----------
    Halir and Flusser 1998, Numerically stable direct least squares fitting of ellipses, WSCG.
    """
    labels_YX = label(_filled(mask_YX))
    largest_YX = labels_YX == np.bincount(labels_YX.ravel())[1:].argmax() + 1
    outline_N2 = max(find_contours(np.pad(largest_YX, 1).astype(float), 0.5), key=len) - 1
    with np.errstate(invalid="ignore", divide="ignore"):  # of the angle of a circle, and of what is no ellipse
        fitted = EllipseModel.from_estimate(outline_N2[:, ::-1])
    if fitted:
        (x, y), (a, b) = fitted.center, fitted.axis_lengths
        if min(a, b) > 0 and max(a, b) < math.hypot(*mask_YX.shape):  # False for nan too
            angle = float(np.nan_to_num(fitted.theta)) + (math.pi / 2 if b > a else 0.0)
            return Ellipse((float(y), float(x)), float(max(a, b)), float(min(a, b)), angle)
    region = regionprops(largest_YX.astype(np.uint8))[0]
    # skimage measures from the rows' axis; half a pixel is the least that a pixel extends from its centre
    major, minor = (max(float(length) / 2, 0.5) for length in (region.axis_major_length, region.axis_minor_length))
    y, x = (float(at) for at in region.centroid)
    return Ellipse((y, x), major, minor, math.pi / 2 - float(region.orientation))


def _filled(mask_YX: np.ndarray) -> np.ndarray:
    inside = np.asarray(mask_YX) != 0
    if not inside.any():
        raise ValueError("a solid from an empty mask: leave the cell out")
    return ndi.binary_fill_holes(inside)
