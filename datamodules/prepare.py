"""A case on the common grid, normalised, in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose

from datamodules.cache import ContentDigests, PreparedCase, cache_root, key_of, store
from datamodules.cases import Case, RawCase
from datamodules.config import OrganelleData
from transforms.intensity import NormaliseRId
from transforms.patches import foreground_centres
from transforms.spatial import ResampleTo, ResampleToCommonGridd

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
        self.root = cache_root(config.cache_dir) / "prepared"
        self.digests = ContentDigests(cache_root(config.cache_dir))
        self.resample = ResampleTo.chosen(config.resample, config.resample_spacing_um, config.resample_grid)
        self.ri_range = [float(index) for index in config.ri_range]
        normalise = NormaliseRId("image", self.ri_range[0], self.ri_range[1])
        #: What else an entry depends on, for heirs.
        self.more: dict[str, Any] = {}
        self.transform = Compose([normalise, ResampleToCommonGridd(self.resample)])

    def path_of(self, case: Case) -> Path:
        """Where the entry of a case lies: named by the content of its files and by what is done to them."""
        key = key_of(
            {
                "files": [self.digests.of(path) for path in case.files],
                "settings": case.settings,
                "resample": repr(self.resample),
                "ri_range": self.ri_range,
                **self.more,
            }
        )
        return self.root / key[:2] / f"{key}.safetensors"

    def prepare(self, cases: Sequence[Case], progress: Callable[[int, int], None] | None = None) -> list[PreparedCase]:
        """Entries of all cases, made where they are missing or broken."""
        entries = []
        for done, case in enumerate(cases, start=1):
            entry = PreparedCase(self.path_of(case))
            if not entry.usable():
                self._make(case, entry.path)
            entries.append(entry)
            if progress is not None:
                progress(done, len(cases))
        return entries

    def _make(self, case: Case, path: Path) -> None:
        store(path, self.arrays(case.load()))

    def arrays(self, raw: RawCase) -> dict[str, np.ndarray]:
        """What an entry holds."""
        on_grid = self.transform({"image": raw.ri_ZYX[None], "mask": raw.masks_KZYX, "spacing_um": raw.spacing_um})
        centres = foreground_centres(on_grid["mask"], limit=CENTRES)
        return {
            "image": on_grid["image"],
            "mask": on_grid["mask"],
            "labelled": raw.labelled_K.astype(np.uint8),
            "spacing_um": np.asarray(on_grid["spacing_um"], np.float64),
            **{f"centres_{k}": found for k, found in enumerate(centres)},
        }
