"""A case on the common grid, normalised, in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose

from cytovox.io.provenance import ContentDigests, Fingerprint
from cytovox.preprocess.resampling import ResampleTo
from datamodules.cache import PreparedCase, cache_root, store
from datamodules.cases import Case, RawCase
from datamodules.config import OrganelleData
from datamodules.steps import STEPS
from transforms.intensity import NormaliseRId
from transforms.patches import foreground_centres
from transforms.spatial import ResampleToCommonGridd

#: Voxels of each organelle that patches may be centred on.
CENTRES = 10_000


class Preparer:
    """Makes and finds cache entries.

    Parameters
    ----------
    config : OrganelleData
        Normalisation, common grid, cache folder.
    """

    def __init__(self, config: OrganelleData) -> None:
        self.config = config
        self.root = cache_root(config.cache_dir) / "prepared"
        self.digests = ContentDigests(cache_root(config.cache_dir))
        self.resample = ResampleTo.chosen(config.resample, config.resample_spacing_um, config.resample_grid)
        self.ri_range = [float(index) for index in config.ri_range]
        normalise = NormaliseRId("image", self.ri_range[0], self.ri_range[1])
        #: What else an entry depends on, for subclasses.
        self.more: dict[str, Any] = {}
        self.transform = Compose([normalise, ResampleToCommonGridd(self.resample)])

    def fingerprint(self, case: Case) -> Fingerprint:
        """What the entry of a case depends on: the content of its files, and all that is done to them."""
        return STEPS["prepare"].fingerprint(
            self.config, "data.", files=[self.digests.of(path) for path in case.files], case=case.settings,
            prepared_as=type(self).__name__, more=self.more,
        )  # fmt: skip

    def path_of(self, case: Case) -> Path:
        """Where the entry of a case lies: named by its fingerprint."""
        return self._path(self.fingerprint(case))

    def _path(self, fingerprint: Fingerprint) -> Path:
        return self.root / fingerprint.name[:2] / f"{fingerprint.name}.safetensors"

    def find(self, case: Case) -> PreparedCase | None:
        """The entry of a case; None where it is missing, broken or not current."""
        fingerprint = self.fingerprint(case)
        entry = PreparedCase(self._path(fingerprint))
        return entry if entry.usable(fingerprint) else None

    def prepare(self, cases: Sequence[Case], progress: Callable[[int, int], None] | None = None) -> list[PreparedCase]:
        """Entries of all cases, made where they are missing, broken or not current."""
        entries = []
        for done, case in enumerate(cases, start=1):
            fingerprint = self.fingerprint(case)
            entry = PreparedCase(self._path(fingerprint))
            if not entry.usable(fingerprint):
                store(entry.path, self.arrays(case.load()), fingerprint.parts)
            entries.append(entry)
            if progress is not None:
                progress(done, len(cases))
        return entries

    def arrays(self, raw: RawCase) -> dict[str, np.ndarray]:
        """What an entry holds."""
        on_grid = self.transform({"image": raw.ri_ZYX[None], "mask": raw.masks_KZYX, "spacing_um": raw.spacing_um})
        centres = foreground_centres(on_grid["mask"] == 1, limit=CENTRES)
        return {
            "image": on_grid["image"],
            "mask": on_grid["mask"],
            "labelled": raw.labelled_K.astype(np.uint8),
            "spacing_um": np.asarray(on_grid["spacing_um"], np.float64),
            **{f"centres_{k}": found for k, found in enumerate(centres)},
        }
