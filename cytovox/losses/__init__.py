"""Losses of segmentation, of centre offsets and of SHAPR."""

from cytovox.losses.segmentation import LOSSES, loss_config

__all__ = ["LOSSES", "loss_config"]
