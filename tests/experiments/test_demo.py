"""The demo keeps its promise: it trains for minutes, so `make test-all` runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from cytovox.io import read_volume

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of the shipped demo, trained and tested as it is."""
    runs = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "experiments.run", "organelle_demo", f"runs_dir={runs}", "logging.wandb=disabled"]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=True)
    return Path(done.stdout.splitlines()[-1].removeprefix("run: "))


@pytest.mark.slow
def test_unseen_cells_are_segmented_where_no_threshold_does(demo: Path) -> None:
    metrics = json.loads((demo / "metrics.json").read_text())
    assert metrics["test/dice_mean"] >= 0.85
    assert min(metrics[f"test/dice_{k}"] for k in ("membrane", "nucleus", "nucleolus", "lipid")) >= 0.70
    assert max(metrics[f"test/window_dice_{k}"] for k in ("nucleus", "nucleolus")) < 0.6
    assert max(metrics[f"test/window_dice_{k}"] for k in ("membrane", "lipid")) < 0.9


@pytest.mark.slow
def test_the_body_of_a_real_cell_is_found(demo: Path) -> None:
    if "CYTOVOX_DATA" not in os.environ:
        pytest.skip("needs a real tomogram: set CYTOVOX_DATA to the folder that holds tomograms/hl60.TCF")
    source = Path(os.environ["CYTOVOX_DATA"]) / "tomograms" / "hl60.TCF"
    words = [f"resume={demo}", "stages=[predict]", f"predict.inputs=[{source}]"]
    subprocess.run([sys.executable, "-m", "experiments.run", *words], cwd=HOME, capture_output=True, check=True)
    real, masks = read_volume(source), read_volume(demo / "predictions" / "hl60.ome.tif")
    assert masks.shape == (2, 4, 96, 96, 96)
    assert masks.spacing_um == pytest.approx(real.spacing_um)
    for t in range(2):
        body, found = binary_fill_holes(real.frame(t) > 1.345), masks.frame(t, "membrane") > 0
        assert 2 * np.count_nonzero(body & found) / (body.sum() + found.sum()) >= 0.8
