"""A disk cache of simulated volumes that several processes may fill at once."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cytovox.errors import InputError
from cytovox.io.atomic import atomic_path
from cytovox.io.processes import worker_pool
from cytovox.simulation.optics import Shape, Spacing
from cytovox.simulation.tomogram import (
    DEFAULT_SHAPE,
    DEFAULT_SPACING_UM,
    RI_STEP,
    Options,
    Tomogram,
    check_request,
    simulate,
)
from cytovox.simulation.varied import ANY

#: Part of every cache key: increase it with any change that alters a volume.
SIMULATOR_VERSION = 4
#: The same for volumes of the preset `any`.
ANY_VERSION = 2

#: Indices are stored in 16 bits as whole steps of `RI_STEP` above 1.2, so up to 1.855.
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
        # plain types, so that equal requests have equal hashes: a config holds lists, a notebook numpy numbers
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "spacing_um", tuple(float(s) for s in self.spacing_um))

    @property
    def filename(self) -> str:
        """Return the file name in a cache: two requests share it only if they give the same volume."""
        about = asdict(self)
        if self.options.density == (1.0, 1.0):  # the name that versions without this option wrote
            del about["options"]["density"]
        if not self.options.optics.multiple_scattering:
            del about["options"]["optics"]["multiple_scattering"]
        if self.preset == ANY:
            about["any"] = ANY_VERSION
        key = json.dumps([SIMULATOR_VERSION, about], sort_keys=True)
        return f"{self.preset}-{self.seed:05d}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def save(path: Path, tomogram: Tomogram) -> None:
    """Write a volume without pickle, complete or not at all."""
    metadata = {name: getattr(tomogram, name) for name in ("spacing_um", "medium_ri", "preset", "seed")}
    arrays: dict[str, Any] = {
        "ri_true": _steps(tomogram.ri_true_ZYX),
        "ri": _steps(tomogram.ri_ZYX),
        "cells": tomogram.cells_ZYX,
        "nuclei": tomogram.nuclei_ZYX,
        "nucleolus": np.packbits(tomogram.masks["nucleolus"]),
        "lipid": np.packbits(tomogram.masks["lipid"]),
    }
    arrays |= {f"unseen_{name}": np.packbits(mask) for name, mask in tomogram.unseen.items()}
    arrays["facts"] = np.frombuffer(json.dumps(metadata).encode(), np.uint8)  # name of the key in existing caches
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load(path: str | Path) -> Tomogram:
    """Read a volume that `simulate_many` wrote.

    Raises
    ------
    InputError
        The file is missing, truncated or not a cached volume.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        metadata = json.loads(arrays["facts"].tobytes())
        shape = arrays["cells"].shape
        inside = {
            name: np.unpackbits(arrays[name], count=int(np.prod(shape))).reshape(shape).astype(bool)
            for name in ("nucleolus", "lipid", *(name for name in arrays if name.startswith("unseen_")))
        }
        unseen = {name.removeprefix("unseen_"): inside.pop(name) for name in list(inside) if name.startswith("unseen_")}
        return Tomogram(
            ri_true_ZYX=_index(arrays["ri_true"]),
            ri_ZYX=_index(arrays["ri"]),
            masks={"membrane": arrays["cells"] > 0, "nucleus": arrays["nuclei"] > 0, **inside},
            cells_ZYX=arrays["cells"],
            nuclei_ZYX=arrays["nuclei"],
            unseen=unseen,
            **{**metadata, "spacing_um": tuple(metadata["spacing_um"])},
        )
    except FileNotFoundError:
        raise InputError(f"{path}: no such simulated volume; simulate it again") from None
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a complete simulated volume ({error}); delete it and simulate again") from error


def _steps(ri_ZYX: np.ndarray) -> np.ndarray:
    return (np.rint(ri_ZYX.astype(np.float64) / RI_STEP) - _ORIGIN).astype(np.uint16)


def _index(steps_ZYX: np.ndarray) -> np.ndarray:
    return ((steps_ZYX.astype(np.float64) + _ORIGIN) * RI_STEP).astype(np.float32)


def _is_readable(path: Path) -> bool:
    """Return whether a volume exists and is complete; a full disk can have truncated it."""
    try:
        load(path)
    except InputError:
        return False
    return True


def fetch(request: Request, cache_dir: str | Path) -> Path:
    """Return the path of one volume in the cache; simulate it first if it is missing or incomplete."""
    path = Path(cache_dir) / request.filename
    if not _is_readable(path):
        save(path, simulate(request.preset, request.seed, request.shape, request.spacing_um, request.options))
    return path


def simulate_many(
    requests: Sequence[Request],
    cache_dir: str | Path,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Simulate the volumes that a cache lacks, and return the paths of all.

    Parameters
    ----------
    requests : sequence of Request
        The volumes. The result does not depend on `workers`.
    cache_dir : path
        Created if needed. Several processes may fill it at once.
    workers : int
        Number of processes; 1 is this process alone. More are spawned, so a script that calls this needs an
        ``if __name__ == "__main__"`` guard.
    progress : callable, optional
        Called with (done, all) after each volume.

    Returns
    -------
    list of Path
        One path per request, in their order.

    Raises
    ------
    InputError
        Invalid request, or the cache folder cannot be created; raised before anything is simulated.
    """
    for request in requests:
        check_request(request.preset, request.seed, request.shape, request.spacing_um, request.options)
    folder, distinct = Path(cache_dir), list(dict.fromkeys(requests))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder}: cannot create the cache there ({reason}); choose another folder") from error

    def in_cache() -> Iterator[Path]:
        """Yield each path as soon as its volume is complete."""
        missing = []
        for request in distinct:  # starting processes takes seconds, so only for missing volumes
            path = folder / request.filename
            if _is_readable(path):
                yield path
            else:
                missing.append(request)
        if workers <= 1 or len(missing) <= 1:
            yield from (fetch(request, folder) for request in missing)
        else:
            with worker_pool(min(workers, len(missing))) as pool:
                for future in as_completed([pool.submit(fetch, request, folder) for request in missing]):
                    yield future.result()

    for done, _ in enumerate(in_cache(), start=1):
        if progress is not None:
            progress(done, len(distinct))
    return [folder / request.filename for request in requests]
