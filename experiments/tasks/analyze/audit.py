"""`--check` of the pipelines: every file that would be used is opened and read; all errors are reported at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from datamodules.cases import checked_ri
from experiments.errors import ConfigFaults
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.given import Existing, find_existing
from experiments.tasks.analyze.predictors import cell_weights, organelle_weights
from experiments.tasks.analyze.sources import Source
from experiments.tasks.analyze.time_lapses import Film, open_film
from lightning_modules.checkpoint_metadata import read_checkpoint


def check_analyze(config: AnalyzeConfig, sources: Sequence[Source], corrections: Path) -> None:
    """Open the tomograms, masks, labels, corrections and weights of an analysis; nothing is written.

    Parameters
    ----------
    config : AnalyzeConfig
    sources : sequence of Source
        Inputs; their groups are known, so that the table of groups was read.
    corrections : Path
        Folder that corrections are looked for in.

    Raises
    ------
    ConfigFaults
        All errors, one line each.
    """
    faults: list[str] = []
    notes: list[str] = []
    if config.corrections is not None and not corrections.is_dir():
        faults.append(f"corrections: {corrections}: no such folder; name the one that the corrected masks lie in")
    _tried(faults, lambda: _weights(config))
    existing = _tried(faults, lambda: find_existing(sources, config, corrections))
    lines = []
    if existing is not None:
        notes += [f"{path}: corrects none of the inputs" for path in existing.corrections.orphans]
        for source in sources:
            line = _tried(faults, lambda source=source: _input(source, config, existing, notes, faults))  # type: ignore[misc]
            lines += [line] if line is not None else []
    for note in dict.fromkeys(notes):
        print(f"note: {note}", file=sys.stderr)
    if faults:
        raise ConfigFaults(list(dict.fromkeys(faults)))
    print("the config is valid; it would analyse")
    print("\n".join(lines), flush=True)


def _tried(faults: list[str], read: Callable[[], Any]) -> Any:
    """What `read` returns; None, and its error among `faults`, where it fails."""
    try:
        return read()
    except ConfigFaults as fault:
        faults.extend(fault.faults)
    except (InputError, OSError) as fault:
        faults.append(" ".join(str(fault).split()))
    return None


def _weights(config: AnalyzeConfig) -> None:
    if config.organelles is None:
        read_checkpoint(organelle_weights(config.organelle_weights), "organelle", "organelle_weights")
    if config.cells is None:
        cell_weights(config.method, config.cell_weights)


def _input(source: Source, config: AnalyzeConfig, existing: Existing, notes: list[str], faults: list[str]) -> str:
    """Read an input and whatever belongs to it; the line that describes it."""
    film = open_film(source, config, Path(), existing, lambda fault: faults.append(str(fault)))
    notes.extend(film.notes)
    for t in range(film.frames):
        _tried(faults, lambda t=t: checked_ri(film.volume.frame(t), f"{source.path}, frame {t}"))  # type: ignore[misc]
    spacing = ", ".join(f"{s:.4g}" for s in film.volume.spacing_um)
    frames = f"{film.frames} frame{'s' * (film.frames != 1)}"
    return f"  {source.path} ({source.group}): {frames}, {spacing} um (z, y, x){_belonging(film)}"


def _belonging(film: Film) -> str:
    """Masks, labels and corrections of an input."""
    files = {name: by_frame for name, by_frame in (*film.masks.items(), ("cells", film.cells)) if by_frame}
    told = []
    for name, by_frame in files.items():
        paths = list(dict.fromkeys(source.path.name for source in by_frame.values()))
        told.append(f"{name} from {paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else ""))
    count = len({source.path for source in film.corrections.values()})
    told += [f"{count} correction{'s' * (count != 1)}"] if count else []
    return "".join(f"; {text}" for text in told)
