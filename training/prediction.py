"""Prediction of masks for files of tomograms, frame by frame and box by box, on the grid of the input."""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from cytovox.errors import InputError
from cytovox.inference.predictor import DenseInferer
from cytovox.io import ArrayReader, Box, FrameReader, Volume, check_finite, read_volume, writers
from cytovox.io.deletion import Manifest, remove_scratch
from cytovox.io.names import name_key, safe_name, unique_names
from cytovox.io.provenance import Fingerprint, content_digest
from cytovox.io.spacing import SpacingFrom
from cytovox.models.domain import Read
from cytovox.segmentation.holes import FILLED, MAX_HOLE_UM3
from datamodules.cases import checked_ri
from datamodules.paths import stem_of
from training.mask_figures import draw_frame, picture_name
from training.mask_files import (
    PredictionManifest,
    ProbabilityFile,
    begin_masks,
    mask_file,
    output_errors,
    read_masks,
    require_room_for,
    write_out,
)
from training.partial_predictions import PartialPrediction, moved_rows, read_state
from training.rundir import RunFolder, read_json, write_csv

COLUMNS = ("input", "frame", "time_s", "organelle", "voxels", "volume_um3", "output", "outside_training")
#: Frames of a time-lapse for which overlays are drawn.
FIGURES_PER_FILE = 4
#: Frames of more voxels are read region by region (0.5 GB of float32).
LARGE = 2**27


