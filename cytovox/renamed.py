"""Old names that keep working for one release."""

#: Old and new names of shipped weights.
RENAMED_WEIGHTS = {"cells_fast": "cells_offsets"}

#: Old and new values of `CellsMetadata.method` in weights.
RENAMED_METHODS = {"fast": "offsets"}
