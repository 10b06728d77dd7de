"""Tests that need a CUDA GPU: `make test-gpu`.

With CYTOVOX_TEST_DEVICE=cpu the same tests run on the CPU, to develop them on a machine without a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.experiments.conftest import cells, cli, shape_folder

__all__ = ["cells", "cli", "shape_folder"]

#: The device under test.
DEVICE = os.environ.get("CYTOVOX_TEST_DEVICE", "cuda")
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder, and skip it where there is no GPU."""
    here = Path(__file__).parent
    missing = pytest.mark.skip(reason="needs a CUDA GPU: torch.cuda.is_available() is False")
    for item in items:
        if here not in item.path.parents:
            continue
        item.add_marker(pytest.mark.gpu)
        if DEVICE != "cpu" and not torch.cuda.is_available():
            item.add_marker(missing)


@pytest.fixture
def device() -> str:
    """Name of the device under test."""
    return DEVICE


@pytest.fixture
def exact_float32() -> Iterator[None]:
    """Float32 products and convolutions without TF32, as the CPU computes them."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
