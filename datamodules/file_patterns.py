"""Patterns with placeholders for the files that belong to an image.

`{stem}` is the image's name without its suffix, `{parent}` the name of its folder, `{relative}` its path below the
folder that all images share, without the suffix, `{organelle}` an organelle's name, and `{frame}` the number of a
frame, counted from 0, with or without leading zeros.
"""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cytovox.errors import InputError
from cytovox.io.formats import is_volume
from datamodules.paths import stem_of

PLACEHOLDERS = ("{stem}", "{parent}", "{relative}", "{organelle}", "{frame}")
_PLACEHOLDER = re.compile(r"\{(stem|parent|relative|organelle|frame)\}")
_BRACES = re.compile(r"\{[^{}/]*\}")


@dataclass(frozen=True)
class Image:
    """An image whose files are searched for."""

    path: Path
    relative: str
    """Path below the common folder, without the suffix, with `/`."""

    @property
    def stem(self) -> str:
        """File name without the suffix."""
        return stem_of(self.path)

    def values(self, organelle: str) -> dict[str, str]:
        """Return the values of all placeholders except `{frame}`."""
        return {
            "stem": self.stem,
            "parent": self.path.absolute().parent.name,
            "relative": self.relative,
            "organelle": organelle,
        }


def images_of(paths: Sequence[Path], root: Path | None = None) -> list[Image]:
    """Return images with their paths below `root`, or below the deepest folder that they share."""
    absolute = [Path(os.path.abspath(path)) for path in paths]
    if root is None and absolute:
        root = Path(os.path.commonpath([path.parent for path in absolute]))
    common = Path(os.path.abspath(root or ""))
    images = []
    for path, full in zip(paths, absolute, strict=True):
        below = full.relative_to(common) if full.is_relative_to(common) else Path(full.name)
        images.append(Image(path, below.with_name(stem_of(full)).as_posix()))
    return images


def check_placeholders(pattern: str, key: str) -> None:
    """Raise InputError if a pattern has braces that are no placeholder."""
    if unknown := [word for word in _BRACES.findall(pattern) if word not in PLACEHOLDERS]:
        raise InputError(f"{key}: {pattern}: {unknown[0]} is no placeholder; known are {', '.join(PLACEHOLDERS)}")


def files_for(pattern: str, image: Image, organelle: str = "") -> dict[int | None, list[Path]]:
    """Return the files of one image that match a pattern.

    Parameters
    ----------
    pattern : str
        Placeholders and wildcards (`*`, `?`, `[...]`, `**`).
    image : Image
    organelle : str
        Value of {organelle}.

    Returns
    -------
    dict of (int or None) -> list of Path
        Files by frame; the frame is None if the pattern has no {frame}. Names are compared in Unicode's composed form
        (NFC).
    """
    base, rest = _literal_folders(pattern, _parts(pattern, image.values(organelle)))
    literal = all(mark in (None, "value") for part in rest for _, mark in part)
    path = base.joinpath(*map(_text, rest))
    if (literal or (len(rest) == 1 and not _framed(rest[0]))) and path.exists():
        return {None: [path]}
    reader = re.compile(_regex(rest))
    found: dict[int | None, list[Path]] = {}
    globbed = "/".join("".join(_globbed(text, mark) for text, mark in part) for part in rest)
    for text in glob.glob(globbed, root_dir=base, recursive=True):
        match, path = reader.fullmatch(composed(text)), base / text
        if match and is_volume(path):
            number = match.groupdict().get("frame")
            found.setdefault(None if number is None else int(number), []).append(path)
    return {frame: sorted(paths) for frame, paths in found.items()}


#: Text of a pattern and its kind: None for literal text, "value" of a placeholder, "wild" with wildcards, "frame".
_Token = tuple[str, str | None]


def _parts(pattern: str, values: dict[str, str]) -> list[list[_Token]]:
    """Return the folders and the file name of a pattern, with placeholders replaced by their values."""
    parts: list[list[_Token]] = [[]]
    for number, piece in enumerate(_PLACEHOLDER.split(pattern)):  # placeholders have odd numbers
        if number % 2 and piece == "frame":
            parts[-1].append(("", "frame"))
            continue
        text, mark = (values[piece], "value") if number % 2 else (piece, "wild")
        for level, name in enumerate(text.split("/")):
            if level:
                parts.append([])
            if name:
                parts[-1].append((name, mark if mark == "value" or _WILD.search(name) else None))
    return parts


_WILD = re.compile(r"[*?\[]")


def _literal_folders(pattern: str, parts: list[list[_Token]]) -> tuple[Path, list[list[_Token]]]:
    """Return the leading folders that exist literally, brackets included, and the parts after them."""
    base, rest = Path(Path(pattern).anchor), [part for part in parts if part]
    while len(rest) > 1 and not _framed(rest[0]) and (base / _text(rest[0])).is_dir():
        base, rest = base / _text(rest[0]), rest[1:]
    return base, rest


def _text(part: list[_Token]) -> str:
    return "".join(text for text, _ in part)


def _framed(part: list[_Token]) -> bool:
    return any(mark == "frame" for _, mark in part)


def _globbed(text: str, mark: str | None) -> str:
    if mark == "wild":
        return text
    # an accented letter may be stored as one character or two: the regular expression decides
    return glob.escape(text) if mark != "frame" and text.isascii() else "*"


def _regex(parts: list[list[_Token]]) -> str:
    """Return a regular expression of relative paths, with the group `frame`."""
    out, framed = [], False
    for number, part in enumerate(parts):
        if [text for text, _ in part] == ["**"]:
            out.append("(?:.*/)?")
            continue
        for place, (text, mark) in enumerate(part):
            neighbours = [m for _, m in (*part[max(0, place - 1) : place], *part[place + 1 : place + 2])]
            if mark == "frame":
                out.append("0*(?P=frame)(?![0-9])" if framed else "0*(?P<frame>[0-9]+)(?![0-9])")
                framed = True
            elif mark == "wild":
                out.append(wild_regex(composed(text)))
            else:
                whole_word = mark == "value" and "wild" in neighbours  # w1* must not match w10
                edge = "(?<![^\\W_]){}(?![^\\W_])" if whole_word else "{}"
                out.append(edge.format(re.escape(composed(text))))
        out.append("/" if number + 1 < len(parts) else "")
    return "".join(out)


def composed(text: str) -> str:
    """Return text in Unicode's composed form: macOS stores accented letters as two characters."""
    return unicodedata.normalize("NFC", text)


def wild_regex(pattern: str) -> str:
    """Return a regular expression for a pattern with wildcards within one part of a path."""

    def translated(match: re.Match[str]) -> str:
        sign, inside = match[0], match[1]
        if inside is None:
            return {"*": "[^/]*", "?": "[^/]"}.get(sign) or re.escape(sign)
        inside = inside.replace("\\", "\\\\")
        return f"[^{inside[1:]}]" if inside[0] == "!" else f"[{inside}]"

    return re.sub(r"\[(.[^]]*)\]|.", translated, pattern, flags=re.DOTALL)
