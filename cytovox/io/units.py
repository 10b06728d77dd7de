"""Convert units of length and time, in the spellings of image files."""

import math
import unicodedata

#: Micrometres in one unit. Names are in lower case and NFKC, in which the micro sign is the Greek mu, and the Angstrom
#: sign is A with ring. ImageJ writes non-ASCII characters as escapes, and programs that copy the text keep the escape.
LENGTH_UM = {
    **dict.fromkeys(("å", "\\u00c5", "\\u212b", "angstrom", "angstroms", "ångström"), 1e-4),
    **dict.fromkeys(("pm", "picometer", "picometers", "picometre", "picometres"), 1e-6),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-3),
    **dict.fromkeys(("um", "\u03bcm", "\\u00b5m", "\\u03bcm", "micron", "microns"), 1.0),
    **dict.fromkeys(("micrometer", "micrometers", "micrometre", "micrometres"), 1.0),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 1e4),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e6),
    **dict.fromkeys(("in", "inch", "inches"), 25400.0),
}

#: Seconds in one unit.
TIME_S = {
    "ns": 1e-9,
    "nanosecond": 1e-9,
    "us": 1e-6,
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
    """Return a length in micrometres; None if the value is no number or the unit is no length, such as "pixel"."""
    return _convert(value, LENGTH_UM.get(_plain(unit)))


def in_seconds(value: object, unit: object) -> float | None:
    """Return a time in seconds; None if the value is no number or the unit is no time."""
    return _convert(value, TIME_S.get(_plain(unit)))


def _plain(unit: object) -> str:
    return unicodedata.normalize("NFKC", str(unit)).strip("\0 \t\r\n").lower()


def _convert(value: object, factor: float | None) -> float | None:
    if factor is None or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(f"{float(value) * factor:.12g}")  # 250 nm is 0.25 um, not 0.25000000000000006
    except (ValueError, OverflowError):
        return None


def all_known(values: "list[float | None] | tuple[float | None, ...]") -> tuple[float, ...] | None:
    """Return the values if all are finite numbers, else None."""
    known = tuple(v for v in values if v is not None and math.isfinite(v))
    return known if len(known) == len(values) else None
