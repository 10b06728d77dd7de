"""Description of a file format: its name, its suffixes, and the functions that open and write its files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cytovox.io.label_volume import LabelVolume
from cytovox.io.series import Series
from cytovox.io.spacing import SpacingFrom
from cytovox.io.volume import Volume

#: path, spacing_um, spacing_from, series: see `cytovox.io.read_volume`.
OpenVolume = Callable[[Path, Sequence[float] | None, SpacingFrom, Series], Volume]
#: path, series: see `cytovox.io.open_labels`.
OpenLabels = Callable[[Path, Series], LabelVolume]


@dataclass(frozen=True)
class Container:
    """Functions of a format whose files are folders of images, each of which can be opened by its own path."""

    find_root: Callable[[Path], tuple[Path, str]]
    """Function that splits a path into the folder of the format and the path inside it, which is empty for any other
    path."""
    is_node: Callable[[Path], bool]
    """Function that returns whether a path inside the folder can be opened."""


@dataclass(frozen=True)
class ImageWriter:
    """Writer of images: masks, labels or intensities."""

    name: str
    """Value of `predict.format`, such as "ome-tiff"."""
    suffixes: tuple[str, ...]
    """Suffixes of the files that it writes, in lower case; commands use the first one."""
    write: Callable[..., Path]
    """Function `write(path, slabs, shape, dtype, spacing_um, channels, times_s, origin_um)` that writes a file and
    returns its path. `slabs` is an iterable of arrays (z, Y, X) in the order of t, c, z, which is never held in memory
    as a whole; `shape` is (T, C, Z, Y, X)."""
    single: bool = False
    """Whether a file holds one channel of one frame only."""
    longest_axis: int | None = None
    """Largest number of voxels along an axis that the format can store; None without a limit."""


@dataclass(frozen=True)
class Format:
    """A file format.

    Built-in formats are listed in `cytovox.io.formats.BUILT_IN`. An installed package adds a format by an entry point
    of the group `cytovox.formats`.
    """

    name: str
    """Short name, such as "tcf"."""
    suffixes: tuple[str, ...]
    """Suffixes of file names in lower case, with the dot; the stem of a file name is the name without its suffix."""
    open_volume: OpenVolume
    """Function that opens a volume without reading its voxels."""
    open_labels: OpenLabels | None = None
    """Function that opens masks or label images; None if the format cannot store them."""
    shown: tuple[str, ...] = ()
    """Suffixes named in messages; all suffixes if empty."""
    container: Container | None = None
    """Functions of a format whose files are folders; None for ordinary files."""
    writer: ImageWriter | None = None
    """Writer of masks and label images; None if Cytovox cannot write them in this format."""

    def __post_init__(self) -> None:
        wrong = [suffix for suffix in self.suffixes if not suffix.startswith(".") or suffix != suffix.lower()]
        if wrong or not self.suffixes:
            raise ValueError(f"format {self.name!r}: expected suffixes in lower case with a dot, got {self.suffixes}")
