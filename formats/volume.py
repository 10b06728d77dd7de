"""One volume of microscopy, whatever the file: axes (t, c, z, y, x), spacing in micrometres, read a frame at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from formats.errors import InputError

ZYX = tuple[float, float, float]

#: Stored refractive index is often multiplied by this, to fit 16 bits.
RI_SCALE = 1e4


class Frames(Protocol):
    """Where the voxels of a volume come from: an array in memory, or a file that is read one frame at a time."""

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(T, C, Z, Y, X)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Type of what `read` returns."""
        ...

    def read(self, t: int, c: int) -> np.ndarray:
        """One frame of one channel, (Z, Y, X)."""
        ...


class ArrayFrames:
    """Frames that lie in memory."""

    def __init__(self, array_TCZYX: np.ndarray) -> None:
        self.array_TCZYX = array_TCZYX

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        t, c, z, y, x = self.array_TCZYX.shape
        return t, c, z, y, x

    @property
    def dtype(self) -> np.dtype:
        return self.array_TCZYX.dtype

    def read(self, t: int, c: int) -> np.ndarray:
        return self.array_TCZYX[t, c]


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image over time, in one or more channels.

    A volume read from a file holds no open handle, so that it can be pickled and handed to another process; each
    call of `frame` opens the file, reads that frame and closes it.

    Attributes
    ----------
    frames : Frames
        The voxels, (T, C, Z, Y, X).
    spacing_um : (float, float, float)
        Distance of neighbouring voxels along z, y, x in micrometres.
    channels : tuple of str
        A name per channel; the refractive index is "RI".
    origin_um : (float, float, float)
        Centre of voxel (0, 0, 0), z, y, x.
    stage_um : tuple of (float, float, float), optional
        Position of the stage at each frame, z, y, x, as the file tells it.
    medium_ri : float, optional
        Refractive index of the medium around the cells.
    times_s : tuple of float, optional
        Seconds since the first frame, per frame.
    recorded_at : tuple of str, optional
        ISO 8601, per frame.
    source : Path, optional
        The file it was read from.
    """

    frames: Frames
    spacing_um: ZYX
    channels: tuple[str, ...] = ("RI",)
    origin_um: ZYX = (0.0, 0.0, 0.0)
    stage_um: tuple[ZYX, ...] | None = None
    medium_ri: float | None = None
    times_s: tuple[float, ...] | None = None
    recorded_at: tuple[str, ...] | None = None
    source: Path | None = None

    def __post_init__(self) -> None:
        t, c = self.frames.shape[:2]
        object.__setattr__(self, "spacing_um", check_spacing(self.spacing_um, self.source or "volume"))
        if len(self.channels) != c:
            raise ValueError(f"{len(self.channels)} channel names for {c} channels")
        for name in ("times_s", "recorded_at", "stage_um"):
            values = getattr(self, name)
            if values is not None and len(values) != t:
                raise ValueError(f"{name} has {len(values)} entries for {t} frames")

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(T, C, Z, Y, X)."""
        return self.frames.shape

    def frame(self, t: int = 0, channel: str | int = "RI") -> np.ndarray:
        """Read one frame of one channel.

        Parameters
        ----------
        t : int
            Frame, 0 to T - 1.
        channel : str or int
            Name or number.

        Returns
        -------
        float32 array, (Z, Y, X)
            Values as stored, NaN included (see `check_finite`); a refractive index is the index itself.

        Raises
        ------
        InputError
            No such channel or frame, or the file cannot be read.
        """
        if not 0 <= t < self.shape[0]:
            raise InputError(f"{self.source or 'volume'}: no frame {t}: it has {self.shape[0]}, counted from 0")
        array_ZYX = self.frames.read(t, self.channel_index(channel))
        return np.ascontiguousarray(array_ZYX, dtype=np.float32)

    def channel_index(self, channel: str | int) -> int:
        """Number of a channel, by its name or number; InputError where there is no such channel."""
        if isinstance(channel, str) and channel in self.channels:
            return self.channels.index(channel)
        if isinstance(channel, int) and 0 <= channel < len(self.channels):
            return channel
        raise InputError(f"{self.source or 'volume'}: no channel {channel}: it has {', '.join(self.channels)}")

    @classmethod
    def from_array(
        cls,
        array: np.ndarray,
        axes: str,
        spacing_um: Sequence[float],
        channels: Sequence[str] | None = None,
        *,
        origin_um: ZYX = (0.0, 0.0, 0.0),
        medium_ri: float | None = None,
        times_s: Sequence[float] | None = None,
    ) -> "Volume":
        """A volume of an array in memory.

        Parameters
        ----------
        array : array
            Of any axis order.
        axes : str
            A letter out of "tczyx" per axis, such as "zyx".
        spacing_um : sequence of 3 float
            z, y, x.
        channels : sequence of str, optional
            Defaults to "RI" for one channel, "CH0", "CH1", ... for more.
        """
        array_TCZYX = to_tczyx(np.asarray(array), axes)
        return cls(
            ArrayFrames(array_TCZYX),
            check_spacing(spacing_um, "volume"),
            tuple(channels) if channels is not None else default_channels(array_TCZYX.shape[1]),
            origin_um=origin_um,
            medium_ri=medium_ri,
            times_s=None if times_s is None else tuple(float(s) for s in times_s),
        )


