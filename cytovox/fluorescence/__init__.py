"""Fluorescence as truth: masks from a stained channel, and the channel's offset against the tomogram."""

from cytovox.fluorescence.labels import LabelRules, estimate_cells, label_from_channel, undrawn_cells
from cytovox.fluorescence.registration import Offset, registration_offset

__all__ = ["LabelRules", "Offset", "estimate_cells", "label_from_channel", "registration_offset", "undrawn_cells"]
