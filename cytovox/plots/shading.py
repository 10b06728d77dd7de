"""Render a 3D object as a shaded image, viewed obliquely from above, without a 3D library."""

import math

import numpy as np
import scipy.ndimage as ndi
from matplotlib.colors import to_rgb

#: Angle in degrees between the view and the z axis: it shows the sides, and the outline is still recognisable.
TILT = 50.0
#: Standard deviation in voxels of the blur that removes the voxel steps from the surface and keeps its shape.
SMOOTHING = 1.0
#: Direction to the light, (depth, row, column) of the image: from the viewer's side, top left.
LIGHT_DHW = np.array([-0.75, -0.5, -0.45]) / math.sqrt(0.75**2 + 0.5**2 + 0.45**2)
AMBIENT = 0.3


def shaded(obj_ZYX: np.ndarray, colour: str, *, tilt: float = TILT, scale: float = 1.5) -> np.ndarray:
    """Render the surface of an object, lit from the upper left.

    Parameters
    ----------
    obj_ZYX : bool array, (Z, Y, X)
        True inside; voxels are cubes. An empty object gives an empty picture.
    colour : str
        Any matplotlib colour.
    tilt : float
        Degrees between the view and the z axis: 0 shows the xy plane, 90 looks along y.
    scale : float
        Pixels per voxel.

    Returns
    -------
    float32 array, (H, W, 4)
        RGBA, 0..1; transparent outside the object. All objects of one shape give images of one size, and the centre of
        the volume is the centre of the image. x points right, z (tilted) up.
    """
    field_DHW = _tilted(np.asarray(obj_ZYX) != 0, tilt, scale)
    inside = field_DHW > 0.5
    # normals from the smoothed field instead of from the depth, which jumps where one part hides another
    gradient = _gradient_at(field_DHW, inside.argmax(axis=0))  # at the voxel nearest to the viewer
    normal = -gradient / np.maximum(np.linalg.norm(gradient, axis=0), 1e-6)
    light_HW = AMBIENT + (1 - AMBIENT) * np.clip(np.tensordot(LIGHT_DHW, normal, axes=1), 0, 1)  # Lambert's law
    rgba = np.ones((*light_HW.shape, 4), np.float32)
    rgba[..., :3] = np.clip(light_HW[..., None] * (0.25 + 0.95 * np.array(to_rgb(colour))), 0, 1)
    return rgba * np.asarray(inside.any(axis=0))[..., None]


def _gradient_at(field_DHW: np.ndarray, d_HW: np.ndarray) -> np.ndarray:
    """Return central differences (3, H, W) along depth, rows and columns, at one depth per pixel."""
    at = [d_HW, *np.indices(d_HW.shape)]
    differences = []
    for axis, size in enumerate(field_DHW.shape):
        before, after = list(at), list(at)
        before[axis], after[axis] = np.maximum(at[axis] - 1, 0), np.minimum(at[axis] + 1, size - 1)
        differences.append(field_DHW[tuple(after)] - field_DHW[tuple(before)])
    return np.stack(differences)


def _tilted(inside_ZYX: np.ndarray, tilt: float, scale: float) -> np.ndarray:
    """Return the smoothed object in the axes of the view: depth away from the viewer, rows down, columns right."""
    smooth_ZYX = ndi.gaussian_filter(np.pad(inside_ZYX, 2).astype(np.float32), SMOOTHING)
    size_z, size_y, size_x = inside_ZYX.shape
    diagonal = math.ceil(scale * math.hypot(size_z, size_y))
    shape = (diagonal, diagonal, math.ceil(scale * size_x))
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    # depth and rows of the view in (z, y, x): without tilt, depth is -z and rows are y
    to_voxels = np.array([[-cos, -sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]) / scale
    centre_out, centre_in = (np.array(shape) - 1) / 2, (np.array(smooth_ZYX.shape) - 1) / 2
    return ndi.affine_transform(
        smooth_ZYX, to_voxels, offset=centre_in - to_voxels @ centre_out, output_shape=shape, order=1
    )
