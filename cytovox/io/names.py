"""Make file names from any text: stems of inputs, names of organelles, cells, records and runs."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

#: Characters that separate folders, or that some operating system forbids in file names.
_FORBIDDEN = frozenset('<>:"/\\|?*')
#: Names that Windows reserves for devices, with any suffix.
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"{device}{n}" for device in ("com", "lpt") for n in "0123456789¹²³")]
)
#: Largest number of bytes of a name. File systems allow 255, and suffixes and prefixes are added.
LONGEST = 160


def safe_name(text: str) -> str:
    """Return a valid name of a file or folder on every operating system, for any text.

    Separators, control characters, unpaired surrogates and characters that Windows forbids become `_`. A name does not
    begin with a dot (hidden files, `.` and `..`), and does not end with a dot or a space. It is not empty, not a device
    of Windows, and at most `LONGEST` bytes long. Two texts may get the same name; see `unique_names`.

    Parameters
    ----------
    text : str
        Any text, such as the stem of an input.

    Returns
    -------
    str
        The text itself if it is a valid name.
    """
    name = "".join("_" if c in _FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)
    begins = len(name) - len(name.lstrip(". "))
    name = "_" * begins + name[begins:]
    kept = name.rstrip(". ")
    name = kept + "_" * (len(name) - len(kept))
    if name.split(".")[0].rstrip().lower() in _RESERVED:
        name = f"_{name}"
    if len(name.encode()) > LONGEST:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = name.encode()[: LONGEST - 9].decode(errors="ignore").rstrip(". ") + f"-{digest}"
    return name or "_"


def name_key(name: str) -> str:
    """Return a key that is equal for names that some file systems do not distinguish (case, composed accents)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def unique_names(texts: Iterable[str]) -> list[str]:
    """Return a safe name for each text, all different on every system; later ones get a number.

    Parameters
    ----------
    texts : iterable of str
        Texts in the same order in every run.
    """
    names = [safe_name(text) for text in texts]
    taken: set[str] = set()
    once = [name_key(name) for name in names]
    result = []
    for name in names:
        chosen, number = name, 2
        while name_key(chosen) in taken or (chosen != name and name_key(chosen) in once):
            chosen, number = f"{name}_{number}", number + 1
        taken.add(name_key(chosen))
        result.append(chosen)
    return result
