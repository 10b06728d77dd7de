"""Write simulated volumes and time-lapses as files: the measured index (TCF), and the ground truth."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from cytovox.io.nifti import write_nifti
from cytovox.io.ometiff import write_ometiff
from cytovox.io.tcf_writer import write_tcf
from cytovox.io.volume import Volume
from cytovox.simulation.optics import Shape, Spacing
from cytovox.simulation.timelapse import time_lapse
from cytovox.simulation.tomogram import Options, Tomogram


def write(folder: Path, tomogram: Tomogram, fluorescence: Volume | None = None) -> Path:
    """Write one volume: the measured index (TCF), the masks (NIfTI) and the true index (OME-TIFF).

    Parameters
    ----------
    folder : Path
        Created if needed. The files are <name>.TCF, <name>_<organelle>.nii.gz, <name>_cells.nii.gz and
        <name>_truth.ome.tif.
    tomogram : Tomogram
        A simulated volume.
    fluorescence : Volume, optional
        Fluorescence written into the TCF file, such as that of `cytovox.simulation.fluorescence.stained`.

    Returns
    -------
    Path
        The TCF file. It is written last, so where it exists, the other files do too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, spacing = tomogram.name, tomogram.spacing_um
    for organelle, mask in tomogram.masks.items():
        write_nifti(folder / f"{name}_{organelle}.nii.gz", mask.astype("uint8"), spacing)
    write_nifti(folder / f"{name}_cells.nii.gz", tomogram.cells_ZYX, spacing)
    write_ometiff(folder / f"{name}_truth.ome.tif", tomogram.ri_true_ZYX[None, None], spacing, ["RI"])
    path = folder / f"{name}.TCF"
    ri_TZYX = tomogram.ri_ZYX[None]
    return write_tcf(path, ri_TZYX, spacing, tomogram.medium_ri, fluorescence=fluorescence, title=name)


def write_time_lapse(
    folder: Path,
    preset: str,
    seed: int,
    response: str,
    times_s: Sequence[float],
    shape: Shape,
    spacing_um: Spacing,
    options: Options,
) -> Path:
    """Simulate a time-lapse and write the measured index (TCF), the cells and the masks (OME-TIFF), all frames.

    Parameters
    ----------
    folder : Path
        Created if needed. The files are <preset>-<seed>-<response>.TCF, ..._cells.ome.tif and ..._masks.ome.tif.
    preset, seed, response, times_s, shape, spacing_um, options
        As for `cytovox.simulation.time_lapse`.

    Returns
    -------
    Path
        The TCF file. It is written last, so where it exists, the other files do too.

    Raises
    ------
    InputError
        Invalid arguments (see `cytovox.simulation.time_lapse`), before anything is written; or no space left.
    """
    frames = time_lapse(preset, seed, response, times_s, shape, spacing_um, options)
    first = next(frames)
    folder.mkdir(parents=True, exist_ok=True)
    ri_TZYX = np.empty((len(times_s), *shape), np.float32)
    cells_TZYX = np.empty((len(times_s), *shape), np.uint16)
    masks_TCZYX = np.empty((len(times_s), len(first.masks), *shape), np.uint8)
    for t, frame in enumerate(chain([first], frames)):
        ri_TZYX[t], cells_TZYX[t] = frame.ri_ZYX, frame.cells_ZYX
        masks_TCZYX[t] = np.stack(list(frame.masks.values()))
    name, times = f"{first.name}-{response}", list(times_s)
    write_ometiff(folder / f"{name}_cells.ome.tif", cells_TZYX[:, None], spacing_um, ["cells"], times)
    write_ometiff(folder / f"{name}_masks.ome.tif", masks_TCZYX, spacing_um, list(first.masks), times)
    return write_tcf(folder / f"{name}.TCF", ri_TZYX, spacing_um, first.medium_ri, times, title=name)
