"""The cells task: labelled fields in, a network that tells cells from each other out."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from cytovox.errors import InputError
from cytovox.inference.device import NUCLEI_ON_CPU, batch_size
from cytovox.inference.tiling import SlidingWindow
from cytovox.metrics.cells import by_cell_line
from cytovox.models.cells import cell_windows
from cytovox.models.metadata import CellsMetadata, Weights, load_network
from cytovox.models.networks import CELL_CHANNELS, cell_network
from datamodules.cells import CellsDataModule
from experiments.check import Audited
from experiments.progress import Progress, wide_console
from experiments.stages import Run
from experiments.tasks.base import TrainedTask, UsesWeights
from experiments.tasks.cells.config import CELLS_CHOICES, CellsConfig, cells_errors
from experiments.tasks.cells.report import cells_report
from experiments.tasks.organelle.data import check_test
from lightning_modules.cell_scoring import SEED_SOURCES, CellTestScores
from lightning_modules.cells import MONITOR, CellsModule
from lightning_modules.seen import counted_seen, seen_metrics, seen_note
from training.rundir import RunFolder, write_text

#: What each way is called in tables.
NAMED = {"true": "true nuclei", "rule": "nuclei by the rule", "watershed": "seeded watershed, by the rule"}


class CellsTask(TrainedTask, UsesWeights):
    """See `TrainedTask`."""

    name = "cells"
    config = CellsConfig
    choices = CELLS_CHOICES
    monitor = MONITOR
    unit = "volume"
    paths = (*TrainedTask.paths, ("data", "root"), ("data", "cache_dir"))

    def errors(self, config: CellsConfig) -> list[str]:
        """See `Task`."""
        return cells_errors(config)

    def data(
        self, config: CellsConfig, progress: Progress | None, limit: int | None, splits: Sequence[str]
    ) -> CellsDataModule:
        """See `Task`."""
        return CellsDataModule(config.data, config.seed, config.method, progress=progress, limit=limit, splits=splits)

    def metadata(self, config: CellsConfig) -> CellsMetadata:
        """See `Task`."""
        data = config.data
        return CellsMetadata(
            task=config.task,
            model=dataclasses.asdict(config.model),
            method=config.method,
            resample=data.resample,
            resample_spacing_um=[float(s) for s in data.resample_spacing_um],
            resample_grid=[int(n) for n in data.resample_grid],
            ri_range=[float(v) for v in data.ri_range],
            patch_size=[int(p) for p in (data.resample_grid if data.resample == "grid" else data.patch_size)],
            z=data.z,
        )

    def for_training(self, config: CellsConfig, weights: Weights | None) -> CellsModule:
        """See `Task`."""
        metadata = self.metadata(config)
        network = config.model.build(*CELL_CHANNELS[config.method])
        if weights is not None:
            load_network(network, weights, "init_from")
        return CellsModule(
            network, metadata, _windows(config, metadata), config.seeds.rule(), config.loss.build(),
            config.optimizer, _nuclei(config),
        )  # fmt: skip

    def from_weights(self, config: CellsConfig, ensemble: Sequence[Weights]) -> CellsModule:
        """See `Task`."""
        if len(ensemble) > 1:
            raise InputError("predict.checkpoint: cells are found by one network; name one checkpoint")
        metadata = ensemble[0].metadata
        return CellsModule(
            cell_network(ensemble[0], "predict.checkpoint"), metadata, _windows(config, metadata),
            config.seeds.rule(), batch_size=_nuclei(config),
        )  # fmt: skip

    def require_match(self, config: CellsConfig, metadata: CellsMetadata) -> None:
        """See `Task`."""
        if metadata.method != config.method:
            raise InputError(f"method: the weights are of method {metadata.method}, this config's is {config.method}")

    def report(self, folder: Path) -> dict[str, Any]:
        """See `Task`."""
        return cells_report(folder)

    def prepare(self, data: CellsDataModule, stages: Sequence[str], progress: Progress) -> None:
        """See `Task`."""
        cases = data.find()
        if "test" in stages:
            check_test(cases["test"], progress)
        if "fit" in stages:
            data.prepare_data()

    def test(self, run: Run) -> None:
        """Score the weights from true nuclei and from those that the rule finds, and the baseline."""
        module: CellsModule = run.module()
        run.trainer.test(module, datamodule=run.data, verbose=False)
        if not run.trainer.is_global_zero:
            return
        write_scores(module.scores, run.folder)
        metrics = {f"test/{name}": value for name, value in module.scores.means().items()}
        _, counted = counted_seen(module.metadata, run.data.fingerprints(("test",)))
        counts = {"test/cases": len(module.scores.of("true")), **seen_metrics(counted, "test")}
        run.folder.update_metrics({**metrics, **counts})
        if note := seen_note(counted, "test cases", "their scores say nothing about new fields"):
            print(note, file=sys.stderr)

    def print_summary(self, folder: RunFolder, config: CellsConfig) -> None:
        """Scores of every way to the seeds."""
        metrics = folder.metrics()
        if "test/true/dice" not in metrics:
            return
        heads = {"dice": "Dice", "dice_matched": "matched only", "ap_50": "AP 0.5", "pq": "PQ"}
        table = Table("seeds", *heads.values(), title=f"test, {int(metrics['test/cases'])} volumes")
        for way in SEED_SOURCES:
            cells = [metrics.get(f"test/{way}/{key}") for key in heads]
            table.add_row(NAMED[way], *("" if value is None else f"{value:.3f}" for value in cells))
        wide_console().print(table)

    def audit(self, config: CellsConfig, stages: Sequence[str], progress: Progress) -> Audited:
        """Find every case and read those of a folder; print one line for each that cannot be used."""
        done = Audited()
        try:
            data = self.data(config, None, None, ())
            cases = data.find()
            done.counts = {split: len(found) for split, found in cases.items()}
            if config.data.source == "folder":
                check_test([case for found in cases.values() for case in found], progress)
        except InputError as error:
            done.errors = len(str(error).splitlines())
            print(error)
        return done


def write_scores(scores: CellTestScores, folder: RunFolder) -> None:
    """Write `test_cells.csv`, one row per case and seed source, and `test_cell_lines.csv`, means with intervals."""
    names = [field.name for field in dataclasses.fields(scores.rows[0].scores)]
    rows = [",".join(["case", "cell_line", "seeds", *names])]
    rows += [
        ",".join([_quoted(r.name), _quoted(r.cell_line), r.source, *(_number(getattr(r.scores, n)) for n in names)])
        for r in scores.rows
    ]
    write_text(folder.tables / "test_cells.csv", "\n".join(rows) + "\n")
    lines = [",".join(["cell_line", "seeds", "n", *(f"{n}{end}" for n in names for end in ("", "_low", "_high"))])]
    for way in SEED_SOURCES:
        found = by_cell_line(scores.of(way), [row.cell_line for row in scores.rows if row.source == way])
        for line, intervals in found.items():
            cells = [_number(v) for n in names for v in _interval(intervals[n])]
            lines.append(",".join([_quoted(line), way, str(len(scores.of(way, line))), *cells]))
    write_text(folder.tables / "test_cell_lines.csv", "\n".join(lines) + "\n")


def _windows(config: CellsConfig, metadata: CellsMetadata) -> SlidingWindow:
    return cell_windows(metadata.patch_size, batch_size(config.predict.batch_size, config.trainer.accelerator))


def _nuclei(config: CellsConfig) -> int:
    return batch_size(config.predict.batch_size, config.trainer.accelerator, NUCLEI_ON_CPU)


def _interval(found: Any) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _number(value: float) -> str:
    return "" if value != value else f"{value:.6g}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text
