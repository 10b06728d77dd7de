"""Simulate one tomogram: draw the cells, sample them on a grid and image them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import numpy as np
import scipy.fft
import scipy.ndimage

from cytovox.errors import InputError
from cytovox.simulation.cells import Grid, Grown, grow
from cytovox.simulation.draw import draw_scene, generator
from cytovox.simulation.optics import (
    Optics,
    Shape,
    Spacing,
    coherent_noise,
    fill_cone,
    measure,
    potential,
    refractive_index,
    support,
)
from cytovox.simulation.presets import PRESETS, CellLine
from cytovox.simulation.scattering import scatter
from cytovox.simulation.scene import Scene
from cytovox.simulation.varied import ANY, grow_any
from cytovox.simulation.visibility import unseen_parts

#: A field of 19 x 38 x 38 µm, used by demos and tests.
DEFAULT_SHAPE: Shape = (64, 128, 128)
DEFAULT_SPACING_UM: Spacing = (0.3, 0.3, 0.3)
#: Padding of the field before imaging: the Fourier transform is periodic and would join opposite borders.
MARGIN_UM = (2.4, 2.4, 2.4)
#: Indices are rounded to the fifth decimal; a TCF file holds four.
RI_STEP = 1e-5


@dataclass(frozen=True)
class Options:
    """Options of a simulated volume. Every field is part of the volume's name in the cache."""

    medium_ri: float = 1.337
    """Refractive index of the medium."""
    medium_spread: float = 0.0
    """Largest difference of a volume's medium from `medium_ri`; each volume draws its own."""
    noise_ri: tuple[float, float] = (0.0002, 0.0016)
    """Range of the coherent noise's standard deviation; each volume draws its own, log-uniform."""
    density: tuple[float, float] = (1.0, 1.0)
    """Range of the number of cells per area relative to the preset's; each volume draws its own, log-uniform."""
    optics: Optics = field(default_factory=Optics)
    """The microscope."""


