"""A microscope whose light may be scattered more than once: multi-slice propagation and Rytov's approximation.

`cytovox.simulation.optics` cuts the object's spectrum to the measured frequencies. That holds for weak objects. A thick
or dense cell bends the light on its way, and the reconstruction, which assumes that it does not, distorts the picture.
Here each illumination is propagated through the true index slice by slice, and its field is then reconstructed as a
microscope's software does.

References
----------
Multi-slice propagation: Cowley and Moodie 1957, Acta Cryst. 10:609; Kamilov et al. 2015, Optica 2:517. Reconstruction:
Wolf 1969, Opt. Commun. 1:153; Devaney 1981, Opt. Lett. 6:374.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.ndimage

from cytovox.simulation.optics import Optics, Shape, Spacing

#: Coarsest grid of the propagation along z, in µm.
SLICE_UM = 0.3


def scatter(ri_ZYX: np.ndarray, spacing_um: Spacing, medium_ri: float, optics: Optics) -> tuple[np.ndarray, np.ndarray]:
    """Return the spectrum of the potential that is reconstructed from scattered light, and where it is measured.

    Parameters
    ----------
    ri_ZYX : float array, (Z, Y, X)
        True refractive index; its border should be medium, because the transforms are periodic.
    spacing_um : (z, y, x)
        Voxel size.
    medium_ri : float
        Index of the medium.
    optics : Optics
        Parameters of the microscope.

    Returns
    -------
    spectrum : complex64 array, (Z, Y, X // 2 + 1)
        On the grid of `scipy.fft.rfftn`, 0 where nothing is measured.
    measured : bool array, (Z, Y, X // 2 + 1)
    """
    shape: Shape = (ri_ZYX.shape[0], ri_ZYX.shape[1], ri_ZYX.shape[2])
    extent = [n * s for n, s in zip(shape, spacing_um, strict=True)]
    wave = 2 * np.pi * medium_ri / optics.wavelength_um
    edge = wave * optics.sine(medium_ri)
    # the object is sampled finely enough for its fields
    finest = (SLICE_UM, np.pi / edge, np.pi / edge)
    fine = [n if s <= f else scipy.fft.next_fast_len(int(np.ceil(e / f)))
            for n, s, e, f in zip(shape, spacing_um, extent, finest, strict=True)]  # fmt: skip
    contrast = (ri_ZYX - np.float32(medium_ri)).astype(np.float32)
    if tuple(fine) != shape:
        factors = [a / b for a, b in zip(fine, shape, strict=True)]
        contrast = scipy.ndimage.zoom(contrast, factors, order=1, mode="nearest", grid_mode=True)
    field = _Fields(contrast, extent, wave, edge, 2 * np.pi / optics.wavelength_um)
    total, counts = np.zeros(shape, np.complex64), np.zeros(shape, np.float32)
    for row, column in _directions(optics.illuminations, edge, extent[1], extent[2]):
        place, values = field.frequencies(row, column, shape)
        np.add.at(total, place, values)
        np.add.at(counts, place, np.float32(1))
    # the index is real: frequency -k holds the conjugate of what k holds
    total += np.roll(total[::-1, ::-1, ::-1], 1, axis=(0, 1, 2)).conj()
    counts += np.roll(counts[::-1, ::-1, ::-1], 1, axis=(0, 1, 2))
    half = np.s_[..., : shape[2] // 2 + 1]
    measured = counts[half] > 0
    spectrum = np.where(measured, total[half] / np.maximum(counts[half], 1), 0).astype(np.complex64)
    return spectrum * np.float32(1 / wave**2), measured


class _Fields:
    """Fields behind an object, and the frequencies of the object that they measure."""

    def __init__(self, contrast_ZYX: np.ndarray, extent_um: list[float], wave: float, edge: float, vacuum: float):
        self.contrast, self.wave = contrast_ZYX, wave
        depth, height, width = contrast_ZYX.shape
        self.dz, dy, dx = (e / n for e, n in zip(extent_um, contrast_ZYX.shape, strict=True))
        self.depth_um = extent_um[0]
        ky = 2 * np.pi * scipy.fft.fftfreq(height, dy)[:, None]
        kx = 2 * np.pi * scipy.fft.fftfreq(width, dx)[None, :]
        squared = ky**2 + kx**2
        kz = np.sqrt(np.clip(wave**2 - squared, 0, None))
        self.step_um = 2 * np.pi / extent_um[1], 2 * np.pi / extent_um[2]
        self.propagator = np.where(squared < wave**2, np.exp(1j * kz * self.dz), 0).astype(np.complex64)
        # the last slice lies (depth - 1) slices behind the first one; the field is refocused to the middle slice
        self.middle = depth // 2
        pupil = squared <= edge**2
        self.refocus = (np.exp(-1j * kz * (depth - 1 - self.middle) * self.dz) * pupil).astype(np.complex64)
        self.rows, self.columns = np.nonzero(pupil)
        self.out_z = kz[self.rows, self.columns]
        self.periods = (np.rint(ky[self.rows, 0] / self.step_um[0]).astype(int),
                        np.rint(kx[0, self.columns] / self.step_um[1]).astype(int))  # fmt: skip
        self.phase = np.float32(vacuum * self.dz)

    def frequencies(self, row: int, column: int, shape: Shape) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Return indices into the object's spectrum of a grid of this shape, and the values measured there.

        The illumination has this many whole periods along y and x.
        """
        depth, height, width = self.contrast.shape
        in_z = float(np.sqrt(self.wave**2 - (row * self.step_um[0]) ** 2 - (column * self.step_um[1]) ** 2))
        y, x = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
        light = np.exp(2j * np.pi * (row * y + column * x)).astype(np.complex64)
        field = light * np.complex64(np.exp(-1j * in_z * self.middle * self.dz))  # phase 0 in the middle slice
        longer = self.phase * np.float32(self.wave / in_z)  # a tilted ray is longer within a slice
        for k, layer in enumerate(self.contrast):
            if k:
                field = scipy.fft.ifft2(scipy.fft.fft2(field, overwrite_x=True) * self.propagator, overwrite_x=True)
            field *= np.exp(np.complex64(1j) * (longer * layer))
        field = scipy.fft.ifft2(scipy.fft.fft2(field) * self.refocus)
        relative = field * light.conj()
        turned = unwrap(np.angle(relative))
        rytov = (np.log(np.maximum(np.abs(relative), 0.02)) + 1j * turned).astype(np.complex64)
        scattered = scipy.fft.fft2(light * rytov)[self.rows, self.columns]
        # Wolf's theorem: each outgoing wave measures one frequency of the object, on the Ewald sphere
        layer = np.rint((self.out_z - in_z) * self.depth_um / (2 * np.pi)).astype(int)
        up, right = self.periods[0] - row, self.periods[1] - column
        kept = (np.abs(layer) < shape[0] / 2) & (np.abs(up) < shape[1] / 2) & (np.abs(right) < shape[2] / 2)
        values = scattered * (-2j * self.out_z / self.dz) * np.exp(-2j * np.pi * layer * self.middle / depth)
        values *= np.prod(shape) / self.contrast.size  # from the sum over fine voxels to that over coarse ones
        place = layer[kept] % shape[0], up[kept] % shape[1], right[kept] % shape[2]
        return place, values[kept].astype(np.complex64)


def unwrap(phase_YX: np.ndarray) -> np.ndarray:
    """Return a phase without jumps of 2 pi, whose median at the field's border lies within pi of 0.

    The phase whose differences are closest to the wrapped ones in least squares chooses the multiple of 2 pi of each
    pixel (Ghiglia and Romero 1994, J. Opt. Soc. Am. A 11:107). `skimage.restoration.unwrap_phase` follows paths, and
    does not end for some fields.
    """
    divergence = np.zeros(phase_YX.shape)
    for axis in (0, 1):
        steps = np.angle(np.exp(1j * np.diff(phase_YX, axis=axis)))
        divergence += np.diff(steps, axis=axis, prepend=0, append=0)
    rows, columns = (2 * np.cos(np.pi * np.arange(n) / n) - 2 for n in phase_YX.shape)
    laplacian = rows[:, None] + columns[None, :]
    laplacian[0, 0] = 1
    smooth = scipy.fft.idctn(scipy.fft.dctn(divergence) / laplacian)
    above = smooth - phase_YX
    smooth -= np.median(np.concatenate([above[0], above[-1], above[:, 0], above[:, -1]]))
    return phase_YX + 2 * np.pi * np.rint((smooth - phase_YX) / (2 * np.pi))


def _directions(count: int, edge: float, height_um: float, width_um: float) -> list[tuple[int, int]]:
    """Return whole periods per field, (y, x), of the illumination along the axis and of those on the cone."""
    angles = 2 * np.pi * np.arange(count) / count
    rows = np.trunc(edge * np.sin(angles) * height_um / (2 * np.pi)).astype(int)
    columns = np.trunc(edge * np.cos(angles) * width_um / (2 * np.pi)).astype(int)
    return [(0, 0), *zip(rows.tolist(), columns.tolist(), strict=True)]
