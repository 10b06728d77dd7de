"""How far the area of thin bodies is off, on bodies whose area is known."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._common import Table
from cytovox.measurement.morphometry import AREA_ESTIMATORS, area_flag, volume_um3

#: Voxel sizes z, y, x in µm; thickness is in the coarsest of their voxels.
SPACINGS = ((1.0, 1.0, 1.0), (0.36, 0.16, 0.16))
THICKNESS = (2, 3, 4, 5, 6, 8)
#: Width over thickness.
WIDE = 5
#: Places between the voxels.
PLACES = 3

Profile = Callable[[float, float], tuple[np.ndarray, np.ndarray, bool]]


def area_tables(_: argparse.Namespace) -> tuple[list[Table], dict[str, Any]]:
    """Mean relative error of each estimator by body and thickness."""
    columns = ["body", "spacing, µm", *(f"{t}" for t in THICKNESS)]
    tables, rows = [], {}
    for estimator in AREA_ESTIMATORS:
        table = Table(f"Error of the area, % ({estimator}), by thickness in the coarsest voxels; * is flagged", columns)
        for name, profile in BODIES.items():
            for spacing in SPACINGS:
                shown = []
                for voxels in THICKNESS:
                    error, flag = _error(profile, voxels * spacing[0], spacing, estimator)
                    rows[f"{estimator}: {name}, {spacing}, {voxels}"] = error
                    shown.append(f"{100 * error:+.1f}{'*' if flag else ''}")
                table.rows.append([name, " x ".join(map(str, spacing)), *shown])
        tables.append(table)
    return tables, rows


def _error(profile: Profile, thick: float, spacing: tuple[float, float, float], estimator: str) -> tuple[float, bool]:
    rng, errors, flagged = np.random.default_rng(0), [], False
    for _ in range(PLACES):
        mask, area = _voxels(profile, thick, spacing, rng.uniform(-0.5, 0.5, 3))
        found = AREA_ESTIMATORS[estimator](mask, spacing)
        errors.append(found / area - 1)
        flagged = flagged or bool(area_flag(volume_um3(mask, spacing), found, spacing))
    return float(np.mean(errors)), flagged


def _voxels(
    profile: Profile, thick: float, spacing: tuple[float, float, float], shift: np.ndarray
) -> tuple[np.ndarray, float]:
    """A body of revolution by the height of its surface, and its area."""
    r, height, flat_below = profile(thick, WIDE * thick / 2)
    reach = [int(np.ceil(size / d)) + 2 for size, d in zip((height.max(), r[-1], r[-1]), spacing, strict=True)]
    z, y, x = np.meshgrid(
        *((np.arange(-n, n + 1) - off) * d for n, d, off in zip(reach, spacing, shift, strict=True)), indexing="ij"
    )
    above = np.interp(np.hypot(y, x), r, height, right=-1)
    mask = (z <= above) & (z >= (np.where(above >= 0, 0, 1) if flat_below else -above))
    lid = float(np.sum(np.pi * (r[1:] + r[:-1]) * np.hypot(np.diff(r), np.diff(height))))
    return mask, lid + (np.pi * r[-1] ** 2 if flat_below else lid)


def _ellipsoid(thick: float, radius: float) -> tuple[np.ndarray, np.ndarray, bool]:
    at = np.sin(np.linspace(0, np.pi / 2, 20001))
    return radius * at, thick / 2 * np.sqrt(1 - at**2), False


def _disc(thick: float, radius: float) -> tuple[np.ndarray, np.ndarray, bool]:
    """With a round rim."""
    rim = np.linspace(0, np.pi / 2, 20001)
    r = np.concatenate([[0], radius - thick / 2 + thick / 2 * np.sin(rim)])
    return r, np.concatenate([[thick / 2], thick / 2 * np.cos(rim)]), False


def _spread(thick: float, radius: float) -> tuple[np.ndarray, np.ndarray, bool]:
    """A cell spread on glass: flat below, a sheet with a round rim, and a body three sheets high in its middle."""
    flat, body = 3 * radius - thick, 1.5 * radius
    r = np.concatenate([np.linspace(0, flat, 20001), flat + thick * np.sin(np.linspace(0, np.pi / 2, 2001))])
    rim = np.sqrt(np.clip(thick**2 - np.clip(r - flat, 0, thick) ** 2, 0, None))
    return r, rim + np.where(r < body, thick * (1 + np.cos(np.pi * r / body)), 0), True


def _cap(thick: float, radius: float) -> tuple[np.ndarray, np.ndarray, bool]:
    """Of a ball, with an edge as sharp as a knife."""
    ball = (radius**2 + thick**2) / (2 * thick)
    r = np.linspace(0, radius, 20001)
    return r, np.sqrt(ball**2 - r**2) - ball + thick, True


BODIES: dict[str, Profile] = {
    "ellipsoid": _ellipsoid,
    "disc with a round rim": _disc,
    "cell spread on glass (its sheet)": _spread,
    "cap of a ball": _cap,
}
