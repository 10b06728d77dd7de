"""Write TCF files with the layout of the microscope's own files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from cytovox.io.atomic import atomic_path
from cytovox.io.hdf5 import Sink, create_hdf5
from cytovox.io.tcf_layout import parse_time
from cytovox.io.values import RI_SCALE, check_finite
from cytovox.io.volume import ZYX, Volume, check_spacing

Encoding = Literal["uint16", "float", "tiled", "tiled8"]

#: Size (z, y, x) in voxels of one tile of the tiled encodings.
TILE = (64, 64, 64)

_STORE = {"compression": "gzip", "compression_opts": 4, "shuffle": True}


def write_tcf(
    path: str | Path,
    frames: np.ndarray | Iterable[np.ndarray],
    spacing_um: Sequence[float],
    medium_ri: float,
    times_s: Sequence[float] | None = None,
    fluorescence: Volume | None = None,
    encoding: Encoding = "uint16",
    *,
    stage_um: Sequence[ZYX] | None = None,
    recorded_at: str = "2000-01-01 00:00:00",
    title: str = "",
) -> Path:
    """Write a TCF file atomically.

    Parameters
    ----------
    path : str or Path
    frames : float array (T, Z, Y, X) or (Z, Y, X), or iterable of (Z, Y, X)
        Refractive index. An iterable is written frame by frame.
    spacing_um : (float, float, float)
        z, y, x.
    medium_ri : float
        Refractive index of the medium.
    times_s : sequence of float, optional
        Time of each frame in seconds; optional for a single frame.
    fluorescence : Volume, optional
        Fluorescence on its own grid. The file stores its z origin (OffsetZ). In y and x, both grids of a TCF have the
        same centre.
    encoding : "uint16", "float", "tiled" or "tiled8"
        Index times 10 000 (FormatVersion 1.3), the index itself (1.2), or tiles of 16 or 8 bits. 8 bits have a
        resolution of 0.001 and a range of 0.255.
    stage_um : sequence of (z, y, x), optional
        Position of the stage at each frame.
    recorded_at : str
        Date and time of the first frame; fixed by default, so that the same data give the same file.
    title : str

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    InputError
        No space is left, `path` may not be written, or voxels are not finite.
    ValueError
        The frames differ in shape, or are no refractive index that the encoding can store.
    """
    path = Path(path)
    spacing = check_spacing(spacing_um, path)
    start = parse_time(recorded_at)
    if start is None:
        raise ValueError(f"recorded_at {recorded_at!r}: expected YYYY-mm-dd HH:MM:SS")
    if isinstance(frames, np.ndarray) and frames.ndim == 3:
        frames = frames[None]
    with atomic_path(path) as part, create_hdf5(part) as (file, sink):
        _write_head(file, start, title, medium_ri, "1.2" if encoding == "float" else "1.3")
        _write_tomogram(file, path, _checked(frames, sink), spacing, times_s, encoding, stage_um, start)
        if fluorescence is not None:
            _write_fluorescence(file, fluorescence, start)
    return path


def _checked(frames: Iterable[np.ndarray], sink: Sink) -> Iterator[np.ndarray]:
    """Yield the frames until the disk is full; no further frame is computed then."""
    for frame in frames:
        yield frame
        sink.check()


def _write_head(file: h5py.File, start: datetime, title: str, medium_ri: float, version: str) -> None:
    _set(
        file,
        CreateDate=start.strftime("%Y-%m-%d %H:%M:%S"),
        DataID="",
        Description="",
        DeviceHost="",
        DeviceSerial="",
        DeviceSoftwareVersion="",
        FormatVersion=version,
        RecordingTime=_stamp(start),
        SoftwareVersion="",
        Title=title,
        UniqueID="",
        UserID="",
    )
    device = {"Iteration": 0, "Magnification": 60.0, "NA": 1.2, "RI": float(medium_ri), "Rawsize": 0}
    _set(file.create_group("Info/Device"), **device, Wavelength=0.532, ZP=0, ZP2=0, ZP3=0)
    _set(file.create_group("Info/Imaging"), CameraGain=0.0, CameraShutter=0.0)
    file.create_group("Info/Annotation")


def _write_tomogram(
    file: h5py.File,
    path: Path,
    frames: Iterable[np.ndarray],
    spacing: ZYX,
    times_s: Sequence[float] | None,
    encoding: Encoding,
    stage_um: Sequence[ZYX] | None,
    start: datetime,
) -> None:
    group, projections = file.create_group("Data/3D"), file.create_group("Data/2DMIP")
    write = _WRITERS[encoding]
    shape: tuple[int, ...] | None = None
    limits = []
    count = 0
    for t, frame in enumerate(frames):
        ri_ZYX = np.asarray(frame)
        shape = shape or ri_ZYX.shape
        _check_frame(ri_ZYX, shape, encoding, f"{path}: frame {t}")
        if times_s is None and t > 0:
            raise ValueError("times_s: expected a time for each of several frames")
        name = f"{t:06d}"
        limits.append((float(ri_ZYX.min()), float(ri_ZYX.max())))
        unit = 1.0 if encoding in ("float", "tiled8") else RI_SCALE
        about: dict[str, float | str] = {"RIMin": limits[-1][0] * unit, "RIMax": limits[-1][1] * unit}
        about |= _frame_attributes(times_s, t, stage_um, start)
        for node in (write(group, name, ri_ZYX), _write_plain(projections, name, ri_ZYX.max(axis=0), encoding)):
            _set(node, **{key: value for key, value in about.items() if key not in node.attrs})
        count = t + 1
    if shape is None or (times_s is not None and len(times_s) != count):
        raise ValueError(
            f"{count} frames, {0 if times_s is None else len(times_s)} times: expected as many, at least 1"
        )
    unit = 1.0 if encoding == "float" else RI_SCALE
    total = {
        "DataCount": count,
        "RIMin": min(low for low, _ in limits) * unit,
        "RIMax": max(high for _, high in limits) * unit,
        "TimeInterval": _interval(times_s),
    }
    _set(group, **total, **_grid(shape, spacing, "ZYX"))
    _set(projections, **total, **_grid(shape[1:], spacing[1:], "YX"))


def _write_fluorescence(file: h5py.File, fluorescence: Volume, start: datetime) -> None:
    t_count, channels, *shape = fluorescence.shape
    group = file.create_group("Data/3DFL")
    dtype = np.uint8 if fluorescence.frames.dtype == np.uint8 else np.uint16
    times = fluorescence.times_s
    if times is None and t_count > 1:
        raise ValueError("fluorescence.times_s: expected a time for each of several frames")
    _set(
        group,
        Channels=channels,
        DataCount=t_count,
        OffsetZ=float(fluorescence.origin_um[0]),
        TimeInterval=_interval(times),
        **_grid(shape, fluorescence.spacing_um, "ZYX"),
    )
    for c in range(channels):
        channel = group.create_group(f"CH{c}")
        _set(channel, OffsetZ=float(fluorescence.origin_um[0]))
        for t in range(t_count):
            values = np.clip(np.rint(fluorescence.frame(t, c)), 0, np.iinfo(dtype).max).astype(dtype)
            node = channel.create_dataset(f"{t:06d}", data=values, **_STORE)
            _set(node, **_frame_attributes(times, t, fluorescence.stage_um, start))


def _write_plain(group: h5py.Group, name: str, ri: np.ndarray, encoding: Encoding) -> h5py.Dataset:
    stored = ri.astype(np.float32) if encoding == "float" else np.rint(ri * RI_SCALE).astype(np.uint16)
    return group.create_dataset(name, data=stored, **_STORE)


def _write_tiles(group: h5py.Group, name: str, stored: np.ndarray, scalar_type: int) -> h5py.Group:
    """Write tiles at full resolution and one tile of every second voxel, as the microscope's viewer requires."""
    node = group.create_group(name)
    corners = [tuple(c * n for c, n in zip(corner, TILE, strict=True)) for corner in np.ndindex(*_tiles(stored.shape))]
    for number, corner in enumerate(corners):
        span = tuple(slice(c, min(c + n, size)) for c, n, size in zip(corner, TILE, stored.shape, strict=True))
        _write_tile(node, number, stored[span], span, 1)
    whole = tuple(slice(0, size) for size in stored.shape)
    _write_tile(node, len(corners), stored[::2, ::2, ::2], whole, 2)
    sizes = {f"DataSize{axis}": size for axis, size in zip("ZYX", stored.shape, strict=True)}
    _set(node, ScalarType=scalar_type, NumberOfTiles=len(corners) + 1, **sizes)
    return node


