"""Write cells into the folders that the data module reads: `image`, `mask` and `obj`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tifffile

from cytovox.io.atomic import atomic_path
from datamodules.shape.cases import ShapeCell


def write_shapes(cells: Iterable[ShapeCell], folder: str | Path) -> list[Path]:
    """Write each cell as `image/NAME.tif`, `mask/NAME.tif` and, if it has an object, `obj/NAME.tif`.

    Parameters
    ----------
    cells : iterable of ShapeCell
        Cells to write.
    folder : path
        Folder; created if needed.

    Returns
    -------
    list of Path
        Paths of the files: uint8, images of 0 to 255, masks and objects of 0 and 255.
    """
    written = []
    for cell in cells:
        arrays = {
            "image": np.rint(255 * cell.image_YX).astype(np.uint8),
            "mask": cell.mask_YX.astype(np.uint8) * 255,
        }
        if cell.obj_ZYX is not None:
            arrays["obj"] = cell.obj_ZYX.astype(np.uint8) * 255
        for kind, values in arrays.items():
            path = Path(folder) / kind / f"{cell.name}.tif"
            with atomic_path(path) as temporary:
                tifffile.imwrite(temporary, values, photometric="minisblack", compression="zlib", metadata=None)
            written.append(path)
    return written
