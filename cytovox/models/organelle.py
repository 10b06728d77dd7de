"""Organelle masks of a tomogram, predicted by trained weights (Choi et al. 2021)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from cytovox.errors import InputError
from cytovox.inference.compiled import Compile
from cytovox.inference.device import batch_size, choose_precision, resolve_device
from cytovox.inference.predictor import DenseInferer
from cytovox.inference.tiling import SlidingWindow
from cytovox.io import ArrayReader, FrameReader, Volume, check_finite
from cytovox.io.values import ri_error
from cytovox.models.domain import frame_outside
from cytovox.models.metadata import OrganelleMetadata, Weights
from cytovox.models.networks import organelle_network
from cytovox.networks.norms import channels_last_pays
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.preprocess.resampling import ResampleTo
from cytovox.segmentation.holes import FILLED, fill_holes

#: Probability from which a voxel belongs to an organelle.
THRESHOLD = 0.5


def sliding_window(
    patch_size: Sequence[int],
    *,
    window: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    overlap: Sequence[float] | None = None,
    pad_yx: Sequence[int] | None = None,
    **options: Any,
) -> SlidingWindow:
    """Return the windows of a prediction by a network that was trained on patches of this size.

    Parameters
    ----------
    patch_size : three ints
        Patch z, y, x of the training, in voxels of the common grid.
    window : three ints, optional
        Size of a window; the patch size if not given.
    stride : three ints, optional
        Distance between windows; half a window if not given.
    overlap : three floats, optional
        Overlap of neighbouring windows as a fraction of the window, used instead of `stride`.
    pad_yx : two ints, optional
        Voxels added at each side of y and x; half a window if not given.
    **options
        Other fields of `SlidingWindow`.

    Raises
    ------
    InputError
        Impossible values, such as a stride longer than the window.
    """
    size = [int(n) for n in (window or patch_size)]
    # rounded down to whole voxels, as MONAI does, but at least one voxel
    step = stride or [max(1, int(w * (1 - o))) for w, o in zip(size, overlap or [0.5, 0.5, 0.5], strict=True)]
    pad = pad_yx if pad_yx is not None else [w // 2 for w in size[1:]]
    options = {"skip_below": 0.1, **options}
    return SlidingWindow(window=tuple(size), stride=tuple(step), pad_yx=tuple(pad), **options)  # type: ignore[arg-type]


def dense_inferer(
    networks: Sequence[nn.Module],
    metadata: OrganelleMetadata,
    tiling: SlidingWindow,
    *,
    device: str,
    precision: str,
    channels_last: bool | None = None,
    flips: Sequence[str] = (),
    memory_gb: float = 0.5,
    scratch: Path | None = None,
    compile: Compile = "none",
) -> DenseInferer:
    """Return the inference of organelle networks: probabilities of a frame on its own grid.

    The test stage, the predict command, `analyze` and `OrganelleModel` all use this function.

    Parameters
    ----------
    networks : sequence of Module
        One, or the members of an ensemble.
    metadata : OrganelleMetadata
        Common grid and normalisation of the networks.
    tiling : SlidingWindow
        Windows, blending, padding.
    device : str
        A torch device.
    precision : str
        16-mixed or bf16-mixed; anything else is float32.
    channels_last : bool, optional
        Memory format; if not given, the one that is faster for these networks on this device.
    flips, memory_gb, scratch, compile
        As of `DenseInferer`.
    """
    precision = precision if "mixed" in precision else "32-true"
    if channels_last is None:
        channels_last = channels_last_pays(list(networks), precision, device.partition(":")[0])
    return DenseInferer(
        list(networks),
        resample=ResampleTo.chosen(metadata.resample, metadata.resample_spacing_um, metadata.resample_grid),
        tiling=tiling,
        normalise=NormaliseRI(*metadata.ri_range),
        device=device,
        precision=precision,
        channels_last=channels_last,
        flips=tuple(flips),
        memory_gb=memory_gb,
        scratch=scratch,
        compile=compile,
    )


class OrganelleMasks(Mapping[str, np.ndarray]):
    """Masks of the organelles of one frame: a read-only mapping from name to bool array (Z, Y, X).

    Attributes
    ----------
    volume : Volume
        The volume that was predicted.
    frame : int
        Number of the frame.
    outside_training : str
        How the frame differs from the inputs that the weights were trained on; empty if it does not.
    probabilities : dict of str to uint8 array, (Z, Y, X)
        Probability of each organelle, 0 to 255 for 0 to 1.
    """

    def __init__(
        self,
        masks: Mapping[str, np.ndarray],
        volume: Volume,
        frame: int = 0,
        outside_training: str = "",
        probabilities: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._masks = dict(masks)
        self.volume, self.frame, self.outside_training = volume, frame, outside_training
        self.probabilities = dict(probabilities or {})

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._masks:
            raise KeyError(f"{name}: not predicted; there are {', '.join(self._masks)}")
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {np.count_nonzero(mask)} voxels" for name, mask in self.items())
        return f"OrganelleMasks({sizes})"


class OrganelleModel:
    """Model that predicts the organelle masks of a tomogram.

    Parameters
    ----------
    weights : sequence of Weights
        One, or the members of an ensemble, whose probabilities are averaged.
    device : str
        `auto`, `cpu`, `cuda` or `cuda:N`.
    precision : str
        `auto`, `32-true`, `16-mixed` or `bf16-mixed`; `auto` is the fastest that suits the device.
    pad_yx : (y, x), optional
        Voxels added at each side before windows are cut: half a window if not given, as in the `predict` command;
        (0, 0), which is faster, as in `analyze`.
    tiling : SlidingWindow, optional
        Other windows; used instead of `pad_yx`.
    threshold : float
        Probability from which a voxel belongs to an organelle.
    flips, memory_gb, compile
        As of `cytovox.inference.predictor.DenseInferer`.
    key : str
        Argument or config key that named the weights, for messages.

    Raises
    ------
    InputError
        The members of an ensemble differ in outputs, grid or normalisation, or the network cannot be built here.
    """

    def __init__(
        self,
        weights: Sequence[Weights],
        device: str = "auto",
        precision: str = "auto",
        *,
        pad_yx: Sequence[int] | None = None,
        tiling: SlidingWindow | None = None,
        threshold: float = THRESHOLD,
        flips: Sequence[str] = (),
        memory_gb: float = 0.5,
        compile: Compile = "none",
        key: str = "load_model",
    ) -> None:
        first = weights[0]
        for other in weights[1:]:
            require_same_task(first, other, key)
        self.device = resolve_device(device)
        self.precision = choose_precision(precision, self.device)
        self.metadata: OrganelleMetadata = first.metadata
        self.organelles = tuple(self.metadata.organelles)
        """Names of the masks, in the order of the network's outputs."""
        self.threshold = threshold
        self.trained_on = [member.metadata.trained_on for member in weights]
        if tiling is None:
            batch = batch_size("auto", self.device)
            tiling = sliding_window(self.metadata.patch_size, pad_yx=pad_yx, sw_batch_size=batch)
        self.inferer = dense_inferer(
            [organelle_network(member, tiling.window, key) for member in weights],
            self.metadata,
            tiling,
            device=self.device,
            precision=self.precision,
            flips=flips,
            memory_gb=memory_gb,
            compile=compile,
        )
        """Inference engine, for frames that are too large for memory (`DenseInferer.boxes`)."""

    def predict(
        self, volume: Volume, frame: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> OrganelleMasks:
        """Return the masks of one frame on the volume's own grid, equal to those of the `predict` command.

        Holes of the membrane mask, which is the filled cell, are closed.

        Parameters
        ----------
        volume : Volume
            A volume with a channel of refractive index; see `cytovox.read` and `Volume`.
        frame : int
            Time point, from 0.
        progress : callable, optional
            Called with the number of windows that are done and the number of all.

        Returns
        -------
        OrganelleMasks

        Raises
        ------
        InputError
            Not a volume, no refractive index, NaN, or a device without enough memory.
        """
        if not isinstance(volume, Volume):
            raise InputError(
                f"predict: expected a cytovox.Volume, got {type(volume).__name__}; use "
                "cytovox.read(FILE) or cytovox.Volume(array, spacing_um=(z, y, x))"
            )
        ri_ZYX = checked_frame(volume, frame)
        self.inferer.progress = progress
        masks, probabilities = self.masks(ri_ZYX, volume.spacing_um, self.organelles)
        if FILLED in masks:
            masks[FILLED] = fill_holes(masks[FILLED], volume.spacing_um)
        return OrganelleMasks(
            masks,
            volume,
            frame,
            frame_outside(self.trained_on, lambda box: ri_ZYX[box], volume),
            probabilities,
        )

    def masks(
        self, ri_ZYX: np.ndarray | FrameReader, spacing_um: Sequence[float], keep: Sequence[str] = ()
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the masks of a frame, with holes that the network leaves, and probabilities of some organelles.

        Parameters
        ----------
        ri_ZYX : float array or FrameReader, (Z, Y, X)
            Refractive index.
        spacing_um : three floats
            Voxel size z, y, x in µm.
        keep : sequence of str
            Organelles whose probabilities are returned.

        Returns
        -------
        masks : dict of str to bool array, (Z, Y, X)
            Masks by name.
        probabilities : dict of str to uint8 array, (Z, Y, X)
            Probability of each organelle in `keep`, 0 to 255 for 0 to 1.
        """
        reader = ArrayReader(ri_ZYX) if isinstance(ri_ZYX, np.ndarray) else ri_ZYX
        masks = np.zeros((len(self.organelles), *reader.shape), bool)
        kept = [self.organelles.index(name) for name in keep]
        probabilities = np.zeros((len(kept), *reader.shape), np.uint8)
        for box, values_Kzyx in self.inferer.boxes(reader, spacing_um):
            masks[(slice(None), *box)] = values_Kzyx >= self.threshold
            for k, channel in enumerate(kept):
                probabilities[(k, *box)] = np.rint(255 * values_Kzyx[channel])
        return dict(zip(self.organelles, masks, strict=True)), dict(zip(keep, probabilities, strict=True))


def checked_frame(volume: Volume, frame: int) -> np.ndarray:
    """Return the refractive index of one frame, float32 (Z, Y, X).

    Raises
    ------
    InputError
        No such frame or channel, NaN, or values that are not the refractive index of cells in a medium.
    """
    ri_ZYX, where = volume.frame(frame), f"{volume.source or 'volume'}, frame {frame}"
    check_finite(ri_ZYX, where)
    if (error := ri_error(ri_ZYX)) is not None:
        raise InputError(f"{where}: {error}")
    return ri_ZYX


def require_same_task(first: Weights, other: Weights, key: str) -> None:
    """Raise an error if two members of an ensemble differ in inputs or outputs.

    Raises
    ------
    InputError
        The message names what differs.
    """
    for name in ("organelles", "resample", "ri_range", first.metadata.resample_key):
        mine, theirs = getattr(first.metadata, name), getattr(other.metadata, name)
        if mine != theirs:
            raise InputError(
                f"{key}: {other.path}: {name} {theirs}, but {first.path} has {mine}: checkpoints of one "
                "ensemble need the same outputs, grid and normalisation"
            )
