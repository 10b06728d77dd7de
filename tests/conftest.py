"""What every test shares: caches of its own, nothing sent to the network, and no run folder left in the environment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # a shell without job control starts what runs in its background with SIGINT ignored, and processes that tests start
    # would inherit that: none of them could be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)

if not os.environ.get("CYTOVOX_DATA"):  # an empty value names no folder: tests on real data are skipped
    os.environ.pop("CYTOVOX_DATA", None)


@pytest.fixture(scope="session")
def _session_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One cache for the session, so that what one test simulated, the next may read."""
    return str(tmp_path_factory.mktemp("cytovox_cache"))


@pytest.fixture(autouse=True)
def _own_environment(_session_cache: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Point the cache away from the user's; switch W&B off; forget the run folder that a test made."""
    monkeypatch.setenv("CYTOVOX_CACHE", _session_cache)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    os.environ.pop("CYTOVOX_RUN_DIR", None)
    yield
    os.environ.pop("CYTOVOX_RUN_DIR", None)
