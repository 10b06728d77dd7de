"""Checkpoints are written atomically."""

import errno
import os

import pytest
import torch

from cytovox.errors import InputError
from training.checkpoint_io import AtomicCheckpointIO, FolderCheckpoint


def test_a_checkpoint_reads_back_with_plain_types_only(tmp_path):
    AtomicCheckpointIO().save_checkpoint({"a": torch.arange(3), "epoch": 2}, tmp_path / "new" / "last.ckpt")
    content = torch.load(tmp_path / "new" / "last.ckpt", weights_only=True)
    assert content["epoch"] == 2
    assert content["a"].tolist() == [0, 1, 2]


def test_an_interrupted_write_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_is_an_input_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(InputError, match="no space left"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")


def test_a_run_folder_that_was_moved_keeps_its_best_score(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    first = FolderCheckpoint(dirpath=old, filename="best", monitor="val/dice_mean", mode="max")
    first.best_model_score = torch.tensor(0.9)
    first.best_model_path = str(old / "best.ckpt")
    first.best_k_models = {first.best_model_path: first.best_model_score}
    first.kth_best_model_path, first.kth_value = first.best_model_path, first.best_model_score
    second = FolderCheckpoint(dirpath=new, filename="best", monitor="val/dice_mean", mode="max")
    second.load_state_dict(first.state_dict())
    assert float(second.best_model_score) == pytest.approx(0.9)
    assert second.best_model_path == str(new / "best.ckpt")
    assert second.best_k_models == {str(new / "best.ckpt"): torch.tensor(0.9)}
    assert second.state_key == first.state_key
