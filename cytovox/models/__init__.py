"""Trained models as plain Python objects: weights, their metadata, and prediction without Lightning."""

from cytovox.models.cells import CellModel
from cytovox.models.load import load_model, weights_path
from cytovox.models.organelle import OrganelleMasks, OrganelleModel
from cytovox.models.shape import ShapeModel, Shapes

__all__ = ["CellModel", "OrganelleMasks", "OrganelleModel", "ShapeModel", "Shapes", "load_model", "weights_path"]
