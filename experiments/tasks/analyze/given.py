"""Existing masks and labels: assignment of files to inputs, and reading of their frames."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io import Volume
from cytovox.io.formats import is_volume
from cytovox.io.label_layout import channels_of, meaning, place, unnamed
from cytovox.io.orientation import MaskAxes
from cytovox.io.series import Series
from cytovox.organelles import CELLS
from datamodules.corrections import Correction, Corrections
from datamodules.errors import OnError
from datamodules.file_patterns import Image, check_placeholders, composed, files_for, images_of
from datamodules.label_source import Grid, LabelSource, class_source, label_sources, values_of
from datamodules.paths import expand, stem_of
from experiments.errors import ConfigErrors
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.sources import Source

#: Files of an input by organelle ("" if one file contains all) and frame (None: one file of all frames).
Files = dict[str, dict[int | None, Path]]

#: Words that may follow an input's name in the names of its masks, besides organelle and frame.
_WORDS = (
    *("mask", "masks", "label", "labels", "seg", "segmentation", "segmented", "instances", "binary"),
    *("organelles", "cp", "corrected", "predicted"),
)


@dataclass
class GivenFiles:
    """The files of `organelles=` or `cells=`, for every input."""

    key: str
    of: dict[Path, Files]
    """Files by the path of the input."""
    errors: dict[Path, list[str]] = field(default_factory=dict)
    """Errors by the path of the input: ambiguous or missing files."""

    def files(self, path: Path) -> Files:
        """Return the files of an input; raise an InputError if they are ambiguous."""
        if path in self.errors:
            raise InputError("; ".join(dict.fromkeys(self.errors[path])))
        return self.of[path]


def find_given(
    patterns: str | Sequence[str] | None, sources: Sequence[Source], names: Sequence[str], key: str
) -> GivenFiles:
    """Return the files of masks of each input.

    Parameters
    ----------
    patterns : str, sequence of str or None
        Patterns with placeholders (`datamodules.file_patterns`), or files, globs and folders of masks whose names
        begin with that of the input, such as `w1_nucleus.tif`, `w1_t003_cells.tif`.
    sources : sequence of Source
        All inputs. A file that matches two inputs is an error of both.
    names : sequence of str
        Values of {organelle}; only "cells" for labels of cells.
    key : str
        Config key, for messages.

    Raises
    ------
    InputError
        An unknown placeholder, or a missing file of a list.
    """
    given = GivenFiles(key, {source.path: {} for source in sources})
    if patterns is None:
        return given
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    images = dict(zip([source.path for source in sources], images_of([s.path for s in sources]), strict=True))
    for one in listed:
        check_placeholders(one, key)
    several = not isinstance(patterns, str) or len(sources) > 1
    pool = [one for one in listed if "{" not in one and (several or (Path(one).is_dir() and not is_volume(Path(one))))]
    for pattern in (one for one in listed if one not in pool):
        for source in sources:
            _add_pattern(given, pattern, images[source.path], names)
    if pool and isinstance(patterns, str) and Path(patterns).is_file():
        given.errors = {
            source.path: [f"{key}: {patterns}: one file for {len(sources)} inputs; write {{stem}} where the input's "
                          "name stands"]
            for source in sources
        }  # fmt: skip
    elif pool:
        _add_listed(given, expand(pool, Path(), key), list(images.values()), names)
    _refuse_shared(given)
    return given


def _add_pattern(given: GivenFiles, pattern: str, image: Image, names: Sequence[str]) -> None:
    for name in names if "{organelle}" in pattern or list(names) == [CELLS] else [""]:
        for t, paths in files_for(pattern, image, name).items():
            _add(given, image.path, name, t, paths)


def _add(given: GivenFiles, image: Path, name: str, t: int | None, paths: Sequence[Path]) -> None:
    """Add the file of an organelle and frame; several files are an error."""
    frames = given.of[image].setdefault(name, {})
    paths = list({os.path.abspath(path): path for path in (*([frames[t]] if t in frames else []), *paths)}.values())
    if len(paths) > 1:
        what = " ".join(word for word in (name, "" if t is None else f"of frame {t}") if word)
        given.errors.setdefault(image, []).append(
            f"{given.key}: {image}: {' and '.join(str(path) for path in paths)} could both be its {what or 'masks'}; "
            "name one"
        )
    frames[t] = paths[0]


def _add_listed(given: GivenFiles, files: Sequence[Path], images: Sequence[Image], names: Sequence[str]) -> None:
    """Assign files to inputs by their names: the input's name, then words for organelle and frame."""
    if len(images) == 1 and len(files) == 1:
        _add(given, images[0].path, CELLS if list(names) == [CELLS] else _only_name(files[0], names), None, files)
        return
    strange = []
    for file in files:
        readings = [(image, read) for image in images if (read := _reading(file, image, names)) is not None]
        longest = max((len(image.stem) for image, _ in readings), default=0)
        readings = [(image, read) for image, read in readings if len(image.stem) == longest]
        if len(readings) > 1:
            near = [(image, read) for image, read in readings if _beside(file, image)]
            readings = near if len(near) == 1 else readings
        for image, (name, t) in readings:
            _add(given, image.path, name, t, [file])  # shared files are refused later
        if not readings:
            strange.append(file)
    if strange:
        some = ", ".join(str(path) for path in strange[:3]) + (", ..." if len(strange) > 3 else "")
        for image in images:
            if not given.of[image.path]:
                given.errors.setdefault(image.path, []).append(
                    f"{given.key}: {image.path}: no file has a name that starts with {image.stem}_; not assigned: "
                    f"{some}; rename them, or use a pattern with {{stem}}"
                )


