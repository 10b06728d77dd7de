"""Steps whose results are stored: the version of each step, and the config keys that do not affect it, with the reason.

A stored result is out of date once any key that is not listed here has changed, new keys included. Raise a step's
version when its results change for the same inputs and the same config; a release that changes no result raises none.
"""

from __future__ import annotations

from cytovox.io.provenance import Step

_MERGED = "layout and bases of the config file, which do not affect the merged config"
_PLACE = "location of the results, not their content"
_MACHINE = "distribution of the work over processes and machines"
_TRAINING = "training of the weights, whose content counts"
_WEIGHTS = "path of the weights, whose content counts"
_FILES = "paths of the files, whose content counts"
_LAST_BITS = "changes results by rounding errors only"

_WATCH = "schedule of the search for new files"

_ANY = {"schema_version": _MERGED, "base": _MERGED, "name": _PLACE, "runs_dir": _PLACE, "resume": _PLACE}

#: Keys of training configs that affect no prediction.
_PREDICTS = {
    **_ANY,
    "stages": "steps to run",
    "logging.*": "logging to W&B", "plan.*": "used by --plan only", "slurm.*": _MACHINE,
    "init_from": _WEIGHTS, "weights.*": _WEIGHTS, "predict.checkpoint": _WEIGHTS, "predict.inputs": _FILES,
    "predict.out": _PLACE,
    "data.*": _TRAINING, "model.*": _TRAINING, "loss.*": _TRAINING, "optimizer.*": _TRAINING,
    "trainer.*": f"{_TRAINING}; the resulting precision counts separately",
}  # fmt: skip

#: Keys of an analysis that affect none of its steps.
_ANALYSIS = {
    **_ANY,
    "out": _PLACE, "inputs": _FILES, "organelles": _FILES, "cells": _FILES, "corrections": _FILES,
    "organelle_weights": _WEIGHTS, "cell_weights": _WEIGHTS,
    "workers": _MACHINE, "slurm.*": _MACHINE, "shard": _MACHINE, "compile": _LAST_BITS,
    "watch.*": _WATCH,
}  # fmt: skip
_LATER = "used in a later step"
_TABLES = {
    "groups": _LATER, "control": _LATER, "border": _LATER, "interval_min": _LATER, "track.*": _LATER, "meshes": _LATER,
    "statistics.*": _LATER, "cohort": _LATER, "quality.*": _LATER,
}  # fmt: skip
_CELLS = {"method": _LATER, "seeds.*": _LATER, "uncertainty": _LATER}

#: Steps by name. `analyze.*` are the steps of task analyze, in order; each uses the result of the previous one.
STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            "prepare",
            2,
            {
                **dict.fromkeys(("data.root", "data.volumes", "data.masks", "data.table", "data.corrections"), _FILES),
                **dict.fromkeys(
                    ("data.group", "data.cell_line", "data.train_cell_lines", "data.split.*", "data.train.*",
                     "data.val.*", "data.test.*"),
                    "split of the volumes, which are all prepared in the same way",
                ),
                **dict.fromkeys(
                    ("data.patch_size", "data.batch_size", "data.patches_per_epoch", "data.foreground", "data.scale",
                     "data.scale_probability", "data.rotate_probability", "data.flip", "data.ri_offset",
                     "data.ri_contrast", "data.p_binary", "data.p_no_ri"),
                    "applied to patches of the prepared volume",
                ),
                "data.num_workers": _MACHINE, "data.cache_dir": _PLACE,
            },
        ),
        Step(
            "predict.masks",
            1,
            {
                **_PREDICTS,
                "seed": "prediction is deterministic", "predict.shard": _MACHINE, "predict.batch_size": _LAST_BITS,
                "predict.compile": _LAST_BITS, "predict.memory_gb": "moves arrays to files without changing them",
            },
        ),
        Step(
            "predict.shapes",
            1,
            {
                **_PREDICTS,
                "field.*": _TRAINING, "process.*": _TRAINING, "preconditioning.*": _TRAINING, "supervised": _TRAINING,
            },
        ),
        Step("analyze.organelles", 2, {**_ANALYSIS, **_TABLES, **_CELLS, "measure.*": _LATER}),
        Step("analyze.cells", 1, {**_ANALYSIS, **_TABLES, "measure.*": _LATER}),
        Step("analyze.rows", 1, {**_ANALYSIS, **_TABLES}),
        Step("analyze.overlap", 2, {**_ANALYSIS, **_TABLES, "measure.*": "only voxels of cells are counted"}),
        Step(
            "analyze.files",
            1,
            {
                **_ANALYSIS,
                **dict.fromkeys(("groups", "control", "border", "statistics.*", "cohort"), _LATER),
            },
        ),
        Step("analyze.tables", 1, _ANALYSIS),
        Step(
            "analyze.folder",
            1,
            {
                **_ANY,
                "out": _PLACE, "workers": _MACHINE, "slurm.*": _MACHINE, "shard": _MACHINE, "compile": _LAST_BITS,
                "watch.*": _WATCH,
            },
        ),
    )
}  # fmt: skip
