"""One simulated tomogram: cells drawn, grown and observed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import numpy as np
import scipy.fft
import scipy.ndimage

from cytovox.errors import InputError
from cytovox.simulation.cells import Grid, Grown, grow
from cytovox.simulation.draw import draw_scene, generator
from cytovox.simulation.optics import Optics, coherent_noise, fill_cone, measure, potential, refractive_index, support
from cytovox.simulation.presets import PRESETS, CellLine
from cytovox.simulation.scene import Scene
from cytovox.simulation.varied import ANY, grow_any

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

#: A field of 19 x 38 x 38 µm, what demos and tests use.
DEFAULT_SHAPE: Shape = (64, 128, 128)
DEFAULT_SPACING_UM: Spacing = (0.3, 0.3, 0.3)
#: The field is observed with this much around it, so that its borders do not meet through the periodic transform.
MARGIN_UM = (2.4, 2.4, 2.4)
#: Indices are kept to the fifth decimal, ten times finer than a TCF file does.
RI_STEP = 1e-5


@dataclass(frozen=True)
class Options:
    """How a scene is observed. Every field is part of a volume's name in the cache."""

    medium_ri: float = 1.337
    """Index of the medium."""
    medium_spread: float = 0.0
    """Each volume's medium differs from `medium_ri` by at most this."""
    noise_ri: tuple[float, float] = (0.0002, 0.0016)
    """Deviation of the coherent noise; each volume draws its own, evenly on a logarithmic scale."""
    density: tuple[float, float] = (1.0, 1.0)
    """Cells on an area, relative to the preset's; each volume draws its own factor, evenly on a logarithmic scale."""
    optics: Optics = field(default_factory=Optics)
    """The microscope."""


@dataclass(frozen=True)
class Tomogram:
    """A simulated volume with its truth. Arrays are (Z, Y, X); z points up from the coverslip."""

    ri_true_ZYX: np.ndarray
    """float32, the cells' own index."""
    ri_ZYX: np.ndarray
    """float32, the index as the microscope shows it."""
    masks: Mapping[str, np.ndarray]
    """Organelle -> bool array, in the order membrane (the filled cell), nucleus, nucleolus, lipid."""
    cells_ZYX: np.ndarray
    """uint16, 0 outside cells."""
    nuclei_ZYX: np.ndarray
    """uint16, nucleus k lies in cell k; a cell cut by the border may have none."""
    spacing_um: Spacing
    medium_ri: float
    preset: str
    seed: int
    unseen_ZYX: np.ndarray | None = None
    """bool, nuclei that the picture cannot show; None if there are none."""

    @property
    def name(self) -> str:
        """As in file names: HeLa-00003."""
        return f"{self.preset}-{self.seed:05d}"


def cell_line(name: str) -> CellLine:
    """The preset of a name.

    Raises
    ------
    InputError
        There is none of that name.
    """
    if name in PRESETS:
        return PRESETS[name]
    folded = {known.lower(): known for known in PRESETS}
    near = get_close_matches(name.lower(), folded, n=1, cutoff=0.4)
    hint = f"; did you mean {folded[near[0]]}?" if near else ""
    raise InputError(f"preset {name!r}: no such preset (known: {', '.join((*PRESETS, ANY))}){hint}")


def check_preset(name: str) -> None:
    """Raise InputError unless there is a preset of a name: a cell line, or `any`."""
    if name != ANY:
        cell_line(name)


def check_field(seed: int, shape: Shape, spacing_um: Spacing) -> None:
    """Raise InputError unless a field can be simulated."""
    if seed < 0:
        raise InputError(f"seed {seed}: a volume's number is 0 or larger")
    if len(shape) != 3 or min(shape) < 8:
        raise InputError(f"shape {tuple(shape)}: expected three sizes (z, y, x) of at least 8 voxels")
    if len(spacing_um) != 3 or not all(0.05 <= s <= 2.0 for s in spacing_um):
        raise InputError(f"spacing {tuple(spacing_um)}: expected three lengths (z, y, x) of 0.05 to 2 µm")


