"""Search for tomograms and their masks."""

from __future__ import annotations

import dataclasses
import difflib
import os
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.csv_files import existing, read_csv
from cytovox.io.formats import find_format
from datamodules.cases import FolderCase
from datamodules.channel_labels import ChannelRules
from datamodules.config import FolderData
from datamodules.corrections import with_corrections
from datamodules.errors import DataError, OnError, refuse
from datamodules.masks import MaskFinder
from datamodules.paths import below, expand, first_names
from datamodules.splits import SPLITS


def find_cases(config: FolderData, on_error: OnError = refuse) -> list[FolderCase]:
    """Return every tomogram with its masks, in order of name.

    Parameters
    ----------
    config : FolderData
        Section `data:` of a config.
    on_error : callable
        Called with each error after which the search can continue. The default raises it.

    Raises
    ------
    InputError
        No tomogram is found, tomograms have no mask, or masks could belong to two tomograms.
    """
    cases = _from_table(config, on_error) if config.table is not None else _from_folders(config, on_error)
    cases = with_corrections(cases, config)
    if not cases:
        raise InputError(f"data.volumes: {config.volumes}: no tomogram found below {Path(config.root).absolute()}")
    if config.corrections is not None and config.masks is None and config.table is None and not config.labels_from:
        cases = [c for c in cases if c.masks]  # volumes without a correction are not used in training
    for case in cases:
        if case.from_channels and getattr(find_format(case.volume), "name", "") != "tcf":
            organelle, channel = next(iter(case.from_channels.items()))
            text = f"data.labels_from: {case.volume}: {organelle} from {channel}: expected a TCF file with fluorescence"
            on_error(DataError("fluorescence", f"{text}; give masks (data.masks), or leave it out of data.volumes"))
    if without_mask := [c for c in cases if not c.drawn]:
        names = first_names([below(case.volume, Path(config.root)) for case in without_mask])
        found = f"{len(without_mask)} of {len(cases)} volumes have no mask: {names}"
        on_error(DataError("no-mask", f"data.masks: {found}; draw one, or leave them out of data.volumes"))
    return cases


def _from_folders(config: FolderData, on_error: OnError) -> list[FolderCase]:
    root = Path(config.root)
    finder = MaskFinder(config.masks or "", root, config.organelles, config.frame)
    volumes = [p for p in expand(config.volumes, root, "data.volumes", on_error) if not finder.is_mask(p)]
    cases = []
    for volume, (masks, label_file) in zip(volumes, finder.assign(volumes, on_error), strict=True):
        dish = _folder_of(volume, config.group, "group", on_error)
        line = _folder_of(volume, config.cell_line, "cell_line", on_error) or dish
        # the folder's whole path, since HeLa/dish1 and A549/dish1 are two groups
        group = below(dish, root) if dish else None
        cases.append(_case(config, volume, masks, label_file, group, line.name if line else None))
    return cases


def _case(
    config: FolderData, volume: Path, masks: dict[str, Path], label_file: Path | None, group: str | None,
    cell_line: str | None, split: str | None = None,
) -> FolderCase:  # fmt: skip
    name = below(volume, Path(config.root))
    unused = [masks[k] for k in config.labels_from if k in masks]
    return FolderCase(
        name=name,
        volume=volume,
        masks={k: mask for k, mask in masks.items() if k not in config.labels_from},
        label_file=label_file,
        label_values={k: tuple(v) for k, v in config.label_values.items()},
        labels=config.labels,
        organelles=tuple(config.organelles),
        group=group or name,
        cell_line=cell_line or group or "all",
        split=split,
        frame=config.frame,
        spacing_um=tuple(config.spacing_um) if config.spacing_um is not None else None,  # type: ignore[arg-type]
        check_spacing=config.check_spacing,
        spacing_from=config.spacing_from,
        series=config.series,
        mask_axes=config.mask_axes,
        channels=dict(config.labels_from),
        channel_rules=ChannelRules(**dataclasses.asdict(config.fluorescence)),
        notes=[f"{mask}: not used, since data.labels_from makes this mask" for mask in unused],
        ignore_value=config.ignore_value,
        annotated_slices=config.annotated_slices,
    )


def _folder_of(volume: Path, word: str | None, key: str, on_error: OnError) -> Path | None:
    """Return the nearest parent folder of a volume whose name begins with the word."""
    if word is None:
        return None
    folder = next((folder for folder in volume.parents if folder.name.lower().startswith(word.lower())), None)
    if folder is None:
        on_error(
            InputError(
                f"data.{key}: {word}: no folder on the path of {volume} begins with that; "
                "name one, or use a column of data.table"
            )
        )
    return folder


def _from_table(config: FolderData, on_error: OnError) -> list[FolderCase]:
    """Return the cases of a CSV file, whose paths start from its folder."""
    table = Path(config.root) / str(config.table)
    rows = read_csv(existing(table), "data.table")
    if not rows or "volume" not in rows[0].cells:
        raise InputError(
            f"data.table: {table}: no column 'volume'; expected volume, then mask or {', '.join(config.organelles)}"
        )
    for key, column in (("group", config.group), ("cell_line", config.cell_line)):
        if column is not None and column not in rows[0].cells:
            raise InputError(f"data.{key}: {table.name} has no column {column!r}; it has {', '.join(rows[0].cells)}")
    _refuse_misspelt(config, table, list(rows[0].cells))
    cases = []
    lines: dict[str, int] = {}
    for number, row in rows:
        try:
            case = _row_case(config, table, number, row)
            if (first := lines.setdefault(os.path.abspath(case.volume), number)) != number:
                text = f"data.table: {table.name} line {number}: {case.volume} is also in line {first}; keep one"
                raise DataError("duplicate", text)
            cases.append(case)
        except InputError as error:
            on_error(error)
    return cases


def _refuse_misspelt(config: FolderData, table: Path, columns: list[str]) -> None:
    """Refuse misspelt columns: a column nuclues would silently leave every nucleus unlabelled."""
    known = ["volume", "mask", *config.organelles, "group", "cell_line", "line", "split"]
    for column in set(columns) - {*known, config.group, config.cell_line}:
        if near := difflib.get_close_matches(column.lower(), [k for k in known if k not in columns], n=1, cutoff=0.8):
            raise InputError(f"data.table: {table.name}: column {column!r}: did you mean {near[0]}?")


def _row_case(config: FolderData, table: Path, number: int, row: dict[str, str]) -> FolderCase:
    where = f"data.table: {table.name} line {number}"

    def path(column: str) -> Path | None:
        full = existing(table.parent / row[column]) if row.get(column) else None
        if full is not None and not full.exists():
            raise InputError(f"{where}: {column}: no such file: {full}")
        return full

    volume = path("volume")
    if volume is None:
        raise InputError(f"{where}: no volume named")
    split = row.get("split", "").lower() or None
    if split is not None and split not in SPLITS:
        raise InputError(f"{where}: split: expected train, val or test, got {split!r}")
    masks = {organelle: found for organelle in config.organelles if (found := path(organelle)) is not None}
    group = row.get(config.group or "group") or None
    # earlier versions named the column "line"
    cell_line = row.get(config.cell_line or ("cell_line" if "cell_line" in row else "line")) or None
    return _case(config, volume, masks, path("mask"), group, cell_line, split)
