import numpy as np
import pytest
from monai.transforms import Compose

from cytovox.errors import InputError
from cytovox.preprocess.intensity import NormaliseRI
from transforms.intensity import NormaliseRId, RandRIShiftd


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


def test_jitter_is_off_unless_asked_for():
    image = np.random.default_rng(0).random((1, 4, 4, 4), dtype=np.float32)
    assert RandRIShiftd()({"image": image})["image"] is image


def test_jitter_stays_within_its_limits_and_repeats_with_its_seed():
    image = np.full((1, 2, 2, 2), 0.5, dtype=np.float32)
    jitter = RandRIShiftd(max_offset=0.0053, max_contrast=0.2)  # +- 0.1 and +- 20 % once normalised

    def draws(seed: int) -> list[float]:
        jitter.set_random_state(seed)
        return [float(jitter({"image": image})["image"][0, 0, 0, 0]) for _ in range(200)]

    values = draws(3)
    assert values == draws(3)
    assert values != draws(4)
    assert 0.3 - 1e-6 <= min(values) < 0.35
    assert 0.65 < max(values) <= 0.7 + 1e-6


def test_jitter_never_leaves_zero_to_one():
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 4, 4, 4)
    jitter = RandRIShiftd(max_offset=0.02).set_random_state(0)
    for _ in range(20):
        result = jitter({"image": image})["image"]
        assert 0 <= result.min() <= result.max() <= 1


def test_negative_jitter_is_refused():
    with pytest.raises(InputError, match="max_offset"):
        RandRIShiftd(max_offset=-0.1)
