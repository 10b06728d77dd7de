"""Training in parts, weights over several files, and what a study prints while it trains."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cytovox.errors import InputError
from cytovox.models.metadata import ShapeMetadata, read_checkpoint
from cytovox.models.weights_file import KEY
from studies import _common
from studies._common import ProgressLines, _as_time, existing_run, run_study, trained_seconds, write_half_weights
from studies.join_weights import main as join_weights
from training.divergence import DivergenceError
from training.rundir import RunFolder


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint whose network has three tensors of 4000 numbers and a counter."""
    network = {f"network.{name}": torch.randn(40, 100) for name in "abc"}
    metadata = ShapeMetadata(task="shape", model={"network": "none"}, field={}, process={}, preconditioning={})
    path = tmp_path / "last.ckpt"
    state = {**network, "network.count": torch.tensor(7), "other": torch.ones(2)}
    torch.save({"state_dict": state, KEY: dataclasses.asdict(metadata)}, path)
    return path


def test_weights_over_several_files_are_joined_to_the_same_weights(checkpoint, tmp_path):
    parts = write_half_weights(checkpoint, tmp_path / "out" / "net.safetensors", limit=9000)
    assert [path.name for path in parts] == [f"net-{k}-of-3.safetensors" for k in (1, 2, 3)]
    joined = tmp_path / "joined.safetensors"
    assert join_weights([*map(str, reversed(parts)), str(joined)]) == 0
    given, found = (read_checkpoint(path, "shape", "test") for path in (checkpoint, joined))
    assert found.metadata == given.metadata
    assert found.network_state.keys() == given.network_state.keys() == {"a", "b", "c", "count"}
    for name, value in given.network_state.items():
        expected = value.half() if value.is_floating_point() else value
        assert torch.equal(found.network_state[name], expected)


def test_small_weights_are_one_file_and_older_parts_are_removed(checkpoint, tmp_path):
    old = write_half_weights(checkpoint, tmp_path / "out" / "net.safetensors", limit=9000)
    assert write_half_weights(checkpoint, tmp_path / "out" / "net.safetensors") == [tmp_path / "out/net.safetensors"]
    assert not any(path.exists() for path in old)


def test_earlier_weights_stay_where_the_new_ones_cannot_be_written(checkpoint, tmp_path, monkeypatch):
    old = write_half_weights(checkpoint, tmp_path / "net.safetensors", limit=9000)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(_common, "write_weights", full)
    with pytest.raises(OSError, match="no space"):
        write_half_weights(checkpoint, tmp_path / "net.safetensors")
    assert all(path.is_file() for path in old)


def test_a_tensor_beyond_float16_stays_in_float32(tmp_path):
    state = {"network.large": torch.tensor([70000.0, 0.1]), "network.small": torch.tensor([65504.0, 0.1])}
    metadata = ShapeMetadata(task="shape", model={"network": "none"}, field={}, process={}, preconditioning={})
    torch.save({"state_dict": state, KEY: dataclasses.asdict(metadata)}, tmp_path / "last.ckpt")
    (written,) = write_half_weights(tmp_path / "last.ckpt", tmp_path / "net.safetensors")
    found = read_checkpoint(written, "shape", "test").network_state
    assert torch.equal(found["large"], state["network.large"])
    assert torch.equal(found["small"], state["network.small"].half())
    assert (found["large"].dtype, found["small"].dtype) == (torch.float32, torch.float16)


def test_a_missing_part_is_an_error(checkpoint, tmp_path, capsys):
    parts = write_half_weights(checkpoint, tmp_path / "net.safetensors", limit=9000)
    assert join_weights([*map(str, parts[:2]), str(tmp_path / "joined.safetensors")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "one of 3 parts, but 2 are given" in error
    assert not (tmp_path / "joined.safetensors").exists()


def test_a_part_given_twice_is_an_error(checkpoint, tmp_path, capsys):
    first, second, _ = write_half_weights(checkpoint, tmp_path / "net.safetensors", limit=9000)
    assert join_weights([*map(str, (first, second, first)), str(tmp_path / "joined.safetensors")]) == 2
    assert "which another part holds as well" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "00:00:00:01"), (60.0, "00:00:01:00"), (3599.5, "00:01:00:00"), (90061.0, "01:01:01:01")],
)
def test_seconds_become_a_time_limit_rounded_up(seconds, text):
    assert _as_time(seconds) == text


def test_the_trained_time_is_that_of_the_last_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    assert trained_seconds(folder) == 0
    folder.checkpoints.mkdir()
    torch.save({"callbacks": {"Timer": {"time_elapsed": {"train": 12.5}}}}, folder.last_checkpoint)
    assert trained_seconds(folder) == 12.5
    torch.save({"callbacks": {}}, folder.last_checkpoint)
    assert trained_seconds(folder) == 0


def test_the_newest_run_of_a_name_is_continued(tmp_path):
    assert existing_run(tmp_path, "net") is None
    for name in ("20260101-000000-aaaa", "20260102-000000-aaaa"):
        (tmp_path / "net" / name).mkdir(parents=True)
        (tmp_path / "net" / name / "config.yaml").write_text("")
    (tmp_path / "net" / "20260103-000000-aaaa").mkdir()  # a run that never began
    assert existing_run(tmp_path, "net").path.name == "20260102-000000-aaaa"


def test_a_progress_line_shows_the_newest_value_of_every_metric(tmp_path):
    lines = ProgressLines(tmp_path, "net")
    assert lines.line() == "no step logged yet"
    run = tmp_path / "net" / "1"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("")
    (run / "metrics.csv").write_text("epoch,step,train/loss,val/dice_mean\n0,9,0.5,\n0,10,,0.25\n1,19,0.125,\n")
    assert lines.line() == "step 19, train/loss 0.125, val/dice_mean 0.25"


def test_ctrl_c_ends_a_study_with_130(capsys):
    def stopped(_):
        raise KeyboardInterrupt

    assert run_study(stopped, None) == 130
    assert "start the same command again" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "code"), [(InputError, 2), (DivergenceError, 1)])
def test_an_error_ends_a_study_with_its_own_exit_code(capsys, kind, code):
    def refused(_):
        raise kind("one line")

    assert run_study(refused, None) == code
    assert capsys.readouterr().err == "one line\n"
