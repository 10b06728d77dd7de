"""Tables and lists as spreadsheets save them; names that macOS writes otherwise."""

import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.io import set_members
from cytovox.io.csv_files import existing, read_csv, read_text
from datamodules.paths import expand
from tests.cytovox.io import variants

ROWS = [["file", "group"], ["a; b.tif", "control"], ["Zell\u00e4, 1.tif", "LPS"], ["", "x"]]
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=9)


def _written(rows: list[list[str]], delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_every_separator_and_encoding_gives_the_same_rows(tmp_path: Path, delimiter: str, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes(_written(ROWS, delimiter).encode(encoding))
    rows = read_csv(tmp_path / "t.csv")
    assert [list(row.cells.values()) for row in rows] == ROWS[1:]
    assert [row.line for row in rows] == [2, 3, 4]
    assert list(rows[0].cells) == ROWS[0]


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_any_cell_comes_back(tmp_path_factory: pytest.TempPathFactory, cells: list, delimiter: str) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_bytes(_written([["file", "group"], *map(list, cells)], delimiter).encode("utf-8-sig"))
    assert [tuple(row.cells.values()) for row in read_csv(path)] == cells


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,file\na,b\n", "two columns are called file"),
        ("file,group\na,b.tif,control\n", "line 2: 3 cells, but the header has 2"),
        ("a\0b,c\n", "control characters"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_csv(tmp_path / "t.csv", "groups")
    with pytest.raises(InputError, match=r"groups: .*no\.csv: cannot be read"):
        read_csv(tmp_path / "no.csv", "groups")


def test_the_mark_of_excel_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\nfile;group\n\na,b;c\n;\n")
    rows = read_csv(tmp_path / "t.csv")
    assert [(row.line, row.cells) for row in rows] == [(4, {"file": "a,b", "group": "c"})]


def test_names_are_found_however_their_accents_are_composed(tmp_path: Path) -> None:
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        folder = tmp_path / form / unicodedata.normalize(form, "M\u00e4use")
        folder.mkdir(parents=True)
        name = unicodedata.normalize(form, "Z\u00e9lle.tif")
        variants.ome()(folder / name)
        asked = unicodedata.normalize(other, f"{form}/M\u00e4use/Z\u00e9lle.tif")
        assert existing(tmp_path / asked) == folder / name
        assert expand(asked, tmp_path, "inputs") == [folder / name]
        assert expand(unicodedata.normalize(other, f"{form}/M\u00e4use/Z\u00e9*.tif"), tmp_path, "inputs") == [
            folder / name
        ]
        (tmp_path / "list.txt").write_bytes(asked.encode("utf-16"))
        assert expand("list.txt", tmp_path, "inputs") == [folder / name]
    assert existing(tmp_path / "n\u00e4ch") == tmp_path / "n\u00e4ch"
    assert read_text(tmp_path / "list.txt") == asked


def test_the_files_of_an_ome_set_are_one_input(tmp_path: Path) -> None:
    variants._set(tmp_path / "frames.tif")
    variants.ome()(tmp_path / "other.ome.tif")
    names = [tmp_path / f"frames_{t}.ome.tif" for t in range(3)]
    for name in names:
        assert set_members(name) == tuple(names)
    assert set_members(tmp_path / "other.ome.tif") == (tmp_path / "other.ome.tif",)
    assert expand("*.tif", tmp_path, "inputs") == [names[0], tmp_path / "other.ome.tif"]
    assert expand(str(tmp_path), tmp_path, "inputs") == [names[0], tmp_path / "other.ome.tif"]
    assert expand("frames_2.ome.tif", tmp_path, "inputs") == [names[2]]


def test_a_zarr_is_one_input_unless_its_inside_is_named(tmp_path: Path) -> None:
    variants.ngff()(tmp_path / "a.zarr")
    assert expand("**/*", tmp_path, "inputs") == [tmp_path / "a.zarr"]
    assert expand("a.zarr/0", tmp_path, "inputs") == [tmp_path / "a.zarr" / "0"]
