"""Files of one analysed input: masks, labels, surfaces and figures; current files are not written again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.ndimage as ndi

from cytovox.io import write_ometiff
from cytovox.io.atomic import atomic_path
from cytovox.io.deletion import Manifest, remove_file, sweep
from cytovox.io.names import safe_name
from cytovox.organelles import in_order
from cytovox.plots.cells import cells_figure, colour_of
from cytovox.plots.meshes import surface_mesh, write_glb
from datamodules.steps import STEPS
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.results import TimeLapseResult
from experiments.tasks.analyze.state import FrameState
from experiments.tasks.analyze.time_lapses import TimeLapse
from training.mask_figures import thinned
from training.rundir import RunFolder

#: Number of frames of a time-lapse that are drawn, from the first to the last.
PICTURES = 4
#: Largest numbers of voxels and cells in the report's 3D view; `meshes/` contains all cells at full resolution.
SHOWN_VOXELS, SHOWN_CELLS = 2**20, 30
#: Largest number of triangles of one compartment of one cell.
FACES = 20_000


def write_time_lapse(time_lapse: TimeLapse, result: TimeLapseResult, folder: RunFolder, config: AnalyzeConfig) -> bool:
    """Write the files of a time-lapse unless they are current; return whether they were written."""
    note = FrameState(time_lapse.folder)
    provenance = STEPS["analyze.files"].fingerprint(config, frames=result.key, input=time_lapse.source.path.name)
    if note.has("outputs", provenance):
        return False
    remove_file(time_lapse.folder / "outputs.json", folder.path)
    sweep(time_lapse.folder)
    name = time_lapse.source.name
    written = Manifest(folder.path, f"analyze-{name}")
    written.remove_all()
    names = in_order({n for t in range(time_lapse.frames) for n in time_lapse.state(t).metadata("organelles")["names"]})
    images = {"organelles": (_masks(time_lapse, names), names)} if names else {}
    images["cells"] = (_cells(time_lapse), ["cells"])
    if all(time_lapse.state(t).metadata("cells").get("intervals") for t in range(time_lapse.frames)):
        # fraction of the mirror images with the voxel in the same cell, 0 to 255
        states = map(time_lapse.state, range(time_lapse.frames))
        images["agreement"] = (state.arrays("cells")["agreement"][None] for state in states), ["agreement"]
    volume = time_lapse.volume
    for what, (frames, channels) in images.items():
        write_ometiff(
            folder.predictions / f"{name}_{what}.ome.tif", frames, volume.spacing_um, channels, time_lapse.times_s,
            volume.origin_um, shape=(time_lapse.frames, len(channels), *volume.shape[2:]),
        )  # fmt: skip
    _draw(time_lapse, result, folder, written)
    _write_meshes(time_lapse, folder, config.meshes, written)
    note.save("outputs", provenance, {})
    return True


def _masks(time_lapse: TimeLapse, names: list[str]) -> Iterator[np.ndarray]:
    """Yield the masks (C, Z, Y, X) of each frame; organelles without a mask are empty."""
    for t in range(time_lapse.frames):
        masks = time_lapse.state(t).final_masks()
        nothing = np.zeros(time_lapse.volume.shape[2:], bool)
        yield np.stack([masks.get(name, nothing) for name in names]).view(np.uint8)


def _cells(time_lapse: TimeLapse) -> Iterator[np.ndarray]:
    """Yield the labels (1, Z, Y, X) of each frame, all of one data type."""
    kinds = [time_lapse.state(t).arrays("cells")["cells"].dtype for t in range(time_lapse.frames)]
    for t in range(time_lapse.frames):
        yield time_lapse.state(t).arrays("cells")["cells"].astype(max(kinds))[None]


def _draw(time_lapse: TimeLapse, result: TimeLapseResult, folder: RunFolder, written: Manifest) -> None:
    """Draw the cells of some frames with their tracks, and write the 3D scene of the first frame."""
    name, spacing = time_lapse.source.name, time_lapse.volume.spacing_um
    for t in sorted({round(k * (time_lapse.frames - 1) / max(1, PICTURES - 1)) for k in range(PICTURES)}):
        cells = time_lapse.state(t).arrays("cells")["cells"].astype(np.int32)
        numbers = {label: track for (at, label), track in result.tracked.track_of.items() if at == t}
        figure = folder.figures / f"cells_{name}_t{t:04d}.png"
        title = f"{time_lapse.source.path.name}, frame {t}: tracks"
        doubtful = {
            (int(row["cell"]), str(row["compartment"]))
            for row in result.compartments
            if row["frame"] == t and row.get("evidence") == "none"
        }
        nuclei = time_lapse.state(t).final_masks().get("nucleus")
        cells_figure(figure, time_lapse.volume.frame(t), cells, spacing, title, numbers, nuclei, doubtful)
        written.add(figure)
        if t == 0 and write_cells_scene(folder.figures / f"cells_{name}.glb", cells, spacing):
            written.add(folder.figures / f"cells_{name}.glb")


def write_cells_scene(path: Path, cells_ZYX: np.ndarray, spacing_um: tuple[float, float, float]) -> bool:
    """Write the surfaces of the first cells for the report's 3D view; return whether there are any.

    Parameters
    ----------
    path : Path
        File with the suffix .glb.
    cells_ZYX : integer array, (Z, Y, X)
        Labels. Large arrays are subsampled to `SHOWN_VOXELS`.
    spacing_um : (z, y, x)
        Voxel size in µm.
    """
    step = thinned(cells_ZYX.shape, spacing_um, SHOWN_VOXELS)
    cells = cells_ZYX[:: step[0], :: step[1], :: step[2]]
    z, y, x = (s * n for s, n in zip(spacing_um, step, strict=True))
    labels = [int(label) for label in np.unique(cells) if label > 0][:SHOWN_CELLS]
    surfaces = {f"cell {label}": cells == label for label in labels}
    colours = {f"cell {label}": colour_of(label) for label in labels}
    return write_glb(path, surfaces, (z, y, x), 8_000, colours) is not None


def _write_meshes(time_lapse: TimeLapse, folder: RunFolder, which: str, written: Manifest) -> None:
    """Write a scene (GLB) of each cell and a surface (PLY) of each of its compartments, with lengths in µm."""
    target = folder.path / "meshes" / time_lapse.source.name
    frames = {"all": range(time_lapse.frames), "ends": sorted({0, time_lapse.frames - 1}), "none": ()}[which]
    for t in frames:
        state = time_lapse.state(t)
        cells, masks = state.arrays("cells")["cells"].astype(np.int32), state.final_masks()
        for label, box in enumerate(ndi.find_objects(cells), start=1):
            if box is None:
                continue
            own = cells[box] == label
            inner = {n: masks[n][box] & own for n in in_order(masks) if n != "membrane"}
            _write_cell(target / f"t{t:04d}_cell{label:04d}", {"membrane": own, **inner}, time_lapse, box, written)


def _write_cell(
    stem: Path, masks: dict[str, np.ndarray], time_lapse: TimeLapse, box: tuple[slice, slice, slice], written: Manifest
) -> None:
    """Write the scene and the surfaces of one cell, from masks within the box of the cell."""
    spacing = time_lapse.volume.spacing_um
    surfaces = {name: surface_mesh(mask, spacing, FACES) for name, mask in masks.items() if mask.any()}
    if write_glb(stem.with_suffix(".glb"), masks, spacing, FACES, meshes=surfaces) is not None:
        written.add(stem.with_suffix(".glb"))
    place = [o + part.start * s for o, part, s in zip(time_lapse.volume.origin_um, box, spacing, strict=True)]
    for name, mesh in surfaces.items():
        mesh.apply_translation(place[::-1])  # position in the tomogram: x, y, z
        path = stem.with_name(f"{stem.name}_{'cell' if name == 'membrane' else safe_name(name)}.ply")
        with atomic_path(path) as part:
            mesh.export(part, file_type="ply")
        written.add(path)
