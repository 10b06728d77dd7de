"""A tomogram with its masks, in files or in the simulator's cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from cytovox.errors import InputError
from cytovox.io import Volume, check_finite, read_volume
from cytovox.io.label_layout import channels_of, unnamed
from cytovox.io.orientation import MaskAxes
from cytovox.io.spacing import SpacingFrom
from cytovox.io.values import ri_error
from cytovox.organelles import CELLS, UNDRAWN
from datamodules.channel_labels import VERSION, ChannelReport, ChannelRules, channel_label
from datamodules.errors import DataError, NotAnnotatedError
from datamodules.label_source import Grid, LabelSource, class_source, label_sources

#: Largest number of cells, since labels are stored in 16 bits.
MOST_CELLS = 65_535


@dataclass(frozen=True)
class RawCase:
    """A tomogram and its masks on its own grid."""

    ri_ZYX: np.ndarray
    """float32 refractive index."""
    masks_KZYX: np.ndarray
    """uint8, 1 inside, `UNDRAWN` in voxels without annotation; all 0 for an unlabelled organelle. With cells among them
    uint16, since these are labels."""
    labelled_K: np.ndarray
    """bool: whether the organelle has a mask; an empty mask counts."""
    spacing_um: tuple[float, float, float]
    """Voxel size z, y, x."""
    channels: tuple[ChannelReport, ...] = ()
    """How masks were made from fluorescence channels."""


class Case(Protocol):
    """Properties of a case that the cache and the loaders use."""

    @property
    def name(self) -> str:
        """Name, unique in a run."""

    @property
    def cell_line(self) -> str:
        """Cell line, by which test scores are listed."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that its content depends on."""

    @property
    def settings(self) -> str:
        """Options that its content depends on."""

    def load(self) -> RawCase:
        """Read the case."""


class OrganelleMask(NamedTuple):
    """Mask of one organelle, as read from a file."""

    organelle: str
    mask_ZYX: np.ndarray
    """bool, False in voxels without annotation; of cells int32 labels."""
    unannotated_ZYX: np.ndarray | None
    """bool: voxels without annotation; None if all are annotated."""


class MaskFile(NamedTuple):
    """A mask file and the organelles it may contain."""

    file: Path
    organelles: tuple[str, ...]
    multi: bool
    """Whether it is a multi-label file, whose values or channels are the organelles."""


