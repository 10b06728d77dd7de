"""A disk cache of simulated volumes, filled by many processes at once."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.io.processes import worker_pool
from cytovox.simulation.tomogram import (
    DEFAULT_SHAPE,
    DEFAULT_SPACING_UM,
    RI_STEP,
    Options,
    Shape,
    Spacing,
    Tomogram,
    check_field,
    check_options,
    check_preset,
    simulate,
)

#: Part of every cache key: raise it with any change that alters a volume.
SIMULATOR_VERSION = 4

#: Indices are stored as whole steps of `RI_STEP` above 1.2, which 16 bits hold up to 1.855.
_ORIGIN = 120_000


@dataclass(frozen=True)
class Request:
    """One volume to simulate: the arguments of `simulate`."""

    preset: str
    seed: int
    shape: Shape = DEFAULT_SHAPE
    spacing_um: Spacing = DEFAULT_SPACING_UM
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        # plain types, so that equal requests hash alike: a config gives lists, a notebook numpy's numbers
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "spacing_um", tuple(float(s) for s in self.spacing_um))

    @property
    def filename(self) -> str:
        """Name of its file in a cache: two requests share it only if they give the same volume."""
        about = asdict(self)
        if self.options.density == (1.0, 1.0):  # named as before there was a choice
            del about["options"]["density"]
        key = json.dumps([SIMULATOR_VERSION, about], sort_keys=True)
        return f"{self.preset}-{self.seed:05d}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def save(path: Path, tomogram: Tomogram) -> None:
    """Write a volume without pickle, whole or not at all: a reader never sees half a file."""
    arrays: dict[str, Any] = {
        "ri_true": _steps(tomogram.ri_true_ZYX),
        "ri": _steps(tomogram.ri_ZYX),
        "cells": tomogram.cells_ZYX,
        "nuclei": tomogram.nuclei_ZYX,
        "nucleolus": np.packbits(tomogram.masks["nucleolus"]),
        "lipid": np.packbits(tomogram.masks["lipid"]),
    }
    if tomogram.unseen_ZYX is not None:
        arrays["unseen"] = np.packbits(tomogram.unseen_ZYX)
    metadata = {
        "spacing_um": list(tomogram.spacing_um),
        "medium_ri": tomogram.medium_ri,
        "preset": tomogram.preset,
        "seed": tomogram.seed,
    }
    arrays["facts"] = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load(path: str | Path) -> Tomogram:
    """Read a volume that `simulate_many` wrote.

    Raises
    ------
    InputError
        The file is missing, truncated or not one of ours.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        metadata = json.loads(arrays["facts"].tobytes())
        shape = arrays["cells"].shape
        inside = {
            name: np.unpackbits(arrays[name], count=int(np.prod(shape))).reshape(shape).astype(bool)
            for name in ("nucleolus", "lipid", "unseen")
            if name in arrays
        }
        unseen = inside.pop("unseen", None)
        z, y, x = metadata["spacing_um"]
        return Tomogram(
            ri_true_ZYX=_index(arrays["ri_true"]),
            ri_ZYX=_index(arrays["ri"]),
            masks={"membrane": arrays["cells"] > 0, "nucleus": arrays["nuclei"] > 0, **inside},
            cells_ZYX=arrays["cells"],
            nuclei_ZYX=arrays["nuclei"],
            spacing_um=(z, y, x),
            medium_ri=metadata["medium_ri"],
            preset=metadata["preset"],
            seed=metadata["seed"],
            unseen_ZYX=unseen,
        )
    except FileNotFoundError:
        raise InputError(f"{path}: no such simulated volume; simulate it again") from None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a whole simulated volume ({error}); delete it and simulate again") from error


def _steps(ri_ZYX: np.ndarray) -> np.ndarray:
    return (np.rint(ri_ZYX.astype(np.float64) / RI_STEP) - _ORIGIN).astype(np.uint16)


def _index(steps_ZYX: np.ndarray) -> np.ndarray:
    return ((steps_ZYX.astype(np.float64) + _ORIGIN) * RI_STEP).astype(np.float32)


def _is_whole(path: Path) -> bool:
    """Whether a volume is there and readable; one truncated by a full disk, for one, is built again."""
    try:
        load(path)
    except InputError:
        return False
    return True


def fetch(request: Request, cache_dir: str | Path) -> Path:
    """Path of one volume in the cache; simulated first if it is not there, or not whole."""
    path = Path(cache_dir) / request.filename
    if _is_whole(path):
        return path
    save(path, simulate(request.preset, request.seed, request.shape, request.spacing_um, request.options))
    return path


def simulate_many(
    requests: Sequence[Request],
    cache_dir: str | Path,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Simulate volumes into a cache; those already there are kept.

    Parameters
    ----------
    requests : sequence of Request
        What to simulate. The result does not depend on `workers`.
    cache_dir : path
        Made if needed. Several processes may fill it at once.
    workers : int
        Processes; 1 stays in this one. More are spawned, so a script that calls this needs a
        ``if __name__ == "__main__"`` guard.
    progress : callable, optional
        Called with (done, all) after each volume.

    Returns
    -------
    list of Path
        One for each request, in their order.

    Raises
    ------
    InputError
        A request cannot be met, or the cache cannot be made, found before anything is simulated.
    """
    for request in requests:
        check_preset(request.preset)
        check_field(request.seed, request.shape, request.spacing_um)
        check_options(request.options)
    try:
        Path(cache_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{cache_dir}: no cache can be made there ({reason}); choose another folder for it") from error
    distinct = list(dict.fromkeys(requests))
    paths: dict[Request, Path] = {}

    def took(request: Request, path: Path) -> None:
        paths[request] = path
        if progress is not None:
            progress(len(paths), len(distinct))

    missing = []
    for request in distinct:  # a pool of processes takes seconds to start: not for what is there
        path = Path(cache_dir) / request.filename
        if _is_whole(path):
            took(request, path)
        else:
            missing.append(request)
    if workers <= 1 or len(missing) <= 1:
        for request in missing:
            took(request, fetch(request, cache_dir))
    else:
        with worker_pool(min(workers, len(missing))) as pool:
            waiting = {pool.submit(fetch, request, cache_dir): request for request in missing}
            for future in as_completed(waiting):
                took(waiting[future], future.result())
    return [paths[request] for request in requests]
