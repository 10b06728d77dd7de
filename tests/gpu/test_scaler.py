"""The gradient scaler of 16-mixed on a GPU: what tests/training/test_scaler.py shows on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.scaler_runs import (
    check_a_scale_that_collapses_is_an_error,
    check_a_step_that_overflows_is_skipped,
    check_a_stopped_run_ends_as_one_that_was_not,
    check_the_scaler_is_saved_and_restored,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


def test_a_step_that_overflows_is_skipped_on_a_gpu(tmp_path: Path) -> None:
    check_a_step_that_overflows_is_skipped(tmp_path, "gpu")


def test_the_scaler_is_saved_and_restored_on_a_gpu(tmp_path: Path) -> None:
    check_the_scaler_is_saved_and_restored(tmp_path, "gpu")


def test_a_stopped_run_in_16_mixed_ends_as_one_that_was_not_on_a_gpu(tmp_path: Path) -> None:
    check_a_stopped_run_ends_as_one_that_was_not(tmp_path, "gpu")


def test_a_scale_that_collapses_is_an_error_on_a_gpu(tmp_path: Path) -> None:
    check_a_scale_that_collapses_is_an_error(tmp_path, "gpu")


def test_a_checkpoint_of_a_gpu_is_continued_on_a_cpu(tmp_path: Path) -> None:
    """The scale is stored as a number, and is restored on another device."""
    from tests.training.scaler_runs import SCALE, fit

    fit(tmp_path, "gpu", 1, overflow={1}, growth_interval=100)
    _, record, _ = fit(tmp_path, "cpu", 2, growth_interval=100)
    assert [step["scale"] for step in record.steps] == [SCALE / 2] * 6
