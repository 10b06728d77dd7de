"""Manifests of predicted masks: what each file was made from, and its rows of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cytovox.errors import InputError
from cytovox.io.deletion import remove_file
from cytovox.io.provenance import digest_of
from training.mask_files import SUFFIX, Format
from training.rundir import read_json, write_json


class PredictionManifest:
    """The manifests in a folder of masks, one JSON file per input, and their copies in the run folder.

    Parameters
    ----------
    folder : Path
        Folder of the masks.
    copies : Path
        Folder `predictions/` of the run; the same folder unless `predict.out` is set.
    file_format : str
        Format of the masks.
    """

    def __init__(self, folder: Path, copies: Path, file_format: Format) -> None:
        self.folder, self.copies, self.file_format = folder, copies, file_format

    def path(self, name: str) -> Path:
        """Return the path of a manifest, by the base name of the output."""
        return self.folder / f"{name}.json"

    def read(self, name: str) -> dict[str, Any]:
        """Return `rows`, `made_from` (parts of the fingerprint) and `input` of a finished file; else an empty dict."""
        return read_json(self.path(name))

    def write(self, name: str, source: Path, provenance: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        """Record that the masks of a file are finished."""
        about = {"input": str(source.absolute()), "key": digest_of(provenance), "made_from": provenance, "rows": rows}
        write_json(self.path(name), about)

    def remove(self, name: str) -> None:
        """Remove a manifest before its masks are replaced."""
        remove_file(self.path(name), self.folder)

    def keep(self, name: str) -> None:
        """Copy the rows into the run folder, with absolute paths of the masks and without `made_from`."""
        if self.folder != self.copies:
            rows = [{**row, "output": str(self.folder / row["output"])} for row in self.read(name).get("rows", [])]
            write_json(self.copies / f"{name}.json", {"rows": rows})

    def require_free(self, name: str, source: Path, begun: bool) -> None:
        """Refuse to overwrite files in `predict.out` that are not the masks of this input.

        Parameters
        ----------
        name : str
            Base name of the output.
        source : Path
            The input.
        begun : bool
            Whether an unfinished prediction of this input exists there.

        Raises
        ------
        InputError
            The folder holds masks of another input that still exists, the input itself, or a file of unknown origin.
        """
        final, manifest = self.folder / (name + SUFFIX[self.file_format]), self.path(name)
        owner = self.read(name).get("input")
        if final.exists() and final.resolve() == source.resolve():
            raise InputError(f"predict.out: {final} is the input itself: choose another folder")
        if owner is not None and owner != str(source.absolute()) and Path(owner).exists():
            raise InputError(f"predict.out: {manifest} belongs to masks of {owner}: choose another folder")
        existing = next((path for path in (final, manifest) if path.exists()), None)
        if owner is None and not begun and existing is not None:
            raise InputError(f"predict.out: {existing} exists and is not a prediction: choose another folder")


def require_free(out: str | Path, names: dict[Path, str], file_format: Format) -> None:
    """Call `PredictionManifest.require_free` for all inputs, before anything is computed.

    Parameters
    ----------
    out : str or Path
        Value of `predict.out`.
    names : dict
        Base name of each input's output.
    file_format : str
        Format of the masks.

    Raises
    ------
    InputError
        One line for each file that is in the way.
    """
    folder, errors = Path(out).absolute(), []
    for source, name in names.items():
        try:
            begun = (folder / f".unfinished-{name}").exists()
            PredictionManifest(folder, folder, file_format).require_free(name, source, begun)
        except InputError as error:
            errors.append(str(error))
    if errors:
        raise InputError("\n".join(errors))
