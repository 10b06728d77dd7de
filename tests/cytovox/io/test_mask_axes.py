"""Directions of masks and tomograms: which array lies where, and which pairs are refused, by voxels that are known."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cytovox.io import open_labels, read_volume, write_ometiff
from cytovox.io.label_layout import Grid, place
from cytovox.io.labels import LabelError
from cytovox.io.orientation import PLAIN, MaskAxes, between, orientation_text, oriented, oriented_lengths
from cytovox.io.volume import Volume
from datamodules.label_source import label_sources

#: z, y, x, of the stored array: no two alike.
SHAPE, SPACING = (3, 4, 5), (0.5, 0.25, 0.2)
#: Order and directions of the axes: stored axis x, y, z runs along the ITK axis of that number, forwards or backwards.
Axes = tuple[tuple[int, ...], tuple[int, ...]]
PLAIN_AXES: Axes = ((0, 1, 2), (1, 1, 1))
#: What nibabel's `Nifti1Image(array, np.diag([x, y, z, 1]))` states.
NIBABEL: Axes = ((0, 1, 2), (-1, -1, 1))
ALL = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
MODES: tuple[MaskAxes, ...] = ("auto", "header", "stored")


def values() -> np.ndarray:
    """A refractive index that is another in every voxel: float32 (Z, Y, X) as stored."""
    return (1.33 + 0.001 * np.arange(np.prod(SHAPE))).reshape(SHAPE).astype(np.float32)


def labels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)


def as_itk(stored_ZYX: np.ndarray, axes: Axes) -> np.ndarray:
    """The array as ITK-SNAP shows it, worked out without nibabel."""
    order, flips = axes
    flipped = stored_ZYX.T[tuple(slice(None, None, flip) for flip in flips)]
    return flipped.transpose(np.argsort(order)).T


def itk_spacing(axes: Axes) -> tuple[float, ...]:
    by_axis = dict(zip(axes[0], SPACING[::-1], strict=True))
    return by_axis[2], by_axis[1], by_axis[0]


def nifti(path: Path, stored_ZYX: np.ndarray, axes: Axes, spacing: tuple[float, ...] = SPACING) -> Path:
    affine = np.zeros((4, 4))
    for stored, (axis, flip, step) in enumerate(zip(*axes, spacing[::-1], strict=True)):
        affine[axis, stored] = flip * step / 1000 * (1 if axis == 2 else -1)  # NIfTI counts right and anterior
    affine[3, 3] = 1
    image = nib.Nifti1Image(np.ascontiguousarray(stored_ZYX.T), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def tiff(path: Path, stored_ZYX: np.ndarray) -> Path:
    return write_ometiff(path, stored_ZYX[None, None], SPACING, ["RI" if stored_ZYX.dtype == np.float32 else "mask"])


def without_directions(path: Path, stored_ZYX: np.ndarray) -> Path:
    image = nib.Nifti1Image(np.ascontiguousarray(stored_ZYX.T), np.eye(4))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def grid_of(volume: Volume, mask_axes: MaskAxes = "auto") -> Grid:
    assert volume.source is not None
    return Grid(
        volume.source.name,
        volume.shape[0],
        volume.shape[2:],
        volume.spacing_um,
        orientation=volume.orientation,
        mask_axes=mask_axes,
    )


def lie(volume: Volume, path: Path, mask_axes: MaskAxes) -> tuple[np.ndarray, list[str]]:
    """A mask as it lies on a tomogram, and the notes."""
    grid, notes = grid_of(volume, mask_axes), list[str]()
    label_volume = grid.opened(path)
    place(label_volume, grid, False, notes)
    return label_volume.frame(), [*label_volume.notes, *notes]


@pytest.mark.parametrize("axes", ALL)
def test_a_nifti_mask_beside_a_tomogram_without_directions(tmp_path: Path, axes: Axes) -> None:
    path = nifti(tmp_path / "m.nii", labels(), axes)
    here = read_volume(tiff(tmp_path / "here.ome.tif", values()))
    assert here.orientation is None
    label_volume = open_labels(path)
    assert label_volume.orientation is not None
    np.testing.assert_array_equal(label_volume.frame(), as_itk(labels(), axes))
    if axes == PLAIN_AXES:
        for mode in MODES:
            array, notes = lie(here, path, mode)
            np.testing.assert_array_equal(array, labels())
            assert notes == []
        return
    with pytest.raises(LabelError, match=r"m\.nii: its header .* but here\.ome\.tif states no directions") as error:
        lie(here, path, "auto")
    assert error.value.kind == "mask-axes"
    assert "\n" not in str(error.value)
    assert "mask_axes=header" in str(error.value)
    assert "mask_axes=stored" in str(error.value)
    array, notes = lie(here, path, "stored")  # its spacing fits as well, in the order of the stored axes
    np.testing.assert_array_equal(array, labels())
    assert len(notes) == 1
    assert "stored array is laid voxel on voxel" in notes[0]
    # as ITK-SNAP shows it, it has the shape and the spacing that its header says
    shown = as_itk(labels(), axes)
    there = write_ometiff(tmp_path / "there.ome.tif", np.ones((1, 1, *shown.shape), "f4"), itk_spacing(axes), ["RI"])
    array, notes = lie(read_volume(there), path, "header")
    np.testing.assert_array_equal(array, shown)
    assert len(notes) == 1
    assert "against ITK-SNAP's order" in notes[0]


@pytest.mark.parametrize("axes", ALL)
@pytest.mark.parametrize("kind", ["tiff", "identity"])
def test_a_mask_without_directions_beside_a_nifti_tomogram(tmp_path: Path, kind: str, axes: Axes) -> None:
    volume = read_volume(nifti(tmp_path / "t.nii", values(), axes))
    write = tiff if kind == "tiff" else without_directions
    path = write(tmp_path / ("m.ome.tif" if kind == "tiff" else "m.nii"), labels())
    assert open_labels(path).orientation is None
    shown = as_itk(labels(), axes)
    array, _ = lie(volume, path, "stored")  # both files' stored arrays lie voxel on voxel
    np.testing.assert_array_equal(array, labels() if axes == PLAIN_AXES else shown)
    np.testing.assert_allclose(volume.frame(), as_itk(values(), axes))
    if axes == PLAIN_AXES:
        np.testing.assert_array_equal(lie(volume, path, "auto")[0], labels())
        return
    with pytest.raises(
        LabelError,
        match=rf"states no directions, but the header of t\.nii {orientation_text(volume.orientation or ())}",
    ):
        lie(volume, path, "auto")
    if axes[0] == (0, 1, 2):  # else its shape is another's
        np.testing.assert_array_equal(lie(volume, path, "header")[0], labels())
    else:
        with pytest.raises(LabelError, match="save both on one grid"):
            lie(volume, path, "header")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("of_mask", ALL[::5])
@pytest.mark.parametrize("of_tomogram", [PLAIN_AXES, NIBABEL, ((2, 0, 1), (1, -1, 1))])
def test_headers_that_both_state_directions_are_followed(
    tmp_path: Path, of_tomogram: Axes, of_mask: Axes, mode: MaskAxes
) -> None:
    """Whatever the order of each file: the same voxels of space have the same label."""
    truth = as_itk(labels(), of_tomogram)
    order, flips = of_mask
    stored = truth.T.transpose(order)[tuple(slice(None, None, flip) for flip in flips)].T
    spacing = [itk_spacing(of_tomogram)[::-1][axis] for axis in order][::-1]
    volume = read_volume(nifti(tmp_path / "t.nii", values(), of_tomogram))
    path = nifti(tmp_path / "m.nii", stored, of_mask, tuple(spacing))
    array, notes = lie(volume, path, mode)
    np.testing.assert_array_equal(array, truth)
    assert not any("voxel on voxel" in note for note in notes)


@pytest.mark.parametrize("mode", MODES)
def test_files_that_all_state_no_directions_lie_as_they_are(tmp_path: Path, mode: MaskAxes) -> None:
    volumes = [
        read_volume(tiff(tmp_path / "t.ome.tif", values())),
        read_volume(without_directions(tmp_path / "t.nii", values()), SPACING),
    ]
    for volume in volumes:
        assert volume.orientation is None
        for path in (tiff(tmp_path / "m.ome.tif", labels()), without_directions(tmp_path / "m.nii", labels())):
            array, notes = lie(volume, path, mode)
            np.testing.assert_array_equal(array, labels())
            assert notes == []


def test_a_nifti_tomogram_without_directions_is_as_one_of_tiff(tmp_path: Path) -> None:
    volume = read_volume(without_directions(tmp_path / "t.nii", values()), SPACING)
    path = nifti(tmp_path / "m.nii", labels(), NIBABEL)
    with pytest.raises(LabelError, match=r"m\.nii: its header mirrors x, y, but t\.nii states no directions"):
        lie(volume, path, "auto")
    np.testing.assert_array_equal(lie(volume, path, "stored")[0], labels())


def test_an_array_in_memory_states_no_directions() -> None:
    assert Volume.from_array(values(), "zyx", SPACING).orientation is None


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (NIBABEL, "mirrors x, y"),
        (((0, 1, 2), (1, 1, -1)), "mirrors z"),
        (((2, 1, 0), (1, 1, 1)), "swaps x and z"),
        (((1, 2, 0), (1, -1, 1)), "swaps x, y, z and mirrors z"),
    ],
)
def test_a_turn_is_reported_in_words(tmp_path: Path, axes: Axes, words: str) -> None:
    orientation = open_labels(nifti(tmp_path / "m.nii", labels(), axes)).orientation
    assert orientation is not None
    assert orientation_text(orientation) == words


def test_the_turn_between_two_brings_one_to_the_other() -> None:
    turns = [tuple((float(axis), float(flip)) for axis, flip in zip(*axes, strict=True)) for axes in ALL]
    for now, wanted in itertools.product(turns, turns):
        step = between(now, wanted)
        np.testing.assert_array_equal(oriented(oriented(labels(), now), step), oriented(labels(), wanted))
        assert oriented_lengths(oriented_lengths(SHAPE, now), step) == oriented(labels(), wanted).shape
    assert between(PLAIN, PLAIN) == PLAIN


def test_a_source_of_labels_reads_what_was_decided_and_its_key_says_so(tmp_path: Path) -> None:
    """What was scanned before is not taken for what is read in another way."""
    stored = np.zeros(SHAPE, np.uint8)
    stored[0, 0, 0], stored[1, 3, 4] = 1, 2
    path, volume = nifti(tmp_path / "m.nii", stored, NIBABEL), read_volume(tiff(tmp_path / "t.ome.tif", values()))
    expected = {"header": stored[:, ::-1, ::-1], "stored": stored}
    keys = set()
    for mode in ("header", "stored", "header"):
        notes: list[str] = []
        (source,) = label_sources({0: path}, "cells", grid_of(volume, mode), notes).values()  # type: ignore[arg-type]
        np.testing.assert_array_equal(source.objects(), expected[mode])
        np.testing.assert_array_equal(source.mask(), expected[mode] > 0)
        keys.add(source.key)
    assert len(keys) == 2
    again, other = tiff(tmp_path / "n.ome.tif", stored), read_volume(nifti(tmp_path / "t.nii", values(), NIBABEL))
    (as_stored,) = label_sources({0: again}, "cells", grid_of(other, "stored"), []).values()
    np.testing.assert_array_equal(as_stored.objects(), stored[:, ::-1, ::-1])
    label_sources({0: again}, "cells", grid_of(other, "header"), [])  # keeps what it scanned
    np.testing.assert_array_equal(as_stored.objects(), stored[:, ::-1, ::-1])
    with pytest.raises(LabelError, match="mask_axes=header"):
        label_sources({0: path}, "cells", grid_of(volume), [])


def frames_of_one_slice(path: Path, axes: Axes) -> Path:
    """A NIfTI whose frames are the slices of one volume."""
    nifti(path, labels()[:1], axes)
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    affine, stacked = image.affine, labels().transpose(2, 1, 0)[:, :, None, :]
    again = nib.Nifti1Image(np.ascontiguousarray(stacked), affine)
    again.header.set_xyzt_units("mm", "sec")
    nib.save(again, path)
    return path


def test_slices_that_are_frames_lie_as_stored_and_are_refused_where_a_header_turns_z(tmp_path: Path) -> None:
    volume = read_volume(tiff(tmp_path / "t.ome.tif", values()))
    path = frames_of_one_slice(tmp_path / "xy.nii", NIBABEL)
    for mode, expected in (("header", labels()[:, ::-1, ::-1]), ("stored", labels())):
        (source,) = label_sources({0: path}, "cells", grid_of(volume, mode), [], labels="instances").values()  # type: ignore[arg-type]
        np.testing.assert_array_equal(source.objects(), expected)
    path = frames_of_one_slice(tmp_path / "z.nii", ((0, 1, 2), (1, 1, -1)))
    with pytest.raises(LabelError, match="slices lie along the frames, and a header mirrors z"):
        lie(volume, path, "header")
    tomogram = read_volume(nifti(tmp_path / "t.nii", values(), ((0, 1, 2), (1, 1, -1))))
    stacked = write_ometiff(tmp_path / "m.ome.tif", labels()[:, None, None], SPACING, ["mask"])
    with pytest.raises(LabelError, match="slices lie along the frames, and a header mirrors z"):
        lie(tomogram, stacked, "stored")
