"""Checkpoints that are whole or not there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from formats.atomic import atomic_path


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
