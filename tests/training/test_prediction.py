"""Mask files of a prediction, read with third-party libraries."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.io import Box, FrameReader, grid_boxes, read_volume, write_nifti, write_ometiff, write_tcf
from cytovox.io.provenance import Fingerprint
from training.prediction import MaskWriter, collect_table, output_names
from training.rundir import RunFolder

SHAPE, SPACING = (6, 16, 20), (0.8, 0.2, 0.25)
ORGANELLES = ("membrane", "nucleus")


def _frames(count: int) -> np.ndarray:
    """A box of another size in each frame, and a smaller one inside."""
    ri = np.full((count, *SHAPE), 1.337, np.float32)
    for t in range(count):
        ri[t, 1:5, 2:12, 3 : 15 - t], ri[t, 2:4, 4:9, 5 : 9 - t] = 1.36, 1.38
    return ri


class Boxes:
    """An inferer that thresholds the index, box by box from the last to the first, and counts its frames."""

    scratch: Path | None = None

    def __init__(self, size: tuple[int, int, int] = (4, 8, 16)) -> None:
        self.size, self.calls = size, 0

    def box_shape(self, shape_ZYX: Sequence[int], spacing_um: Sequence[float]) -> tuple[int, int, int]:
        return self.size

    def boxes(self, reader: FrameReader, spacing_um: Sequence[float]) -> Iterator[tuple[Box, np.ndarray]]:
        np.testing.assert_allclose(spacing_um, SPACING)
        self.calls += 1
        for box in reversed(list(grid_boxes(reader.shape, self.size))):
            ri_zyx = reader.read(box)
            yield box, self.said(ri_zyx)

    def said(self, ri_zyx: np.ndarray) -> np.ndarray:
        return np.stack([ri_zyx > 1.35, ri_zyx > 1.37]).astype(np.float32)


def _truth(count: int) -> np.ndarray:
    ri = _frames(count)
    return np.stack([ri > 1.35, ri > 1.37], axis=1)


def _tcf(path: Path, frames: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = [1800.0 * t for t in range(frames)]
    return write_tcf(path, _frames(frames), SPACING, 1.337, times)


def _writer(tmp_path: Path, paths: list[Path], file_format: str = "ome-tiff", **more: object) -> MaskWriter:
    folder = RunFolder(tmp_path / "run")
    folder.require_writable()
    return MaskWriter(folder, ORGANELLES, output_names(paths), file_format=file_format, **more)  # type: ignore[arg-type]


def test_masks_of_a_time_lapse_are_one_ome_tiff_on_its_grid(tmp_path: Path) -> None:
    path = _tcf(tmp_path / "cell.TCF")
    writer = _writer(tmp_path, [path])
    writer(path, Boxes())
    with tifffile.TiffFile(tmp_path / "run/predictions/cell.ome.tif") as tiff:
        array, axes = tiff.series[0].asarray(), tiff.series[0].axes
        pixels = tifffile.xml2dict(tiff.ome_metadata or "")["OME"]["Image"]["Pixels"]
    order = ["TCZYX".index(a) for a in axes]
    np.testing.assert_array_equal(array.transpose(np.argsort(order)), _truth(3))
    assert [pixels[f"PhysicalSize{a}"] for a in "ZYX"] == pytest.approx(SPACING)
    assert [channel["Name"] for channel in pixels["Channel"]] == list(ORGANELLES)


def test_masks_of_a_time_lapse_are_one_ome_zarr_on_its_grid(tmp_path: Path) -> None:
    path = _tcf(tmp_path / "cell.TCF")
    _writer(tmp_path, [path], "ome-zarr")(path, Boxes())
    group = zarr.open_group(tmp_path / "run/predictions/cell.ome.zarr", mode="r")
    about = group.attrs["ome"]["multiscales"][0]
    np.testing.assert_array_equal(group[about["datasets"][0]["path"]][:], _truth(3))
    assert [axis["name"] for axis in about["axes"]] == list("tczyx")
    assert about["datasets"][0]["coordinateTransformations"][0]["scale"][2:] == pytest.approx(SPACING)


def test_masks_of_a_time_lapse_are_one_nifti_per_frame_and_organelle(tmp_path: Path) -> None:
    path = _tcf(tmp_path / "cell.TCF")
    _writer(tmp_path, [path], "nifti")(path, Boxes())
    found = sorted(p.name for p in (tmp_path / "run/predictions").glob("*.nii.gz"))
    assert found == sorted(f"cell_t00{t}_{name}.nii.gz" for t in range(3) for name in ORGANELLES)
    for t in range(3):
        image = nib.load(tmp_path / f"run/predictions/cell_t00{t}_nucleus.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, _truth(3)[t, 1])  # type: ignore[attr-defined]
        np.testing.assert_allclose(np.array(image.header.get_zooms()[::-1]) * 1000, SPACING, rtol=1e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize("file_format", ["ome-tiff", "ome-zarr", "nifti"])
def test_holes_of_the_membrane_are_filled_and_those_of_the_nucleus_are_not(tmp_path: Path, file_format: str) -> None:
    ri = _frames(2)
    ri[0, 2:5, 6:10, 4:12], ri[0, 3, 7:9, 6:10] = 1.38, 1.337  # a hole in both, across boxes, closed in 3D
    ri[1, 3:, 7, 7] = 1.337  # a channel to the border
    truth = np.stack([ri > 1.35, ri > 1.37], axis=1)
    path = write_tcf(tmp_path / "cell.TCF", ri, SPACING, 1.337, [0.0, 1800.0])
    _writer(tmp_path, [path], file_format)(path, Boxes())
    truth[0, 0, 3, 7:9, 6:10] = True
    files = sorted((tmp_path / "run/predictions").glob("cell*.[on]*"))
    if file_format == "nifti":
        found = {f.name: read_volume(f).frame(0) for f in files}
        for t in range(2):
            for k, name in enumerate(ORGANELLES):
                np.testing.assert_array_equal(found[f"cell_t00{t}_{name}.nii.gz"] > 0, truth[t, k])
    else:
        volume = read_volume(files[0])
        for t in range(2):
            for k in range(2):
                np.testing.assert_array_equal(volume.frame(t, k) > 0, truth[t, k])
    rows = list(csv.DictReader(collect_table(RunFolder(tmp_path / "run")).open()))
    assert [int(row["voxels"]) for row in rows] == truth.sum(axis=(2, 3, 4)).ravel().tolist()


def test_the_table_has_one_row_per_frame_and_organelle(tmp_path: Path) -> None:
    path = _tcf(tmp_path / "cell.TCF")
    writer = _writer(tmp_path, [path])
    writer(path, Boxes())
    with collect_table(writer.folder).open(newline="") as file:
        rows = list(csv.DictReader(file))
    voxels = _truth(3).sum(axis=(2, 3, 4))
    assert [(int(r["frame"]), r["organelle"], int(r["voxels"])) for r in rows] == [
        (t, name, voxels[t, k]) for t in range(3) for k, name in enumerate(ORGANELLES)
    ]
    assert float(rows[0]["volume_um3"]) == pytest.approx(voxels[0, 0] * np.prod(SPACING))
    assert [float(r["time_s"]) for r in rows[::2]] == [0, 1800, 3600]
    assert {r["output"] for r in rows} == {"cell.ome.tif"}
    assert sorted(p.name for p in (tmp_path / "run/figures").iterdir()) == [
        "predict_cell_t000.glb", "predict_cell_t000.png", "predict_cell_t001.png", "predict_cell_t002.png",
    ]  # fmt: skip


class Never(Boxes):
    def said(self, ri_zyx: np.ndarray) -> np.ndarray:
        pytest.fail("predicted again")


def _seen(folder: Path) -> list[str]:
    """Names in a folder, without hidden ones."""
    return sorted(p.name for p in folder.glob("[!.]*"))


def test_a_finished_file_is_skipped_and_an_interrupted_one_is_resumed(tmp_path: Path) -> None:
    path = _tcf(tmp_path / "cell.TCF")
    writer = _writer(tmp_path, [path])

    class Cut(Boxes):
        def said(self, ri_zyx: np.ndarray) -> np.ndarray:
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().said(ri_zyx)

    with pytest.raises(KeyboardInterrupt):
        writer(path, Cut())
    assert _seen(writer.folder.predictions) == [], "nothing half-written"
    rest = Boxes()
    writer(path, rest)
    assert rest.calls == 2, "the first frame was done"
    _writer(tmp_path, [path])(path, Never())
    assert len(writer.notes.read("cell")["rows"]) == 6
    assert sorted(p.name for p in writer.folder.predictions.iterdir()) == ["cell.json", "cell.ome.tif"]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "run/predictions/cell.ome.tif"), _truth(3))


@pytest.mark.parametrize(
    "more",
    [
        {"threshold": 0.4}, {"file_format": "nifti"}, {"probabilities": True},
        {"fingerprint": lambda path: Fingerprint({"input": "as it was", "weights": "other"})},
    ],
)  # fmt: skip
def test_other_options_predict_a_file_again(tmp_path: Path, more: dict[str, object]) -> None:
    path, again = _tcf(tmp_path / "cell.TCF", 1), Boxes()
    _writer(tmp_path, [path])(path, Boxes())
    _writer(tmp_path, [path], **more)(path, again)
    assert again.calls == 1
    _writer(tmp_path, [path], **more)(path, Never())


def test_a_changed_file_is_predicted_again(tmp_path: Path) -> None:
    path, infer = _tcf(tmp_path / "cell.TCF", 1), Boxes()
    _writer(tmp_path, [path])(path, infer)
    _tcf(path, 2)
    _writer(tmp_path, [path])(path, infer)
    assert infer.calls == 3


class Doubtful(Boxes):
    def said(self, ri_zyx: np.ndarray) -> np.ndarray:
        return 0.25 + super().said(ri_zyx) / 2


def test_probabilities_are_written_unchanged(tmp_path: Path) -> None:
    path = _tcf(tmp_path / "cell.TCF", 1)
    _writer(tmp_path, [path], probabilities=True)(path, Doubtful())
    array = tifffile.imread(tmp_path / "run/predictions/cell_t000_probabilities.ome.tif")
    np.testing.assert_array_equal(array.reshape(2, *SHAPE), 0.25 + _truth(1)[0] / 2)


def test_values_that_are_no_refractive_index_are_refused_before_writing(tmp_path: Path) -> None:
    write_ometiff(tmp_path / "f.ome.tif", np.full((1, 1, *SHAPE), 200, np.uint16), SPACING, ["RI"])
    write_nifti(tmp_path / "n.nii.gz", np.full(SHAPE, np.nan, np.float32), SPACING)
    paths = [tmp_path / "f.ome.tif", tmp_path / "n.nii.gz"]
    writer = _writer(tmp_path, paths)
    for path in paths:
        writer(path, Never())
    assert [
        output in error for output, error in zip(["no refractive", "NaN or infinite"], writer.errors, strict=True)
    ] == [
        True,
        True,
    ]
    assert not list(writer.folder.predictions.glob("*"))


def test_an_error_in_a_later_frame_leaves_no_file(tmp_path: Path) -> None:
    frames = np.full((2, *SHAPE), 1.35, np.float32)
    frames[1, 0, 0, 0] = np.nan
    write_ometiff(tmp_path / "late.ome.tif", frames[:, None], SPACING, ["RI"])
    for kind in ("ome-tiff", "nifti", "ome-zarr"):
        writer = _writer(tmp_path, [tmp_path / "late.ome.tif"], file_format=kind, probabilities=True)
        writer(tmp_path / "late.ome.tif", Boxes())
        assert len(writer.errors) == 1
        assert "frame 1" in writer.errors[0]
        assert not list(writer.folder.predictions.glob("*"))
        assert not list(writer.folder.figures.glob("*"))


def test_output_names_contain_folder_or_suffix_if_stems_are_equal() -> None:
    def names(*paths: str) -> list[str]:
        return list(output_names([Path("/r", p) for p in paths]).values())

    assert names("a.TCF", "b.ome.tif") == ["a", "b"]
    assert names("d1/a.TCF", "d2/a.TCF", "d1/b.TCF") == ["d1_a", "d2_a", "b"]
    assert names("x/d/a.TCF", "y/d/a.TCF") == ["x_d_a", "y_d_a"]
    assert names("a.TCF", "a.ome.tif") == ["a_TCF", "a_ome_tif"]
    four = names("d1/a.TCF", "d1/a.tif", "d2/a.TCF", "d2/a.tif")
    assert four == ["d1_a_TCF", "d1_a_tif", "d2_a_TCF", "d2_a_tif"]
    assert len({n.lower() for n in names("A.TCF", "sub/a.TCF")}) == 2
    with pytest.raises(InputError, match="named twice"):
        names("d/a.TCF", "d/../d/a.TCF")


_PART = st.sampled_from(["a", "b", "A", "a_b", "d"])


@settings(deadline=None, max_examples=200)
@given(st.sets(st.tuples(_PART, _PART, _PART, st.sampled_from([".TCF", ".tif", ".ome.tif"])), min_size=1, max_size=12))
def test_output_names_are_unique(parts: set[tuple[str, str, str, str]]) -> None:
    paths = sorted(Path("/r", one, two, name + end) for one, two, name, end in parts)
    names = output_names(paths)
    assert list(names) == paths
    assert len({name.lower() for name in names.values()}) == len(paths)
    assert not any("/" in name or name.startswith(".") for name in names.values())
