"""Findings from comparing volumes: copies, leaks, wrong units, incomplete splits."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np

from cytovox.errors import InputError
from cytovox.io.spacing import PLAUSIBLE_UM
from cytovox.preprocess.resampling import ResampleTo, common_grid
from datamodules.audit.findings import Finding, Severity, finding
from datamodules.audit.measure import Measurements
from datamodules.cases import FolderCase
from datamodules.config import FolderData, OrganelleData
from datamodules.paths import stem_of
from datamodules.splits import SPLITS, Division

#: Factor between a voxel size and the median of all: warning, error.
SPACING_RATIO, SPACING_RATIO_ERROR = 4.0, 100.0

#: Largest difference between voxels of two copies: half a unit of RI x 10 000, to which some formats round.
ROUNDING_RI = 6e-5

_TIME_POINT = re.compile(r"(.*?)(?:^|[ _.\-])(?:t|tp|time|timepoint|frame)[ _\-]?\d+", re.IGNORECASE)


def set_findings(
    config: FolderData, division: Division, measured: Mapping[str, Measurements], stages: Sequence[str]
) -> list[Finding]:
    """Return findings of the volumes of all splits together.

    Parameters
    ----------
    config : FolderData
        Common grid, patch size and organelles.
    division : dict of split to cases
        Cases of each split; a case may be in none.
    measured : mapping of a case's name to Measurements
        All volumes checked.
    stages : sequence of str
        Stages of the run.
    """
    side = {case.name: split for split in SPLITS for case in division[split]}
    wrong_unit = _spacings(list(measured.values()))
    flagged = {name for found in wrong_unit for name in found.volumes}
    trained = [m for m in measured.values() if side.get(m.name, "train") == "train" and m.name not in flagged]
    small, copies = small_findings(config, trained), _copies(side, list(measured.values()))
    return [*wrong_unit, *small, *copies, *_time_points(division)]


def _spacings(measured: Sequence[Measurements]) -> list[Finding]:
    """Return findings of volumes whose voxel size is implausible or differs from the others."""
    known = [m for m in measured if m.spacing_um is not None]
    if not known:
        return []
    sizes = np.array([m.spacing_um for m in known])
    low, high = PLAUSIBLE_UM
    plausible = np.all((sizes >= low) & (sizes <= high), axis=1)
    usual = np.median(sizes[plausible] if plausible.any() else sizes, axis=0)
    findings = []
    for one, size, fine in zip(known, sizes, plausible.tolist(), strict=True):
        ratio = float(max(size / usual, key=lambda r: abs(np.log(r))))
        found = f"voxel size ({', '.join(f'{s:.4g}' for s in size)}) um (z, y, x)"
        grave = not 1 / SPACING_RATIO_ERROR < ratio < SPACING_RATIO_ERROR
        if not 1 / SPACING_RATIO <= ratio <= SPACING_RATIO:
            found += f" is {ratio:.3g} times the others'"
        elif not fine:
            found += f": expected {low:g} to {high:g} um"
        else:
            continue
        findings.append(finding("spacing", "error" if grave else "warning", one.name, found, (one.name,)))
    return findings


def small_findings(config: OrganelleData, measured: Sequence[Measurements]) -> list[Finding]:
    """Return findings of training volumes that are smaller than a patch."""
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


def _copies(side: Mapping[str, str], measured: Sequence[Measurements]) -> list[Finding]:
    """Return findings of volumes with the same voxels, in any file format."""
    findings = []
    # by mean, so that only neighbours are compared
    known = sorted(((m, m.voxels) for m in measured if m.voxels is not None), key=lambda pair: float(pair[1][-2]))
    for at, (one, voxels) in enumerate(known):
        for other, others in known[at + 1 :]:
            if float(others[-2]) - float(voxels[-2]) > ROUNDING_RI:
                break
            if one.shape == other.shape and np.abs(voxels - others).max() <= ROUNDING_RI:
                first, second = sorted((one.name, other.name))
                one_side, other_side = side.get(first), side.get(second)
                if None in (one_side, other_side) or one_side == other_side:
                    found = f"has the same voxels as {first}" + (f", both in {one_side}" if one_side else "")
                    findings.append(finding("duplicate", "warning", second, found, (first, second)))
                else:
                    found = f"in {other_side}, has the same voxels as {first}, in {one_side}"
                    findings.append(finding("leak", "error", second, found, (first, second)))
    return findings


def _time_points(division: Division) -> list[Finding]:
    """Return findings of files named as time points of one cell in different splits."""
    series: dict[tuple[str, str], list[tuple[str, FolderCase]]] = {}
    for split in SPLITS:
        for case in division[split]:
            match = _TIME_POINT.fullmatch(stem_of(case.volume))
            if match and match[1]:
                series.setdefault((str(case.volume.parent), match[1]), []).append((split, case))
    findings = []
    for (first_split, first), *others in series.values():
        # one finding per series
        for split, case in [(split, case) for split, case in others if split != first_split][:1]:
            found = f"in {split}, looks like another time point of {first.name}, in {first_split}"
            findings.append(finding("time-points", "warning", case.name, found, (first.name, case.name)))
    return findings


def split_findings(config: OrganelleData, counts: Mapping[str, int], stages: Sequence[str]) -> list[Finding]:
    """Return findings of empty splits that a stage needs."""
    needs: list[tuple[str, str, Severity, str, str]] = [
        ("fit", "train", "error", "no volume to train on", ""),
        ("fit", "val", "warning", "no volume to validate on: the best weights cannot be chosen", ""),
        ("test", "test", "error", "no volume to test on", "give it a share, or leave out the test stage"),
    ]
    return [
        finding("empty-split", severity, f"data.split.{split}", found, advice=advice)
        for stage, split, severity, found, advice in needs
        if stage in stages and not counts[split]
    ]


def label_findings(
    config: FolderData, division: Division, measured: Mapping[str, Measurements], stages: Sequence[str]
) -> list[Finding]:
    """Return findings of organelles without a mask in a split."""
    findings = []
    for organelle, split in itertools.product(config.organelles, ("train", "val") if "fit" in stages else ()):
        if cases := division[split]:
            drawn = [
                c
                for c in cases
                if organelle in c.drawn and not (c.name in measured and measured[c.name].annotated.get(organelle) == 0)
            ]
            if not drawn:
                what = "its output is not trained" if split == "train" else "it is not validated"
                found = f"{organelle}: no mask in any of {len(cases)} volumes: {what}"
                findings.append(finding("unlabelled", "warning", f"data.split.{split}", found))
            elif split == "train" and len(drawn) > 1 and _all_empty(organelle, drawn, measured):
                found = f"{organelle}: all {len(drawn)} masks are empty: it cannot be learned"
                findings.append(finding("unlabelled", "warning", "data.split.train", found))
    return findings


def annotation_findings(
    division: Division, measured: Mapping[str, Measurements], stages: Sequence[str]
) -> list[Finding]:
    """Return the annotated share of every partly annotated volume, and findings of volumes without annotation."""
    needed = {case.name for split in ("train", "val") for case in division[split] if "fit" in stages}
    findings = []
    for one in measured.values():
        if one.not_annotated:
            found, _, advice = one.not_annotated.partition("; ")
            severity: Severity = "error" if one.name in needed else "warning"
            found = found.partition(": ")[2] + ("" if one.name in needed else ": the test leaves it out")
            findings.append(finding("unannotated", severity, one.name, found, (one.name,), advice))
        elif any(share < 1 for share in one.annotated.values()):
            by_share: dict[str, list[str]] = {}
            for organelle, share in one.annotated.items():
                by_share.setdefault(f"{100 * share:.3g} %", []).append(organelle)
            shares = "; ".join(f"{share} ({', '.join(names)})" for share, names in by_share.items())
            findings.append(
                finding("partly-annotated", "warning", one.name, f"annotated voxels: {shares}", (one.name,))
            )
    tested = [case.name for case in division["test"] if "test" in stages]
    if tested and all(name in measured and measured[name].not_annotated for name in tested):
        found = f"none of {len(tested)} test volumes has an annotated voxel"
        findings.append(finding("unannotated", "error", "data.split.test", found))
    return findings


def _all_empty(organelle: str, cases: Sequence[FolderCase], measured: Mapping[str, Measurements]) -> bool:
    return all(measured[c.name].shares.get(organelle, 1.0) == 0 for c in cases if c.name in measured)
