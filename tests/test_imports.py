"""No module imports itself through others, and no import is hidden in a function to avoid that."""

from __future__ import annotations

import ast
import graphlib
import importlib
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
PACKAGES = ("cytovox", "transforms", "datamodules", "lightning_modules", "training", "experiments")


def modules() -> dict[str, Path]:
    """Names and files of our modules."""
    found = {}
    for package in PACKAGES:
        for path in sorted((HOME / package).rglob("*.py")):
            parts = path.relative_to(HOME).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Our modules that a module imports anywhere: at its head, in functions, or for type checkers only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
            # `from package import module` needs the module; `from package import name` the package itself
            found |= inner if len(inner) == len(node.names) else inner | {node.module}
    return found & known.keys()


def test_no_module_imports_itself_through_others():
    known = modules()
    graph = {name: imports(path, known) - {name} for name, path in known.items()}
    # the package's head names its parts for type checkers, and imports each at its first use
    graph["cytovox"] = set()
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def imported_names(path: Path) -> list[tuple[str, str]]:
    """Return (module, name) of everything that a file imports from our packages, also inside functions."""
    own = (*PACKAGES, "benchmarks", "studies", "tests")
    return [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in own
        for alias in node.names
    ]


def test_every_name_that_benchmarks_studies_and_functions_import_exists():
    files = [path for folder in (*PACKAGES, "benchmarks", "studies") for path in sorted((HOME / folder).rglob("*.py"))]
    missing = []
    for path in files:
        for module, name in imported_names(path):
            if not hasattr(importlib.import_module(module), name):
                try:
                    importlib.import_module(f"{module}.{name}")
                except ModuleNotFoundError:
                    missing.append(f"{path.relative_to(HOME)}: {module}.{name}")
    assert not missing
