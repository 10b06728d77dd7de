"""torch.compile for training only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytorch_lightning as pl
import torch

from cytovox.errors import DeviceError


class CompiledNetwork(pl.Callback):
    """Compiles the network of a fit in place, so that names of parameters, and so checkpoints, stay as they are.

    Validation runs it uncompiled: its batches of windows and whole volumes have many shapes, and each would be compiled
    anew until torch's limit of recompilations ends that.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compile with the first step."""
        if stage == "fit":
            pl_module.network.compile(dynamic=False)  # type: ignore[union-attr]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Call the network as it is."""
        torch.compiler.set_stance("force_eager")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Call the compiled network again."""
        torch.compiler.set_stance("default")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave torch as it was, also after a validation that broke off."""
        torch.compiler.set_stance("default")


@contextlib.contextmanager
def compiler_errors() -> Iterator[None]:
    """Turn a failure of torch.compile into an error that names the key.

    Raises
    ------
    DeviceError
        The network could not be compiled here.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import, and few runs compile

    try:
        yield
    except TorchDynamoException as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DeviceError(
            f"trainer.compile: this network cannot be compiled here ({first}); set it to false"
        ) from error
