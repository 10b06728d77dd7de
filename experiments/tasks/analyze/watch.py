"""Analysis of a folder to which a microscope writes: new files and frames are analysed as they appear."""

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
from experiments.tasks.analyze.sources import with_groups


class FolderWatcher:
    """Search of a folder for files that are completely written.

    Parameters
    ----------
    folder : Path
        Folder to which the microscope writes.
    settle_s : float
        Seconds for which size and time of a complete file are unchanged.
    clock : callable
        Returns the time in seconds.
    """

    def __init__(self, folder: Path, settle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.settle_s, self.clock = folder, settle_s, clock
        self._seen: dict[Path, tuple[Any, float]] = {}

    def settled(self) -> list[Path]:
        """Return the files that are completely written, sorted by name."""
        now, found = self.clock(), []
        for path in sorted(path for path in self.folder.rglob("*") if is_volume(path)):
            if any(part.startswith(".") or part.endswith(".zarr") for part in path.relative_to(self.folder).parts[:-1]):
                continue
            try:
                stamp = stamp_of(path)
            except OSError:
                continue  # removed or renamed in the meantime
            if self._seen.get(path, (None, now))[0] != stamp:
                self._seen[path] = (stamp, now)
            elif now - self._seen[path][1] >= self.settle_s and _opens(path):
                found.append(path)
        return found


def _opens(path: Path) -> bool:
    """Return whether a file can be read, or is invalid and older than an hour.

    An invalid file that old is not being written any more. Its error is then reported by the analysis.
    """
    try:
        read_volume(path, (1.0, 1.0, 1.0), "config", 0)  # spacing and series do not matter here
    except InputError:
        return time.time() - max(stamp[2] for stamp in stamp_of(path)) / 1e9 > 3600
    except OSError:
        return False
    return True


def follow(analysis: Analysis, folder: Path, written: Callable[[], None]) -> None:
    """Analyse new files and frames in a folder, until none appears for `watch.stop_after_min` or the user stops it.

    Parameters
    ----------
    analysis : Analysis
        Analysis with the results of the files.
    folder : Path
        Folder to which the microscope writes.
    written : callable
        Called after every update of the tables.
    """
    watch = analysis.config.watch
    watcher, last_new = FolderWatcher(folder, watch.settle_s), time.monotonic()
    known: list[Any] = []
    print(f"watching {folder}; end with Ctrl-C", flush=True)
    while True:
        paths = watcher.settled()
        stamps = [stamp_of(path) for path in paths]
        if paths and stamps != known:
            if analysis.update(with_groups(paths, analysis.config.groups)):
                written()
                last_new = time.monotonic()
                print(f"{len(paths)} files are analysed", flush=True)
            known = stamps
        if watch.stop_after_min is not None and time.monotonic() - last_new > 60 * watch.stop_after_min:
            return
        time.sleep(watch.every_s)
