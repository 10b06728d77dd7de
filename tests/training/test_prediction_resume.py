"""Interrupted predictions are resumed, and volumes larger than memory are streamed."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.io import Box, FrameReader, grid_boxes, read_volume, write_nifti, write_ometiff, write_omezarr, write_tcf
from cytovox.io.deletion import make_scratch
from cytovox.io.provenance import Fingerprint
from training import mask_figures, mask_files, prediction
from training.mask_figures import gather, thinned
from training.mask_files import require_free
from training.partial_predictions import chunks_for
from training.prediction import MaskWriter, collect_table, output_names
from training.rundir import RunFolder

SHAPE, SPACING = (6, 32, 40), (0.8, 0.2, 0.25)
ORGANELLES = ("membrane", "nucleus")
FORMATS: tuple[str, ...] = ("ome-tiff", "ome-zarr", "nifti")


def _frames(count: int) -> np.ndarray:
    ri = np.random.default_rng(0).uniform(1.337, 1.345, (count, *SHAPE)).astype(np.float32)
    for t in range(count):
        ri[t, 1:5, 4:24, 6 : 30 - t], ri[t, 2:4, 8:18, 10 : 18 - t] = 1.36, 1.38
    return ri


class Boxes:
    """An inferer that thresholds the index box by box, and counts its frames."""

    scratch: Path | None = None
    size = (4, 16, 16)

    def __init__(self) -> None:
        self.calls = 0

    def box_shape(self, shape_ZYX: Sequence[int], spacing_um: Sequence[float]) -> tuple[int, int, int]:
        z, y, x = (min(n, s) for n, s in zip(shape_ZYX, self.size, strict=True))
        return z, y, x

    def boxes(self, reader: FrameReader, spacing_um: Sequence[float]) -> Iterator[tuple[Box, np.ndarray]]:
        self.calls += 1
        for box in grid_boxes(reader.shape, self.box_shape(reader.shape, spacing_um)):
            ri_zyx = reader.read(box)
            yield box, self.said(np.stack([ri_zyx > 1.35, ri_zyx > 1.37]).astype(np.float32))

    def said(self, probabilities_Kzyx: np.ndarray) -> np.ndarray:
        return probabilities_Kzyx


class Stops(Boxes):
    """Raise an error in the middle of a frame."""

    def __init__(self, frame: int, error: BaseException) -> None:
        super().__init__()
        self.left, self.frame, self.error = 5, frame, error

    def said(self, probabilities_Kzyx: np.ndarray) -> np.ndarray:
        self.left -= self.calls == self.frame + 1
        if self.left == 0:
            raise self.error
        return probabilities_Kzyx


def _writer(tmp_path: Path, paths: list[Path], kind: str = "ome-tiff", run: str = "run", **more: Any) -> MaskWriter:
    folder = RunFolder(tmp_path / run)
    folder.require_writable()
    return MaskWriter(folder, ORGANELLES, output_names(paths), file_format=kind, **more)


def _masks(folder: Path, kind: str, name: str, frames: int) -> np.ndarray:
    """Masks (T, K, Z, Y, X) as third-party libraries read them."""
    if kind == "ome-tiff":
        return tifffile.imread(folder / f"{name}.ome.tif").reshape(frames, 2, *SHAPE)
    if kind == "ome-zarr":
        return np.asarray(zarr.open_array(folder / f"{name}.ome.zarr/0", mode="r"))
    files = [[folder / f"{name}_t{t:03d}_{k}.nii.gz" for k in ORGANELLES] for t in range(frames)]
    return np.array([[np.asarray(nib.load(f).dataobj).T for f in row] for row in files])  # type: ignore[attr-defined]


def _truth(count: int) -> np.ndarray:
    return np.stack([_frames(count) > 1.35, _frames(count) > 1.37], axis=1)


@pytest.fixture
def lapse(tmp_path: Path) -> Path:
    return write_tcf(tmp_path / "in.TCF", _frames(4), SPACING, 1.337, [0.0, 60.0, 120.0, 180.0])


@pytest.fixture(autouse=True)
def quick_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests draw no figures, which take most of a second each."""

    def draw(path: Path, reader: FrameReader, region: Any, *rest: Any, surfaces: bool) -> None:
        box = (slice(0, 1), slice(0, 2), slice(0, 3))
        assert region(box).shape[1:] == reader.read(box).shape
        path.write_bytes(b"drawn")
        if surfaces:
            path.with_suffix(".glb").write_bytes(b"drawn")

    if "small_memory" not in request.fixturenames:
        monkeypatch.setattr(prediction, "draw_frame", draw)


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from test_prediction_resume import Boxes, _writer, Path, prediction
    prediction.draw_frame = lambda path, *rest, **more: path.write_bytes(b"drawn")
    class Dies(Boxes):
        left = 5
        def said(self, probabilities_Kzyx):
            self.left -= self.calls == 3
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)
            return probabilities_Kzyx
    path = Path({path!r})
    _writer(path.parent, [path], {kind!r}, probabilities=True)(path, Dies())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system with SIGKILL")
