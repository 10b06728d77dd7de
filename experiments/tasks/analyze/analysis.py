"""Analysis of tomograms: organelles, cells, tracks, measurements, tables and figures."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cytovox.errors import DeviceError, InputError
from cytovox.io.processes import worker_pool
from cytovox.io.provenance import ContentDigests, Fingerprint, stamp_of
from cytovox.models.organelle import OrganelleModel
from datamodules.paths import shard_of
from datamodules.simulated import cores
from datamodules.steps import STEPS
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.frames import FrameJob, finish_frame
from experiments.tasks.analyze.given import find_existing
from experiments.tasks.analyze.outputs import write_time_lapse
from experiments.tasks.analyze.predictors import (
    cell_weights,
    organelle_model,
    organelle_weights,
    seen_notes,
)
from experiments.tasks.analyze.results import TimeLapseResult, time_lapse_result, write_results
from experiments.tasks.analyze.sources import Error, Source
from experiments.tasks.analyze.state import FrameState
from experiments.tasks.analyze.time_lapses import Asked, Frames, TimeLapse, open_time_lapse
from training.rundir import RunFolder

#: Called with the name of the step, the numbers of completed and of all items, and the current item.
Progress = Callable[..., None]
#: Smallest number of voxels of all frames for which worker processes save time.
FEW_VOXELS = 30_000_000


class Analysis:
    """Analysis of inputs into one folder of results, which `update` brings up to date.

    Parameters
    ----------
    config : AnalyzeConfig
        Valid.
    folder : RunFolder
        Folder of the results.
    progress : callable
        Called after each completed item; see `Progress`.
    """

    def __init__(self, config: AnalyzeConfig, folder: RunFolder, progress: Progress = lambda *_: None) -> None:
        self.config, self.folder, self.progress = config, folder, progress
        self.states = folder.path / ".frames"
        self.errors: list[Error] = []
        self.notes: list[str] = []
        self.asked = 0
        self.recomputed: Counter[str] = Counter()
        """Number of frames whose stored results are not current, by reason."""
        self._model: tuple[Any, OrganelleModel] | None = None
        self._organelle_weights = organelle_weights(config.organelle_weights) if config.organelles is None else None
        self._cell_weights = cell_weights(config.method, config.cell_weights) if config.cells is None else None

    def update(self, sources: list[Source]) -> bool:
        """Analyse new and changed inputs, and write tables and figures if any results changed.

        Parameters
        ----------
        sources : list of Source
            All inputs, including those already analysed.

        Returns
        -------
        bool
            Whether any results changed.
        """
        self.errors, self.notes, self.asked = [], [], len(sources)
        self.recomputed.clear()
        time_lapses = self._open(sources)
        changed = self._frames(time_lapses)
        results, failed = [], {error.source.name for error in self.errors}
        done = [time_lapse for time_lapse in time_lapses if time_lapse.source.name not in failed]
        for number, time_lapse in enumerate(done, start=1):
            results.append(time_lapse_result(time_lapse, self.config))
            changed |= write_time_lapse(time_lapse, results[-1], self.folder, self.config)
            self.progress("writing masks and surfaces", number, len(done))
        self.notes += [note for time_lapse in time_lapses for note in time_lapse.notes]
        if self.config.shard is not None:
            return changed  # the tables are of all inputs
        tables, provenance = FrameState(self.states), self._tables_from(results)
        if changed or not tables.has("tables", provenance) or not (self.folder.tables / "cells.csv").is_file():
            if not self.recomputed and (why := provenance.why(tables.provenance("tables"))):
                self.recomputed["tables: " + why] += 1
            self.notes += write_results(results, self.errors, self.notes, self.folder, self.config)
            tables.save("tables", provenance, {})
            changed = True
        return changed

    def _tables_from(self, results: list[TimeLapseResult]) -> Fingerprint:
        """Return the fingerprint of the inputs of tables and figures."""
        time_lapses = [
            [r.key, dataclasses.asdict(r.time_lapse.source), r.time_lapse.medium_from,
            list(r.time_lapse.volume.spacing_um)]
            for r in results
        ]  # fmt: skip
        return STEPS["analyze.tables"].fingerprint(
            self.config,
            time_lapses=time_lapses,
            broken_inputs=[[error.source.name, error.text] for error in self.errors],
        )

    def _open(self, sources: list[Source]) -> list[TimeLapse]:
        """Open the inputs of this shard with their masks, labels and corrections; add errors of files to `errors`."""
        time_lapses = []
        corrections = Path(self.config.corrections) if self.config.corrections else self.folder.predictions
        existing = find_existing(sources, self.config, corrections)
        self.notes += [f"{path}: corrects none of the inputs" for path in existing.corrections.orphans]
        for source in shard_of(sources, self.config.shard):
            try:
                time_lapse = open_time_lapse(source, self.config, self.states, existing)
                time_lapse.notes += seen_notes(self._organelle_weights, source.path)
                time_lapses.append(time_lapse)
            except (InputError, OSError) as error:
                self._failed(source, error)
        return time_lapses

    def _failed(self, source: Source, error: BaseException) -> None:
        """Add the first error of an input to `errors`."""
        text = " ".join(str(error).split())
        if all(known.source.name != source.name for known in self.errors):
            self.errors.append(Error(source, text if str(source.path) in text else f"{source.path}: {text}"))

    def _frames(self, time_lapses: list[TimeLapse]) -> bool:
        """Compute the results of all frames that are not current; return whether there were any."""
        asked = Asked(
            self.config, self.asked, self._organelle_weights, self._cell_weights,
            ContentDigests(self.folder.path / ".notes", once=True),
        )  # fmt: skip
        total, done, changed = sum(time_lapse.frames for time_lapse in time_lapses), 0, False
        with _workers(self._workers(time_lapses)) as submit:
            waiting: list[tuple[TimeLapse, Future[list[str]]]] = []
            for time_lapse in time_lapses:
                frames = Frames(time_lapse, asked, self._predict)
                try:
                    for t in range(time_lapse.frames):
                        if (job := frames.job(t)) is not None:
                            waiting.append((time_lapse, submit(job)))
                            changed = True
                        done += 1
                        self.progress("analysing frames", done, total, f"{time_lapse.source.path.name}, frame {t}")
                        self._collect([pair for pair in waiting if pair[1].done()])
                except DeviceError:
                    raise
                except (InputError, OSError) as error:
                    self._failed(time_lapse.source, error)
                self.recomputed.update(frames.recomputed)
            self._collect(waiting)
        return changed

    def _collect(self, finished: list[tuple[TimeLapse, Future[list[str]]]]) -> None:
        """Add the notes and errors of completed jobs to their inputs."""
        for time_lapse, future in finished:
            try:
                time_lapse.notes += [note for note in future.result() if note not in time_lapse.notes]
            except DeviceError:
                raise
            except (InputError, OSError) as error:
                self._failed(time_lapse.source, error)

    def _predict(
        self, ri_ZYX: np.ndarray, spacing_um: tuple[float, float, float]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return predicted masks and their probabilities, 0 to 255."""
        assert self._organelle_weights is not None
        stamp = stamp_of(self._organelle_weights)
        if self._model is None or self._model[0] != stamp:
            self._model = (stamp, organelle_model(self._organelle_weights, self.config.compile))
        model = self._model[1]
        return model.masks(ri_ZYX, spacing_um, model.organelles)

    def _workers(self, time_lapses: list[TimeLapse]) -> int:
        """Return the number of worker processes."""
        if self.config.workers != "auto":
            return int(self.config.workers)
        voxels = sum(int(np.prod(time_lapse.volume.shape)) for time_lapse in time_lapses)
        return 0 if voxels < FEW_VOXELS else max(1, cores() // 2)


@contextmanager
def _workers(count: int) -> Iterator[Callable[[FrameJob], Future[list[str]]]]:
    """Yield a function that runs a job in a worker process, or without workers in this process."""
    if count == 0:
        import torch

        def here(job: FrameJob) -> Future[list[str]]:
            future: Future[list[str]] = Future()
            threads = torch.get_num_threads()
            try:
                future.set_result(finish_frame(job))
            except (InputError, OSError) as error:
                future.set_exception(error)
            finally:
                torch.set_num_threads(threads)
            return future

        yield here
        return
    with worker_pool(count) as pool:
        yield lambda job: pool.submit(finish_frame, job)


def print_notes(analysis: Analysis) -> None:
    """Print notes and errors on stderr, one line each."""
    for why, count in analysis.recomputed.items():
        reason = why.removeprefix("tables: ")
        what = "tables are written" if reason != why else f"{count} frame{'s are' if count > 1 else ' is'} analysed"
        print(f"note: {what} again: {reason}", file=sys.stderr)
    for note in analysis.notes:
        print(f"note: {note}", file=sys.stderr)
    for error in analysis.errors:
        print(error.text, file=sys.stderr)
    if analysis.errors:
        print(
            f"inputs: {len(analysis.errors)} files could not be analysed, the others were; fix them, and run again",
            file=sys.stderr,
        )
