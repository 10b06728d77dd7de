"""Surfaces of masks whose volume and place are known."""

import base64

import numpy as np
import pytest
import trimesh

from cytovox.organelles import COLOURS
from cytovox.plots.meshes import packed_scene, scene, surface_mesh, write_glb


def ball(shape, spacing_um, centre_um, radius_um):
    """Voxels whose centre lies within the ball; lengths (z, y, x) in µm."""
    grid = np.indices(shape).reshape(3, -1).T * spacing_um
    return (np.linalg.norm(grid - centre_um, axis=1) <= radius_um).reshape(shape)


@pytest.mark.parametrize("spacing_um", [(0.5, 0.5, 0.5), (0.8, 0.3, 0.3), (0.25, 0.5, 0.4)])
def test_the_surface_of_a_ball_has_its_volume_place_and_no_holes(spacing_um):
    centre, radius = np.array([7.0, 8.0, 6.0]), 5.0
    shape = tuple(np.ceil((centre + radius + 1) / spacing_um).astype(int))
    mesh = surface_mesh(ball(shape, spacing_um, centre, radius), spacing_um)
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.03)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.center_mass == pytest.approx(centre[::-1], abs=0.05)  # x, y, z
    assert mesh.area == pytest.approx(4 * np.pi * radius**2, rel=0.06)  # no stairs left


def test_a_simplified_ball_keeps_its_volume_and_is_closed():
    mask = ball((70, 70, 70), (1, 1, 1), (35, 35, 35), 30)
    mesh = surface_mesh(mask, (1, 1, 1), max_faces=2000)
    assert 1500 < len(mesh.faces) <= 2000
    _, faces_of_edge = np.unique(np.sort(mesh.edges, axis=1), axis=0, return_counts=True)
    assert (faces_of_edge % 2 == 0).all()  # closed
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.03)


def test_a_mask_that_fills_its_volume_is_closed_at_the_border():
    mesh = surface_mesh(np.ones((6, 10, 8), bool), (0.5, 0.2, 0.2))
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(6 * 10 * 8 * 0.5 * 0.2 * 0.2, rel=0.1)
    assert mesh.bounds[0] == pytest.approx([-0.1, -0.1, -0.25], abs=0.1)


def test_a_droplet_of_one_voxel_is_still_seen():
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 2, 2] = True
    mesh = surface_mesh(mask, (1, 1, 1))
    assert mesh.volume > 0
    assert mesh.centroid == pytest.approx([2, 2, 2], abs=1e-3)


def test_a_very_large_mask_is_thinned_out_in_its_place(monkeypatch):
    mask = ball((30, 60, 60), (1, 0.5, 0.5), (14, 15, 16), 10)
    fine = surface_mesh(mask, (1, 0.5, 0.5))
    monkeypatch.setattr("cytovox.plots.meshes.MAX_VOXELS", 10_000)
    coarse = surface_mesh(mask, (1, 0.5, 0.5))
    assert len(coarse.faces) < len(fine.faces) / 1.5
    assert coarse.volume == pytest.approx(fine.volume, rel=0.03)
    assert coarse.bounds == pytest.approx(fine.bounds, abs=0.7)  # blocks of 1.5 µm
    monkeypatch.setattr("cytovox.plots.meshes.MAX_VOXELS", 1)
    sparse = np.zeros((3, 40, 40), bool)
    sparse[1, 5, 5] = sparse[1, 30, 30] = True
    assert surface_mesh(sparse, (1, 1, 1)).volume > 0


def test_an_empty_mask_has_no_surface():
    with pytest.raises(ValueError, match="empty mask"):
        surface_mesh(np.zeros((3, 3, 3), bool), (1, 1, 1))


def cell():
    shape, spacing = (24, 32, 40), (0.5, 0.25, 0.25)
    return {
        "lipid": np.zeros(shape, bool),
        "nucleus": ball(shape, spacing, (6, 4, 5), 2),
        "membrane": ball(shape, spacing, (6, 4, 5), 3.5),
    }, spacing


def test_a_scene_names_its_surfaces_in_order_and_leaves_out_what_is_empty():
    masks, spacing = cell()
    surfaces = scene(masks, spacing)
    assert list(surfaces.geometry) == ["membrane", "nucleus"]
    assert surfaces.geometry["membrane"].visual.material.alphaMode == "BLEND"


def test_a_glb_reads_back_with_the_same_lengths(tmp_path):
    masks, spacing = cell()
    path = write_glb(tmp_path / "cell.glb", masks, spacing)
    assert path is not None
    loaded = trimesh.load_scene(path)
    assert set(loaded.geometry) == {"membrane", "nucleus"}
    assert loaded.geometry["nucleus"].volume == pytest.approx(4 / 3 * np.pi * 2**3, rel=0.05)
    assert [p.name for p in tmp_path.iterdir()] == ["cell.glb"]


def test_nothing_is_written_for_empty_masks(tmp_path):
    assert write_glb(tmp_path / "none.glb", {"lipid": np.zeros((3, 3, 3), bool)}, (1, 1, 1)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_packed_scene_unpacks_to_the_same_surface(tmp_path):
    masks, spacing = cell()
    path = write_glb(tmp_path / "cell.glb", masks, spacing)
    packed = packed_scene(path)
    loaded = trimesh.load_scene(path)
    assert [m["name"] for m in packed["meshes"]] == ["membrane", "nucleus"]
    assert [m["opacity"] for m in packed["meshes"]] == [0.25, 0.5]
    assert packed["size_um"] == pytest.approx(loaded.extents, abs=1e-3)
    one = packed["meshes"][1]
    assert one["colour"] == COLOURS["nucleus"]
    positions = np.frombuffer(base64.b64decode(one["positions"]), "<u2").reshape(-1, 3) / 65535 * packed["size_um"]
    faces = np.frombuffer(base64.b64decode(one["indices"]), "<u4").reshape(-1, 3)
    normals = np.frombuffer(base64.b64decode(one["normals"]), "i1").reshape(-1, 3) / 127
    mesh = trimesh.Trimesh(positions, faces)
    assert mesh.volume == pytest.approx(loaded.geometry["nucleus"].volume, rel=1e-3)
    outwards = positions - positions.mean(axis=0)
    assert (np.einsum("ij,ij->i", outwards, normals) > 0).all()


def test_a_file_that_is_no_scene_is_refused(tmp_path):
    (tmp_path / "bad.glb").write_bytes(b"no glTF at all")
    with pytest.raises(ValueError):
        packed_scene(tmp_path / "bad.glb")