@pytest.mark.parametrize("kind", ["ome-zarr"])
def test_after_kill_9_only_the_missing_frames_are_computed(tmp_path: Path, lapse: Path, kind: str) -> None:
    code = textwrap.dedent(KILLED.format(tests=str(Path(__file__).parent), path=str(lapse), kind=kind))
    home = str(Path(__file__).resolve().parents[2])
    died = subprocess.run([sys.executable, "-c", code], cwd=home, env={**os.environ, "PYTHONPATH": home}, check=False)
    assert died.returncode == -signal.SIGKILL
    folder = tmp_path / "run/predictions"
    assert [p.name for p in folder.iterdir()] == [".unfinished-in"], "nothing under a final name"
    writer, rest = _writer(tmp_path, [lapse], kind, probabilities=True), Boxes()
    writer(lapse, rest)
    assert rest.calls == 2, "frames 2 and 3; frame 2 had been cut"
    np.testing.assert_array_equal(_masks(folder, kind, "in", 4), _truth(4))
    left = [p for p in folder.rglob("*") if p.name.startswith(".") or p.suffix == ".partial"]
    assert [p.name for p in left] == [".in.ome.zarr.written.json"]
    assert len(list(folder.glob("in_t*_probabilities.ome.tif"))) == 4
    with collect_table(writer.folder).open(newline="") as file:
        voxels = [int(row["voxels"]) for row in csv.DictReader(file)]
    assert voxels == _truth(4).sum(axis=(2, 3, 4)).ravel().tolist()


@pytest.mark.parametrize(
    "other",
    [{"threshold": 0.4}, {"fingerprint": lambda path: Fingerprint({"weights": "other"})}, {"file_format": "nifti"}],
)
def test_frames_of_other_weights_or_options_are_not_reused(tmp_path: Path, lapse: Path, other: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt):
        _writer(tmp_path, [lapse])(lapse, Stops(2, KeyboardInterrupt()))
    writer, everything = _writer(tmp_path, [lapse]), Boxes()
    for name, value in other.items():
        setattr(writer, name, value)
    writer(lapse, everything)
    assert everything.calls == 4


def test_a_frame_with_missing_chunks_is_computed_again(tmp_path: Path, lapse: Path) -> None:
    writer = _writer(tmp_path, [lapse], "ome-zarr")
    with pytest.raises(KeyboardInterrupt):
        writer(lapse, Stops(3, KeyboardInterrupt()))
    chunks = tmp_path / "run/predictions/.unfinished-in/masks/0/c"
    shutil.rmtree(chunks / "1" / "0")  # as a power cut may leave it
    next(p for p in (chunks / "0").rglob("*") if p.is_file()).write_bytes(b"torn")
    rest = Boxes()
    writer(lapse, rest)
    assert rest.calls == 3
    np.testing.assert_array_equal(_masks(tmp_path / "run/predictions", "ome-zarr", "in", 4), _truth(4))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("step", ["write_out", "note"])
def test_an_interruption_while_moving_files_recomputes_nothing(
    tmp_path: Path, lapse: Path, monkeypatch: pytest.MonkeyPatch, kind: str, step: str
) -> None:
    writer = _writer(tmp_path, [lapse], kind)

    def dies(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(
            "training.prediction.write_out" if step == "write_out" else "training.mask_files.write_json", dies
        )
        with pytest.raises(KeyboardInterrupt):
            writer(lapse, Boxes())
    assert not writer.is_done(lapse)
    again = Boxes()
    writer(lapse, again)
    assert again.calls == 0
    assert writer.is_done(lapse)
    np.testing.assert_array_equal(_masks(tmp_path / "run/predictions", kind, "in", 4), _truth(4))
    assert len(writer.notes.read("in")["rows"]) == 8


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_is_reported_in_one_line_and_finished_frames_are_kept(
    tmp_path: Path, lapse: Path, kind: str
) -> None:
    writer = _writer(tmp_path, [lapse], kind)
    with pytest.raises(
        InputError, match=r"in.*no space left on.*; 2 finished frames are kept in .*unfinished"
    ) as error:
        writer(lapse, Stops(2, OSError(errno.ENOSPC, "No space left on device")))
    assert "\n" not in str(error.value)
    folder = tmp_path / "run/predictions"
    assert [p.name for p in folder.iterdir()] == [".unfinished-in"]
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="no space left on"):
        writer(lapse, Stops(0, OSError(errno.ENOSPC, "No space left on device")))
    assert list(folder.iterdir()) == []


