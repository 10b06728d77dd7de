import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from cytovox.errors import InputError
from cytovox.inference.regions import NativeGrid, RegionSource, Resampler, matched_size, own_box_shape, taps
from cytovox.inference.store import BrickStore
from cytovox.io.regions import ArrayReader
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.preprocess.resampling import resize_linear

quick = settings(deadline=None, max_examples=25)
shapes = st.tuples(*[st.integers(1, 20)] * 3)
pieces = st.tuples(*[st.integers(1, 9)] * 3)


def ri_of(shape, seed=0):
    return np.random.default_rng(seed).uniform(1.33, 1.40, shape).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300))
def test_taps_are_torchs_antialiased_weights(n_in, n_out):
    size = (n_out, n_in)
    expected = interpolate(torch.eye(n_in)[None, None], size=size, mode="bilinear", align_corners=False, antialias=True)
    axis = taps(n_in, n_out)
    assert axis.span(0, n_out) == slice(0, n_in)
    torch.testing.assert_close(axis.matrix(0, n_out), expected[0, 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("n_in", "n_out"), [(2048, 1365), (1365, 2048), (2048, 3001), (5000, 512)])
def test_taps_of_long_axes_sample_where_torch_does(n_in, n_out):
    line = torch.from_numpy(np.random.default_rng(0).random(n_in, dtype=np.float32))
    expected = resize_linear(line.view(1, 1, 1, -1), (1, 1, n_out)).flatten()
    torch.testing.assert_close(taps(n_in, n_out).matrix(0, n_out) @ line, expected, atol=1e-6, rtol=0)


@quick
@given(shapes, shapes, pieces, st.data())
def test_a_region_equals_that_of_the_whole_resampled_volume(shape, target, piece, data):
    ri = ri_of(shape)
    whole = resize_linear(torch.from_numpy(NormaliseRI()(ri))[None], target)
    source = RegionSource(ArrayReader(ri), target, NormaliseRI(), piece, data.draw(st.sampled_from([0, 400, 1e9])))
    for _ in range(3):
        ends = [sorted(data.draw(st.tuples(st.integers(0, n - 1), st.integers(1, n)))) for n in target]
        box = tuple(slice(a, max(b, a + 1)) for a, b in ends)
        torch.testing.assert_close(source.read(box), whole[(slice(None), *box)], atol=1e-6, rtol=0)


class Counting(ArrayReader):
    def __init__(self, array):
        super().__init__(array)
        self.voxels = self.most = 0

    def read(self, box):
        result = super().read(box)
        self.voxels += result.size
        self.most = max(self.most, result.size)
        return result


@pytest.mark.parametrize("target", [(20, 40, 40), (30, 60, 60), (7, 13, 15)])
def test_overlapping_regions_are_read_once_and_never_the_whole(target):
    reader = Counting(ri_of((20, 40, 40)))
    source = RegionSource(reader, target, NormaliseRI(), (8, 16, 16), 1e9)
    for z in range(0, target[0] - 4, 2):
        for y in range(0, target[1] - 4, 2):
            source.read((slice(z, z + 4), slice(y, y + 4), slice(0, target[2])))
    assert reader.voxels <= 1.7 * 20 * 40 * 40  # with the halo of each piece
    assert reader.most <= 12 * 20 * 20


def test_the_pieces_used_last_are_kept_within_the_budget():
    source = RegionSource(ArrayReader(ri_of((4, 4, 40))), (4, 4, 40), NormaliseRI(), (4, 4, 4), 3 * 64 * 4)
    for x in range(0, 40, 4):
        source.read((slice(0, 4), slice(0, 4), slice(x, x + 4)))
        assert len(source._pieces) <= 3
    assert list(source._pieces) == [(0, 0, 7), (0, 0, 8), (0, 0, 9)]


def test_nan_is_reported_with_its_region():
    ri = ri_of((8, 8, 8))
    ri[5, 1, 2] = np.nan
    source = RegionSource(ArrayReader(ri), (8, 8, 8), NormaliseRI(), (4, 4, 4), 0)
    source.read((slice(0, 4), slice(0, 8), slice(0, 8)))
    with pytest.raises(InputError, match=r"NaN.*found in z 4 to 7, y 0 to 3, x 0 to 3") as caught:
        source.read((slice(4, 8), slice(0, 8), slice(0, 8)))
    assert "\n" not in str(caught.value)


@quick
@given(shapes, shapes, pieces, st.sampled_from([0, 1e9]), st.integers(0, 99))
def test_boxes_of_the_own_grid_equal_the_whole_resampled_volume(tmp_path_factory, common, own, brick, budget, seed):
    values = torch.rand((2, *common), generator=torch.Generator().manual_seed(seed))
    brick = tuple(min(b, n) for b, n in zip(brick, common, strict=True))
    values[:, : brick[0], : brick[1]] = 0  # bricks of zeros are not kept
    box_shape = own_box_shape(brick, common, own)
    result, times = torch.full((2, *own), torch.nan), torch.zeros(own, dtype=torch.int)
    with BrickStore(budget, tmp_path_factory.mktemp("scratch")) as store:
        grid = NativeGrid(common, own, brick, box_shape, store)
        for z, y, x in np.ndindex(*(-(-n // b) for n, b in zip(common, brick, strict=True))):
            at = tuple(slice(k * b, min((k + 1) * b, n)) for k, b, n in zip((z, y, x), brick, common, strict=True))
            for box, part in grid.take(at, values[(slice(None), *at)].contiguous()):
                result[(slice(None), *box)] = part
                times[box] += 1
                for s, n, m in zip(box, box_shape, own, strict=True):
                    assert s.start % n == 0
                    assert s.stop == min(s.start + n, m)
        assert store.in_memory == 0
    assert (times == 1).all()
    torch.testing.assert_close(result, resize_linear(values, own), atol=1e-6, rtol=0)


def test_bricks_are_removed_after_their_last_box():
    common, own, brick = (32, 8, 8), (48, 8, 8), (4, 8, 8)
    with BrickStore(1e9) as store:
        grid = NativeGrid(common, own, brick, own_box_shape(brick, common, own), store)
        for z in range(0, 32, 4):
            list(grid.take((slice(z, z + 4), slice(0, 8), slice(0, 8)), torch.ones((1, *brick))))
            assert store.in_memory <= 2


@quick
@given(st.integers(1, 200), st.integers(1, 2000), st.integers(1, 2000))
def test_matched_sizes_are_bounded_on_both_grids(size, n_own, n_other):
    piece = matched_size(size, n_own, n_other)
    assert 1 <= piece <= min(size, n_own)
    assert piece == 1 or piece * n_other / n_own <= 1.5 * size + 1


def test_resampling_is_float32_also_under_autocast():
    values, box = torch.rand((1, 4, 4, 30)), (slice(0, 4), slice(0, 4), slice(0, 20))
    resampler = Resampler((4, 4, 30), (4, 4, 20))
    expected = resampler(values, box)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resampler(values, box), expected)
