import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import cytovox.inference.bricks
import cytovox.inference.predictor
from cytovox.errors import InputError
from cytovox.inference.predictor import DenseInferer
from cytovox.inference.tiling import SlidingWindow
from cytovox.io.regions import ArrayReader
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.preprocess.resampling import ResampleTo, common_grid, resize_linear

quick = settings(deadline=None, max_examples=15)
SMALL = SlidingWindow((4, 6, 6), (2, 3, 3), pad_yx=(3, 3), sw_batch_size=2)
grids = st.one_of(
    st.builds(lambda *n: ResampleTo(grid=n), *[st.integers(1, 11)] * 3),
    st.builds(lambda *s: ResampleTo(spacing_um=s), *[st.floats(0.2, 0.5)] * 3),
)


@pytest.fixture(autouse=True)
def small_bricks(monkeypatch):
    for module in (cytovox.inference.bricks, cytovox.inference.predictor):
        monkeypatch.setattr(module, "BRICK", (4, 5, 6))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 3, padding=1)).eval()


def ri_of(shape, seed=0):
    return np.random.default_rng(seed).uniform(1.33, 1.40, shape).astype(np.float32)


def whole(inferer: DenseInferer, ri, spacing_um) -> np.ndarray:
    """Return the prediction of a frame in memory, step by step."""
    shape, _ = common_grid(ri.shape, spacing_um, inferer.resample)
    image = resize_linear(torch.from_numpy(NormaliseRI()(ri))[None], shape)
    with torch.no_grad():
        output = inferer.tiling(image[None], lambda windows: inferer.network(windows).sigmoid())[0]
    return resize_linear(output, ri.shape).numpy()


@quick
@given(
    grids,
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from([0, 4e-6, 1.0]),
    st.sampled_from(["tile", "center", "middle"]),
)
def test_boxes_cover_the_own_grid_once_and_equal_the_whole_volume(tmp_path_factory, resample, shape, memory, z):
    tiling = SlidingWindow((4, 6, 6), (2, 3, 3), pad_yx=(3, 3), sw_batch_size=2, z=z)
    scratch = tmp_path_factory.mktemp("scratch")
    inferer = DenseInferer(network(), resample, tiling, memory_gb=memory, scratch=scratch)
    ri, spacing_um = ri_of(shape), (0.3, 0.2, 0.2)
    box_shape = inferer.box_shape(shape, spacing_um)
    result, times = np.full((3, *shape), np.nan, np.float32), np.zeros(shape, int)
    for box, probabilities in inferer.boxes(ArrayReader(ri), spacing_um):
        assert probabilities.dtype == np.float32
        assert [s.start % n for s, n in zip(box, box_shape, strict=True)] == [0, 0, 0]
        assert [s.stop for s in box] == [min(s.start + n, m) for s, n, m in zip(box, box_shape, shape, strict=True)]
        result[(slice(None), *box)] = probabilities
        times[box] += 1
    assert (times == 1).all()
    np.testing.assert_allclose(result, whole(inferer, ri, spacing_um), atol=2e-6)
    np.testing.assert_array_equal(inferer(ri, spacing_um), result)
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_an_ensemble_of_two_is_the_mean_of_both(precision):
    ri, grid = ri_of((6, 12, 11)), ResampleTo(grid=(6, 12, 11))
    both = [network(1), network(2)]
    each = [DenseInferer(n, grid, SMALL, precision=precision)(ri, (1, 1, 1)) for n in both]
    assert abs(each[0] - each[1]).max() > 0.01
    together = DenseInferer(both, grid, SMALL, precision=precision)(ri, (1, 1, 1))
    np.testing.assert_allclose(together, (each[0] + each[1]) / 2, atol=1e-6)


@pytest.mark.parametrize("flips", [("x",), ("z", "y"), ("z", "y", "x")])
@pytest.mark.parametrize("channels_last", [False, True])
def test_flips_change_nothing_for_a_symmetric_network(flips, channels_last):
    ri, grid = ri_of((7, 12, 11)), ResampleTo(grid=(6, 12, 14))
    pointwise = nn.Sequential(nn.Conv3d(1, 8, 1), nn.ReLU(), nn.Conv3d(8, 3, 1)).eval()
    plain = DenseInferer(pointwise, grid, SMALL)(ri, (1, 1, 1))
    flipped = DenseInferer(pointwise, grid, SMALL, flips=flips, channels_last=channels_last)(ri, (1, 1, 1))
    np.testing.assert_allclose(flipped, plain, atol=1e-6)


def test_flips_are_the_mean_over_mirrored_volumes():
    """Windows lie symmetrically here, so mirrored windows are the windows of the mirrored volume."""
    ri, grid = ri_of((8, 12, 12)), ResampleTo(grid=(8, 12, 12))
    plain = DenseInferer(network(), grid, SMALL)
    expected = np.mean(
        [
            np.flip(plain(np.ascontiguousarray(np.flip(ri, axes)), (1, 1, 1)), [a + 1 for a in axes])
            for axes in [(), (1,), (2,), (1, 2)]
        ],
        axis=0,
    )
    flipped = DenseInferer(network(), grid, SMALL, flips=("y", "x"))(ri, (1, 1, 1))
    np.testing.assert_allclose(flipped, expected, atol=1e-6)
    assert abs(flipped - plain(ri, (1, 1, 1))).max() > 1e-3


