"""Code and docs use the field's standard terms; words of earlier versions do not come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
FOLDERS = (
    "cytovox",
    "transforms",
    "datamodules",
    "lightning_modules",
    "training",
    "experiments",
    "docs",
    "tests",
    "benchmarks",
    "studies",
)
PAGES = ("README.md", "Makefile", "CONTRIBUTING.md")

#: A word or phrase that is not used, and what is written instead.
REPLACED = {
    r"\bheirs?\b": "subclass",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bfaultless\b": "valid",
    r"\bfaults\b": "errors",
    r"\btold\b(?! apart)": "reported, given, arguments, metadata: what it is in this place",
    r"\bfacts\b": "metadata",
    r"\blone\b": "unassigned, single",
    r"\bvot(e|es|ed|ing)\b": "centre offsets",
    r"\bfilms?\b": "time-lapse",
    r"\bSightings?\b": "detection",
    r"\bCourses?\b": "time series",
    r"\bTraitsTold\b": "TraitConditioning",
    r"\bLateLoader\b": "ResumableDataLoader",
    r"\bKeptReader\b": "CachedReader",
    r"\bOwnGrid\b": "NativeGrid",
    r"\bLanding\b": "FolderWatcher",
    r"\bsole_user\b": "run_lock",
    r"\bhush_": "silence_",
    r"\bcarry_out\b": "run_stages",
    r"\bhand_in\b": "submit_job",
    r"\bmade_from\b": "provenance",
    r"\bWAYS\b": "SEED_SOURCES",
    r"\bfloor_scores\b|\bfloors? of the house\b": "baseline, layer",
    r"\ba house of\b|\bthe house\b": "package, architecture",
    r"\bupstairs\b|\bone room\b": "layer",
    r"\bstaircase\b": "marching_cubes",
    r"\bcells_fast\b|`fast`|method[=:] ?fast\b": "cells_offsets, offsets",
    r"\bis gone on with\b": "is resumed",
    r"\bgoes before a site's\b": "takes precedence over",
    r"\bknows no\b(?! SIGUSR1)": "is independent of, is deterministic",
    r"\ba row an? \b": "one row per",
    r"\bone a (cell|frame|level|sample|fold|file)\b": "one per",
    r"\bwho pays\b": "account to charge",
    r"\bof everything random\b": "random seed",
    r"\btells no index\b": "refractive index of the medium missing",
}

#: Text that holds such a word for another reason: names stored on disk, options and names that still work.
ALLOWED = (
    '"made_from"',  # key of stored provenance
    "MADE_FROM",
    "`made_from`",
    'arrays["facts"]',  # key in cached simulations
    '"--film"',  # old option of the simulator
    '"cells_fast": "cells_offsets"',
    '"fast": "offsets"',
    '"votes": "centre_offsets"',
    '"staircase": "marching_cubes"',
    '"told": "given_fraction"',
    'name="film"',  # of motmetrics' own table
    '.loc["film"]',
    'class="facts"',  # of the report's style sheet
    '"votes", spacing_um=SPACING), "votes"',  # an old name that is refused
    "is a staircase, 8 %",  # the shape of a voxel surface
)


def texts() -> Iterator[tuple[str, str]]:
    """Each line of code and prose, with its place."""
    paths = [path for folder in FOLDERS for path in sorted((HOME / folder).rglob("*")) if path.suffix in SUFFIXES]
    paths = [path for path in paths if path.name not in SKIPPED]
    for path in [*paths, *(HOME / page for page in PAGES)]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            yield f"{path.relative_to(HOME)}:{number}", line


#: Files that are about the old words.
SKIPPED = ("test_vocabulary.py", "test_renamed.py")
SUFFIXES = (".py", ".md", ".yaml", ".html")


@pytest.mark.parametrize("pattern", REPLACED)
def test_standard_terms_are_used(pattern: str):
    found = []
    for place, line in texts():
        for allowed in ALLOWED:
            line = line.replace(allowed, "")
        if re.search(pattern, line, re.IGNORECASE if pattern.islower() or "told" in pattern else 0):
            found.append(f"{place}: {line.strip()[:100]}")
    assert not found, f"write {REPLACED[pattern]}:\n" + "\n".join(found[:40])
