"""Describe one file format of volumes: its name, its suffixes and the functions that open it."""

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
    """A format whose file is a folder that can hold several images, each of which can be opened by its own path."""

    find_root: Callable[[Path], tuple[Path, str]]
    """Split a path into the folder of the format and the path inside it, which is empty for any other path."""
    is_node: Callable[[Path], bool]
    """Return whether a path inside the folder is something that can be opened."""


@dataclass(frozen=True)
class Format:
    """A file format.

    A module of `cytovox.io` that reads a format defines one, and `cytovox.io.formats.BUILT_IN` lists it. An installed
    package adds one by an entry point of the group `cytovox.formats`.
    """

    name: str
    """Short name, such as "tcf"."""
    suffixes: tuple[str, ...]
    """Ends of file names in lower case, with the dot; all of a suffix is removed from a name to get its stem."""
    open_volume: OpenVolume
    """Open a volume without reading its voxels."""
    open_labels: OpenLabels | None = None
    """Open masks or label images; None for a format that holds none."""
    shown: tuple[str, ...] = ()
    """The suffixes that messages name; all of them where this is empty."""
    container: Container | None = None
    """For a format that is a folder; None for one that is a file."""

    def __post_init__(self) -> None:
        wrong = [suffix for suffix in self.suffixes if not suffix.startswith(".") or suffix != suffix.lower()]
        if wrong or not self.suffixes:
            raise ValueError(f"format {self.name!r}: expected suffixes in lower case with a dot, got {self.suffixes}")
