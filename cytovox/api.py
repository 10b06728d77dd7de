"""From a volume to cells and numbers in a few lines: the functions of `import cytovox`.

Commands and notebooks compute the same results with the same code: every function here calls what the commands call.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cytovox.errors import InputError
from cytovox.io import Volume, write_nifti, write_ometiff, write_omezarr
from cytovox.io import read_volume as read
from cytovox.io.atomic import atomic_path
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
from cytovox.segmentation.field import CellField, FoundCells, SeedRule, WatershedCells
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
    """A result that the picture or the masks do not support."""


@dataclass(frozen=True)
class Segmentation:
    """Masks, cells and measurements of one frame."""

    masks: OrganelleMasks
    """Masks of the organelles, by name."""
    cells_ZYX: np.ndarray
    """int32 labels, 0 outside cells."""
    table: pd.DataFrame
    """As of `measure`."""


@dataclass(frozen=True)
class Simulation:
    """A simulated volume with its ground truth."""

    volume: Volume
    """The refractive index as the microscope shows it."""
    masks: Mapping[str, np.ndarray]
    """Organelle to bool array (Z, Y, X)."""
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
    """Tell the cells of a field apart.

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
        `auto`, `cpu`, `cuda` or `cuda:N`; of the shipped weights.
    rule : SeedRule, optional
        Which parts of the nucleus mask are one nucleus each.

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
        model = load_model(CELL_WEIGHTS[method], task="cells", device=device, rule=rule)
    elif not isinstance(model, CellModel):
        raise InputError(f"find_cells: model: expected a CellModel, got {type(model).__name__}")
    elif rule is not None:
        raise InputError("find_cells: give rule to load_model, or leave model out")
    elif model.method != method:
        raise InputError(f"find_cells: the model's method is {model.method}, not {method}")
    assert model is not None
    if field.ri_ZYX is not None:
        ri_ZYX = field.ri_ZYX
        statistics = volume_statistics(lambda box: ri_ZYX[box], ri_ZYX.shape)
        if differing := "; ".join(outside(model.trained_on, statistics, field.spacing_um)):
            warnings.warn(f"outside the training data of the cells' weights: {differing}", QualityWarning, stacklevel=3)
    return model(field)


def _cell_field(
    masks: Mapping[str, np.ndarray], volume: Volume | None, frame: int, spacing_um: Sequence[float] | None
) -> CellField:
    missing = [name for name in ("membrane", "nucleus") if name not in masks]
    if missing:
        raise InputError(f"find_cells: no mask of {' and '.join(missing)}; there are {', '.join(masks) or 'none'}")
    if isinstance(masks, OrganelleMasks):
        if spacing_um is not None or volume not in (None, masks.volume):
            raise InputError("find_cells: the masks belong to a volume already: leave volume and spacing_um out")
        volume, frame = masks.volume, masks.frame
        probabilities = masks.cell_probabilities_2ZYX
        if probabilities is not None:
            return CellField(
                *_filled(probabilities, masks["membrane"]), volume.spacing_um, checked_frame(volume, frame)
            )
    membrane, nucleus = np.asarray(masks["membrane"]), np.asarray(masks["nucleus"])
    ri_ZYX = None if volume is None else checked_frame(volume, frame)
    if volume is not None:
        spacing_um = volume.spacing_um
    shapes = {"membrane": membrane.shape, "nucleus": nucleus.shape}
    if ri_ZYX is not None:
        shapes["volume"] = ri_ZYX.shape
    if len(set(shapes.values())) > 1 or membrane.ndim != 3:
        raise InputError(f"find_cells: expected arrays of one shape (z, y, x), got {shapes}")
    if spacing_um is None:
        raise InputError("find_cells: voxel size missing: give volume, or spacing_um=(z, y, x) in micrometres")
    z, y, x = (float(s) for s in spacing_um)
    seeds = None
    if nucleus.dtype.kind in "iu" and int(nucleus.max(initial=0)) > 1 and len(np.unique(nucleus)) > 2:
        seeds = nucleus.astype(np.int32)
    inside = [values if values.dtype.kind == "f" else values != 0 for values in (membrane, nucleus)]
    return CellField(inside[0], inside[1], (z, y, x), ri_ZYX, seeds)


