"""Rules of the audit for a single volume.

A finding is an error if training or prediction refuses the data, or if the data would spoil their result. Everything
else is a warning. `docs/checking.md` lists the rules and the reasons.
"""

from __future__ import annotations

from pathlib import Path

from cytovox.io.values import RI_LIMITS, middle_error
from datamodules.audit.findings import Finding, Severity, finding, of_error
from datamodules.audit.measure import MARGIN_RI, Job, Measurements, RIStatistics
from datamodules.paths import below

#: Largest fraction of the cells above and below data.ri_range.
CLIPPED_ABOVE, CLIPPED_BELOW = 0.10, 0.30

#: Largest difference between the medium and the lower end of data.ri_range.
MEDIUM_OFF = 0.01

#: Smallest contrast, the difference between the 0.1st and the 99.9th percentile.
NO_CONTRAST = 0.002

#: Largest fraction of the volume in blocks of one value; more means that part of it was not measured.
NO_DATA = 0.01

#: Largest fraction of the volume inside a mask.
FULL = 0.999

#: Fraction of an organelle outside the organelle that contains it: warning, error.
OUTSIDE, OUTSIDE_ERROR = 0.02, 0.50


def volume_findings(job: Job, measured: Measurements, root: Path) -> list[Finding]:
    """Return the findings of one volume and its masks.

    Parameters
    ----------
    job : Job
        The volume and how it was read.
    measured : Measurements
        Its measurements.
    root : Path
        Root folder of the data; files in it are named relative to it.
    """
    name = measured.name
    findings = [of_error(error, name, below(error.file, root)) for error in measured.errors]
    findings += [
        finding("mask-unit" if "its tomogram's" in note else "mask-note", "warning", name, note, (name,))
        for note in measured.notes
    ]
    for statistics in measured.ri:
        frame = f"frame {statistics.frame}: " if len(measured.ri) > 1 else ""
        findings += [
            finding(kind, severity, name, frame + found, (name,))
            for kind, severity, found in _of_ri(statistics, job.ri_range)
        ]
    if measured.shape is not None and min(measured.shape) == 1:
        found = f"shape {measured.shape} (z, y, x): a single slice"
        findings.append(finding("one-slice", "warning", name, found, (name,)))
    return findings + _of_masks(job, measured, root)


def _of_ri(statistics: RIStatistics, ri_range: tuple[float, float]) -> list[tuple[str, Severity, str]]:
    """Return (kind, severity, text) of each finding of one frame: the first error, else all warnings."""
    (low, high), size = ri_range, statistics.size
    only_zeros = 0 < statistics.implausible == statistics.zeros < size
    untypical = middle_error(statistics.middle)
    errors = (
        (
            statistics.bad,
            "not-finite",
            f"{statistics.bad} of {size} voxels are NaN or infinite, the first at z, y, x = {statistics.first_bad}",
        ),
        (
            only_zeros,
            "no-data",
            f"{_percent(statistics.zeros / size)} of the voxels are exactly 0, which is no refractive index",
        ),
        (
            statistics.implausible,
            "not-ri",
            f"values from {statistics.low:.4g} to {statistics.high:.4g} are no refractive index "
            f"({RI_LIMITS[0]} to {RI_LIMITS[1]})",
        ),
        (untypical, "not-ri", untypical or ""),
        (statistics.high == statistics.low, "constant", f"every voxel is {statistics.low:.5g}"),
    )
    for applies, kind, found in errors:
        if applies:
            return [(kind, "error", found)]
    beyond = (
        (
            statistics.above > CLIPPED_ABOVE,
            f"{_percent(statistics.above)} of the cells lie above {high + MARGIN_RI:.4g} and are clipped",
        ),
        (
            statistics.below > CLIPPED_BELOW,
            f"{_percent(statistics.below)} of the cells lie below {low - MARGIN_RI:.4g} and are clipped",
        ),
        (
            abs(statistics.medium - low) > MEDIUM_OFF,
            f"the medium's RI is {statistics.medium:.4f}, data.ri_range begins at {low:.4g}",
        ),
    )
    out_of_range = "; ".join(found for applies, found in beyond if applies)
    warnings = (
        (
            statistics.constant > NO_DATA,
            "no-data",
            f"{_percent(statistics.constant)} of the volume are blocks of one value, such as "
            f"{statistics.constant_value:.5g}: nothing was measured there",
        ),
        (
            statistics.span < NO_CONTRAST,
            "no-contrast",
            f"99.8 % of the voxels lie within {statistics.span:.2g} of each other",
        ),
        (out_of_range, "ri-range", out_of_range),
    )
    return [(kind, "warning", found) for applies, kind, found in warnings if applies]


def _of_masks(job: Job, measured: Measurements, root: Path) -> list[Finding]:
    found: list[tuple[str, Severity, str, str]] = [
        ("empty-mask", "warning", organelle, f"{organelle}: the mask is empty: the cells count as having none")
        if share == 0
        else ("full-mask", "warning", organelle, f"{organelle}: {_percent(share)} of all annotated voxels")
        for organelle, share in measured.shares.items()
        if share == 0 or share > FULL
    ]
    for (inner, outer), share in measured.outside.items():
        if share > OUTSIDE:
            severity: Severity = "error" if share > OUTSIDE_ERROR else "warning"
            found.append(("outside", severity, inner, f"{_percent(share)} of the {inner} lie outside the {outer}"))
    if (place := measured.misplaced) is not None:
        how = f"mirrored along {', '.join(place.flipped)}" if place.flipped else f"moved by {place.shift} (z, y, x)"
        correlation = f"correlation {place.better:.2f}, not {place.fit:.2f}"
        text = f"{place.organelle} fits its tomogram better {how} ({correlation})"
        found.append(("misplaced", "warning", place.organelle, text))
    found += [("fluorescence", "warning", one.organelle, text) for one in measured.channels if (text := one.warning())]
    files = dict.fromkeys(job.case.from_channels, below(job.case.volume, root))
    files |= {k: below(mask_file.file, root) for mask_file in job.case.mask_files() for k in mask_file.organelles}
    return [finding(kind, severity, files[k], text, (measured.name,)) for kind, severity, k, text in found]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
