"""How often tests of groups call groups different that are not, and that are: cells nested in fields, by simulation.

Every draw is a study: fields with normal effects, cells with normal effects in them, of total variance 1. A rate has a
standard error of 0.003 at 0.05 with 5,000 draws. Tests decide as `cytovox.statistics.group_tests` does; what it refuses
is shown in brackets.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the packages before this script's own neighbours

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks._common import Table, Watch, finish, options
from cytovox.statistics import false_positives as levels
from cytovox.statistics.group_tests import compare_groups, compare_with_zero
from cytovox.statistics.mixed_model import fit_mixed
from cytovox.statistics.samples import Sample

#: Cells of the fields of the group, and of the control.
DESIGNS: dict[str, tuple[list[int], list[int]]] = {
    **{f"{k} and {k} fields of 10 cells": ([10] * k, [10] * k) for k in range(2, 7)},
    "2 and 6 of 10": ([10] * 2, [10] * 6),
    "4 and 6 of 10": ([10] * 4, [10] * 6),
    "3 and 3 of 3, 10, 30": ([3, 10, 30], [3, 10, 30]),
    "4 and 4 of 3, 5, 10, 30": ([3, 5, 10, 30], [3, 5, 10, 30]),
    "2 of 4 and 2 of 20": ([4] * 2, [20] * 2),
    "3 of 4 and 3 of 20": ([4] * 3, [20] * 3),
    "4 of 4 and 4 of 20": ([4] * 4, [20] * 4),
    "2 of 4 and 6 of 20": ([4] * 2, [20] * 6),
    "2 of 20 and 6 of 4": ([20] * 2, [4] * 6),
    "3 of 4 and 6 of 20": ([4] * 3, [20] * 6),
    "4 of 4 and 6 of 20": ([4] * 4, [20] * 6),
}
ICCS = (0.0, 0.2, 0.5)
EFFECT = 1.5
TESTS = ("student", "welch", "permutation", "mixed")


@dataclass(frozen=True)
class Studies:
    """Many studies of one design."""

    values_DN: np.ndarray
    """float, (draws, cells); the cells of the group come first."""
    fields_N: np.ndarray
    """Number of the field of each cell."""
    counts: tuple[list[int], list[int]]

    @property
    def means_DK(self) -> np.ndarray:
        """Means of fields."""
        counts = np.array([*self.counts[0], *self.counts[1]])
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        return np.add.reduceat(self.values_DN, starts, axis=1) / counts

    @property
    def design(self) -> tuple[levels.Counts, levels.Counts]:
        """Cells of fields, as the level of a test wants them."""
        one, two = (tuple((n,) for n in counts) for counts in self.counts)
        return one, two

    def samples(self, draw: int) -> list[Sample]:
        """The group and the control of one study."""
        cells = sum(self.counts[0])
        names = self.fields_N.astype(str).tolist()
        row = self.values_DN[draw]
        return [Sample(row[:cells], names[:cells]), Sample(row[cells:], names[cells:])]


def draw_studies(
    counts: tuple[list[int], list[int]], icc: float, draws: int, effect: float, seed: int, skewed: bool = False
) -> Studies:
    """Return simulated studies; with `skewed`, effects are log-normal (skewness 4) of the same variances."""
    rng = np.random.default_rng(seed)

    def effects(size: tuple[int, int]) -> np.ndarray:
        if not skewed:
            return rng.normal(size=size)
        sigma = 0.83
        found = rng.lognormal(0.0, sigma, size)
        return (found - np.exp(sigma**2 / 2)) / np.sqrt((np.exp(sigma**2) - 1) * np.exp(sigma**2))

    every = counts[0] + counts[1]
    fields = np.repeat(np.arange(len(every)), every)
    values = np.sqrt(icc) * effects((draws, len(every)))[:, fields]
    values += np.sqrt(1 - icc) * effects((draws, len(fields)))
    values[:, : sum(counts[0])] += effect
    return Studies(values, fields, counts)


def rejected(test: str, studies: Studies, draws: int) -> float:
    """Share of studies whose p is at most 0.05; the test is not refused here."""
    means, k1 = studies.means_DK, len(studies.counts[0])
    if test == "Mann-Whitney of cells":
        cells = sum(studies.counts[0])
        p = stats.mannwhitneyu(studies.values_DN[:, :cells], studies.values_DN[:, cells:], axis=1).pvalue
        return float(np.mean(p <= 0.05))
    if test == "mixed":
        return float(np.mean(mixed_p(studies, min(draws, len(means))) <= 0.05))
    if test == "student":
        return float(np.mean(_student(means, studies.design)))
    return float(np.mean(levels.REJECTS["student" if test == "plain t" else test](means, k1)))


def mixed_p(studies: Studies, draws: int) -> np.ndarray:
    """p values of `mixed_model.fit_mixed`, three times as fast: the model is built once and refitted."""
    import mixedlm
    from mixedlm.inference import satterthwaite_df

    two = bool(studies.counts[1])
    cells = np.arange(studies.values_DN.shape[1])
    table = pd.DataFrame(
        {
            "value": studies.values_DN[0], "group": (cells < sum(studies.counts[0])).astype(float),
            "field": studies.fields_N.astype(str),
        }
    )  # fmt: skip
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a vanishing variance is no failure
        model = mixedlm.lmer("value ~ group + (1 | field)" if two else "value ~ 1 + (1 | field)", table)
        for draw in range(draws):
            fitted = model.refit(studies.values_DN[draw])
            effect = list(fitted.fixef().values())[-1]
            error = float(np.asarray(fitted.vcov())[-1, -1]) ** 0.5
            found.append(2 * stats.t.sf(abs(effect) / error, satterthwaite_df(fitted).df[-1]))
    samples = studies.samples(0)
    same = fit_mixed(samples if two else samples[:1], "field").p
    assert abs(same - found[0]) < 1e-4, "a refitted model is not the fitted one"
    return np.array(found)


def _student(means_DK: np.ndarray, design: tuple[levels.Counts, levels.Counts]) -> np.ndarray:
    """What `levels.student` decides, for many studies of one design at once."""
    k1, k2 = len(design[0]), len(design[1])
    t = np.abs(stats.ttest_ind(means_DK[:, :k1], means_DK[:, k1:], axis=1).statistic)
    plain = levels.student_level(design) <= levels.DECIDING_LEVEL
    return t >= (stats.t.isf(0.025, k1 + k2 - 2) if plain else levels.critical_t(design))


def _refused(test: str, studies: Studies) -> bool:
    if test not in TESTS:
        return False
    return bool(compare_groups(*studies.samples(0), test).refused)  # type: ignore[arg-type]


def between_tables(draws: int, mixed_draws: tuple[int, int]) -> tuple[list[Table], dict[str, Any]]:
    """False positives and power of every test, design and ICC."""
    shown = ("student", "plain t", "welch", "permutation", "mixed", "Mann-Whitney of cells")
    titles = {0.0: f"false positives at 0.05, {draws} draws (mixed {mixed_draws[0]}, where refused {mixed_draws[1]})",
              EFFECT: f"power for an effect of {EFFECT} standard deviations of cells, {draws} draws "
                      f"(mixed {mixed_draws[1]})"}  # fmt: skip
    tables, rates = [], {}
    for effect, title in titles.items():
        table = Table(title, ["fields and cells (group and control)", "ICC", *shown])
        for name, counts in DESIGNS.items():
            for icc in ICCS:
                studies = draw_studies(counts, icc, draws, effect, seed=int(1000 * icc) + len(name))
                row = [name, f"{icc:g}"]
                for test in shown:
                    refused = _refused(test, studies)
                    if refused and effect:
                        row.append("refused")
                        continue
                    rate = rejected(test, studies, mixed_draws[effect > 0 or refused])
                    rates[f"{title.split()[0]}/{name}/{icc}/{test}"] = rate
                    row.append(f"refused ({rate:.3f})" if refused else f"{rate:.3f}")
                table.rows.append(row)
                print(*row, sep="\t", flush=True)
        tables.append(table)
    return tables, rates


def change_table(draws: int, mixed_draws: int) -> tuple[Table, dict[str, Any]]:
    """False positives of tests of one group's changes."""
    shown = ("student", "permutation", "mixed", "Wilcoxon of cells")
    table = Table(f"changes within one group: false positives, {draws} draws (mixed {mixed_draws})",
                  ["fields and cells", "ICC", *shown])  # fmt: skip
    rates = {}
    designs = {**{f"{k} fields of 10": [10] * k for k in range(2, 7)}, "3 of 3, 10, 30": [3, 10, 30],
               "6 of 3, 10, 30": [3, 10, 30] * 2}  # fmt: skip
    for name, counts in designs.items():
        for icc in ICCS:
            studies = draw_studies((counts, []), icc, draws, 0.0, seed=int(1000 * icc) + 7)
            means, row = studies.means_DK, [name, f"{icc:g}"]
            decide: dict[str, Callable[[], float]] = {
                "student": lambda m=means: float(np.mean(stats.ttest_1samp(m, 0, axis=1).pvalue <= 0.05)),
                "permutation": lambda m=means: float(np.mean(_sign_flips(m) <= 0.05)),
                "mixed": lambda s=studies: float(np.mean(mixed_p(s, mixed_draws) <= 0.05)),
                "Wilcoxon of cells": lambda s=studies: float(
                    np.mean(stats.wilcoxon(s.values_DN, axis=1, method="asymptotic").pvalue <= 0.05)
                ),
            }
            for test in shown:
                refused = test in TESTS and bool(
                    compare_with_zero(studies.samples(0)[0], test).refused  # type: ignore[arg-type]
                )
                rate = decide[test]()
                rates[f"change/{name}/{icc}/{test}"] = rate
                row.append(f"refused ({rate:.3f})" if refused else f"{rate:.3f}")
            table.rows.append(row)
            print(*row, sep="\t", flush=True)
    return table, rates


