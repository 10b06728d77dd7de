"""Scores of the test of a cells run, case by case, over all ranks."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch.distributed as dist

from cytovox.metrics.cells import CellScores
from datamodules.cases import Case

#: Sources of the seeds, in the order of tables: the method from true nuclei, from those found by the rule, and the
#: baseline (a seeded watershed from the rule's).
SEED_SOURCES = ("true", "rule", "watershed")


@dataclass(frozen=True)
class CellCaseScore:
    """One case by one way."""

    index: int
    name: str
    cell_line: str
    way: str
    scores: CellScores


class CellTestScores:
    """Collects over cases, then over ranks."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    def __init__(self) -> None:
        self.rows: list[CellCaseScore] = []

    def add(self, index: int, case: Case, way: str, scores: CellScores) -> None:
        """One case by one way."""
        self.rows.append(CellCaseScore(index, case.name, case.cell_line, way, scores))

    def gather(self) -> None:
        """Bring every rank's rows together, in the order of the test set."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            everyone: list[list[CellCaseScore]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(everyone, self.rows)
            self.rows = [row for rows in everyone for row in rows]
        self.rows.sort(key=lambda row: (row.index, SEED_SOURCES.index(row.way)))

    def of(self, way: str, cell_line: str | None = None) -> list[CellScores]:
        """Scores of one way, of all lines or of one."""
        return [row.scores for row in self.rows if row.way == way and cell_line in (None, row.cell_line)]

    def lines(self) -> list[str]:
        """Lines in order of appearance."""
        return list(dict.fromkeys(row.cell_line for row in self.rows))

    def metrics(self) -> dict[str, float]:
        """Flat means over cases that have a score: `WAY/dice` and all others; of several lines also `LINE/WAY/dice`."""
        result = {}
        several = self.lines() if len(self.lines()) > 1 else []
        for line in [None, *several]:
            prefix = "" if line is None else f"{line.replace('/', '_')}/"
            for way in SEED_SOURCES:
                found = [asdict(scores) for scores in self.of(way, line)]
                for key in found[0] if found else ():
                    values = [float(one[key]) for one in found if not np.isnan(one[key])]
                    if values:
                        result[f"{prefix}{way}/{key}"] = float(np.mean(values))
        return result
