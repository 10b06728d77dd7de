"""From a file of tomograms to a file of masks on the same grid, frame by frame."""

from __future__ import annotations

import csv
import glob
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from analysis.figures import overlay_figure
from analysis.meshes import write_glb
from datamodules.cases import checked_ri
from datamodules.paths import stem_of
from formats import Volume, read_volume, write_nifti, write_ometiff, write_omezarr
from formats.errors import InputError
from training.rundir import RunFolder, write_json, write_text

#: One frame: refractive index (Z, Y, X) and spacing in, probabilities (K, Z, Y, X) out.
Infer = Callable[[np.ndarray, tuple[float, float, float]], np.ndarray]
Format = Literal["ome-tiff", "ome-zarr", "nifti"]

COLUMNS = ("input", "frame", "time_s", "organelle", "voxels", "volume_um3", "output")
SUFFIX = {"ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr", "nifti": ".nii.gz"}
#: Frames of a time-lapse that get an overlay: the report shows a few, not hundreds.
FIGURES_A_FILE = 4


class UnusableInput(InputError):
    """A file that cannot be predicted; the others can."""


@dataclass
class MaskWriter:
    """Predicts files one by one; a file that is done has a note beside its masks and is not done again."""

    folder: RunFolder
    """Masks go to its `predictions/`."""
    organelles: tuple[str, ...]
    """Names of the masks."""
    names: dict[Path, str]
    """Base name of each input's output, all different."""
    threshold: float = 0.5
    """Probability from which a voxel belongs to an organelle."""
    file_format: Format = "ome-tiff"
    """What is written."""
    probabilities: bool = False
    """Write the probabilities, too."""
    spacing_um: tuple[float, float, float] | None = None
    """Of inputs that do not say it."""
    weights: str = ""
    """What tells these weights from others: files that others predicted are done again."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What was wrong with the inputs that could not be predicted: one of them does not stop the others."""

    def __call__(self, path: Path, infer: Infer) -> None:
        """Predict every frame of a file; one that cannot be read is noted in `faults`.

        Raises
        ------
        InputError
            The masks cannot be written.
        """
        try:
            self._predict(path, infer)
        except UnusableInput as fault:
            self.faults.append(str(fault))
            self._sweep(path)

    def _sweep(self, path: Path) -> None:
        """Leave nothing of a file that broke off in a later frame."""
        name = glob.escape(self.names[path])
        for folder, pattern in ((self.folder.figures, f"predict_{name}_t*"), (self.folder.predictions, f"{name}_t*")):
            for part in folder.glob(pattern):
                part.unlink()

    def _predict(self, path: Path, infer: Infer) -> None:
        note = self.note_of(path)
        with _told_of_input(path):
            made_from = self._made_from(path)
            if self.read_note(path).get("made_from") == made_from:
                return
            volume = read_volume(path, spacing_um=self.spacing_um)
        self.rows = []
        note.unlink(missing_ok=True)
        self._write(path, volume, self._frames(path, volume, infer))
        # the note is written last: without it, a killed run predicts this file again
        write_json(note, {"made_from": made_from, "rows": self.rows})

    def note_of(self, path: Path) -> Path:
        """Where a finished file's rows are kept."""
        return self.folder.predictions / f"{self.names[path]}.json"

    def read_note(self, path: Path) -> dict[str, Any]:
        """`rows` and `made_from` of a finished file; empty for one that is not."""
        note = self.note_of(path)
        content = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
        return content if isinstance(content, dict) else {}

    def _made_from(self, path: Path) -> dict[str, Any]:
        """Everything that a file's masks depend on."""
        files = [path, *path.rglob("*")] if path.is_dir() else [path]
        return {
            "input": str(path.absolute()),
            "changed": max(file.stat().st_mtime_ns for file in files),
            "weights": self.weights,
            "organelles": list(self.organelles),
            "settings": [self.threshold, self.file_format, self.probabilities, list(self.spacing_um or [])],
        }

    def _frames(self, path: Path, volume: Volume, infer: Infer) -> Iterator[np.ndarray]:
        """uint8 masks (K, Z, Y, X) of each frame; rows and overlays are made on the way."""
        for t in range(volume.shape[0]):
            with _told_of_input(path):
                ri_ZYX = checked_ri(volume.frame(t), f"{path}, frame {t}")
            probabilities_KZYX = infer(ri_ZYX, volume.spacing_um)
            masks_KZYX = (probabilities_KZYX >= self.threshold).astype(np.uint8)
            self._note_rows(path, volume, t, masks_KZYX)
            if t < FIGURES_A_FILE:
                self._draw(path, volume, t, ri_ZYX, masks_KZYX)
            if self.probabilities:
                name = f"{self.names[path]}_t{t:03d}_probabilities.ome.tif"
                self._tiff(self.folder.predictions / name, probabilities_KZYX[None].astype(np.float32), volume, None)
            yield masks_KZYX

    def _note_rows(self, path: Path, volume: Volume, t: int, masks_KZYX: np.ndarray) -> None:
        voxel_um3 = float(np.prod(volume.spacing_um))
        for organelle, mask_ZYX in zip(self.organelles, masks_KZYX, strict=True):
            voxels = int(mask_ZYX.sum(dtype=np.int64))
            self.rows.append(
                {
                    "input": str(path),
                    "frame": t,
                    "time_s": volume.times_s[t] if volume.times_s is not None else None,
                    "organelle": organelle,
                    "voxels": voxels,
                    "volume_um3": voxels * voxel_um3,
                    "output": self._output(path, t, organelle),
                }
            )

    def _output(self, path: Path, t: int, organelle: str) -> str:
        """Name of the file that holds a mask: NIfTI, as ITK-SNAP reads it, has one a frame and organelle."""
        part = f"_t{t:03d}_{organelle}" if self.file_format == "nifti" else ""
        return self.names[path] + part + SUFFIX[self.file_format]

    def _draw(self, path: Path, volume: Volume, t: int, ri_ZYX: np.ndarray, masks_KZYX: np.ndarray) -> None:
        masks = {name: mask.astype(bool) for name, mask in zip(self.organelles, masks_KZYX, strict=True)}
        base = f"predict_{self.names[path]}_t{t:03d}"
        overlay_figure(
            self.folder.figures / f"{base}.png", ri_ZYX, None, masks, volume.spacing_um, f"{path.name}, frame {t}"
        )
        if t == 0:
            write_glb(self.folder.figures / f"{base}.glb", masks, volume.spacing_um)

    def _write(self, path: Path, volume: Volume, frames: Iterator[np.ndarray]) -> None:
        base = self.folder.predictions / self.names[path]
        if self.file_format == "nifti":
            for t, masks_KZYX in enumerate(frames):
                for organelle, mask_ZYX in zip(self.organelles, masks_KZYX, strict=True):
                    target = self.folder.predictions / self._output(path, t, organelle)
                    write_nifti(target, mask_ZYX, volume.spacing_um, origin_um=volume.origin_um)
            return
        target = base.with_name(base.name + SUFFIX[self.file_format])
        shape = (volume.shape[0], len(self.organelles), *volume.shape[2:])
        if self.file_format == "ome-tiff":
            self._tiff(target, frames, volume, shape)
            return
        write_omezarr(
            target, frames, volume.spacing_um, self.organelles, times_s=volume.times_s, origin_um=volume.origin_um,
            shape=shape,
        )  # fmt: skip

    def _tiff(self, target: Path, data: Any, volume: Volume, shape: tuple[int, ...] | None) -> None:
        more: dict[str, Any] = {} if shape is None else {"shape": shape, "times_s": volume.times_s}
        write_ometiff(target, data, volume.spacing_um, self.organelles, origin_um=volume.origin_um, **more)


