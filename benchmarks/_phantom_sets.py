"""Named sets of phantoms: what is drawn, how it is imaged, and the files they are cached in.

Every phantom depends on the name of its set and its number only. A cached file is used again if the source of the
modules that made it is the same.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import scipy.ndimage as ndi
from threadpoolctl import threadpool_limits

from benchmarks._phantom_cells import Kind, Phantom, Range, Spacing, draw_phantom
from benchmarks._phantom_microscope import Microscope, observe
from cytovox.io.atomic import atomic_path

HERE = Path(__file__).resolve().parent
SOURCES = ("_phantom_cells.py", "_phantom_microscope.py", "_phantom_sets.py")

#: No wavelength, aperture or grid below asks for a finer grid in y and x than this, in µm.
FINE_UM = 0.2


@dataclass(frozen=True)
class PhantomSet:
    """Ranges from which cells and observation of a set are drawn."""

    title: str
    """What a reader sees."""
    count: int
    """Phantoms in the set."""
    kind: Kind = field(default_factory=Kind)
    """Cells."""
    extent_um: tuple[float, float, float] = (15.0, 34.0, 34.0)
    """Size of the field, z, y, x."""
    spacing_um: tuple[Range, Range] = ((0.2, 0.2), (0.2, 0.2))
    """Voxel size of the reconstruction along z, and along y and x."""
    aperture: Range = (1.0, 1.1)
    """Numerical aperture of illumination and detection."""
    rounds: tuple[int, int] = (10, 40)
    """Rounds of the non-negativity iteration."""
    medium_ri: Range = (1.335, 1.339)
    """Refractive index of the medium."""
    noise_ri: Range = (0.0006, 0.0006)
    """Standard deviation of the noise."""
    fringe_ri: Range = (0.0, 0.0)
    """Amplitude of fringes."""
    drift_ri: Range = (0.0, 0.0)
    """Amplitude of the background's drift."""
    single_scattering: bool = False
    """Whether light is scattered once only."""
    full_angle: bool = False
    """Whether the missing cone is measured, too."""


_VISIBLE = Kind(
    cells=(1, 1),
    nuclei=(0.0, 1.0, 0.0),
    nucleus_contrast=(0.003, 0.006),
    nucleoli=(1, 4),
    droplets=(1, 10),
    distractors=(0, 0),
    texture=(0.0, 0.001),
)

SETS: dict[str, PhantomSet] = {
    "single": PhantomSet(
        "one cell, nucleus anywhere, contrast 0.003 to 0.006 of either sign, noise 0.0006",
        20,
        _VISIBLE,
        extent_um=(15.0, 26.0, 26.0),
        single_scattering=True,
    ),
    "single_scattered": PhantomSet("the same with multiple scattering", 20, _VISIBLE, extent_um=(15.0, 26.0, 26.0)),
    "fields": PhantomSet(
        "one to five cells, nuclei anywhere, none or two, contrast 0 to 0.012 of either sign",
        20,
        rounds=(0, 100),
        noise_ri=(0.0002, 0.002),
        medium_ri=(1.333, 1.341),
        single_scattering=True,
    ),
    "optics": PhantomSet(
        "the same with multiple scattering; apertures 0.8 to 1.2, spacings 0.1 to 0.4 µm, fringes and drift",
        16,
        spacing_um=((0.15, 0.4), (0.1, 0.4)),
        aperture=(0.8, 1.2),
        rounds=(0, 100),
        medium_ri=(1.333, 1.341),
        noise_ri=(0.0002, 0.002),
        fringe_ri=(0.0, 0.001),
        drift_ri=(0.0, 0.001),
    ),
    "full_angle": PhantomSet(
        "the same cells without a missing cone",
        6,
        Kind(cells=(1, 2)),
        extent_um=(20.0, 22.0, 22.0),
        aperture=(1.0, 1.1),
        rounds=(0, 0),
        full_angle=True,
    ),
}


@dataclass(frozen=True)
class Case:
    """One imaged phantom. Arrays are (Z, Y, X) on the grid of the reconstruction."""

    name: str
    ri_ZYX: np.ndarray
    """float32, reconstructed refractive index."""
    spacing_um: Spacing
    """Voxel size, z, y, x."""
    cells_ZYX: np.ndarray
    """uint16, one label per cell."""
    nuclei_ZYX: np.ndarray
    """uint16, one label per nucleus."""
    nucleolus_ZYX: np.ndarray
    """bool."""
    lipid_ZYX: np.ndarray
    """bool."""
    owner: dict[int, int]
    """Label of a nucleus -> label of its cell."""
    contrast: dict[int, float]
    """Label of a nucleus -> its true index minus that of the cytoplasm."""


