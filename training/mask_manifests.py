"""Notes beside masks: what they were made from, and their rows of the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.io.deletion import remove_file
from cytovox.io.provenance import digest_of
from training.mask_files import SUFFIX, Format
from training.rundir import write_json


class PredictionManifest:
    """The notes of a folder of masks, and their copies in a run that writes to a folder outside of it.

    Parameters
    ----------
    folder : Path
        Where the masks lie.
    copies : Path
        `predictions/` of the run; the same folder, where the run keeps its masks itself.
    file_format : str
        Of the masks.
    """

    def __init__(self, folder: Path, copies: Path, file_format: Format) -> None:
        self.folder, self.copies, self.file_format = folder, copies, file_format

    def path(self, name: str) -> Path:
        """Of a note, by the base name of the output."""
        return self.folder / f"{name}.json"

    def read(self, name: str) -> dict[str, Any]:
        """`rows`, `provenance` (parts of the fingerprint) and `input` of a finished file; empty for one that is not."""
        try:
            content = json.loads(self.path(name).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def write(self, name: str, source: Path, provenance: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Say that a file is finished."""
        about = {"input": str(source.absolute()), "key": digest_of(provenance), "made_from": provenance, "rows": rows}
        write_json(self.path(name), about)

    def remove(self, name: str) -> None:
        """Say that its masks are about to be replaced."""
        remove_file(self.path(name), self.folder)

    def keep(self, name: str) -> None:
        """Copy the rows to the run, with paths that lead to the masks from anywhere, without `provenance`."""
        if self.folder != self.copies:
            rows = [{**row, "output": str(self.folder / row["output"])} for row in self.read(name).get("rows", [])]
            write_json(self.copies / f"{name}.json", {"rows": rows})

    def require_free(self, name: str, source: Path, begun: bool) -> None:
        """Refuse to overwrite, in a folder that is not the run's own, what is not this input's masks.

        Parameters
        ----------
        name : str
            Base name of the output.
        source : Path
            The input.
        begun : bool
            Whether a prediction of it was begun there.

        Raises
        ------
        InputError
            There are masks of another input that still exists, the input itself, or a file of unknown origin.
        """
        final = self.folder / (name + SUFFIX[self.file_format])
        owner = self.read(name).get("input")
        if final.exists() and final.resolve() == source.resolve():
            raise InputError(f"predict.out: {final} is the input itself: choose another folder")
        if owner is not None and owner != str(source.absolute()) and Path(owner).exists():
            raise InputError(f"predict.out: {self.path(name)} tells of masks of {owner}: choose another folder")
        if owner is None and not begun and (final.exists() or self.path(name).exists()):
            there = final if final.exists() else self.path(name)
            raise InputError(f"predict.out: {there} is there, and no prediction's: choose another folder")


def require_free(out: str | Path, names: dict[Path, str], file_format: Format) -> None:
    """`PredictionManifest.require_free` for all inputs, before anything is computed.

    Parameters
    ----------
    out : str or Path
        `predict.out`.
    names : dict
        Base name of each input's output.
    file_format : str
        Of the masks.

    Raises
    ------
    InputError
        A line for each file that is in the way.
    """
    folder, errors = Path(out).absolute(), []
    notes = PredictionManifest(folder, folder, file_format)
    for source, name in names.items():
        try:
            notes.require_free(name, source, (folder / f".unfinished-{name}").exists())
        except InputError as error:
            errors.append(str(error))
    if errors:
        raise InputError("\n".join(errors))
