"""Files of labels that change between two calls."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import tifffile

from cytovox.io.label_layout import Grid
from datamodules.label_source import label_sources


def test_a_replaced_file_with_the_same_size_and_time_is_scanned_again(tmp_path: Path) -> None:
    path = tmp_path / "cells.tif"
    grid = Grid(frames=1, shape=(2, 6, 6), spacing_um=(1.0, 1.0, 1.0), owner="t.tif")

    def labels(*values: int) -> np.ndarray:
        stored = np.zeros((2, 6, 6), np.uint8)
        for k, value in enumerate(values):
            stored[:, 2 * k : 2 * k + 1, 1:5] = value
        tifffile.imwrite(path, stored, photometric="minisblack", metadata={"axes": "ZYX"})
        return stored

    labels(1, 1, 1)  # a mask: its parts are the cells
    before = path.stat()
    assert label_sources({0: path}, "cells", grid, [])[0].objects().max() == 3
    stored = labels(3, 1, 2)  # labels: taken as they are
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    np.testing.assert_array_equal(label_sources({0: path}, "cells", grid, [])[0].objects(), stored)
