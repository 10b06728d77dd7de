import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from cytovox.errors import InputError
from cytovox.models.metadata import read_checkpoint
from cytovox.models.weights_file import write_weights
from cytovox.simulation import simulate
from experiments.build import build_from_weights
from experiments.config import load_config
from experiments.export import main as export
from experiments.weights import read_weights, weights_path


@pytest.fixture
def exported(tmp_path, trained, capsys):
    out = tmp_path / "mine.safetensors"
    assert export([str(trained.run), str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    return out


def frame():
    tomogram = simulate("HeLa", 1, (16, 32, 32), (0.6, 0.6, 0.6))
    return tomogram.ri_ZYX, tomogram.spacing_um


def probabilities(tiny, *paths, **overrides):
    """What weights say of the frame, or of the array that is given last."""
    ri_ZYX, spacing_um = frame()
    if isinstance(paths[-1], np.ndarray):
        *paths, ri_ZYX = paths
    config = load_config(tiny, [f"{key}={value}" for key, value in overrides.items()])
    module = build_from_weights(config, read_weights(config, [Path(path) for path in paths]))
    module.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    return module.inferer()(ri_ZYX, spacing_um)


def test_exported_weights_predict_the_same_to_the_bit(tiny, trained, exported):
    best = trained.run / "checkpoints" / "best.ckpt"
    assert np.array_equal(probabilities(tiny, best), probabilities(tiny, exported))
    assert exported.stat().st_size < best.stat().st_size / 2


def test_half_precision_halves_the_file_and_hardly_moves_the_masks(tiny, tmp_path, trained, exported, capsys):
    out = tmp_path / "half.safetensors"
    assert export([str(trained.run), str(out), "--half"]) == 0
    assert out.stat().st_size < 0.6 * exported.stat().st_size
    np.testing.assert_allclose(probabilities(tiny, out), probabilities(tiny, exported), atol=0.02)


def test_what_cannot_be_exported_is_reported_in_one_line(tmp_path, trained, capsys):
    assert export([str(tmp_path), str(tmp_path / "a.safetensors")]) == 2
    assert "no checkpoints/best.ckpt" in capsys.readouterr().err
    assert export([str(trained.run), str(tmp_path / "a.pt")]) == 2
    assert "expected a name that ends in .safetensors" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_export_command_runs_as_a_process(tmp_path, trained):
    home = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.export", str(trained.run), str(tmp_path / "a.safetensors")],
        cwd=home, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(tmp_path / "a.safetensors", "organelle", "x").metadata.organelles[0] == "membrane"


def other_weights(tmp_path, exported, name, factor=1.0, **metadata):
    weights = read_checkpoint(exported, "organelle", "x")
    state = {
        key: value * factor if value.is_floating_point() else value for key, value in weights.network_state.items()
    }
    return write_weights(tmp_path / f"{name}.safetensors", state, {**dataclasses.asdict(weights.metadata), **metadata})


def test_an_ensemble_averages_the_probabilities_of_its_members(tmp_path, tiny, exported):
    other = other_weights(tmp_path, exported, "other", 0.5)
    one, two = probabilities(tiny, exported), probabilities(tiny, other)
    assert np.abs(one - two).max() > 0.01
    both = probabilities(tiny, exported, other, **{"predict.skip_below": "null"})
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-5)


def test_flips_average_the_mirror_images(tiny, exported):
    one_window = {"predict.stride": "[16,32,32]", "predict.pad_yx": "[0,0]", "predict.skip_below": "null"}
    ri_ZYX, _ = frame()
    plain = probabilities(tiny, exported, **one_window)
    mirrored = probabilities(tiny, exported, ri_ZYX[:, :, ::-1].copy(), **one_window)[..., ::-1]
    assert np.abs(plain - mirrored).max() > 1e-3
    both = probabilities(tiny, exported, **one_window, **{"predict.flips": "[x]"})
    np.testing.assert_allclose(both, (plain + mirrored) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"organelles": ["nucleus", "membrane", "lipid", "nucleolus"]}, "organelles"),
        ({"resample_spacing_um": [0.5, 0.5, 0.5]}, "resample_spacing_um"),
        ({"ri_range": [1.33, 1.4]}, "ri_range"),
    ],
)
def test_checkpoints_that_do_not_belong_together_are_refused(tmp_path, tiny, cells, exported, cli, metadata, expected):
    other = other_weights(tmp_path, exported, "other", **metadata)
    runs = tmp_path / "runs"
    words = ["stages=[predict]", f"predict.inputs=[{cells}/*.TCF]", f"predict.checkpoint=[{exported},{other}]"]
    answer = cli(tiny, *words, f"runs_dir={runs}")
    assert answer.code == 2
    assert len(answer.errors) == 1
    assert expected in answer.errors[0]
    assert "ensemble" in answer.errors[0]
    assert not runs.exists()


def test_the_same_checkpoint_twice_is_no_ensemble(tmp_path, tiny, cells, exported, cli):
    words = ["stages=[predict]", f"predict.inputs=[{cells}/*.TCF]", f"predict.checkpoint=[{exported},{exported}]"]
    answer = cli(tiny, *words, f"runs_dir={tmp_path / 'runs'}")
    assert answer.code == 2
    assert "named twice" in answer.errors[0]


def test_names_that_are_no_weights_are_answered_with_those_that_are():
    with pytest.raises(
        InputError, match=r"no such checkpoint; expected a \.ckpt file, a run folder .* or shipped weights"
    ):
        weights_path("nothing_of_that_name", "init_from")


def test_training_state_is_not_shipped_with_weights(exported):
    names = read_checkpoint(exported, "organelle", "x").network_state
    assert all(isinstance(tensor, torch.Tensor) for tensor in names.values())
    assert not [name for name in names if "optimizer" in name or "ema" in name]


def test_a_training_notes_the_ranges_of_its_inputs_and_the_export_keeps_them(trained, exported):
    best = read_checkpoint(trained.run / "checkpoints" / "best.ckpt", "organelle", "x").metadata.trained_on
    assert (best["inputs"], best["looked_at"]) == (2, 2)
    assert best["spacing_um"] == [[0.6, 0.6, 0.6], [0.6, 0.6, 0.6]]
    low, high = best["statistics"]["ri_p99.9"]
    assert 1.34 < low < high < 1.45
    assert read_checkpoint(exported, "organelle", "x").metadata.trained_on == best