@dataclass
class MaskWriter:
    """Predict files one by one; a file whose masks are current is not predicted again.

    A manifest next to the masks records what they were made from. Finished frames of an unfinished file are kept in a
    hidden folder next to the masks, from which a resumed prediction continues (see `PartialPrediction`).
    """

    folder: RunFolder
    """Run folder for table and figures; without `out`, also for the masks (in `predictions/`)."""
    organelles: tuple[str, ...]
    """Names of the masks."""
    names: dict[Path, str]
    """Base name of each input's output; all differ."""
    threshold: float = 0.5
    """Lowest probability of a voxel of the mask."""
    file_format: str = "ome-tiff"
    """Format of the masks."""
    probabilities: bool = False
    """Whether to write the probabilities, too."""
    spacing_um: tuple[float, float, float] | None = None
    """Voxel size z, y, x of inputs without one."""
    spacing_from: SpacingFrom = "file"
    """Which voxel size to use if an input has another one: that of the file or `spacing_um`."""
    series: int | str | None = None
    """Number or name of the image in files with several images."""
    fingerprint: Callable[[Path], Fingerprint] | None = None
    """Fingerprint of everything that the masks of a file depend on; masks with another one are predicted again. None:
    the fingerprint of the file's content and the settings above, for weights that do not change."""
    outside: Callable[[Read, Volume], str] = lambda read, volume: ""
    """Describes which properties of a frame lie outside the training data of the weights."""
    out: Path | None = None
    """Folder of the masks instead of `predictions/` of the run; several runs may share it."""
    report: Callable[[str], None] = lambda _: None
    """Function that prints the progress of a file."""
    report_note: Callable[[str], None] = lambda text: None
    """Function that prints a note, such as why existing masks are predicted again."""
    errors: list[str] = field(default_factory=list)
    """Messages of the inputs that could not be predicted."""

    def __post_init__(self) -> None:
        self.notes = PredictionManifest(self.target, self.folder.predictions, self.file_format)

    @property
    def target(self) -> Path:
        """Folder of the masks."""
        return self.folder.predictions if self.out is None else self.out.absolute()

    def __call__(self, path: Path, infer: DenseInferer) -> None:
        """Predict every frame of a file; a file that cannot be read is reported in `errors`.

        Raises
        ------
        InputError
            The masks cannot be written.
        """
        hidden = self._hidden(path)
        try:
            self._predict(path, infer)
        except UnusableInput as error:
            self.errors.append(str(error))
            remove_scratch(hidden)
            self._pictures(path).remove_all()
        except InputError as error:
            if done := len(read_state(hidden).get("frames", ())):
                raise InputError(f"{error}; {done} finished frames are kept in {hidden}, to resume from") from error
            remove_scratch(hidden)
            raise

    def provenance(self, path: Path) -> Fingerprint:
        """Return the fingerprint of everything that the masks of a file depend on."""
        if self.fingerprint is not None:
            return self.fingerprint(path)
        settings = [
            self.threshold, self.file_format, self.probabilities, list(self.spacing_um or []), self.spacing_from,
            self.series,
        ]  # fmt: skip
        return Fingerprint({"input": content_digest(path), "organelles": list(self.organelles), "settings": settings})

    def is_done(self, path: Path) -> bool:
        """Return whether the masks of a file exist and are current."""
        try:
            return self.provenance(path).agrees(self.notes.read(self.names[path]).get("made_from"))
        except (OSError, ValueError):
            return False

    def _predict(self, path: Path, infer: DenseInferer) -> None:
        name, hidden = self.names[path], self._hidden(path)
        with input_errors(path):
            provenance = self.provenance(path)
            known = self.notes.read(name)
            done = provenance.agrees(known.get("made_from"))
            volume = read_volume(path, self.spacing_um, self.spacing_from, self.series)
            for note in volume.notes:
                print(f"note: {note}", file=sys.stderr)
            if self.out is not None:
                self.notes.require_free(name, path, hidden.exists())
        rows = moved_rows(hidden, provenance)
        if not done and rows is None:
            if why := provenance.why(known.get("made_from")):
                self.report_note(f"{path.name}: predicted again: {why}")
            rows = self._compute(path, volume, infer, provenance)
        if not done:
            self.notes.write(name, path, provenance.parts, rows or [])
        elif known.get("input") != str(path.absolute()):  # the input was moved
            moved = [{**row, "input": str(path)} for row in known.get("rows", [])]
            self.notes.write(name, path, known["made_from"], moved)
        remove_scratch(hidden)
        self.notes.keep(name)
        if done:
            self._draw_again(path, volume)

    def _compute(
        self, path: Path, volume: Volume, infer: DenseInferer, provenance: Fingerprint
    ) -> list[dict[str, Any]]:
        """Predict the frames that are missing, write the masks of all frames, and return the rows of the table."""
        name, final = self.names[path], self.target / mask_file(self.names[path], self.file_format, 0, "masks")
        with input_errors(path):
            box = infer.box_shape(volume.shape[2:], volume.spacing_um)
        with output_errors(final):
            self.target.mkdir(parents=True, exist_ok=True)
            if not provenance.agrees(read_state(self._hidden(path)).get("made_from")):
                self._pictures(path).remove_all()
            begin = begin_masks(volume, self.organelles, final.name)
            store = PartialPrediction(self._hidden(path), provenance, begin, box)
        missing = [t for t in range(volume.shape[0]) if store.voxels(t) is None]
        require_room_for(final, volume, len(self.organelles), len(missing), self.probabilities)
        infer.scratch = store.folder
        for t in range(volume.shape[0]):
            reader = CheckedReader(volume, path, t)
            if t in missing:
                with output_errors(final):
                    self._frame(path, volume, t, reader, infer, store)
            if t < FIGURES_PER_FILE and not store.is_drawn(t, self.folder.figures):
                self._draw(path, volume, t, reader, partial(store.region, t))
                store.drawn(t, self.folder.figures)
        rows = [row for t in range(volume.shape[0]) for row in self._rows(path, volume, t, store)]
        for text in dict.fromkeys(row["outside_training"] for row in rows if row["outside_training"]):
            self.report_note(f"{path.name}: outside the training data of the weights: {text}")
        store.close(rows)
        # the manifest is written last: without it, a killed run predicts this file again
        self.notes.remove(name)
        write_out(store, self.target, name, self.file_format, volume, self.organelles)
        return rows

    def _frame(
        self, path: Path, volume: Volume, t: int, reader: FrameReader, infer: DenseInferer, store: PartialPrediction
    ) -> None:
        """Predict one frame; the probabilities of each box are thresholded at once."""
        voxels, seen, file = np.zeros(len(self.organelles), np.int64), 0, None
        if self.probabilities:
            box = infer.box_shape(volume.shape[2:], volume.spacing_um)
            stem = f"{self.names[path]}_t{t:03d}_probabilities"
            file = ProbabilityFile(store.folder, stem, volume, self.organelles, box)
        for region, probabilities_Kzyx in infer.boxes(reader, volume.spacing_um):
            masks_Kzyx = probabilities_Kzyx >= self.threshold
            store.write(t, region, masks_Kzyx.view(np.uint8))
            voxels += np.count_nonzero(masks_Kzyx, axis=(1, 2, 3))
            seen += math.prod(masks_Kzyx.shape[1:])
            share = 100 * seen // math.prod(volume.shape[2:])
            self.report(f"predicting: {path.name}, frame {t + 1} of {volume.shape[0]}, {share} %")
            if file is not None:
                file.write(region, probabilities_Kzyx)
        if seen != math.prod(volume.shape[2:]):
            raise RuntimeError(f"{seen} of {math.prod(volume.shape[2:])} voxels were predicted")
        if file is not None:
            file.close()
        if FILLED in self.organelles:
            k = self.organelles.index(FILLED)
            voxels[k] += store.fill_holes(t, k, MAX_HOLE_UM3 / float(np.prod(volume.spacing_um)))
        store.frame_done(t, voxels.tolist(), self.outside(reader.read, volume))

    def _rows(self, path: Path, volume: Volume, t: int, store: PartialPrediction) -> Iterator[dict[str, Any]]:
        for organelle, count in zip(self.organelles, store.voxels(t) or [], strict=True):
            yield {
                "input": str(path),
                "frame": t,
                "time_s": volume.times_s[t] if volume.times_s is not None else None,
                "organelle": organelle,
                "voxels": count,
                "volume_um3": count * float(np.prod(volume.spacing_um)),
                "output": mask_file(self.names[path], self.file_format, t, organelle),
                "outside_training": store.outside(t),
            }

    def _draw(
        self, path: Path, volume: Volume, t: int, reader: FrameReader, masks: Callable[[Box], np.ndarray]
    ) -> None:
        picture = self.folder.figures / picture_name(self.names[path], t)
        draw_frame(
            picture, reader, masks, self.organelles, volume.spacing_um, f"{path.name}, frame {t}", surfaces=t == 0
        )
        for drawn in (picture, picture.with_suffix(".glb")):
            self._pictures(path).add(drawn)

    def _draw_again(self, path: Path, volume: Volume) -> None:
        """Draw the masks that another run has written to a shared folder."""
        for t in range(min(volume.shape[0], FIGURES_PER_FILE)):
            if not (self.folder.figures / picture_name(self.names[path], t)).exists():
                files = [self.target / mask_file(self.names[path], self.file_format, t, k) for k in self.organelles]
                reader, masks = (
                    CheckedReader(volume, path, t),
                    read_masks(files, t, split=writers()[self.file_format].single),
                )
                self._draw(path, volume, t, reader, masks)

    def _pictures(self, path: Path) -> Manifest:
        """Return the list of the figures of a file: only these are removed before they are drawn again."""
        return Manifest(self.folder.path, f"predict-{self.names[path]}")

    def _hidden(self, path: Path) -> Path:
        return self.target / f".unfinished-{self.names[path]}"


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a base name for each input: that of the input, preceded by names of its folders if two would be equal.

    Every name is a valid file name on any system (see `cytovox.io.names.safe_name`).

    Raises
    ------
    InputError
        The same file is given twice.
    """
    if len({p.resolve() for p in paths}) < len(paths):
        raise InputError("predict.inputs: the same file is named twice")
    same_stem = Counter((path.absolute().parent, name_key(stem_of(path))) for path in paths)
    own = {  # a.TCF next to a.ome.tif: only the suffix distinguishes them
        path: stem_of(path)
        if same_stem[path.absolute().parent, name_key(stem_of(path))] == 1
        else path.name.replace(".", "_")
        for path in paths
    }
    names = {path: safe_name(name) for path, name in own.items()}
    for depth in range(1, 1 + max((len(path.absolute().parent.parts) for path in paths), default=0)):
        taken = Counter(name_key(name) for name in names.values())
        for path, name in names.items():
            if taken[name_key(name)] > 1:
                folders = [folder.strip("/\\:") for folder in path.absolute().parent.parts[-depth:]]
                names[path] = safe_name("_".join([folder for folder in folders if folder] + [own[path]]))
    return dict(zip(paths, unique_names(names[path] for path in paths), strict=True))


def collect_table(folder: RunFolder) -> Path:
    """Write `tables/predictions.csv` from the manifests of all finished files; return its path."""
    target = folder.tables / "predictions.csv"
    manifests = sorted(folder.predictions.glob("[!.]*.json"))
    rows = [row for manifest in manifests for row in read_json(manifest).get("rows", [])]
    write_csv(target, COLUMNS, ({**row, "volume_um3": f"{row['volume_um3']:.6g}"} for row in rows))
    return target


class UnusableInput(InputError):
    """A file that cannot be predicted; the prediction of the other files continues."""


@contextmanager
def input_errors(path: Path) -> Iterator[None]:
    """Raise errors in reading an input as `UnusableInput` with the name of the file."""
    try:
        yield
    except InputError as error:
        raise UnusableInput(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except OSError as error:
        raise UnusableInput(f"{path}: cannot be read ({error.strerror or error})") from error


class CheckedReader:
    """Reader of one frame; NaN and values that are no refractive index raise `UnusableInput` with file and frame.

    A frame of at most `LARGE` voxels is read and checked as a whole at the first call.
    """

    def __init__(self, volume: Volume, path: Path, t: int) -> None:
        z, y, x = volume.shape[2:]
        self.shape = (z, y, x)
        self._volume, self._path, self._t, self._where = volume, path, t, f"{path}, frame {t}"
        self._whole = math.prod(self.shape) <= LARGE

    @cached_property
    def _reader(self) -> FrameReader:
        if self._whole:
            return ArrayReader(checked_ri(self._volume.frame(self._t), self._where))
        return self._volume.reader(self._t)

    def read(self, box: Box) -> np.ndarray:
        """Return a region (z, y, x); raise `UnusableInput` if it is no refractive index."""
        with input_errors(self._path):
            region_zyx = self._reader.read(box)
            if not self._whole:
                check_finite(region_zyx, self._where, (box[0].start, box[1].start, box[2].start))
                checked_ri(region_zyx, self._where, whole=False)
            return region_zyx
