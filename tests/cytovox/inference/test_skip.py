import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cytovox.inference.bricks
from cytovox.inference.tiling import SlidingWindow
from cytovox.inference.windows import only_medium

quick = settings(deadline=None, max_examples=20)
sizes = st.tuples(*[st.integers(1, 19)] * 3)
windows_and_strides = st.tuples(*[st.integers(1, 8)] * 3).flatmap(
    lambda w: st.tuples(st.just(w), st.tuples(*[st.integers(max(1, n // 3), n) for n in w]))
)


def spotted(shape, seed):
    """Medium of 0 with a few bright spots."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, dtype=np.float32)
    for _ in range(rng.integers(0, 4)):
        z, y, x = (int(rng.integers(0, n)) for n in shape)
        image[z : z + 3, y : y + 3, x : x + 3] = rng.uniform(0.2, 1)
    return torch.from_numpy(image)[None, None]


def zero_for_medium(threshold):
    """Return a network of two channels whose output is 0 for medium."""

    def network(windows):
        kept = torch.tensor([not only_medium(w, threshold) for w in windows]).view(-1, 1, 1, 1, 1)
        place = torch.linspace(0.2, 0.8, windows[0, 0].numel()).view(windows.shape[2:])
        return torch.cat([windows + place, 1 - windows * place], dim=1) * kept

    return network


@quick
@given(windows_and_strides, sizes, st.integers(0, 99), st.integers(1, 5), st.sampled_from(["tile", "center", "middle"]))
def test_skipping_changes_no_bit_if_the_network_gives_zero_for_medium(tiles, shape, seed, batch, z):
    image, network = spotted(shape, seed), zero_for_medium(0.05)
    common = {"window": tiles[0], "stride": tiles[1], "pad_yx": (2, 3), "sw_batch_size": batch, "z": z}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cytovox.inference.bricks, "BRICK", (3, 4, 5))
        computed = SlidingWindow(**common)(image, network)
        skipped = SlidingWindow(**common, skip_below=0.05)(image, network)
    assert torch.equal(computed, skipped)


@quick
@given(windows_and_strides, sizes, st.integers(0, 99), st.integers(1, 5))
def test_skipping_changes_no_bit_outside_skipped_windows(tiles, shape, seed, batch):
    image = spotted(shape, seed)

    def network(windows):
        return torch.linspace(0.2, 0.8, windows[0, 0].numel()).view(windows.shape[2:]) + windows / 9

    common = {"window": tiles[0], "stride": tiles[1], "pad_yx": (2, 3), "sw_batch_size": batch}
    computed = SlidingWindow(**common)(image, network)
    skipped = SlidingWindow(**common, skip_below=0.05)(image, network)

    def is_medium(windows):
        return torch.stack([torch.full(w.shape, float(only_medium(w, 0.05))) for w in windows])

    reached = SlidingWindow(**common)(image, is_medium) > 0
    assert torch.equal(computed[~reached], skipped[~reached])
    assert (skipped[reached] <= computed[reached]).all()


def test_batches_are_full_across_skipped_windows():
    image, seen = torch.zeros((1, 1, 1, 1, 64)), []
    image[..., 0:4] = image[..., 28:32] = image[..., 60:64] = 1

    def look(windows):
        seen.append(len(windows))
        return windows

    tiling = SlidingWindow((1, 1, 4), (1, 1, 4), pad_yx=(0, 0), sw_batch_size=2, skip_below=0.5)
    assert torch.equal(tiling(image, look), image)
    assert seen == [2, 1]


def test_a_volume_of_medium_gives_zero_in_all_channels():
    tiling = SlidingWindow((4, 4, 4), (2, 2, 2), pad_yx=(0, 0), skip_below=0.1)
    result = tiling(torch.zeros((2, 1, 9, 9, 9)), lambda w: torch.ones((len(w), 3, *w.shape[2:])))
    assert torch.equal(result, torch.zeros((2, 3, 9, 9, 9)))


@pytest.mark.parametrize(("value", "medium"), [(0.5, True), (0.52, False)])
@pytest.mark.parametrize("block", [(0, 0, 0), (4, 4, 8), (8, 8, 8)])
def test_the_mean_of_a_block_decides_also_of_smaller_blocks_at_the_end(value, medium, block):
    window = torch.zeros((1, 9, 10, 11))
    z, y, x = block  # the block at (8, 8, 8) has 1x2x3 voxels
    window[:, z : z + 4, y : y + 4, x : x + 4] = value
    assert only_medium(window, 0.51) is medium


def test_a_window_with_a_single_bright_voxel_is_skipped_but_not_one_with_a_bright_block():
    window = torch.zeros((1, 8, 8, 8))
    window[0, 5, 5, 5] = 1  # dust: 1/64 of its block
    assert only_medium(window, 0.1)
    window[0, 4:6, 4:6, 4:6] = 1
    assert not only_medium(window, 0.1)


def test_the_threshold_itself_is_medium():
    assert only_medium(torch.full((1, 8, 8, 8), 0.25), 0.25)
    assert not only_medium(torch.full((1, 8, 8, 8), 0.25), 0.24)


def test_a_bright_block_in_any_channel_counts():
    window = torch.zeros((2, 4, 4, 4))
    window[1] = 1
    assert not only_medium(window, 0.5)
