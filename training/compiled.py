"""torch.compile for training only."""

import contextlib
from collections.abc import Iterator

import pytorch_lightning as pl
import torch

from cytovox.errors import DeviceError


class CompiledNetwork(pl.Callback):
    """Compile the network of a training in place; the names of its parameters stay the same.

    Validation runs the network uncompiled: its windows and whole volumes have many shapes, and each would trigger a
    recompilation until torch's limit is reached.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Request the compilation, which takes place in the first step."""
        if stage == "fit":
            pl_module.network.compile(dynamic=False)  # type: ignore[union-attr]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Use the uncompiled network."""
        torch.compiler.set_stance("force_eager")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Use the compiled network again."""
        torch.compiler.set_stance("default")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reset torch, also after a validation that was interrupted."""
        torch.compiler.set_stance("default")


@contextlib.contextmanager
def compiler_errors() -> Iterator[None]:
    """Raise a failure of torch.compile as an error that names the config key.

    Raises
    ------
    DeviceError
        The network cannot be compiled on this machine.
    """
    from torch._dynamo.exc import TorchDynamoException  # the import takes a second, and few runs compile

    try:
        yield
    except TorchDynamoException as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DeviceError(
            f"trainer.compile: this network cannot be compiled here ({first}); set it to false"
        ) from error
