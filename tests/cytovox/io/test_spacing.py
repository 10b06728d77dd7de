"""Voxel size: what a file says, what a config says, and what is decided."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.io.spacing import (
    MAX_ANISOTROPY,
    PLAUSIBLE_UM,
    Reading,
    StoredSpacing,
    implausible,
    match_spacing,
    resolve_spacing,
)
from cytovox.io.units import LENGTH_UM, micrometres

length = st.floats(*PLAUSIBLE_UM)
spacing = st.tuples(length, length, length).filter(lambda s: implausible(s) is None)


@given(spacing, st.sampled_from(["um", "nm", "mm", "m"]))
def test_a_plausible_size_without_a_unit_has_one_reading(size: Any, unit: str) -> None:
    numbers = [s / LENGTH_UM[unit] for s in size]
    assume(not all(n == 1 for n in numbers))
    stored = StoredSpacing.without_unit(numbers, "its scale")
    assert len(stored.readings) == 1
    found = resolve_spacing("a.zarr", stored)
    assert found.spacing_um == pytest.approx(size, rel=1e-6)
    assert f"read as {unit}" in found.notes[0]


@given(spacing, spacing)
def test_file_and_config_agree_or_the_config_is_asked_for(own: Any, given_um: Any) -> None:
    stored = StoredSpacing.of(own)
    assert resolve_spacing("a.tif", stored).spacing_um == own
    same = all(abs(a - b) <= 0.02 * b for a, b in zip(own, given_um, strict=True))
    if same:
        assert resolve_spacing("a.tif", stored, given_um).spacing_um == own
    else:
        with pytest.raises(InputError, match="spacing_from: config"):
            resolve_spacing("a.tif", stored, given_um)
    forced = resolve_spacing("a.tif", stored, given_um, "config")
    assert forced.spacing_um == given_um
    assert bool(forced.notes) != same
    assert resolve_spacing("a.tif", StoredSpacing(), given_um).spacing_um == given_um


@settings(max_examples=50)
@given(st.tuples(*[st.floats(1e-6, 1e6)] * 3))
def test_nothing_implausible_passes(size: Any) -> None:
    fine = all(PLAUSIBLE_UM[0] <= s <= PLAUSIBLE_UM[1] for s in size) and max(size) <= MAX_ANISOTROPY * min(size)
    for stored, given_um, spacing_from in (
        (StoredSpacing.of(size), None, "file"),
        (StoredSpacing(), size, "file"),
        (StoredSpacing(), size, "config"),
    ):
        if fine:
            assert resolve_spacing("a", stored, given_um, spacing_from).spacing_um == size  # type: ignore[arg-type]
        else:
            with pytest.raises(InputError, match="expected"):
                resolve_spacing("a", stored, given_um, spacing_from)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "fine"),
    [
        ((0.02, 0.02, 0.02), True),
        ((0.019, 0.02, 0.02), False),
        ((5, 5, 5), True),
        ((5.1, 5, 5), False),
        ((4, 0.2, 0.2), True),
        ((4.1, 0.2, 0.2), False),
    ],
)
def test_the_limits_are_those_that_are_stated(size: Any, fine: bool) -> None:
    assert (implausible(size) is None) == fine


def test_what_a_file_leaves_out_is_filled_by_the_config() -> None:
    stored = StoredSpacing.of((None, 0.25, 0.2))
    with pytest.raises(InputError, match="along z"):
        resolve_spacing("a.tif", stored)
    assert resolve_spacing("a.tif", stored, (0.5, 0.251, 0.2)).spacing_um == (0.5, 0.25, 0.2)
    with pytest.raises(InputError, match=r"\(\?, 0.25, 0.2\)"):
        resolve_spacing("a.tif", stored, (0.5, 0.3, 0.2))
    with pytest.raises(InputError, match="needs spacing_um"):
        resolve_spacing("a.tif", stored, None, "config")


@given(spacing)
def test_a_mask_in_the_wrong_unit_is_read_by_its_tomogram(size: Any) -> None:
    assert match_spacing("m.nii", StoredSpacing.of(size), size, "t.tif") == ()
    assert match_spacing("m.nii", StoredSpacing(), size, "t.tif") == ()
    for factor, written in ((1e3, "um where mm"), (1e-3, "mm where um")):
        notes = match_spacing("m.nii", StoredSpacing.of([factor * s for s in size]), size, "t.tif")
        assert f"its spacing is written in {written} is expected" in notes[0]
    for factor in (1.03, 0.97, 2.0, 10.0):
        with pytest.raises(InputError, match=r"m\.nii: voxel size .* but t\.tif has"):
            match_spacing("m.nii", StoredSpacing.of([factor * s for s in size]), size, "t.tif")
    second = StoredSpacing((Reading((1.0, 1.0, 1.0), "by its sform"), Reading(size, "by its qform")))
    assume(not second.readings[0].agrees(size))
    assert "by its qform" in match_spacing("m.nii", second, size, "t.tif")[0]


@pytest.mark.parametrize(
    ("name", "um"),
    [
        *(
            (name, 1.0)
            for name in ("\u00b5m", "\u03bcm", "um", "micron", "Microns", "micrometers", "micrometre", "\\u00B5m")
        ),
        *((name, 1e-3) for name in ("nm", "nanometer", "Nanometres")),
        *((name, 1e3) for name in ("mm", "millimeter", "millimetres")),
        *((name, 1e-4) for name in ("\u00c5", "\u212b", "A\u030a", "angstrom")),
        ("m", 1e6),
        ("cm", 1e4),
        ("inch", 25400.0),
        *((name, None) for name in ("pixel", "", "none", "reference frame", "px")),
    ],
)
def test_units_have_many_names(name: str, um: float | None) -> None:
    assert micrometres(2, name) == (None if um is None else pytest.approx(2 * um))
