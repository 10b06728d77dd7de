"""Distinguish file names from `key=value` words, and quote values of config keys for a command line."""

import glob
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from cytovox.errors import InputError

#: Key of a `key=value` word.
_KEY = re.compile(r"[^\W\d][\w.-]*")


def split_words(words: Sequence[str], literal: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Split positional words into files and `key=value` words.

    A word with `=` is a file if a file or folder of this name exists, if it is a pattern that matches one, or if the
    text before the `=` cannot be a key, as in `dish/a=1.TCF`.

    Parameters
    ----------
    words : sequence of str
        Positional words of the command line.
    literal : sequence of str
        Words after `--`, which are all files.

    Returns
    -------
    files, overrides : list of str
    """
    files, overrides = list[str](), list[str]()
    for word in words:
        (overrides if is_override(word) else files).append(word)
    return [*files, *literal], overrides


def is_override(word: str) -> bool:
    """Return whether a word is `key=value` and not the name of a file."""
    key, equals, _ = word.partition("=")
    if not equals or not _KEY.fullmatch(key) or Path(word).exists():
        return False
    if not glob.has_magic(word):
        return True

    from datamodules.paths import matching  # imported here because it takes half a second

    return not matching(Path(word))


def key_of(override: str) -> str:
    """Return the key of a `key=value` word."""
    return override.partition("=")[0].strip()


def quoted(text: str, what: str) -> str:
    """Return text as a quoted YAML scalar, which the config parser reads as exactly this text.

    Parameters
    ----------
    text : str
        Any text, including brackets, commas, quotes and `=`.
    what : str
        Option or argument of the text, for messages.

    Raises
    ------
    InputError
        The text is empty, is not valid Unicode, or contains `${`, which a config value cannot contain.
    """
    if not text:
        raise InputError(f"{what}: is empty; expected a name")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what}: {text!a}: the name is not valid UTF-8; rename it") from None
    if "\0" in text:
        raise InputError(f"{what}: {text!a}: a name cannot contain a null character; rename it")
    if "${" in text:
        raise InputError(f"{what}: {text}: a config value cannot contain ${{; rename it")
    plain: str = yaml.safe_dump(text, default_style='"', width=math.inf, allow_unicode=True)
    return plain.rstrip("\n")


def quoted_path(text: str, what: str) -> str:
    """Return a path as a quoted YAML scalar; `???`, a missing value for OmegaConf, becomes `./???`."""
    return quoted(f"./{text}" if text == "???" else text, what)


def quoted_files(files: Sequence[str], what: str = "FILES") -> str:
    """Return files and patterns as a YAML list.

    The config keys take the name of an existing file literally. A name with `${`, which a config value cannot contain,
    becomes a pattern that matches this name only.
    """
    return f"[{','.join(quoted_path(_without_interpolation(file), what) for file in files)}]"


def _without_interpolation(file: str) -> str:
    if "${" not in file:
        return file
    whole = glob.escape(file) if Path(file).exists() else file
    return whole.replace("${", "[$]{")


def resume_word(run: str) -> str:
    """Return the `resume=` word of a run folder; the path is quoted if YAML would change it."""
    try:
        plain = yaml.safe_load(run) == run
    except yaml.YAMLError:
        plain = False
    return f"resume={run if plain else quoted(run, 'run folder')}"


def refuse(text: str, code: int = 2) -> int:
    """Print the lines of an error to stderr and return the exit code."""
    for line in text.splitlines():
        print(line, file=sys.stderr)
    return code
