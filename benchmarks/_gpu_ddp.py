"""Part `ddp`: what torch's DistributedDataParallel and gradient accumulation add to a training step, on one process."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks._gpu_common import Settings, products_in
from benchmarks._gpu_record import Candidate, Recorder
from benchmarks._gpu_step import Step, build_step

#: Batches a step.
ACCUMULATED = (1, 2, 4)


class TrainingStep(nn.Module):
    """A module whose forward pass is the training step of another, as DDP wants it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        """The loss of a batch."""
        step: Callable[..., torch.Tensor] = self.module.training_step  # type: ignore[assignment]
        return step(batch, 0)


def measure_ddp(bench: Recorder) -> None:
    """A step of the config organelle, bare and wrapped, with 1, 2 and 4 batches a step, in turn."""
    with process_group(bench.settings) as backend:
        pairs = [(batches, wrapped) for batches in ACCUMULATED for wrapped in (False, True)]
        candidates = [_candidate(bench.settings, wrapped, batches, backend) for batches, wrapped in pairs]
        bench.interleave(candidates, budget_s=max(2.0, bench.left_s / 2), most=20)


def _candidate(settings: Settings, wrapped: bool, batches: int, backend: str) -> Candidate:
    labels = {
        "kind": "ddp", "config": "organelle", "precision": "bfloat16", "layout": "channels_last", "mode": "eager",
        "wrapped": wrapped, "batches": batches, "backend": backend if wrapped else None,
    }  # fmt: skip
    return Candidate(
        f"{'ddp' if wrapped else 'bare'} {batches} batches",
        lambda: accumulating(settings, wrapped, batches),
        labels,
        lambda seconds, _: {"ms_a_batch": 1e3 * seconds / batches},
    )


@contextlib.contextmanager
def process_group(settings: Settings) -> Iterator[str]:
    """A process group of one, by the environment that torchrun sets; gives the backend."""
    backend = "nccl" if settings.on_gpu else "gloo"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1",
                   "LOCAL_RANK": "0"}  # fmt: skip
    dist.init_process_group(backend)
    try:
        yield backend
    finally:
        dist.destroy_process_group()


def accumulating(settings: Settings, wrapped: bool, batches: int) -> Callable[[], None]:
    """A step over some batches, with or without DDP; gradients are reduced with the last batch only."""
    step: Step = build_step("organelle", settings, "bfloat16", channels_last=True)
    forward: nn.Module = TrainingStep(step.module)
    if wrapped:
        forward = DistributedDataParallel(forward, device_ids=[0] if settings.on_gpu else None)

    def loss() -> torch.Tensor:
        with torch.autocast(settings.device, dtype=torch.bfloat16):
            total: torch.Tensor = forward(step.batch)
        return total

    def call() -> None:
        step.optimizer.zero_grad(set_to_none=True)
        with products_in("bfloat16"):
            for batch in range(batches):
                last = batch + 1 == batches
                alone = contextlib.nullcontext() if last or not wrapped else forward.no_sync()  # type: ignore[operator]
                with alone:
                    step.backward(loss, 1 / batches)
            step.update()

    return call
