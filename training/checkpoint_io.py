"""Atomic checkpoints, and checkpoints that may be moved with their run folder."""

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from cytovox.io.atomic import atomic_path


class FolderCheckpoint(ModelCheckpoint):
    """Model checkpoint that finds its files by their names in the run folder.

    Lightning's own discards the best score if the path of the folder has changed; a run that was moved would overwrite
    `best.ckpt` with its next checkpoint.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state with all its paths moved into the present folder."""

        def moved(path: str) -> str:
            return str(Path(str(self.dirpath), Path(path).name)) if path else path

        paths = ("best_model_path", "last_model_path", "kth_best_model_path")
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        state = {**state_dict, **{key: moved(state_dict[key]) for key in paths}, "dirpath": self.dirpath}
        super().load_state_dict({**state, "best_k_models": best})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint to a temporary file in its own folder and rename it.

    Lightning's own writes to the system's temporary folder and moves the file. On another disk, that move is a copy,
    and a run that is killed during the copy leaves an incomplete `last.ckpt`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; raise `InputError` if the disk is full."""
        content = io.BytesIO()  # torch itself does not report a full disk as an OSError
        torch.save(checkpoint, content)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content.getbuffer())
