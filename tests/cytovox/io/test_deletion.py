"""Only what the program wrote is removed, inside its own folder, and never through a link."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytovox.io import atomic_path
from cytovox.io.deletion import (
    RUN_PARTS,
    MadeFolder,
    Manifest,
    NotOurs,
    foreign_file,
    make_scratch,
    remove_file,
    remove_in_scratch,
    remove_scratch,
    remove_temporary,
    require_inside,
    require_no_links,
    sweep,
)
from cytovox.io.names import LONGEST, name_key, safe_name, unique_names

HOME = Path(__file__).resolve().parents[3]
#: May remove and replace: the module of deletions, and that of renames.
ALLOWED = {Path("cytovox/io/deletion.py"), Path("cytovox/io/atomic.py")}
#: Renames of temporary files of the module's own, and of a training put aside.
RENAMES = {Path("datamodules/fetch.py"), Path("experiments/tasks/search/stages.py")}
DELETES = {"rmtree", "unlink", "rmdir", "removedirs", "remove_tree", "move"}
REPLACES = {"replace", "rename", "renames"}


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    packages = ("cytovox", "transforms", "datamodules", "lightning_modules", "training", "experiments", "studies")
    for package in packages:
        for path in sorted((HOME / package).rglob("*.py")):
            yield path.relative_to(HOME), ast.parse(path.read_text(encoding="utf-8"))


def test_no_other_module_removes_anything() -> None:
    found = []
    for path, module in sources():
        if path in ALLOWED:
            continue
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name, owner = node.func.attr, node.func.value
                of_os = isinstance(owner, ast.Name) and owner.id in ("os", "shutil")
                # a path's `replace` and `rename` take one argument, a text's two
                moves = name in REPLACES and (of_os or (name == "rename" and len(node.args) == 1))
                if name in DELETES or (name == "remove" and of_os) or (moves and path not in RENAMES):
                    found.append(f"{path}:{node.lineno}: {name}")
            if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
                found += [f"{path}: {a.name}" for a in node.names if a.name in DELETES | REPLACES | {"remove"}]
    assert not found, "use cytovox.io.deletion, or cytovox.io.atomic.put_in_place"


def test_no_glob_is_built_of_a_name_that_is_not_escaped() -> None:
    found = []
    for path, module in sources():
        for node in ast.walk(module):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in ("glob", "rglob", "iglob") or not node.args:
                continue
            pattern = node.args[0]
            if path.name in ("paths.py", "file_patterns.py"):  # where the user's own patterns are read
                continue
            parts = pattern.values if isinstance(pattern, ast.JoinedStr) else [pattern]
            for part in parts:
                inner = part.value if isinstance(part, ast.FormattedValue) else part
                escaped = isinstance(inner, ast.Call) and ast.unparse(inner.func).endswith("escape")
                if not (escaped or isinstance(inner, ast.Constant)):
                    found.append(f"{path}:{node.lineno}: {ast.unparse(pattern)}")
    assert not found, "glob.escape names in patterns"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cell_01", "cell_01"), ("Zelle ä-3 (2).b", "Zelle ä-3 (2).b"), ("a[1]", "a[1]"),
        ("..", "__"), (".", "_"), ("", "_"), ("...", "___"), (".hidden", "_hidden"), (" x ", "_x_"), ("a.", "a_"),
        ("../../etc/passwd", "___.._etc_passwd"), ("a/b\\c", "a_b_c"), ("a*?b", "a__b"), ("a\nb", "a_b"),
        ("CON", "_CON"), ("nul.x", "_nul.x"), ("com1", "_com1"), ("console", "console"),
    ],
)  # fmt: skip
def test_names(text: str, name: str) -> None:
    assert safe_name(text) == name


@given(st.text(alphabet=st.characters(codec=None), max_size=300))
def test_any_text_becomes_one_name_in_one_folder(text: str) -> None:
    name = safe_name(text)
    assert name == safe_name(name)
    assert name.strip(". ") == name
    assert name not in ("", ".", "..")
    assert not set(name) & set('<>:"/\\|?*\0\n\r')
    assert len(name.encode()) <= LONGEST
    assert Path("folder", name).parent == Path("folder")
    assert os.path.normpath(os.path.join("folder", name)) == os.path.join("folder", name)


@given(st.lists(st.sampled_from(["a", "A", "a_2", "..", "__", "é", "e\u0301", "x*", "x?", "x_"]), max_size=8))
def test_unique_names_differ_on_every_system(texts: list[str]) -> None:
    names = unique_names(texts)
    assert len({name_key(name) for name in names}) == len(texts)
    assert names == unique_names(texts)


def test_a_file_is_removed_in_its_own_folder_only(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    (run / "figures").mkdir(parents=True)
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    (run / "link").symlink_to(other)
    (run / "file").symlink_to(other / "mine.txt")
    for path in (run / ".." / "other" / "mine.txt", other / "mine.txt", run / "link" / "mine.txt", run, run / ".."):
        with pytest.raises(NotOurs):
            remove_file(path, run)
    with pytest.raises(NotOurs, match="is a folder"):
        remove_file(run / "figures", run)
    remove_file(run / "file", run)
    remove_file(run / "no such file", run)
    assert not os.path.lexists(run / "file")
    assert (other / "mine.txt").read_text() == "mine"


def test_a_run_folder_may_itself_be_reached_through_links_and_dots(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(tmp_path / "disk")
    for within in (tmp_path / "runs" / "run", Path("../runs/run"), Path("run"), tmp_path / "disk" / ".." / "runs/run"):
        (within / "a").write_text("")
        remove_file(within / "a", within)
        assert not (tmp_path / "disk" / "run" / "a").exists()
    assert require_inside(tmp_path / "disk" / "run" / "a", tmp_path / "runs" / "run").name == "a"


def test_a_manifest_removes_what_it_lists_as_it_was_written(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    other.mkdir()
    for name in ("meshes/a/1.ply", "meshes/a/mine.txt", "meshes/b/2.ply", "figures/x.png", "figures/edited.png"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    (other / "3.ply").write_text("same")
    manifest = Manifest(run, "..")
    assert manifest.file == run / ".written" / "__.jsonl"
    for name in ("meshes/a/1.ply", "meshes/b/2.ply", "figures/x.png", "figures/edited.png"):
        manifest.add(run / name)
    (run / "figures" / "edited.png").write_text("by hand")
    with manifest.file.open("a") as file:  # what an attacker, a copy or a kill might leave
        file.write('{"path": "../other/3.ply", "size": 4, "digest": "')
    manifest.remove_all()
    assert tree(run) == {"meshes/a/mine.txt": b"meshes/a/mine.txt", "figures/edited.png": b"by hand"}
    assert not (run / "meshes" / "b").exists()
    manifest.remove_all()


def test_a_manifest_removes_nothing_through_a_link(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    (run / "meshes").mkdir(parents=True)
    (run / "meshes" / "a.ply").write_text("surface")
    Manifest(run, "a").add(run / "meshes" / "a.ply")
    (run / "meshes").rename(other)
    (run / "meshes").symlink_to(other)
    Manifest(run, "a").remove_all()
    assert tree(other) == {"a.ply": b"surface"}
    assert (run / "meshes").is_symlink()


def test_a_working_folder_bears_a_mark(tmp_path: Path) -> None:
    mine, ours, link = tmp_path / "mine", tmp_path / "ours", tmp_path / "link"
    mine.mkdir()
    (mine / "x").write_text("x")
    link.symlink_to(mine)
    for folder in (mine, link):
        with pytest.raises(NotOurs):
            make_scratch(folder)
        with pytest.raises(NotOurs):
            remove_scratch(folder)
        with pytest.raises(NotOurs):
            remove_in_scratch(folder / "x", folder)
    make_scratch(ours)
    make_scratch(ours)
    (ours / "out").symlink_to(mine)
    with pytest.raises(NotOurs):
        remove_in_scratch(ours / "out" / "x", ours)
    with pytest.raises(NotOurs):
        remove_in_scratch(mine / "x", ours)
    remove_scratch(ours)
    remove_scratch(ours)
    assert not ours.exists()
    assert tree(mine) == {"x": b"x"}


def test_sweeping_follows_no_link_and_takes_random_names_only(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    (run / "deep").mkdir(parents=True)
    other.mkdir()
    for folder in (run / "deep", other):
        (folder / ".part-0123456789ab.tif").write_text("half")
        (folder / ".part-list.txt").write_text("mine")
    (run / "link").symlink_to(other)
    sweep(run)
    sweep(run / "link")
    assert set(tree(other)) == {".part-0123456789ab.tif", ".part-list.txt"}
    assert set(os.listdir(run / "deep")) == {".part-list.txt"}
    with pytest.raises(NotOurs):
        remove_temporary(other / ".part-list.txt")


def test_a_folder_that_was_there_before_is_never_discarded(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    assert MadeFolder.make(tmp_path / "old") is None
    made = MadeFolder.make(tmp_path / "a" / "new")
    assert made is not None
    (tmp_path / "a" / "new").rename(tmp_path / "moved")
    (tmp_path / "a" / "new").mkdir()
    (tmp_path / "a" / "new" / "mine").write_text("")
    made.remove()
    assert (tmp_path / "a" / "new" / "mine").exists()


def write_folder(path: Path, name: str, text: str) -> None:
    with atomic_path(path) as part:
        part.mkdir()
        (part / name).write_text(text)


@pytest.mark.parametrize("change", ["added", "edited", "no manifest", "linked"])
def test_a_folder_with_anything_of_the_users_is_kept_beside(tmp_path: Path, change: str, capsys) -> None:
    folder, other = tmp_path / "a.ome.zarr", tmp_path / "other"
    write_folder(folder, "0", "first")
    other.mkdir()
    (other / "mine").write_text("mine")
    if change == "added":
        (folder / "labels").mkdir()
        (folder / "labels" / "by_hand").write_text("hours of work")
    elif change == "edited":
        (folder / "0").write_text("painted over")
    elif change == "no manifest":
        (tmp_path / ".a.ome.zarr.written.json").unlink()
    else:
        (folder / "more").symlink_to(other)
    before = tree(folder)
    assert foreign_file(folder) is not None
    for _ in range(2):
        write_folder(folder, "0", "second")
    assert tree(folder) == {"0": b"second"}
    assert tree(tmp_path / "a.ome.zarr.kept-1") == before
    assert not (tmp_path / "a.ome.zarr.kept-2").exists()
    assert tree(other) == {"mine": b"mine"}
    assert capsys.readouterr().err.startswith(f"note: {folder}: there was a folder of this name")


def test_a_result_takes_the_place_of_a_link_not_of_what_it_leads_to(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("mine")
    (tmp_path / "a.zarr").symlink_to(other)
    (tmp_path / "a.txt").symlink_to(other / "mine")
    write_folder(tmp_path / "a.zarr", "0", "new")
    with atomic_path(tmp_path / "a.txt") as part:
        part.write_text("new")
    assert tree(other) == {"mine": b"mine"}
    assert not (tmp_path / "a.zarr").is_symlink()
    assert (tmp_path / "a.txt").read_text() == "new"


@pytest.mark.parametrize("name", RUN_PARTS)
def test_a_run_whose_output_folder_is_a_link_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "run").mkdir()
    require_no_links(tmp_path / "run")
    (tmp_path / "run" / name).symlink_to(tmp_path / "other")
    with pytest.raises(NotOurs, match="is a link to"):
        require_no_links(tmp_path / "run")


@pytest.mark.skipif(os.name != "posix", reason="rights of files are POSIX's")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_every_file_obeys_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    code = """
import os, sys, tempfile
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from cytovox.io import atomic_path
folder = Path(sys.argv[1])
os.umask(int(sys.argv[2]))
with atomic_path(folder / "plain.txt") as part:
    part.write_text("x")
with atomic_path(folder / "weights.safetensors") as part:
    save_file({"a": np.zeros(2)}, str(part))
with atomic_path(folder / "private.bin") as part:
    os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(umask)], check=True, cwd=HOME)
    assert {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == dict.fromkeys(
        ("plain.txt", "weights.safetensors", "private.bin"), mode
    )
