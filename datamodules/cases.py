"""One tomogram with its masks, wherever it lies."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from analysis.organelles import CELLS
from datamodules.faults import DataFault
from formats import Volume, check_finite, read_mask, read_volume
from formats.errors import InputError
from formats.spacing import SpacingFrom
from formats.volume import spacing_agrees

#: Labels of cells are kept in 16 bits.
MOST_CELLS = 65_535
#: What a refractive index can be.
RI_LIMITS = (1.0, 2.5)


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
    def line(self) -> str:
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


class Drawing(NamedTuple):
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
    labels: dict[str, tuple[int, ...]]
    """Values inside each organelle, for the multi-label file."""
    organelles: tuple[str, ...]
    group: str
    line: str
    split: str | None = None
    """`train`, `val` or `test` where the table says so."""
    frame: int = 0
    spacing_um: tuple[float, float, float] | None = None
    check_spacing: bool = True
    spacing_from: SpacingFrom = "file"
    series: int | str | None = None
    """Number or name of the image in a file of several."""
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
            f"{self.organelles} {roles} {self.labels} {self.frame} {self.spacing_um} {self.check_spacing} "
            f"{self.spacing_from} {self.series}"
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
        for drawing in self.drawings():
            for organelle, mask_ZYX in self.read_drawing(drawing, ri.shape, volume.spacing_um):
                index = self.organelles.index(organelle)
                masks[index], labelled[index] = mask_ZYX, True
        return RawCase(ri, masks, labelled, volume.spacing_um)

    def open(self) -> Volume:
        """The volume, whose voxels are read when asked for; InputError where the frame is not there."""
        volume = read_volume(self.volume, self.spacing_um, self.spacing_from, self.series)
        if self.frame >= volume.shape[0]:
            raise DataFault(
                "frame", f"{self.volume}: has {volume.shape[0]} frames, so there is no data.frame {self.frame}"
            )
        return volume

    def drawings(self) -> list[Drawing]:
        """Each mask file, and what is drawn in it."""
        own = [Drawing(self.masks[k], (k,), multi=False) for k in self.organelles if k in self.masks]
        if self.label_file is None:
            return own
        shared = tuple(k for k in self.organelles if k in self.labels and k not in self.masks)
        return [Drawing(self.label_file, shared, multi=True), *own]

    def read_drawing(
        self, drawing: Drawing, shape: tuple[int, ...], spacing_um: tuple[float, float, float]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """(organelle, bool mask (Z, Y, X)) of each organelle in one file of `drawings`; of cells, their labels.

        Raises
        ------
        InputError
            Unreadable, of another shape or spacing than the volume's, or wrong labels.
        """
        if drawing.multi:
            labels_ZYX = self._labels(drawing.file, shape, spacing_um)
            for organelle in drawing.organelles:
                yield organelle, np.isin(labels_ZYX, self.labels[organelle])
        else:
            organelle = drawing.organelles[0]
            yield organelle, self._single(drawing.file, organelle, shape, spacing_um)

    def _labels(self, file: Path, shape: tuple[int, ...], spacing_um: tuple[float, float, float]) -> np.ndarray:
        """A multi-label file, all of whose labels are known."""
        labels = self._aligned(file, shape, spacing_um)
        unknown = {int(v) for v in np.unique(labels)} - {0} - {v for chosen in self.labels.values() for v in chosen}
        if unknown:
            raise DataFault("labels", f"{file}: label {min(unknown)} is in no organelle of data.labels; add it there")
        return labels

    def _single(
        self, file: Path, organelle: str, shape: tuple[int, ...], spacing_um: tuple[float, float, float]
    ) -> np.ndarray:
        """The mask of one organelle, 0 and one other value; of cells, their labels."""
        labels = self._aligned(file, shape, spacing_um)
        if organelle == CELLS:
            if labels.max(initial=0) > MOST_CELLS:
                raise DataFault(
                    "labels", f"{file}: label {labels.max()}: expected cells to be numbered 1 to {MOST_CELLS}"
                )
            return labels
        values = {int(v) for v in np.unique(labels)} - {0}
        if len(values) > 1:
            raise DataFault(
                "labels",
                f"{file}: holds {len(values)} different labels ({', '.join(map(str, sorted(values)[:5]))}) where a "
                "mask of one organelle was expected; for a multi-label file leave {organelle} out of data.masks and "
                "set data.labels",
            )
        return labels != 0

    def _aligned(self, file: Path, shape: tuple[int, ...], spacing_um: tuple[float, float, float]) -> np.ndarray:
        """Labels of a file whose shape and spacing are the volume's."""
        mask = read_mask(file)
        if mask.labels_ZYX.shape != shape:
            raise DataFault(
                "mask-shape",
                f"{file}: mask of shape {mask.labels_ZYX.shape} (z, y, x), but {self.volume.name} has {shape}; "
                "export the mask on the tomogram's own grid",
            )
        if mask.spacing_um is not None and self.check_spacing:
            agrees = spacing_agrees(mask.spacing_um, spacing_um)
            if agrees == "thousandfold":
                self.notes.append(f"{file.name}: its spacing is written in um where NIfTI expects mm; read as um")
            elif agrees != "same":
                told = ", ".join(f"{s:.4g}" for s in mask.spacing_um)
                need = ", ".join(f"{s:.4g}" for s in spacing_um)
                raise DataFault(
                    "mask-spacing",
                    f"{file}: mask spacing ({told}) um (z, y, x), but {self.volume.name} has ({need}); export it "
                    "with the tomogram's spacing, or set data.check_spacing=false if they lie voxel on voxel",
                )
        return mask.labels_ZYX


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
    def line(self) -> str:
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
        from simulator import load

        tomogram = load(self.path)
        drawn = {**tomogram.masks, CELLS: tomogram.cells_ZYX}
        masks = np.stack([drawn[name] for name in self.organelles]).astype(mask_type(self.organelles))
        return RawCase(tomogram.ri_ZYX, masks, np.ones(len(masks), bool), tomogram.spacing_um)


def mask_type(organelles: Collection[str]) -> type[np.unsignedinteger]:
    """Number type of masks: cells need more than one byte."""
    return np.uint16 if CELLS in organelles else np.uint8


def checked_ri(ri_ZYX: np.ndarray, where: str) -> np.ndarray:
    """The frame, if it is a refractive index.

    Raises
    ------
    InputError
        NaN or infinite values, or values that no cell has.
    """
    try:
        check_finite(ri_ZYX, where)
    except InputError as fault:
        raise DataFault("not-finite", str(fault)) from None
    low, high = float(ri_ZYX.min()), float(ri_ZYX.max())
    if low < RI_LIMITS[0] or high > RI_LIMITS[1]:
        raise DataFault(
            "not-ri",
            f"{where}: values from {low:.4g} to {high:.4g} are no refractive index ({RI_LIMITS[0]} to {RI_LIMITS[1]}); "
            "is this another channel, or an RI scaled by 10 000 in a file that is not a TCF?",
        )
    return ri_ZYX
