"""Public functions of `import cytovox`: from a volume to cells and measurements in a few lines.

They call the code of the commands, so commands and notebooks give the same results.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from cytovox.errors import InputError
from cytovox.io import Volume, find_writer
from cytovox.io import read_volume as read
from cytovox.io.atomic import atomic_path
from cytovox.io.fluorescence import fluorescence_channels, read_channel
from cytovox.io.formats import expected, require_size
from cytovox.measurement import registry
from cytovox.measurement.measurements import Rules, measure_frame
from cytovox.measurement.refractive import PAPER_MEDIUM_RI, Increments
from cytovox.models.cells import CellModel
from cytovox.models.domain import outside, volume_statistics
from cytovox.models.load import load_model
from cytovox.models.organelle import OrganelleMasks, OrganelleModel, checked_frame
from cytovox.organelles import WHOLE
from cytovox.quality.control import cell_state, frame_flags
from cytovox.quality.rules import QualityRules, as_text
from cytovox.segmentation.checks import nuclei_outside_note
from cytovox.segmentation.field import CELL_INPUTS, CellField, FoundCells, SeedRule, WatershedCells, finder_inputs
from cytovox.segmentation.holes import fill_cells
from cytovox.simulation import simulate as simulate_tomogram
from cytovox.simulation.tomogram import DEFAULT_SHAPE, DEFAULT_SPACING_UM
from cytovox.tracking.tracking import Detection, TrackingRules, track_cells

__all__ = [
    "QualityWarning",
    "Segmentation",
    "Simulation",
    "find_cells",
    "measure",
    "read",
    "save",
    "segment",
    "simulate",
    "track",
]

#: Shipped weights of each method that uses a network.
CELL_WEIGHTS = {"offsets": "cells_offsets", "network": "cells_network"}


class QualityWarning(UserWarning):
    """Warning of a result that the image or the masks do not support."""


@dataclass(frozen=True)
class Segmentation:
    """Masks, cells and measurements of one frame."""

    masks: OrganelleMasks
    """Masks of the organelles, by name."""
    cells_ZYX: np.ndarray
    """int32 labels, 0 outside cells."""
    table: pd.DataFrame
    """Measurements, as returned by `measure`."""


@dataclass(frozen=True)
class Simulation:
    """A simulated volume with its ground truth."""

    volume: Volume
    """Refractive index as measured by the simulated microscope."""
    masks: Mapping[str, np.ndarray]
    """Mask of each organelle, bool (Z, Y, X)."""
    cells_ZYX: np.ndarray
    """uint16 labels, 0 outside cells."""


def find_cells(
    masks: Mapping[str, np.ndarray],
    method: str = "offsets",
    *,
    volume: Volume | None = None,
    frame: int = 0,
    spacing_um: Sequence[float] | None = None,
    model: CellModel | None = None,
    device: str = "auto",
    rule: SeedRule | None = None,
) -> np.ndarray:
    """Return the cells of a field as labels.

    Parameters
    ----------
    masks : mapping of str to array, (Z, Y, X)
        Needs `membrane` (the filled cells) and `nucleus`, for example from `OrganelleModel.predict`. A nucleus mask of
        several integer labels is taken as separate nuclei.
    method : str
        `offsets`: a network predicts for every voxel the offset to its cell's centre, all cells in one pass. `network`:
        a nucleus-conditioned network, one pass per nucleus (Choi et al. 2021). `watershed`: no network.
    volume : Volume, optional
        For masks that are not from `predict`: gives the refractive index to the networks, and the voxel size.
    frame : int
        Frame of that volume.
    spacing_um : three floats, optional
        Voxel size z, y, x in µm, if there is no volume.
    model : CellModel, optional
        Other weights than the shipped ones; from `load_model`.
    device : str
        Device of the shipped weights: `auto`, `cpu`, `cuda` or `cuda:N`.
    rule : SeedRule, optional
        Rule by which the nucleus mask is split into nuclei.

    Returns
    -------
    int32 array, (Z, Y, X)
        One label per cell, 0 outside cells. Cell k grew from nucleus k.

    Raises
    ------
    InputError
        Missing masks, different shapes, no voxel size, an unknown method, or weights of another method.

    Warns
    -----
    QualityWarning
        There is no nucleus, much of the nuclei lies outside the cells, or the frame differs from the inputs that the
        weights were trained on.

    Examples
    --------
    >>> import cytovox
    >>> truth = cytovox.simulate("HeLa", seed=1, shape=(32, 64, 64))
    >>> cells = cytovox.find_cells(truth.masks, method="watershed", volume=truth.volume)
    >>> cells.shape
    (32, 64, 64)
    """
    field = _cell_field(masks, volume, frame, spacing_um)
    membrane, nucleus = field.inside("membrane"), field.inside("nucleus")
    if warning := nuclei_outside_note(nucleus, membrane):
        warnings.warn(warning, QualityWarning, stacklevel=2)
    if not nucleus.any():
        warnings.warn("no nucleus, so no cells were separated", QualityWarning, stacklevel=2)
    return fill_cells(_found(field, method, model, device, rule).cells_ZYX)


def _found(field: CellField, method: str, model: CellModel | None, device: str, rule: SeedRule | None) -> FoundCells:
    if method not in (*CELL_WEIGHTS, "watershed"):
        raise InputError(f"find_cells: method {method!r}: expected {', '.join(CELL_WEIGHTS)} or watershed")
    if method == "watershed":
        if model is not None:
            raise InputError("find_cells: method watershed uses no model; leave model out")
        return WatershedCells(rule or SeedRule())(field)
    if model is None:
        model = cast(CellModel, load_model(CELL_WEIGHTS[method], task="cells", device=device, rule=rule))
    elif not isinstance(model, CellModel):
        raise InputError(f"find_cells: model: expected a CellModel, got {type(model).__name__}")
    elif rule is not None:
        raise InputError("find_cells: give rule to load_model, or leave model out")
    elif model.method != method:
        raise InputError(f"find_cells: the model's method is {model.method}, not {method}")
    if (ri_ZYX := field.ri_ZYX) is not None:
        statistics = volume_statistics(ri_ZYX.__getitem__, ri_ZYX.shape)
        if differing := "; ".join(outside(model.trained_on, statistics, field.spacing_um)):
            warnings.warn(f"outside the training data of the cells' weights: {differing}", QualityWarning, stacklevel=3)
    return model(field)


def _cell_field(
    masks: Mapping[str, np.ndarray], volume: Volume | None, frame: int, spacing_um: Sequence[float] | None
) -> CellField:
    if missing := [name for name in ("membrane", "nucleus") if name not in masks]:
        raise InputError(f"find_cells: no mask of {' and '.join(missing)}; there are {', '.join(masks) or 'none'}")
    if isinstance(masks, OrganelleMasks):
        if spacing_um is not None or volume not in (None, masks.volume):
            raise InputError("find_cells: the masks belong to a volume already: leave volume and spacing_um out")
        volume, frame = masks.volume, masks.frame
    ri_ZYX = None
    if volume is not None:
        ri_ZYX, spacing_um = checked_frame(volume, frame), volume.spacing_um
    membrane, nucleus = np.asarray(masks["membrane"]), np.asarray(masks["nucleus"])
    shapes = {"membrane": membrane.shape, "nucleus": nucleus.shape}
    if ri_ZYX is not None:
        shapes["volume"] = ri_ZYX.shape
    if len(set(shapes.values())) > 1 or membrane.ndim != 3:
        raise InputError(f"find_cells: expected arrays of one shape (z, y, x), got {shapes}")
    if spacing_um is None:
        raise InputError("find_cells: voxel size missing: give volume, or spacing_um=(z, y, x) in micrometres")
    seeds, probabilities = None, getattr(masks, "probabilities", {})
    if probabilities.keys() >= CELL_INPUTS:
        membrane, nucleus = finder_inputs(masks, probabilities)
    elif nucleus.dtype.kind in "iu" and int(nucleus.max(initial=0)) > 1 and len(np.unique(nucleus)) > 2:
        seeds = nucleus.astype(np.int32)
    z, y, x = (float(s) for s in spacing_um)
    membrane, nucleus = (values if values.dtype.kind == "f" else values != 0 for values in (membrane, nucleus))
    return CellField(membrane, nucleus, (z, y, x), ri_ZYX, seeds)


def measure(
    volume: Volume,
    masks: Mapping[str, np.ndarray],
    cells: np.ndarray,
    *,
    frame: int | None = None,
    medium_ri: float | None = None,
    area: str = "enclosing",
    increments: Increments | None = None,
) -> pd.DataFrame:
    """Measure the cells of one frame: volume, surface area, refractive index, concentration, dry mass, fluorescence.

    Parameters
    ----------
    volume : Volume
        Refractive index. Fluorescence channels are measured where the volume has any (docs/fluorescence.md).
    masks : mapping of str to array, (Z, Y, X)
        Masks of the organelles.
    cells : integer array, (Z, Y, X)
        One label per cell, from `find_cells`.
    frame : int, optional
        Frame of the volume; that of the masks from `predict`, else 0, if not given.
    medium_ri : float, optional
        Refractive index of the medium; that of the file if not given. If neither is known, the published 1.3337 is
        used, with a warning: an error of 0.003 changes a concentration by 14 %.
    area : str
        Estimator of the surface area, one of `cytovox.measurement.morphometry.AREA_ESTIMATORS`.
    increments : Increments, optional
        Specific refractive increments.

    Returns
    -------
    DataFrame
        One row per cell and compartment, with the columns of `cells.csv` (docs/measurements.md). `cell` 0 is the
        volume outside cells. `flags` lists reasons to doubt a cell's measurements, `outside_training` how the frame
        differs from the training inputs of the weights.

    Raises
    ------
    InputError
        Arrays of different shapes, or an unknown estimator.

    Examples
    --------
    >>> import cytovox
    >>> truth = cytovox.simulate("HeLa", seed=1, shape=(32, 64, 64))
    >>> table = cytovox.measure(truth.volume, truth.masks, truth.cells_ZYX)
    >>> bool((table["volume_um3"] >= 0).all())
    True
    """
    differing = ""
    if isinstance(masks, OrganelleMasks):
        if frame not in (None, masks.frame):
            raise InputError(f"measure: frame {frame}: the masks are of frame {masks.frame}")
        frame, differing = masks.frame, masks.outside_training
    frame, labels = frame or 0, np.asarray(cells)
    ri_ZYX = checked_frame(volume, frame)
    medium, medium_from = _medium(volume, medium_ri)
    if labels.dtype.kind not in "iu":
        raise InputError(f"measure: cells: expected integer labels, got {labels.dtype}")
    rules, labels = Rules(medium, increments or Increments(), area), labels.astype(np.int32)
    channels = {name: read_channel(volume, frame, name) for name in fluorescence_channels(volume)}
    try:
        measured = measure_frame(
            ri_ZYX,
            labels,
            dict(masks),
            volume.spacing_um,
            rules,
            volume.origin_um,
            getattr(masks, "probabilities", None),
            channels,
        )
    except ValueError as error:
        raise InputError(f"measure: {error}") from None
    rows = [{"frame": frame, **row} for row in measured.compartments]
    flags = {row["cell"]: _flags(row, differing) for row in rows if row["compartment"] == WHOLE}
    rows = [
        {
            **row,
            "flags": flags.get(row["cell"], ""),
            "medium_ri": medium,
            "medium_from": medium_from,
            "increments": rules.increments.rule,
            "area_estimator": rules.area,
            "outside_training": differing,
        }
        for row in rows
    ]
    measured_columns = registry.columns(list(channels))
    columns = ["frame", *measured_columns, "flags"]
    columns += ["medium_ri", "medium_from", "increments", "area_estimator", "outside_training"]
    return pd.DataFrame(rows, columns=columns).astype(registry.numeric_types(measured_columns))


def _medium(volume: Volume, given: float | None) -> tuple[float, str]:
    if given is not None:
        if not 1.3 <= given <= 1.6:
            raise InputError(f"medium_ri {given}: expected a refractive index from 1.3 to 1.6; water is 1.333")
        return float(given), "given"
    if volume.medium_ri is not None:
        return float(volume.medium_ri), "file"
    warnings.warn(
        f"refractive index of the medium missing: {PAPER_MEDIUM_RI} (Choi et al. 2021) was taken; an error of 0.003 "
        "changes a concentration by 14 %: give medium_ri",
        QualityWarning,
        stacklevel=3,
    )
    return PAPER_MEDIUM_RI, "paper"


def _flags(row: dict[str, Any], differing: str) -> str:
    found = frame_flags(cell_state(row), QualityRules())
    return as_text(found | ({"weights_range"} if differing else set()))


def track(
    tables: pd.DataFrame | Sequence[pd.DataFrame],
    *,
    max_distance_um: float | None = None,
    max_gap: int = 1,
    divisions: bool = False,
) -> pd.DataFrame:
    """Return tables with the tracks of cells over the frames of a time-lapse.

    Parameters
    ----------
    tables : DataFrame, or sequence of these
        Tables from `measure`, one per frame.
    max_distance_um : float, optional
        Largest displacement of a cell between frames; 15 µm if not given.
    max_gap : int
        Number of frames that a cell may be missing in.
    divisions : bool
        Detect divisions: the track of the dividing cell ends, and those of its two daughters begin.

    Returns
    -------
    DataFrame
        All rows, with the columns `track` (one cell between divisions), `parent` (the track that divided into it) and
        `lineage` (a cell and all its descendants).

    Raises
    ------
    InputError
        A table without the columns of `measure`, or the same cell twice in one frame.

    Examples
    --------
    >>> import cytovox
    >>> truth = cytovox.simulate("HeLa", seed=1, shape=(32, 64, 64))
    >>> table = cytovox.measure(truth.volume, truth.masks, truth.cells_ZYX)
    >>> moved = table.assign(frame=1, x_um=table["x_um"] + 1)
    >>> tracked = cytovox.track([table, moved])
    >>> tracked.groupby(["frame", "cell"])["track"].first().nunique() == table["cell"].replace(0, None).nunique()
    True
    """
    table = pd.concat([tables] if isinstance(tables, pd.DataFrame) else tables, ignore_index=True)
    needed = ("frame", "cell", "compartment", "z_um", "y_um", "x_um", "volume_um3")
    if missing := [name for name in needed if name not in table]:
        raise InputError(f"track: no column {', '.join(missing)}; expected tables from cytovox.measure")
    whole = table[(table["compartment"] == WHOLE) & (table["cell"] > 0)]
    if len(twice := whole[whole.duplicated(["frame", "cell"])]):
        t, cell = twice.iloc[0][["frame", "cell"]]
        raise InputError(f"track: cell {cell} is twice in frame {t}: give one table per frame")
    detections = [
        Detection(int(row.frame), int(row.cell), (row.z_um, row.y_um, row.x_um), row.volume_um3)
        for row in whole.itertuples()
    ]
    own = {} if max_distance_um is None else {"max_distance_um": float(max_distance_um)}
    tracked = track_cells(detections, TrackingRules(max_gap=max_gap, divisions=divisions, **own))
    of = {one.track: one for one in tracked.tracks}
    numbers = [tracked.track_of.get((int(t), int(cell))) for t, cell in zip(table["frame"], table["cell"], strict=True)]
    found = table.assign(
        track=numbers,
        parent=[None if number is None else of[number].parent for number in numbers],
        lineage=[None if number is None else of[number].lineage for number in numbers],
    )
    return found.astype({"track": "Int64", "parent": "Int64", "lineage": "Int64"})


def segment(
    volume: Volume,
    *,
    frame: int = 0,
    method: str = "offsets",
    organelles: str | Path | Sequence[str | Path] = "organelle",
    medium_ri: float | None = None,
    device: str = "auto",
) -> Segmentation:
    """Return organelles, cells and measurements of one frame, as the `analyze` command does.

    Parameters
    ----------
    volume : Volume
        Refractive index.
    frame : int
        Time point, from 0.
    method : str
        As of `find_cells`.
    organelles : str, Path or sequence of these
        Weights of the organelles, as of `load_model`.
    medium_ri : float, optional
        As of `measure`.
    device : str
        `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns
    -------
    Segmentation

    Raises
    ------
    InputError
        As of `load_model`, `find_cells` and `measure`.

    Examples
    --------
    >>> import cytovox
    >>> truth = cytovox.simulate("HeLa", seed=1, shape=(64, 64, 64))
    >>> result = cytovox.segment(truth.volume, method="watershed", device="cpu")
    >>> sorted(result.masks)
    ['lipid', 'membrane', 'nucleolus', 'nucleus']
    """
    model: OrganelleModel = load_model(organelles, task="organelle", device=device, pad_yx=(0, 0))
    masks = model.predict(volume, frame)
    cells = find_cells(masks, method, device=device)
    return Segmentation(masks, cells, measure(volume, masks, cells, medium_ri=medium_ri))


def save(path: str | Path, data: Any, like: Volume | None = None) -> Path:
    """Write masks, labels, a table or a volume; the suffix determines the format.

    Images are written with their voxel size, position and, except for NIfTI, channel names. OME-TIFF and OME-Zarr also
    store the time of each frame (`times_s`). NIfTI stores no time, because a file holds one frame.

    Parameters
    ----------
    path : str or Path
        .ome.tif, .ome.zarr, .nii, .nii.gz or a suffix of an added format for images; .csv or .parquet for tables.
    data : OrganelleMasks, integer or bool array (Z, Y, X), DataFrame or Volume
        Masks of several organelles become channels; NIfTI holds one channel.
    like : Volume, optional
        Volume whose voxel size and position are written with an array, and its times if both have the same number of
        frames.

    Returns
    -------
    Path
        `path`. An error leaves no file.

    Raises
    ------
    InputError
        A suffix that does not fit the data, no voxel size, or a file that cannot be written.

    Examples
    --------
    >>> import cytovox, tempfile, pathlib
    >>> truth = cytovox.simulate("HeLa", seed=1, shape=(16, 32, 32))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = cytovox.save(pathlib.Path(folder) / "cells.ome.tif", truth.cells_ZYX, like=truth.volume)
    ...     int(cytovox.read(path).frame().max()) == int(truth.cells_ZYX.max())
    True
    """
    path = Path(path)
    if isinstance(data, pd.DataFrame):
        return _save_table(path, data)
    if isinstance(data, Volume):
        like, names = data, list(data.channels)
        array = np.stack([[data.frame(t, c) for c in range(data.shape[1])] for t in range(data.shape[0])])
    elif isinstance(data, Mapping):
        names, like = list(data), data.volume if isinstance(data, OrganelleMasks) else like
        array = np.stack([np.asarray(mask) for mask in data.values()])[None]
    else:
        array, names = np.asarray(data)[None, None], ["cells"]
    if array.ndim != 5:
        raise InputError(f"save: {path}: an array of shape {np.shape(data)}: expected (z, y, x)")
    if like is None:
        raise InputError(f"save: {path}: voxel size missing: give like=VOLUME")
    array = array.astype(np.uint8) if array.dtype == bool else array
    writer = find_writer(path)
    if writer is None:
        raise InputError(f"save: {path}: expected a name that ends in {expected('writing')}")
    if writer.single and array.shape[:2] != (1, 1):
        raise InputError(f"save: {path}: {writer.name} holds one channel and frame; save {', '.join(names)} one by one")
    require_size(writer, path, array.shape[2:])
    slabs = (volume_ZYX for frame_CZYX in array for volume_ZYX in frame_CZYX)
    times_s = like.times_s if like.shape[0] == array.shape[0] else None
    return writer.write(path, slabs, array.shape, array.dtype, like.spacing_um, names, times_s, like.origin_um)


def _save_table(path: Path, table: pd.DataFrame) -> Path:
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"save: {path}: a table: expected a name that ends in .csv or .parquet")
    with atomic_path(path) as part:
        if path.suffix == ".csv":
            table.to_csv(part, index=False, float_format="%.8g", lineterminator="\n")
        else:
            table.to_parquet(part, index=False, engine="pyarrow")
    return path


def simulate(
    preset: str,
    seed: int = 0,
    shape: tuple[int, int, int] = DEFAULT_SHAPE,
    spacing_um: tuple[float, float, float] = DEFAULT_SPACING_UM,
) -> Simulation:
    """Return simulated cells: their refractive-index tomogram and the ground truth.

    Parameters
    ----------
    preset : str
        A cell line of `cytovox.simulation.PRESETS`, such as `HeLa`, or `any`: cells of any kind.
    seed : int
        Random seed.
    shape : (z, y, x)
        Number of voxels.
    spacing_um : (z, y, x)
        Voxel size in µm.

    Returns
    -------
    Simulation

    Raises
    ------
    InputError
        An unknown preset, or an impossible shape or voxel size.

    Examples
    --------
    >>> import cytovox
    >>> truth = cytovox.simulate("HeLa", seed=1, shape=(16, 32, 32))
    >>> truth.volume.shape
    (1, 1, 16, 32, 32)
    """
    found = simulate_tomogram(preset, seed, shape, spacing_um)
    volume = Volume(found.ri_ZYX, found.spacing_um, medium_ri=found.medium_ri)
    return Simulation(volume, dict(found.masks), found.cells_ZYX)
