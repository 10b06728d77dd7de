"""One tomogram with its masks, wherever it lies."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from cytovox.errors import InputError
from cytovox.io import Volume, check_finite, read_volume
from cytovox.io.label_layout import channels_of, unnamed
from cytovox.io.orientation import MaskAxes
from cytovox.io.spacing import SpacingFrom
from cytovox.io.values import ri_error
from cytovox.organelles import CELLS
from datamodules.errors import DataError
from datamodules.label_source import Grid, LabelSource, class_source, label_sources

#: Labels of cells are kept in 16 bits.
MOST_CELLS = 65_535


@dataclass(frozen=True)
class RawCase:
    """A tomogram and its masks on its own grid."""

    ri_ZYX: np.ndarray
    """float32 refractive index."""
    masks_KZYX: np.ndarray
    """uint8, 1 inside; an unlabelled organelle is all 0. Where cells are among them, uint16, and they are labels."""
    labelled_K: np.ndarray
    """bool: whether somebody drew this organelle (an empty drawing counts)."""
    spacing_um: tuple[float, float, float]
    """Voxel size z, y, x."""


class Case(Protocol):
    """What the cache and the loaders need to know of a case."""

    @property
    def name(self) -> str:
        """Unique in a run."""
        ...

    @property
    def cell_line(self) -> str:
        """What the test is tabled by."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """What its content depends on."""
        ...

    @property
    def settings(self) -> str:
        """What else its content depends on."""
        ...

    def load(self) -> RawCase:
        """Read it."""
        ...


class MaskFile(NamedTuple):
    """A mask file."""

    file: Path
    organelles: tuple[str, ...]
    multi: bool
    """Whether its labels tell the organelles apart."""


@dataclass(frozen=True)
class FolderCase:
    """A tomogram file and mask files."""

    name: str
    volume: Path
    masks: dict[str, Path]
    """File of each organelle that has one."""
    label_file: Path | None
    """One multi-label file instead."""
    label_values: dict[str, tuple[int, ...]]
    """Values inside each organelle, for the multi-label file."""
    organelles: tuple[str, ...]
    group: str
    cell_line: str
    split: str | None = None
    """`train`, `val` or `test` where the table says so."""
    frame: int = 0
    spacing_um: tuple[float, float, float] | None = None
    check_spacing: bool = True
    labels: str = "auto"
    """How values of masks are taken: auto, binary or instances."""
    spacing_from: SpacingFrom = "file"
    series: int | str | None = None
    """Number or name of the image in a file of several."""
    mask_axes: MaskAxes = "auto"
    """What decides how a mask lies where either its file or the volume's states directions: header or stored."""
    notes: list[str] = field(default_factory=list, compare=False)
    """Filled by `load`: what was accepted but should be said."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The volume and its masks."""
        more = (self.label_file,) if self.label_file is not None else ()
        return (self.volume, *more, *(self.masks[k] for k in sorted(self.masks)))

    @property
    def settings(self) -> str:
        """Options that change what is read, and which file is which organelle."""
        roles = ",".join(sorted(self.masks))
        return (
            f"{self.organelles} {roles} {self.label_values} {self.labels} {self.frame} {self.spacing_um} "
            f"{self.check_spacing} {self.spacing_from} {self.series} {self.mask_axes}"
        )

    def load(self) -> RawCase:
        """Read the frame and its masks.

        Raises
        ------
        InputError
            Unreadable files, values that are no refractive index, masks of another shape or spacing, wrong labels.
        """
        volume = self.open()
        self.notes.extend(note for note in volume.notes if note not in self.notes)
        ri = checked_ri(volume.frame(self.frame), str(self.volume))
        masks = np.zeros((len(self.organelles), *ri.shape), mask_type(self.organelles))
        labelled = np.zeros(len(self.organelles), bool)
        for mask_file in self.mask_files():
            for organelle, mask_ZYX in self.read_mask_file(mask_file, volume):
                index = self.organelles.index(organelle)
                masks[index], labelled[index] = mask_ZYX, True
        return RawCase(ri, masks, labelled, volume.spacing_um)

    def open(self) -> Volume:
        """The volume, whose voxels are read when asked for; InputError where the frame is not there."""
        volume = read_volume(self.volume, self.spacing_um, self.spacing_from, self.series)
        if self.frame >= volume.shape[0]:
            raise DataError(
                "frame", f"{self.volume}: has {volume.shape[0]} frames, so there is no data.frame {self.frame}"
            )
        return volume

    def mask_files(self) -> list[MaskFile]:
        """Each mask file, and what may be drawn in it."""
        own = [MaskFile(self.masks[k], (k,), multi=False) for k in self.organelles if k in self.masks]
        if self.label_file is None:
            return own
        shared = tuple(k for k in self.organelles if k not in self.masks)
        return [MaskFile(self.label_file, shared, multi=True), *own]

    def read_mask_file(self, mask_file: MaskFile, volume: Volume) -> Iterator[tuple[str, np.ndarray]]:
        """(organelle, bool mask (Z, Y, X)) of each organelle in one file of `mask_files`; of cells, their labels.

        Raises
        ------
        InputError
            Unreadable, of another shape or spacing than the volume's, or wrong labels.
        """
        for organelle, source in self.label_sources(mask_file, volume).items():
            yield organelle, self._cells(source) if organelle == CELLS else source.mask()

    def label_sources(self, mask_file: MaskFile, volume: Volume) -> dict[str, LabelSource]:
        """Where each organelle of a file is, and how it is read; what was decided for the user is in `notes`."""
        grid = Grid(
            self.volume.name, volume.shape[0], volume.shape[2:], volume.spacing_um, self.check_spacing,
            ", or set data.check_spacing=false if they lie voxel on voxel", self.series,
            volume.orientation, self.mask_axes,
            "data.mask_axes",
        )  # fmt: skip
        if not mask_file.multi:
            organelle = mask_file.organelles[0]
            return {organelle: self._source(mask_file.file, organelle, grid)}
        label_volume = grid.opened(mask_file.file)
        if (label_volume.shape[1] > 1 and label_volume.shape[2] > 1) or not unnamed(label_volume):
            channels = channels_of(label_volume, mask_file.organelles, self.notes)
            return {k: self._source(mask_file.file, k, grid, channel) for k, channel in channels.items()}
        values = {k: self.label_values[k] for k in mask_file.organelles if k in self.label_values}
        if not values:
            raise DataError(
                "labels",
                f"{mask_file.file}: a multi-label file, but data.label_values has none of "
                f"{', '.join(mask_file.organelles)}; say which values lie inside each organelle",
            )
        return class_source(mask_file.file, values, grid, self.notes, own_frame=True, t=self.frame)

    def _source(self, file: Path, organelle: str, grid: Grid, channel: int | None = None) -> LabelSource:
        found = label_sources(
            {self.frame: file}, organelle, grid, self.notes, labels=self.labels, own_frame=True, channel=channel,
            use="cells" if organelle == CELLS else "mask", quiet=True,
        )  # fmt: skip
        return found[self.frame]

    def _cells(self, source: LabelSource) -> np.ndarray:
        labels = source.objects()
        if labels.max(initial=0) > MOST_CELLS:
            raise DataError("labels", f"{source.path}: {labels.max()} cells: expected at most {MOST_CELLS}")
        return labels


