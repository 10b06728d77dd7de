"""A W&B upload does not delay the end of a run."""

from __future__ import annotations

import sys
import threading
import types

import pytest

from training import wandb_log


@pytest.mark.parametrize("preempted", [False, True])
def test_a_hanging_upload_does_not_prevent_a_requeue(monkeypatch, preempted):
    calls: list[object] = []
    run = types.SimpleNamespace(mark_preempting=lambda: calls.append("preempting"))

    def finish(exit_code: int) -> None:
        calls.append(exit_code)
        threading.Event().wait()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=run, finish=finish))
    monkeypatch.setattr(wandb_log, "STOPPED_TIMEOUT_S", 0.2)
    wandb_log.finish(object(), ended_well=False, preempted=preempted)  # type: ignore[arg-type]
    assert calls == [*(["preempting"] if preempted else []), 1]
