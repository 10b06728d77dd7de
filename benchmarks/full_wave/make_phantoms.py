"""Make the phantoms of the set ``full_wave``: a full-wave forward model, and reconstruction by odtbrain.

Run by ``make_environment.sh`` in an environment of its own; nothing of Cytovox is imported. Phantoms that exist
are kept.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # see benchmarks/__init__.py

import numpy as np

from benchmarks.full_wave.cells import Cell, draw_cell, pad_cell
from benchmarks.full_wave.files import CACHE, COUNT, NAME, phantom_paths, write_phantom
from benchmarks.full_wave.microscope import record, views
from benchmarks.full_wave.solver import ScatteringProblem

WAVELENGTH_UM, SPACING_UM = 0.532, 0.1
#: Geometry and approximation of phantom 0, 1, 2, 3, 4 ...
KINDS = (("cone", "rytov"), ("rotation", "rytov"), ("cone", "rytov"), ("cone", "born"))
VIEWS = {"cone": 60, "rotation": 90}
#: Semi-axes of the cells in µm. Born's approximation needs thinner cells than Rytov's.
RADIUS_UM = {"rytov": (3.0, 4.5), "born": (2.8, 3.3)}
#: Medium around the cell's box on each side of the reconstruction, in µm.
FIELD_UM = 1.0


def make_phantom(number: int) -> tuple[np.ndarray, Cell]:
    """Draw, record and reconstruct one phantom.

    Parameters
    ----------
    number : int
        Number of the phantom, from 0. It decides every choice.

    Returns
    -------
    ri_ZYX : float array, (Z, Y, X)
        Reconstructed refractive index, with voxels of `SPACING_UM`.
    cell : Cell
        Truth on the same grid.
    """
    rng = np.random.default_rng([zlib.crc32(NAME.encode()), number])
    geometry, approximation = KINDS[number % len(KINDS)]
    medium_ri, aperture, noise = rng.uniform(1.335, 1.339), rng.uniform(1.0, 1.2), rng.uniform(0.005, 0.03)
    tilt = float(np.arcsin(rng.uniform(0.85, 0.98) * aperture / medium_ri)) if geometry == "cone" else None
    cell = draw_cell(rng, SPACING_UM, medium_ri, RADIUS_UM[approximation])
    # odtbrain turns about y. The axis of the cone is z of the phantom: both axes are exchanged there and back.
    order = (1, 0, 2) if geometry == "cone" else (0, 1, 2)
    problem = ScatteringProblem(cell.ri_ZYX.transpose(order), SPACING_UM, WAVELENGTH_UM, medium_ri)
    margin = 2 * round(FIELD_UM / SPACING_UM)
    # odtbrain turns its cube, whose corners hold nothing: the box lies inside the cylinder that fits in the cube
    pixels = 2 * int(np.ceil((max(cell.ri_ZYX.shape) + margin) / np.sqrt(2)))
    angles, axis, scan = views(VIEWS[geometry], tilt)
    fields = np.stack(list(record(problem, scan, pixels, aperture, noise, rng)))
    ri = reconstruct(fields, angles, axis, medium_ri, approximation).transpose(order)
    shape = tuple(n + margin for n in cell.ri_ZYX.shape)
    kept = tuple(slice((pixels - n) // 2, (pixels - n) // 2 + n) for n in shape)
    return ri[kept], pad_cell(cell, shape, medium_ri)


def reconstruct(
    fields: np.ndarray, angles: np.ndarray, tilted_axis: list[float], medium_ri: float, approximation: str
) -> np.ndarray:
    """Return the refractive index that odtbrain reconstructs.

    Parameters
    ----------
    fields : complex array, (view, Y, X)
        Fields over the incident field.
    angles, tilted_axis
        See `microscope.views`.
    medium_ri : float
        Refractive index of the medium.
    approximation : {"rytov", "born"}

    Returns
    -------
    float array, (Z, Y, X)
        In the frame of odtbrain, with as many voxels along each axis as the camera has pixels.
    """
    import odtbrain

    resolution = WAVELENGTH_UM / SPACING_UM
    scattered = odtbrain.sinogram_as_rytov(fields) if approximation == "rytov" else fields - 1
    potential = odtbrain.backpropagate_3d_tilted(
        scattered, angles, resolution, medium_ri, tilted_axis=tilted_axis, weight_angles=False, onlyreal=True,
        num_cores=1, dtype=np.float32, save_memory=True, padfac=1.5,
    )  # fmt: skip
    return np.asarray(odtbrain.odt_to_ri(potential, resolution, medium_ri).real)


def main() -> None:
    """Make the phantoms that are missing."""
    parser = argparse.ArgumentParser(prog="benchmarks/full_wave/make_phantoms.py", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=COUNT, help=f"phantoms ({COUNT})")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the phantoms")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error("--count: expected 1 or more")
    try:
        import odtbrain  # noqa: F401
    except ImportError:
        sys.exit("odtbrain is not installed here: run bash benchmarks/full_wave/make_environment.sh, which installs it "
                 "in an environment of its own and makes the phantoms there")  # fmt: skip
    for number, path in enumerate(phantom_paths(arguments.cache, arguments.count)):
        if not path.is_file():
            begun = time.perf_counter()
            ri, cell = make_phantom(number)
            write_phantom(path, ri, SPACING_UM, cell)
            print(f"{path.stem}: {' '.join(KINDS[number % len(KINDS)])}, {' x '.join(map(str, ri.shape))} voxels, "
                  f"{time.perf_counter() - begun:.0f} s", flush=True)  # fmt: skip
    print(f"{arguments.count} phantoms in {phantom_paths(arguments.cache, 1)[0].parent}")


if __name__ == "__main__":
    main()
