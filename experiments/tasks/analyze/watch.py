"""Follow a running microscope: every new file and frame is analysed as it lands."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.io import read_volume
from cytovox.io.formats import is_volume
from cytovox.io.provenance import stamp_of
from experiments.tasks.analyze.analysis import Analysis
from experiments.tasks.analyze.sources import Source, find_groups
from training.prediction import output_names


class FolderWatcher:
    """What lies in a folder, and since when it is as it is.

    Parameters
    ----------
    folder : Path
        Where the microscope writes.
    settle_s : float
        A file counts when its size and time have not changed for so long.
    clock : callable
        Seconds; rising.
    """

    def __init__(self, folder: Path, settle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.settle_s, self.clock = folder, settle_s, clock
        self._seen: dict[Path, tuple[Any, float]] = {}

    def settled(self) -> list[Path]:
        """Files that nobody is writing any more, in order of name."""
        now, found = self.clock(), []
        for path in sorted(path for path in self.folder.rglob("*") if is_volume(path)):
            if any(part.startswith(".") or part.endswith(".zarr") for part in path.relative_to(self.folder).parts[:-1]):
                continue
            try:
                stamp = stamp_of(path)
            except OSError:
                continue  # gone again, or renamed as we looked
            before = self._seen.get(path)
            if before is None or before[0] != stamp:
                self._seen[path] = (stamp, now)
            elif now - before[1] >= self.settle_s and _opens(path):
                found.append(path)
        return found


def _opens(path: Path) -> bool:
    """Whether a file can be read; one that another program holds is waited for.

    A file that stays broken is reported like any other, once it is older than an hour.
    """
    try:
        read_volume(path, (1.0, 1.0, 1.0), "config", 0)  # whatever the analysis will make of it
    except InputError:
        return time.time() - max(stamp[2] for stamp in stamp_of(path)) / 1e9 > 3600
    except OSError:
        return False
    return True


def follow(analysis: Analysis, folder: Path, written: Callable[[], None]) -> None:
    """Analyse what lands in a folder until nothing came for `watch.stop_after_min`, or somebody stops it.

    Parameters
    ----------
    analysis : Analysis
        Whose folder grows.
    folder : Path
        Where the microscope writes.
    written : callable
        Called after every update of the tables.
    """
    watch = analysis.config.watch
    watcher, last_new = FolderWatcher(folder, watch.settle_s), time.monotonic()
    known: list[Any] = []
    print(f"watching {folder}; Ctrl-C ends it", flush=True)
    while True:
        paths = watcher.settled()
        stamps = [stamp_of(path) for path in paths]
        if paths and stamps != known:
            names = output_names(paths)
            groups = find_groups(paths, analysis.config.groups, names)
            if analysis.update([Source(path, names[path], *groups[path]) for path in paths]):
                written()
                last_new = time.monotonic()
                print(f"{len(paths)} files are analysed", flush=True)
            known = stamps
        if watch.stop_after_min is not None and time.monotonic() - last_new > 60 * watch.stop_after_min:
            return
        time.sleep(watch.every_s)
