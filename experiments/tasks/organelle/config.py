"""The keys of an organelle config, and what cannot work in them."""

from __future__ import annotations

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
    """`predict:`. The windows serve validation and test, too."""

    inputs: Any = field(default_factory=list, metadata=TEXTS)
    """Files, folders or globs of tomograms; or lists of them, .txt."""
    checkpoint: Any = field(default=None, metadata=TEXTS_OR_NULL)
    """A .ckpt file, a run folder or the name of shipped weights; several are an ensemble, whose probabilities are
    averaged. Null for this run's own weights, else `init_from`, else `weights.default`."""
    shard: str | None = None
    """Part of the inputs to predict, such as 3/16 (0/16 is the first); the table is written by a call without it."""
    out: str | None = None
    """Folder for the masks; null for `predictions/` in the run folder."""
    spacing_um: list[float] | None = None
    """Voxel size z, y, x in um of inputs that do not say it (plain TIFF)."""
    spacing_from: Literal["file", "config"] = "file"
    """Which decides where a file states another voxel size than `spacing_um`: `file` refuses it, `config` takes
    `spacing_um`."""
    series: Any = field(default=None, metadata=SERIES)
    """Number or name of the image in files that hold several; null where they hold one."""
    window: list[int] | None = None
    """Window z, y, x in voxels of the common grid; null for the patch size the network was trained on."""
    stride: list[int] | None = None
    """Step between windows, z, y, x in voxels; null for half a window."""
    overlap: list[float] | None = None
    """Overlap of neighbouring windows along z, y, x as a part of the window, instead of `stride`."""
    weight: Literal["spline", "gaussian", "constant"] = "spline"
    """How a window's voxels count; `spline` is triangular, as in the paper."""
    z: Literal["tile", "center", "middle"] = "tile"
    """`tile`: the whole depth; `center`: a slab, one window deep, centred on the layer of cells, which is found in the
    tomogram (the paper's, whose tomograms are focused on the cells); `middle`: such a slab in the middle of the volume.
    Above and below a slab nothing is predicted, and scores count the whole volume."""
    pad_yx: list[int] | None = None
    """Voxels added around y and x before tiling; null for half a window (64 in the paper)."""
    pad_mode: Literal["symmetric", "edge", "constant"] = "symmetric"
    """What is added."""
    batch_size: int | str = field(default="auto", metadata=BATCH_SIZE)
    """Windows in one batch. `auto`: 1 on a CPU, 32 on a CUDA device. A batch that does not fit into a CUDA device's
    memory is halved."""
    compile: Compile = "none"
    """How test and prediction run the network: `none`, eagerly; `default`, by torch.compile, which needs a compiler and
    compiles for seconds before the first window; `cuda_graphs`, with the kernels of a batch launched as one graph,
    which needs a CUDA device."""
    skip_below: float | None = 0.1
    """Windows with nothing but medium are not computed but taken for empty: those in which no block of 4x4x4 voxels has
    a mean normalised refractive index above this (0: `data.ri_range`'s lower end, 1: its upper). Null computes all."""
    flips: list[str] = field(default_factory=list)
    """Axes out of z, y, x: the mean over every combination of mirror images. Each axis doubles the time."""
    memory_gb: float = 0.5
    """Working memory for stitching; what a volume needs beyond it goes to temporary files."""
    threshold: float = 0.5
    """Probability from which a voxel belongs to an organelle."""
    format: str = "ome-tiff"
    """Format of the masks: ome-tiff, ome-zarr, nifti, or a format that an installed package adds."""
    probabilities: bool = False
    """Write the probabilities (float32 OME-TIFF, one file a frame), too."""


@dataclass
class OrganelleConfig(Config):
    """A whole organelle config."""

    predict: PredictConfig = field(default_factory=PredictConfig)
    """Windows, and what is predicted."""


#: The groups with branches.
CHOICES: dict[str, Choice] = {
    "data": Choice("source", "folder", SOURCES),
    "model": Choice("network", "residual_unet", NETWORKS, network_config),
    "loss": Choice("name", "dice_bce", LOSSES, loss_config),
    "optimizer": Choice("name", "adam", OPTIMIZERS),
}


def organelle_errors(config: OrganelleConfig) -> list[str]:
    """What cannot work although every type is right, one line each, beginning with the key path."""
    errors = [f"data.{f}" for f in data_errors(config.data)]
    errors += [f"loss: {f}" for f in config.loss.errors(len(config.data.organelles))]
    patch = config.data.patch_size
    errors += (own := [f"model.{f}" for f in config.model.errors()])
    if not own and len(patch) == 3 and all(p > 0 for p in patch):
        errors += [f"data.patch_size: {f}" for f in config.model.errors(tuple(patch))]
        errors += _predict_errors(config)
    if (error := shard_error(config.predict.shard)) is not None:
        errors.append(f"predict.{error}")
    if config.predict.shard is not None and config.stages != ["predict"]:
        errors.append("predict.shard: expected stages=[predict]; every shard would train or test the same")
    return errors


def _predict_errors(config: OrganelleConfig) -> list[str]:
    errors = []
    predict = config.predict
    if predict.format not in writers():
        errors.append(not_one_of("predict.format", writers(), predict.format))
    if not 0 < predict.threshold < 1:
        errors.append(f"predict.threshold: expected a probability between 0 and 1, got {predict.threshold}")
    if predict.spacing_um is not None and (len(predict.spacing_um) != 3 or any(s <= 0 for s in predict.spacing_um)):
        errors.append(f"predict.spacing_um: expected three positive numbers (z, y, x) in um, got {predict.spacing_um}")
    errors += [f"predict.{error}" for error in spacing_errors(predict.spacing_from, predict.spacing_um)]
    if predict.overlap is not None:
        if predict.stride is not None:
            errors.append("predict.overlap: give either predict.stride or predict.overlap, not both")
        if len(predict.overlap) != 3 or any(not 0 <= o < 1 for o in predict.overlap):
            errors.append(f"predict.overlap: expected three parts from 0 to below 1 (z, y, x), got {predict.overlap}")
    if set(predict.flips) - set("zyx") or len(set(predict.flips)) < len(predict.flips):
        errors.append(f"predict.flips: expected some of z, y, x, each once, got {predict.flips}")
    errors += batch_size_errors(predict.batch_size)
    errors += compile_errors(predict.compile, config.trainer.accelerator)
    if not predict.memory_gb >= 0:
        errors.append(f"predict.memory_gb: expected 0 or more, got {predict.memory_gb}")
    if predict.window is not None:
        errors += [f"predict.window: {f}" for f in config.model.errors(tuple(predict.window))]
    if not errors:
        try:
            tiling(config, config.data.patch_size)
        except InputError as error:
            errors.append(str(error))
    return errors


def tiling(config: OrganelleConfig, patch_size: list[int]) -> SlidingWindow:
    """Windows of validation, test and prediction for a network trained on patches of this size.

    Raises
    ------
    InputError
        They cannot be: a stride beyond the window, for one.
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
