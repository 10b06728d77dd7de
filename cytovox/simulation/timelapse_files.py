"""Simulated time-lapses as files: the TCF that a microscope would leave, and the truth beside it."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from cytovox.io.ometiff import write_ometiff
from cytovox.io.tcf_writer import write_tcf
from cytovox.simulation.timelapse import time_lapse
from cytovox.simulation.tomogram import Options, Shape, Spacing


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
    """Simulate a time-lapse and write what the microscope saw (TCF), its cells and its masks (OME-TIFF, all frames).

    Parameters
    ----------
    folder : Path
        Made if needed. The files are <preset>-<seed>-<response>.TCF, ..._cells.ome.tif and ..._masks.ome.tif. The TCF
        is written last: where it is, the rest is.
    preset, seed, response, times_s, shape, spacing_um, options
        As for `simulator.time_lapse`.

    Returns
    -------
    Path
        The TCF file.

    Raises
    ------
    InputError
        As `simulator.time_lapse`, before anything is written; or no space is left.
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
    stem = folder / f"{first.name}-{response}"
    write_ometiff(
        stem.with_name(f"{stem.name}_cells.ome.tif"), cells_TZYX[:, None], spacing_um, ["cells"], list(times_s)
    )
    write_ometiff(
        stem.with_name(f"{stem.name}_masks.ome.tif"), masks_TCZYX, spacing_um, list(first.masks), list(times_s)
    )
    tcf = stem.with_name(f"{stem.name}.TCF")
    return write_tcf(tcf, ri_TZYX, spacing_um, first.medium_ri, list(times_s), title=stem.name)
