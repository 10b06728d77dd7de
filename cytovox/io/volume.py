"""A volume from any file format: axes (t, c, z, y, x), spacing in micrometres, read one frame at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from cytovox.errors import InputError
from cytovox.io.orientation import AxisOrientation
from cytovox.io.regions import ArrayReader, FrameReader, StoredReader
from cytovox.io.values import ri_scale, unscaled_ri

ZYX = tuple[float, float, float]


class Frames(Protocol):
    """Source of the voxels of a volume: an array in memory, or a file that is read one frame at a time."""

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(T, C, Z, Y, X)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Type of the array that `read` returns."""
        ...

    def read(self, t: int, c: int) -> np.ndarray:
        """Return one frame of one channel, (Z, Y, X)."""
        ...

    def reader(self, t: int, c: int) -> FrameReader:
        """Return a reader of the same frame, region by region as float32."""
        ...


class ArrayFrames:
    """Frames in memory.

    Parameters
    ----------
    array_TCZYX : array
    ri : int, optional
        Channel of the refractive index, which may be scaled (see `unscaled_ri`).
    """

    def __init__(self, array_TCZYX: np.ndarray, ri: int | None = None) -> None:
        self.array_TCZYX, self.ri = array_TCZYX, ri

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        t, c, z, y, x = self.array_TCZYX.shape
        return t, c, z, y, x

    @property
    def dtype(self) -> np.dtype:
        return self.array_TCZYX.dtype

    def read(self, t: int, c: int) -> np.ndarray:
        values_ZYX = self.array_TCZYX[t, c]
        return unscaled_ri(values_ZYX) if c == self.ri else values_ZYX

    def reader(self, t: int, c: int) -> FrameReader:
        values_ZYX = self.array_TCZYX[t, c]
        if c != self.ri:
            return ArrayReader(values_ZYX)
        return StoredReader(self.shape[2:], lambda box: values_ZYX[box], is_ri=True)


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image over time, in one or more channels.

    A volume from a file has no open handle, so that it can be pickled and sent to another process. Each call of `frame`
    opens the file, reads that frame and closes the file.

    Attributes
    ----------
    frames : Frames or array
        The voxels, (T, C, Z, Y, X). An array may also be (Z, Y, X) or (T, Z, Y, X). A refractive index stored times
        1000 or times 10 000 is converted, as in files, and `notes` report it.
    spacing_um : (float, float, float)
        Distance between neighbouring voxels along z, y, x in micrometres.
    channels : tuple of str
        One name per channel; the refractive index is "RI".
    origin_um : (float, float, float)
        Centre of voxel (0, 0, 0), z, y, x.
    stage_um : tuple of (float, float, float), optional
        Position of the stage at each frame, z, y, x, as the file states it.
    medium_ri : float, optional
        Refractive index of the medium around the cells.
    times_s : tuple of float, optional
        Seconds since the first frame, per frame.
    recorded_at : tuple of str, optional
        Date and time of each frame, ISO 8601.
    source : Path, optional
        The file it was read from.
    notes : tuple of str
        Decisions about entries of the file that are not explicit; the caller must report them.
    orientation : AxisOrientation, optional
        Reorientation of the stored axes to ITK's; None if the file states no directions (TIFF, TCF, OME-Zarr, NIfTI
        without an affine).
    """

    frames: Frames | np.ndarray
    spacing_um: ZYX = ()  # type: ignore[assignment]  # a missing one raises the message below, not TypeError
    channels: tuple[str, ...] = ("RI",)
    origin_um: ZYX = (0.0, 0.0, 0.0)
    stage_um: tuple[ZYX, ...] | None = None
    medium_ri: float | None = None
    times_s: tuple[float, ...] | None = None
    recorded_at: tuple[str, ...] | None = None
    source: Path | None = None
    notes: tuple[str, ...] = ()
    orientation: AxisOrientation | None = None

    def __post_init__(self) -> None:
        if not hasattr(self.frames, "reader"):
            self._take_array(np.asarray(self.frames))
        t, c = self.shape[:2]
        object.__setattr__(self, "spacing_um", check_spacing(self.spacing_um, self.source or "volume"))
        if len(self.channels) != c:
            raise ValueError(f"{len(self.channels)} channel names for {c} channels")
        for name in ("times_s", "recorded_at", "stage_um"):
            values = getattr(self, name)
            if values is not None and len(values) != t:
                raise ValueError(f"{name} has {len(values)} entries for {t} frames")

    def _take_array(self, array: np.ndarray) -> None:
        """Set the voxels from an array, and add a note if a refractive index is scaled."""
        axes = {3: "zyx", 4: "tzyx", 5: "tczyx"}.get(array.ndim)
        if axes is None or array.dtype.kind not in "iuf" or not array.size:
            raise InputError(
                f"volume: an array of {array.dtype} with shape {array.shape}: expected numbers (z, y, x), (t, z, y, x) "
                "or (t, c, z, y, x)"
            )
        array_TCZYX = to_tczyx(array, axes)
        channels = self.channels
        if channels == ("RI",) and array_TCZYX.shape[1] > 1:
            channels = default_channels(array_TCZYX.shape[1])
            object.__setattr__(self, "channels", channels)
        ri = channels.index("RI") if "RI" in channels else None
        object.__setattr__(self, "frames", ArrayFrames(array_TCZYX, ri))
        scale = 1.0 if ri is None or ri >= array_TCZYX.shape[1] else ri_scale(array_TCZYX[0, ri])
        if scale not in (None, 1.0):
            note = f"volume: the values were divided by {scale:g}: taken for a scaled refractive index"
            object.__setattr__(self, "notes", (*self.notes, note))

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(T, C, Z, Y, X)."""
        return self._frames.shape

    @property
    def _frames(self) -> Frames:
        return cast(Frames, self.frames)

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
            Stored values, including NaN (see `check_finite`); a refractive index is not scaled.

        Raises
        ------
        InputError
            No such channel or frame, or the file cannot be read.
        """
        array_ZYX = self._frames.read(self._frame_index(t), self.channel_index(channel))
        return np.ascontiguousarray(array_ZYX, dtype=np.float32)

    def reader(self, t: int = 0, channel: str | int = "RI") -> FrameReader:
        """Return a reader of one frame of one channel, region by region.

        OME-Zarr, TCF and uncompressed TIFF read only the requested region. Other files are read as a whole at the first
        call and kept in memory; so is a TCF whose chunks are as large as its frames.

        The values are those of `frame`, with one exception. If a file does not state whether its index is stored times
        10 000, `frame` examines all voxels, and a reader examines one block (see `StoredReader`). Both differ only if
        the file stores no refractive index.

        Parameters
        ----------
        t, channel
            As for `frame`.

        Returns
        -------
        FrameReader
            ``reader.read((slice(0, 8), slice(0, 64), slice(0, 64)))`` is a float32 array of that region.

        Raises
        ------
        InputError
            No such channel or frame; `read` raises it if the file cannot be read.
        """
        return self._frames.reader(self._frame_index(t), self.channel_index(channel))

    def _frame_index(self, t: int) -> int:
        if not 0 <= t < self.shape[0]:
            raise InputError(f"{self.source or 'volume'}: no frame {t}: it has {self.shape[0]}, counted from 0")
        return t

    def channel_index(self, channel: str | int) -> int:
        """Return the number of a channel by its name or number; InputError if there is no such channel."""
        if isinstance(channel, str) and channel in self.channels:
            return self.channels.index(channel)
        if isinstance(channel, int) and 0 <= channel < len(self.channels):
            return channel
        if channel == "RI" and len(self.channels) == 1:
            return 0
        raise InputError(
            f"{self.source or 'volume'}: no channel {channel}: it has {', '.join(self.channels)}"
            + ("; name the channel of the refractive index RI, or save it alone" if channel == "RI" else "")
        )

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
        """Return a volume of an array in memory.

        Parameters
        ----------
        array : array
            Array with any order of axes.
        axes : str
            One letter of "tczyx" per axis, such as "zyx".
        spacing_um : sequence of 3 float
            z, y, x.
        channels : sequence of str, optional
            By default "RI" for one channel, and "CH0", "CH1", ... for more. A channel "RI" may be scaled, as in files
            (see `unscaled_ri`).
        """
        array_TCZYX = to_tczyx(np.asarray(array), axes)
        names = tuple(channels) if channels is not None else default_channels(array_TCZYX.shape[1])
        return cls(
            ArrayFrames(array_TCZYX, names.index("RI") if "RI" in names else None),
            check_spacing(spacing_um, "volume"),
            names,
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
        z, y, x; None if the file states none (a plain TIFF).
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
    """Return a view of `array` with axes t, c, z, y, x; axes that `axes` does not name have length 1."""
    axes = axes.lower()
    if len(axes) != array.ndim or len(set(axes)) != len(axes) or not set(axes) <= set("tczyx"):
        raise ValueError(f"axes {axes!r} do not name the {array.ndim} axes of the array, each a letter of 'tczyx'")
    present = [letter for letter in "tczyx" if letter in axes]
    ordered = array.transpose([axes.index(letter) for letter in present])
    return ordered[tuple(slice(None) if letter in axes else None for letter in "tczyx")]


def default_channels(count: int) -> tuple[str, ...]:
    """Return names for unnamed channels; a single channel is taken for the refractive index."""
    return ("RI",) if count == 1 else tuple(f"CH{c}" for c in range(count))


def check_spacing(spacing_um: Sequence[float], where: object) -> ZYX:
    """Return the spacing as three positive floats z, y, x; else raise an InputError that names `where`."""
    try:
        values = tuple(float(value) for value in spacing_um)
    except (TypeError, ValueError):
        values = ()
    if not values and spacing_um == ():
        raise InputError(f"{where}: voxel size missing: give spacing_um=(z, y, x) in micrometres")
    if len(values) != 3 or not all(np.isfinite(v) and v > 0 for v in values):
        raise InputError(f"{where}: spacing {spacing_um}: expected three positive lengths z, y, x in micrometres")
    return values[0], values[1], values[2]
