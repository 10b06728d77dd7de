"""The fake device is registered once; where this torch has none, the tests of this folder are skipped."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from tests.device.fake_device import Watch, fake_device, register

#: When tests are collected, not when they run: autograd counts the devices at the first backward pass of a process.
WITHOUT = register()


@pytest.fixture(scope="session", autouse=True)
def _registered() -> None:
    if WITHOUT is not None:
        pytest.skip(WITHOUT)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


@pytest.fixture
def watch(_registered: None) -> Iterator[Watch]:
    """The device for the time of a test, and what is recorded of it."""
    torch.manual_seed(0)
    with fake_device() as found:
        yield found