@dataclass(frozen=True)
class Tomogram:
    """A simulated volume and its ground truth. Arrays are (Z, Y, X); z points up from the coverslip."""

    ri_true_ZYX: np.ndarray
    """float32, true refractive index."""
    ri_ZYX: np.ndarray
    """float32, refractive index as measured by the microscope."""
    masks: Mapping[str, np.ndarray]
    """Organelle -> bool array, in the order membrane (the filled cell), nucleus, nucleolus, lipid."""
    cells_ZYX: np.ndarray
    """uint16, 0 outside cells."""
    nuclei_ZYX: np.ndarray
    """uint16; nucleus k lies in cell k. A cell cut by the border may have none."""
    spacing_um: Spacing
    medium_ri: float
    preset: str
    seed: int
    unseen: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Organelle -> bool array of the parts that the picture hardly shows (`cytovox.simulation.visibility`); only for
    the preset `any`."""

    @property
    def name(self) -> str:
        """Return the name used in file names, such as HeLa-00003."""
        return f"{self.preset}-{self.seed:05d}"


def cell_line(name: str) -> CellLine:
    """Return the preset of a name.

    Raises
    ------
    InputError
        No such preset.
    """
    if name in PRESETS:
        return PRESETS[name]
    folded = {known.lower(): known for known in PRESETS}
    near = get_close_matches(name.lower(), folded, n=1, cutoff=0.4)
    hint = f"; did you mean {folded[near[0]]}?" if near else ""
    free = f"; the preset {ANY} is no cell line, and makes tomograms only" if name == ANY else ""
    raise InputError(f"preset {name!r}: no such cell line (known: {', '.join(PRESETS)}){free or hint}")


def check_field(seed: int, shape: Shape, spacing_um: Spacing) -> None:
    """Raise InputError for an invalid seed, shape or voxel size."""
    is_spacing = len(spacing_um) == 3 and all(0.05 <= s <= 2.0 for s in spacing_um)
    for given, valid, expected in (
        (f"seed {seed}", seed >= 0, "0 or larger"),
        (f"shape {tuple(shape)}", len(shape) == 3 and min(shape) >= 8, "three sizes (z, y, x) of at least 8 voxels"),
        (f"spacing {tuple(spacing_um)}", is_spacing, "three lengths (z, y, x) of 0.05 to 2 µm"),
    ):
        if not valid:
            raise InputError(f"{given}: expected {expected}")


def check_options(options: Options) -> None:
    """Raise InputError for an option that is out of range."""
    (low, high), (fewest, most) = options.noise_ri, options.density
    is_noise = 0 < low <= high < 0.1 or low == high == 0
    for name, valid, expected in (
        ("medium_ri", 1.3 <= options.medium_ri <= 1.45, "an index from 1.3 to 1.45; water is 1.333"),
        ("medium_spread", 0 <= options.medium_spread <= 0.05, "an index difference from 0 to 0.05"),
        ("noise_ri", is_noise, "a range above 0 such as (0.0002, 0.0016), or (0, 0) for no noise"),
        ("density", 0.01 <= fewest <= most <= 2, "a range within 0.01 to 2, such as (0.1, 1.0)"),
    ):
        if not valid:
            raise InputError(f"{name} {getattr(options, name)}: expected {expected}")


def check_request(preset: str, seed: int, shape: Shape, spacing_um: Spacing, options: Options) -> None:
    """Raise InputError unless this volume can be simulated."""
    if preset != ANY:
        cell_line(preset)
    check_field(seed, shape, spacing_um)
    check_options(options)


def draw_conditions(
    preset: str, seed: int, shape: Shape, spacing_um: Spacing, options: Options
) -> tuple[Scene, float, np.random.Generator]:
    """Draw what is random about a volume or the first frame of a time-lapse.

    Returns
    -------
    Scene
        The cells in their medium.
    float
        Standard deviation of the coherent noise.
    numpy.random.Generator
        Generator of the noise itself.
    """
    medium_ri, noise_ri, density, rng = _drawn(preset, seed, options)
    line = cell_line(preset)
    low, high = line.cells_per_1000_um2
    line = replace(line, cells_per_1000_um2=(density * low, density * high))
    z_um, y_um, x_um = (n * s for n, s in zip(shape, spacing_um, strict=True))
    return draw_scene(line, seed, (z_um, y_um, x_um), medium_ri), noise_ri, rng


def _drawn(preset: str, seed: int, options: Options) -> tuple[float, float, float, np.random.Generator]:
    """Return the index of the medium, the deviation of the noise, the density of cells, and the noise's generator."""
    rng = generator(preset, seed, 1)
    medium_ri = options.medium_ri + float(rng.uniform(-1, 1)) * options.medium_spread
    noise_ri = float(np.exp(rng.uniform(*np.log(options.noise_ri)))) if options.noise_ri[1] > 0 else 0.0
    # a separate stream: a fixed density of 1 gives the same volume as in versions without this option
    density = float(np.exp(generator(preset, seed, 2).uniform(*np.log(options.density))))
    return medium_ri, noise_ri, density, rng


def simulate(
    preset: str,
    seed: int,
    shape: Shape = DEFAULT_SHAPE,
    spacing_um: Spacing = DEFAULT_SPACING_UM,
    options: Options | None = None,
) -> Tomogram:
    """Return the simulated volume of (preset, seed).

    Parameters
    ----------
    preset : str
        A cell line of `cytovox.simulation.PRESETS`, or `any` (see `cytovox.simulation.varied`), for which aperture,
        rounds of the iteration and a drift of the background are drawn, too.
    seed : int
        Random seed of the volume.
    shape : (int, int, int)
        Number of voxels, z, y, x.
    spacing_um : (float, float, float)
        Voxel size, z, y, x; may be anisotropic.
    options : Options, optional
        Medium, noise, density and optics.

    Raises
    ------
    InputError
        Unknown preset; or an invalid shape, spacing, seed or option.
    """
    options = options or Options()
    check_request(preset, seed, shape, spacing_um, options)
    shape = (int(shape[0]), int(shape[1]), int(shape[2]))
    spacing_um = (float(spacing_um[0]), float(spacing_um[1]), float(spacing_um[2]))
    if preset == ANY:
        return _simulate_any(seed, shape, spacing_um, options)
    scene, noise_ri, rng = draw_conditions(preset, seed, shape, spacing_um, options)
    return observe(scene, shape, spacing_um, noise_ri, options.optics, rng)


def observe(
    scene: Scene, shape: Shape, spacing_um: Spacing, noise_ri: float, optics: Optics, rng: np.random.Generator
) -> Tomogram:
    """Return the volume of a scene: sample it on a padded grid, image it, and crop to the field."""
    grid = _padded_grid(shape, spacing_um)
    grown = grow(scene, grid)
    ri = image(grown.ri_ZYX, spacing_um, scene.medium_ri, noise_ri, optics, rng)
    return _cropped(grown, ri, shape, spacing_um, scene.medium_ri, scene.preset, scene.seed)