@dataclass(frozen=True)
class SimulatedCase:
    """A tomogram of the simulator, in its cache."""

    preset: str
    seed: int
    path: Path
    organelles: tuple[str, ...]

    @property
    def name(self) -> str:
        """Such as `HeLa_200003`."""
        return f"{self.preset}_{self.seed}"

    @property
    def cell_line(self) -> str:
        """The preset."""
        return self.preset

    @property
    def files(self) -> tuple[Path, ...]:
        """None: the name of the cached file says its content."""
        return ()

    @property
    def settings(self) -> str:
        """The cached file's name holds every parameter of the simulation."""
        return f"{self.path.name} {self.organelles}"

    def load(self) -> RawCase:
        """Read it from the simulator's cache."""
        from cytovox.simulation import load

        tomogram = load(self.path)
        drawn = {**tomogram.masks, CELLS: tomogram.cells_ZYX}
        masks = np.stack([drawn[name] for name in self.organelles]).astype(mask_type(self.organelles))
        return RawCase(tomogram.ri_ZYX, masks, np.ones(len(masks), bool), tomogram.spacing_um)


def mask_type(organelles: Collection[str]) -> type[np.unsignedinteger]:
    """Number type of masks: cells need more than one byte."""
    return np.uint16 if CELLS in organelles else np.uint8


def checked_ri(ri_ZYX: np.ndarray, where: str, whole: bool = True) -> np.ndarray:
    """Return the frame, if it is a refractive index of cells in a medium.

    Parameters
    ----------
    ri_ZYX : float array, (Z, Y, X)
    where : str
        Named in the message: the file, with the frame.
    whole : bool
        False for a region of a frame (see `ri_error`).

    Raises
    ------
    InputError
        NaN or infinite values, or values that no cell has.
    """
    try:
        check_finite(ri_ZYX, where)
    except InputError as error:
        raise DataError("not-finite", str(error)) from None
    if (found := ri_error(ri_ZYX, whole)) is not None:
        raise DataError("not-ri", f"{where}: {found}")
    return ri_ZYX
