"""16-mixed on a GPU, at the size of training: loss and gradients near those of float32."""

from __future__ import annotations

import pytest
import torch

from tests.training.precision_steps import CASES, check_16_mixed_is_near_float32

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


@pytest.fixture(autouse=True)
def _exact_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 as it is, for what is compared against: without TF32."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("name", list(CASES))
def test_a_step_in_16_mixed_is_near_one_in_float32_on_a_gpu(name: str) -> None:
    check_16_mixed_is_near_float32(CASES[name], "cuda", large=True)
