"""Masks of organelles from the fluorescence channels of a TCF file (`data.labels_from`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cytovox.fluorescence.labels import LabelRules, estimate_cells, label_from_channel, separated_cells
from cytovox.fluorescence.labels import undrawn_cells as count_undrawn
from cytovox.fluorescence.registration import registration_offset
from cytovox.io import Volume
from cytovox.io.fluorescence import fluorescence_channels, read_channel
from datamodules.errors import DataError

#: Raise it when the masks of the same channel and options change: prepared volumes are then made again.
VERSION = 1


@dataclass(frozen=True)
class ChannelRules(LabelRules):
    """Rules of the masks, and of the offset."""

    reach_um: float = 4.0
    """Limited, since cells that touch may not be separated."""
    max_offset_um: float = 3.0
    """Largest offset that is corrected; 0 for none."""


@dataclass(frozen=True)
class ChannelReport:
    """How the mask of an organelle was made from a channel."""

    organelle: str
    channel: str
    offset_um: tuple[float, float, float]
    """Estimated offset z, y, x of the channel; 0 without an estimate."""
    reliability: float
    """Correlation of the outlines, see `cytovox.fluorescence.Offset`."""
    corrected: bool
    """Whether the offset was corrected."""
    reason: str
    """Why it was not; empty if it was."""
    cells: int
    """Number of cells."""
    undrawn_cells: int
    """Number of cells without signal, which are not drawn."""

    @property
    def undrawn_share(self) -> float:
        """Share of the cells that are not drawn; 1 without cells."""
        return self.undrawn_cells / self.cells if self.cells else 1.0

    def row(self) -> dict[str, object]:
        """Return the columns of a table."""
        z, y, x = self.offset_um
        return {
            "organelle": self.organelle, "channel": self.channel, "offset_z_um": z, "offset_y_um": y,
            "offset_x_um": x, "reliability": self.reliability, "corrected": "yes" if self.corrected else "no",
            "reason": self.reason, "cells": self.cells, "undrawn_cells": self.undrawn_cells,
            "undrawn_share": self.undrawn_share,
        }  # fmt: skip

    def warning(self) -> str:
        """Return what a user should look at; empty if there is nothing."""
        what = f"{self.organelle} from {self.channel}: "
        if self.undrawn_share == 1:
            return f"{what}none of {self.cells} cells shows a signal, so nothing is drawn"
        texts = [] if self.corrected else [f"the offset of the channel is not corrected: {self.reason}"]
        if self.undrawn_share > 0.5:
            texts.append(f"{self.undrawn_cells} of {self.cells} cells show no signal and are not drawn")
        return what + "; ".join(texts) if texts else ""


def channel_label(
    volume: Volume,
    t: int,
    organelle: str,
    channel: str,
    ri_ZYX: np.ndarray,
    membrane_ZYX: np.ndarray | None,
    rules: ChannelRules,
) -> tuple[np.ndarray, ChannelReport]:
    """Return the mask of an organelle from a fluorescence channel of the same file, and how it was made.

    Parameters
    ----------
    volume : Volume
        A TCF file.
    t : int
        Frame.
    organelle, channel : str
        Names, such as nucleus and CH0.
    ri_ZYX : float array, (Z, Y, X)
        Refractive index of the frame.
    membrane_ZYX : bool array, (Z, Y, X), optional
        Given mask of the cells; without it the cells are estimated from the refractive index.
    rules : ChannelRules
        Threshold, smoothing, least sizes and largest offset.

    Returns
    -------
    uint8 array, (Z, Y, X)
        1 inside, 0 outside, `cytovox.organelles.UNDRAWN` without evidence.
    ChannelReport

    Raises
    ------
    InputError
        The file has no such channel, or only a projection of it.
    """
    known = fluorescence_channels(volume)
    where = f"{volume.source}: data.labels_from: {organelle} from {channel}"
    if channel not in known:
        found = f"it has {', '.join(known)}" if known else "it has no fluorescence (Data/3DFL)"
        raise DataError("fluorescence", f"{where}: no such channel: {found}; choose one, or leave the file out")
    read = read_channel(volume, t, channel)
    if read.slices < 2:
        raise DataError(
            "fluorescence", f"{where}: the channel has one slice: expected a stack, since a projection has no depth"
        )
    if membrane_ZYX is None:
        cells = estimate_cells(ri_ZYX, volume.spacing_um, volume.medium_ri)
    else:
        cells = separated_cells(membrane_ZYX, volume.spacing_um)
    offset, reliability, reason = (0.0, 0.0, 0.0), 0.0, "data.fluorescence.max_offset_um is 0"
    if rules.max_offset_um > 0:
        found_offset = registration_offset(
            ri_ZYX if membrane_ZYX is None else membrane_ZYX != 0, read.values_ZYX, volume.spacing_um,
            max_offset_um=rules.max_offset_um, medium_ri=volume.medium_ri, field_ZYX=read.field_ZYX,
        )  # fmt: skip
        offset, reliability, reason = found_offset.offset_um, found_offset.reliability, found_offset.reason
        if found_offset.reliable:
            read = read_channel(volume, t, channel, offset)
    label = label_from_channel(read.values_ZYX, volume.spacing_um, cells, field_ZYX=read.field_ZYX, rules=rules)
    undrawn, count = count_undrawn(label, cells)
    return label, ChannelReport(organelle, channel, offset, reliability, not reason, reason, count, undrawn)
