"""Probabilities of a frame on disk: the same before and after compression, and removable."""

import numpy as np
import pytest

from experiments.tasks.analyze.frames import _mean_probabilities
from experiments.tasks.analyze.state import FrameState


@pytest.fixture
def probabilities() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (4, 5, 6), dtype=np.uint8) for name in ("membrane", "nucleus")}


def same(one, other) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


def test_compression_changes_no_probability(tmp_path, probabilities):
    state = FrameState(tmp_path / "t0000")
    assert not state.has_probabilities
    state.compress_probabilities()  # nothing to compress
    state.save_probabilities(probabilities)
    assert same(state.probabilities(), probabilities)
    state.compress_probabilities()
    assert [path.name for path in state.folder.iterdir()] == ["probabilities.npz"]
    assert state.has_probabilities
    assert same(state.probabilities(), probabilities)


def test_new_probabilities_replace_compressed_ones(tmp_path, probabilities):
    state = FrameState(tmp_path / "t0000")
    state.save_probabilities({"membrane": probabilities["nucleus"]})
    state.compress_probabilities()
    state.save_probabilities(probabilities)
    assert same(state.probabilities(), probabilities)
    state.remove_probabilities()
    assert not state.has_probabilities
    assert state.probabilities() == {}


@pytest.mark.parametrize("members", [0, 2])
def test_the_mean_is_over_the_frame_and_its_mirror_images(tmp_path, probabilities, members):
    state = FrameState(tmp_path / "t0000")
    state.save_probabilities(probabilities)
    for k in range(1, members + 1):
        state.member(k).save_probabilities({name: np.full_like(p, 30 * k) for name, p in probabilities.items()})
    job = type("Job", (), {"members": members})()
    found = _mean_probabilities(job, state)
    wanted = {name: np.rint((p.astype(float) + 30 + 60) / 3) if members else p for name, p in probabilities.items()}
    assert same(found, wanted)
