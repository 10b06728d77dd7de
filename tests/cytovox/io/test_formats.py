"""A file format that another package adds is read wherever the built-in ones are."""

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from cytovox.io import InputError, LabelVolume, Volume, kind_of, open_labels, read_mask, read_volume
from cytovox.io import formats as registry
from cytovox.io.file_format import Format, ImageWriter
from datamodules.file_patterns import files_for, images_of
from datamodules.paths import expand, stem_of

SPACING = (0.5, 0.25, 0.25)


def _volume(path: Path, spacing_um: object, spacing_from: object, series: object) -> Volume:
    with np.load(path) as file:
        return Volume.from_array(file["ri"], "zyx", SPACING)


def _labels(path: Path, series: object) -> LabelVolume:
    with np.load(path) as file:
        labels = file["labels"]
    return LabelVolume(path, (1, 1, *labels.shape), SPACING, None, lambda t, c: labels)


NUMPY = Format("numpy", (".cell.npz", ".npz"), _volume, _labels, shown=(".npz",))
NO_MASKS = Format("plain", (".npz",), _volume)
NO_FORMAT = "a string"
TAKES_TIFF = Format("other", (".tif",), _volume)
WRITES_NIFTI = Format("other", (".npz",), _volume, writer=ImageWriter("nifti", (".npz",), lambda path, *image: path))


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Let an installed package offer an object of this module as a format."""

    def offer(attribute: str, module: str = __name__) -> None:
        entry = EntryPoint("added", f"{module}:{attribute}", registry.GROUP)
        monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == registry.GROUP else [])
        registry.formats.cache_clear()

    yield offer
    monkeypatch.undo()
    registry.formats.cache_clear()


@pytest.fixture
def ri() -> np.ndarray:
    return np.random.default_rng(0).uniform(1.34, 1.40, (4, 6, 5)).astype(np.float32)


def test_an_added_format_is_read_and_found_by_globs_and_patterns(tmp_path, offer, ri):
    offer("NUMPY")
    path, mask = tmp_path / "a.cell.npz", tmp_path / "a_nucleus.NPZ"
    np.savez(path, ri=ri)
    with mask.open("wb") as file:
        np.savez(file, labels=(ri > 1.38).astype(np.uint8))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.frame(), ri)
    assert (volume.spacing_um, kind_of(path)) == (SPACING, "numpy")
    np.testing.assert_array_equal(read_mask(mask).labels_ZYX, ri > 1.38)
    assert stem_of(path) == "a"
    assert expand("*.npz", tmp_path, "data.volumes") == [path]
    assert expand(str(tmp_path), tmp_path, "data.volumes") == [path, mask]
    assert files_for(f"{tmp_path}/{{stem}}_{{organelle}}*", images_of([path])[0], "nucleus") == {None: [mask]}
    with pytest.raises(InputError, match=r"\.zarr or \.npz$"):
        read_volume(_touch(tmp_path / "a.xyz"))


def test_a_format_without_masks_says_which_formats_hold_them(tmp_path, offer):
    offer("NO_MASKS")
    with pytest.raises(InputError, match=r"a PLAIN file holds no masks: expected \.ome\.tif.*or \.zarr$"):
        open_labels(_touch(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("attribute", "module", "message"),
    [
        ("NO_FORMAT", __name__, "expected a cytovox.io.file_format.Format, got str"),
        ("TAKES_TIFF", __name__, r"the suffix \.tif belongs to the format 'tiff'"),
        ("WRITES_NIFTI", __name__, "the output format 'nifti' belongs to the format 'nifti'"),
        ("NUMPY", "no_such_module", "cannot be imported"),
    ],
)
def test_what_is_no_format_is_refused_with_its_origin(offer, attribute, module, message):
    offer(attribute, module)
    with pytest.raises(InputError, match=f"format 'added' .*{message}.*uninstall"):
        registry.formats()


@pytest.mark.parametrize("suffixes", [(), ("npz",), (".NPZ",)])
def test_suffixes_that_match_no_name_are_refused(suffixes):
    with pytest.raises(ValueError, match="suffixes in lower case with a dot"):
        Format("numpy", suffixes, _volume)


def _touch(path: Path) -> Path:
    path.touch()
    return path
