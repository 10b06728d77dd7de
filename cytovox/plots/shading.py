"""A 3D object as a shaded picture, seen obliquely from above: enough to judge a shape by, with nothing to install."""

import math

import numpy as np
import scipy.ndimage as ndi
from matplotlib.colors import to_rgb

#: Degrees that the view is tilted away from straight down: the flanks show, and the outline is still known again.
TILT = 50.0
#: In voxels; takes the stairs off the surface and leaves its dents.
SMOOTHING = 1.0
#: Where the light comes from, (depth, row, column) of the picture: from the viewer's side, above and left.
LIGHT_DHW = np.array([-0.75, -0.5, -0.45]) / math.sqrt(0.75**2 + 0.5**2 + 0.45**2)
AMBIENT = 0.3


def shaded(obj_ZYX: np.ndarray, colour: str, *, tilt: float = TILT, scale: float = 1.5) -> np.ndarray:
    """Render the surface of an object, lit from the upper left.

    Parameters
    ----------
    obj_ZYX : bool array, (Z, Y, X)
        True inside; voxels are cubes. An empty object gives an empty picture.
    colour : str
        Any colour matplotlib knows.
    tilt : float
        Degrees between the view and the z axis: 0 looks down on the xy plane as the image does, 90 along y.
    scale : float
        Pixels a voxel.

    Returns
    -------
    float32 array, (H, W, 4)
        RGBA, 0..1; transparent beside the object. All objects of one shape give pictures of one size, and the centre of
        the volume is the centre of the picture. x runs right, z (tilted) up.
    """
    field_DHW = _tilted(np.asarray(obj_ZYX) != 0, tilt, scale)
    inside = field_DHW > 0.5
    hit_HW = np.asarray(inside.any(axis=0))
    d_HW = inside.argmax(axis=0)  # the first voxel a ray meets: depth runs away from the viewer
    # normals from the smoothed field rather than from the depth, which jumps at every fold
    gradient = _gradient_at(field_DHW, d_HW)
    normal = -gradient / np.maximum(np.linalg.norm(gradient, axis=0), 1e-6)
    lambert_HW = np.clip(np.tensordot(LIGHT_DHW, normal, axes=1), 0, 1)
    light_HW = AMBIENT + (1 - AMBIENT) * lambert_HW
    rgba = np.zeros((*hit_HW.shape, 4), np.float32)
    rgba[..., :3] = np.clip(light_HW[..., None] * (0.25 + 0.95 * np.array(to_rgb(colour))), 0, 1)
    rgba[..., 3] = 1
    return rgba * hit_HW[..., None]


def _gradient_at(field_DHW: np.ndarray, d_HW: np.ndarray) -> np.ndarray:
    """Central differences (3, H, W) along depth, rows and columns, at one depth a pixel."""
    at = [d_HW, *np.indices(d_HW.shape)]
    differences = []
    for axis, size in enumerate(field_DHW.shape):
        before, after = list(at), list(at)
        before[axis], after[axis] = np.maximum(at[axis] - 1, 0), np.minimum(at[axis] + 1, size - 1)
        differences.append(field_DHW[tuple(after)] - field_DHW[tuple(before)])
    return np.stack(differences)


def _tilted(inside_ZYX: np.ndarray, tilt: float, scale: float) -> np.ndarray:
    """The smoothed object in the view's axes (depth away from the viewer, rows down, columns right)."""
    smooth_ZYX = ndi.gaussian_filter(np.pad(inside_ZYX, 2).astype(np.float32), SMOOTHING)
    size_z, size_y, size_x = inside_ZYX.shape
    diagonal = math.ceil(scale * math.hypot(size_z, size_y))
    shape = (diagonal, diagonal, math.ceil(scale * size_x))
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    # depth and rows of the view in (z, y, x): seen straight down, depth is -z and rows are y
    to_voxels = np.array([[-cos, -sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]) / scale
    centre_out, centre_in = (np.array(shape) - 1) / 2, (np.array(smooth_ZYX.shape) - 1) / 2
    return ndi.affine_transform(
        smooth_ZYX, to_voxels, offset=centre_in - to_voxels @ centre_out, output_shape=shape, order=1
    )
