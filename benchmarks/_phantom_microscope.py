"""A tomographic microscope of the benchmark's own, which shares no code with `cytovox.simulation`.

It images a phantom in one of two ways. With multiple scattering, light is propagated through the object slice by slice,
once for each illumination; the recorded fields are then reconstructed in Rytov's approximation, as a microscope's
software does. With single scattering (weak objects, first Born approximation), the object's spectrum is cut to the
frequencies that a microscope measures whose illumination fills its aperture. That region has a closed form.

References
----------
Single scattering, filled aperture: Streibl 1985, J. Opt. Soc. Am. A 2:121.
Multi-slice propagation: Kamilov et al. 2015, Optica 2:517. Reconstruction: Wolf 1969, Opt. Commun. 1:153; Devaney 1981,
Opt. Lett. 6:374 (Rytov); Sung et al. 2009, Opt. Express 17:266 (non-negativity).
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Microscope:
    """Illumination, objective and reconstruction."""

    medium_ri: float = 1.337
    """Refractive index of the medium."""
    wavelength_um: float = 0.532
    """Wavelength in vacuum."""
    aperture: float = 1.1
    """Numerical aperture of illumination and detection; below `medium_ri`."""
    illuminations: int = 36
    """Directions on the cone, besides the one along the axis."""
    rounds: int = 20
    """Rounds of the non-negativity iteration."""
    single_scattering: bool = False
    """Whether light is scattered once only; `illuminations` and `full_angle` then have no meaning."""
    full_angle: bool = False
    """Whether the object is also imaged along y and along x, which leaves no missing cone; needs cubic voxels."""
    noise_ri: float = 0.0006
    """Standard deviation of the reconstructed index that the camera's noise alone causes."""
    fringe_ri: float = 0.0
    """Amplitude of the fringes of one parasitic reflection, in units of the index."""
    drift_ri: float = 0.0
    """Amplitude of a slow change of the background over the field, in units of the index."""


def observe(
    ri_ZYX: np.ndarray, spacing_um: tuple[float, float, float], scope: Microscope, rng: np.random.Generator
) -> np.ndarray:
    """Return the refractive index that the microscope reconstructs.

    Parameters
    ----------
    ri_ZYX : float array, (Z, Y, X)
        True refractive index, on a grid fine enough for the fields. The border should be medium, because the transforms
        are periodic.
    spacing_um : (float, float, float)
        Voxel size, z, y, x.
    scope : Microscope
        The microscope.
    rng : numpy.random.Generator
        Source of noise, fringes and drift.

    Returns
    -------
    float32 array, (Z, Y, X)
    """
    finest = scope.wavelength_um / (2 * scope.aperture)
    if max(spacing_um[1:]) > finest:
        raise ValueError(
            f"spacing {spacing_um}: fields of aperture {scope.aperture} need at most {finest:.2f} µm in y, x"
        )
    if scope.full_angle and len(set(spacing_um)) > 1:
        raise ValueError(f"full-angle tomography needs cubic voxels, got {spacing_um}")
    if scope.full_angle and scope.single_scattering:
        raise ValueError("full-angle tomography is modelled with multiple scattering only")
    shape = ri_ZYX.shape
    wave = 2 * np.pi * scope.medium_ri / scope.wavelength_um
    if scope.single_scattering:
        measured = _measured(shape, spacing_um, scope)
        potential = (wave**2 * ((ri_ZYX / scope.medium_ri) ** 2 - 1)).astype(np.float32)
        spectrum = scipy.fft.fftn(potential) * measured
        noise = scipy.fft.fftn(rng.standard_normal(shape, dtype=np.float32)) * measured
    else:
        spectrum, noise, measured = _recorded(ri_ZYX, spacing_um, scope, rng)
    to_index = scope.medium_ri / (2 * wave**2)  # of a weak potential wave**2 * ((n / n_medium)**2 - 1)
    grain = scipy.fft.ifftn(noise).real
    spectrum += noise * np.complex64(scope.noise_ri / (to_index * max(float(grain.std()), 1e-12)))
    if scope.fringe_ri:
        spectrum += _fringes(measured, rng) * np.complex64(scope.fringe_ri / to_index)
    potential = _non_negative(spectrum, measured, scope.rounds)
    index = scope.medium_ri * np.sqrt(np.clip(1 + potential / wave**2, 0, None))
    return (index + scope.drift_ri * _slow_field(shape, rng)).astype(np.float32)


