"""`--check` of the pipelines: every file that would be used is opened and read; all errors are reported at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.models.metadata import read_checkpoint
from datamodules.cases import checked_ri
from experiments.errors import ConfigErrors
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.given import Existing, find_existing
from experiments.tasks.analyze.predictors import cell_weights, organelle_weights
from experiments.tasks.analyze.sources import Source
from experiments.tasks.analyze.time_lapses import TimeLapse, open_time_lapse


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
    ConfigErrors
        All errors, one line each.
    """
    errors: list[str] = []
    notes: list[str] = []
    if config.corrections is not None and not corrections.is_dir():
        errors.append(f"corrections: {corrections}: no such folder; name the one that the corrected masks lie in")
    _tried(errors, lambda: _weights(config))
    existing = _tried(errors, lambda: find_existing(sources, config, corrections))
    lines = []
    if existing is not None:
        notes += [f"{path}: corrects none of the inputs" for path in existing.corrections.orphans]
        for source in sources:
            line = _tried(errors, lambda source=source: _input(source, config, existing, notes, errors))  # type: ignore[misc]
            lines += [line] if line is not None else []
    for note in dict.fromkeys(notes):
        print(f"note: {note}", file=sys.stderr)
    if errors:
        raise ConfigErrors(list(dict.fromkeys(errors)))
    print("the config is valid; it would analyse")
    print("\n".join(lines), flush=True)


def _tried(errors: list[str], read: Callable[[], Any]) -> Any:
    """What `read` returns; None, and its error among `errors`, where it fails."""
    try:
        return read()
    except ConfigErrors as error:
        errors.extend(error.errors)
    except (InputError, OSError) as error:
        errors.append(" ".join(str(error).split()))
    return None


def _weights(config: AnalyzeConfig) -> None:
    if config.organelles is None:
        read_checkpoint(organelle_weights(config.organelle_weights), "organelle", "organelle_weights")
    if config.cells is None:
        cell_weights(config.method, config.cell_weights)


def _input(source: Source, config: AnalyzeConfig, existing: Existing, notes: list[str], errors: list[str]) -> str:
    """Read an input and whatever belongs to it; the line that describes it."""
    time_lapse = open_time_lapse(source, config, Path(), existing, lambda error: errors.append(str(error)))
    notes.extend(time_lapse.notes)
    for t in range(time_lapse.frames):
        _tried(errors, lambda t=t: checked_ri(time_lapse.volume.frame(t), f"{source.path}, frame {t}"))  # type: ignore[misc]
    spacing = ", ".join(f"{s:.4g}" for s in time_lapse.volume.spacing_um)
    frames = f"{time_lapse.frames} frame{'s' * (time_lapse.frames != 1)}"
    return f"  {source.path} ({source.group}): {frames}, {spacing} um (z, y, x){_belonging(time_lapse)}"


def _belonging(time_lapse: TimeLapse) -> str:
    """Masks, labels and corrections of an input."""
    files = {name: by_frame for name, by_frame in (*time_lapse.masks.items(), ("cells", time_lapse.cells)) if by_frame}
    files_text = []
    for name, by_frame in files.items():
        paths = list(dict.fromkeys(source.path.name for source in by_frame.values()))
        files_text.append(f"{name} from {paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else ""))
    count = len({source.path for source in time_lapse.corrections.values()})
    files_text += [f"{count} correction{'s' * (count != 1)}"] if count else []
    return "".join(f"; {text}" for text in files_text)
