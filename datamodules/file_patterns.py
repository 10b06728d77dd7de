"""Which files belong to an image: patterns with placeholders, and lists of files by their exact names.

`{stem}` is the image's name without its suffix, `{parent}` the name of its folder, `{relative}` its path below the
folder that all images share, without the suffix, `{organelle}` an organelle's name, and `{frame}` the number of a
frame, counted from 0, padded with zeros or not.
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
    """An image whose files are looked for."""

    path: Path
    relative: str
    """Its path below the common folder, without the suffix, with `/`."""

    @property
    def stem(self) -> str:
        """Its name without the suffix."""
        return stem_of(self.path)

    def values(self, organelle: str) -> dict[str, str]:
        """What the placeholders stand for, but for `{frame}`."""
        return {
            "stem": self.stem,
            "parent": self.path.absolute().parent.name,
            "relative": self.relative,
            "organelle": organelle,
        }


def images_of(paths: Sequence[Path], root: Path | None = None) -> list[Image]:
    """Images with their paths below `root`, or below the deepest folder that they share."""
    absolute = [Path(os.path.abspath(path)) for path in paths]
    if root is None:
        common = Path(os.path.commonpath([path.parent for path in absolute])) if absolute else Path()
    else:
        common = Path(os.path.abspath(root))
    images = []
    for path, full in zip(paths, absolute, strict=True):
        below = full.relative_to(common) if full.is_relative_to(common) else Path(full.name)
        images.append(Image(path, below.with_name(stem_of(full)).as_posix()))
    return images


def pattern_errors(pattern: str, key: str) -> None:
    """InputError where a pattern holds braces that are no placeholder."""
    strange = [word for word in _BRACES.findall(pattern) if word not in PLACEHOLDERS]
    if strange:
        raise InputError(f"{key}: {pattern}: {strange[0]} is no placeholder; known are {', '.join(PLACEHOLDERS)}")


def files_for(pattern: str, image: Image, organelle: str = "") -> dict[int | None, list[Path]]:
    """Files of one image that a pattern names.

    Parameters
    ----------
    pattern : str
        Placeholders and wildcards (`*`, `?`, `[...]`, `**`).
    image : Image
    organelle : str
        What {organelle} stands for.

    Returns
    -------
    dict of (int or None) -> list of Path
        By frame; None where the pattern has no {frame}. Names are compared in Unicode's composed form (NFC).
    """
    parts = _parts(pattern, image.values(organelle))
    base, rest = _written_folders(pattern, parts)
    reader = re.compile(_regex(rest))
    found: dict[int | None, list[Path]] = {}
    if all(mark in (None, "value") for part in rest for _, mark in part) or (len(rest) == 1 and _exists(base, rest[0])):
        path = base.joinpath(*("".join(text for text, _ in part) for part in rest))
        if path.exists():
            return {None: [path]}
    globbed = "/".join("".join(_globbed(text, mark) for text, mark in part) for part in rest)
    for text in glob.glob(globbed, root_dir=base, recursive=True):
        match, path = reader.fullmatch(composed(text)), base / text
        if match and is_volume(path):
            number = match.groupdict().get("frame")
            found.setdefault(None if number is None else int(number), []).append(path)
    return {frame: sorted(paths) for frame, paths in found.items()}


#: Text of a pattern and what it is: None as it is written, "value" of a placeholder, "wild" with wildcards, "frame".
_Token = tuple[str, str | None]


def _parts(pattern: str, values: dict[str, str]) -> list[list[_Token]]:
    """Folders and name of a pattern with its placeholders filled in."""
    parts: list[list[_Token]] = [[]]
    at = 0
    for match in [*_PLACEHOLDER.finditer(pattern), None]:
        written = pattern[at : match.start() if match else len(pattern)]
        pieces: list[tuple[str, str | None]] = [(piece, "wild") for piece in written.split("/")]
        if match and match[1] == "frame":
            at = match.end()
            _extend(parts, pieces)
            parts[-1].append(("", "frame"))
            continue
        _extend(parts, pieces)
        if match:
            at = match.end()
            _extend(parts, [(piece, "value") for piece in values[match[1]].split("/")])
    return parts


def _extend(parts: list[list[_Token]], pieces: list[_Token]) -> None:
    """The first piece goes on with the last part, each other one begins a part."""
    for number, (text, mark) in enumerate(pieces):
        if number:
            parts.append([])
        if text:
            parts[-1].append((text, mark if mark != "wild" or _WILD.search(text) else None))


_WILD = re.compile(r"[*?\[]")


def _written_folders(pattern: str, parts: list[list[_Token]]) -> tuple[Path, list[list[_Token]]]:
    """The folders that exist as they are written, brackets included, and the parts after them."""
    base, rest = Path(Path(pattern).anchor), [part for part in parts if part]
    while len(rest) > 1 and all(mark != "frame" for _, mark in rest[0]):
        folder = base / "".join(text for text, _ in rest[0])
        if not folder.is_dir():
            break
        base, rest = folder, rest[1:]
    return base, rest


def _exists(base: Path, part: list[_Token]) -> bool:
    return all(mark != "frame" for _, mark in part) and (base / "".join(text for text, _ in part)).exists()


def _globbed(text: str, mark: str | None) -> str:
    if mark == "frame" or (mark != "wild" and not text.isascii()):
        return "*"  # a letter with an accent is one character or two: the regular expression decides
    return text if mark == "wild" else glob.escape(text)


def _regex(parts: list[list[_Token]]) -> str:
    out, framed = [], False
    for number, part in enumerate(parts):
        if [text for text, _ in part] == ["**"]:
            out.append("(?:.*/)?")
            continue
        for place, (text, mark) in enumerate(part):
            beside = [m for _, m in (*part[max(0, place - 1) : place], *part[place + 1 : place + 2])]
            if mark == "frame":
                out.append("0*(?P=frame)(?![0-9])" if framed else "0*(?P<frame>[0-9]+)(?![0-9])")
                framed = True
            elif mark == "wild":
                out.append(wild_regex(composed(text)))
            else:
                whole = mark == "value" and "wild" in beside  # a wildcard makes no w10 of w1
                edge = "(?<![^\\W_]){}(?![^\\W_])" if whole else "{}"
                out.append(edge.format(re.escape(composed(text))))
        out.append("/" if number + 1 < len(parts) else "")
    return "".join(out)


def composed(text: str) -> str:
    """Text in Unicode's composed form: macOS writes letters with accents as two characters."""
    return unicodedata.normalize("NFC", text)


def wild_regex(pattern: str) -> str:
    """Wildcards within one part of a path as a regular expression."""
    out, at = "", 0
    while at < len(pattern):
        if pattern[at] == "*":
            out, at = out + "[^/]*", at + 1
        elif pattern[at] == "?":
            out, at = out + "[^/]", at + 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end].replace("\\", "\\\\")
            out, at = out + "[" + ("^" + inside[1:] if inside[0] == "!" else inside) + "]", end + 1
        else:
            out, at = out + re.escape(pattern[at]), at + 1
    return out
