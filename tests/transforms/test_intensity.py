import numpy as np
import pytest
import torch
from monai.transforms import Compose

from cytovox.errors import InputError
from cytovox.preprocess.intensity import NormaliseRI
from transforms.intensity import NormaliseRId, rand_ri_jitter


def test_the_papers_range_becomes_zero_to_one_and_the_rest_is_clipped():
    ri = np.array([0.0, 1.33, 1.337, 1.3635, 1.390, 1.45, np.inf])
    image = NormaliseRI()(ri)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, [0, 0, 0, 0.5, 1, 1, 1], atol=1e-6)
    assert image.min() == 0
    assert image.max() == 1


def test_another_range_can_be_set_and_the_input_is_left_alone():
    ri = np.full((2, 3, 4), 1.38, dtype=np.float32)
    np.testing.assert_allclose(NormaliseRI(1.33, 1.43)(ri), 0.5, atol=1e-5)
    assert (ri == np.float32(1.38)).all()


def test_nan_in_a_tomogram_is_the_users_to_mend():
    ri = np.full((4, 4, 4), 1.35)
    ri[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="NaN"):
        NormaliseRI()(ri)


@pytest.mark.parametrize("limits", [(1.39, 1.337), (1.35, 1.35), (0.0, 1.4)])
def test_an_impossible_range_is_refused(limits):
    with pytest.raises(InputError, match="ri_min"):
        NormaliseRI(*limits)


def test_the_dictionary_form_changes_its_keys_only():
    data = {"image": np.full((1, 2, 2, 2), 1.390), "mask": np.ones((4, 2, 2, 2), np.uint8)}
    result = Compose([NormaliseRId("image")])(data)
    np.testing.assert_allclose(result["image"], 1, atol=1e-6)
    assert result["mask"] is data["mask"]
    assert data["image"].max() == 1.390


def jittered(image: np.ndarray, seed: int, **limits: float) -> torch.Tensor:
    """The image after one draw."""
    transform = Compose(rand_ri_jitter("image", **limits)).set_random_state(seed)
    return transform({"image": image})["image"]


def test_jitter_is_off_unless_asked_for():
    assert rand_ri_jitter() == []


def test_jitter_stays_within_its_limits_and_repeats_with_its_seed():
    image = np.full((1, 2, 2, 2), 0.5, dtype=np.float32)
    limits = {"max_offset": 0.0053, "max_contrast": 0.2}  # +- 0.1 and +- 20 % once normalised

    def draws(first: int) -> list[float]:
        return [float(jittered(image, seed, **limits)[0, 0, 0, 0]) for seed in range(first, first + 200)]

    values = draws(3)
    assert values == draws(3)
    assert values != draws(1000)
    assert 0.3 - 1e-6 <= min(values) < 0.35
    assert 0.65 < max(values) <= 0.7 + 1e-6
    assert np.mean(values) == pytest.approx(0.5, abs=0.02)


def test_contrast_and_offset_are_drawn_apart_and_the_contrast_scales_about_zero():
    image = np.array([0.0, 0.2, 0.4], dtype=np.float32).reshape(1, 1, 1, 3)
    offsets, contrasts = [], []
    for seed in range(300):
        low, middle, high = jittered(image + 0.2, seed, max_offset=0.0053, max_contrast=0.3).flatten().tolist()
        assert high - middle == pytest.approx(middle - low, abs=1e-6)
        contrasts.append((high - low) / 0.4)
        offsets.append(low - 0.2 * contrasts[-1])
    assert 0.7 - 1e-4 <= min(contrasts) < 0.72
    assert 1.28 < max(contrasts) <= 1.3 + 1e-4
    assert -0.1 - 1e-4 <= min(offsets) < -0.09
    assert 0.09 < max(offsets) <= 0.1 + 1e-4
    assert abs(np.corrcoef(offsets, contrasts)[0, 1]) < 0.15


def test_one_limit_alone_changes_nothing_else():
    image = np.array([0.0, 0.5], dtype=np.float32).reshape(1, 1, 1, 2)
    scaled = jittered(image, 0, max_contrast=0.3).flatten()
    assert scaled[0] == 0
    assert scaled[1] != 0.5
    shifted = jittered(image + 0.25, 0, max_offset=0.005).flatten()
    assert float(shifted[1] - shifted[0]) == pytest.approx(0.5, abs=1e-6)
    assert shifted[0] != 0.25


def test_jitter_never_leaves_zero_to_one_and_gives_plain_tensors():
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 4, 4, 4)
    for seed in range(20):
        result = jittered(image, seed, max_offset=0.02)
        assert 0 <= result.min() <= result.max() <= 1
        assert type(result) is torch.Tensor
        assert result.dtype == torch.float32
        assert (image == np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 4, 4, 4)).all()


def test_negative_jitter_is_refused():
    with pytest.raises(InputError, match="max_offset"):
        rand_ri_jitter(max_offset=-0.1)
    with pytest.raises(InputError, match="max_contrast"):
        rand_ri_jitter(max_contrast=1.0)