@dataclass(frozen=True)
class FolderCase:
    """A tomogram file with its mask files."""

    name: str
    volume: Path
    masks: dict[str, Path]
    """Mask file of each organelle that has its own."""
    label_file: Path | None
    """Multi-label file of the other organelles."""
    label_values: dict[str, tuple[int, ...]]
    """Values inside each organelle, for the multi-label file."""
    organelles: tuple[str, ...]
    group: str
    cell_line: str
    split: str | None = None
    """`train`, `val` or `test` if the table gives it."""
    frame: int = 0
    spacing_um: tuple[float, float, float] | None = None
    check_spacing: bool = True
    labels: str = "auto"
    """Meaning of mask values: auto, binary or instances."""
    spacing_from: SpacingFrom = "file"
    series: int | str | None = None
    """Number or name of the image in a file with several."""
    mask_axes: MaskAxes = "auto"
    """Source of a mask's orientation if one of the files states directions: auto, header or stored."""
    channels: dict[str, str] = field(default_factory=dict)
    """Fluorescence channel of each organelle whose mask is made from one. A mask of its own takes precedence: it is a
    correction."""
    channel_rules: ChannelRules = field(default_factory=ChannelRules)
    """Rules of these masks."""
    ignore_value: int | None = None
    """Value of voxels without annotation."""
    annotated_slices: Literal["all", "labelled"] = "all"
    """z slices of a mask file that are annotated: all, or those that hold a label."""
    corrected: frozenset[str] = frozenset()
    """Organelles whose mask is a correction, of which all slices are annotated."""
    notes: list[str] = field(default_factory=list, compare=False)
    """Notes added by `load`: what was accepted but should be reported."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The volume and its masks."""
        masks = [self.label_file, *(self.masks[k] for k in sorted(self.masks))]
        return (self.volume, *(path for path in masks if path is not None))

    @property
    def settings(self) -> str:
        """Options that change the content, and the organelles that have a file."""
        partly = f" {self.ignore_value} {self.annotated_slices} {sorted(self.corrected)}" if self.may_be_partial else ""
        settings = (
            f"{self.organelles} {','.join(sorted(self.masks))} {self.label_values} {self.labels} {self.frame} "
            f"{self.spacing_um} {self.check_spacing} {self.spacing_from} {self.series} {self.mask_axes}{partly}"
        )
        return (
            f"{settings} {sorted(self.channels.items())} {VERSION} {self.channel_rules}" if self.channels else settings
        )

    @property
    def may_be_partial(self) -> bool:
        """Whether the options allow voxels without annotation."""
        return self.ignore_value is not None or self.annotated_slices != "all"

    def load(self) -> RawCase:
        """Return the frame and its masks.

        Raises
        ------
        InputError
            A file cannot be read, values are no refractive index, a mask differs in shape or spacing, labels are wrong.
            A `NotAnnotatedError` if no voxel is annotated.
        """
        volume = self.open()
        self.notes.extend(note for note in volume.notes if note not in self.notes)
        ri = checked_ri(volume.frame(self.frame), str(self.volume))
        masks = np.zeros((len(self.organelles), *ri.shape), mask_type(self.organelles))
        labelled = np.zeros(len(self.organelles), bool)
        for mask_file in self.mask_files():
            for organelle, mask_ZYX, unannotated_ZYX in self.read_mask_file(mask_file, volume):
                index = self.organelles.index(organelle)
                masks[index], labelled[index] = mask_ZYX, unannotated_ZYX is None or not unannotated_ZYX.all()
                if labelled[index] and unannotated_ZYX is not None:
                    masks[index][unannotated_ZYX] = UNDRAWN
        known = {name: masks[k] == 1 for k, name in enumerate(self.organelles) if labelled[k]}
        reports = []
        for label_ZYX, report in self.channel_masks(volume, ri, known):
            index = self.organelles.index(report.organelle)
            masks[index], labelled[index] = label_ZYX, report.undrawn_share < 1
            reports.append(report)
            if (warning := report.warning()) and (note := f"{self.volume}: {warning}") not in self.notes:
                self.notes.append(note)
        if self.may_be_partial and not labelled.any():
            raise self.not_annotated()
        return RawCase(ri, masks, labelled, volume.spacing_um, tuple(reports))

    @property
    def drawn(self) -> tuple[str, ...]:
        """Organelles that have or may have a mask, in a file or a fluorescence channel."""
        return (*(k for mask_file in self.mask_files() for k in mask_file.organelles), *self.from_channels)

    @property
    def from_channels(self) -> dict[str, str]:
        """Fluorescence channel of each organelle without a correction."""
        return {organelle: channel for organelle, channel in self.channels.items() if organelle not in self.masks}

    def channel_masks(
        self, volume: Volume, ri_ZYX: np.ndarray, masks: Mapping[str, np.ndarray]
    ) -> Iterator[tuple[np.ndarray, ChannelReport]]:
        """Yield the masks of fluorescence channels, uint8 with `UNDRAWN`, and how they were made.

        Parameters
        ----------
        volume : Volume
            The opened file.
        ri_ZYX : float array, (Z, Y, X)
            Refractive index of the frame.
        masks : mapping of name -> bool array, (Z, Y, X)
            Masks in files; that of the membrane shows the cells.

        Raises
        ------
        InputError
            The file has no such channel.
        """
        for organelle, channel in self.from_channels.items():
            yield channel_label(
                volume, self.frame, organelle, channel, ri_ZYX, masks.get("membrane"), self.channel_rules
            )

    def open(self) -> Volume:
        """Return the volume, whose voxels are read on access; raise InputError if it has no such frame."""
        volume = read_volume(self.volume, self.spacing_um, self.spacing_from, self.series)
        if self.frame >= volume.shape[0]:
            raise DataError(
                "frame", f"{self.volume}: has {volume.shape[0]} frames, so there is no data.frame {self.frame}"
            )
        return volume

    def mask_files(self) -> list[MaskFile]:
        """Return each mask file with the organelles it may contain."""
        own = [MaskFile(self.masks[k], (k,), multi=False) for k in self.organelles if k in self.masks]
        if self.label_file is None:
            return own
        shared = tuple(k for k in self.organelles if k not in self.masks and k not in self.channels)
        return [MaskFile(self.label_file, shared, multi=True), *own]

    def not_annotated(self) -> NotAnnotatedError:
        """Return the error of a volume without any annotated voxel."""
        why = f"every voxel of its masks is data.ignore_value {self.ignore_value}"
        if self.annotated_slices == "labelled":
            why = "no z slice of its masks holds a label (data.annotated_slices labelled)"
        return NotAnnotatedError(
            f"{self.volume}: {why}: nothing is annotated; annotate a part, or leave the volume out"
        )

    def read_mask_file(self, mask_file: MaskFile, volume: Volume) -> list[OrganelleMask]:
        """Return the mask of each organelle in a file of `mask_files`; for cells, their labels.

        Raises
        ------
        InputError
            The file cannot be read, differs from the volume in shape or spacing, or has wrong labels.
        """
        found = []
        for organelle, source in self.label_sources(mask_file, volume).items():
            if organelle == CELLS:
                found.append(OrganelleMask(organelle, self._cells(source), None))
            else:
                slices = "all" if organelle in self.corrected else self.annotated_slices
                found.append(OrganelleMask(organelle, *source.annotation(slices)))
        if self.may_be_partial:
            self._note_absent(mask_file, found)
        return found

    def _note_absent(self, mask_file: MaskFile, found: list[OrganelleMask]) -> None:
        """Add to `notes` what may be an error in a partly annotated file: no annotated voxel, or no label."""
        partial = [(name, mask, unannotated) for name, mask, unannotated in found if unannotated is not None]
        absent = [name for name, _, unannotated in partial if unannotated.all()]
        notes = [f"no voxel is annotated: {name} counts as unlabelled in this volume" for name in absent]
        if not absent and self.annotated_slices == "all" and partial and not any(m.any() for _, m, _ in found):
            names = ", ".join(name for name, _, _ in found)
            notes.append(f"holds only the background and data.ignore_value {self.ignore_value}, and no {names}")
        lines = [f"{mask_file.file.name}: {note}" for note in notes]
        self.notes.extend(line for line in lines if line not in self.notes)

    def label_sources(self, mask_file: MaskFile, volume: Volume) -> dict[str, LabelSource]:
        """Return the location and reading of each organelle of a file; add automatic decisions to `notes`."""
        grid = Grid(
            self.volume.name, volume.shape[0], volume.shape[2:], volume.spacing_um, self.check_spacing,
            ", or set data.check_spacing=false if their voxels coincide", self.series,
            volume.orientation, self.mask_axes,
            "data.mask_axes",
        )  # fmt: skip
        if not mask_file.multi:
            return {organelle: self._source(mask_file.file, organelle, grid) for organelle in mask_file.organelles}
        label_volume = grid.opened(mask_file.file)
        if (label_volume.shape[1] > 1 and label_volume.shape[2] > 1) or not unnamed(label_volume):
            channels = channels_of(label_volume, mask_file.organelles, self.notes)
            return {k: self._source(mask_file.file, k, grid, channel) for k, channel in channels.items()}
        values = {k: self.label_values[k] for k in mask_file.organelles if k in self.label_values}
        if not values:
            raise DataError(
                "labels",
                f"{mask_file.file}: a multi-label file, but data.label_values has none of "
                f"{', '.join(mask_file.organelles)}; give the values inside each organelle",
            )
        return class_source(
            mask_file.file, values, grid, self.notes, own_frame=True, t=self.frame, ignore=self.ignore_value
        )

    def _source(self, file: Path, organelle: str, grid: Grid, channel: int | None = None) -> LabelSource:
        return label_sources(
            {self.frame: file}, organelle, grid, self.notes, labels=self.labels, own_frame=True, channel=channel,
            use="cells" if organelle == CELLS else "mask", quiet=True, ignore=self.ignore_value,
        )[self.frame]  # fmt: skip

    def _cells(self, source: LabelSource) -> np.ndarray:
        labels = source.objects()
        if labels.max(initial=0) > MOST_CELLS:
            raise DataError("labels", f"{source.path}: {labels.max()} cells: expected at most {MOST_CELLS}")
        return labels


