"""The cache of prepared volumes: named by content, complete or made again, read box by box."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.io import write_nifti, write_omezarr
from cytovox.io.provenance import ContentDigests
from datamodules.cache import PreparedCase, store
from datamodules.cases import FolderCase
from datamodules.config import FolderData
from datamodules.prepare import Preparer

SHAPE, SPACING = (8, 12, 14), (0.5, 0.25, 0.25)


def _case(folder: Path, seed: int = 0) -> FolderCase:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    write_nifti(folder / "a.nii.gz", rng.uniform(1.33, 1.40, SHAPE).astype(np.float32), SPACING)
    write_nifti(folder / "n.nii.gz", (rng.random(SHAPE) > 0.7).astype(np.uint8), SPACING)
    masks = {"nucleus": folder / "n.nii.gz"}
    return FolderCase("a", folder / "a.nii.gz", masks, None, {}, ("nucleus", "lipid"), "a", "a")


def _config(tmp_path: Path, **more: object) -> FolderData:
    options = {"cache_dir": str(tmp_path / "cache"), "resample_spacing_um": [0.5, 0.5, 0.5], **more}
    return FolderData(organelles=["nucleus", "lipid"], **options)  # type: ignore[arg-type]


def test_a_prepared_case_has_the_values_of_its_file(tmp_path: Path) -> None:
    config = _config(tmp_path, resample_spacing_um=list(SPACING))
    entry = Preparer(config).prepare([_case(tmp_path / "d")])[0]
    raw, arrays = _case(tmp_path / "d").load(), entry.arrays()
    np.testing.assert_allclose(
        np.asarray(arrays["image"])[0], np.clip((raw.ri_ZYX - 1.337) / 0.053, 0, 1), rtol=0, atol=1e-6
    )
    np.testing.assert_array_equal(np.asarray(arrays["mask"]), raw.masks_KZYX)
    assert arrays["labelled"].tolist() == [1, 0]
    assert arrays["spacing_um"].tolist() == list(SPACING)
    assert all(raw.masks_KZYX[(0, *centre)] for centre in arrays["centres_0"])
    assert len(arrays["centres_1"]) == 0


def test_the_name_of_an_entry_depends_only_on_content_and_preparation(tmp_path: Path) -> None:
    config = _config(tmp_path)
    case = _case(tmp_path / "d")
    name = Preparer(config).entry_of(case)[0].path
    os.utime(case.volume, (1e9, 1e9))
    assert Preparer(config).entry_of(case)[0].path == name, "touched"
    shutil.copytree(tmp_path / "d", tmp_path / "moved")
    moved = replace(case, volume=tmp_path / "moved/a.nii.gz", masks={"nucleus": tmp_path / "moved/n.nii.gz"})
    assert Preparer(config).entry_of(moved)[0].path == name, "moved"
    others = {
        "another tomogram": Preparer(config).entry_of(_case(tmp_path / "other", seed=1))[0].path,
        "organelles": Preparer(config).entry_of(replace(case, organelles=("nucleus",)))[0].path,
        "roles": Preparer(config).entry_of(replace(case, masks={"lipid": case.masks["nucleus"]}))[0].path,
        "frame": Preparer(config).entry_of(replace(case, frame=1))[0].path,
        "spacing that is not checked": Preparer(config).entry_of(replace(case, check_spacing=False))[0].path,
        "axes of masks": Preparer(config).entry_of(replace(case, mask_axes="stored"))[0].path,
        "grid": Preparer(_config(tmp_path, resample="grid")).entry_of(case)[0].path,
        "voxel size": Preparer(_config(tmp_path, resample_spacing_um=[1, 1, 1])).entry_of(case)[0].path,
        "range": Preparer(_config(tmp_path, ri_range=[1.33, 1.39])).entry_of(case)[0].path,
    }
    assert len({name, *others.values()}) == 1 + len(others), others


def test_a_changed_mask_is_prepared_again(tmp_path: Path) -> None:
    config, case = _config(tmp_path), _case(tmp_path / "d")
    before = Preparer(config).entry_of(case)[0].path
    write_nifti(case.masks["nucleus"], np.zeros(SHAPE, np.uint8), SPACING)
    assert Preparer(config).entry_of(case)[0].path != before


@pytest.mark.parametrize("length", [0, 7, 200, -1])
def test_a_truncated_entry_is_made_again(tmp_path: Path, length: int) -> None:
    config, case = _config(tmp_path), _case(tmp_path / "d")
    path = Preparer(config).prepare([case])[0].path
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    assert not PreparedCase(path).usable()
    Preparer(config).prepare([case])
    assert path.read_bytes() == whole


def test_a_complete_entry_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, case = _config(tmp_path), _case(tmp_path / "d")
    first = Preparer(config).prepare([case])
    monkeypatch.setattr(FolderCase, "load", lambda self: pytest.fail("read again"))
    reported: list[tuple[int, int]] = []
    assert Preparer(config).prepare([case], lambda done, n: reported.append((done, n))) == first
    assert reported == [(1, 1)]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_lazily_read_box_equals_that_of_the_whole_array(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "lazy.safetensors"
    whole = np.arange(2 * 5 * 6 * 7, dtype=np.float32).reshape(2, 5, 6, 7)
    if not path.is_file():
        store(path, {"image": whole, "mask": whole.astype(np.uint8), "labelled": np.ones(2, np.uint8)})
    lazy = PreparedCase(path).arrays()["image"]
    box: list[slice] = []
    for n in whole.shape[1:]:
        start = data.draw(st.integers(0, n - 1))
        box.append(slice(start, data.draw(st.integers(start + 1, n))))
    np.testing.assert_array_equal(lazy[:, *box], whole[:, *box])
    np.testing.assert_array_equal(np.asarray(lazy), whole)
    assert (lazy.shape, lazy.ndim, len(lazy)) == (whole.shape, 4, 2)


#: One process of two; a fork of this one could inherit a lock that another thread holds.
PREPARE = """
import sys
from pathlib import Path
from datamodules.cases import FolderCase
from datamodules.config import FolderData
from datamodules.prepare import Preparer
folder = Path(sys.argv[1])
masks = {"nucleus": folder / "n.nii.gz"}
case = FolderCase("a", folder / "a.nii.gz", masks, None, {}, ("nucleus", "lipid"), "a", "a")
config = FolderData(organelles=["nucleus", "lipid"], cache_dir=str(folder.parent / "cache"))
print(Preparer(config).prepare([case])[0].path)
"""


@pytest.mark.slow
def test_two_processes_can_prepare_one_case_at_the_same_time(tmp_path: Path) -> None:
    _case(tmp_path / "d")
    home = str(Path(__file__).resolve().parents[2])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(tmp_path / "d")],
            env={**os.environ, "PYTHONPATH": home}, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    paths = [process.communicate(timeout=1800)[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(set(paths)) == 1
    assert PreparedCase(Path(paths[0])).usable()
    assert [p.name for p in Path(paths[0]).parent.iterdir()] == [Path(paths[0]).name]


def test_a_zarr_folder_has_one_digest_that_depends_on_every_chunk(tmp_path: Path) -> None:
    array = np.random.default_rng(0).uniform(1.33, 1.4, (1, 1, *SHAPE)).astype(np.float32)
    path = tmp_path / "a.ome.zarr"
    write_omezarr(path, array, SPACING, ["RI"])
    digests = ContentDigests(tmp_path / "cache")
    before = digests.of(path)
    assert sum(p.is_file() for p in (tmp_path / "cache").rglob("*")) == 1
    shutil.copytree(path, tmp_path / "b.ome.zarr")
    assert digests.of(tmp_path / "b.ome.zarr") == before
    chunk = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    assert digests.of(path) != before
