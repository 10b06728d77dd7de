"""Checkpoints that are whole or not there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from cytovox.io.atomic import atomic_path


class FolderCheckpoint(ModelCheckpoint):
    """Knows its files by their names in the run folder.

    Lightning's own forgets the best score when the folder's path has changed, and a run that was moved would overwrite
    `best.ckpt` with whatever comes first.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state as if it had been written here."""
        here = Path(str(self.dirpath))

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        paths = ("best_model_path", "last_model_path", "kth_best_model_path")
        state = {**state_dict, **{key: moved(state_dict[key]) for key in paths}, "dirpath": self.dirpath}
        state["best_k_models"] = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the checkpoint and renames.

    Lightning's own writes to the system's temporary folder and moves: where that is another disk, the move is a copy,
    and a kill in the middle of it leaves half a `last.ckpt` and nothing to resume from.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; `InputError` where the disk is full."""
        content = io.BytesIO()  # torch reports a full disk as anything but that; Python's own file does not
        torch.save(checkpoint, content)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content.getbuffer())
