"""Findings of an audit of the data: their kinds, and the advice for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cytovox.errors import InputError

Severity = Literal["error", "warning"]

#: Every kind of finding, and the advice where the message itself has none.
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
    "mask-unit": "nothing, if the assumption is right; an export in mm makes it certain",
    "mask-note": "nothing, if the file is meant so; else set data.labels, or export it again",
    "not-finite": "repair the file or leave it out",
    "not-ri": "choose the refractive index, not another channel or a scaled copy",
    "no-data": "crop the part without data, or fill it with the medium's index, in tomogram and mask alike",
    "ri-range": "set data.ri_range to the medium's index and the densest organelle's, and use one medium in a set",
    "constant": "leave it out: it shows nothing",
    "no-contrast": "look at it: from an empty field a network learns only the medium",
    "labels": "use one value per mask; for a multi-label file set data.label_values",
    "empty-mask": "nothing, if the cell has none; else draw it, or remove the file, which makes it unlabelled",
    "partly-annotated": "nothing, if this is the annotated part; else see data.ignore_value and data.annotated_slices",
    "unannotated": "annotate a part, or leave the volume out",
    "full-mask": "look at it: perhaps background and organelle are swapped",
    "outside": "look at both masks: one is shifted, or two files are swapped",
    "misplaced": "look at tomogram and mask together; export the mask again with the tomogram's own affine",
    "fluorescence": "look at tomogram and channel together; set data.fluorescence, or draw masks (data.masks)",
    "no-mask": "draw one, or leave the volume out of data.volumes",
    "orphan-mask": "correct the names, or add the tomograms to data.volumes",
    "split": "correct data.split",
    "leak": "keep all of one cell on one side of the split",
    "time-points": "set data.group (or a column group in data.table), so that one cell stays on one side",
    "duplicate": "keep one of them: a copy counts double",
    "empty-split": "give data.split a share or files for it",
    "unlabelled": "nothing, if its output should stay near that of init_from; else draw it in some volumes of that "
    "split, or leave it out of data.organelles: outputs of init_from are matched by name",
    "small": "nothing, if no volume is larger: patches are padded; else a smaller data.patch_size or a finer grid",
    "one-slice": "use 3D recordings: a single slice has no depth to learn or predict",
}


@dataclass(frozen=True)
class Error:
    """Error while reading a volume or a mask; plain values, so that it can be sent between processes."""

    kind: str
    file: Path
    text: str


@dataclass(frozen=True)
class Finding:
    """One row of the audit's table."""

    kind: str
    severity: Severity
    where: str
    """File, or key of the config."""
    found: str
    advice: str
    volumes: tuple[str, ...] = ()
    """Names of the volumes concerned; empty for a finding about the whole set."""
    origin: str = ""
    """Error message of a run with these data."""


def finding(
    kind: str, severity: Severity, where: str, found: str, volumes: tuple[str, ...] = (), advice: str = ""
) -> Finding:
    """Return a finding, with its kind's advice unless another is given."""
    return Finding(kind, severity, where, found, advice or KINDS[kind], volumes)


def of_error(error: Error, name: str, where: str) -> Finding:
    """Return the finding of an error that stops a run; its message has the advice after a semicolon."""
    found, _, advice = error.text.removeprefix(f"{error.file}: ").partition("; ")
    return Finding(error.kind, "error", where, found, advice or KINDS[error.kind], (name,), error.text)


def of_config(error: InputError, kind: str) -> Finding:
    """Return the finding of an error in finding or splitting files; its message begins with the key."""
    kind, text = getattr(error, "kind", kind), str(error)
    key, _, rest = text.partition(": ")
    found, _, advice = rest.partition("; ")
    return Finding(kind, "error", key if rest else "data", found or text, advice or KINDS[kind], (), text)
