"""Nothing that is the user's is ever deleted: the real commands on names and folders that lead elsewhere."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from cytovox.errors import InputError
from cytovox.io import write_ometiff, write_tcf
from experiments.fetch import fetch_shapes

SHAPE, SPACING = (6, 20, 20), (0.6, 0.6, 0.6)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cell with a nucleus: tomogram, masks and labels."""
    folder = tmp_path_factory.mktemp("field")
    cell = np.zeros(SHAPE, bool)
    cell[1:5, 4:14, 4:14] = True
    nucleus = np.zeros(SHAPE, bool)
    nucleus[2:4, 6:10, 6:10] = True
    ri = (1.337 + 0.02 * cell + 0.01 * nucleus).astype(np.float32)
    write_tcf(folder / "a.TCF", [ri], SPACING, 1.337)
    masks = np.stack([cell, nucleus]).astype(np.uint8)[None]
    write_ometiff(folder / "masks.ome.tif", masks, SPACING, ["membrane", "nucleus"])
    write_ometiff(folder / "cells.ome.tif", cell.astype(np.uint16)[None, None], SPACING, ["cells"])
    return folder


@pytest.fixture
def analyze(cli, field):
    """Analyse one file of the given name."""

    def run(path: Path, out: Path, *more: str):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes((field / "a.TCF").read_bytes())
        listed = path.parent.parent / "inputs.yaml"
        listed.write_text(yaml.safe_dump({"base": ["analyze"], "task": "analyze", "inputs": [str(path)]}))
        given = [f"organelles={field}/masks.ome.tif", f"cells={field}/cells.ome.tif"]
        return cli(listed, *given, "organelle_names=[membrane,nucleus]", f"out={out}", *more)

    return run


#: Stems that are folders, hidden, patterns, devices, or several lines.
NAMES = ["..", ".", "", "*", "?", "[ab]", "a\nb", "CON", "x" * 200, "t0001", "{stem}", "%s", "-rf"]


@pytest.mark.parametrize(
    "stem",
    [pytest.param(stem, id=repr(stem)[:12], marks=pytest.mark.slow if n else ()) for n, stem in enumerate(NAMES)],
)
def test_an_input_of_any_name_leaves_everything_else_alone(analyze, tmp_path, stem):
    out = tmp_path / "out"
    source = tmp_path / "in" / f"{stem}.TCF"
    first = analyze(source, out)
    assert first.code == 0, first.err
    mine = {"predictions/a_nucleus_corrected.nii.txt": b"by hand", "notes.txt": b"mine", "meshes/notes.txt": b"mine",
            "figures/cells_x_t0000.png": b"mine", "figures/lineage_mine.png": b"mine"}  # fmt: skip
    for name, content in mine.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(content)
    before = {name for name in tree(out) if not name.startswith(".")}
    again = analyze(source, out, "meshes=all", "border=include", "measure.medium_ri=1.34")
    assert again.code == 0, again.err
    kept = tree(out)
    assert {name: kept[name] for name in mine} == mine
    assert before <= set(kept)
    assert set(os.listdir(tmp_path)) == {"in", "inputs.yaml", "out"}
    assert os.listdir(tmp_path / "in") == [source.name]


OUTPUTS = ["meshes", "predictions", "tables", "figures", ".frames", "checkpoints"]


@pytest.mark.parametrize(
    ("name", "rerun"),
    [(name, False) for name in OUTPUTS]
    + [pytest.param(name, True, marks=pytest.mark.slow if name != "meshes" else ()) for name in OUTPUTS],
)
def test_an_output_folder_that_is_a_link_is_refused(analyze, tmp_path, name, rerun):
    out, other = tmp_path / "out", tmp_path / "other"
    source = tmp_path / "in" / "a.TCF"
    if rerun:
        assert analyze(source, out).code == 0
    (out / name).parent.mkdir(exist_ok=True)
    if (out / name).exists():
        (out / name).rename(other)
    else:
        other.mkdir()
    (other / "a").mkdir(exist_ok=True)
    (other / "a" / "mine.ply").write_text("mine")
    (out / name).symlink_to(other)
    if not rerun:
        (out / "config.yaml").write_text("")
        (out / "status.json").write_text("{}")
    before = tree(other)
    answer = analyze(source, out, "meshes=all", "measure.medium_ri=1.34")
    assert answer.code == 2
    assert f"{out / name}: is a link to {other}" in answer.err
    assert len(answer.errors) == 1
    assert tree(other) == before


