"""Difficulty of simulated cells: index windows do not segment the organelles."""

import numpy as np

from cytovox.metrics.overlap import RIWindowFit
from cytovox.simulation import PRESETS, simulate


def test_no_index_window_segments_an_organelle():
    fit = RIWindowFit(bin_width=5e-4)
    for preset in PRESETS:
        tomogram = simulate(preset, 11, (64, 96, 96))
        fit.add(tomogram.ri_ZYX, tomogram.masks)
    best = {organelle: window.dice for organelle, window in fit.fit().items()}
    assert best["nucleus"] < 0.6
    assert best["nucleolus"] < 0.6
    assert best["membrane"] < 0.9
    assert best["lipid"] < 0.9
    assert best["membrane"] > 0.75  # nor are they hidden: cells are denser than their medium,
    assert best["lipid"] > 0.6  # and lipid is densest of all


def test_dense_granules_have_the_index_of_lipid():
    tomogram = simulate("A549", 11, (64, 96, 96))
    droplets = tomogram.ri_true_ZYX[tomogram.masks["lipid"]]
    cytoplasm = tomogram.masks["membrane"] & ~tomogram.masks["lipid"] & ~tomogram.masks["nucleus"]
    dense = tomogram.ri_true_ZYX[cytoplasm] > np.percentile(droplets, 10)
    assert np.count_nonzero(dense) > 0.1 * len(droplets)


def test_thin_parts_of_a_cell_have_an_index_near_the_medium():
    tomogram = simulate("NIH3T3", 11, (64, 96, 96))
    inside = tomogram.ri_true_ZYX[tomogram.masks["membrane"]] - tomogram.medium_ri
    assert np.mean(inside < 0.4 * np.median(inside)) > 0.05
