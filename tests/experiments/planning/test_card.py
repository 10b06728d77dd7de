"""`--plan` for a GPU that this machine does not have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest


def test_a_plan_on_a_card_has_rows_with_and_without_checkpointing(tmp_path: Path, tiny: Path, cli: Any) -> None:
    out = tmp_path / "plan.json"
    words = ["model={network: scnas, width: 4, layers: 2}", "data.batch_size=2", "trainer.precision=auto"]
    answer = cli(tiny, "--plan", "plan.device=V100-32GB", f"plan.json={out}", *words)
    assert answer.code == 0, answer.err
    assert "nothing is measured" in answer.out
    found = json.loads(out.read_text())
    assert (found["device"], found["precision"], found["memory_bytes"]) == ("V100-32GB", "16-mixed", 32 * 2**30)
    plain, checkpointed = found["rows"]
    assert (plain["checkpointing"], checkpointed["checkpointing"]) == (False, True)
    assert plain["predicted_peak_bytes"] > checkpointed["predicted_peak_bytes"] > plain["weights_bytes"]
    assert plain["largest_batch"] < checkpointed["largest_batch"]
    assert plain["flop"] < checkpointed["flop"]
    assert plain["batch"] == 2
    assert not list(tmp_path.glob("runs*"))


@pytest.mark.slow
@pytest.mark.parametrize("config", ["shape_rbc", "shape_dispr", "shapr"])
def test_the_shape_tasks_are_planned_for_a_card(tmp_path: Path, cli: Any, config: str) -> None:
    out = tmp_path / "plan.json"
    answer = cli(config, "--plan", "plan.device=T4-16GB", f"plan.json={out}", f"runs_dir={tmp_path}",
                 "trainer.compile=true", "logging.wandb=disabled")  # fmt: skip
    assert answer.code == 0, answer.err
    assert "note: trainer.compile: the plan is of the network without torch.compile" in answer.out
    (row,) = json.loads(out.read_text())["rows"]
    assert row["checkpointing"] is None
    assert row["largest_batch"] > row["batch"] > 0


@pytest.mark.slow
def test_advice_for_a_batch_that_does_not_fit_is_checkpointing_or_a_smaller_batch(tiny: Path, cli: Any) -> None:
    words = ["--plan", "plan.device=T4-16GB", "data.patch_size=[64,128,128]", "predict.stride=null"]
    network = "network: scnas, width: 4, layers: 2"
    largest = {}
    for checkpointing in ("false", "true"):
        answer = cli(tiny, *words, f"model={{{network}, checkpointing: {checkpointing}}}", "data.batch_size=99")
        (found,) = re.findall(r"will not fit: .* try data.batch_size=(\d+)$", answer.out, re.MULTILINE)
        largest[checkpointing] = int(found)
    assert 1 < largest["false"] < largest["true"] < 99
    answer = cli(tiny, *words, f"model={{{network}}}", f"data.batch_size={largest['true']}")
    assert "try model.checkpointing=true" in answer.out
    answer = cli(tiny, *words, f"model={{{network}}}", f"data.batch_size={largest['false']}")
    assert "will not fit" not in answer.out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["plan.device=V100-33GB"], "plan.device: unknown card 'V100-33GB'; did you mean V100-32GB?"),
        (["plan.device=V100-32GB", "trainer.precision=bf16-mixed"], "trainer.precision: V100-32GB does not compute"),
        (["plan.device=V100-32GB", "stages=[test]", "predict.checkpoint=organelle"], "plan.device: plans a training"),
    ],
)
def test_an_invalid_plan_on_a_card_is_a_one_line_error(tiny: Path, cli: Any, words: list[str], error: str) -> None:
    answer = cli(tiny, "--plan", *words)
    assert (answer.code, len(answer.errors)) == (2, 1), answer.err
    assert error in answer.errors[0]


@pytest.mark.slow
def test_a_measured_plan_is_written_as_json(tmp_path: Path, tiny: Path, cli: Any) -> None:
    out = tmp_path / "plan.json"
    assert cli(tiny, "--plan", "stages=[fit]", f"plan.json={out}").code == 0
    found = json.loads(out.read_text())
    assert found["fit"]["host_bytes"] > 0
    assert found["seconds"] >= found["fit"]["seconds"] > 0