def test_links_and_own_files_deeper_in_a_run_survive_a_rerun(analyze, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    source = tmp_path / "in" / "a.TCF"
    assert analyze(source, out).code == 0
    other.mkdir()
    (other / "t0000_cell0001.glb").write_text("mine")
    (out / "meshes" / "a").rename(tmp_path / "moved")
    (out / "meshes" / "a").symlink_to(other)
    (out / "figures" / "cells_a_t0000.png").unlink()
    (out / "figures" / "cells_a_t0000.png").symlink_to(other / "t0000_cell0001.glb")
    answer = analyze(source, out, "meshes=none", "measure.medium_ri=1.34")
    assert answer.code == 0, answer.err
    assert tree(other) == {"t0000_cell0001.glb": b"mine"}
    assert len(tree(tmp_path / "moved")) > 1


def test_a_pattern_as_a_name_removes_no_other_inputs_pictures(analyze, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "in").mkdir()
    assert analyze(tmp_path / "in" / "a.TCF", out).code == 0
    pictures = {name for name in tree(out) if name.startswith("figures/cells_")}
    assert "figures/cells_a_t0000.png" in pictures
    assert analyze(tmp_path / "in" / "*.TCF", out).code == 0
    assert pictures <= set(tree(out))


def test_a_folder_with_a_config_of_the_users_own_is_no_run(analyze, tmp_path):
    out = tmp_path / "project"
    out.mkdir()
    (out / "config.yaml").write_text("# mine\nname: mine\n")
    for more in (f"out={out}", f"resume={out}"):
        answer = analyze(tmp_path / "in" / "a.TCF", tmp_path / "elsewhere", more)
        assert answer.code == 2, answer.err
    assert tree(out) == {"config.yaml": b"# mine\nname: mine\n"}


def test_a_run_that_cannot_begin_discards_its_own_folder_only(cli, tiny, tmp_path, monkeypatch):
    wrong = ["stages=[fit]", "trainer.devices=auto", f"runs_dir={tmp_path}", "trainer.global_batch=1000003"]
    mine = tmp_path / "tiny" / "mine"
    mine.mkdir(parents=True)
    (mine / "data.txt").write_text("mine")
    for run_id in ("mine", "../../outside", "."):
        monkeypatch.setenv("CYTOVOX_RUN_ID", run_id)
        assert cli(tiny, *wrong).code == 2
    assert (mine / "data.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["tiny"]
    assert not (tmp_path.parent / "outside").exists()


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A record of one archive, as if it had been downloaded."""

    def build(name: str = "shapes.zip", **files: str) -> Path:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        with zipfile.ZipFile(out / name, "w") as archive:
            for inner, text in (files or {"obj": "new"}).items():
                archive.writestr(f"{inner}/a.tif", text)
        os.utime(out / name)
        monkeypatch.setattr("datamodules.fetch.fetch_record", lambda *_, **__: [out / name])
        return out

    return build


def test_fetch_replaces_only_what_it_unpacked(record):
    out = record()
    (out / "shapes").mkdir()
    (out / "shapes" / "mine.tif").write_text("mine")
    with pytest.raises(InputError, match="exists, and was not unpacked here"):
        fetch_shapes(out, "1", "http://nowhere")
    assert tree(out / "shapes") == {"mine.tif": b"mine"}
    (out / "shapes" / "mine.tif").unlink()
    (out / "shapes").rmdir()
    fetch_shapes(out, "1", "http://nowhere")
    assert tree(out / "shapes") == {"obj/a.tif": b"new"}
    os.utime(out / "shapes", (1, 1))  # older than an archive that was fetched anew
    record(obj="newer")
    fetch_shapes(out, "1", "http://nowhere")
    assert tree(out / "shapes") == {"obj/a.tif": b"newer"}
    (out / "shapes" / "obj" / "annotated.csv").write_text("mine")
    os.utime(out / "shapes", (1, 1))
    with pytest.raises(InputError, match=r"contains obj/annotated\.csv"):
        fetch_shapes(out, "1", "http://nowhere")
    assert tree(out / "shapes") == {"obj/a.tif": b"newer", "obj/annotated.csv": b"mine"}


def test_fetch_does_not_unpack_into_a_link_or_its_own_folder(record, tmp_path):
    out, other = record(), tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("mine")
    (out / "shapes").symlink_to(other)
    with pytest.raises(InputError, match="exists"):
        fetch_shapes(out, "1", "http://nowhere")
    (out / "shapes").unlink()
    (out / "mine").write_text("mine")
    record("..zip")
    fetch_shapes(out, "1", "http://nowhere")
    assert tree(other) == {"mine": b"mine"}
    assert (out / "mine").read_text() == "mine"
    assert (out / "_" / "obj" / "a.tif").is_file()


def test_labels_from_masks_are_not_written_over_files_of_the_users_own(cli, field, tmp_path):
    words = [
        "cells_from_masks",
        f"membrane={field}/masks.ome.tif",
        f"nucleus={field}/masks.ome.tif",
        "method=watershed",
        f"runs_dir={field.parent / 'runs'}",
    ]
    (tmp_path / "cells.csv").write_text("mine")
    answer = cli(*words, f"out={tmp_path}")
    assert answer.code == 2
    assert "cells.csv: is there, and no result of an earlier call" in answer.err
    assert tree(tmp_path) == {"cells.csv": b"mine"}
    for _ in range(2):
        assert cli(*words, f"out={tmp_path / 'new'}").code == 0


def test_an_export_replaces_weights_only(tmp_path, trained, capsys):
    from experiments.export import main

    out = tmp_path / "mine.safetensors"
    out.write_text("mine")
    assert main([str(trained.run), str(out)]) == 2
    assert out.read_text() == "mine"
    out.unlink()
    for _ in range(2):
        assert main([str(trained.run), str(out)]) == 0
    assert out.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