def make_case(name: str, number: int) -> Case:
    """Draw and image one phantom.

    Parameters
    ----------
    name : str
        Set, one of `SETS`.
    number : int
        Number of the phantom in the set; any number from 0, also beyond `count`.

    Returns
    -------
    Case
    """
    chosen = SETS[name]
    rng = np.random.default_rng([zlib.crc32(name.encode()), number])
    target_z, target_yx = (rng.uniform(*bounds) for bounds in chosen.spacing_um)
    aperture = rng.uniform(*chosen.aperture)
    scope = Microscope(
        medium_ri=rng.uniform(*chosen.medium_ri),
        aperture=aperture,
        rounds=int(rng.integers(chosen.rounds[0], chosen.rounds[1] + 1)),
        noise_ri=rng.uniform(*chosen.noise_ri),
        fringe_ri=rng.uniform(*chosen.fringe_ri),
        drift_ri=rng.uniform(*chosen.drift_ri),
        single_scattering=chosen.single_scattering,
        full_angle=chosen.full_angle,
    )
    # light is propagated on a grid that holds the fields; an export may be coarser
    fine: Spacing = (min(target_z, 0.3), min(target_yx, FINE_UM), min(target_yx, FINE_UM))
    z, y, x = (2 * round(extent / s / 2) for extent, s in zip(chosen.extent_um, fine, strict=True))
    phantom = draw_phantom(chosen.kind, (z, y, x), fine, scope.medium_ri, rng)
    ri = observe(phantom.ri_ZYX, fine, scope, rng)
    return _exported(f"{name}_{number:03d}", phantom, ri, fine, (target_z, target_yx, target_yx))


def _exported(name: str, phantom: Phantom, ri_ZYX: np.ndarray, fine: Spacing, target: Spacing) -> Case:
    """Resample a phantom and its image to the voxel size of the export."""
    masks = [phantom.cells_ZYX, phantom.nuclei_ZYX, phantom.nucleolus_ZYX, phantom.lipid_ZYX]
    if max(abs(a - b) for a, b in zip(fine, target, strict=True)) > 1e-9:
        factors = [a / b for a, b in zip(fine, target, strict=True)]
        blurred = ndi.gaussian_filter(ri_ZYX, [max(0.0, 0.5 * (1 / f - 1)) for f in factors])
        shape = tuple(max(1, round(n * f)) for n, f in zip(ri_ZYX.shape, factors, strict=True))
        points = np.meshgrid(
            *((np.arange(n) + 0.5) / f - 0.5 for n, f in zip(shape, factors, strict=True)), indexing="ij", sparse=False
        )
        ri_ZYX = ndi.map_coordinates(blurred, points, order=1, mode="nearest")
        nearest = tuple(
            np.clip(np.rint(axis).astype(int), 0, n - 1)
            for axis, n in zip(points, phantom.cells_ZYX.shape, strict=True)
        )
        masks = [mask[nearest] for mask in masks]
    cells, nuclei, nucleolus, lipid = masks
    return Case(
        name, ri_ZYX.astype(np.float32), target, cells, nuclei, nucleolus, lipid, phantom.owner, phantom.contrast
    )


def cached_cases(
    name: str, count: int, cache: Path, processes: int = 2, progress: Callable[[str], None] | None = None
) -> list[Case]:
    """Return the first phantoms of a set; those that are not in the cache are made and stored.

    Parameters
    ----------
    name : str
        Set, one of `SETS`.
    count : int
        How many.
    cache : Path
        Folder of the files, made where needed. Files of other versions of the source stay and are not used.
    processes : int
        How many are made at once.
    progress : callable, optional
        Called with the name of each phantom that was made.
    """
    folder = cache / source_digest()
    folder.mkdir(parents=True, exist_ok=True)
    missing = [k for k in range(count) if not (folder / f"{name}_{k:03d}.npz").is_file()]
    if missing:
        with ProcessPoolExecutor(max(1, processes), mp_context=get_context("spawn")) as pool:
            for made in pool.map(_store, [name] * len(missing), missing, [str(folder)] * len(missing)):
                if progress is not None:
                    progress(made)
    return [load_case(folder / f"{name}_{k:03d}.npz") for k in range(count)]


def source_digest() -> str:
    """Return a hash of the source that phantoms depend on."""
    return hashlib.sha256(b"".join((HERE / source).read_bytes() for source in SOURCES)).hexdigest()[:16]


def _store(name: str, number: int, folder: str) -> str:
    with threadpool_limits(1):
        case = make_case(name, number)
    owners = np.array([[n, case.owner[n]] for n in case.owner], int).reshape(-1, 2)
    contrasts = np.array([case.contrast[n] for n in case.owner], float)
    with atomic_path(Path(folder) / f"{case.name}.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            ri=np.rint((case.ri_ZYX - 1.3) * 1e5).clip(0, 65535).astype(np.uint16),
            spacing=np.array(case.spacing_um),
            cells=case.cells_ZYX,
            nuclei=case.nuclei_ZYX,
            nucleolus=case.nucleolus_ZYX,
            lipid=case.lipid_ZYX,
            owners=owners,
            contrasts=contrasts,
        )
    return case.name


def load_case(path: Path) -> Case:
    """Read a cached phantom."""
    with np.load(path, allow_pickle=False) as stored:
        values = {key: stored[key] for key in stored.files}
    owner = {int(n): int(cell) for n, cell in values["owners"]}
    z, y, x = values["spacing"].tolist()
    return Case(
        path.stem,
        (values["ri"] / 1e5 + 1.3).astype(np.float32),
        (z, y, x),
        values["cells"],
        values["nuclei"],
        values["nucleolus"],
        values["lipid"],
        owner,
        dict(zip(owner, values["contrasts"].tolist(), strict=True)),
    )
