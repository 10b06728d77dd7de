"""Losses of organelle segmentation, centre offsets and SHAPR."""

from cytovox.losses.segmentation import LOSSES, loss_config

__all__ = ["LOSSES", "loss_config"]