def _write_tile(node: h5py.Group, number: int, values: np.ndarray, span: tuple[slice, ...], step: int) -> None:
    tile = node.create_dataset(f"TILE_{number:03d}", data=values, **_STORE)
    _set(tile, SamplingStep=step)
    for axis, one in zip("ZYX", span, strict=True):
        _set(tile, **{f"DataIndexOffsetPoint{axis}": one.start, f"DataIndexLastPoint{axis}": one.stop - 1})


def _tiles(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-size // n) for size, n in zip(shape, TILE, strict=True))


def _write_tiled16(group: h5py.Group, name: str, ri_ZYX: np.ndarray) -> h5py.Group:
    return _write_tiles(group, name, np.rint(ri_ZYX * RI_SCALE).astype(np.uint16), scalar_type=0)


def _write_tiled8(group: h5py.Group, name: str, ri_ZYX: np.ndarray) -> h5py.Group:
    lowest = float(np.floor(ri_ZYX.min() * 1e3) / 1e3)
    node = _write_tiles(group, name, np.rint((ri_ZYX - lowest) * 1e3).astype(np.uint8), scalar_type=1)
    _set(node, RIMin=lowest)  # voxels are differences from it, so it is the index itself
    return node


_WRITERS: dict[str, Callable[[h5py.Group, str, np.ndarray], h5py.Group | h5py.Dataset]] = {
    "uint16": lambda group, name, ri_ZYX: _write_plain(group, name, ri_ZYX, "uint16"),
    "float": lambda group, name, ri_ZYX: _write_plain(group, name, ri_ZYX, "float"),
    "tiled": _write_tiled16,
    "tiled8": _write_tiled8,
}


def _check_frame(ri_ZYX: np.ndarray, shape: tuple[int, ...], encoding: Encoding, where: str) -> None:
    if ri_ZYX.ndim != 3 or ri_ZYX.shape != shape or ri_ZYX.size == 0:
        raise ValueError(f"{where}: shape {ri_ZYX.shape}: expected (z, y, x) like the first, {shape}")
    if encoding == "float":
        return
    check_finite(ri_ZYX, where)
    low, high = float(ri_ZYX.min()), float(ri_ZYX.max())
    if low < 0 or high > np.iinfo(np.uint16).max / RI_SCALE:
        raise ValueError(f"{where}: values {low:g} to {high:g}: expected the refractive index itself")
    if encoding == "tiled8" and high - low > 0.254:
        raise ValueError(f"{where}: values {low:g} to {high:g}: 8 bits span 0.255; write another encoding")


def _frame_attributes(
    times_s: Sequence[float] | None, t: int, stage_um: Sequence[ZYX] | None, start: datetime
) -> dict[str, float | str]:
    time = 0.0 if times_s is None else float(times_s[t])
    z, y, x = (0.0, 0.0, 0.0) if stage_um is None else stage_um[t]
    position = {"PositionC": 0.0, "PositionZ": float(z), "PositionY": float(y), "PositionX": float(x)}
    return {**position, "Time": time, "RecordingTime": _stamp(start + timedelta(seconds=time))}


def _grid(shape: Sequence[int], spacing: Sequence[float], axes: str) -> dict[str, float | int]:
    sizes: dict[str, float | int] = {f"Size{axis}": size for axis, size in zip(axes, shape, strict=True)}
    return sizes | {f"Resolution{axis}": float(s) for axis, s in zip(axes, spacing, strict=True)}


def _interval(times_s: Sequence[float] | None) -> float:
    return 0.0 if times_s is None or len(times_s) < 2 else float(times_s[-1] - times_s[0]) / (len(times_s) - 1)


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S.%f")


def _set(node: h5py.Group | h5py.Dataset, **values: float | int | str) -> None:
    """Set attributes as TCF stores them: arrays of length 1, text as bytes."""
    for name, value in values.items():
        node.attrs[name] = np.array([value.encode() if isinstance(value, str) else value])
