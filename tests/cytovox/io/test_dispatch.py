"""One call reads any kind of file."""

from pathlib import Path

import numpy as np
import pytest

import cytovox.io
from cytovox.io import InputError, read_mask, read_volume, write_nifti, write_ometiff, write_omezarr, write_tcf

SPACING = (0.9, 0.2, 0.1)


@pytest.fixture
def ri() -> np.ndarray:
    return np.random.default_rng(0).uniform(1.33, 1.42, (3, 4, 5)).astype(np.float32)


def write(path: Path, ri_ZYX: np.ndarray) -> Path:
    if path.suffix.lower() == ".tcf":
        return write_tcf(path, ri_ZYX, SPACING, 1.337, encoding="float")
    if ".nii" in path.name.lower():
        return write_nifti(path, ri_ZYX, SPACING)
    if path.suffix == ".zarr":
        return write_omezarr(path, ri_ZYX[None, None], SPACING, ("RI",))
    return write_ometiff(path, ri_ZYX[None, None], SPACING, ("RI",))


NAMES = ["a.tcf", "a.TCF", "a.ome.tif", "a.OME.TIFF", "a.tif", "a.nii", "a.nii.gz", "a.NII.GZ", "a.zarr", "a.ome.zarr"]


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_file_gives_the_same_volume(tmp_path: Path, ri: np.ndarray, name: str) -> None:
    path = write(tmp_path / name, ri)
    volume = read_volume(str(path))
    np.testing.assert_array_equal(volume.frame(), ri)
    assert volume.spacing_um == SPACING
    assert volume.source == path
    assert read_volume(path, SPACING).spacing_um == SPACING
    with pytest.raises(InputError, match="the one given"):
        read_volume(path, (1, 1, 1))


@pytest.mark.parametrize("name", NAMES[2:])
def test_every_kind_of_file_gives_the_same_mask(tmp_path: Path, ri: np.ndarray, name: str) -> None:
    mask = read_mask(write(tmp_path / name, ri > 1.36))
    np.testing.assert_array_equal(mask.labels_ZYX, ri > 1.36)
    assert mask.spacing_um == SPACING


@pytest.mark.parametrize("name", [*NAMES, "a.xyz"])
def test_what_is_missing_or_unknown_is_named(tmp_path: Path, name: str) -> None:
    for read in (read_volume, read_mask):
        with pytest.raises(InputError, match=name) as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)


def test_what_is_public_is_there() -> None:
    assert all(hasattr(cytovox.io, name) for name in cytovox.io.__all__)
