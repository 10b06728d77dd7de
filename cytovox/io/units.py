"""Units of length and time as image files spell them."""

import math
import unicodedata

#: Micrometres in one unit, in small letters and NFKC, where the micro sign is the Greek mu and Angstrom's sign A ring.
#: ImageJ writes characters beyond ASCII as an escape, and it stays one where a program copies the text.
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
    """A length in micrometres; None where the value is no number or the unit no length, such as "pixel"."""
    return _convert(value, LENGTH_UM.get(_plain(unit)))


def in_seconds(value: object, unit: object) -> float | None:
    """A time in seconds; None where the value is no number or the unit no time."""
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
    """The values, where every one is a finite number; None where one is not."""
    known = tuple(v for v in values if v is not None and math.isfinite(v))
    return known if len(known) == len(values) else None
