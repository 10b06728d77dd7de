"""Whatever Cytovox writes it also reads: outputs as training masks, as given masks and labels, and as corrections."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from cytovox.io import Box, FrameReader, read_volume
from cytovox.simulation.files import write as write_simulated
from cytovox.simulation.files import write_time_lapse
from cytovox.simulation.tomogram import Options, simulate
from datamodules.config import FolderData
from datamodules.folder import find_cases
from tests.experiments import scenes
from tests.experiments.scenes import CELLS_UM3, MEMBRANE_UM3, NUCLEUS_UM3, VOXEL_UM3
from training import prediction
from training.rundir import RunFolder


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    scenes.quick(monkeypatch)
    monkeypatch.setattr(prediction, "draw_frame", lambda *_, **__: None)


class ByIndex:
    """Predicts membrane and nucleus from the index itself."""

    scratch: Path | None = None

    def box_shape(self, shape_ZYX: Sequence[int], spacing_um: Sequence[float]) -> tuple[int, int, int]:
        z, y, x = shape_ZYX
        return z, y, x

    def boxes(self, reader: FrameReader, spacing_um: Sequence[float]) -> Iterator[tuple[Box, np.ndarray]]:
        box = (slice(0, reader.shape[0]), slice(0, reader.shape[1]), slice(0, reader.shape[2]))
        ri = reader.read(box)
        yield box, np.stack([ri > 1.347, ri > 1.3595]).astype(np.float32)


def predicted(folder: Path, kind: str, frames: int) -> Path:
    """Masks as the predict stage writes them, beside the tomogram a.ome.tif."""
    path = scenes.tomogram(folder / "a.ome.tif", frames)
    run = RunFolder(folder / "run")
    writer = prediction.MaskWriter(
        run, ("membrane", "nucleus"), prediction.output_names([path]), file_format=kind, probabilities=True,
        out=folder / "masks",
    )  # type: ignore[arg-type]  # fmt: skip
    (folder / "masks").mkdir()
    writer(path, ByIndex())  # type: ignore[arg-type]
    assert not writer.errors
    return folder / "masks"


#: How the outputs of `predict` are named as inputs: masks of training, and of analyze.
PATTERNS = {
    "ome-tiff": "masks/{stem}.ome.tif",
    "ome-zarr": "masks/{stem}.ome.zarr",
    "nifti": "masks/{stem}_t{frame}_{organelle}.nii.gz",
    "probabilities": "masks/{stem}_t{frame}_probabilities.ome.tif",
}


@pytest.mark.parametrize("kind", list(PATTERNS))
@pytest.mark.parametrize("frames", [1, 2])
def test_predicted_masks_are_read_by_every_command(cli, tmp_path, kind, frames):
    masks = predicted(tmp_path, "ome-tiff" if kind == "probabilities" else kind, frames)
    data = FolderData(
        root=str(tmp_path), volumes="a.ome.tif", masks=PATTERNS[kind], organelles=["membrane", "nucleus"],
        frame=frames - 1,
    )  # fmt: skip
    (case,) = find_cases(data)
    raw = case.load()
    assert raw.labelled_K.all()
    assert (raw.masks_KZYX.sum((1, 2, 3)) * VOXEL_UM3).tolist() == pytest.approx([MEMBRANE_UM3, NUCLEUS_UM3])
    result = scenes.analyze(
        cli, tmp_path / "out", tmp_path / "a.ome.tif", f"organelles={tmp_path}/{PATTERNS[kind]}"
    )  # fmt: skip
    assert result.code == 0, result.err
    for t in range(frames):
        assert len(result.volumes(frame=t)) == 3
        assert result.total("nucleus", t) == pytest.approx(NUCLEUS_UM3)
    if kind == "nifti":
        files = [masks / f"a_t000_{name}.nii.gz" for name in ("membrane", "nucleus")]
        for path in files:  # edited and dropped back as corrections
            shutil.copy(path, tmp_path / "out" / "predictions" / path.name.replace(".nii", "_corrected.nii"))
        corrected = scenes.analyze(cli, tmp_path / "out", tmp_path / "a.ome.tif", "organelle_names=[nucleus, membrane]",
                                   f"organelles={tmp_path}/{PATTERNS[kind]}")  # fmt: skip
        assert corrected.code == 0, corrected.err
        assert corrected.total("nucleus") == pytest.approx(NUCLEUS_UM3)
    else:
        name = PATTERNS[kind].replace("{stem}", "a").replace("{frame}", "000")
        files = [tmp_path / name] * 2
    alone = scenes.from_masks(cli, tmp_path / "labels", *files)
    assert alone.code == 0, alone.err
    assert (alone.table["compartment"] == "cell").sum() == (3 * frames if kind in ("ome-tiff", "ome-zarr") else 3)


def test_cells_that_were_labelled_are_cells_membrane_correction_and_training_labels(cli, tmp_path):
    scenes.tomogram(tmp_path / "a.ome.tif")
    membrane = scenes.nifti(tmp_path / "m.nii.gz", (scenes.cells() > 0).astype(np.uint8))
    nucleus = scenes.nifti(tmp_path / "n.nii.gz", (scenes.nuclei() > 0).astype(np.uint8))
    first = scenes.from_masks(cli, tmp_path / "labels", membrane, nucleus)
    assert first.code == 0, first.err
    cells = tmp_path / "labels" / "cells.ome.tif"
    both = scenes.ome(tmp_path / "both.tif", np.stack([scenes.cells() > 0, scenes.nuclei() > 0]).astype(np.uint8),
                      ["membrane", "nucleus"])  # fmt: skip
    run = tmp_path / "run"
    given = scenes.analyze(cli, run, tmp_path / "a.ome.tif", f"cells={cells}", f"organelles={both}")
    assert given.volumes() == pytest.approx(CELLS_UM3), given.err
    # the outputs of this analysis are inputs of the next
    written = run / "predictions"
    again = scenes.analyze(
        cli, tmp_path / "again", tmp_path / "a.ome.tif", f"cells={written}/{{stem}}_cells.ome.tif",
        f"organelles={written}/{{stem}}_organelles.ome.tif",
    )  # fmt: skip
    assert again.volumes() == pytest.approx(CELLS_UM3), again.err
    assert again.total("nucleus") == pytest.approx(NUCLEUS_UM3)
    alone = scenes.from_masks(cli, tmp_path / "2", written / "a_cells.ome.tif", written / "a_organelles.ome.tif")
    assert alone.code == 0, alone.err
    assert (alone.table["compartment"] == "cell").sum() == 3
    shutil.copy(cells, written / "a_cells_corrected.ome.tif")
    corrected = scenes.analyze(cli, run, tmp_path / "a.ome.tif", f"organelles={both}", f"cells={nothing(tmp_path)}")
    assert corrected.volumes() == pytest.approx(CELLS_UM3), corrected.err
    assert set(corrected.table["cells_from"]) == {"corrected"}
    data = FolderData(root=str(tmp_path), volumes="a.ome.tif", corrections=str(written), organelles=["cells"])
    (case,) = find_cases(data)
    sizes = np.bincount(case.load().masks_KZYX[0].ravel())[1:] * VOXEL_UM3
    assert sorted(sizes) == pytest.approx(CELLS_UM3)


def nothing(folder: Path) -> Path:
    """Labels of one cell only."""
    return scenes.nifti(folder / "one.nii.gz", (scenes.cells() == 1).astype(np.uint8))


def test_simulated_volumes_and_films_are_read_by_every_command(cli, tmp_path):
    shape, spacing = (16, 32, 32), (0.6, 0.6, 0.6)
    seen = simulate("HeLa", 1, shape, spacing)
    tcf = write_simulated(tmp_path / "one", seen)
    time_lapse = write_time_lapse(
        tmp_path / "time_lapse", "HeLa", 1, "control", [0.0, 1800.0], shape, spacing, Options()
    )
    whole = sorted(float(n) * 0.6**3 for n in np.bincount(seen.cells_ZYX.ravel())[1:] if n)
    for path, cells, organelles in (
        (tcf, "{stem}_cells.nii.gz", "{stem}_{organelle}.nii.gz"),
        (time_lapse, "{stem}_cells.ome.tif", "{stem}_masks.ome.tif"),
    ):
        folder = path.parent
        result = scenes.analyze(
            cli, tmp_path / path.stem, path, f"cells={folder}/{cells}", f"organelles={folder}/{organelles}"
        )  # fmt: skip
        assert result.code == 0, result.err
        assert len(result.volumes()) == len(whole)
        data = FolderData(root=str(folder), volumes=path.name, masks=organelles, frame=read_volume(path).shape[0] - 1)
        (case,) = find_cases(data)
        raw = case.load()
        assert raw.labelled_K.all()
        if path == tcf:
            assert result.volumes() == pytest.approx(whole)
            truth = [int(mask.sum()) for mask in seen.masks.values()]
            assert raw.masks_KZYX.sum((1, 2, 3)).tolist() == truth
    masks = tmp_path / "time_lapse" / f"{time_lapse.stem}_masks.ome.tif"
    alone = scenes.from_masks(cli, tmp_path / "labels", masks, masks)
    assert alone.code == 0, alone.err
    assert "channel membrane of 4 is read as membrane" in alone.err
