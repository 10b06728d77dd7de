"""Cells task: train a network that separates cells, from labelled fields."""

import dataclasses
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
from cytovox.plots.charts import read_rows
from datamodules.cells import CellsDataModule
from experiments.check import Audited
from experiments.progress import Progress, wide_console
from experiments.report.data import shown_number
from experiments.report.parts import sections
from experiments.stages import Run
from experiments.tasks.base import TrainedTask, UsesWeights, check_test, record_seen
from experiments.tasks.cells.config import CELLS_CHOICES, CellsConfig, cells_errors
from lightning_modules.cell_scoring import SEED_SOURCES, CellTestScores
from lightning_modules.cells import MONITOR, CellsModule
from training.rundir import RunFolder, write_csv

#: Names of the seed sources in tables.
SOURCE_NAMES = {"true": "true nuclei", "rule": "nuclei by the rule", "watershed": "seeded watershed, by the rule"}
#: Scores that the summary and the report show, with their headings.
SCORES = {"dice": "Dice", "dice_matched": "matched only", "ap_50": "AP 0.5", "pq": "PQ"}


class CellsTask(TrainedTask, UsesWeights):
    """See `TrainedTask`."""

    name = "cells"
    config = CellsConfig
    choices = CELLS_CHOICES
    monitor = MONITOR
    unit = "volume"
    paths = (*TrainedTask.paths, ("data", "root"), ("data", "cache_dir"))
    errors = staticmethod(cells_errors)

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
        parts = [("scores", "Scores"), ("cases", "Cases"), ("training", "Training")]
        return {
            "sections": {**sections("cells", "Cells", "µm"), "parts": parts},
            "lines": {
                "heads": list(SCORES.values()),
                "rows": [_report_row(row) for row in read_rows(folder / "tables" / "test_cell_lines.csv")],
            },
            "cases": read_rows(folder / "tables" / "test_cells.csv"),
        }

    def test(self, run: Run) -> None:
        """Score the weights with true nuclei and with nuclei found by the rule, and score the baseline."""
        module: CellsModule = run.module()
        run.trainer.test(module, datamodule=run.data, verbose=False)
        if not run.trainer.is_global_zero:
            return
        write_scores(module.scores, run.folder)
        metrics = {f"test/{name}": value for name, value in module.scores.means().items()}
        run.folder.update_metrics({**metrics, "test/cases": len(module.scores.of("true"))})
        consequence = "their scores say nothing about new fields"
        record_seen(run, module, run.data.fingerprints(("test",)), "test", "test cases", consequence)

    def print_summary(self, folder: RunFolder, config: CellsConfig) -> None:
        """Print the scores for every seed source."""
        metrics = folder.metrics()
        if "test/true/dice" not in metrics:
            return
        table = Table("seeds", *SCORES.values(), title=f"test, {int(metrics['test/cases'])} volumes")
        for source in SEED_SOURCES:
            cells = [metrics.get(f"test/{source}/{key}") for key in SCORES]
            table.add_row(SOURCE_NAMES[source], *("" if value is None else f"{value:.3f}" for value in cells))
        wide_console().print(table)

    def audit(self, config: CellsConfig, stages: Sequence[str], progress: Progress) -> Audited:
        """Find every case and read those of a folder; print one line for each invalid one."""
        done = Audited()
        try:
            cases = self.data(config, None, None, ()).find()
            done.counts = {split: len(found) for split, found in cases.items()}
            if config.data.source == "folder":
                check_test([case for found in cases.values() for case in found], progress)
        except InputError as error:
            done.errors = len(str(error).splitlines())
            print(error)
        return done


def _report_row(row: dict[str, str]) -> dict[str, Any]:
    """Return a row of the report, with intervals, from a row of `test_cell_lines.csv`."""
    texts = {key + end: shown_number(row.get(key + end), 3) for key in SCORES for end in ("", "_low", "_high")}
    return {
        "cell_line": row.get("cell_line", ""),
        "seeds": SOURCE_NAMES.get(row.get("seeds", ""), ""),
        "n": row.get("n", ""),
        "values": [f"{texts[key]} [{texts[f'{key}_low']}, {texts[f'{key}_high']}]" for key in SCORES],
    }


def write_scores(scores: CellTestScores, folder: RunFolder) -> None:
    """Write `test_cells.csv`, one row per case and seed source, and `test_cell_lines.csv`, means with intervals."""
    names = [field.name for field in dataclasses.fields(scores.rows[0].scores)]
    rows = [
        {
            "case": r.name,
            "cell_line": r.cell_line,
            "seeds": r.source,
            **{n: _number(getattr(r.scores, n)) for n in names},
        }
        for r in scores.rows
    ]
    write_csv(folder.tables / "test_cells.csv", ["case", "cell_line", "seeds", *names], rows)
    columns = ["cell_line", "seeds", "n", *(f"{n}{end}" for n in names for end in ("", "_low", "_high"))]
    lines = []
    for source in SEED_SOURCES:
        found = by_cell_line(scores.of(source), [row.cell_line for row in scores.rows if row.source == source])
        for line, intervals in found.items():
            values = [v for n in names for v in (intervals[n].value, intervals[n].low, intervals[n].high)]
            cells = [line, source, len(scores.of(source, line)), *map(_number, values)]
            lines.append(dict(zip(columns, cells, strict=True)))
    write_csv(folder.tables / "test_cell_lines.csv", columns, lines)


def _windows(config: CellsConfig, metadata: CellsMetadata) -> SlidingWindow:
    return cell_windows(metadata.patch_size, batch_size(config.predict.batch_size, config.trainer.accelerator))


def _nuclei(config: CellsConfig) -> int:
    return batch_size(config.predict.batch_size, config.trainer.accelerator, NUCLEI_ON_CPU)


def _number(value: float) -> str:
    return "" if value != value else f"{value:.6g}"