@contextmanager
def _told_of_input(path: Path) -> Iterator[None]:
    """Tell faults of an input from those of the disk that the masks are written to."""
    try:
        yield
    except InputError as fault:
        raise UnusableInput(str(fault)) from fault
    except OSError as fault:
        raise UnusableInput(f"{path}: cannot be read ({fault.strerror or fault})") from fault


def output_names(paths: list[Path]) -> dict[Path, str]:
    """A base name for each input: its own, with its folders' in front where two would be the same.

    Raises
    ------
    InputError
        The same file twice.
    """
    if len({p.resolve() for p in paths}) < len(paths):
        raise InputError("predict.inputs: the same file is named twice")
    beside = [(path.absolute().parent, stem_of(path).lower()) for path in paths]
    own = {  # a.TCF beside a.ome.tif: only the suffix tells them apart
        path: stem_of(path) if beside.count(key) == 1 else path.name.replace(".", "_")
        for path, key in zip(paths, beside, strict=True)
    }
    names = dict(own)
    for depth in range(1, 1 + max((len(path.absolute().parent.parts) for path in paths), default=0)):
        taken = Counter(name.lower() for name in names.values())
        for path, name in names.items():
            if taken[name.lower()] > 1:
                folders = [folder.strip("/\\:") for folder in path.absolute().parent.parts[-depth:]]
                names[path] = "_".join([folder for folder in folders if folder] + [own[path]])
    taken = Counter(name.lower() for name in names.values())
    return {path: name if taken[name.lower()] == 1 else f"{name}_{n}" for n, (path, name) in enumerate(names.items())}


def collect_table(folder: RunFolder) -> Path:
    """`tables/predictions.csv` out of the notes of all files that are done, by whichever call."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n")
    table.writeheader()
    for note in sorted(folder.predictions.glob("[!.]*.json")):
        rows = json.loads(note.read_text(encoding="utf-8")).get("rows", [])
        table.writerows({**row, "volume_um3": f"{row['volume_um3']:.6g}"} for row in rows)
    target = folder.tables / "predictions.csv"
    write_text(target, text.getvalue())
    return target
