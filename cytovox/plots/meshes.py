"""Masks as surfaces in micrometres, for looking at.

The surfaces are smoothed and thinned out: a surface area should be measured elsewhere.
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
from cytovox.organelles import COLOURS, ORGANELLES, OTHER_COLOUR

MAX_FACES = 20_000

#: How much of what lies behind is hidden: a nucleolus is seen through its nucleus, and that through the cell.
OPACITY: dict[str, float] = {"membrane": 0.25, "nucleus": 0.5}

#: A mask whose bounding box holds more voxels is thinned out before, in the plane: a picture needs no more.
MAX_VOXELS = 2**23

#: Taubin's filter: pairs of a shrinking and a slightly larger growing step leave the volume as it was.
SMOOTHING_STEPS, SHRINK, GROW = 10, 0.5, -0.53


def surface_mesh(
    mask_ZYX: np.ndarray, spacing_um: tuple[float, float, float], max_faces: int = MAX_FACES
) -> trimesh.Trimesh:
    """Closed, smooth surface of a mask.

    Parameters
    ----------
    mask_ZYX : bool array, (Z, Y, X)
        True inside. Where the mask touches the border of the volume its surface is closed there.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    max_faces : int
        The surface is simplified to about this many triangles at most.

    Returns
    -------
    trimesh.Trimesh
        Vertices are (x, y, z) in µm from the centre of the first voxel; faces look outwards. It is watertight; where
        it was simplified it is closed still, but an edge here and there may have four triangles instead of two.

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
    # Smoothed in voxels, before the spacing stretches them: the stairs are as long as a voxel along every axis.
    vertices_zyx = (taubin(vertices_zyx, faces) - 1) * step + (step - 1) / 2
    vertices_zyx = (vertices_zyx + [part.start for part in box]) * np.asarray(spacing_um)
    # Listing z, y, x backwards mirrors the surface, so each triangle is listed backwards too.
    vertices_xyz, faces = vertices_zyx[:, ::-1].astype(np.float32), np.ascontiguousarray(faces[:, ::-1])
    if len(faces) > max_faces:
        vertices_xyz, faces = fast_simplification.simplify(vertices_xyz, faces, target_count=max_faces)
    mesh = trimesh.Trimesh(vertices_xyz, faces, process=True)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def _thinned(inside_ZYX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mask with blocks of voxels merged in y and x by majority, and the size (z, y, x) of a block in voxels."""
    factor = int(np.ceil(np.sqrt(inside_ZYX.size / MAX_VOXELS)))
    if factor == 1:
        return inside_ZYX, np.ones(3)
    share_ZYX = block_reduce(inside_ZYX, (1, factor, factor), np.mean)
    # What no block has the majority of would vanish: the fullest block stands for it then.
    return share_ZYX >= min(0.5, share_ZYX.max()), np.array([1.0, factor, factor])


def taubin(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Smooth a surface without shrinking it, (V, 3) -> (V, 3)."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    n = len(vertices)
    neighbours = sparse.coo_matrix((np.ones(len(both), np.float32), (both[:, 0], both[:, 1])), shape=(n, n)).tocsr()
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
    """One coloured surface an organelle; membrane and nucleus are see-through. Empty masks are left out.

    Parameters
    ----------
    masks : dict of organelle -> bool array, (Z, Y, X)
        Names outside of `ORGANELLES` are drawn in grey.
    spacing_um : (z, y, x) floats
        Size of a voxel in µm.
    max_faces : int
        Triangles an organelle.
    colours : dict of name -> "#rrggbb", optional
        Of masks that are no organelles.
    meshes : dict of name -> Trimesh, optional
        Surfaces that are known already.

    Returns
    -------
    trimesh.Scene
        Geometries are named by organelle; lengths in µm.
    """
    result = trimesh.Scene()
    result.units = "micrometers"
    for name in sorted(masks, key=lambda key: (ORGANELLES.index(key) if key in ORGANELLES else len(ORGANELLES), key)):
        if not masks[name].any():
            continue
        known = (meshes or {}).get(name)
        mesh = surface_mesh(masks[name], spacing_um, max_faces) if known is None else known.copy()
        opacity = OPACITY.get(name, 1.0)
        colour = {**COLOURS, **(colours or {})}.get(name, OTHER_COLOUR)
        rgba = [*_rgb(colour), round(255 * opacity)]
        mesh.visual = trimesh.visual.TextureVisuals(
            material=PBRMaterial(
                name=name,
                baseColorFactor=rgba,
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
    """Write the surfaces of the masks as binary glTF, whole or not at all.

    Parameters
    ----------
    path : str or Path
        Should end with .glb.
    masks, spacing_um, max_faces, colours, meshes
        As for `scene`.

    Returns
    -------
    Path or None
        None, and no file, where every mask is empty.

    Raises
    ------
    InputError
        No space left, or `path` may not be written.
    """
    surfaces = scene(masks, spacing_um, max_faces, colours, meshes)
    if not surfaces.geometry:
        return None
    with atomic_path(path) as temporary:
        temporary.write_bytes(surfaces.export(file_type="glb"))
    return Path(path)


def packed_scene(path: str | Path) -> dict[str, Any]:
    """A scene of `write_glb` as plain values, small enough to travel inside a page.

    Parameters
    ----------
    path : str or Path
        A .glb file.

    Returns
    -------
    dict
        `size_um`: (x, y, z) extent; `meshes`: for each surface `name`, `colour`, `opacity`, `faces`, and in
        base64, little-endian, `positions` (uint16 x, y, z, each 0 to 65535 over `size_um`), `normals` (int8 x, y, z,
        127 is one) and `indices` (uint32).

    Raises
    ------
    ValueError
        The file is no glTF that trimesh can read.
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
    positions = np.round((np.asarray(mesh.vertices) - low) / size * 65535).clip(0, 65535).astype("<u2")
    normals = np.round(np.asarray(mesh.vertex_normals) * 127).astype("i1")
    return {
        "name": name,
        "colour": _colour(mesh, name),
        "opacity": OPACITY.get(name, 1.0),
        "faces": len(mesh.faces),
        "positions": _base64(positions),
        "normals": _base64(normals),
        "indices": _base64(np.asarray(mesh.faces).astype("<u4")),
    }


def _colour(mesh: trimesh.Trimesh, name: str) -> str:
    """As the file has it, "#rrggbb"."""
    material = getattr(mesh.visual, "material", None)
    color = getattr(material, "baseColorFactor", None)
    if color is None:
        return COLOURS.get(name, OTHER_COLOUR)
    return "#" + "".join(f"{int(value):02X}" for value in np.asarray(color)[:3])


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
