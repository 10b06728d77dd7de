"""`--check` of an analysis: read all files that would be used, and report all errors at once."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    """Read the tomograms, masks, labels, corrections and weights of an analysis, without writing anything.

    Parameters
    ----------
    config : AnalyzeConfig
    sources : sequence of Source
        Inputs with their groups.
    corrections : Path
        Folder of corrections.

    Raises
    ------
    ConfigErrors
        All errors, one line each.
    """
    errors: list[str] = []
    notes: list[str] = []
    if config.corrections is not None and not corrections.is_dir():
        errors.append(f"corrections: {corrections}: no such folder; expected the folder of the corrected masks")
    with _collected(errors):
        _read_weights(config)
    lines = []
    with _collected(errors):
        existing = find_existing(sources, config, corrections)
        notes += [f"{path}: corrects none of the inputs" for path in existing.corrections.orphans]
        for source in sources:
            with _collected(errors):
                lines.append(_read_input(source, config, existing, notes, errors))
    for note in dict.fromkeys(notes):
        print(f"note: {note}", file=sys.stderr)
    if errors:
        raise ConfigErrors(list(dict.fromkeys(errors)))
    print("the config is valid; it would analyse")
    print("\n".join(lines), flush=True)


@contextlib.contextmanager
def _collected(errors: list[str]) -> Iterator[None]:
    """Add errors to `errors` instead of raising them."""
    try:
        yield
    except ConfigErrors as error:
        errors.extend(error.errors)
    except (InputError, OSError) as error:
        errors.append(" ".join(str(error).split()))


def _read_weights(config: AnalyzeConfig) -> None:
    if config.organelles is None:
        read_checkpoint(organelle_weights(config.organelle_weights), "organelle", "organelle_weights")
    if config.cells is None:
        cell_weights(config.method, config.cell_weights)


def _read_input(source: Source, config: AnalyzeConfig, existing: Existing, notes: list[str], errors: list[str]) -> str:
    """Read an input with its masks, labels and corrections, and return a line that describes it."""
    time_lapse = open_time_lapse(source, config, Path(), existing, lambda error: errors.append(str(error)))
    notes.extend(time_lapse.notes)
    for t in range(time_lapse.frames):
        with _collected(errors):
            checked_ri(time_lapse.volume.frame(t), f"{source.path}, frame {t}")
    spacing = ", ".join(f"{s:.4g}" for s in time_lapse.volume.spacing_um)
    frames = f"{time_lapse.frames} frame{'s' * (time_lapse.frames != 1)}"
    return f"  {source.path} ({source.group}): {frames}, {spacing} um (z, y, x){_other_files(time_lapse)}"


def _other_files(time_lapse: TimeLapse) -> str:
    """Return a description of the masks, labels and corrections of an input."""
    files = {name: by_frame for name, by_frame in (*time_lapse.masks.items(), ("cells", time_lapse.cells)) if by_frame}
    text = ""
    for name, by_frame in files.items():
        paths = list(dict.fromkeys(source.path.name for source in by_frame.values()))
        text += f"; {name} from {paths[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    count = len({source.path for source in time_lapse.corrections.values()})
    return text + (f"; {count} correction{'s' * (count != 1)}" if count else "")
