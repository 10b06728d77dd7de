"""What the measurements of one volume mean: the rules of the audit, volume by volume.

Called an error: what training or prediction refuses, or what would spoil them. Everything else is a warning. The rules
and their reasons stand in `docs/checking.md`.
"""

from __future__ import annotations

from pathlib import Path

from cytovox.io.values import RI_LIMITS, middle_error
from datamodules.audit.findings import Finding, below, finding, of_error
from datamodules.audit.measure import MARGIN_RI, Job, Measured, RIMetadata

#: Part of the cells beyond data.ri_range: above, below.
CLIPPED_ABOVE, CLIPPED_BELOW = 0.10, 0.30

#: How far the medium may be from the lower end of data.ri_range.
MEDIUM_OFF = 0.01

#: Less than this between the 0.1st and the 99.9th percentile is no contrast.
NO_CONTRAST = 0.002

#: Part of the volume in blocks of one value from which it was not measured there.
NO_DATA = 0.01

#: A mask that fills more than this is no organelle.
FULL = 0.999

#: Part of an organelle outside the one that it lies in: warning, error.
OUTSIDE, OUTSIDE_ERROR = 0.02, 0.50


def volume_findings(job: Job, measured: Measured, root: Path) -> list[Finding]:
    """Everything that is wrong with one volume and its masks.

    Parameters
    ----------
    job : Job
        What was asked.
    measured : Measured
        What was found.
    root : Path
        The data's root, from which files are named.
    """
    name = measured.name
    findings = [of_error(error, name, below(error.file, root)) for error in measured.errors]
    for note in measured.notes:
        kind = "mask-unit" if "its tomogram's" in note else "mask-note"
        findings.append(finding(kind, "warning", name, note, (name,)))
    for metadata in measured.ri:
        frame = f"frame {metadata.frame}: " if len(measured.ri) > 1 else ""
        findings += [
            finding(kind, severity, name, frame + found, (name,))  # type: ignore[arg-type]
            for kind, severity, found in _of_ri(metadata, job.ri_range)
        ]
    if measured.shape is not None and min(measured.shape) == 1:
        found = f"shape {measured.shape} (z, y, x): a single slice"
        findings.append(finding("one-slice", "warning", name, found, (name,)))
    return findings + _of_masks(job, measured, root)


def _of_ri(metadata: RIMetadata, ri_range: tuple[float, float]) -> list[tuple[str, str, str]]:
    """(kind, severity, what was found) of one frame."""
    if metadata.bad:
        found = (
            f"{metadata.bad} of {metadata.size} voxels are NaN or infinite, the first at z, y, x = {metadata.first_bad}"
        )
        return [("not-finite", "error", found)]
    if metadata.strange and metadata.strange == metadata.zeros < metadata.size:
        share = _percent(metadata.zeros / metadata.size)
        return [("no-data", "error", f"{share} of the voxels are exactly 0, which is no refractive index")]
    if metadata.strange:
        found = f"values from {metadata.low:.4g} to {metadata.high:.4g} are no refractive index "
        return [("not-ri", "error", found + f"({RI_LIMITS[0]} to {RI_LIMITS[1]})")]
    if (problem := middle_error(metadata.middle)) is not None:
        return [("not-ri", "error", problem)]
    if metadata.high == metadata.low:
        return [("constant", "error", f"every voxel is {metadata.low:.5g}")]
    results = []
    if metadata.constant > NO_DATA:
        share, value = _percent(metadata.constant), metadata.constant_value
        found = f"{share} of the volume are blocks of one value, such as {value:.5g}"
        results.append(("no-data", "warning", f"{found}: nothing was measured there"))
    if metadata.span < NO_CONTRAST:
        found = f"99.8 % of the voxels lie within {metadata.span:.2g} of each other"
        results.append(("no-contrast", "warning", found))
    if problem := _beyond_range(metadata, ri_range):
        results.append(("ri-range", "warning", problem))
    return results


def _beyond_range(metadata: RIMetadata, ri_range: tuple[float, float]) -> str:
    low, high = ri_range
    problems = []
    if metadata.above > CLIPPED_ABOVE:
        problems.append(f"{_percent(metadata.above)} of the cells lie above {high + MARGIN_RI:.4g} and are clipped")
    if metadata.below > CLIPPED_BELOW:
        problems.append(f"{_percent(metadata.below)} of the cells lie below {low - MARGIN_RI:.4g} and are clipped")
    if abs(metadata.medium - low) > MEDIUM_OFF:
        problems.append(f"the medium is at {metadata.medium:.4f}, data.ri_range begins at {low:.4g}")
    return "; ".join(problems)


def _of_masks(job: Job, measured: Measured, root: Path) -> list[Finding]:
    name = measured.name
    files = {k: below(mask_file.file, root) for mask_file in job.case.mask_files() for k in mask_file.organelles}
    findings = []
    for organelle, share in measured.shares.items():
        if share == 0:
            found = f"{organelle}: not one voxel: counts as 'there is none'"
            findings.append(finding("empty-mask", "warning", files[organelle], found, (name,)))
        elif share > FULL:
            found = f"{organelle}: {_percent(share)} of all voxels"
            findings.append(finding("full-mask", "warning", files[organelle], found, (name,)))
    for (inner, outer), share in measured.outside.items():
        if share > OUTSIDE:
            severity = "error" if share > OUTSIDE_ERROR else "warning"
            found = f"{_percent(share)} of the {inner} lie outside the {outer}"
            findings.append(finding("outside", severity, files[inner], found, (name,)))  # type: ignore[arg-type]
    if (place := measured.misplaced) is not None:
        how = f"mirrored along {', '.join(place.flipped)}" if place.flipped else f"moved by {place.shift} (z, y, x)"
        found = (
            f"{place.organelle} fits its tomogram better {how} (correlation {place.better:.2f}, not {place.fit:.2f})"
        )
        findings.append(finding("misplaced", "warning", files[place.organelle], found, (name,)))
    return findings


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
