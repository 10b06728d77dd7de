"""--check finds every planted error by its own name and nothing else beside it, and nothing in a clean set."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import yaml

from cytovox.errors import InputError
from cytovox.io import read_mask, read_volume, write_nifti, write_ometiff, write_omezarr, write_tcf
from cytovox.simulation import simulate
from datamodules.folder import find_cases
from datamodules.splits import split_cases
from experiments.config import load_config

SHAPE, SPACING = (16, 32, 32), (0.6, 0.6, 0.6)
ORGANELLES = ("membrane", "nucleus", "nucleolus", "lipid")

#: Each volume of the clean set: cell line, seed, ends of the volume's and of the masks' names.
CLEAN = {
    "dish1/a": ("HeLa", 1, ".TCF", ".nii.gz"),
    "dish1/b": ("A549", 2, ".TCF", ".nii.gz"),
    "dish2/c": ("NIH3T3", 3, ".ome.tif", ".ome.tif"),
    "dish2/d": ("RAW264.7", 4, ".nii.gz", ".nii.gz"),
    "dish3/e": ("MDA-MB-231", 5, ".TCF", ".nii.gz"),
    "dish4/f": ("HeLa", 6, ".ome.zarr", ".nii.gz"),
}
DATA = {
    "source": "folder",
    "volumes": "dish*/*",
    "masks": "dish*/{stem}_{organelle}.*",
    "group": "dish",
    "split": {"train": ["dish1", "dish2"], "val": ["dish3"], "test": ["dish4"]},
    "resample_spacing_um": list(SPACING),
    "patch_size": list(SHAPE),
    "num_workers": 0,
}


def write_volume(path: Path, ri_ZYX: np.ndarray, spacing_um: tuple[float, ...] = SPACING) -> Path:
    if path.suffix == ".TCF":
        return write_tcf(path, ri_ZYX[None], spacing_um, 1.337, encoding="float")
    if path.name.endswith(".ome.tif"):
        return write_ometiff(path, ri_ZYX[None, None], spacing_um, ["RI"])
    if path.suffix == ".zarr":
        return write_omezarr(path, ri_ZYX[None, None], spacing_um, ["RI"])
    return write_nifti(path, ri_ZYX, spacing_um)


def write_mask(path: Path, mask_ZYX: np.ndarray, spacing_um: tuple[float, ...] = SPACING) -> Path:
    if path.name.endswith(".ome.tif"):
        return write_ometiff(path, mask_ZYX.astype(np.uint8)[None, None], spacing_um, ["mask"])
    return write_nifti(path, mask_ZYX.astype(np.uint8), spacing_um)


def write_clean(root: Path) -> Path:
    """Six volumes of five cell lines in four formats, with masks in two."""
    for name, (line, seed, end, mask_end) in CLEAN.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        made = simulate(line, seed, SHAPE, SPACING)
        write_volume(root / f"{name}{end}", made.ri_ZYX)
        for organelle in ORGANELLES:
            write_mask(root / f"{name}_{organelle}{mask_end}", made.masks[organelle])
    return root


def write_config(root: Path, **more: object) -> Path:
    tree = {
        "name": "mine",
        "runs_dir": str(root / "runs"),
        "data": {**DATA, "root": str(root), **more},
        "model": {"network": "residual_unet", "channels": [8, 16]},
        "logging": {"wandb": "disabled"},
    }
    path = root / "mine.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def copy(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "data"))


def rows(out: str) -> list[tuple[str, str, str]]:
    """(severity, kind, where) of each finding of the printed table."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    found: list[tuple[str, str, str]] = []
    for row in (c for c in cells if len(c) == 5):
        if row[0]:
            found.append((row[0], row[1], row[2]))
        else:
            found[-1] = (*found[-1][:2], found[-1][2] + row[2])
    return found


# plants


def ri_of(path: Path) -> np.ndarray:
    return read_volume(path).frame().copy()


