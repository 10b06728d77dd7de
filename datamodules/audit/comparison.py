"""What only shows when volumes are compared: copies, leaks, another unit, splits that lack something."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from cytovox.errors import InputError
from cytovox.io.spacing import PLAUSIBLE_UM
from cytovox.preprocess.resampling import ResampleTo, common_grid
from datamodules.audit.findings import Finding, finding
from datamodules.audit.measure import Measured
from datamodules.cases import FolderCase
from datamodules.config import FolderData, OrganelleData
from datamodules.paths import stem_of
from datamodules.splits import SPLITS, Division

#: Times the others' voxel size: warning, error.
SPACING_RATIO, SPACING_RATIO_ERROR = 4.0, 100.0

#: Largest difference of two copies' voxels: half a step of RI x 10 000, which some formats round to.
ROUNDING_RI = 6e-5

_TIME_POINT = re.compile(r"(.*?)(?:^|[ _.\-])(?:t|tp|time|timepoint|frame)[ _\-]?\d+", re.IGNORECASE)


def set_findings(
    config: FolderData, division: Division, measured: Mapping[str, Measured], stages: Sequence[str]
) -> list[Finding]:
    """Findings of the volumes of all splits together.

    Parameters
    ----------
    config : FolderData
        Its grid, patch size and organelles.
    division : dict of split to cases
        Where each case goes; a case may be in none.
    measured : mapping of a case's name to Measured
        All that were looked at.
    stages : sequence of str
        Only `fit` takes patches.
    """
    side = {case.name: split for split in SPLITS for case in division[split]}
    wrong_unit = _spacings(list(measured.values()))
    flagged = {name for found in wrong_unit for name in found.volumes}
    small = [m for m in measured.values() if side.get(m.name, "train") == "train" and m.name not in flagged]
    return [
        *wrong_unit,
        *small_findings(config, small),
        *_copies(side, list(measured.values())),
        *_time_points(division),
    ]


def _spacings(measured: Sequence[Measured]) -> list[Finding]:
    """Volumes whose voxel size cannot be that of the others."""
    known = [m for m in measured if m.spacing_um is not None]
    if not known:
        return []
    sizes = np.array([m.spacing_um for m in known])
    plausible = np.all((sizes >= PLAUSIBLE_UM[0]) & (sizes <= PLAUSIBLE_UM[1]), axis=1)
    usual = np.median(sizes[plausible] if plausible.any() else sizes, axis=0)
    findings = []
    for one, size, fine in zip(known, sizes, plausible.tolist(), strict=True):
        ratio = size / usual
        ratio = float(ratio[np.abs(np.log(ratio)).argmax()])
        size_text = "(" + ", ".join(f"{s:.4g}" for s in size) + ") um (z, y, x)"
        if not 1 / SPACING_RATIO <= ratio <= SPACING_RATIO:
            grave = not 1 / SPACING_RATIO_ERROR < ratio < SPACING_RATIO_ERROR
            found = f"voxel size {size_text} is {ratio:.3g} times the others'"
            findings.append(finding("spacing", "error" if grave else "warning", one.name, found, (one.name,)))
        elif not fine:
            low, high = PLAUSIBLE_UM
            found = f"voxel size {size_text}: expected {low:g} to {high:g} um"
            findings.append(finding("spacing", "warning", one.name, found, (one.name,)))
    return findings


def small_findings(config: OrganelleData, measured: Sequence[Measured]) -> list[Finding]:
    """Volumes to train on that hold no whole patch."""
    resample = ResampleTo.chosen(config.resample, config.resample_spacing_um, config.resample_grid)
    findings = []
    for one in measured:
        if one.shape is None or one.spacing_um is None or min(one.shape) == 1:
            continue
        try:
            shape, _ = common_grid(one.shape, one.spacing_um, resample)
        except InputError as error:
            findings.append(finding("spacing", "error", one.name, str(error), (one.name,)))
            continue
        if any(n < p for n, p in zip(shape, config.patch_size, strict=True)):
            found = f"{shape} voxels (z, y, x) on the common grid, smaller than the patch {tuple(config.patch_size)}"
            findings.append(finding("small", "warning", one.name, found, (one.name,)))
    return findings


def _copies(side: Mapping[str, str], measured: Sequence[Measured]) -> list[Finding]:
    """Volumes whose voxels are the same, whatever their files' format."""
    findings = []
    known = sorted((m for m in measured if m.voxels is not None), key=_mean)
    for at, one in enumerate(known):
        for other in known[at + 1 :]:
            if _mean(other) - _mean(one) > ROUNDING_RI:
                break
            if one.shape == other.shape and _same(one, other):
                first, second = sorted((one.name, other.name))
                sides = side.get(first), side.get(second)
                names = (first, second)
                if None in sides or sides[0] == sides[1]:
                    where = f", both in {sides[0]}" if sides[0] else ""
                    findings.append(finding("duplicate", "warning", second, f"holds what {first} holds{where}", names))
                else:
                    found = f"in {sides[1]}, holds what {first} holds, in {sides[0]}"
                    findings.append(finding("leak", "error", second, found, names))
    return findings