def _measured(shape: Shape, spacing_um: tuple[float, float, float], scope: Microscope) -> np.ndarray:
    """Return the frequencies that are measured if the illumination fills the aperture, bool, (Z, Y, X).

    With wave number w and edge e of the aperture, a frequency of lateral size r <= 2 e is measured up to
    |kz| = sqrt(w^2 - (e - r)^2) - sqrt(w^2 - e^2).
    """
    wave = 2 * np.pi * scope.medium_ri / scope.wavelength_um
    edge = 2 * np.pi * scope.aperture / scope.wavelength_um
    kz, ky, kx = (2 * np.pi * np.fft.fftfreq(n, s) for n, s in zip(shape, spacing_um, strict=True))
    across = np.hypot(ky[:, None], kx[None, :])
    highest = np.sqrt(np.clip(wave**2 - (edge - across) ** 2, 0, None)) - np.sqrt(wave**2 - edge**2)
    return (across <= 2 * edge) & (np.abs(kz)[:, None, None] <= highest)


def _recorded(
    ri_ZYX: np.ndarray, spacing_um: tuple[float, float, float], scope: Microscope, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the spectra of object and camera noise from all illuminations, and which frequencies are measured."""
    shape = ri_ZYX.shape
    spectrum, counts = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    noise = np.zeros(shape, np.complex64)
    for axis in range(3 if scope.full_angle else 1):
        _record(*(np.moveaxis(a, axis, 0) for a in (ri_ZYX, spectrum, noise, counts)), spacing_um, scope, rng)
    measured = counts > 0
    for values in (spectrum, noise):
        values[measured] /= counts[measured]
    return spectrum, noise, measured


def _record(
    ri_ZYX: np.ndarray,
    spectrum_ZYX: np.ndarray,
    noise_ZYX: np.ndarray,
    counts_ZYX: np.ndarray,
    spacing_um: tuple[float, float, float],
    scope: Microscope,
    rng: np.random.Generator,
) -> None:
    """Image the object under every illumination, and add what is measured to the object's spectrum."""
    depth, height, width = ri_ZYX.shape
    dz, dy, dx = spacing_um
    wave = 2 * np.pi * scope.medium_ri / scope.wavelength_um
    edge = 2 * np.pi * scope.aperture / scope.wavelength_um
    ky = 2 * np.pi * np.fft.fftfreq(height, dy)[:, None]
    kx = 2 * np.pi * np.fft.fftfreq(width, dx)[None, :]
    across = ky**2 + kx**2
    kz = np.sqrt(np.clip(wave**2 - across, 0, None))
    pupil = across <= edge**2
    step = np.where(across < wave**2, np.exp(1j * kz * dz), 0).astype(np.complex64)
    focus = np.exp(-1j * kz * (depth / 2 * dz)).astype(np.complex64)  # from behind the last slice to the middle
    contrast = (2 * np.pi / scope.wavelength_um * dz * (ri_ZYX - scope.medium_ri)).astype(np.float32)
    y_Y1, x_1X = np.arange(height)[:, None], np.arange(width)[None, :]
    for row, column in _directions(scope.illuminations, edge, height * dy, width * dx):
        in_y, in_x = 2 * np.pi * row / (height * dy), 2 * np.pi * column / (width * dx)
        in_z = np.sqrt(wave**2 - in_y**2 - in_x**2)
        light = np.exp(2j * np.pi * (row * y_Y1 / height + column * x_1X / width)).astype(np.complex64)
        field = light * np.complex64(np.exp(-1j * in_z * depth / 2 * dz))  # phase 0 in the middle of the volume
        for layer in contrast * np.float32(wave / in_z):  # a tilted ray is longer within a slice
            field = scipy.fft.ifft2(scipy.fft.fft2(field) * step) * np.exp(1j * layer)
        image = scipy.fft.ifft2(scipy.fft.fft2(field) * focus * pupil)
        relative = image * light.conj()
        rytov = np.log(np.maximum(np.abs(relative), 0.05)) + 1j * _unwrapped(np.angle(relative))
        grain = rng.standard_normal((2, height, width)).astype(np.float32)
        rows, columns = np.nonzero(pupil)
        out = kz[rows, columns]
        layer_of = np.rint((out - in_z) * depth * dz / (2 * np.pi)).astype(int)
        up, right = _signed(rows, height) - row, _signed(columns, width) - column
        kept = (np.abs(layer_of) < depth // 2) & (np.abs(up) < height // 2) & (np.abs(right) < width // 2)
        place = layer_of % depth, up % height, right % width
        place = tuple(axis[kept] for axis in place)
        # the fields' phases refer to the middle of the volume, a discrete transform's to its first slice
        origin = -2j * out / dz * np.exp(-2j * np.pi * layer_of * (depth / 2 - 1) / depth)
        for target, scattered in ((spectrum_ZYX, rytov), (noise_ZYX, grain[0] + 1j * grain[1])):
            spectrum = scipy.fft.fft2(light * scattered)[rows, columns] * origin
            np.add.at(target, place, spectrum[kept].astype(np.complex64))
        np.add.at(counts_ZYX, place, 1)


def _signed(index: np.ndarray, size: int) -> np.ndarray:
    """Return the frequencies, -size/2 to size/2, at these places of a discrete transform."""
    return np.where(index < (size + 1) // 2, index, index - size)


def _directions(count: int, edge: float, height_um: float, width_um: float) -> list[tuple[int, int]]:
    """Whole periods per field, (y, x), of the illumination along the axis and of those on the cone."""
    angles = 2 * np.pi * (np.arange(count) + 0.37) / count
    rows = np.fix(edge * np.sin(angles) * height_um / (2 * np.pi)).astype(int)
    columns = np.fix(edge * np.cos(angles) * width_um / (2 * np.pi)).astype(int)
    return [(0, 0), *zip(rows.tolist(), columns.tolist(), strict=True)]


def _unwrapped(phase_YX: np.ndarray) -> np.ndarray:
    """Return the phase without jumps of 2 pi, 0 at the field's border.

    The phase whose gradient is closest to the wrapped one's in least squares (Ghiglia and Romero 1994, J. Opt. Soc. Am.
    A 11:107) chooses the multiple of 2 pi. Vortices of a strongly scattered field do not spoil what lies behind them,
    as they do for an unwrapping along paths.
    """
    slopes = [np.angle(np.exp(1j * (np.roll(phase_YX, -1, axis) - phase_YX))) for axis in (0, 1)]
    divergence = sum(slope - np.roll(slope, 1, axis) for axis, slope in enumerate(slopes))
    rows, columns = (2 * np.cos(2 * np.pi * np.fft.fftfreq(n)) - 2 for n in phase_YX.shape)
    laplacian = rows[:, None] + columns[None, :]
    laplacian[0, 0] = 1
    smooth = scipy.fft.ifft2(scipy.fft.fft2(divergence) / laplacian).real
    border = np.zeros(phase_YX.shape, bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    smooth -= np.median((smooth - phase_YX)[border])
    return phase_YX + 2 * np.pi * np.rint((smooth - phase_YX) / (2 * np.pi))


def _non_negative(spectrum_ZYX: np.ndarray, measured_ZYX: np.ndarray, rounds: int) -> np.ndarray:
    """Fill the frequencies that were not measured, under the constraint that the potential is not negative."""
    potential = scipy.fft.ifftn(spectrum_ZYX).real
    for _ in range(rounds):
        guess = scipy.fft.fftn(np.maximum(potential, 0))
        guess[measured_ZYX] = spectrum_ZYX[measured_ZYX]
        potential = scipy.fft.ifftn(guess).real
    return potential


def _fringes(measured_ZYX: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the spectrum of one plane wave of amplitude 1 at a random measured frequency."""
    shape = measured_ZYX.shape
    candidates = np.argwhere(measured_ZYX)
    place = candidates[rng.integers(len(candidates))]
    spectrum = np.zeros(shape, np.complex64)
    half = np.complex64(0.5 * np.prod(shape) * np.exp(2j * np.pi * rng.random()))
    spectrum[tuple(place)] += half
    spectrum[tuple(-place % shape)] += np.conj(half)
    return spectrum


def _slow_field(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return a smooth random field of amplitude 1 that is the same in all slices."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[1:]), indexing="ij")
    a, b, c, d, e = rng.normal(size=5)
    field = a * y + b * x + c * y * x + d * (y**2 - 1 / 3) + e * (x**2 - 1 / 3)
    return np.broadcast_to(field / max(np.abs(field).max(), 1e-9), shape)
