"""Units of length and time as image files spell them."""

import math

#: Micrometres in one unit. The micro sign and the Greek letter mu are two characters that look alike.
LENGTH_UM = {
    "å": 1e-4,
    "angstrom": 1e-4,
    "pm": 1e-6,
    "picometer": 1e-6,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "\u00b5m": 1.0,
    "\u03bcm": 1.0,
    "\\u00b5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "inch": 25400.0,
}

#: Seconds in one unit.
TIME_S = {
    "ns": 1e-9,
    "nanosecond": 1e-9,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "\u03bcs": 1e-6,
    "microsecond": 1e-6,
    "ms": 1e-3,
    "msec": 1e-3,
    "millisecond": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}


def micrometres(value: object, unit: object) -> float | None:
    """A length in micrometres; None where the value is no number or the unit no length, such as "pixel"."""
    return _convert(value, LENGTH_UM.get(str(unit).strip().lower()))


def in_seconds(value: object, unit: object) -> float | None:
    """A time in seconds; None where the value is no number or the unit no time."""
    return _convert(value, TIME_S.get(str(unit).strip().lower()))


def _convert(value: object, factor: float | None) -> float | None:
    if factor is None or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(f"{float(value) * factor:.12g}")  # 250 nm is 0.25 um, not 0.25000000000000006
    except (ValueError, OverflowError):
        return None


def all_known(values: "list[float | None] | tuple[float | None, ...]") -> tuple[float, ...] | None:
    """The values, where every one is a finite number; None where one is not."""
    known = tuple(v for v in values if v is not None and math.isfinite(v))
    return known if len(known) == len(values) else None
