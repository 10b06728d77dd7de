"""Read tables and lists of users, with the encodings and separators of spreadsheets."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from cytovox.errors import InputError

#: Byte order marks at the start of a file, the longer ones first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

#: Separators of cells, the preferred one first.
_DELIMITERS = ",;\t"


class Row(NamedTuple):
    """One row of a table."""

    line: int
    """Line number in the file, from 1."""
    cells: dict[str, str]
    """Cells by the name of their column; spaces around both are removed."""


def read_text(path: Path) -> str:
    """Return the text of a file.

    The encoding is UTF-8, UTF-16 or UTF-32 if the file has a byte order mark. Without a mark, it is UTF-8 if the bytes
    are valid, else UTF-16 or Windows-1252.

    Raises
    ------
    InputError
        The file cannot be read, or is no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}): expected a text file") from None
    mark, encoding = next(((mark, name) for mark, name in _MARKS if content.startswith(mark)), (b"", ""))
    try:
        text = content[len(mark) :].decode(encoding or _guessed(content))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read ({error}): save it as UTF-8") from None
    if re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text):
        raise InputError(f"{path}: cannot be read (it holds control characters): expected a text file")
    return text


def _guessed(content: bytes) -> str:
    """Return the encoding of text without a byte order mark."""
    even, odd = content[::2].count(0), content[1::2].count(0)  # every other byte of Latin letters in UTF-16
    if max(even, odd) > 0.2 * len(content) and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def read_csv(path: Path, key: str = "") -> list[Row]:
    """Return the rows of a table with a header; separators are commas, semicolons or tabs.

    Parameters
    ----------
    path : Path
    key : str
        Config key of the file, for messages.

    Returns
    -------
    list of Row
        Rows without the empty ones.

    Raises
    ------
    InputError
        The file cannot be read, two columns have the same name, or a row has more cells than the header.
    """
    where = f"{key}: {path}" if key else str(path)
    try:
        text = read_text(path)
    except InputError as error:
        raise InputError(f"{key}: {error}" if key else str(error)) from None
    first, _, rest = text.partition("\n")
    skipped = 0
    if first.strip().strip('"').lower().startswith("sep=") and len(first.strip().strip('"')) == 5:
        delimiter, text, skipped = first.strip().strip('"')[4], rest, 1  # as Excel marks it
    else:
        delimiter = _delimiter(first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        lines = [(reader.line_num + skipped, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise InputError(f"{where}: cannot be read ({error}): expected a CSV table") from None
    return _rows(where, [(number, cells) for number, cells in lines if any(cells)])


def _delimiter(header: str) -> str:
    """Return the most frequent separator in the header line, outside quotes."""
    plain = "".join(header.split('"')[::2])
    return max(_DELIMITERS, key=plain.count)


def _rows(where: str, lines: list[tuple[int, list[str]]]) -> list[Row]:
    if not lines:
        return []
    header = [unicodedata.normalize("NFC", name) for name in lines[0][1]]
    named = [name for name in header if name]
    if len(set(named)) < len(named):
        double = next(name for name in named if named.count(name) > 1)
        raise InputError(f"{where}: two columns are called {double}: keep one")
    rows = []
    for number, cells in lines[1:]:
        if any(cells[len(header) :]):
            raise InputError(
                f"{where} line {number}: {len(cells)} cells, but the header has {len(header)}: put cells that hold a "
                "separator in double quotes"
            )
        padded = [*cells, *[""] * (len(header) - len(cells))]
        rows.append(Row(number, {name: cell for name, cell in zip(header, padded, strict=False) if name}))
    return rows


def same_name(one: str, other: str) -> bool:
    """Return whether two names look the same: accents may be composed (Windows, Linux) or decomposed (macOS)."""
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def existing(path: Path) -> Path:
    """Return the path as stored on disk, where accents may be composed or decomposed.

    Parameters
    ----------
    path : Path
        Path from a config or table; returned unchanged if it does not exist.
    """
    if str(path).isascii() or path.exists():
        return path
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if not (found / part).exists():
            try:
                part = next(name for name in os.listdir(found) if same_name(name, part))
            except (StopIteration, OSError):
                return path
        found /= part
    return found
