"""Test scores of the cells task by case, over all ranks."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from cytovox.metrics.cells import CellScores
from datamodules.cases import Case
from lightning_modules.scoring import gathered, known_means

#: Sources of the seeds, in the order of tables: the method seeded by true nuclei, the method seeded by the nuclei that
#: the seed rule finds, and the baseline, a watershed seeded by the rule.
SEED_SOURCES = ("true", "rule", "watershed")


@dataclass(frozen=True)
class CellCaseScore:
    """Scores of one case for one seed source."""

    index: int
    name: str
    cell_line: str
    source: str
    """Seed source, one of `SEED_SOURCES`."""
    scores: CellScores


class CellTestScores:
    """Scores of the test cases, collected over cases, then over ranks."""

    __test__ = False  # pytest must not collect this class

    def __init__(self) -> None:
        self.rows: list[CellCaseScore] = []

    def add(self, index: int, case: Case, source: str, scores: CellScores) -> None:
        """Add the scores of one case for one seed source."""
        self.rows.append(CellCaseScore(index, case.name, case.cell_line, source, scores))

    def gather(self) -> None:
        """Collect the rows of all ranks, in the order of the test set."""
        self.rows = [row for rows in gathered(self.rows) for row in rows]
        self.rows.sort(key=lambda row: (row.index, SEED_SOURCES.index(row.source)))

    def of(self, source: str, cell_line: str | None = None) -> list[CellScores]:
        """Return the scores for one seed source, of all cell lines or of one."""
        return [row.scores for row in self.rows if row.source == source and cell_line in (None, row.cell_line)]

    def means(self) -> dict[str, float]:
        """Return means over the cases with a score: `SOURCE/dice` etc.; with several lines also `LINE/SOURCE/dice`."""
        result: dict[str, float] = {}
        lines = list(dict.fromkeys(row.cell_line for row in self.rows))
        for line in [None, *(lines if len(lines) > 1 else ())]:
            prefix = "" if line is None else f"{line.replace('/', '_')}/"
            for source in SEED_SOURCES:
                found = [asdict(scores) for scores in self.of(source, line)]
                means = known_means(found, found[0] if found else ())
                result |= {f"{prefix}{source}/{key}": mean for key, mean in means.items()}
        return result
