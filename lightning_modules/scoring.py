"""Test scores of the organelle task by case, and the baseline by refractive index alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch.distributed as dist

from cytovox.metrics.overlap import RIWindowFit, dice_per_organelle
from datamodules.cases import Case, RawCase
from datamodules.channel_labels import ChannelReport

T = TypeVar("T")


@dataclass(frozen=True)
class CaseScore:
    """Dice scores of one case."""

    name: str
    cell_line: str
    index: int
    """Position in the test set."""
    dice: dict[str, float]
    """nan where the organelle is unlabelled, or absent from truth and prediction."""
    channels: tuple[ChannelReport, ...] = ()
    """How masks were made from fluorescence channels."""

    @property
    def mean(self) -> float:
        """Mean over the organelles with a score; nan without any."""
        known = [v for v in self.dice.values() if not np.isnan(v)]
        return float(np.mean(known)) if known else float("nan")


class TestScores:
    """Scores of the test cases, collected over cases, then over ranks.

    Parameters
    ----------
    organelles : tuple of str
    """

    __test__ = False  # pytest must not collect this class

    def __init__(self, organelles: tuple[str, ...]) -> None:
        self.organelles = organelles
        self.cases: list[CaseScore] = []
        self.windows = RIWindowFit(organelles)
        """Baseline: the best single RI window of each organelle, fitted on the test cases themselves."""

    def add(self, index: int, case: Case, raw: RawCase, pred_KZYX: np.ndarray) -> CaseScore:
        """Return the score of a case, and add the case to the scores and to the histograms of the RI baseline."""
        values = dice_per_organelle(pred_KZYX, raw.masks_KZYX, raw.labelled_K)
        by_name = dict(zip(self.organelles, map(float, values), strict=True))
        score = CaseScore(case.name, case.cell_line, index, by_name, raw.channels)
        self.cases.append(score)
        masks = {n: raw.masks_KZYX[k] if raw.labelled_K[k] else None for k, n in enumerate(self.organelles)}
        self.windows.add(raw.ri_ZYX, masks)
        return score

    def gather(self) -> None:
        """Collect the cases of all ranks, in the order of the test set."""
        ranks = gathered((self.cases, self.windows))
        self.cases = sorted((case for cases, _ in ranks for case in cases), key=lambda case: case.index)
        self.windows = RIWindowFit(self.organelles)
        for _, windows in ranks:
            self.windows.merge(windows)

    def means(self) -> dict[str, float]:
        """Return `dice_<organelle>`, the mean over cases that have it, and `dice_mean`, the mean over organelles."""
        return mean_dice(self.organelles, self.cases)

    def by_cell_line(self) -> dict[str, list[CaseScore]]:
        """Return the cases of each cell line, in order of appearance."""
        found: dict[str, list[CaseScore]] = {}
        for case in self.cases:
            found.setdefault(case.cell_line, []).append(case)
        return found

    def examples(self) -> dict[str, CaseScore]:
        """Return the best, the median and the worst case by mean Dice, each case once."""
        ranked = sorted((c for c in self.cases if not np.isnan(c.mean)), key=lambda c: c.mean)
        if not ranked:
            return {}
        chosen = {"best": ranked[-1], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[0]}
        return {k: v for i, (k, v) in enumerate(chosen.items()) if v not in list(chosen.values())[:i]}


def gathered(value: T) -> list[T]:
    """Return the value of every rank, in the order of ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone


def mean_dice(organelles: tuple[str, ...], cases: list[CaseScore]) -> dict[str, float]:
    """Return `dice_<organelle>`, the mean over cases that have it, and `dice_mean`, the mean over organelles."""
    means = known_means([case.dice for case in cases], organelles)
    result = {f"dice_{organelle}": mean for organelle, mean in means.items()}
    return {**result, "dice_mean": float(np.mean(list(means.values())))} if means else {}


def known_means(rows: Sequence[Mapping[str, float]], keys: Iterable[str]) -> dict[str, float]:
    """Return the mean of each key over the rows in which it is not NaN; without the keys that are always NaN."""
    known = {key: [row[key] for row in rows if not np.isnan(row[key])] for key in keys}
    return {key: float(np.mean(values)) for key, values in known.items() if values}
