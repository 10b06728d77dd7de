"""Bytes gone wrong anywhere in a file: a reader reads on, or says in one line that the file is damaged."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from cytovox.errors import InputError
from cytovox.io import Volume, read_volume, write_nifti, write_ometiff, write_tcf

SPACING = (0.5, 0.2, 0.2)
RI_TZYX = (1.337 + 0.02 * np.random.default_rng(0).random((2, 6, 8, 8))).astype(np.float32)


def _tcf(path: Path, encoding: str) -> None:
    light = np.arange(2 * 4 * 6 * 6, dtype=np.uint16).reshape(2, 1, 4, 6, 6)
    light_volume = Volume.from_array(light, "tczyx", (1.0, 0.3, 0.3), ["CH0"], times_s=[0, 5])
    write_tcf(path, RI_TZYX, SPACING, 1.337, [0, 5], light_volume, encoding)  # type: ignore[arg-type]


WRITERS: dict[str, Callable[[Path], object]] = {
    "plain.TCF": lambda path: _tcf(path, "uint16"),
    "tiled.TCF": lambda path: _tcf(path, "tiled8"),
    "a.ome.tif": lambda path: write_ometiff(path, RI_TZYX[:, None], SPACING, ["RI"], [0, 5], (0, 0, 0)),
    "a.nii": lambda path: write_nifti(path, RI_TZYX[0], SPACING),
    "a.nii.gz": lambda path: write_nifti(path, RI_TZYX[0], SPACING),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path, rng = tmp_path / name, np.random.default_rng(1)
    WRITERS[name](path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    reported: list[str] = []
    for _ in range(60):
        damaged = whole.copy()
        for at in rng.integers(0, len(whole) - 8, 3):
            damaged[at : at + 8] = rng.integers(0, 256, 8)
        path.write_bytes(damaged.tobytes())
        try:
            volume = read_volume(path)
            if np.prod(volume.shape, dtype=float) < 1e5:  # not where the damage made it huge
                volume.frame()
        except InputError as error:
            reported.append(str(error))
    assert reported
    assert all(name in line and "\n" not in line for line in reported)


def test_ome_xml_that_is_no_xml_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    write_ometiff(path, RI_TZYX[:, None], SPACING, ["RI"], [0, 5])
    path.write_bytes(path.read_bytes().replace(b"<Pixels", b"<\x01ixels"))
    with contextlib.suppress(KeyError), tifffile.TiffFile(path) as tiff:
        assert "<\x01ixels" in (tiff.ome_metadata or "")
    with pytest.raises(InputError, match="not a TIFF file that can be read"):
        read_volume(path)


def test_names_that_are_no_text_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.TCF"
    _tcf(path, "uint16")
    with h5py.File(path, "a") as file:
        file["Data/3D"].create_group(b"00000\xff")
    np.testing.assert_allclose(read_volume(path).frame(1), RI_TZYX[1], atol=6e-5)


def test_an_affine_that_maps_two_axes_onto_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    write_nifti(path, RI_TZYX[0], SPACING)
    header = bytearray(path.read_bytes())
    header[280:296] = header[296:312]  # the first row of the sform is the second
    path.write_bytes(bytes(header))
    with pytest.raises(InputError, match=r"no grid|rotated"):
        read_volume(path)
