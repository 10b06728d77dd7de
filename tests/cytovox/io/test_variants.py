"""A table of files as users really have them: known shape, voxel size, index and volume, or the right refusal."""

import re
from pathlib import Path

import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.io import open_labels, read_volume
from tests.cytovox.io import variants
from tests.cytovox.io.variants import BOX, DROP_RI, DROP_UM3, MEDIUM_RI, SHAPE, VARIANTS, Variant


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_variant_is_read_with_its_numbers_or_refused_with_its_reason(tmp_path: Path, variant: Variant) -> None:
    made = variant.make(tmp_path / variant.name)
    path = made if isinstance(made, Path) else tmp_path / variant.name
    if variant.refused:
        with pytest.raises(InputError, match=variant.refused) as error:
            read_volume(path, **variant.read).frame()
        assert "\n" not in str(error.value)
        assert path.name.split("_1.ome")[0][:8] in str(error.value)
        return
    volume = read_volume(path, **variant.read)
    assert volume.shape == variant.shape
    assert volume.spacing_um == pytest.approx(variant.spacing, rel=1e-5)
    if variant.note:
        assert any(re.search(variant.note, note) for note in volume.notes), volume.notes
    else:
        assert volume.notes == ()
    frame = volume.frame()
    assert frame.dtype == np.float32
    reader = volume.reader()
    np.testing.assert_allclose(reader.read(tuple(slice(0, n) for n in reader.shape)), frame, rtol=1e-6)
    if volume.shape[2:] != SHAPE:
        return
    assert frame[0, 0, 0] == pytest.approx(MEDIUM_RI, rel=variant.rtol)
    np.testing.assert_allclose(frame[BOX], DROP_RI, rtol=variant.rtol)
    found_um3 = np.count_nonzero(frame > 1.4) * np.prod(volume.spacing_um)
    assert found_um3 == pytest.approx(DROP_UM3, rel=1e-4)


@pytest.mark.parametrize(
    "variant", [v for v in VARIANTS if not v.refused and "spacing_um" not in v.read], ids=lambda variant: variant.name
)
def test_labels_are_read_from_the_same_files_with_the_same_grid(tmp_path: Path, variant: Variant) -> None:
    made = variant.make(tmp_path / variant.name)
    path = made if isinstance(made, Path) else tmp_path / variant.name
    label_volume = open_labels(path, variant.read.get("series"))
    if label_volume.shape[2] > 1:  # slices that are stored as channels are recognised by the tomogram
        assert label_volume.shape == variant.shape
    assert label_volume.spacing_um == pytest.approx(variant.spacing, rel=1e-5)


def test_a_mask_of_one_image_serves_whatever_series_the_tomogram_has(tmp_path: Path) -> None:
    for make, name in ((variants.ome(), "m.ome.tif"), (variants.nifti(), "m.nii"), (variants.ngff(), "m.zarr")):
        make(tmp_path / name)
        assert open_labels(tmp_path / name, 2).shape == (1, 1, *SHAPE)
        with pytest.raises(InputError, match="series: 2"):
            read_volume(tmp_path / name, series=2)
    variants._two_images(tmp_path / "two.ome.tif")
    with pytest.raises(InputError, match="series: 2"):
        open_labels(tmp_path / "two.ome.tif", 2)
    with pytest.raises(InputError, match="holds 2 images"):
        open_labels(tmp_path / "two.ome.tif")