def _mean(measured: Measured) -> float:
    assert measured.voxels is not None
    return float(measured.voxels[-2])


def _same(one: Measured, other: Measured) -> bool:
    assert one.voxels is not None
    assert other.voxels is not None
    return bool(np.abs(one.voxels - other.voxels).max() <= ROUNDING_RI)


def _time_points(division: Division) -> list[Finding]:
    """Files named as time points of one cell, on two sides of the split."""
    series: dict[tuple[str, str], list[tuple[str, FolderCase]]] = {}
    for split in SPLITS:
        for case in division[split]:
            match = _TIME_POINT.fullmatch(stem_of(case.volume))
            if match and match[1]:
                series.setdefault((str(case.volume.parent), match[1]), []).append((split, case))
    findings = []
    for members in series.values():
        first_split, first = members[0]
        apart = next(((s, c) for s, c in members if s != first_split), None)
        if apart is not None:
            found = f"in {apart[0]}, looks like another time point of {first.name}, in {first_split}"
            findings.append(finding("time-points", "warning", apart[1].name, found, (first.name, apart[1].name)))
    return findings


def split_findings(config: OrganelleData, counts: Mapping[str, int], stages: Sequence[str]) -> list[Finding]:
    """Splits without a volume that a stage needs."""
    findings = []
    if "fit" in stages and not counts["train"]:
        findings.append(finding("empty-split", "error", "data.split.train", "no volume to train on"))
    if "fit" in stages and not counts["val"]:
        found = "no volume to validate on: the best weights cannot be chosen"
        findings.append(finding("empty-split", "warning", "data.split.val", found))
    if "test" in stages and not counts["test"]:
        advice = "give it a share, or leave out the test stage"
        findings.append(finding("empty-split", "error", "data.split.test", "no volume to test on", advice=advice))
    return findings


def label_findings(
    config: FolderData, division: Division, measured: Mapping[str, Measured], stages: Sequence[str]
) -> list[Finding]:
    """Organelles that nobody drew in a split."""
    findings = []
    for organelle in config.organelles:
        for split in ("train", "val"):
            cases = division[split]
            if not cases or "fit" not in stages:
                continue
            drawn = [c for c in cases if any(organelle in mask_file.organelles for mask_file in c.mask_files())]
            if not drawn:
                what = "its output is not trained" if split == "train" else "it is not validated"
                found = f"{organelle}: no mask in any of {len(cases)} volumes: {what}"
                findings.append(finding("unlabelled", "warning", f"data.split.{split}", found))
            elif split == "train" and len(drawn) > 1 and _all_empty(organelle, drawn, measured):
                found = f"{organelle}: all {len(drawn)} masks are empty: it is never seen"
                findings.append(finding("unlabelled", "warning", "data.split.train", found))
    return findings


def _all_empty(organelle: str, cases: Sequence[FolderCase], measured: Mapping[str, Measured]) -> bool:
    return all(measured[c.name].shares.get(organelle, 1.0) == 0 for c in cases if c.name in measured)