def _only_name(file: Path, names: Sequence[str]) -> str:
    """Return the organelle in the name of the only file of the only input; "" if the file may contain all."""
    words = re.split(r"[\W_]+", composed(stem_of(file)).casefold())
    found = [name for name in names if meaning(name) in {meaning(word) for word in words if word}]
    return found[0] if len(found) == 1 else ""


def _reading(file: Path, image: Image, names: Sequence[str]) -> tuple[str, int | None] | None:
    """Return organelle and frame from the words after the image's name in a file's name; None if any is unknown."""
    stem, own = composed(stem_of(file)), composed(image.stem)
    if not stem.startswith(own) or (len(stem) > len(own) and stem[len(own)].isalnum()):
        return None
    known = {meaning(name): name for name in names}
    name, frame = "", None
    for word in re.split(r"[\W_]+", stem[len(own) :]):
        number = re.fullmatch(r"(?:t|frame)([0-9]+)", word.casefold())
        if not word or word.casefold() in _WORDS:
            continue
        if number and frame is None:
            frame = int(number[1])
        elif meaning(word) in known and name in ("", known[meaning(word)]):
            name = known[meaning(word)]
        else:
            return None
    return (name or (CELLS if list(names) == [CELLS] else "")), frame


def _beside(file: Path, image: Image) -> bool:
    """Return whether a mask is in the image's folder, below it, or in a folder of the same name."""
    own, other = image.path.absolute().parent, file.absolute().parent
    return other.is_relative_to(own) or own.name in other.parts[-2:]


def _refuse_shared(given: GivenFiles) -> None:
    """Add an error to all inputs that share a file."""
    owners: dict[str, list[Path]] = {}
    for image, files in given.of.items():
        for path in {os.path.abspath(path) for frames in files.values() for path in frames.values()}:
            owners.setdefault(path, []).append(image)
    for path, images in owners.items():
        if len(images) > 1:
            both = " and ".join(str(image) for image in images)
            for image in images:
                given.errors.setdefault(image, []).append(
                    f"{given.key}: {path}: matches {both}; use {{relative}} or {{parent}} in the pattern"
                )