def change(root: Path, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    """Rewrite a volume with other voxels."""
    path = root / name
    edited = edit(ri_of(path)).astype(np.float32)
    if path.suffix == ".zarr":
        shutil.rmtree(path)
    write_volume(path, edited)


def change_mask(root: Path, name: str, edit: Callable[[np.ndarray], np.ndarray], spacing_um=SPACING) -> None:
    write_mask(root / name, edit(read_mask(root / name).labels_ZYX), spacing_um)


def truncate(root: Path, name: str) -> None:
    path = root / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_all(root: Path, stem: str, edit: Callable[[np.ndarray], np.ndarray], spacing_um=SPACING) -> None:
    """The same to a TCF and its masks."""
    write_volume(root / f"{stem}.TCF", edit(ri_of(root / f"{stem}.TCF")), spacing_um)
    for organelle in ORGANELLES:
        change_mask(root, f"{stem}_{organelle}.nii.gz", edit, spacing_um)


def each_mask(root: Path, stem: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    for organelle in ORGANELLES:
        change_mask(root, f"{stem}_{organelle}.nii.gz", edit)


def put(value: float, *box: slice) -> Callable[[np.ndarray], np.ndarray]:
    def edit(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[box] = value
        return array

    return edit


def outside_membrane(root: Path, organelle: str, keep: bool) -> None:
    """Draw an organelle in the medium above the cell."""
    medium = read_mask(root / "dish1/a_membrane.nii.gz").labels_ZYX == 0

    def edit(mask: np.ndarray) -> np.ndarray:
        stray = np.zeros_like(medium)
        stray[-4:, 4:12, 4:12] = True
        return (keep & (mask > 0)) | (stray & medium)

    change_mask(root, f"dish1/a_{organelle}.nii.gz", edit)


def copy_case(root: Path, stem: str, to: str, end: str) -> None:
    """The same tomogram again, in another format, with its masks."""
    write_volume(root / f"{to}{end}", ri_of(root / f"{stem}.TCF"))
    for organelle in ORGANELLES:
        shutil.copy(root / f"{stem}_{organelle}.nii.gz", root / f"{to}_{organelle}.nii.gz")


def drop_masks(root: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in list(root.glob(pattern)):
            path.unlink()


def rename(root: Path, stem: str, to: str) -> None:
    for path in list(root.glob(f"{stem}[._]*")):
        path.rename(root / path.relative_to(root).as_posix().replace(stem, to))


def best_slice(root: Path) -> int:
    """A height at which dish1/a has every organelle."""
    masks = [read_mask(root / f"dish1/a_{k}.nii.gz").labels_ZYX > 0 for k in ORGANELLES]
    return int(np.min([m.sum(axis=(1, 2)) for m in masks], axis=0).argmax())


def as_nibabel(root: Path, name: str) -> None:
    """Save a mask with positive lengths: its header mirrors x and y, and its array is as before."""
    image = nib.Nifti1Image(read_mask(root / name).labels_ZYX.T, np.diag([*(s / 1000 for s in SPACING), 1.0]))
    image.header.set_xyzt_units("mm")
    nib.save(image, root / name)


def without_spacing(root: Path) -> None:
    ri_ZYX = ri_of(root / "dish1/a.TCF")
    (root / "dish1/a.TCF").unlink()
    tifffile.imwrite(root / "dish1/a.tif", ri_ZYX, photometric="minisblack")


def one_slice(root: Path) -> None:
    z = best_slice(root)
    change_all(root, "dish1/a", lambda array: array[z : z + 1])


def time_points(root: Path) -> None:
    rename(root, "dish1/a", "dish1/cell_t000")
    rename(root, "dish1/b", "dish1/cell_t012")


SPLIT_BY_FILE = "data.split={train: [a.TCF, dish2], val: [dish3], test: [b.TCF, dish4]}"
TIME_SPLIT = "data.split={train: [cell_t000.TCF, dish2], val: [dish3], test: [cell_t012.TCF, dish4]}"

Plant = Callable[[Path], None]
MEMBRANE, NUCLEUS = "dish1/a_membrane.nii.gz", "dish1/a_nucleus.nii.gz"

#: Name -> severity, kind, where, what is done to the clean set, further words of the command line.
PLANTS: dict[str, tuple[str, str, str, Plant, list[str]]] = {
    "truncated TCF": ("error", "unreadable-volume", "dish1/a.TCF", lambda r: truncate(r, "dish1/a.TCF"), []),
    "truncated OME-TIFF": (
        "error", "unreadable-volume", "dish2/c.ome.tif", lambda r: truncate(r, "dish2/c.ome.tif"), []
    ),
    "truncated mask": ("error", "unreadable-mask", NUCLEUS, lambda r: truncate(r, NUCLEUS), []),
    "mask of halves": (
        "error", "unreadable-mask", NUCLEUS,
        lambda r: write_nifti(r / NUCLEUS, np.full(SHAPE, 1.5, np.float32), SPACING), [],
    ),
    "mask of another shape": ("error", "mask-shape", NUCLEUS, lambda r: change_mask(r, NUCLEUS, lambda m: m[1:]), []),
    "mask of another spacing": (
        "error", "mask-spacing", NUCLEUS, lambda r: change_mask(r, NUCLEUS, lambda m: m, (0.6, 0.3, 0.3)), []
    ),
    "mask that may be mirrored": ("error", "mask-axes", NUCLEUS, lambda r: as_nibabel(r, NUCLEUS), []),
    "mask that is laid as stored": ("warning", "mask-note", "dish1/a.TCF", lambda r: as_nibabel(r, NUCLEUS),
                                    ["data.mask_axes=stored"]),
    "mask in um for mm": (
        "warning", "mask-unit", "dish1/a.TCF", lambda r: change_mask(r, NUCLEUS, lambda m: m, (600, 600, 600)), []
    ),
    "NaN": ("error", "not-finite", "dish1/a.TCF", lambda r: change(r, "dish1/a.TCF", put(np.nan, 3, 4, 5)), []),
    "infinity": ("error", "not-finite", "dish2/d.nii.gz", lambda r: change(r, "dish2/d.nii.gz", put(np.inf, 3, 4)), []),
    "fluorescence": (
        "error", "not-ri", "dish2/c.ome.tif", lambda r: change(r, "dish2/c.ome.tif", lambda a: a * 90), []
    ),
    "another medium": (
        "warning", "ri-range", "dish1/a.TCF", lambda r: change(r, "dish1/a.TCF", lambda a: a + 0.03), []
    ),
    "several labels": ("error", "labels", NUCLEUS, lambda r: change_mask(r, NUCLEUS, put(2, 0, 0, slice(3))), []),
    "empty mask": ("warning", "empty-mask", "dish1/a_lipid.nii.gz",
                   lambda r: change_mask(r, "dish1/a_lipid.nii.gz", np.zeros_like), []),
    "full mask": ("warning", "full-mask", MEMBRANE, lambda r: change_mask(r, MEMBRANE, np.ones_like), []),
    "nucleus partly outside": ("warning", "outside", NUCLEUS, lambda r: outside_membrane(r, "nucleus", True), []),
    "lipid outside": ("error", "outside", "dish1/a_lipid.nii.gz", lambda r: outside_membrane(r, "lipid", False), []),
    "nucleolus partly outside": (
        "warning", "outside", "dish1/a_nucleolus.nii.gz", lambda r: outside_membrane(r, "nucleolus", True), [],
    ),
    "no mask": ("error", "no-mask", "dish1/a.TCF", lambda r: drop_masks(r, "dish1/a_*"), []),
    "mask without a volume": (
        "warning", "orphan-mask", "data.masks", lambda r: shutil.copy(r / NUCLEUS, r / "dish1/x_nucleus.nii.gz"), []
    ),
    "a file in two lists": ("error", "leak", "data.split", lambda r: None,
                            ["data.split.val=[dish3, d.nii.gz]", "data.group=null"]),
    "a group on two sides": ("error", "leak", "data.split", lambda r: None, [SPLIT_BY_FILE]),
    "a copy in the test set": ("error", "leak", "dish4/g.ome.tif",
                               lambda r: copy_case(r, "dish1/a", "dish4/g", ".ome.tif"), []),
    "time points apart": (
        "warning", "time-points", "dish1/cell_t012.TCF", time_points, [TIME_SPLIT, "data.group=null"]
    ),
    "a copy in the training set": ("warning", "duplicate", "dish1/g.nii.gz",
                                   lambda r: copy_case(r, "dish1/a", "dish1/g", ".nii.gz"), []),
    "another unit": ("error", "spacing", "dish1/a.TCF",
                     lambda r: change_all(r, "dish1/a", lambda a: a, (600, 600, 600)), []),
    "another magnification": ("warning", "spacing", "dish1/a.TCF",
                              lambda r: change_all(r, "dish1/a", lambda a: a, (3, 3, 3)), []),
    "no spacing": ("error", "no-spacing", "dish1/a.tif", without_spacing, []),
    "smaller than a patch": ("warning", "small", "dish1/a.TCF",
                             lambda r: change_all(r, "dish1/a", lambda a: a[:, :, :24]), []),
    "one slice": ("warning", "one-slice", "dish1/a.TCF", one_slice, []),
    "constant": ("error", "constant", "dish1/a.TCF", lambda r: change(r, "dish1/a.TCF", lambda a: 0 * a + 1.35), []),
    "no contrast": ("warning", "no-contrast", "dish1/a.TCF",
                    lambda r: change(r, "dish1/a.TCF", lambda a: 1.337 + (a - 1.337) / 100), []),
    "zeros": ("error", "no-data", "dish2/d.nii.gz", lambda r: change(r, "dish2/d.nii.gz", put(0, ..., slice(4))), []),
    "a filled corner": ("warning", "no-data", "dish2/d.nii.gz",
                        lambda r: change(r, "dish2/d.nii.gz", put(1.337, slice(None), slice(8), slice(16))), []),
    "masks mirrored in y": ("warning", "misplaced", MEMBRANE,
                            lambda r: each_mask(r, "dish1/a", lambda m: m[:, ::-1]), []),
    "masks mirrored in y and x": ("warning", "misplaced", "dish3/e_membrane.nii.gz",
                                  lambda r: each_mask(r, "dish3/e", lambda m: m[:, ::-1, ::-1]), []),
    "masks moved": ("warning", "misplaced", MEMBRANE,
                    lambda r: each_mask(r, "dish1/a", lambda m: np.roll(m, 6, axis=2)), []),
    "no validation": ("warning", "empty-split", "data.split.val", lambda r: shutil.rmtree(r / "dish3"),
                      ["data.split.val=[]"]),
    "nothing to test": ("error", "empty-split", "data.split.test", lambda r: shutil.rmtree(r / "dish4"),
                        ["data.split.test=[]"]),
    "never drawn": ("warning", "unlabelled", "data.split.train", lambda r: drop_masks(r, "dish[12]/*_lipid*"), []),
    "not validated": ("warning", "unlabelled", "data.split.val", lambda r: drop_masks(r, "dish3/*_lipid*"), []),
    "a list that names nothing": ("error", "split", "data.split.train", lambda r: None,
                                  ["data.split.train=[dish1, dish2, dish9]"]),
    "a pattern that names nothing": ("error", "files", "data.volumes", lambda r: None,
                                     ["data.volumes=[dish*/*, plate*/*.TCF]"]),
}  # fmt: skip

#: Errors that no loader sees: they would spoil a run.
HARMFUL = {"a copy in the test set", "constant", "never drawn", "lipid outside", "nothing to test"}


def test_a_clean_set_has_no_finding(clean, cli, tmp_path):
    config = write_config(clean)
    before = sorted(clean.rglob("*"))
    answer = cli(config, "--check")
    assert (answer.code, answer.errors, rows(answer.out)) == (0, [], [])
    assert "6 volumes, 0 with errors, 0 with warnings" in answer.out
    assert "mine: the config is valid" in answer.out
    assert sorted(clean.rglob("*")) == before


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found_by_its_name_and_nothing_beside_it(copy, cli, name):
    severity, kind, where, plant, words = PLANTS[name]
    plant(copy)
    config = write_config(copy)
    answer = cli(config, "--check", *words)
    assert "Traceback" not in answer.err
    assert rows(answer.out) == [(severity, kind, where)], answer.out
    assert answer.code == (2 if severity == "error" else 0)
    output = ["check: 1 error in the data; the table shows where and what to do"] if severity == "error" else []
    assert answer.errors == output
    assert refused(config, words) == (severity == "error" and name not in HARMFUL)


def refused(config: Path, words: list[str]) -> bool:
    """Whether a run's own finding and reading stops at it."""
    loaded = load_config(config, words)
    try:
        division = split_cases(find_cases(loaded.data), loaded.data, loaded.seed)
        for cases in division.values():
            for case in cases:
                case.load()
    except InputError:
        return True
    return False


#: Plants that do not touch each other, each on a volume of its own.
TOGETHER = {
    "a": ["truncated mask", "NaN", "mask without a volume"],
    "c": ["fluorescence"],
    "d": ["zeros"],
    "e": ["masks mirrored in y and x", "not validated"],
}


def test_all_faults_at_once_are_reported_in_a_pipe_by_processes_of_their_own(copy, command):
    expected = {("error", "spacing", "dish4/g.TCF"), ("warning", "empty-mask", "dish1/b_lipid.nii.gz")}
    for name in (plant for plants in TOGETHER.values() for plant in plants):
        severity, kind, where, plant, _ = PLANTS[name]
        plant(copy)
        expected.add((severity, kind, where))
    copy_case(copy, "dish1/b", "dish4/g", ".TCF")
    change_all(copy, "dish4/g", lambda a: a, (600.0, 600.0, 600.0))
    change_mask(copy, "dish1/b_lipid.nii.gz", np.zeros_like)
    # that it is a copy of dish1/b is not seen, since its voxel size is refused before its voxels are read
    (copy / "dish4/h.TCF").write_bytes(b"")
    expected |= {("error", "unreadable-volume", "dish4/h.TCF"), ("error", "no-mask", "dish4/h.TCF")}
    answer = command(write_config(copy, num_workers="auto"), "--check", cwd=copy)
    found = rows(answer.out)
    assert set(found) == expected
    assert len(found) == len(expected)
    assert [severity for severity, _, _ in found] == sorted(severity for severity, _, _ in found)  # errors first
    assert answer.code == 2
    assert "…" not in answer.out
    assert max(map(len, answer.out.splitlines())) <= 160
    assert "8 volumes, 5 with errors, 2 with warnings; of the whole set 0 errors, 2 warnings" in answer.out
    assert answer.errors == ["check: 7 errors in the data; the table shows where and what to do"]
    assert not (copy / "runs").exists()


def test_files_to_predict_are_reported_once_and_in_the_table(copy, trained, tiny, cli):
    (copy / "dish1/a.TCF").write_bytes(b"")
    change(copy, "dish1/b.TCF", put(np.nan, 3, 4, 5))
    words = ["stages=[predict]", f"predict.inputs=[{copy}/dish?/*.TCF]", f"predict.checkpoint={trained.run}"]
    answer = cli(tiny, "--check", *words)
    assert [row[:2] for row in rows(answer.out)] == [("error", "unreadable-volume"), ("error", "not-finite")]
    assert answer.errors == ["check: 2 errors in the data; the table shows where and what to do"]
    assert "3 volumes, 2 with errors, 0 with warnings" in answer.out