@dataclass(frozen=True)
class SimulatedCase:
    """A tomogram in the simulator's cache."""

    preset: str
    seed: int
    path: Path
    organelles: tuple[str, ...]

    @property
    def name(self) -> str:
        """Preset and seed, such as `HeLa_200003`."""
        return f"{self.preset}_{self.seed}"

    @property
    def cell_line(self) -> str:
        """The preset."""
        return self.preset

    @property
    def files(self) -> tuple[Path, ...]:
        """None: the name of the cached file determines its content."""
        return ()

    @property
    def settings(self) -> str:
        """Name of the cached file, which has every parameter of the simulation, and the organelles."""
        return f"{self.path.name} {self.organelles}"

    def load(self) -> RawCase:
        """Return the tomogram from the simulator's cache."""
        from cytovox.simulation import load

        tomogram = load(self.path)
        drawn = {**tomogram.masks, CELLS: tomogram.cells_ZYX}
        masks = np.stack([drawn[name] for name in self.organelles]).astype(mask_type(self.organelles))
        for name, unseen_ZYX in tomogram.unseen.items():
            if masks.dtype == np.uint8 and name in self.organelles:
                masks[self.organelles.index(name), unseen_ZYX] = UNDRAWN
        return RawCase(tomogram.ri_ZYX, masks, np.ones(len(masks), bool), tomogram.spacing_um)


def mask_type(organelles: Collection[str]) -> type[np.unsignedinteger]:
    """Return the data type of masks: labels of cells need more than one byte."""
    return np.uint16 if CELLS in organelles else np.uint8


def checked_ri(ri_ZYX: np.ndarray, where: str, whole: bool = True) -> np.ndarray:
    """Return the frame if its values can be the refractive index of cells in a medium.

    Parameters
    ----------
    ri_ZYX : float array, (Z, Y, X)
    where : str
        File and frame, for the message.
    whole : bool
        False for a region of a frame (see `ri_error`).

    Raises
    ------
    InputError
        Values are NaN, infinite or outside the range of cells.
    """
    try:
        check_finite(ri_ZYX, where)
    except InputError as error:
        raise DataError("not-finite", str(error)) from None
    if (found := ri_error(ri_ZYX, whole)) is not None:
        raise DataError("not-ri", f"{where}: {found}")
    return ri_ZYX
