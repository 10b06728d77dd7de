"""What is minimised. No parameters in this room."""

from objectives.segmentation import LOSSES, loss_config

__all__ = ["LOSSES", "loss_config"]