def check_options(options: Options) -> None:
    """Raise InputError unless a scene can be observed so."""
    if not 1.3 <= options.medium_ri <= 1.45:
        raise InputError(f"medium_ri {options.medium_ri}: expected an index from 1.3 to 1.45; water is 1.333")
    if not 0 <= options.medium_spread <= 0.05:
        raise InputError(f"medium_spread {options.medium_spread}: expected an index difference from 0 to 0.05")
    low, high = options.noise_ri
    if not (0 < low <= high < 0.1 or low == high == 0):
        raise InputError(
            f"noise_ri {(low, high)}: expected a range above 0 such as (0.0002, 0.0016), or (0, 0) for no noise"
        )
    low, high = options.density
    if not 0.01 <= low <= high <= 2:
        raise InputError(f"density {(low, high)}: expected a range within 0.01 to 2, such as (0.1, 1.0)")


def simulate(
    preset: str,
    seed: int,
    shape: Shape = DEFAULT_SHAPE,
    spacing_um: Spacing = DEFAULT_SPACING_UM,
    options: Options | None = None,
) -> Tomogram:
    """Simulate the volume named by (preset, seed).

    Parameters
    ----------
    preset : str
        A cell line of `cytovox.simulation.PRESETS`, or `any` (see `cytovox.simulation.varied`), for which aperture,
        rounds of the iteration and a drift of the background are drawn, too.
    seed : int
        Number of the volume.
    shape : (int, int, int)
        Voxels, z, y, x.
    spacing_um : (float, float, float)
        Voxel size, z, y, x; may be anisotropic.
    options : Options, optional
        How it is observed.

    Raises
    ------
    InputError
        Unknown preset, or a shape, spacing, seed or option that cannot be.
    """
    check_preset(preset)
    options = options or Options()
    check_options(options)
    shape = (int(shape[0]), int(shape[1]), int(shape[2])) if len(shape) == 3 else shape
    check_field(seed, shape, spacing_um)
    spacing_um = (float(spacing_um[0]), float(spacing_um[1]), float(spacing_um[2]))
    rng = generator(preset, seed, 1)
    medium_ri = options.medium_ri + float(rng.uniform(-1, 1)) * options.medium_spread
    noise_ri = float(np.exp(rng.uniform(*np.log(options.noise_ri)))) if options.noise_ri[1] > 0 else 0.0
    factor = 1.0
    if options.density != (1.0, 1.0):  # from a stream of its own: volumes of usual density stay what they are
        factor = float(np.exp(generator(preset, seed, 2).uniform(*np.log(options.density))))
    if preset == ANY:
        return _simulate_any(seed, shape, spacing_um, medium_ri, noise_ri, factor, options.optics, rng)
    line = cell_line(preset)
    extent = (shape[0] * spacing_um[0], shape[1] * spacing_um[1], shape[2] * spacing_um[2])
    if factor != 1.0:
        low, high = line.cells_per_1000_um2
        line = replace(line, cells_per_1000_um2=(factor * low, factor * high))
    return observe(draw_scene(line, seed, extent, medium_ri), shape, spacing_um, noise_ri, options.optics, rng)


def observe(
    scene: Scene, shape: Shape, spacing_um: Spacing, noise_ri: float, optics: Optics, rng: np.random.Generator
) -> Tomogram:
    """Grow a scene on a padded grid, send it through the microscope, and cut the field out."""
    grid = padded_grid(shape, spacing_um)
    grown = grow(scene, grid)
    ri = image(grown.ri_ZYX, spacing_um, scene.medium_ri, noise_ri, optics, rng)
    return _field(grown, ri, shape, spacing_um, scene.medium_ri, scene.preset, scene.seed)


def padded_grid(shape: Shape, spacing_um: Spacing) -> Grid:
    """Return the grid of a field with at least `MARGIN_UM` around it, of a size that transforms fast."""
    margin = tuple(
        (scipy.fft.next_fast_len(n + 2 * round(m / s), real=True) - n + 1) // 2
        for n, s, m in zip(shape, spacing_um, MARGIN_UM, strict=True)
    )
    return Grid.around(shape, spacing_um, (margin[0], margin[1], margin[2]))


