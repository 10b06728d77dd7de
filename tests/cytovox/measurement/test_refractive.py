"""Equation 1 on solutions whose concentration is known."""

import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.measurement.refractive import (
    CHOI_RULE,
    Increments,
    concentration_choi_g_per_ml,
    concentration_g_per_ml,
    dry_mass_pg,
)


def test_a_known_solution_reads_its_own_concentration():
    ri = np.full((4, 8, 8), 1.337 + 0.19 * 0.2)  # 0.2 g/mL of protein in the medium
    found = concentration_g_per_ml(ri, np.zeros(ri.shape, bool), 1.337)
    assert found == pytest.approx(0.2, abs=1e-12)


def test_lipid_has_an_increment_of_its_own_unless_all_is_uniform():
    ri, lipid = np.array([1.4, 1.4]), np.array([True, False])
    assert concentration_g_per_ml(ri, lipid, 1.33) == pytest.approx([0.07 / 0.135, 0.07 / 0.19])
    uniform = Increments(uniform=True)
    assert concentration_g_per_ml(ri, lipid, 1.33, uniform) == pytest.approx([0.07 / 0.19] * 2)
    assert uniform.rule == "0.19 mL/g"
    assert Increments().rule == "lipid 0.135, other 0.19 mL/g"


def test_as_published_a_compartment_has_one_increment_whatever_lies_in_it():
    ri, lipid = np.array([1.36, 1.36, 1.36, 1.42]), np.array([False, False, False, True])
    ours = concentration_g_per_ml(ri, lipid, 1.337).mean()
    whole = concentration_choi_g_per_ml(float(ri.mean()), "cell", 1.337)
    assert whole == pytest.approx(np.mean((ri - 1.337) / 0.19))
    assert whole < ours  # the droplet's voxel counts more in ours
    assert concentration_choi_g_per_ml(1.42, "lipid", 1.337) == pytest.approx(0.083 / 0.135)
    for compartment in ("nucleus", "nucleolus", "membrane", "another"):
        assert concentration_choi_g_per_ml(1.37, compartment, 1.337) == pytest.approx(0.033 / 0.19)
    assert np.isnan(concentration_choi_g_per_ml(float("nan"), "cell", 1.337))
    assert CHOI_RULE == "as published: lipid 0.135, cell, nucleus and nucleolus 0.19 mL/g"


def test_a_gram_in_a_millilitre_is_a_picogram_in_a_cubic_micrometre():
    # a litre holds 1e15 µm³: a cell of 1000 µm³ at 200 g/L holds 200 pg
    assert dry_mass_pg(np.full(8000, 0.2), voxel_um3=0.125) == pytest.approx(200)


def test_a_large_volume_does_not_lose_the_third_decimal():
    ri = np.full((256, 256, 64), 1.370, np.float32)
    found = concentration_g_per_ml(ri, np.zeros((1, 1, 1), bool), 1.337)
    assert found.mean() == pytest.approx(0.033 / 0.19, rel=1e-4)


def test_what_is_thinner_than_its_medium_reads_below_zero():
    assert concentration_g_per_ml(np.array([1.33]), np.array([False]), 1.337)[0] < 0


def test_an_increment_that_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"other_ml_per_g 19.0: expected an increment from 0.05 to 0.5 mL/g"):
        Increments(other_ml_per_g=19.0)
