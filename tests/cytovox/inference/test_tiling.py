import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import dense_patch_slices
from monai.inferers import sliding_window_inference
from monai.inferers.utils import _get_scan_interval

import cytovox.inference.bricks
from cytovox.errors import InputError
from cytovox.inference.bricks import BatchOutput
from cytovox.inference.store import BrickStore
from cytovox.inference.tiling import SlidingWindow
from cytovox.inference.windows import TensorSource, read_padded, window_starts, window_weight

quick = settings(deadline=None, max_examples=40)
sizes = st.tuples(*[st.integers(1, 19)] * 3)


@st.composite
def tilings(draw, **fixed):
    window = draw(st.tuples(*[st.integers(1, 8)] * 3))
    chosen = {
        "window": window,
        "stride": tuple(draw(st.integers(max(1, w // 3), w)) for w in window),
        "weight": draw(st.sampled_from(["spline", "gaussian", "constant"])),
        "pad_yx": draw(st.tuples(*[st.integers(0, 9)] * 2)),
        "pad_mode": draw(st.sampled_from(["symmetric", "edge", "constant"])),
        "sw_batch_size": draw(st.integers(1, 5)),
    }
    return SlidingWindow(**(chosen | fixed))


def identity(windows: torch.Tensor) -> torch.Tensor:
    return windows


def monai_overlap(window: tuple[int, ...], stride: tuple[int, ...]) -> tuple[float, ...]:
    """MONAI's overlap for a stride in voxels; half a voxel of slack, because MONAI rounds it down to whole voxels."""
    return tuple(0.0 if s == w else 1 - (s + 0.5) / w for w, s in zip(window, stride, strict=True))


@quick
@given(tilings(), sizes, st.integers(1, 2))
def test_an_identity_network_reproduces_its_input_without_changing_it(tiling, shape, batch):
    image = torch.rand((batch, 2, *shape))
    before = image.clone()
    result = tiling(image, identity)
    torch.testing.assert_close(result, before, atol=1e-5, rtol=1e-5)
    assert torch.equal(image, before)
    assert result.is_contiguous()


@quick
@given(tilings(), sizes)
def test_weights_sum_to_one_so_a_network_of_ones_gives_exactly_one_everywhere(tiling, shape):
    result = tiling(torch.rand((1, 1, *shape)), lambda windows: torch.ones((len(windows), 3, *windows.shape[2:])))
    assert result.shape == (1, 3, *shape)
    assert torch.equal(result, torch.ones_like(result))


@quick
@given(tilings(), sizes)
def test_every_window_has_the_size_of_the_network_and_batches_are_limited(tiling, shape):
    seen = []

    def look(windows: torch.Tensor) -> torch.Tensor:
        seen.append(windows.shape)
        return windows

    tiling(torch.rand((1, 1, *shape)), look)
    assert {tuple(s[2:]) for s in seen} == {tiling.window}
    assert max(s[0] for s in seen) <= tiling.sw_batch_size


@quick
@given(tilings(), st.tuples(*[st.integers(8, 19)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_it_agrees_with_monais_sliding_window(tiling, shape, bricks):
    tiling = dataclasses.replace(tiling, pad_yx=(0, 0))
    image = torch.rand((2, 1, *shape))

    def network(windows):  # depends on a voxel's place in its window
        return torch.linspace(0, 1, windows[0, 0].numel()).view(windows.shape[2:]) + torch.cat(
            [windows, 1 - windows], 1
        )

    expected = sliding_window_inference(
        image,
        tiling.window,
        tiling.sw_batch_size,
        network,
        monai_overlap(tiling.window, tiling.stride),
        roi_weight_map=window_weight(tiling.window, tiling.weight),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cytovox.inference.bricks, "BRICK", bricks)
        torch.testing.assert_close(tiling(image, network), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("stride", "starts"), [(3, [0, 3, 6, 9, 12]), (8, [0, 8, 12]), (7, [0, 7, 12]), (5, [0, 5, 10, 12])]
)
def test_windows_step_by_the_stride_and_the_last_one_ends_with_the_volume(stride, starts):
    tiling = SlidingWindow((1, 1, 8), (1, 1, stride), pad_yx=(0, 0))
    seen = []

    def look(windows: torch.Tensor) -> torch.Tensor:
        seen.append(int(windows[0, 0, 0, 0, 0]))
        return windows

    tiling(torch.arange(20.0).reshape(1, 1, 1, 1, 20), look)
    assert seen == starts


@quick
@given(st.integers(1, 200).flatmap(lambda w: st.tuples(st.just(w), st.integers(1, w), st.integers(w, 700))))
def test_windows_have_the_positions_of_monais_windows(numbers):
    window, stride, size = numbers
    interval = _get_scan_interval((size,) * 3, (window,) * 3, 3, monai_overlap((window,) * 3, (stride,) * 3))
    assert interval == ((window if size == window else stride),) * 3  # MONAI's step where there is one window only
    slices = dense_patch_slices((size, 1, 1), (window, 1, 1), (stride, 1, 1))
    assert [s[0].start for s in slices] == window_starts(size, window, stride)


@quick
@given(st.one_of(tilings(z="center"), tilings(z="middle")), sizes)
def test_a_slab_is_exactly_one_window_of_depth(tiling, shape):
    depth, window = shape[0], tiling.window[0]
    result = tiling(torch.ones((1, 1, *shape)), lambda windows: torch.ones_like(windows))
    expected = torch.zeros(depth)
    start = max(0, (depth - window) // 2)
    expected[start : start + window] = 1
    assert torch.equal(result, expected[:, None, None].expand_as(result))
    assert expected.sum() == min(depth, window)


def test_the_slab_in_the_middle_shows_its_own_voxels():
    image = torch.rand((1, 1, 13, 9, 9))
    result = SlidingWindow((4, 8, 8), (4, 4, 4), z="middle", pad_yx=(3, 3))(image, identity)
    torch.testing.assert_close(result[:, :, 4:8], image[:, :, 4:8])
    assert not result[:, :, :4].any()
    assert not result[:, :, 8:].any()


def test_two_windows_are_blended_by_their_triangles():
    values = iter([0.0, 1.0])
    tiling = SlidingWindow((1, 1, 8), (1, 1, 4), pad_yx=(0, 0))
    result = tiling(torch.zeros((1, 1, 1, 1, 12)), lambda windows: torch.full_like(windows, next(values)))
    np.testing.assert_allclose(result.flatten(), [0] * 4 + [1 / 8, 3 / 8, 5 / 8, 7 / 8] + [1] * 4, atol=1e-6)


def test_spline_weights_are_separable_triangles_that_sum_to_one_at_half_a_window():
    weight = window_weight((2, 2, 8), "spline")
    np.testing.assert_allclose(weight[0, 0] * 4, np.array([1, 3, 5, 7, 7, 5, 3, 1]) / 8, atol=1e-6)
    line = window_weight((1, 1, 64), "spline")[0, 0]
    torch.testing.assert_close(line[:32] + line[32:], torch.ones(32))


@pytest.mark.parametrize("kind", ["spline", "gaussian", "constant"])
def test_no_weight_is_near_zero(kind):
    weight = window_weight((64, 128, 128), kind)
    assert weight.dtype == torch.float32
    assert weight.shape == (64, 128, 128)
    assert 1e-3 - 1e-9 <= weight.min() <= weight.max() <= 1
    torch.testing.assert_close(weight, weight.flip(0, 1, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_of_the_network_does_not_reach_the_blending(dtype):
    tiling = SlidingWindow((8, 16, 16), (3, 5, 7), pad_yx=(8, 8))
    third = torch.tensor(1 / 3, dtype=dtype)
    result = tiling(torch.rand((1, 1, 20, 40, 33)), lambda windows: third.expand_as(windows))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.full_like(result, float(third)), atol=1e-6, rtol=0)


def test_a_half_precision_input_is_blended_in_float32_too():
    image = torch.rand((1, 1, 9, 9, 9)).half()
    result = SlidingWindow((4, 4, 4), (1, 2, 3), pad_yx=(2, 2))(image, identity)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, image.float())


def test_extra_arguments_reach_the_network():
    tiling = SlidingWindow((4, 4, 4), (4, 4, 4), pad_yx=(0, 0))
    result = tiling(torch.ones((1, 1, 8, 8, 8)), lambda windows, gain, offset: windows * gain + offset, 3.0, offset=0.5)
    assert torch.equal(result, torch.full_like(result, 3.5))


@quick
@given(sizes, st.tuples(*[st.integers(0, 25)] * 6), st.sampled_from(["symmetric", "edge", "constant"]))
def test_padding_equals_that_of_numpy_also_beyond_the_size_of_the_volume(shape, amounts, mode):
    pads = [amounts[:2], amounts[2:4], amounts[4:]]
    volume = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    expected = np.pad(volume, [(0, 0), *pads], mode=mode)
    size = [before + n + after for n, (before, after) in zip(shape, pads, strict=True)]
    padded = read_padded(TensorSource(torch.from_numpy(volume)), [-before for before, _ in pads], size, mode)
    np.testing.assert_array_equal(padded, expected)


def test_padding_shows_the_network_the_mirrored_border():
    seen = []

    def look(windows: torch.Tensor) -> torch.Tensor:
        seen.append(windows.clone())
        return windows

    SlidingWindow((1, 1, 4), (1, 1, 4), pad_yx=(0, 2))(torch.arange(4.0).reshape(1, 1, 1, 1, 4), look)
    assert [w.flatten().tolist() for w in seen] == [[1, 0, 0, 1], [2, 3, 3, 2]]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"stride": (65, 64, 64)}, "stride"),
        ({"stride": (32, 0, 64)}, "stride"),
        ({"window": (0, 8, 8)}, "window"),
        ({"pad_yx": (-1, 0)}, "pad_yx"),
        ({"sw_batch_size": 0}, "sw_batch_size"),
        ({"weight": "splines"}, "expected one of spline, gaussian, constant"),
        ({"z": "centre"}, "expected one of tile, center"),
        ({"skip_below": 1.0}, "skip_below"),
        ({"skip_below": float("nan")}, "skip_below"),
        ({"pad_mode": "mirror"}, "expected one of symmetric, edge, constant"),
    ],
)
def test_settings_that_cannot_tile_are_refused_in_one_line(setting, words):
    with pytest.raises(InputError, match=words) as caught:
        SlidingWindow(**setting)
    assert "\n" not in str(caught.value)


def test_all_errors_are_reported_at_once():
    with pytest.raises(InputError, match=r"stride.*pad_yx.*weight"):
        SlidingWindow(stride=(0, 0, 0), pad_yx=(-1, 0), weight="none")


def test_windows_of_nothing_but_padding_are_not_computed():
    seen = []
    tiling = SlidingWindow((1, 1, 4), (1, 1, 4), pad_yx=(0, 8))
    result = tiling(torch.arange(8.0).reshape(1, 1, 1, 1, 8), lambda windows: seen.append(windows) or windows)
    assert [w.flatten().tolist() for w in seen] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert result.flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_progress_is_reported_over_windows_and_ends_with_all_of_them():
    reported = []
    tiling = SlidingWindow((4, 4, 4), (2, 2, 2), pad_yx=(0, 0), sw_batch_size=4)
    with BrickStore(0) as store:
        source = TensorSource(torch.rand((1, 8, 8, 8)))
        list(tiling.stream(source, lambda w: iter([BatchOutput(w)]), store, progress=lambda *n: reported.append(n)))
    assert reported == [(4, 27), (8, 27), (12, 27), (16, 27), (20, 27), (24, 27), (27, 27)]


def test_a_bar_shows_the_windows_of_all_images(capsys):
    tiling = SlidingWindow((4, 4, 4), (4, 4, 4), pad_yx=(0, 0), progress=True)
    assert tiling(torch.ones((2, 1, 8, 8, 8)), identity).all()
    assert "Traceback" not in capsys.readouterr().err


def test_a_network_that_needs_gradients_gives_none():
    layer = torch.nn.Conv3d(1, 1, 1)
    assert not SlidingWindow((4, 4, 4), (2, 2, 2))(torch.rand((1, 1, 6, 6, 6)), layer).requires_grad


def test_a_network_of_two_outputs_is_a_bug():
    with pytest.raises(TypeError, match="expected one tensor"):
        SlidingWindow((4, 4, 4), (4, 4, 4))(torch.rand((1, 1, 8, 8, 8)), lambda windows: (windows, windows))


def test_a_network_that_changes_the_size_is_a_bug_not_a_result():
    with pytest.raises(ValueError, match="became"):
        SlidingWindow((4, 4, 4), (4, 4, 4))(torch.rand((1, 1, 8, 8, 8)), lambda windows: windows[:, :, ::2])