def _filled(probabilities_2ZYX: np.ndarray, membrane_ZYX: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities of membrane and nucleus, raised to 0.5 in closed holes of the membrane mask."""
    membrane, nucleus = probabilities_2ZYX
    return np.where(membrane_ZYX, np.maximum(membrane, np.float32(0.5)), membrane), nucleus


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
    """Measure the cells of one frame: volume, surface area, refractive index, concentration, dry mass.

    Parameters
    ----------
    volume : Volume
        Refractive index.
    masks : mapping of str to array, (Z, Y, X)
        Masks of the organelles.
    cells : integer array, (Z, Y, X)
        One label per cell, from `find_cells`.
    frame : int, optional
        Frame of the volume; that of the masks from `predict`, else 0, if not given.
    medium_ri : float, optional
        Refractive index of the medium; that of the file if not given. The published 1.3337 is taken, with a warning,
        where neither is known: an error of 0.003 changes a concentration by 14 %.
    area : str
        Estimator of the surface area, one of `cytovox.measurement.morphometry.AREA_ESTIMATORS`.
    increments : Increments, optional
        Specific refractive increments.

    Returns
    -------
    DataFrame
        One row per cell and compartment, with the columns of `cells.csv` (docs/measurements.md): `cell` 0 is what lies
        in no cell. `flags` names what makes a cell's numbers doubtful, `outside_training` how the frame differs from
        what the weights were trained on.

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
    frame = frame or 0
    ri_ZYX, labels = checked_frame(volume, frame), np.asarray(cells)
    medium, medium_from = _medium(volume, medium_ri)
    if labels.dtype.kind not in "iu":
        raise InputError(f"measure: cells: expected integer labels, got {labels.dtype}")
    rules = Rules(medium, increments or Increments(), area)
    try:
        measured = measure_frame(
            ri_ZYX, labels.astype(np.int32), dict(masks), volume.spacing_um, rules, volume.origin_um
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
    columns = ["frame", *registry.columns(), "flags"]
    columns += ["medium_ri", "medium_from", "increments", "area_estimator", "outside_training"]
    return pd.DataFrame(rows, columns=columns).astype(registry.numeric_types(registry.columns()))


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
    """Follow cells over the frames of a time-lapse.

    Parameters
    ----------
    tables : DataFrame, or sequence of these
        From `measure`, one per frame.
    max_distance_um : float, optional
        Largest distance that a cell moves between frames; 15 µm if not given.
    max_gap : int
        Number of frames that a cell may be missing in.
    divisions : bool
        Look for divisions: a track then ends, and its two daughters begin.

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
    table = pd.concat([tables] if isinstance(tables, pd.DataFrame) else list(tables), ignore_index=True)
    needed = ("frame", "cell", "compartment", "z_um", "y_um", "x_um", "volume_um3")
    if missing := [name for name in needed if name not in table]:
        raise InputError(f"track: no column {', '.join(missing)}; expected tables from cytovox.measure")
    whole = table[(table["compartment"] == WHOLE) & (table["cell"] > 0)]
    twice = whole[whole.duplicated(["frame", "cell"])]
    if len(twice):
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
    """Predict organelles, tell cells apart and measure them, as `analyze` does for one frame.

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
    """Write masks, labels, a table or a volume; the name's ending chooses the format.

    Parameters
    ----------
    path : str or Path
        .ome.tif, .ome.zarr, .nii or .nii.gz for images; .csv or .parquet for tables.
    data : OrganelleMasks, integer or bool array (Z, Y, X), DataFrame or Volume
        Masks of several organelles become channels; NIfTI holds one channel.
    like : Volume, optional
        Volume whose voxel size and position an array has.

    Returns
    -------
    Path
        `path`. The file appears whole or not at all.

    Raises
    ------
    InputError
        An ending that does not suit the data, no voxel size, or a file that cannot be written.

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
        names = list(data)
        if isinstance(data, OrganelleMasks):
            like = data.volume
        array = np.stack([np.asarray(mask) for mask in data.values()])[None]
    else:
        array, names = np.asarray(data)[None, None], ["cells"]
    if array.ndim != 5:
        raise InputError(f"save: {path}: an array of shape {np.shape(data)}: expected (z, y, x)")
    if like is None:
        raise InputError(f"save: {path}: voxel size missing: give like=VOLUME")
    array = array.astype(np.uint8) if array.dtype == bool else array
    name = path.name.lower()
    if name.endswith((".tif", ".tiff")):
        return write_ometiff(path, array, like.spacing_um, names, None, like.origin_um)
    if name.endswith(".zarr"):
        return write_omezarr(path, array, like.spacing_um, names, None, like.origin_um)
    if name.endswith((".nii", ".nii.gz")):
        if array.shape[:2] != (1, 1):
            raise InputError(f"save: {path}: NIfTI holds one channel and frame; save {', '.join(names)} one by one")
        return write_nifti(path, array[0, 0], like.spacing_um, like.origin_um)
    raise InputError(f"save: {path}: expected a name that ends in .ome.tif, .ome.zarr, .nii or .nii.gz")


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
    """Simulate cells and their refractive-index tomogram, with the ground truth.

    Parameters
    ----------
    preset : str
        A cell line of `cytovox.simulation.PRESETS`, such as `HeLa`.
    seed : int
        Number of the volume: the same number gives the same volume.
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
    made = simulate_tomogram(preset, seed, shape, spacing_um)
    volume = Volume(made.ri_ZYX, made.spacing_um, medium_ri=made.medium_ri)
    return Simulation(volume, dict(made.masks), made.cells_ZYX)
