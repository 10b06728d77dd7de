"""Test scores over one process and over two."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from datamodules.cases import RawCase, SimulatedCase
from lightning_modules.scoring import CaseScore, TestScores, mean_dice


def _scores(indices: range) -> TestScores:
    scores = TestScores(("nucleus", "lipid"))
    for index in indices:
        ri = np.full((2, 4, 4), 1.34, np.float32)
        truth = np.zeros((2, 2, 4, 4), np.uint8)
        truth[0, :, : 1 + index % 3], ri[:, : 1 + index % 3] = 1, 1.36
        pred = np.zeros_like(truth)
        pred[0, :, :2] = 1
        case = SimulatedCase("HeLa" if index % 2 else "A549", index, Path("x"), ("nucleus", "lipid"))
        scores.add(index, case, RawCase(ri, truth, np.array([True, index != 0]), (1.0, 1.0, 1.0)), pred)
    return scores


def _rank(rank: int, port: int, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    scores = _scores(range(rank, 5, 2))
    scores.gather()
    window = scores.windows.fit()["nucleus"]
    Path(out, f"{rank}.txt").write_text(f"{[c.name for c in scores.cases]} {scores.means()} {window}")
    dist.destroy_process_group()


def test_two_ranks_have_the_table_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_rank, args=(port, str(tmp_path)), nprocs=2)
    alone = _scores(range(5))
    alone.gather()
    output = f"{[c.name for c in alone.cases]} {alone.means()} {alone.windows.fit()['nucleus']}"
    assert {(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)} == {output}
    assert alone.windows.fit()["nucleus"].dice == pytest.approx(1)
    assert alone.windows.fit()["lipid"].n == 0


def test_means_are_over_the_cases_that_have_the_organelle() -> None:
    nan = float("nan")
    rows = [{"a": 0.5, "b": nan, "c": nan}, {"a": 1.0, "b": 0.2, "c": nan}]
    cases = [CaseScore(str(n), "x", n, row) for n, row in enumerate(rows)]
    assert mean_dice(("a", "b", "c"), cases) == pytest.approx({"dice_a": 0.75, "dice_b": 0.2, "dice_mean": 0.475})
    assert [c.mean for c in cases] == pytest.approx([0.5, 0.6])
    assert mean_dice(("c",), cases) == {}


@pytest.mark.parametrize(
    ("count", "labels"),
    [(0, {}), (1, {"best": 0.0}), (2, {"best": 1.0, "median": 0.0}), (5, {"best": 4.0, "median": 2.0, "worst": 0.0})],
)
def test_examples_are_the_best_the_median_and_the_worst(count: int, labels: dict[str, float]) -> None:
    scores = TestScores(("a",))
    scores.cases = [CaseScore(str(n), "x", n, {"a": float(n)}) for n in range(count)]
    scores.cases.append(CaseScore("nothing", "x", 9, {"a": float("nan")}))
    assert {label: case.mean for label, case in scores.examples().items()} == labels
