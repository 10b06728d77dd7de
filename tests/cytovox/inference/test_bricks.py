import errno
from contextlib import contextmanager
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cytovox.inference.bricks
import cytovox.inference.store
from cytovox.errors import InputError
from cytovox.inference.bricks import BatchOutput
from cytovox.inference.store import BrickStore
from cytovox.inference.tiling import SlidingWindow
from cytovox.inference.windows import TensorSource

quick = settings(deadline=None, max_examples=20)
sizes = st.tuples(*[st.integers(1, 19)] * 3)
bricks = st.tuples(*[st.integers(1, 9)] * 3)


@contextmanager
def bricks_of(size):
    """Bricks so small that small volumes have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cytovox.inference.bricks, "BRICK", size)
        yield


def tilings():
    sides = st.integers(1, 8).flatmap(lambda w: st.tuples(st.just(w), st.integers(max(1, w // 3), w)))
    return st.builds(
        lambda *pairs, **rest: SlidingWindow(tuple(w for w, _ in pairs), tuple(s for _, s in pairs), **rest),
        *[sides] * 3,
        weight=st.sampled_from(["spline", "gaussian", "constant"]),
        z=st.sampled_from(["tile", "center", "middle"]),
        pad_yx=st.tuples(*[st.integers(0, 9)] * 2),
        pad_mode=st.sampled_from(["symmetric", "edge", "constant"]),
        sw_batch_size=st.integers(1, 5),
    )


def wave(windows: torch.Tensor) -> torch.Tensor:
    """Two channels that depend on a voxel's place in its window, so that every seam shows."""
    place = torch.linspace(0.2, 0.8, windows[0, 0].numel()).view(windows.shape[2:])
    return torch.cat([windows * place, (1 - windows) * place.flip(0, 1, 2)], dim=1)


def streamed(tiling, image_CZYX, network, budget=inf, scratch=None):
    """The boxes put together, with how often each voxel was given, and the most bricks in memory and in files."""
    times = torch.zeros(image_CZYX.shape[1:], dtype=torch.int)
    result, most = torch.full((2, *image_CZYX.shape[1:]), torch.nan), [0, 0]
    with BrickStore(budget, scratch) as store:
        for box, values in tiling.stream(
            TensorSource(image_CZYX), lambda windows: iter([BatchOutput(network(windows))]), store
        ):
            result[(slice(None), *box)] = values
            times[box] += 1
            most = [max(most[0], store.in_memory), max(most[1], len(store._in_files))]
        assert store.in_memory == 0
    return result, times, most


@quick
@given(tilings(), sizes, bricks)
def test_bricks_cover_the_volume_exactly_once_and_change_no_bit(tiling, shape, size):
    image = torch.rand((1, *shape))
    with bricks_of(size):
        result, times, _ = streamed(tiling, image, wave)
    assert (times == 1).all()
    with bricks_of((99, 99, 99)):
        assert torch.equal(result, tiling(image[None], wave)[0])


@quick
@given(tilings(), sizes, bricks)
def test_a_network_of_ones_gives_exactly_one_for_every_size_of_bricks(tiling, shape, size):
    image = torch.rand((1, 1, *shape))
    with bricks_of(size):
        result = tiling(image, lambda w: torch.ones((len(w), 3, *w.shape[2:])))
    start, stop = tiling.find_slab(TensorSource(image[0]))
    assert torch.equal(result[:, :, start:stop], torch.ones((1, 3, stop - start, *shape[1:])))
    assert not result[:, :, :start].any()
    assert not result[:, :, stop:].any()


@settings(deadline=None, max_examples=15)
@given(tilings(), sizes, bricks, st.sampled_from([0, 700, 5000]))
def test_spilling_to_files_changes_no_bit(tmp_path_factory, tiling, shape, size, budget):
    image, scratch = torch.rand((1, *shape)), tmp_path_factory.mktemp("scratch")
    with bricks_of(size):
        kept, _, _ = streamed(tiling, image, wave)
        spilled, _, most = streamed(tiling, image, wave, budget, scratch)
    assert torch.equal(kept, spilled)
    assert most[0] <= 1 or budget
    assert not list(scratch.iterdir())