def _sign_flips(means_DK: np.ndarray) -> np.ndarray:
    """p of all sign flips of each row."""
    k = means_DK.shape[1]
    signs = np.array([[1 - 2 * (n >> bit & 1) for bit in range(k)] for n in range(2**k)])
    null = np.abs(means_DK @ signs.T)
    return np.mean(null >= null[:, :1] * (1 - 1e-12), axis=1)


def dish_table(draws: int) -> tuple[Table, dict[str, Any]]:
    """Treatments given to dishes: false positives of Student's t on means of dishes, of fields, and of Mann-Whitney."""
    table = Table(
        f"treatment per dish, 3 fields of 8 cells in each: false positives, {draws} draws",
        ["dishes", "shares of dish, field, cell", "t of dishes", "t of fields", "Mann-Whitney of cells"],
    )
    rates = {}
    rng = np.random.default_rng(1)
    for k in (2, 3, 4, 6):
        for shares in ((0.0, 0.0, 1.0), (0.1, 0.1, 0.8), (0.3, 0.2, 0.5)):
            sizes = [(draws, 2 * k, 1, 1), (draws, 2 * k, 3, 1), (draws, 2 * k, 3, 8)]
            values = sum(np.sqrt(s) * rng.normal(size=size) for s, size in zip(shares, sizes, strict=True))
            values = np.broadcast_to(values, sizes[2])
            one, two = values[:, :k], values[:, k:]
            found = [
                stats.ttest_ind(one.mean((2, 3)), two.mean((2, 3)), axis=1).pvalue,
                stats.ttest_ind(one.mean(3).reshape(draws, -1), two.mean(3).reshape(draws, -1), axis=1).pvalue,
                stats.mannwhitneyu(one.reshape(draws, -1), two.reshape(draws, -1), axis=1).pvalue,
            ]
            row = [f"{np.mean(p <= 0.05):.3f}" for p in found]
            rates |= {f"dish/{k}/{shares}/{n}": float(np.mean(p <= 0.05)) for n, p in enumerate(found)}
            table.rows.append([f"{k} and {k}", ", ".join(f"{s:g}" for s in shares), *row])
    return table, rates


