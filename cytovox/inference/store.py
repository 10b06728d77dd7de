"""Tensors by key, within a budget of memory; those beyond it lie in files."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cytovox.io.atomic import write_error
from cytovox.io.deletion import PART, remove_file, remove_temporary

Key = tuple[int, int, int]


class BrickStore:
    """Bricks in main memory up to a budget, the others in files of a scratch folder; use it as a context.

    Bricks on another device are neither counted nor moved to files: the device's own memory is their limit.

    Files are written and read as a whole, not mapped: mapped pages would count as this process's memory. The folder
    is created when the first brick is spilled, and removed with its content when the context ends, also by an error.

    Parameters
    ----------
    budget_bytes : float
        Main memory for bricks. The brick of the last `put` or `get` stays in memory in any case.
    scratch : Path, optional
        Parent of the folder of files; the system's temporary folder if not given.
    needed : callable
        From a key to the time at which its brick is needed next, of any type that can be compared. The brick that is
        needed last is spilled first.
    """

    def __init__(
        self, budget_bytes: float, scratch: Path | None = None, needed: Callable[[Key], Any] = lambda key: key
    ) -> None:
        self.budget_bytes, self.scratch, self.needed = budget_bytes, scratch, needed
        self._in_memory: dict[Key, torch.Tensor] = {}
        self._in_files: dict[Key, torch.Size] = {}
        self._folder: Path | None = None

    def __enter__(self) -> "BrickStore":
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all bricks, and remove the folder."""
        self._in_memory.clear()
        self._in_files.clear()
        if self._folder is not None:
            remove_temporary(self._folder)
            self._folder = None

    def __contains__(self, key: object) -> bool:
        return key in self._in_memory or key in self._in_files

    @property
    def in_memory(self) -> int:
        """Number of bricks in memory."""
        return len(self._in_memory)

    def put(self, key: Key, brick: torch.Tensor) -> None:
        """Keep a contiguous float32 tensor."""
        self._in_memory[key] = brick
        self._make_room(key)

    def get(self, key: Key, to_change: bool = False) -> torch.Tensor:
        """Return one brick; changes of it are only sure to be kept with `to_change`."""
        brick = self._in_memory.get(key)
        if brick is None:
            brick = self._load(key)
            self.put(key, brick)
        if to_change and key in self._in_files:  # the file is out of date from now on
            self._remove(key)
        return brick

    def pop(self, key: Key) -> torch.Tensor:
        """Return one brick and forget it."""
        brick = self._in_memory.pop(key, None)
        if brick is None:
            brick = self._load(key)
        if key in self._in_files:
            self._remove(key)
        return brick

    def _make_room(self, keep: Key) -> None:
        """Move the bricks that are needed last to files, until the others fit into the budget."""
        on_cpu = {key: brick for key, brick in self._in_memory.items() if brick.is_cpu}
        excess = sum(brick.nbytes for brick in on_cpu.values()) - self.budget_bytes
        on_cpu.pop(keep, None)
        while excess > 0 and on_cpu:
            key = max(on_cpu, key=self.needed)
            if key not in self._in_files:
                self._save(key, on_cpu[key])
            del self._in_memory[key]
            excess -= on_cpu.pop(key).nbytes

    def _save(self, key: Key, brick: torch.Tensor) -> None:
        where = self.scratch or Path(tempfile.gettempdir())
        try:
            if self._folder is None:
                where.mkdir(parents=True, exist_ok=True)
                self._folder = Path(tempfile.mkdtemp(prefix=f"{PART}bricks-", dir=where))
            self._path(key).write_bytes(brick.numpy().data.cast("B"))
        except OSError as error:
            reason = write_error(error, where, self._folder)
            if reason is None:
                raise
            raise reason from error
        self._in_files[key] = brick.shape

    def _load(self, key: Key) -> torch.Tensor:
        brick = torch.empty(self._in_files[key])
        with self._path(key).open("rb") as file:
            if file.readinto(brick.numpy().data.cast("B")) != brick.nbytes:
                raise OSError(f"{self._path(key)}: shorter than it was written")
        return brick

    def _remove(self, key: Key) -> None:
        remove_file(self._path(key), self._path(key).parent)
        del self._in_files[key]

    def _path(self, key: Key) -> Path:
        assert self._folder is not None
        return self._folder / "-".join(map(str, key))
