"""Memory and time that a training takes: of the process, its loader processes, the GPU, its batches and epochs."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytorch_lightning as pl
import torch

#: Seconds between two measurements of this process; one takes microseconds, and a large step longer than this.
INTERVAL_S = 0.01
#: Seconds before the first measurement of the loader processes, and longest interval: it doubles after each one.
LOADERS_S = (0.5, 30.0)


def own_bytes(process: psutil.Process) -> int:
    """Return the resident memory of a process without memory-mapped files.

    Pages of mapped files (libraries, prepared volumes) are released when memory is short. They are subtracted if the
    system counts them separately, as Linux does.
    """
    found = process.memory_info()
    return int(found.rss - getattr(found, "shared", 0))


def private_bytes(process: psutil.Process) -> int:
    """Return the memory of a child process that it does not share with its parent; 0 if it has ended."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    try:
        if rollup.is_file():
            rows = (line.split() for line in rollup.read_text(encoding="ascii").splitlines()[1:])
            return 1024 * sum(int(row[1]) for row in rows if row[0] == "Private_Dirty:")
        return int(process.memory_full_info().uss)
    except (psutil.Error, OSError):
        return 0


class MemoryWatch:
    """Measure memory in a thread, from `start` to `stop`."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.start_bytes = 0
        """Memory of this process at the start."""
        self.own_bytes = 0
        """Peak of this process."""
        self.loaders_bytes = 0
        """Peak of all child processes together, without memory that they share with this one."""

    def start(self) -> None:
        """Start the thread."""
        self.start_bytes = self.own_bytes = own_bytes(self._process)
        self._over.clear()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Measure once more and stop the thread; do nothing if it is stopped."""
        if self._thread is not None:
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
    """Measure the peak memory of a training on this rank.

    `fit/peak_memory_mb` counts this process, its loader processes and the prefetched batches, in 1e6 bytes;
    `fit/start_memory_mb` this process before the training. On a GPU, `fit/peak_gpu_memory_mb` counts allocated tensors
    and `fit/peak_gpu_reserved_mb` the memory that torch reserved.
    """

    def __init__(self) -> None:
        self.watch = MemoryWatch()
        self.batch_bytes = 0
        """Size of one batch."""
        self.loaders = 0
        """Number of batches that the loader processes prefetch."""
        self.batches = 0
        """Batches per epoch."""
        self.gpu_bytes = self.gpu_reserved_bytes = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the measurement of a training."""
        if stage == "fit":
            self.watch.start()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the peak of the GPU."""
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, _: int) -> None:
        """Measure the first batch."""
        if not self.batch_bytes:
            self.batch_bytes, self.batches = _tensor_bytes(batch), int(trainer.num_training_batches)
            loader = trainer.train_dataloader
            self.loaders = (getattr(loader, "prefetch_factor", None) or 0) * getattr(loader, "num_workers", 0)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the peaks."""
        self.watch.stop()
        if pl_module.device.type == "cuda":
            self.gpu_bytes = torch.cuda.max_memory_allocated(pl_module.device)
            self.gpu_reserved_bytes = torch.cuda.max_memory_reserved(pl_module.device)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop the thread."""
        self.watch.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop the thread."""
        self.watch.stop()

    def waiting_bytes(self, batches: int) -> int:
        """Return the size of the batches in shared memory: prefetched ones and the current one. No process counts them.

        Parameters
        ----------
        batches : int
            Batches per epoch.
        """
        return (min(self.loaders, batches) + 1) * self.batch_bytes if self.loaders else 0

    @property
    def peak_bytes(self) -> int:
        """Peak of the main memory."""
        return self.watch.own_bytes + self.watch.loaders_bytes + self.waiting_bytes(self.batches)

    def metrics(self) -> dict[str, float]:
        """Return the peaks for `metrics.json`."""
        found = {"fit/peak_memory_mb": self.peak_bytes / 1e6, "fit/start_memory_mb": self.watch.start_bytes / 1e6}
        if self.gpu_bytes:
            found["fit/peak_gpu_memory_mb"] = self.gpu_bytes / 1e6
            found["fit/peak_gpu_reserved_mb"] = self.gpu_reserved_bytes / 1e6
        return found


def _tensor_bytes(batch: Any) -> int:
    if isinstance(batch, torch.Tensor):
        return batch.numel() * batch.element_size()
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return sum(map(_tensor_bytes, parts))


class StepTimer(pl.Callback):
    """Measure the time per batch and per epoch of a training.

    `fit/batch_seconds` is the mean time from the end of a batch to the end of the next one in the same epoch;
    `fit/epoch_seconds` the mean time per epoch, with validation and checkpoints. A resumed run counts from its restart.
    """

    def __init__(self) -> None:
        self._begun: float | None = None
        self._last: float | None = None
        self._epochs = self._batches = 0
        self._between = self._seconds = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count an epoch; its first batch has no time."""
        self._begun = self._begun or time.perf_counter()
        self._last = None
        self._epochs += 1

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any) -> None:
        """Add the time since the last batch."""
        now = time.perf_counter()
        if self._last is not None:
            self._between += now - self._last
            self._batches += 1
        self._last = now

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the time of all epochs, after the last checkpoint."""
        if self._begun is not None:
            self._seconds = time.perf_counter() - self._begun

    def metrics(self) -> dict[str, float]:
        """Return the times for `metrics.json`; those that were not measured are missing."""
        found = {}
        if self._batches:
            found["fit/batch_seconds"] = self._between / self._batches
        if self._seconds:
            found["fit/epoch_seconds"] = self._seconds / self._epochs
        return found


def fit_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return the memory and time that the callbacks of a trainer measured."""
    measuring = [c for c in trainer.callbacks if isinstance(c, StepTimer | PeakMemory)]  # type: ignore[attr-defined]
    return {key: value for callback in measuring for key, value in callback.metrics().items()}