@dataclass(frozen=True)
class Existing:
    """Existing masks, labels of cells and corrections of all inputs."""

    masks: GivenFiles
    cells: GivenFiles
    corrections: Corrections

    def require_clear(self) -> None:
        """Raise ConfigErrors if masks or labels of an input are ambiguous."""
        errors = [text for given in (self.masks, self.cells) for texts in given.errors.values() for text in texts]
        if errors:
            raise ConfigErrors(list(dict.fromkeys(errors)))


def find_existing(sources: Sequence[Source], config: AnalyzeConfig, corrections: Path) -> Existing:
    """Return the existing masks, labels of cells and corrections of all inputs.

    Raises
    ------
    InputError
        An unknown placeholder, or missing files of a list.
    """
    names = config.organelle_names
    return Existing(
        find_given(config.organelles, sources, names, "organelles"),
        find_given(config.cells, sources, [CELLS], "cells"),
        Corrections(corrections, {source.path: source.name for source in sources}, [*names, CELLS]),
    )


@dataclass(frozen=True)
class LabelRules:
    """Rules of the config for reading masks and labels."""

    labels: str | Mapping[str, str]
    values: Mapping[str, Sequence[int]]
    """Values inside each organelle in multi-label files (`label_values`)."""
    names: Sequence[str]
    """Organelles, in the order of channels without names."""
    series: Series = None
    """Number or name of the image in files with several images."""
    mask_axes: MaskAxes = "auto"
    """Rule if only one of mask and tomogram has directions (`cytovox.io.label_layout.Grid`)."""

    def of(self, name: str) -> str:
        """Return auto, binary or instances for an organelle or the cells."""
        return self.labels if isinstance(self.labels, str) else self.labels.get(name, "auto")


def given_masks(
    files: Files, volume: Volume, rules: LabelRules, notes: list[str], key: str
) -> dict[str, dict[int, LabelSource]]:
    """Return the masks of every organelle and frame of an input; for nuclei and cells possibly labels.

    Returns
    -------
    dict of name -> dict of frame -> LabelSource

    Raises
    ------
    InputError
        No files, a frame without a file, or invalid files (`datamodules.label_source`).
    """
    grid = grid_of(volume, rules)
    found: dict[str, dict[int, LabelSource]] = {}
    for name, by_frame in files.items():
        own_frame = None not in by_frame
        paths = {t: by_frame[t] if t in by_frame else by_frame[None] for t in _frames(by_frame, volume, name, key)}
        if name:
            found[name] = label_sources(
                paths, name, grid, notes, labels=rules.of(name), own_frame=own_frame
            )  # fmt: skip
        else:
            found |= _all_in_one(paths, grid, own_frame, rules, notes)
    if not found:
        raise InputError(f"{volume.source}: no file of {key} found")
    return found


def _frames(by_frame: Mapping[int | None, Path], volume: Volume, name: str, key: str) -> list[int]:
    frames = list(range(volume.shape[0]))
    missing = [t for t in frames if t not in by_frame] if None not in by_frame else []
    if missing:
        there = ", ".join(str(t) for t in sorted(t for t in by_frame if t is not None))
        raise InputError(
            f"{volume.source}, frame {missing[0]}: no file of {key}{f' ({name})' if name else ''} found; there are "
            f"those of frames {there}, counted from 0"
        )
    return frames


