"""Old names keep working for one release: in files, on the command line, in weights; each with one notice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

import cytovox
from cytovox.models.metadata import read_checkpoint
from cytovox.networks.weights import shipped_weights
from cytovox.renamed import RENAMED_WEIGHTS
from experiments import renamed
from experiments.compose import compose
from experiments.config import load_config


@pytest.fixture(autouse=True)
def unprinted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test sees the notices anew."""
    monkeypatch.setattr(renamed, "_printed", set())


def test_old_values_on_the_command_line_are_the_new_ones_with_one_notice_each(capsys):
    words = ["method=fast", "loss.name=votes", "weights.default=cells_fast", "predict.checkpoint=[cells_fast]"]
    config = load_config("cells", words)
    assert (config.method, config.loss.name) == ("offsets", "centre_offsets")
    assert (config.weights.default, list(config.predict.checkpoint)) == ("cells_offsets", ["cells_offsets"])
    notices = capsys.readouterr().err.splitlines()
    assert len(notices) == 4
    assert (
        "note: command line: method: fast is now called offsets; the old name works until the next release" in notices
    )
    load_config("cells", words)
    assert capsys.readouterr().err == ""


def test_old_values_of_a_file_are_named_with_the_file(tmp_path: Path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("base: [analyze]\nmethod: fast\nmeasure: {area: staircase}\ncell_weights: cells_fast\n")
    values = compose(str(file)).values
    assert (values["method"], values["cell_weights"]) == ("offsets", "cells_offsets")
    assert values["measure"]["area"] == "marching_cubes"
    assert [line.split(":")[1].strip() for line in capsys.readouterr().err.splitlines()] == ["mine.yaml"] * 3


def test_old_keys_are_the_new_ones_with_a_notice(capsys):
    config = load_config("shape_demo", ["traits.told=0.25"])
    assert config.traits.given_fraction == 0.25
    assert "note: command line: traits.told is now called traits.given_fraction; the old" in capsys.readouterr().err


def test_old_options_in_the_metadata_of_weights_are_read():
    traits = read_checkpoint(shipped_weights()["shape_rbc"], "shape", "test").metadata.traits
    assert traits["given_fraction"] == 0.5
    assert "told" not in traits


def test_other_values_of_the_same_words_stay(capsys):
    assert compose("organelle", ["name=fast", "predict.out=votes"]).values["name"] == "fast"
    assert capsys.readouterr().err == ""


def test_every_new_name_exists_and_no_old_one_does():
    assert set(RENAMED_WEIGHTS.values()) <= set(shipped_weights())
    assert not set(RENAMED_WEIGHTS) & set(shipped_weights())


def test_old_names_of_weights_and_methods_are_read_from_python_and_from_old_files(tmp_path: Path):
    with pytest.warns(FutureWarning, match="cells_fast is now called cells_offsets"):
        model = cytovox.load_model("cells_fast", device="cpu")
    assert model.method == "offsets"
    path = shipped_weights()["cells_offsets"]
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["cytovox"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for method, read in (("fast", "offsets"), ("offsets", "offsets"), ("network", "network")):
        old = tmp_path / f"{method}.safetensors"
        save_file(tensors, old, metadata={"cytovox": json.dumps({**about, "method": method})})
        assert read_checkpoint(old, "cells", "test").metadata.method == read
