"""3D microscopy of living cells, turned into measurements.

The functions below are all that a notebook needs; docs/python.md shows them in use:

>>> import cytovox
>>> volume = cytovox.simulate("HeLa", seed=1, shape=(64, 64, 64)).volume       # or cytovox.read("cell.TCF")
>>> model = cytovox.load_model("organelle", device="cpu")
>>> masks = model.predict(volume)
>>> cells = cytovox.find_cells(masks, method="watershed")
>>> table = cytovox.measure(volume, masks, cells)
>>> {"cell", "compartment", "volume_um3", "flags"} <= set(table.columns)
True

Importing the package loads nothing else: each name is imported at its first use.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from cytovox.api import (
        QualityWarning,
        Segmentation,
        Simulation,
        find_cells,
        measure,
        read,
        save,
        segment,
        simulate,
        track,
    )
    from cytovox.errors import InputError
    from cytovox.io import Volume
    from cytovox.models import CellModel, OrganelleMasks, OrganelleModel, ShapeModel, load_model

__all__ = [
    "CellModel",
    "InputError",
    "OrganelleMasks",
    "OrganelleModel",
    "QualityWarning",
    "Segmentation",
    "ShapeModel",
    "Simulation",
    "Volume",
    "find_cells",
    "load_model",
    "measure",
    "read",
    "save",
    "segment",
    "simulate",
    "track",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "api": [
            "QualityWarning",
            "Segmentation",
            "Simulation",
            "find_cells",
            "measure",
            "read",
            "save",
            "segment",
            "simulate",
            "track",
        ],
        "errors": ["InputError"],
        "io": ["Volume"],
        "models": ["CellModel", "OrganelleMasks", "OrganelleModel", "ShapeModel", "load_model"],
    },
)
