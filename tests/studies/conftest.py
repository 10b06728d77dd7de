"""Cells for the studies: small simulated ones, enough for five folds."""

from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.config import SimulatedSet
from datamodules.shape.config import ShapeSimulatorData
from datamodules.shape.simulated import simulated_shapes
from tests.datamodules.shape.write import write_shapes


@pytest.fixture(scope="session")
def red_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten simulated cells of one class with image, mask and object: two in each of five folds."""
    folder = tmp_path_factory.mktemp("red_cells")
    config = ShapeSimulatorData(train=SimulatedSet(presets=["RAW264.7"], count=10))
    write_shapes(simulated_shapes(config, "train"), folder)
    return folder
