"""Choose an image by its number or name in a file that has several."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from cytovox.errors import InputError

#: Value of `series`: a number from 0, a name, or None if there is only one image.
Series = int | str | None


def choose_series(
    path: object,
    found: Sequence[tuple[str, str]],
    series: Series,
    titles: Sequence[str] = (),
    accept_single: bool = False,
) -> int:
    """Return the number of the chosen image.

    Parameters
    ----------
    path : Path or str
        Named in messages.
    found : sequence of (name, description)
        All images of the file, in order.
    series : int, str or None
        Number or name of the image. A text that is no name is read as a number.
    titles : sequence of str
        Second names, one per image. Such a name is used if only one image has it.
    accept_single : bool
        Whether the request is ignored for a file with one image, such as a mask of one position.

    Raises
    ------
    InputError
        There are several images and `series` is None, or no image has this number or name. The message lists all
        images.
    """
    if len(found) == 1 and (series is None or accept_single):
        return 0
    if series is None:
        raise InputError(f"{path}: holds {len(found)} images: choose one with series: {_listed(found)}")
    if isinstance(series, str):
        named = [k for k, (name, _) in enumerate(found) if _plain(name) == _plain(series)]
        named = named or [k for k, title in enumerate(titles) if _plain(title) == _plain(series)]
        if len(named) == 1:
            return named[0]
        if len(named) > 1:
            raise InputError(f"{path}: series: {series}: {len(named)} images have this name: {_listed(found)}")
    number = int(series) if not isinstance(series, bool) and str(series).strip().isdecimal() else -1
    if not 0 <= number < len(found):
        raise InputError(f"{path}: series: {series}: no such image; the file holds {_listed(found)}")
    return number


def only_series(path: object, series: Series) -> None:
    """Raise InputError if `series` names another image than the only one of a file."""
    if series is not None and str(series).strip() != "0":
        raise InputError(f"{path}: series: {series}: this kind of file holds one image: leave out series, or give 0")


def _listed(found: Sequence[tuple[str, str]], most: int = 20) -> str:
    shown = [f"{k} ({name + ', ' if name else ''}{about})" for k, (name, about) in enumerate(found[:most])]
    return ", ".join(shown) + (f" and {len(found) - most} more" if len(found) > most else "")


def _plain(name: str) -> str:
    """Return a name for comparison, in which composed and decomposed accents are equal."""
    return unicodedata.normalize("NFC", name).strip()
