"""What the docs say is what the code does."""

import importlib.util
import re
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]


def test_the_config_reference_is_what_the_schema_says():
    spec = importlib.util.spec_from_file_location("write_config_reference", HOME / "docs" / "write_config_reference.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    output = (HOME / "docs" / "config.md").read_text(encoding="utf-8")
    assert output == script.reference(), "run python docs/write_config_reference.py"


def test_every_field_of_the_schema_has_a_docstring():
    text = (HOME / "docs" / "config.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []


def test_every_link_to_a_file_leads_to_one():
    pages = [*(HOME / "docs").glob("*.md"), *HOME.glob("*.md"), *(HOME / "cytovox").rglob("*.md")]
    missing = [
        f"{page.relative_to(HOME)}: {found[1]}"
        for page in pages
        for found in re.finditer(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / found[1]).exists()
    ]
    assert not missing