def _field(
    grown: Grown, ri_ZYX: np.ndarray, shape: Shape, spacing_um: Spacing, medium_ri: float, preset: str, seed: int
) -> Tomogram:
    """Cut the field out of a padded grid."""
    crop = tuple(slice((whole - n) // 2, (whole - n) // 2 + n) for whole, n in zip(ri_ZYX.shape, shape, strict=True))
    cells, nuclei = grown.cells_ZYX[crop].copy(), grown.nuclei_ZYX[crop].copy()
    unseen = None if grown.unseen_ZYX is None else grown.unseen_ZYX[crop].copy()
    return Tomogram(
        ri_true_ZYX=_rounded(grown.ri_ZYX[crop]),
        ri_ZYX=_rounded(ri_ZYX[crop]),
        masks={
            "membrane": cells > 0,
            "nucleus": nuclei > 0,
            "nucleolus": grown.nucleolus_ZYX[crop].copy(),
            "lipid": grown.lipid_ZYX[crop].copy(),
        },
        cells_ZYX=cells,
        nuclei_ZYX=nuclei,
        spacing_um=spacing_um,
        medium_ri=medium_ri,
        preset=preset,
        seed=seed,
        unseen_ZYX=unseen if unseen is not None and unseen.any() else None,
    )


def _simulate_any(
    seed: int,
    shape: Shape,
    spacing_um: Spacing,
    medium_ri: float,
    noise_ri: float,
    density: float,
    optics: Optics,
    rng: np.random.Generator,
) -> Tomogram:
    """Simulate a volume of the preset `any`, observed by a microscope of its own."""
    optics = replace(
        optics,
        numerical_aperture=optics.numerical_aperture * rng.uniform(0.7, 1.04),
        half_angle_deg=90.0,  # the aperture alone limits the angle
        illuminations=int(rng.integers(24, 73)),
        rounds=int(rng.integers(0, optics.rounds + 21)),
    )
    drift_ri, blur_um = float(rng.choice([0, 1])) * rng.uniform(0, 0.0015), rng.uniform(0, 0.12)
    slopes = rng.normal(size=5)
    grid = padded_grid(shape, spacing_um)
    grown = grow_any(seed, grid, medium_ri, density)
    sharp = scipy.ndimage.gaussian_filter(grown.ri_ZYX, [blur_um / s for s in spacing_um])
    ri = image(sharp, spacing_um, medium_ri, noise_ri, optics, rng)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in ri.shape[1:])
    drift = slopes[0] * y[:, None] + slopes[1] * x + slopes[2] * y[:, None] * x
    drift = drift + slopes[3] * (y[:, None] ** 2 - 1 / 3) + slopes[4] * (x**2 - 1 / 3)
    ri += np.float32(drift_ri / max(float(np.abs(drift).max()), 1e-6)) * drift.astype(np.float32)
    return _field(grown, ri, shape, spacing_um, medium_ri, ANY, seed)


def image(
    ri_ZYX: np.ndarray,
    spacing_um: Spacing,
    medium_ri: float,
    noise_ri: float,
    optics: Optics,
    rng: np.random.Generator,
) -> np.ndarray:
    """The index as the microscope shows it, float32, same shape: Ewald caps, coherent noise, filled cone."""
    shape = (ri_ZYX.shape[0], ri_ZYX.shape[1], ri_ZYX.shape[2])
    measured = support(shape, spacing_um, medium_ri, optics)
    spectrum = measure(potential(ri_ZYX, medium_ri), measured)
    if noise_ri > 0:
        scale = np.float32(2 * noise_ri / medium_ri)
        spectrum += scale * coherent_noise(rng, measured, shape, fringes=6)
    return refractive_index(fill_cone(spectrum, measured, shape, optics.rounds), medium_ri)


def _rounded(ri_ZYX: np.ndarray) -> np.ndarray:
    """Round to `RI_STEP`, so that a volume read from the cache equals the one that was written to it."""
    return (np.rint(ri_ZYX.astype(np.float64) / RI_STEP) * RI_STEP).astype(np.float32)
