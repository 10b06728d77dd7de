"""Write simulated time-lapses as files: the measured index as a TCF file, and the true cells and masks."""

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
