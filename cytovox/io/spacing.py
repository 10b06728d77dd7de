"""Determine the voxel size of tomograms and masks, for all commands.

A file can have one voxel size, two that disagree, numbers without a unit, or none. Readers return the entries of a file
as `StoredSpacing`. `resolve_spacing` determines the voxel size. `match_spacing` checks whether a mask has the voxel
size of its tomogram.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cytovox.errors import InputError
from cytovox.io.units import micrometres
from cytovox.io.volume import ZYX, check_spacing

#: Smallest and largest voxel size of light microscopy in um; outside this range the unit is doubtful.
PLAUSIBLE_UM = (0.02, 5.0)

#: Largest ratio of the longest to the shortest edge of a voxel.
MAX_ANISOTROPY = 20.0

#: Largest relative difference per axis of two equal voxel sizes, because files round their numbers.
RTOL = 0.02

#: Units tried for numbers without one. `PLAUSIBLE_UM` spans less than a factor of 1000, so at most one of them fits.
_TRIED_UNITS = ("um", "mm", "nm", "m")

#: Which voxel size is used if those of file and config differ.
SpacingFrom = Literal["file", "config"]

#: z, y, x in um; None for a length that the file does not state.
Lengths = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Reading:
    """One possible reading of a file's voxel size.

    Attributes
    ----------
    lengths_um : (z, y, x)
        Lengths in micrometres; None if the file does not state one.
    how : str
        Source of the reading, reported if it was chosen among several; empty for the regular entry of the file.
    """

    lengths_um: Lengths
    how: str = ""

    @property
    def complete(self) -> ZYX | None:
        """All three lengths; None if one is missing."""
        z, y, x = self.lengths_um
        return None if z is None or y is None or x is None else (z, y, x)

    def agrees(self, spacing_um: Sequence[float], factor: float = 1.0) -> bool:
        """Return whether every known length equals the given one within `RTOL`."""
        return all(
            length is None or abs(length * factor - other) <= RTOL * other
            for length, other in zip(self.lengths_um, spacing_um, strict=True)
        )

    def plausible(self) -> bool:
        """Return whether the known lengths are plausible for light microscopy."""
        return implausible([length for length in self.lengths_um if length is not None]) is None


@dataclass(frozen=True)
class StoredSpacing:
    """Possible readings of the voxel size in a file; empty if the file has none.

    Attributes
    ----------
    readings : tuple of Reading
        Several if the file contradicts itself, or has numbers without a unit. The regular one is first.
    """

    readings: tuple[Reading, ...] = ()

    @classmethod
    def of(cls, lengths_um: Sequence[float | None], how: str = "") -> StoredSpacing:
        """Return a reading of explicit lengths, none if no length is known. The sign of the depth is ignored."""
        z, y, x = (None if s is None or not np.isfinite(s) else abs(s) or None for s in lengths_um)
        return cls() if z is y is x is None else cls((Reading((z, y, x), how),))

    @classmethod
    def without_unit(cls, numbers: Sequence[float], what: str) -> StoredSpacing:
        """Return the readings of numbers z, y, x without a unit; programs without a voxel size write 1, 1, 1."""
        if any(not np.isfinite(n) or n == 0 for n in numbers) or all(n == 1 for n in numbers):
            return cls()
        readings = []
        for unit in _TRIED_UNITS:
            z, y, x = (micrometres(abs(float(n)), unit) for n in numbers)
            readings.append(Reading((z, y, x), f"{what} read as {unit}: the file names no unit"))
        likely = [reading for reading in readings if reading.plausible()]
        return cls(tuple(likely or readings))

    @property
    def spacing_um(self) -> ZYX | None:
        """Return the spacing (z, y, x) if there is exactly one reading and it is complete; else None."""
        likely = [reading for reading in self.readings if reading.plausible()] or list(self.readings)
        return likely[0].complete if likely else None


@dataclass(frozen=True)
class Resolved:
    """The voxel size of a file, and how it was determined.

    Attributes
    ----------
    spacing_um : (z, y, x)
    notes : tuple of str
        Decisions about entries that are not explicit: one sentence each, beginning with the file's name.
    """

    spacing_um: ZYX
    notes: tuple[str, ...] = ()


def resolve_spacing(
    path: object, stored: StoredSpacing, given: Sequence[float] | None = None, spacing_from: SpacingFrom = "file"
) -> Resolved:
    """Return the voxel size of a file.

    Parameters
    ----------
    path : Path or str
        Named in messages.
    stored : StoredSpacing
        Voxel size in the file.
    given : (z, y, x), optional
        Voxel size in the config (`spacing_um`), in um. It is used if the file has none. If the file has another one,
        this is an error unless `spacing_from` is "config".
    spacing_from : "file" or "config"
        Which voxel size is used if both differ.

    Raises
    ------
    InputError
        There is no voxel size, it differs from the given one, several contradict each other, or it is not plausible
        (`PLAUSIBLE_UM`, `MAX_ANISOTROPY`).
    """
    name = getattr(path, "name", path)
    if spacing_from == "config":
        if given is None:
            raise InputError(f"{path}: spacing_from: config needs spacing_um: give z, y, x in um")
        spacing = _plausible(path, check_spacing(given, path), "spacing_um")
        differ = stored.readings and not any(reading.agrees(spacing) for reading in stored.readings)
        note = f"{name}: voxel size {say(spacing)} um of spacing_um instead of the file's {_all_of(stored)} um"
        return Resolved(spacing, (note,) if differ else ())
    if given is not None:
        return _with_given(path, stored, check_spacing(given, path))
    if not stored.readings:
        raise InputError(
            f"{path}: the file states no voxel size: give it as z, y, x in um (data.spacing_um for training, "
            "predict.spacing_um for prediction, spacing_um for analyze and cells_from_masks)"
        )
    return _of_file(path, stored)


def _with_given(path: object, stored: StoredSpacing, given: ZYX) -> Resolved:
    """Combine the voxel sizes of file and config; the config supplies the lengths that the file lacks."""
    name = getattr(path, "name", path)
    _plausible(path, given, "spacing_um")
    agreeing = next((reading for reading in stored.readings if reading.agrees(given)), None)
    if stored.readings and agreeing is None:
        raise InputError(
            f"{path}: the file's own spacing is {_all_of(stored)} um (z, y, x), the one given (spacing_um) {say(given)}"
            " um: leave out spacing_um, correct the file, or set spacing_from: config to take the given one"
        )
    if agreeing is None:
        return Resolved(given)
    z, y, x = (g if own is None else own for own, g in zip(agreeing.lengths_um, given, strict=True))
    note = f"{name}: voxel size {say((z, y, x))} um: {agreeing.how}; spacing_um says the same"
    return Resolved((z, y, x), (note,) if agreeing.how else ())


def _of_file(path: object, stored: StoredSpacing) -> Resolved:
    name = getattr(path, "name", path)
    likely = [reading for reading in stored.readings if reading.plausible()]
    if not likely:
        raise InputError(_implausible_text(path, stored))
    first = likely[0]
    other = next((r for r in likely[1:] if r.complete is None or not first.agrees(r.complete)), None)
    if other is not None:
        raise InputError(
            f"{path}: states two voxel sizes (z, y, x): {_named(first)} and {_named(other)}: give the right one as "
            "spacing_um, or correct the file"
        )
    if first.complete is None:
        axes = ", ".join(a for a, length in zip("zyx", first.lengths_um, strict=True) if length is None)
        raise InputError(
            f"{path}: the file states no voxel size along {axes} (z, y, x: {say(first.lengths_um)} um): give all three "
            "as spacing_um"
        )
    note = f"{name}: voxel size {say(first.complete)} um (z, y, x): {first.how}"
    return Resolved(first.complete, (note,) if first.how else ())


def match_spacing(
    path: object, stored: StoredSpacing, spacing_um: Sequence[float], of: object, advice: str = ""
) -> tuple[str, ...]:
    """Compare the voxel size of a mask with that of its tomogram, which is used.

    Parameters
    ----------
    path : Path or str
        The mask.
    stored : StoredSpacing
        Its voxel size.
    spacing_um : (z, y, x)
        The tomogram's.
    of : Path or str
        The tomogram, named in messages.
    advice : str
        Added to the error.

    Returns
    -------
    tuple of str
        Decisions about entries of the mask that are not explicit, such as micrometres written as millimetres.

    Raises
    ------
    InputError
        No reading of the mask's voxel size agrees with the tomogram.
    """
    name = getattr(path, "name", path)
    if not stored.readings or stored.readings[0].agrees(spacing_um):
        return ()
    for reading in stored.readings[1:]:
        if reading.agrees(spacing_um):
            return (f"{name}: voxel size {say(spacing_um)} um, its tomogram's: {reading.how}",)
    for reading in stored.readings:
        for factor, written, expected in ((1e-3, "um", "mm"), (1e3, "mm", "um")):
            if reading.agrees(spacing_um, factor):
                return (
                    f"{name}: its spacing is written in {written} where {expected} is expected "
                    f"({say(reading.lengths_um)} um); read as its tomogram's {say(spacing_um)} um",
                )
    raise InputError(
        f"{path}: voxel size {_all_of(stored)} um (z, y, x), but {of} has {say(spacing_um)} um: "
        f"save it with the tomogram's voxel size{advice}"
    )


def implausible(spacing_um: Sequence[float]) -> str | None:
    """Return why this is no voxel size of light microscopy; None if it is one."""
    low, high = PLAUSIBLE_UM
    if any(not low <= s <= high for s in spacing_um):
        return f"expected {low:g} to {high:g} um"
    if spacing_um and max(spacing_um) > MAX_ANISOTROPY * min(spacing_um):
        return f"expected edges that differ by a factor of {MAX_ANISOTROPY:g} at most"
    return None


def _plausible(path: object, spacing_um: ZYX, key: str) -> ZYX:
    if (why := implausible(spacing_um)) is not None:
        raise InputError(f"{path}: {key}: voxel size {say(spacing_um)} um (z, y, x): {why}; is its unit um?")
    return spacing_um


def _named(reading: Reading) -> str:
    return f"{say(reading.lengths_um)} um" + (f" ({reading.how})" if reading.how else "")


def _implausible_text(path: object, stored: StoredSpacing) -> str:
    first = stored.readings[0]
    known = [length for length in first.lengths_um if length is not None]
    text = f"{path}: voxel size {_all_of(stored)} um (z, y, x): {implausible(known)}"
    for factor, how in ((1e-3, "um written as mm"), (1e3, "mm written as um"), (1e-4, "um written as cm")):
        if implausible([factor * length for length in known]) is None:
            return f"{text}; {how}? correct the file, or give spacing_um with spacing_from: config"
    return f"{text}; correct the file, or give spacing_um with spacing_from: config"


def _all_of(stored: StoredSpacing) -> str:
    return " or ".join(dict.fromkeys(say(reading.lengths_um) for reading in stored.readings))


def say(lengths_um: Sequence[float | None]) -> str:
    """Return lengths as text for messages: (0.5, 0.2, 0.2)."""
    return "(" + ", ".join("?" if length is None else f"{length:.4g}" for length in lengths_um) + ")"
