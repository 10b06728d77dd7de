"""Files of one analysed input: masks, labels, surfaces and pictures. What is there and unchanged is left alone."""

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

#: Frames of a time-lapse that are drawn: the first, the last, and some between.
PICTURES = 4
#: Voxels and cells that the report's 3D view is made of: the surfaces in `meshes/` are of all.
SHOWN_VOXELS, SHOWN_CELLS = 2**20, 30
#: Triangles of one compartment of one cell.
FACES = 20_000


def write_time_lapse(time_lapse: TimeLapse, result: TimeLapseResult, folder: RunFolder, config: AnalyzeConfig) -> bool:
    """Write the files of a time-lapse, unless they are those of these results; whether they were written."""
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
    volume, origin = time_lapse.volume, time_lapse.volume.origin_um
    if names:
        write_ometiff(
            folder.predictions / f"{name}_organelles.ome.tif", _masks(time_lapse, names), volume.spacing_um, names,
            time_lapse.times_s, origin, shape=(time_lapse.frames, len(names), *volume.shape[2:]),
        )  # fmt: skip
    write_ometiff(
        folder.predictions / f"{name}_cells.ome.tif", _cells(time_lapse), volume.spacing_um,
        ["cells"], time_lapse.times_s, origin,
        shape=(time_lapse.frames, 1, *volume.shape[2:]),
    )  # fmt: skip
    if all(time_lapse.state(t).metadata("cells").get("intervals") for t in range(time_lapse.frames)):
        write_ometiff(
            folder.predictions / f"{name}_agreement.ome.tif", _agreements(time_lapse), volume.spacing_um, ["agreement"],
            time_lapse.times_s, origin, shape=(time_lapse.frames, 1, *volume.shape[2:]),
        )  # fmt: skip
    _draw(time_lapse, result, folder, written)
    _write_meshes(time_lapse, folder, config.meshes, written)
    note.save("outputs", provenance, {})
    return True


def _masks(time_lapse: TimeLapse, names: list[str]) -> Iterator[np.ndarray]:
    for t in range(time_lapse.frames):
        masks = time_lapse.state(t).final_masks()
        nothing = np.zeros(time_lapse.volume.shape[2:], bool)
        yield np.stack([masks.get(name, nothing) for name in names]).view(np.uint8)


def _cells(time_lapse: TimeLapse) -> Iterator[np.ndarray]:
    kinds = [time_lapse.state(t).arrays("cells")["cells"].dtype for t in range(time_lapse.frames)]
    for t in range(time_lapse.frames):
        yield time_lapse.state(t).arrays("cells")["cells"].astype(max(kinds))[None]


def _agreements(time_lapse: TimeLapse) -> Iterator[np.ndarray]:
    """Share of the mirror images that put a voxel into its cell: 0 to 255."""
    for t in range(time_lapse.frames):
        yield time_lapse.state(t).arrays("cells")["agreement"][None]


def _draw(time_lapse: TimeLapse, result: TimeLapseResult, folder: RunFolder, written: Manifest) -> None:
    name = time_lapse.source.name
    shown = sorted({round(k * (time_lapse.frames - 1) / max(1, PICTURES - 1)) for k in range(PICTURES)})
    for t in shown:
        cells = time_lapse.state(t).arrays("cells")["cells"].astype(np.int32)
        numbers = {label: track for (at, label), track in result.tracked.track_of.items() if at == t}
        picture = folder.figures / f"cells_{name}_t{t:04d}.png"
        cells_figure(
            picture, time_lapse.volume.frame(t), cells, time_lapse.volume.spacing_um,
            f"{time_lapse.source.path.name}, frame {t}: tracks", numbers,
        )  # fmt: skip
        written.add(picture)
    first = time_lapse.state(0)
    cells = first.arrays("cells")["cells"].astype(np.int32)
    glb = folder.figures / f"cells_{name}.glb"
    if write_cells_scene(glb, cells, time_lapse.volume.spacing_um):
        written.add(glb)


def write_cells_scene(path: Path, cells_ZYX: np.ndarray, spacing_um: tuple[float, float, float]) -> bool:
    """Write the surfaces of the first cells for the report's 3D view; return whether there are any.

    Parameters
    ----------
    path : Path
        Ends in .glb.
    cells_ZYX : integer array, (Z, Y, X)
        Labels. Large arrays are thinned to `SHOWN_VOXELS`.
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
    """Each cell of a frame as one scene (GLB), and each of its compartments as a surface (PLY), lengths in µm."""
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
    spacing = time_lapse.volume.spacing_um
    surfaces = {name: surface_mesh(mask, spacing, FACES) for name, mask in masks.items() if mask.any()}
    if write_glb(stem.with_suffix(".glb"), masks, spacing, FACES, meshes=surfaces) is not None:
        written.add(stem.with_suffix(".glb"))
    place = [o + part.start * s for o, part, s in zip(time_lapse.volume.origin_um, box, spacing, strict=True)]
    for name, mesh in surfaces.items():
        mesh.apply_translation(place[::-1])  # where it lies in the tomogram: x, y, z
        path = stem.with_name(f"{stem.name}_{'cell' if name == 'membrane' else safe_name(name)}.ply")
        with atomic_path(path) as part:
            mesh.export(part, file_type="ply")
        written.add(path)
