"""Messages about options and names."""

from types import SimpleNamespace

import pytest

from cytovox.errors import InputError
from cytovox.options import entry_of, nearest_name, option_errors, raise_errors


def test_each_value_that_is_not_allowed_gets_one_line() -> None:
    options = SimpleNamespace(steps=0, norm="layer", channels=(8, 0), depth=3)
    checks = (
        ("steps", False, "1 or more"), ("norm", False, "batch"), ("channels", False, "1 or more"), ("depth", True, "3"),
    )  # fmt: skip
    assert option_errors(options, *checks) == [
        "steps: 0: expected 1 or more",
        "norm: 'layer': expected batch",
        "channels: [8, 0]: expected 1 or more",
    ]


def test_all_errors_are_raised_in_one_line() -> None:
    raise_errors("heun", [])
    with pytest.raises(InputError, match=r"^heun: steps: 0; clip: 1$"):
        raise_errors("heun", ["steps: 0", "clip: 1"])


def test_an_unknown_name_gets_the_most_similar_and_all_names() -> None:
    known = {"residual_unet": 1, "scnas": 2}
    assert entry_of(known, "scnas", "network") == 2
    with pytest.raises(InputError) as caught:
        entry_of(known, "residual", "shape network")
    assert str(caught.value) == (
        "shape network 'residual': no such network; did you mean residual_unet? known: residual_unet, scnas"
    )
    assert nearest_name("qqqq", known) == "known: residual_unet, scnas"