@pytest.mark.parametrize("flips", [("t",), ("y", "y"), ("zy",)])
def test_flips_along_no_axis_are_refused(flips):
    with pytest.raises(InputError, match="out of z, y, x"):
        DenseInferer(network(), ResampleTo(grid=(4, 4, 4)), SMALL, flips=flips)


@pytest.mark.parametrize("memory", [-1, float("nan"), float("inf")])
def test_an_impossible_amount_of_memory_is_refused(memory):
    with pytest.raises(InputError, match="memory_gb"):
        DenseInferer(network(), ResampleTo(grid=(4, 4, 4)), SMALL, memory_gb=memory)


def test_an_ensemble_without_a_network_is_refused():
    with pytest.raises(InputError, match="at least one"):
        DenseInferer([], ResampleTo(grid=(4, 4, 4)), SMALL)


def test_every_network_returns_to_its_mode_also_after_an_unfinished_prediction():
    networks = [network().train(), network()]
    inferer = DenseInferer(networks, ResampleTo(grid=(8, 12, 12)), SMALL)
    boxes = inferer.boxes(ArrayReader(ri_of((8, 12, 12))), (1, 1, 1))
    next(boxes)
    assert not networks[0].training
    boxes.close()
    assert networks[0].training
    assert not networks[1].training


def test_the_grad_mode_of_the_caller_is_unchanged_between_boxes():
    inferer = DenseInferer(network(), ResampleTo(grid=(8, 12, 12)), SMALL)
    for _ in inferer.boxes(ArrayReader(ri_of((8, 12, 12))), (1, 1, 1)):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_nan_in_a_region_ends_in_one_line_and_leaves_no_file(tmp_path):
    ri = ri_of((12, 12, 12))
    ri[11, 11, 11] = np.nan
    inferer = DenseInferer(network(), ResampleTo(grid=(9, 12, 12)), SMALL, memory_gb=0, scratch=tmp_path)
    with pytest.raises(InputError, match=r"NaN.*found in z \d+ to 11"):
        list(inferer.boxes(ArrayReader(ri), (1, 1, 1)))
    assert not list(tmp_path.iterdir())


class Endless:
    """A frame of any size whose regions are constant."""

    def __init__(self, shape):
        self.shape, self.most = shape, 0

    def read(self, box):
        shape = [s.stop - s.start for s in box]
        self.most = max(self.most, int(np.prod(shape)))
        return np.full(shape, 1.36, np.float32)


@pytest.mark.parametrize("resample", [ResampleTo(spacing_um=(1, 1, 1)), ResampleTo(spacing_um=(1.5, 0.8, 1.1))])
def test_memory_does_not_grow_with_the_volume(resample, monkeypatch, tmp_path):
    from cytovox.inference.store import BrickStore

    stores, most = [], []
    tiling = SlidingWindow((4, 6, 6), (3, 5, 5), pad_yx=(0, 0))
    enter = BrickStore.__enter__
    monkeypatch.setattr(BrickStore, "__enter__", lambda store: (stores.append(store), enter(store))[1])
    for shape in [(8, 12, 12), (24, 12, 12), (8, 36, 12), (8, 12, 36)]:
        stores.clear()
        reader, live = Endless(shape), 0
        inferer = DenseInferer(nn.Conv3d(1, 2, 1), resample, tiling, memory_gb=20e-6, scratch=tmp_path)
        for _ in inferer.boxes(reader, (1, 1, 1)):
            live = max(live, sum(brick.nbytes for store in stores for brick in store._in_memory.values()))
        most.append((reader.most, live))
    assert max(live for _, live in most) <= 20e3
    assert max(read for read, _ in most) <= 1000
    assert not list(tmp_path.iterdir())


def test_a_large_volume_may_be_streamed_but_a_mistaken_unit_may_not():
    inferer = DenseInferer(network(), ResampleTo(spacing_um=(0.2, 0.1, 0.1)), SMALL)
    assert inferer.box_shape((1024, 2048, 2048), (0.2, 0.1, 0.1)) == (4, 6, 6)  # whole strides
    with pytest.raises(InputError, match="check the unit"):
        inferer.box_shape((96, 96, 96), (139.0, 139.0, 139.0))
    with pytest.raises(InputError, match="check the unit"):  # but what is held in memory has its limit still
        common_grid((1024, 2048, 2048), (0.2, 0.1, 0.1), ResampleTo(spacing_um=(0.2, 0.1, 0.1)))


def test_an_outer_autocast_reaches_neither_resampling_nor_stitching():
    ri, grid = ri_of((7, 12, 11)), ResampleTo(grid=(5, 14, 9))
    identity = nn.Identity()
    expected = DenseInferer(identity, grid, SMALL)(ri, (1, 1, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(DenseInferer(identity, grid, SMALL)(ri, (1, 1, 1)), expected)
