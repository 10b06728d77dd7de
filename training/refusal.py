"""A rank that ends because of invalid input leaves a note for the job's script.

Without it the script would count the ranks that are killed with it as lost.

`srun` ends all ranks when one ends badly, and reports the highest exit code: that of a kill.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

#: Names the file that says so.
ENV_REFUSED = "CYTOVOX_REFUSED"


def note_refusal() -> None:
    """Leave the note, where a job's script asks for one."""
    if path := os.environ.get(ENV_REFUSED):
        with contextlib.suppress(OSError):
            Path(path).touch()