def test_too_little_disk_space_is_reported_before_predicting(
    tmp_path: Path, lapse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(mask_files.shutil, "disk_usage", lambda path: usage(10, 10, 0))
    writer, infer = _writer(tmp_path, [lapse]), Boxes()
    with pytest.raises(InputError, match=r"in\.ome\.tif: needs at least .* free some space, or .*predict\.out"):
        writer(lapse, infer)
    assert infer.calls == 0
    assert list((tmp_path / "run/predictions").iterdir()) == []


# streamed


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every volume as large."""
    monkeypatch.setattr(prediction, "LARGE", 0)
    monkeypatch.setattr(mask_figures, "THINNED", 1000)
    monkeypatch.setattr(mask_figures, "SURFACES", 500)
    monkeypatch.setattr(mask_files, "IN_MEMORY", 0)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("kind", FORMATS)
def test_masks_of_a_zarr_input_equal_those_of_an_array(tmp_path: Path, kind: str) -> None:
    path = write_omezarr(tmp_path / "in.ome.zarr", _frames(2)[:, None], SPACING, ["RI"], (0, 60))
    writer = _writer(tmp_path, [path], kind, probabilities=True)
    writer(path, Boxes())
    assert not writer.errors
    folder = tmp_path / "run/predictions"
    np.testing.assert_array_equal(_masks(folder, kind, "in", 2), _truth(2))
    probabilities = read_volume(folder / "in_t001_probabilities.ome.zarr")
    np.testing.assert_array_equal(probabilities.frame(0, "nucleus"), _truth(2)[1, 1])
    assert probabilities.spacing_um == SPACING
    assert (tmp_path / "run/figures/predict_in_t000.png").is_file()
    assert (tmp_path / "run/figures/predict_in_t000.glb").is_file()


@pytest.mark.usefixtures("small_memory")
def test_values_that_are_no_refractive_index_are_reported_with_their_position(tmp_path: Path) -> None:
    frames = _frames(2)
    frames[1, 5, 20, 33] = np.nan
    paths = [write_omezarr(tmp_path / "nan.ome.zarr", frames[:, None], SPACING, ["RI"])]
    paths.append(write_nifti(tmp_path / "grey.nii", np.full(SHAPE, 200, np.uint8), SPACING))
    writer = _writer(tmp_path, paths)
    for path in paths:
        writer(path, Boxes())
    assert "nan.ome.zarr, frame 1: 1 of " in writer.errors[0]
    assert "z, y, x = (5, 20, 33)" in writer.errors[0]
    assert "grey.nii, frame 0: values from 200 to 200 are no refractive index" in writer.errors[1]
    assert not list(writer.folder.predictions.iterdir())
    assert not list(writer.folder.figures.iterdir())


def test_a_single_slice_and_a_volume_with_missing_data_are_predicted(tmp_path: Path) -> None:
    flat = write_ometiff(tmp_path / "flat.ome.tif", _frames(1)[:, None, 2:3], SPACING, ["RI"])
    import h5py

    holes = write_tcf(tmp_path / "holes.TCF", _frames(1)[0], SPACING, 1.337)
    with h5py.File(holes, "r+") as file:
        file["Data/3D/000000"][:, :, 20:] = 0
    writer = _writer(tmp_path, [flat, holes], "ome-zarr")
    for path in (flat, holes):
        writer(path, Boxes())
    assert not writer.errors
    folder = tmp_path / "run/predictions"
    np.testing.assert_array_equal(zarr.open_array(folder / "flat.ome.zarr/0", mode="r")[:], _truth(1)[:, :, 2:3])
    stitched = _truth(1)
    stitched[..., 20:] = False
    np.testing.assert_array_equal(zarr.open_array(folder / "holes.ome.zarr/0", mode="r")[:], stitched)


@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.integers(1, 30)] * 3), st.integers(1, 3000), st.tuples(*[st.integers(1, 9)] * 3))
def test_a_subsampled_frame_has_every_nth_voxel(shape: tuple[int, int, int], most: int, block: Any) -> None:
    frame = np.arange(np.prod(shape)).reshape(shape)
    step = thinned(shape, (0.8, 0.2, 0.25), most)
    few = gather(lambda box: frame[box], shape, step, block)
    np.testing.assert_array_equal(few, frame[tuple(slice(None, None, s) for s in step)])
    assert few.size <= most


@settings(deadline=None, max_examples=200)
@given(st.tuples(st.integers(1, 400), st.integers(1, 3000), st.integers(1, 3000)))
def test_boxes_never_share_a_chunk_unless_they_are_small(box: tuple[int, int, int]) -> None:
    _, _, *chunk = chunks_for(box)
    assert all(b % c == 0 or c % b == 0 for b, c in zip(box, chunk, strict=True))
    assert all(c <= max(b, 2 * m) for b, c, m in zip(box, chunk, (32, 256, 256), strict=True))
    if np.prod(box) >= 2**18:
        assert np.prod(chunk) >= 2**14


# predict.out


def test_runs_that_share_a_folder_predict_a_file_once(tmp_path: Path, lapse: Path) -> None:
    out, first = tmp_path / "deep" / "out", Boxes()
    _writer(tmp_path, [lapse], run="one", out=out)(lapse, first)
    second = _writer(tmp_path, [lapse], run="two", out=out)
    second(lapse, Stops(0, AssertionError()))
    assert first.calls == 4
    assert sorted(p.name for p in out.iterdir()) == ["in.json", "in.ome.tif"]
    for run in ("one", "two"):
        with collect_table(RunFolder(tmp_path / run)).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["output"] for row in rows} == {str(out / "in.ome.tif")}
        assert len(rows) == 8
        figures = sorted(p.name for p in (tmp_path / run / "figures").iterdir())
        assert figures == ["predict_in_t000.glb", *(f"predict_in_t00{t}.png" for t in range(4))]
        assert [p.name for p in (tmp_path / run / "predictions").iterdir()] == ["in.json"]
    own = Boxes()
    _writer(tmp_path, [lapse], run="two")(lapse, own)
    assert own.calls == 4, "masks elsewhere are not this folder's"


def test_another_run_reuses_finished_frames_of_the_shared_folder(tmp_path: Path, lapse: Path) -> None:
    out, rest = tmp_path / "out", Boxes()
    with pytest.raises(KeyboardInterrupt):
        _writer(tmp_path, [lapse], run="one", out=out)(lapse, Stops(2, KeyboardInterrupt()))
    _writer(tmp_path, [lapse], run="two", out=out)(lapse, rest)
    assert rest.calls == 2
    assert len(list((tmp_path / "two/figures").glob("*.png"))) == 4


def test_files_of_other_inputs_are_not_overwritten_in_a_shared_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    paths = [write_ometiff(tmp_path / d / "a.ome.tif", _frames(1)[:, None], SPACING, ["RI"]) for d in ("one", "two")]
    _writer(tmp_path, paths[:1], out=out)(paths[0], Boxes())
    masks = (out / "a.ome.tif").read_bytes()
    other = _writer(tmp_path, paths[1:], out=out)
    other(paths[1], Boxes())
    assert [str(paths[0]) in error and "choose another folder" in error for error in other.errors] == [True]
    itself = _writer(tmp_path, paths[:1], out=tmp_path / "one")
    itself(paths[0], Boxes())
    assert "is the input itself" in itself.errors[0]
    (out / "b.ome.zarr").mkdir()
    (out / "b.ome.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError) as error:
        require_free(out, {paths[1]: "a", tmp_path / "b.TCF": "b"}, "ome-zarr")
    assert [line.split(": ")[0] for line in str(error.value).splitlines()] == ["predict.out"] * 2
    assert (out / "a.ome.tif").read_bytes() == masks
    assert (out / "b.ome.zarr" / "thesis.txt").exists()
    require_free(tmp_path / "new", {paths[1]: "a"}, "ome-tiff")
    shutil.rmtree(tmp_path / "one")  # moved away: its masks may be replaced
    require_free(out, {paths[1]: "a"}, "ome-tiff")


def test_a_damaged_manifest_or_state_is_ignored(tmp_path: Path, lapse: Path) -> None:
    writer, again = _writer(tmp_path, [lapse]), Boxes()
    writer(lapse, Boxes())
    writer.notes.path("in").write_text("{")
    hidden = writer.target / ".unfinished-in"
    make_scratch(hidden)
    (hidden / "state.json").write_text(json.dumps([1]))
    writer(lapse, again)
    assert again.calls == 4
    assert writer.is_done(lapse)


def test_changed_inputs_are_detected_by_content_not_by_time(lapse: Path, tmp_path: Path) -> None:
    writer = _writer(tmp_path, [lapse])
    writer(lapse, Boxes())
    assert writer.is_done(lapse)
    stat = lapse.stat()
    os.utime(lapse, ns=(time.time_ns(), time.time_ns() + 10**9))
    assert writer.is_done(lapse)
    content = bytearray(lapse.read_bytes())
    content[-1] ^= 1
    lapse.write_bytes(content)
    os.utime(lapse, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not writer.is_done(lapse)
