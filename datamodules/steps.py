"""The steps whose results are stored: the version of each method, and the keys that each ignores, with the reason.

A key that is not listed counts: whoever adds one to a config either lists it here or has it counted. Raise a step's
version when its results change for the same inputs and the same config; a release that changes no result raises none.
"""

from __future__ import annotations

from cytovox.io.provenance import Step

_MERGED = "layout and bases of the file, which is read and merged"
_PLACE = "where results lie, not what they are"
_MACHINE = "how the work is spread over machines"
_TRAINING = "how weights are trained; the content of those that are used counts"
_WEIGHTS = "says which weights are used; their content counts"
_FILES = "says which files are read; their content counts"
_LAST_BITS = "changes no result beyond rounding"

_ANY = {"schema_version": _MERGED, "base": _MERGED, "name": _PLACE, "runs_dir": _PLACE, "resume": _PLACE}

#: Of training configs: what no prediction depends on.
_PREDICTS = {
    **_ANY,
    "stages": "says which steps are run",
    "logging.*": "what is logged to W&B", "plan.*": "of --plan alone", "slurm.*": _MACHINE,
    "init_from": _WEIGHTS, "weights.*": _WEIGHTS, "predict.checkpoint": _WEIGHTS, "predict.inputs": _FILES,
    "predict.out": _PLACE,
    "data.*": _TRAINING, "model.*": _TRAINING, "loss.*": _TRAINING, "optimizer.*": _TRAINING,
    "trainer.*": f"{_TRAINING}; the precision that it comes to counts as itself",
}  # fmt: skip

#: Of an analysis: what no step of it depends on.
_ANALYSIS = {
    **_ANY,
    "out": _PLACE, "inputs": _FILES, "organelles": _FILES, "cells": _FILES, "corrections": _FILES,
    "organelle_weights": _WEIGHTS, "cell_weights": _WEIGHTS,
    "workers": _MACHINE, "slurm.*": _MACHINE, "shard": _MACHINE, "compile": _LAST_BITS,
    "watch.*": "when new files are looked for",
}  # fmt: skip
_LATER = "is used in a later step"
_TABLES = {
    "groups": _LATER, "control": _LATER, "border": _LATER, "interval_min": _LATER, "track.*": _LATER, "meshes": _LATER,
    "statistics.*": _LATER, "cohort": _LATER, "quality.*": _LATER,
}  # fmt: skip
_CELLS = {"method": _LATER, "seeds.*": _LATER, "uncertainty": _LATER}

#: By name. `analyze.*` are the steps of task analyze, in order; each refers to the result of the one before it.
STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step(
            "prepare",
            1,
            {
                **dict.fromkeys(("data.root", "data.volumes", "data.masks", "data.table", "data.corrections"), _FILES),
                **dict.fromkeys(
                    ("data.group", "data.cell_line", "data.train_cell_lines", "data.split.*", "data.train.*",
                     "data.val.*", "data.test.*"),
                    "says which volumes are in which split; each volume is prepared alike",
                ),
                **dict.fromkeys(
                    ("data.patch_size", "data.batch_size", "data.patches_per_epoch", "data.foreground", "data.scale",
                     "data.scale_probability", "data.rotate_probability", "data.flip", "data.ri_offset",
                     "data.ri_contrast", "data.p_binary", "data.p_no_ri"),
                    "is applied to patches of the prepared volume",
                ),
                "data.num_workers": _MACHINE, "data.cache_dir": _PLACE,
            },
        ),
        Step(
            "predict.masks",
            1,
            {
                **_PREDICTS,
                "seed": "nothing is drawn", "predict.shard": _MACHINE, "predict.batch_size": _LAST_BITS,
                "predict.compile": _LAST_BITS, "predict.memory_gb": "moves tensors to files; their values stay",
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
        Step("analyze.organelles", 1, {**_ANALYSIS, **_TABLES, **_CELLS, "measure.*": _LATER}),
        Step("analyze.cells", 1, {**_ANALYSIS, **_TABLES, "measure.*": _LATER}),
        Step("analyze.rows", 1, {**_ANALYSIS, **_TABLES}),
        Step("analyze.overlap", 2, {**_ANALYSIS, **_TABLES, "measure.*": "counts voxels of cells alone"}),
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
                "watch.*": "when new files are looked for",
            },
        ),
    )
}  # fmt: skip
