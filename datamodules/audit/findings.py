"""What an audit of the data may find: the kinds of error, and what to do about each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cytovox.errors import InputError

Severity = Literal["error", "warning"]

#: Every kind of finding, and what to do where the message itself does not say it.
KINDS: dict[str, str] = {
    "files": "correct the name, the pattern or the table",
    "unreadable-volume": "copy or export it again, or leave it out of the config",
    "unreadable-mask": "export it again, or remove it: an organelle without a mask counts as unlabelled",
    "crashed": "look at this file alone; it may be damaged, or too large for this machine's memory",
    "no-spacing": "give spacing_um (data.spacing_um or predict.spacing_um: z, y, x in um), or export with it",
    "spacing": "correct the voxel size in the file: it must be in um",
    "frame": "set data.frame to the frame that the masks were drawn on; frames count from 0",
    "mask-shape": "export the mask on the tomogram's own grid",
    "mask-spacing": "export the mask with the tomogram's spacing, or set data.check_spacing=false",
    "mask-axes": "set data.mask_axes to header or stored, or save tomogram and mask in one format",
    "mask-unit": "nothing, if that is what happened; an export in mm ends the doubt",
    "mask-note": "nothing, if that is what the file holds; else set data.labels, or export it again",
    "not-finite": "repair the file or leave it out",
    "not-ri": "choose the refractive index, not another channel or a scaled copy",
    "no-data": "crop what was not measured, or fill it with the medium's index in file and mask alike",
    "ri-range": "set data.ri_range to the medium's index and the densest organelle's, and use one medium in a set",
    "constant": "leave it out: there is nothing to see in it",
    "no-contrast": "look at it: an empty field teaches only what medium looks like",
    "labels": "one value a mask; for a multi-label file set data.label_values",
    "empty-mask": "nothing, if there is none in the cell; else draw it, or remove the file: then it is unlabelled",
    "full-mask": "look at it: perhaps background and organelle are swapped",
    "outside": "look at both masks: one is shifted, or two files have changed places",
    "misplaced": "look at tomogram and mask together; export the mask again with the tomogram's own affine",
    "no-mask": "draw one, or leave the volume out of data.volumes",
    "orphan-mask": "correct the names, or add the tomograms to data.volumes",
    "split": "correct data.split",
    "leak": "keep all of one cell on one side of the split",
    "time-points": "set data.group (or a column group in data.table), so that one cell stays on one side",
    "duplicate": "keep one of them: a copy counts double",
    "empty-split": "give data.split a share or files for it",
    "unlabelled": "nothing, if its output shall stay near that of init_from; else draw it in some volumes of that "
    "split, or leave it out of data.organelles: outputs of init_from are matched by name",
    "small": "nothing, if that is all there is: patches are padded; else a smaller data.patch_size or finer grid",
    "one-slice": "use 3D recordings: out of a single slice no depth is learned or predicted",
}


@dataclass(frozen=True)
class Error:
    """A error that reading a volume or a mask met; plain, to travel between processes."""

    kind: str
    file: Path
    text: str


@dataclass(frozen=True)
class Finding:
    """A row of the audit's table."""

    kind: str
    severity: Severity
    where: str
    """File, or key of the config."""
    found: str
    advice: str
    volumes: tuple[str, ...] = ()
    """Names of the volumes it counts for; none where it is of the whole set."""
    origin: str = ""
    """The line that a run would refuse with."""


def finding(
    kind: str, severity: Severity, where: str, found: str, volumes: tuple[str, ...] = (), advice: str = ""
) -> Finding:
    """A finding with its kind's advice, unless there is better."""
    return Finding(kind, severity, where, found, advice or KINDS[kind], volumes)


def of_error(error: Error, name: str, where: str) -> Finding:
    """A error that stops a run: what it says, and after a semicolon what to do."""
    text = error.text.removeprefix(f"{error.file}: ")
    found, _, advice = text.partition("; ")
    return Finding(error.kind, "error", where, found, advice or KINDS[error.kind], (name,), error.text)


def of_config(error: InputError, kind: str) -> Finding:
    """A error met while finding or dividing: its line begins with the key."""
    text = str(error)
    key, _, rest = text.partition(": ")
    found, _, advice = rest.partition("; ")
    if not rest:
        key, found = "data", text
    kind = getattr(error, "kind", kind)
    return Finding(kind, "error", key, found, advice or KINDS[kind], (), text)


def below(path: Path, root: Path) -> str:
    """Return a path relative to the data root, if it lies there."""
    try:
        return path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        return path.as_posix()