@quick
@given(tilings(), sizes, bricks)
def test_channels_last_outputs_are_summed_to_the_same_bits(tiling, shape, size):
    image = torch.rand((1, 1, *shape))
    with bricks_of(size):
        first = tiling(image, wave)
        last = tiling(image, lambda windows: wave(windows).contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(first, last, atol=1e-7, rtol=0)
    assert last.is_contiguous()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_live_bricks_do_not_grow_with_the_volume_beyond_the_budget(axis, tmp_path):
    tiling, most = SlidingWindow((4, 4, 4), (2, 2, 2), pad_yx=(0, 0)), []
    for length in (16, 48):
        shape = [16, 16, 16]
        shape[axis] = length
        with bricks_of((4, 4, 4)):
            most.append(streamed(tiling, torch.rand((1, *shape)), wave, 10 * 2 * 4 * 64, tmp_path)[2])
    assert most[0][0] == most[1][0] == 10
    assert axis == 0 or most[1][1] > most[0][1]  # the rest lies in files


def test_only_a_layer_of_the_volume_is_ever_kept():
    tiling = SlidingWindow((4, 4, 4), (2, 2, 2), pad_yx=(0, 0))
    with bricks_of((4, 4, 4)):
        _, _, most = streamed(tiling, torch.rand((1, 64, 8, 8)), wave)
    assert most[0] <= 2 * 4  # bricks of two layers, of sixteen


def test_the_brick_needed_last_is_the_one_that_is_spilled(tmp_path):
    tiling, saved = SlidingWindow((4, 4, 4), (2, 2, 2), pad_yx=(0, 0)), []
    save = BrickStore._save
    with bricks_of((2, 4, 4)), pytest.MonkeyPatch.context() as patch:
        patch.setattr(BrickStore, "_save", lambda store, key, brick: (saved.append(key), save(store, key, brick)))
        streamed(tiling, torch.rand((1, 8, 32, 16)), wave, 16 * 2 * 4 * 32, tmp_path)
    # there is room for what a row of windows works on, so bricks wait in files from layer to layer, not row to row
    assert 0 < len(saved) < 128


def test_files_are_removed_when_a_network_fails(tmp_path):
    calls = iter(range(99))

    def fails(windows: torch.Tensor) -> torch.Tensor:
        if next(calls) == 5:
            assert list(tmp_path.rglob("0-*"))
            raise RuntimeError("no more")
        return wave(windows)

    with bricks_of((4, 4, 4)), pytest.raises(RuntimeError, match="no more"):
        streamed(SlidingWindow((4, 4, 4), (2, 2, 2)), torch.rand((1, 8, 8, 8)), fails, 0, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_reported_in_one_line_and_nothing_is_left(tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *args):
            return self.file.__exit__(*args)

        def write(self, data):
            self.file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = type(tmp_path).open
    monkeypatch.setattr(type(tmp_path), "open", lambda path, *args, **kwargs: Full(opened(path, *args, **kwargs)))
    with bricks_of((4, 4, 4)), pytest.raises(InputError, match="no space left") as caught:
        streamed(SlidingWindow((4, 4, 4), (2, 2, 2)), torch.rand((1, 8, 8, 8)), wave, 0, tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


def test_a_scratch_folder_that_is_a_file_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with bricks_of((4, 4, 4)), pytest.raises(InputError, match="cannot be written"):
        streamed(SlidingWindow((4, 4, 4), (2, 2, 2)), torch.rand((1, 8, 8, 8)), wave, 0, tmp_path / "file" / "deeper")


def test_a_stored_brick_is_returned_unchanged_and_its_file_removed(tmp_path):
    first, second = torch.rand((2, 3, 4, 5)), torch.rand((2, 3, 4, 5))
    with BrickStore(0, tmp_path) as store:
        store.put((0, 0, 0), first.clone())
        store.put((0, 0, 1), second.clone())
        assert store.in_memory == 1
        store.get((0, 0, 0), to_change=True).mul_(2)
        assert torch.equal(store.pop((0, 0, 1)), second)
        assert torch.equal(store.pop((0, 0, 0)), first * 2)
        assert (0, 0, 0) not in store
        assert not list(tmp_path.rglob("*-*-0"))
    np.testing.assert_equal(list(tmp_path.iterdir()), [])
