"""Tensors by key, within a budget of memory; what is beyond it lies in plain files."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from cytovox.io.atomic import write_error
from cytovox.io.deletion import PART, remove_file, remove_temporary

Key = tuple[int, int, int]


class BrickStore:
    """Bricks in main memory up to a budget, the others in files of a scratch folder; use it as a context.

    Bricks on another device are neither counted nor moved to files: the device's own memory is their limit.

    Files are written and read as a whole, not mapped: mapped pages would count as this process's memory. The folder
    is made when the first brick is spilled, and removed with all that is in it when the context ends, however it ends.

    Parameters
    ----------
    budget_bytes : float
        Main memory for bricks. The one brick that was put or got last stays in memory in any case.
    scratch : Path, optional
        Where the folder of files is made; the system's temporary folder if not given.
    needed : callable
        When a brick is needed next, as anything that can be compared. The one needed last is spilled first.
    """

    def __init__(
        self, budget_bytes: float, scratch: Path | None = None, needed: Callable[[Key], Any] = lambda key: key
    ) -> None:
        self.budget_bytes, self.scratch, self.needed = budget_bytes, scratch, needed
        self._in_memory: dict[Key, torch.Tensor] = {}
        self._in_files: dict[Key, torch.Size] = {}
        self._bytes = 0
        self._folder: Path | None = None

    def __enter__(self) -> "BrickStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all bricks, and remove the folder."""
        self._in_memory.clear()
        self._in_files.clear()
        self._bytes = 0
        if self._folder is not None:
            remove_temporary(self._folder)
            self._folder = None

    def __contains__(self, key: Key) -> bool:
        return key in self._in_memory or key in self._in_files

    @property
    def in_memory(self) -> int:
        """Number of bricks in memory."""
        return len(self._in_memory)

    def put(self, key: Key, brick: torch.Tensor) -> None:
        """Keep a contiguous float32 tensor."""
        self._in_memory[key] = brick
        if brick.is_cpu:
            self._bytes += brick.nbytes
            self._make_room(key)

    def get(self, key: Key, to_change: bool = False) -> torch.Tensor:
        """One brick; what is done to it is only sure to be kept when it was got `to_change`."""
        brick = self._in_memory.get(key)
        if brick is None:
            brick = self._load(key)
            self._in_memory[key] = brick
            self._bytes += brick.nbytes
            self._make_room(key)
        if to_change and key in self._in_files:  # the file is out of date from now on
            self._remove(key)
        return brick

    def pop(self, key: Key) -> torch.Tensor:
        """Hand out one brick and forget it."""
        brick = self._in_memory.pop(key, None)
        if brick is None:
            brick = self._load(key)
        elif brick.is_cpu:
            self._bytes -= brick.nbytes
        if key in self._in_files:
            self._remove(key)
        return brick

    def _make_room(self, keep: Key) -> None:
        while self._bytes > self.budget_bytes:
            others = [k for k, brick in self._in_memory.items() if k != keep and brick.is_cpu]
            if not others:
                return
            key = max(others, key=self.needed)
            brick = self._in_memory[key]
            if key not in self._in_files:
                self._save(key, brick)
            del self._in_memory[key]
            self._bytes -= brick.nbytes

    def _save(self, key: Key, brick: torch.Tensor) -> None:
        where = self.scratch or Path(tempfile.gettempdir())
        try:
            if self._folder is None:
                where.mkdir(parents=True, exist_ok=True)
                self._folder = Path(tempfile.mkdtemp(prefix=f"{PART}bricks-", dir=where))
            with self._path(key).open("wb", buffering=0) as file:
                rest = brick.numpy().data.cast("B")
                while rest:  # an unbuffered write may be a partial one
                    rest = rest[file.write(rest) :]
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