def _padded_grid(shape: Shape, spacing_um: Spacing) -> Grid:
    """Return the grid of a field with at least `MARGIN_UM` around it, of a size that transforms fast."""
    margin = tuple(
        (scipy.fft.next_fast_len(n + 2 * round(m / s), real=True) - n + 1) // 2
        for n, s, m in zip(shape, spacing_um, MARGIN_UM, strict=True)
    )
    return Grid.around(shape, spacing_um, (margin[0], margin[1], margin[2]))


def _cropped(
    grown: Grown, ri_ZYX: np.ndarray, shape: Shape, spacing_um: Spacing, medium_ri: float, preset: str, seed: int
) -> Tomogram:
    """Return the field inside a padded grid."""
    crop = tuple(slice((whole - n) // 2, (whole - n) // 2 + n) for whole, n in zip(ri_ZYX.shape, shape, strict=True))
    cells, nuclei = grown.cells_ZYX[crop].copy(), grown.nuclei_ZYX[crop].copy()
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
    )


def _simulate_any(seed: int, shape: Shape, spacing_um: Spacing, options: Options) -> Tomogram:
    """Return a volume of the preset `any`, imaged by a microscope that is drawn, too."""
    medium_ri, noise_ri, density, rng = _drawn(ANY, seed, options)
    optics = options.optics
    optics = replace(
        optics,
        numerical_aperture=optics.numerical_aperture * rng.uniform(0.7, 1.04),
        half_angle_deg=90.0,  # the aperture alone limits the angle
        illuminations=int(rng.integers(24, 73)),
        rounds=int(rng.integers(0, optics.rounds + 21)),
    )
    drift_ri, blur_um = float(rng.choice([0, 1])) * rng.uniform(0, 0.0015), rng.uniform(0, 0.12)
    slopes = rng.normal(size=5)
    if rng.random() < 0.35:
        optics = replace(optics, multiple_scattering=True, illuminations=int(rng.integers(16, 37)))
    grid = _padded_grid(shape, spacing_um)
    grown = grow_any(seed, grid, medium_ri, density)
    sharp = scipy.ndimage.gaussian_filter(grown.ri_ZYX, [blur_um / s for s in spacing_um])
    ri = image(sharp, spacing_um, medium_ri, noise_ri, optics, rng)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in ri.shape[1:])
    drift = slopes[0] * y[:, None] + slopes[1] * x + slopes[2] * y[:, None] * x
    drift = drift + slopes[3] * (y[:, None] ** 2 - 1 / 3) + slopes[4] * (x**2 - 1 / 3)
    ri += np.float32(drift_ri / max(float(np.abs(drift).max()), 1e-6)) * drift.astype(np.float32)
    tomogram = _cropped(grown, ri, shape, spacing_um, medium_ri, ANY, seed)
    unseen = unseen_parts(tomogram.ri_ZYX, tomogram.masks, {"nucleus": tomogram.nuclei_ZYX}, spacing_um)
    return replace(tomogram, unseen=unseen)


def image(
    ri_ZYX: np.ndarray,
    spacing_um: Spacing,
    medium_ri: float,
    noise_ri: float,
    optics: Optics,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the index as the microscope measures it, float32, same shape: measured spectrum, noise, filled cone."""
    shape = (ri_ZYX.shape[0], ri_ZYX.shape[1], ri_ZYX.shape[2])
    if optics.multiple_scattering:
        spectrum, measured = scatter(ri_ZYX, spacing_um, medium_ri, optics)
    else:
        measured = support(shape, spacing_um, medium_ri, optics)
        spectrum = measure(potential(ri_ZYX, medium_ri), measured)
    if noise_ri > 0:
        scale = np.float32(2 * noise_ri / medium_ri)
        spectrum += scale * coherent_noise(rng, measured, shape, fringes=6)
    return refractive_index(fill_cone(spectrum, measured, shape, optics.rounds), medium_ri)


def _rounded(ri_ZYX: np.ndarray) -> np.ndarray:
    """Round to `RI_STEP`, so that a volume read from the cache equals the simulated one."""
    return (np.rint(ri_ZYX.astype(np.float64) / RI_STEP) * RI_STEP).astype(np.float32)
