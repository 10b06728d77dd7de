"""Preparation of cases for training: normalised, on the common grid, stored in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from monai.transforms import Compose

from cytovox.io.provenance import ContentDigests, Fingerprint
from cytovox.preprocess.resampling import ResampleTo
from datamodules.cache import PreparedCase, cache_root, store
from datamodules.cases import Case, RawCase
from datamodules.config import OrganelleData
from datamodules.errors import NotAnnotatedError
from datamodules.steps import STEPS
from transforms.intensity import NormaliseRId
from transforms.patches import annotated_centres, foreground_centres
from transforms.spatial import ResampleToCommonGridd

#: Largest number of voxels of each organelle on which patches may be centred.
CENTRES = 10_000


class Preparer:
    """Creation and lookup of cache entries.

    Parameters
    ----------
    config : OrganelleData
        Config with the normalisation, the common grid and the cache folder.
    """

    def __init__(self, config: OrganelleData) -> None:
        self.config = config
        self.root = cache_root(config.cache_dir) / "prepared"
        self.digests = ContentDigests(cache_root(config.cache_dir))
        self.resample = ResampleTo.chosen(config.resample, config.resample_spacing_um, config.resample_grid)
        self.ri_range = [float(index) for index in config.ri_range]
        self.more: dict[str, Any] = {}
        """Further values on which the entries of a subclass depend."""
        self.transform = Compose([NormaliseRId("image", *self.ri_range), ResampleToCommonGridd(self.resample)])

    def fingerprint(self, case: Case) -> Fingerprint:
        """Return everything on which the entry of a case depends: the content of its files, and the processing."""
        return STEPS["prepare"].fingerprint(
            self.config, "data.", files=[self.digests.of(path) for path in case.files], case=case.settings,
            prepared_as=type(self).__name__, more=self.more,
        )  # fmt: skip

    def entry_of(self, case: Case) -> tuple[PreparedCase, Fingerprint]:
        """Return the entry of a case, which may be missing, and its fingerprint, which determines the path."""
        fingerprint = self.fingerprint(case)
        return PreparedCase(self.root / fingerprint.name[:2] / f"{fingerprint.name}.safetensors"), fingerprint

    def find(self, case: Case) -> PreparedCase | None:
        """Return the entry of a case; None if it is missing, damaged or out of date."""
        entry, fingerprint = self.entry_of(case)
        return entry if entry.usable(fingerprint) else None

    def prepare(self, cases: Sequence[Case], progress: Callable[[int, int], None] | None = None) -> list[PreparedCase]:
        """Return the entries of all cases; those that are missing, damaged or out of date are made."""
        entries = []
        for done, case in enumerate(cases, start=1):
            entry, fingerprint = self.entry_of(case)
            if not entry.usable(fingerprint):
                store(entry.path, self.arrays_of(case), fingerprint.parts)
            entries.append(entry)
            if progress is not None:
                progress(done, len(cases))
        return entries

    def arrays_of(self, case: Case) -> dict[str, np.ndarray]:
        """Return the arrays of a case's entry.

        Raises
        ------
        InputError
            An error of `Case.load`, or no annotated voxel is left on the common grid.
        """
        arrays = self.arrays(case.load())
        if "annotated" in arrays and not len(arrays["annotated"]):
            shape = tuple(arrays["image"].shape[1:])
            raise NotAnnotatedError(
                f"{case.name}: no annotated voxel is left on the common grid {shape}; annotate larger regions, or "
                "choose a finer data.resample_spacing_um or data.resample_grid"
            )
        return arrays

    def arrays(self, raw: RawCase) -> dict[str, np.ndarray]:
        """Return the arrays of an entry; see `PreparedCase.arrays`."""
        on_grid = self.transform({"image": raw.ri_ZYX[None], "mask": raw.masks_KZYX, "spacing_um": raw.spacing_um})
        centres = foreground_centres(on_grid["mask"] == 1, limit=CENTRES)
        annotated = annotated_centres(on_grid["mask"], raw.labelled_K[: len(on_grid["mask"])], limit=CENTRES)
        return {
            "image": on_grid["image"],
            "mask": on_grid["mask"],
            "labelled": raw.labelled_K.astype(np.uint8),
            "spacing_um": np.asarray(on_grid["spacing_um"], np.float64),
            **{f"centres_{k}": found for k, found in enumerate(centres)},
            **({} if annotated is None else {"annotated": annotated}),
        }
