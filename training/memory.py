"""How much memory the training takes: of the process, of its loader processes, and on the GPU."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytorch_lightning as pl
import torch

#: Seconds between looks at this process: a look costs microseconds, a large step takes longer than this.
INTERVAL_S = 0.01
#: Seconds until the first look at the loader processes; each next one waits twice as long, up to the second number.
LOADERS_S = (0.5, 30.0)


def own_bytes(process: psutil.Process) -> int:
    """Resident memory that only this process can give back.

    Files that are mapped (libraries, prepared volumes) do not count where the system tells them apart, as Linux does:
    their pages go when memory is short, and how many are resident depends on what was read last.
    """
    found = process.memory_info()
    return int(found.rss - getattr(found, "shared", 0))


def private_bytes(process: psutil.Process) -> int:
    """Memory of a child process beyond what it shares with its parent; 0 of one that has ended."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    try:
        if rollup.is_file():
            rows = (line.split() for line in rollup.read_text(encoding="ascii").splitlines()[1:])
            return 1024 * sum(int(row[1]) for row in rows if row[0] == "Private_Dirty:")
        return int(process.memory_full_info().uss)
    except (psutil.Error, OSError):
        return 0


class MemoryWatch:
    """Samples in a thread, from `start` to `stop`."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.start_bytes = 0
        """Of this process when the watch began."""
        self.own_bytes = 0
        """Largest of this process."""
        self.loaders_bytes = 0
        """Largest of all child processes together, beyond what they share with this one."""

    def start(self) -> None:
        """Begin."""
        self.start_bytes = self.own_bytes = own_bytes(self._process)
        self._over.clear()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look a last time, and end. A second call does nothing."""
        if self._thread is None:
            return
        self._over.set()
        self._thread.join()
        self._thread = None
        self._look()
        self._look_at_loaders()

    def _watch(self) -> None:
        slept, wait = 0.0, LOADERS_S[0]
        while not self._over.wait(INTERVAL_S):
            self._look()
            slept += INTERVAL_S
            if slept >= wait:
                self._look_at_loaders()
                slept, wait = 0.0, min(2 * wait, LOADERS_S[1])

    def _look(self) -> None:
        self.own_bytes = max(self.own_bytes, own_bytes(self._process))

    def _look_at_loaders(self) -> None:
        found = sum(private_bytes(child) for child in self._process.children(recursive=True))
        self.loaders_bytes = max(self.loaders_bytes, found)


class PeakMemory(pl.Callback):
    """Watches the fit; `metrics` are its peaks when it has ended.

    `fit/peak_memory_mb` is of this process, its loader processes and the batches that wait between them, in
    1e6 bytes; `fit/start_memory_mb` is what this process had before. On a GPU `fit/peak_gpu_memory_mb` is what tensors
    took, and `fit/peak_gpu_reserved_mb` what torch kept for them. All of this rank.
    """

    def __init__(self) -> None:
        self.watch = MemoryWatch()
        self.batch_bytes = 0
        """Of one batch."""
        self.loaders = 0
        """Batches that loader processes read ahead."""
        self.batches = 0
        """Batches of an epoch."""
        self.gpu_bytes = self.gpu_reserved_bytes = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin with the fit."""
        if stage == "fit":
            self.watch.start()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The peak of the GPU counts from here, too."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, _: int) -> None:
        """Learn how large a batch is, once."""
        if self.batch_bytes:
            return
        self.batch_bytes = _tensor_bytes(batch)
        loader = trainer.train_dataloader
        ahead = (getattr(loader, "prefetch_factor", None) or 0) * getattr(loader, "num_workers", 0)
        self.loaders, self.batches = ahead, int(trainer.num_training_batches)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the peaks."""
        self.watch.stop()
        if pl_module.device.type == "cuda":
            self.gpu_bytes = torch.cuda.max_memory_allocated(pl_module.device)
            self.gpu_reserved_bytes = torch.cuda.max_memory_reserved(pl_module.device)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """End the thread of a fit that broke off."""
        self.watch.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The same."""
        self.watch.stop()

    def waiting_bytes(self, batches: int) -> int:
        """Batches in shared memory, which no process counts as its own: those read ahead, and the one in use."""
        return (min(self.loaders, batches) + 1) * self.batch_bytes if self.loaders else 0

    @property
    def peak_bytes(self) -> int:
        """Everything in main memory."""
        return self.watch.own_bytes + self.watch.loaders_bytes + self.waiting_bytes(self.batches)

    def metrics(self) -> dict[str, float]:
        """Flat numbers for the run folder."""
        found = {"fit/peak_memory_mb": self.peak_bytes / 1e6, "fit/start_memory_mb": self.watch.start_bytes / 1e6}
        if self.gpu_bytes:
            found["fit/peak_gpu_memory_mb"] = self.gpu_bytes / 1e6
            found["fit/peak_gpu_reserved_mb"] = self.gpu_reserved_bytes / 1e6
        return found


def _tensor_bytes(batch: Any) -> int:
    if isinstance(batch, torch.Tensor):
        return batch.numel() * batch.element_size()
    if isinstance(batch, Mapping):
        return sum(map(_tensor_bytes, batch.values()))
    return sum(map(_tensor_bytes, batch)) if isinstance(batch, list | tuple) else 0