@dataclass(frozen=True, eq=False)
class Mask:
    """Labels of one frame.

    Attributes
    ----------
    labels_ZYX : integer array, (Z, Y, X)
        0 is the background.
    spacing_um : (float, float, float), optional
        z, y, x; None where the file tells none (a plain TIFF).
    origin_um : (float, float, float)
        Centre of voxel (0, 0, 0), z, y, x.
    source : Path, optional
        The file it was read from.
    """

    labels_ZYX: np.ndarray
    spacing_um: ZYX | None
    origin_um: ZYX = (0.0, 0.0, 0.0)
    source: Path | None = None


def to_tczyx(array: np.ndarray, axes: str) -> np.ndarray:
    """A view of `array` with axes t, c, z, y, x; those that `axes` does not name have length 1."""
    axes = axes.lower()
    if len(axes) != array.ndim or len(set(axes)) != len(axes) or not set(axes) <= set("tczyx"):
        raise ValueError(f"axes {axes!r} do not name the {array.ndim} axes of the array, each a letter of 'tczyx'")
    present = [letter for letter in "tczyx" if letter in axes]
    ordered = array.transpose([axes.index(letter) for letter in present])
    return ordered[tuple(slice(None) if letter in axes else None for letter in "tczyx")]


def default_channels(count: int) -> tuple[str, ...]:
    """Names for channels that have none: a single one is taken for the refractive index."""
    return ("RI",) if count == 1 else tuple(f"CH{c}" for c in range(count))


def check_spacing(spacing_um: Sequence[float], where: object) -> ZYX:
    """Spacing as three positive floats z, y, x; InputError naming `where` if it is not that."""
    try:
        values = tuple(float(value) for value in spacing_um)
    except (TypeError, ValueError):
        values = ()
    if len(values) != 3 or not all(np.isfinite(v) and v > 0 for v in values):
        raise InputError(f"{where}: spacing {spacing_um}: expected three positive lengths z, y, x in micrometres")
    return values[0], values[1], values[2]


def spacing_agrees(
    mask_spacing: Sequence[float], volume_spacing: Sequence[float], rtol: float = 0.02
) -> Literal["same", "thousandfold", "differs"]:
    """Whether a mask and its volume have the same spacing.

    Parameters
    ----------
    mask_spacing, volume_spacing : sequence of 3 float
        z, y, x in micrometres.
    rtol : float
        Largest relative difference per axis that is still the same: files round their numbers.

    Returns
    -------
    "same", "thousandfold" or "differs"
        "thousandfold": the same but for a factor of 1000 either way on all axes, as when a tool wrote micrometres
        into a file that counts in millimetres.
    """
    ratio = np.asarray(mask_spacing, dtype=float) / np.asarray(volume_spacing, dtype=float)
    if np.allclose(ratio, 1.0, rtol=0, atol=rtol):
        return "same"
    if any(np.allclose(ratio * factor, 1.0, rtol=0, atol=rtol) for factor in (1e3, 1e-3)):
        return "thousandfold"
    return "differs"


def check_finite(frame_ZYX: np.ndarray, where: object) -> None:
    """Raise InputError where a frame holds NaN or infinity, with how many and the first one's z, y, x.

    Parameters
    ----------
    frame_ZYX : float array, (Z, Y, X)
        As `Volume.frame` gives it.
    where : object
        Named in the message: the file, with the frame.
    """
    with np.errstate(invalid="ignore"):  # one pass and no copy: the sum carries any NaN or infinity
        if np.isfinite(np.sum(frame_ZYX, dtype=np.float64)):
            return
    bad = np.flatnonzero(~np.isfinite(frame_ZYX))
    first = tuple(int(i) for i in np.unravel_index(bad[0], frame_ZYX.shape))
    raise InputError(
        f"{where}: {bad.size} of {frame_ZYX.size} voxels are NaN or infinite, the first at z, y, x = {first}: "
        "expected finite values; repair the file or leave it out"
    )


def unscaled_ri(values_ZYX: np.ndarray) -> np.ndarray:
    """Refractive index as float32, where an image file may hold it times 10 000.

    Taken for scaled: every non-zero voxel lies in 10 000..20 000. Anything else stays as it is.
    """
    if values_ZYX.dtype.kind in "iuf" and values_ZYX.size and 1e4 <= np.max(values_ZYX) <= 2e4:
        nonzero = values_ZYX[values_ZYX != 0]
        if np.min(nonzero) >= RI_SCALE:
            return np.divide(values_ZYX, RI_SCALE, dtype=np.float32)
    return values_ZYX.astype(np.float32, copy=False)


def as_labels(values: np.ndarray, where: object) -> np.ndarray:
    """Labels as an integer array; InputError where a value is no whole number."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind != "f":
        raise InputError(f"{where}: a mask of type {values.dtype}: expected whole numbers")
    rounded = np.rint(values)
    wrong = ~(values == rounded)  # NaN is wrong too
    if wrong.any():
        example = values[wrong][0]
        raise InputError(
            f"{where}: {int(wrong.sum())} voxels hold no whole number, such as {example:g}: expected a mask of labels"
        )
    low, high = (int(rounded.min()), int(rounded.max())) if rounded.size else (0, 0)
    return rounded.astype(np.result_type(np.min_scalar_type(low), np.min_scalar_type(high)))
