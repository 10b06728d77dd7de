"""NIfTI in ITK's convention, checked with files that nibabel writes without our help."""

import gzip
import itertools
import os
import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.io import read_mask
from cytovox.io.nifti import open_nifti_labels, read_nifti, write_nifti

SPACING = (0.9, 0.2, 0.1)
SHAPE = (3, 4, 5)


def labels(dtype: type = np.uint8) -> np.ndarray:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def in_ras(origin_zyx: tuple[float, float, float], index_zyx: tuple[int, int, int]) -> np.ndarray:
    """Where ITK puts a voxel of the tomogram, in NIfTI's coordinates (right, anterior, superior) in mm."""
    z, y, x = (o + i * s for o, i, s in zip(origin_zyx, index_zyx, SPACING, strict=True))
    return np.array([-x, -y, z]) / 1000


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.int32, np.float32])
def test_a_mask_reads_back_as_it_was_written(tmp_path: Path, suffix: str, dtype: type) -> None:
    path = write_nifti(tmp_path / f"m{suffix}", labels(dtype), SPACING, origin_um=(1, -2, 3))
    mask = read_mask(path)
    np.testing.assert_array_equal(mask.labels_ZYX, labels(dtype))
    assert mask.labels_ZYX.dtype.kind in "iu"
    assert mask.spacing_um == SPACING
    assert mask.origin_um == (1.0, -2.0, 3.0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_an_independent_reader_finds_each_voxel_where_itk_puts_it(tmp_path: Path) -> None:
    image = nib.load(write_nifti(tmp_path / "m.nii.gz", labels(), SPACING, origin_um=(1, -2, 3)))
    assert image.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(image.header.get_zooms(), np.array(SPACING[::-1]) / 1000, rtol=1e-6)
    for index in np.ndindex(*SHAPE):
        value = labels()[index]
        at = np.argwhere(np.asarray(image.dataobj) == value)[0]
        np.testing.assert_allclose(nib.affines.apply_affine(image.affine, at), in_ras((1, -2, 3), index), atol=1e-9)


ORDERS = list(itertools.permutations(range(3)))
FLIPS = list(itertools.product((1, -1), repeat=3))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("flips", FLIPS)
def test_any_flip_and_order_of_axes_is_undone(tmp_path: Path, order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    """Stored axis i runs along physical axis order[i], forwards or backwards; the affine says so."""
    origin = (1.0, -2.0, 3.0)
    array_XYZ = labels().T
    stored = array_XYZ.transpose(order)[tuple(slice(None, None, f) for f in flips)]
    corner, columns = [0, 0, 0], []
    for axis, flip in zip(order, flips, strict=True):
        step = [0, 0, 0]
        step[axis] = flip
        columns.append(step)
        corner[axis] = 0 if flip > 0 else array_XYZ.shape[axis] - 1
    affine = np.eye(4)
    affine[:3, 3] = in_ras(origin, tuple(corner[::-1]))
    for i, step in enumerate(columns):
        affine[:3, i] = in_ras((0, 0, 0), tuple(step[::-1]))
    nib.save(nib.Nifti1Image(np.ascontiguousarray(stored), affine), tmp_path / "m.nii.gz")
    mask = read_mask(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(mask.labels_ZYX, labels())
    assert mask.spacing_um == SPACING
    assert mask.origin_um == pytest.approx(origin, abs=1e-4)
    np.testing.assert_array_equal(read_nifti(tmp_path / "m.nii.gz").frame(), labels())


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1e-3), ("micron", 1.0), ("meter", 1e-6), ("unknown", 1e-3)])
def test_every_unit_becomes_micrometres(tmp_path: Path, unit: str, factor: float) -> None:
    image = nib.Nifti1Image(labels().T, np.diag([-0.1 * factor, -0.2 * factor, 0.9 * factor, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "m.nii")
    assert read_mask(tmp_path / "m.nii").spacing_um == SPACING


def test_a_file_without_an_affine_lies_as_it_is_stored(tmp_path: Path) -> None:
    image = nib.Nifti1Image(labels().T, None)
    image.header.set_zooms((1e-4, 2e-4, 9e-4))
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(image, tmp_path / "m.nii")
    mask = read_mask(tmp_path / "m.nii")
    np.testing.assert_array_equal(mask.labels_ZYX, labels())
    assert mask.spacing_um == SPACING


def test_only_the_qform_may_be_stored(tmp_path: Path) -> None:
    image = nib.Nifti1Image(labels().T, None)
    image.set_qform(np.diag([-1e-4, -2e-4, 9e-4, 1]), code="scanner")
    image.set_sform(None, code=0)
    nib.save(image, tmp_path / "m.nii")
    mask = read_mask(tmp_path / "m.nii")
    np.testing.assert_array_equal(mask.labels_ZYX, labels())
    assert mask.spacing_um == SPACING


def test_whole_numbers_stored_as_floats_or_scaled_are_labels(tmp_path: Path) -> None:
    affine = np.diag([-1e-4, -2e-4, 9e-4, 1])
    image = nib.Nifti1Image(labels(np.float64).T, affine)
    nib.save(image, tmp_path / "f.nii")
    mask = read_mask(tmp_path / "f.nii")
    assert mask.labels_ZYX.dtype == np.uint8
    np.testing.assert_array_equal(mask.labels_ZYX, labels())
    nib.save(nib.Nifti1Image(labels(np.float32).T / 7, affine), tmp_path / "p.nii")
    with pytest.raises(InputError, match=r"p\.nii: .* no whole number"):
        read_mask(tmp_path / "p.nii")


def test_further_axes_of_length_one_are_dropped_and_longer_ones_refused(tmp_path: Path) -> None:
    affine = np.diag([-1e-4, -2e-4, 9e-4, 1])
    nib.save(nib.Nifti1Image(labels().T[..., None], affine), tmp_path / "one.nii")
    np.testing.assert_array_equal(read_mask(tmp_path / "one.nii").labels_ZYX, labels())
    nib.save(nib.Nifti1Image(np.stack([labels().T] * 2, axis=-1), affine), tmp_path / "two.nii")
    with pytest.raises(InputError, match=r"two\.nii: 2 frames and 1 channels"):
        read_mask(tmp_path / "two.nii")


def test_a_fourth_axis_is_time_and_a_volume_can_be_pickled(tmp_path: Path) -> None:
    ri = np.random.default_rng(0).uniform(1.33, 1.4, (2, *SHAPE)).astype(np.float32)
    image = nib.Nifti1Image(ri.transpose(3, 2, 1, 0), np.diag([-1e-4, -2e-4, 9e-4, 1]))
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((1e-4, 2e-4, 9e-4, 30.0))
    nib.save(image, tmp_path / "v.nii.gz")
    volume = pickle.loads(pickle.dumps(read_nifti(tmp_path / "v.nii.gz")))
    assert volume.shape == (2, 1, *SHAPE)
    assert volume.times_s == (0.0, 30.0)
    np.testing.assert_array_equal(volume.frame(1), ri[1])


def test_a_rotated_grid_is_refused(tmp_path: Path) -> None:
    turned = np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(labels().T, turned), tmp_path / "m.nii")
    with pytest.raises(InputError, match="rotated"):
        read_mask(tmp_path / "m.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.97])
def test_a_truncated_file_is_one_line(tmp_path: Path, suffix: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 40)).astype(np.uint8)
    path = write_nifti(tmp_path / f"m{suffix}", noise, SPACING)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(InputError, match=r"m\.nii") as error:
        read_mask(path)
    assert "\n" not in str(error.value)


def test_missing_foreign_and_coloured_files_are_distinguished(tmp_path: Path) -> None:
    (tmp_path / "text.nii").write_text("words " * 200)
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"words " * 200))
    colour = np.zeros((2, 3, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "colour.nii")
    for name, said in (
        ("none.nii", "no such file"),
        ("", "is a folder"),
        ("text.nii", "not a NIfTI"),
        ("text.nii.gz", "not a NIfTI"),
        ("colour.nii", "plain numbers"),
    ):
        with pytest.raises(InputError, match=said):
            open_nifti_labels(tmp_path / name)


def test_the_same_mask_gives_the_same_bytes_and_no_file_stays_open(tmp_path: Path) -> None:
    first, second = (write_nifti(tmp_path / n, labels(), SPACING) for n in ("a.nii.gz", "b.nii.gz"))
    assert first.read_bytes() == second.read_bytes()
    volume = read_nifti(first)
    volume.frame()
    if os.path.isdir("/proc/self/fd"):
        held = {
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")
        }
        assert str(first) not in held


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_slabs_that_come_one_by_one_make_the_same_file(tmp_path: Path, name: str) -> None:
    data = np.random.default_rng(0).integers(0, 2, (7, 5, 6)).astype(np.uint8)
    whole = write_nifti(tmp_path / f"whole_{name}", data, (0.9, 0.2, 0.1), (1, 2, 3))
    slabs = (data[z : z + 3] for z in range(0, 7, 3))
    slow = write_nifti(tmp_path / f"slow_{name}", slabs, (0.9, 0.2, 0.1), (1, 2, 3), shape=data.shape, dtype=np.uint8)
    assert slow.read_bytes() == whole.read_bytes()
    np.testing.assert_array_equal(np.asarray(nib.load(slow).dataobj).T, data)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="6 slices: expected 7"):
        write_nifti(tmp_path / "b.nii", iter([data[:6]]), (1, 1, 1), shape=data.shape, dtype=np.uint8)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([f"slow_{name}", f"whole_{name}"])


def test_an_axis_too_long_for_the_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 32767 along an axis; choose another format"):
        write_nifti(tmp_path / "a.nii", np.zeros((1, 1, 40000), np.uint8), (1, 1, 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("unit", "turned"), [("mm", False), ("unknown", False), ("micron", True)])
def test_the_identity_tells_no_directions_unless_it_is_a_size(tmp_path: Path, unit: str, turned: bool) -> None:
    labels = np.zeros((4, 5, 6), np.int16)
    labels[1, 1, 2] = 7
    image = nib.Nifti1Image(labels.T, np.eye(4))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    label_volume = open_nifti_labels(tmp_path / "a.nii")
    np.testing.assert_array_equal(label_volume.frame(), labels[:, ::-1, ::-1] if turned else labels)
    assert bool(label_volume.notes) == turned
