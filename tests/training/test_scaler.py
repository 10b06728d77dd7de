"""16-mixed: the gradient scaler skips a step that overflows, and is part of the checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.training.scaler_runs import (
    check_a_scale_that_collapses_is_an_error,
    check_a_step_that_overflows_is_skipped,
    check_a_stopped_run_ends_as_one_that_was_not,
    check_the_scaler_is_saved_and_restored,
    fit,
)


def test_a_step_that_overflows_is_skipped(tmp_path: Path) -> None:
    check_a_step_that_overflows_is_skipped(tmp_path, "cpu")


def test_the_scaler_is_saved_and_restored(tmp_path: Path) -> None:
    check_the_scaler_is_saved_and_restored(tmp_path, "cpu")


def test_a_resumed_run_in_16_mixed_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    check_a_stopped_run_ends_as_one_that_was_not(tmp_path, "cpu")


def test_a_loss_scale_that_becomes_too_small_is_an_error(tmp_path: Path) -> None:
    check_a_scale_that_collapses_is_an_error(tmp_path, "cpu")


def test_16_mixed_on_a_cpu_is_computed_in_float16(tmp_path: Path) -> None:
    module, _, trainer = fit(tmp_path, "cpu", 1)
    assert str(trainer.precision) == "16-mixed"
    with trainer.precision_plugin.forward_context():
        assert module.network[0](torch.zeros(1, 1, 8, 8, 8)).dtype == torch.float16
