from .api import (
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
from .errors import InputError
from .io import Volume
from .models import CellModel, OrganelleMasks, OrganelleModel, ShapeModel, load_model

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
