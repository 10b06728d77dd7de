"""Surfaces of masks in micrometres, for display.

The surfaces are smoothed and simplified. To measure a surface area, use `cytovox.measurement`.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fast_simplification
import numpy as np
import scipy.ndimage as ndi
import scipy.sparse as sparse
import trimesh
from skimage.measure import block_reduce, marching_cubes
from trimesh.visual.material import PBRMaterial

from cytovox.io.atomic import atomic_path
from cytovox.organelles import COLOURS, OTHER_COLOUR, in_order

MAX_FACES = 20_000

#: Opacity of surfaces that contain others; all other surfaces are opaque.
OPACITY: dict[str, float] = {"membrane": 0.25, "nucleus": 0.5}

#: Most voxels in the bounding box of a mask; a larger one is downsampled in y and x.
MAX_VOXELS = 2**23

#: Taubin's filter: pairs of a shrinking and a slightly larger growing step preserve the volume.
SMOOTHING_STEPS, SHRINK, GROW = 10, 0.5, -0.53


def surface_mesh(
    mask_ZYX: np.ndarray, spacing_um: tuple[float, float, float], max_faces: int = MAX_FACES
) -> trimesh.Trimesh:
    """Return the closed, smooth surface of a mask.

    Parameters
    ----------
    mask_ZYX : bool array, (Z, Y, X)
        True inside. At the border of the volume the surface is closed.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    max_faces : int
        Largest number of triangles, approximately; a surface with more is simplified.

    Returns
    -------
    trimesh.Trimesh
        Vertices are (x, y, z) in µm from the centre of the first voxel; normals point outwards. It is watertight. After
        simplification it is still closed, but a few edges may have four triangles instead of two.

    Raises
    ------
    ValueError
        The mask holds no voxel.

    References
    ----------
    Lewiner et al. 2003, J. Graphics Tools 8(2), for the triangles; Taubin 1995, SIGGRAPH, for the smoothing;
    Garland and Heckbert 1997, SIGGRAPH, for the simplification.
    """
    if not mask_ZYX.any():
        raise ValueError("surface of an empty mask: leave it out")
    box = ndi.find_objects((mask_ZYX != 0).astype(np.uint8))[0]
    inside_ZYX, step = _thinned(mask_ZYX[box] != 0)
    vertices_zyx, faces, _, _ = marching_cubes(np.pad(inside_ZYX, 1).astype(np.float32), level=0.5)
    # smoothed in voxel units, in which the steps of the surface are equally large along all axes
    vertices_zyx = (taubin(vertices_zyx, faces) - 1) * step + (step - 1) / 2
    vertices_zyx = (vertices_zyx + [part.start for part in box]) * np.asarray(spacing_um)
    # reversing (z, y, x) mirrors the surface, so the order of each triangle is reversed too
    vertices_xyz, faces = vertices_zyx[:, ::-1].astype(np.float32), np.ascontiguousarray(faces[:, ::-1])
    if len(faces) > max_faces:
        vertices_xyz, faces = fast_simplification.simplify(vertices_xyz, faces, target_count=max_faces)
    mesh = trimesh.Trimesh(vertices_xyz, faces, process=True)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def _thinned(inside_ZYX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask downsampled in y and x by majority, and the size (z, y, x) of a block in voxels."""
    factor = int(np.ceil(np.sqrt(inside_ZYX.size / MAX_VOXELS)))
    if factor == 1:
        return inside_ZYX, np.ones(3)
    share_ZYX = block_reduce(inside_ZYX, (1, factor, factor), np.mean)
    # if no block has a majority, the fullest blocks are kept, so that a small object does not vanish
    return share_ZYX >= min(0.5, share_ZYX.max()), np.array([1.0, factor, factor])