def _all_in_one(
    paths: Mapping[int, Path], grid: Grid, own_frame: bool, rules: LabelRules, notes: list[str]
) -> dict[str, dict[int, LabelSource]]:
    """Return the masks in files of all organelles: one channel or one value per organelle."""
    first = grid.opened(next(iter(paths.values())))
    slices = place(first, grid, own_frame, [])
    alone = slices == "c" or first.shape[1] == 1
    if alone and unnamed(first) and len(values_of(first, slices, grid.opening)) > 1:
        by_values = {name: rules.values[name] for name in rules.names if name in rules.values}
        found: dict[str, dict[int, LabelSource]] = {}
        for t, path in paths.items():
            for name, source in class_source(path, by_values, grid, notes, own_frame, t).items():
                found.setdefault(name, {})[t] = source
        meant = "; ".join(f"{name} {' '.join(map(str, values))}" for name, values in by_values.items())
        notes.append(f"{first.path.name}: its values are read as organelles: {meant} (label_values)")
        return found
    channels = {rules.names[0]: 0} if slices == "c" else channels_of(first, rules.names, notes)
    for path in set(paths.values()) - {first.path}:
        other = grid.opened(path)
        if other.channels != first.channels or other.shape[1] != first.shape[1]:
            raise InputError(f"{path}: its channels are not those of {first.path}: expected the same in every frame")
    return {
        name: label_sources(
            paths, name, grid, notes, labels=rules.of(name), own_frame=own_frame, channel=channel
        )
        for name, channel in channels.items()
    }  # fmt: skip


def corrected_masks(
    corrections: Mapping[tuple[str, int], Correction], volume: Volume, rules: LabelRules, notes: list[str]
) -> dict[tuple[str, int], LabelSource]:
    """Return the corrected masks and labels, with the errors of `given_masks`; frames beyond the last are left out."""
    grid, found = grid_of(volume, rules), {}
    for name in sorted({name for name, _ in corrections}):
        for own_frame in (False, True):
            paths = {
                t: correction.path
                for (what, t), correction in corrections.items()
                if what == name and correction.own_frame == own_frame and t < volume.shape[0]
            }
            sources = label_sources(paths, name, grid, notes, labels=rules.of(name), own_frame=own_frame)
            found.update({(name, t): source for t, source in sources.items()})
    return found


def open_existing(
    existing: Existing, source: Source, config: AnalyzeConfig, volume: Volume, notes: list[str], on_error: OnError
) -> tuple[dict[tuple[str, int], LabelSource], dict[str, dict[int, LabelSource]], dict[int, LabelSource]]:
    """Return corrections, masks and labels of cells of an input; `on_error` is called with each error."""
    rules = LabelRules(
        config.labels, config.label_values, config.organelle_names, config.series, config.mask_axes
    )  # fmt: skip
    corrections: dict[tuple[str, int], LabelSource] = {}
    masks: dict[str, dict[int, LabelSource]] = {}
    cells: dict[int, LabelSource] = {}
    found: dict[tuple[str, int], Correction] = {}
    with _passed_on(on_error):
        found = existing.corrections.of(source.path, range(volume.shape[0]))
    for name in dict.fromkeys(name for name, _ in found):
        own = {key: one for key, one in found.items() if key[0] == name}
        with _passed_on(on_error):
            corrections |= corrected_masks(own, volume, rules, notes)
    if config.organelles is not None:
        with _passed_on(on_error):
            files = existing.masks.files(source.path)
            for one in [{name: by_frame} for name, by_frame in files.items()] or [{}]:
                with _passed_on(on_error):
                    masks |= given_masks(one, volume, rules, notes, f"organelles={config.organelles}")
    if config.cells is not None:
        with _passed_on(on_error):
            files = existing.cells.files(source.path)
            cells = given_masks(files, volume, rules, notes, f"cells={config.cells}")[CELLS]
    return corrections, masks, cells


@contextlib.contextmanager
def _passed_on(on_error: OnError) -> Iterator[None]:
    """Call `on_error` with an InputError instead of raising it."""
    try:
        yield
    except InputError as error:
        on_error(error)


def grid_of(volume: Volume, rules: LabelRules) -> Grid:
    """Return the grid of the masks of a tomogram."""
    owner = "the tomogram" if volume.source is None else volume.source.name
    return Grid(
        owner, volume.shape[0], volume.shape[2:], volume.spacing_um, series=rules.series,
        orientation=volume.orientation,
        mask_axes=rules.mask_axes,
    )  # fmt: skip
