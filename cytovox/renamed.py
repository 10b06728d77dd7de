"""Old names that keep working for one release."""

#: Old and new names of shipped weights.
RENAMED_WEIGHTS = {"cells_fast": "cells_offsets"}

#: Old and new names of options in configs and in the metadata of weights, by group.
RENAMED_OPTIONS = {
    "traits": {"told": "given_fraction"},
    "data": {"line": "cell_line", "train_lines": "train_cell_lines"},
}

#: Old and new values of `CellsMetadata.method` in weights.
RENAMED_METHODS = {"fast": "offsets"}
