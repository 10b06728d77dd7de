"""Config of the organelle task, and its validation."""

from dataclasses import dataclass, field
from typing import Any, Literal

from cytovox.errors import InputError
from cytovox.inference.compiled import Compile
from cytovox.inference.device import batch_size
from cytovox.inference.tiling import SlidingWindow
from cytovox.io import writers
from cytovox.losses import LOSSES, loss_config
from cytovox.models.organelle import sliding_window
from cytovox.networks import NETWORKS, network_config
from datamodules.config import SERIES, SOURCES, TEXTS, TEXTS_OR_NULL, data_errors, spacing_errors
from datamodules.paths import shard_error
from experiments.errors import not_one_of
from experiments.schema import Choice, Config
from experiments.tasks.device_defaults import BATCH_SIZE, batch_size_errors, compile_errors
from lightning_modules.optim import OPTIMIZERS


@dataclass
class PredictConfig:
    """`predict:`. The windows apply to validation and test as well."""

    inputs: Any = field(default_factory=list, metadata=TEXTS)
    """Files, folders or globs of tomograms, or lists of them (.txt)."""
    checkpoint: Any = field(default=None, metadata=TEXTS_OR_NULL)
    """A .ckpt file, a run folder or the name of shipped weights; several are an ensemble, whose probabilities are
    averaged. Null for this run's own weights, else `init_from`, else `weights.default`."""
    shard: str | None = None
    """Part of the inputs to predict, such as 3/16 (0/16 is the first). A later run without it writes the table."""
    out: str | None = None
    """Folder for the masks; null for `predictions/` in the run folder."""
    spacing_um: list[float] | None = None
    """Voxel size z, y, x in um of inputs without a stored one (plain TIFF)."""
    spacing_from: Literal["file", "config"] = "file"
    """Behaviour if a file has another voxel size than `spacing_um`: `file` raises an error, `config` uses
    `spacing_um`."""
    series: Any = field(default=None, metadata=SERIES)
    """Number or name of the image in files with several; null for files with one."""
    window: list[int] | None = None
    """Window z, y, x in voxels of the common grid; null for the patch size the network was trained on."""
    stride: list[int] | None = None
    """Step between windows, z, y, x in voxels; null for half a window."""
    overlap: list[float] | None = None
    """Overlap of neighbouring windows along z, y, x as a fraction of the window, instead of `stride`."""
    weight: Literal["spline", "gaussian", "constant"] = "spline"
    """Weights of the voxels of a window; `spline` is triangular, as in the paper."""
    z: Literal["tile", "center", "middle"] = "tile"
    """`tile`: the whole depth; `center`: a slab, one window deep, centred on the layer of cells, which is detected in
    the tomogram (as in the paper, whose tomograms are focused on the cells); `middle`: such a slab in the middle of the
    volume. Predictions above and below a slab are empty, and scores include the whole volume."""
    pad_yx: list[int] | None = None
    """Voxels added around y and x before tiling; null for half a window (64 in the paper)."""
    pad_mode: Literal["symmetric", "edge", "constant"] = "symmetric"
    """Values of the added voxels."""
    batch_size: int | str = field(default="auto", metadata=BATCH_SIZE)
    """Windows in one batch. `auto`: 1 on a CPU, 32 on a CUDA device. A batch that does not fit into a CUDA device's
    memory is halved."""
    compile: Compile = "none"
    """Execution of the network in test and prediction: `none`, eager; `default`, torch.compile, which needs a compiler
    and some seconds before the first window; `cuda_graphs`, all kernels of a batch launched as one graph, which needs a
    CUDA device."""
    skip_below: float | None = 0.1
    """Threshold for windows that contain only medium, which are empty without being computed: no block of 4x4x4 voxels
    has a mean normalised refractive index above it (0: lower end of `data.ri_range`, 1: upper end). Null computes all
    windows."""
    flips: list[str] = field(default_factory=list)
    """Mirror axes among z, y, x: predictions are averaged over all combinations. Each axis doubles the time."""
    memory_gb: float = 0.5
    """Working memory for stitching; larger volumes use temporary files."""
    threshold: float = 0.5
    """Least probability of the voxels of an organelle."""
    format: str = "ome-tiff"
    """Format of the masks: ome-tiff, ome-zarr, nifti, or a format that an installed package adds."""
    probabilities: bool = False
    """Also write the probabilities (float32 OME-TIFF, one file per frame)."""


