"""Scores of the test, case by case, and what the refractive index alone would have reached."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch.distributed as dist

from cytovox.metrics.overlap import RIWindow, RIWindowFit, dice_per_organelle
from datamodules.cases import Case, RawCase


@dataclass(frozen=True)
class CaseScore:
    """Dice of one case."""

    name: str
    cell_line: str
    index: int
    """Place in the test set."""
    dice: dict[str, float]
    """nan where the organelle is unlabelled, or absent from truth and prediction."""

    @property
    def mean(self) -> float:
        """Over the organelles that have a score."""
        known = [v for v in self.dice.values() if not np.isnan(v)]
        return float(np.mean(known)) if known else float("nan")


@dataclass
class TestScores:
    """Collects over cases, then over ranks."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    organelles: tuple[str, ...]
    cases: list[CaseScore] = field(default_factory=list)
    windows: RIWindowFit = field(init=False)

    def __post_init__(self) -> None:
        self.windows = RIWindowFit(self.organelles)

    def add(self, index: int, case: Case, raw: RawCase, pred_KZYX: np.ndarray) -> CaseScore:
        """Score one case and take its histograms for the window baseline."""
        values = dice_per_organelle(pred_KZYX, raw.masks_KZYX, raw.labelled_K)
        score = CaseScore(case.name, case.cell_line, index, dict(zip(self.organelles, map(float, values), strict=True)))
        self.cases.append(score)
        masks = {n: raw.masks_KZYX[k] if raw.labelled_K[k] else None for k, n in enumerate(self.organelles)}
        self.windows.add(raw.ri_ZYX, masks)
        return score

    def gather(self) -> None:
        """Bring every rank's cases together, in the order of the test set."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            everyone: list[TestScores | None] = [None] * dist.get_world_size()
            dist.all_gather_object(everyone, self)
            others = [scores for scores in everyone if scores is not None]
            self.cases = [case for scores in others for case in scores.cases]
            self.windows = RIWindowFit(self.organelles)
            for scores in others:
                self.windows.merge(scores.windows)
        self.cases.sort(key=lambda case: case.index)

    def means(self) -> dict[str, float]:
        """Flat metrics: `dice_<organelle>` over the cases that have it, and `dice_mean` over the organelles."""
        return mean_dice(self.organelles, self.cases)

    def groups(self) -> dict[str, list[CaseScore]]:
        """Cases by line, in order of appearance."""
        found: dict[str, list[CaseScore]] = {}
        for case in self.cases:
            found.setdefault(case.cell_line, []).append(case)
        return found

    def fit_windows(self) -> dict[str, RIWindow]:
        """Best single RI window of each organelle, fitted on these very cases."""
        return self.windows.fit()

    def examples(self) -> dict[str, CaseScore]:
        """The best, the median and the worst case by mean Dice; fewer cases give fewer examples."""
        ranked = sorted((c for c in self.cases if not np.isnan(c.mean)), key=lambda c: c.mean)
        if not ranked:
            return {}
        chosen = {"best": ranked[-1], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[0]}
        return {k: v for i, (k, v) in enumerate(chosen.items()) if v not in list(chosen.values())[:i]}


def mean_dice(organelles: tuple[str, ...], cases: list[CaseScore]) -> dict[str, float]:
    """`dice_<organelle>`: mean over cases; `dice_mean`: mean over the organelles that have one."""
    result = {}
    for organelle in organelles:
        known = [c.dice[organelle] for c in cases if not np.isnan(c.dice[organelle])]
        if known:
            result[f"dice_{organelle}"] = float(np.mean(known))
    if result:
        result["dice_mean"] = float(np.mean(list(result.values())))
    return result
