"""Cells from masks of membrane and nucleus, by trained networks (Choi et al. 2021, and centre offsets)."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from cytovox.inference.device import NUCLEI_ON_CPU, batch_size, choose_precision, resolve_device
from cytovox.inference.tiling import SlidingWindow
from cytovox.models.metadata import CellsMetadata, Weights
from cytovox.models.networks import cell_network
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.preprocess.resampling import ResampleTo
from cytovox.segmentation.field import CellField, FoundCells, SeedRule
from cytovox.segmentation.networks import CentreOffsetCells, ConditionedCells


def cell_windows(patch_size: Sequence[int], batch_size: int = 1) -> SlidingWindow:
    """Return the windows of the centre-offset network: of the training's patch size, half a window apart.

    Parameters
    ----------
    patch_size : three ints
        Patch z, y, x of the training in voxels.
    batch_size : int
        Windows in one batch.
    """
    z, y, x = (int(p) for p in patch_size)
    return SlidingWindow(
        window=(z, y, x), stride=(max(1, z // 2), max(1, y // 2), max(1, x // 2)), pad_yx=(0, 0), skip_below=None,
        sw_batch_size=batch_size,
    )  # fmt: skip


def cell_finder(
    network: nn.Module,
    metadata: CellsMetadata,
    tiling: SlidingWindow,
    rule: SeedRule,
    batch_size: int = NUCLEI_ON_CPU,
    device: str = "cpu",
    precision: str = "32-true",
) -> ConditionedCells | CentreOffsetCells:
    """Return the method that finds cells with a network.

    The test stage, `analyze`, `cells_from_masks` and `CellModel` all use this function.

    Parameters
    ----------
    network : Module
        Network of the method of `metadata`.
    metadata : CellsMetadata
        Method, common grid and normalisation.
    tiling : SlidingWindow
        Windows of the centre-offset network.
    rule : SeedRule
        Which parts of the nucleus mask are one nucleus each.
    batch_size : int
        Nuclei in one batch of the nucleus-conditioned network.
    device, precision : str
        Device and precision of the network.
    """
    resample = ResampleTo.chosen(metadata.resample, metadata.resample_spacing_um, metadata.resample_grid)
    shared: dict[str, Any] = {
        "normalise": NormaliseRI(*metadata.ri_range), "rule": rule, "device": device, "precision": precision
    }  # fmt: skip
    if metadata.method == "network":
        return ConditionedCells(network, resample, batch_size=batch_size, z=metadata.z, **shared)
    return CentreOffsetCells(network, resample, tiling=tiling, **shared)


class CellModel:
    """Model that finds the cells of a field from its masks of membrane and nucleus.

    Parameters
    ----------
    weights : Weights
        Weights of the cells task.
    device : str
        `auto`, `cpu`, `cuda` or `cuda:N`.
    precision : str
        `32-true` (default on every device, so that results do not depend on it), `auto`, `16-mixed` or `bf16-mixed`.
    rule : SeedRule, optional
        Which parts of the nucleus mask are one nucleus each.
    key : str
        Argument or config key that named the weights, for messages.
    """

    def __init__(
        self,
        weights: Weights,
        device: str = "auto",
        precision: str = "32-true",
        *,
        rule: SeedRule | None = None,
        key: str = "load_model",
    ) -> None:
        self.metadata: CellsMetadata = weights.metadata
        self.trained_on = weights.metadata.trained_on
        self.method = self.metadata.method
        """`offsets` (centre offsets) or `network` (nucleus-conditioned)."""
        self.device = resolve_device(device)
        self.precision = choose_precision(precision, self.device)
        self.finder = cell_finder(
            cell_network(weights, key),
            self.metadata,
            cell_windows(self.metadata.patch_size, batch_size("auto", self.device)),
            rule or SeedRule(),
            batch_size("auto", self.device, NUCLEI_ON_CPU),
            self.device,
            self.precision,
        )

    def __call__(self, cells: CellField, progress: Callable[[int, int], None] | None = None) -> FoundCells:
        """Return the cells of a field and the nuclei that they grew from.

        Parameters
        ----------
        cells : CellField
            Masks or probabilities of membrane and nucleus, refractive index and voxel size.
        progress : callable, optional
            Called with the number of passes that are done and the number of all.
        """
        self.finder.progress = progress
        return self.finder(cells)