@dataclass
class OrganelleConfig(Config):
    """Config of the organelle task."""

    predict: PredictConfig = field(default_factory=PredictConfig)
    """Inputs and windows of the prediction."""


#: Groups with branches.
CHOICES: dict[str, Choice] = {
    "data": Choice("source", "folder", SOURCES),
    "model": Choice("network", "residual_unet", NETWORKS, network_config),
    "loss": Choice("name", "dice_bce", LOSSES, loss_config),
    "optimizer": Choice("name", "adam", OPTIMIZERS),
}


def organelle_errors(config: OrganelleConfig) -> list[str]:
    """Return the errors of a config whose types are valid, one line each, beginning with the key path."""
    patch, own = config.data.patch_size, [f"model.{f}" for f in config.model.errors()]
    errors = [f"data.{f}" for f in data_errors(config.data)]
    errors += [f"loss: {f}" for f in config.loss.errors(len(config.data.organelles))] + own
    if not own and len(patch) == 3 and all(p > 0 for p in patch):
        errors += [f"data.patch_size: {f}" for f in config.model.errors(tuple(patch))]
        errors += _predict_errors(config)
    if (error := shard_error(config.predict.shard)) is not None:
        errors.append(f"predict.{error}")
    if config.predict.shard is not None and config.stages != ["predict"]:
        errors.append("predict.shard: expected stages=[predict]; all shards would repeat the same training or test")
    return errors


def _predict_errors(config: OrganelleConfig) -> list[str]:
    predict = config.predict
    spacing, overlap, flips = predict.spacing_um, predict.overlap, predict.flips
    checks = (
        (0 < predict.threshold < 1, f"threshold: expected a probability between 0 and 1, got {predict.threshold}"),
        (
            spacing is None or (len(spacing) == 3 and all(s > 0 for s in spacing)),
            f"spacing_um: expected three positive numbers (z, y, x) in um, got {spacing}",
        ),
        (overlap is None or predict.stride is None, "overlap: give either predict.stride or predict.overlap, not both"),
        (
            overlap is None or (len(overlap) == 3 and all(0 <= o < 1 for o in overlap)),
            f"overlap: expected three fractions from 0 to below 1 (z, y, x), got {overlap}",
        ),
        (
            set(flips) <= set("zyx") and len(set(flips)) == len(flips),
            f"flips: expected some of z, y, x, each once, got {flips}",
        ),
        (predict.memory_gb >= 0, f"memory_gb: expected 0 or more, got {predict.memory_gb}"),
    )
    errors = [error for valid, error in checks if not valid] + spacing_errors(predict.spacing_from, spacing)
    errors = [f"predict.{error}" for error in errors]
    if predict.format not in writers():
        errors.append(not_one_of("predict.format", writers(), predict.format))
    errors += batch_size_errors(predict.batch_size)
    errors += compile_errors(predict.compile, config.trainer.accelerator)
    if predict.window is not None:
        errors += [f"predict.window: {f}" for f in config.model.errors(tuple(predict.window))]
    if not errors:
        try:
            tiling(config, config.data.patch_size)
        except InputError as error:
            errors.append(str(error))
    return errors


def tiling(config: OrganelleConfig, patch_size: list[int]) -> SlidingWindow:
    """Return the windows of validation, test and prediction for a network trained on patches of this size.

    Raises
    ------
    InputError
        Invalid windows, such as a stride larger than the window.
    """
    predict = config.predict
    try:
        return sliding_window(
            patch_size,
            window=predict.window,
            stride=predict.stride,
            overlap=predict.overlap,
            pad_yx=predict.pad_yx,
            weight=predict.weight,
            z=predict.z,
            pad_mode=predict.pad_mode,
            sw_batch_size=batch_size(predict.batch_size, config.trainer.accelerator),
            skip_below=predict.skip_below,
        )
    except InputError as error:
        raise InputError(f"predict: {error}") from None