def taubin(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the vertices of a smoothed surface that has not shrunk, (V, 3) -> (V, 3)."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    shape = (len(vertices), len(vertices))
    neighbours = sparse.coo_matrix((np.ones(len(both), np.float32), tuple(both.T)), shape=shape).tocsr()
    mean_of = sparse.diags(1 / np.maximum(np.asarray(neighbours.sum(axis=1)).ravel(), 1)) @ neighbours
    smooth = vertices.astype(np.float64)
    for _ in range(SMOOTHING_STEPS):
        for step in (SHRINK, GROW):
            smooth += step * (mean_of @ smooth - smooth)
    return smooth


def scene(
    masks: Mapping[str, np.ndarray],
    spacing_um: tuple[float, float, float],
    max_faces: int = MAX_FACES,
    colours: Mapping[str, str] | None = None,
    meshes: Mapping[str, trimesh.Trimesh] | None = None,
) -> trimesh.Scene:
    """Return a scene with one coloured surface per organelle; membrane and nucleus are transparent.

    Parameters
    ----------
    masks : dict of organelle -> bool array, (Z, Y, X)
        Masks; empty ones are omitted. Names that are not in `ORGANELLES` are drawn in grey.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    max_faces : int
        Largest number of triangles per organelle.
    colours : dict of name -> "#rrggbb", optional
        Colours of masks that are not organelles.
    meshes : dict of name -> Trimesh, optional
        Surfaces that have already been computed.

    Returns
    -------
    trimesh.Scene
        Geometries are named by organelle; lengths in µm.
    """
    result = trimesh.Scene()
    result.units = "micrometers"
    for name in in_order(sorted(name for name in masks if masks[name].any())):
        known = (meshes or {}).get(name)
        mesh = surface_mesh(masks[name], spacing_um, max_faces) if known is None else known.copy()
        opacity, colour = OPACITY.get(name, 1.0), {**COLOURS, **(colours or {})}.get(name, OTHER_COLOUR)
        mesh.visual = trimesh.visual.TextureVisuals(
            material=PBRMaterial(
                name=name,
                baseColorFactor=[*bytes.fromhex(colour[1:]), round(255 * opacity)],
                alphaMode="BLEND" if opacity < 1 else "OPAQUE",
                metallicFactor=0.0,
                roughnessFactor=0.7,
            )
        )
        result.add_geometry(mesh, geom_name=name, node_name=name)
    return result


def write_glb(
    path: str | Path,
    masks: Mapping[str, np.ndarray],
    spacing_um: tuple[float, float, float],
    max_faces: int = MAX_FACES,
    colours: Mapping[str, str] | None = None,
    meshes: Mapping[str, trimesh.Trimesh] | None = None,
) -> Path | None:
    """Write the surfaces of the masks as binary glTF, complete or not at all.

    Parameters
    ----------
    path : str or Path
        File name, ending with .glb.
    masks, spacing_um, max_faces, colours, meshes
        Arguments of `scene`.

    Returns
    -------
    Path or None
        None, and no file, if all masks are empty.

    Raises
    ------
    InputError
        No space left, or `path` cannot be written.
    """
    surfaces = scene(masks, spacing_um, max_faces, colours, meshes)
    if not surfaces.geometry:
        return None
    with atomic_path(path) as temporary:
        temporary.write_bytes(surfaces.export(file_type="glb"))
    return Path(path)


def packed_scene(path: str | Path) -> dict[str, Any]:
    """Return a scene of `write_glb` as plain values, small enough to be embedded in an HTML page.

    Parameters
    ----------
    path : str or Path
        A .glb file.

    Returns
    -------
    dict
        `size_um`: (x, y, z) extent; `meshes`: for each surface `name`, `colour`, `opacity`, `faces`, and, encoded in
        base64, little-endian, `positions` (uint16 x, y, z, each 0 to 65535 over `size_um`), `normals` (int8 x, y, z, in
        units of 1/127) and `indices` (uint32).

    Raises
    ------
    ValueError
        trimesh cannot read the file as glTF.
    """
    with open(path, "rb") as file:
        loaded = trimesh.load_scene(file, file_type="glb")
    meshes = {
        name: mesh for name, mesh in loaded.geometry.items() if isinstance(mesh, trimesh.Trimesh) and len(mesh.faces)
    }
    if not meshes:
        return {"size_um": [0.0, 0.0, 0.0], "meshes": []}
    low, high = (np.asarray(bound, np.float64) for bound in loaded.bounds)
    size = np.maximum(high - low, 1e-9)
    return {
        "size_um": [round(float(length), 3) for length in size],
        "meshes": [_packed(name, mesh, low, size) for name, mesh in meshes.items()],
    }


def _packed(name: str, mesh: trimesh.Trimesh, low: np.ndarray, size: np.ndarray) -> dict[str, Any]:
    """Return one surface of `packed_scene`."""
    colour = getattr(getattr(mesh.visual, "material", None), "baseColorFactor", None)
    if colour is not None:
        colour = f"#{np.asarray(colour, np.uint8)[:3].tobytes().hex().upper()}"
    arrays = {
        "positions": np.round((np.asarray(mesh.vertices) - low) / size * 65535).clip(0, 65535).astype("<u2"),
        "normals": np.round(np.asarray(mesh.vertex_normals) * 127).astype("i1"),
        "indices": np.asarray(mesh.faces).astype("<u4"),
    }
    return {
        "name": name,
        "colour": colour or COLOURS.get(name, OTHER_COLOUR),
        "opacity": OPACITY.get(name, 1.0),
        "faces": len(mesh.faces),
        **{key: base64.b64encode(array.tobytes()).decode("ascii") for key, array in arrays.items()},
    }