def skewed_table(draws: int) -> Table:
    """False positives of Student's t as it is used, where fields and cells are far from normal."""
    table = Table(f"log-normal fields and cells (skewness 4): false positives, {draws} draws",
                  ["fields and cells", *(f"ICC {icc:g}" for icc in ICCS)])  # fmt: skip
    for name, counts in DESIGNS.items():
        rates = [rejected("student", draw_studies(counts, icc, draws, 0.0, 3, skewed=True), draws) for icc in ICCS]
        table.rows.append([name, *(f"{rate:.3f}" for rate in rates)])
    return table


def main() -> None:
    """Simulate, print, and say where a rate exceeds what is promised."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--draws", type=int, default=5000, help="studies of each design and ICC (5000)")
        parser.add_argument("--mixed-draws", type=int, default=5000, help="the same of mixed models, 3 ms each (5000)")

    arguments = options("group_tests", "False positives and power of the tests of groups.", repeats=1, more=more)
    draws = 200 if arguments.quick else arguments.draws
    mixed = (5, 5) if arguments.quick else (arguments.mixed_draws, max(200, arguments.mixed_draws // 10))
    with Watch() as watch:
        tables, rates = between_tables(draws, mixed)
        for table, some in (change_table(draws, mixed[1]), dish_table(draws)):
            tables.append(table)
            rates |= some
        tables.append(skewed_table(draws))
    held = levels.MAX_LEVEL + 2 * (levels.MAX_LEVEL * (1 - levels.MAX_LEVEL) / draws) ** 0.5
    over = [f"{row[:2]}: {column} {cell}" for table in tables[:1] + tables[2:3]
            for row in table.rows for column, cell in zip(table.columns[2:], row[2:], strict=True)
            if column in TESTS and "refused" not in cell and float(cell) > levels.MAX_LEVEL]  # fmt: skip
    print(f"above {levels.MAX_LEVEL} ({held:.4f} with two standard errors): {over or 'none'}")
    finish(arguments, {"rates": rates, "above": over}, {}, tables, watch)


if __name__ == "__main__":
    main()
