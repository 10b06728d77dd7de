"""Assignment of masks to tomograms in common folder layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cytovox.errors import InputError
from datamodules.cases import FolderCase
from datamodules.config import FolderData
from datamodules.folder import find_cases
from datamodules.paths import expand, stem_of


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _data(root: Path, volumes: object = "dish*/**/*.TCF", masks: str | None = None, **more: object) -> FolderData:
    return FolderData(root=str(root), volumes=volumes, masks=masks or "dish*/**/*_{organelle}.nii.gz", **more)  # type: ignore[arg-type]


def _masks(cases: list[FolderCase], root: Path) -> dict[str, dict[str, str]]:
    return {c.name: {k: v.relative_to(root).as_posix() for k, v in c.masks.items()} for c in cases}


def test_one_file_per_organelle_is_found_next_to_its_tomogram(tmp_path: Path) -> None:
    _touch(tmp_path, "dish1/a.TCF", "dish1/a_nucleus.nii.gz", "dish1/a_nucleolus.nii.gz", "dish2/sub/b.TCF")
    _touch(tmp_path, "dish2/sub/b_lipid.nii.gz")
    assert _masks(find_cases(_data(tmp_path)), tmp_path) == {
        "dish1/a.TCF": {"nucleus": "dish1/a_nucleus.nii.gz", "nucleolus": "dish1/a_nucleolus.nii.gz"},
        "dish2/sub/b.TCF": {"lipid": "dish2/sub/b_lipid.nii.gz"},
    }


def test_the_nearest_of_several_masks_with_the_same_name_is_used(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"dish{n}/{name}" for n in (1, 2) for name in ("0007.TCF", "seg/0007_nucleus.nii.gz")))
    found = _masks(find_cases(_data(tmp_path)), tmp_path)
    assert found["dish1/0007.TCF"] == {"nucleus": "dish1/seg/0007_nucleus.nii.gz"}
    assert found["dish2/0007.TCF"] == {"nucleus": "dish2/seg/0007_nucleus.nii.gz"}


def test_a_mask_in_another_dish_is_not_used(tmp_path: Path) -> None:
    _touch(tmp_path, "dish1/0007.TCF", "dish1/0007_nucleus.nii.gz", "dish2/0007.TCF")
    with pytest.raises(InputError, match=r"1 of 2 volumes have no mask: dish2/0007\.TCF;"):
        find_cases(_data(tmp_path))


def test_masks_in_a_parallel_folder_tree_are_matched_by_folder_name(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"raw/dish{n}/0007.TCF" for n in (1, 2)), *(f"seg/dish{n}/0007.nii.gz" for n in (1, 2)))
    cases = find_cases(_data(tmp_path, "raw/**/*.TCF", "seg/**/{stem}.nii.gz"))
    assert [str(c.label_file) for c in cases] == [str(tmp_path / f"seg/dish{n}/0007.nii.gz") for n in (1, 2)]


def test_a_mask_that_fits_two_tomograms_is_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "dish1/0007.TCF", "dish2/0007.TCF", "seg/0007_nucleus.nii.gz")
    with pytest.raises(InputError, match=r"could both be the volume of .*0007_nucleus"):
        find_cases(_data(tmp_path, masks="seg/*_{organelle}.nii.gz"))


def test_two_masks_that_fit_one_tomogram_are_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "dish1/a.TCF", "dish1/x/a_nucleus.nii.gz", "dish1/y/a_nucleus.nii.gz")
    with pytest.raises(InputError, match=r"could both belong to .*a\.TCF"):
        find_cases(_data(tmp_path))


@pytest.mark.parametrize("pattern", ["seg/{organelle}/{stem}.nii.gz", "seg/{organelle}/*.nii.gz"])
def test_one_folder_per_organelle_is_found(tmp_path: Path, pattern: str) -> None:
    _touch(tmp_path, "dish1/a.TCF", "seg/nucleus/a.nii.gz", "seg/lipid/a.nii.gz")
    assert _masks(find_cases(_data(tmp_path, masks=pattern)), tmp_path)["dish1/a.TCF"] == {
        "nucleus": "seg/nucleus/a.nii.gz",
        "lipid": "seg/lipid/a.nii.gz",
    }


def test_one_folder_per_tomogram_is_found_by_its_stem(tmp_path: Path) -> None:
    _touch(tmp_path, "dish1/a.TCF", "dish1/b.TCF", "seg/a/nucleus.tif", "seg/b/nucleus.tif")
    found = _masks(find_cases(_data(tmp_path, masks="seg/{stem}/{organelle}.tif")), tmp_path)
    assert found["dish1/b.TCF"] == {"nucleus": "seg/b/nucleus.tif"}


def test_a_mask_without_its_tomograms_name_is_in_the_same_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "dish1/a.TCF", "dish1/nucleus.nii.gz", "dish2/b.TCF", "dish2/nucleus.nii.gz")
    found = _masks(find_cases(_data(tmp_path, masks="dish*/{organelle}.nii.gz")), tmp_path)
    assert found["dish2/b.TCF"] == {"nucleus": "dish2/nucleus.nii.gz"}


def test_multi_label_files_that_match_the_volumes_pattern_are_no_tomograms(tmp_path: Path) -> None:
    _touch(tmp_path, "a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "b_seg.nii.gz")
    cases = find_cases(_data(tmp_path, "*.nii.gz", "*_seg.nii.gz"))
    assert [(c.name, c.label_file and c.label_file.name) for c in cases] == [
        ("a.nii.gz", "a_seg.nii.gz"),
        ("b.nii.gz", "b_seg.nii.gz"),
    ]


def test_volumes_without_a_mask_are_counted_and_five_are_named(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"dish1/{n:04d}.TCF" for n in range(9)), "dish1/0000_nucleus.nii.gz")
    with pytest.raises(InputError) as caught:
        find_cases(_data(tmp_path))
    names = ", ".join(f"dish1/{n:04d}.TCF" for n in range(1, 6))
    assert str(caught.value).startswith(f"data.masks: 8 of 9 volumes have no mask: {names}, ...; ")


def test_two_stars_in_a_masks_name_are_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "dish1/a.TCF", "dish1/a_nucleus_v2.nii.gz")
    with pytest.raises(InputError, match=r"write \{stem\}"):
        find_cases(_data(tmp_path, masks="dish*/*_{organelle}*.nii.gz"))
    found = find_cases(_data(tmp_path, masks="dish*/{stem}_{organelle}*.nii.gz"))
    assert found[0].masks["nucleus"].name == "a_nucleus_v2.nii.gz"


def test_files_being_written_are_ignored(tmp_path: Path) -> None:
    _touch(tmp_path, "dish1/a.TCF", "dish1/.part-0123456789ab.TCF", "dish1/a_nucleus.nii.gz")
    _touch(tmp_path, "dish1/.part-0123.nii.gz", "dish1/.hidden/b.TCF", "dish1/._a.TCF", "dish1/._a_lipid.nii.gz")
    (tmp_path / "dish1/.part-77.ome.zarr").mkdir()
    for volumes in ("dish*/**/*.TCF", "dish1", "dish1/*", "dish1/.part-*"):
        if volumes == "dish1/.part-*":
            with pytest.raises(InputError, match="no such file"):
                expand(volumes, tmp_path, "data.volumes")
        else:
            found = [p.name for p in expand(volumes, tmp_path, "data.volumes") if p.suffix != ".gz"]
            assert found == ["a.TCF"], volumes
    assert find_cases(_data(tmp_path))[0].masks.keys() == {"nucleus"}


@pytest.mark.parametrize("root", ["", "study [2]"])
def test_brackets_in_a_folders_name_are_literal(tmp_path: Path, root: str) -> None:
    _touch(tmp_path / root, "dish[1]/a.TCF", "dish[1]/a_nucleus.nii.gz", "dish1/wrong.TCF")
    cases = find_cases(_data(tmp_path / root, "dish[1]/*.TCF", "dish[1]/*_{organelle}.nii.gz"))
    assert [(c.name, c.masks["nucleus"].name) for c in cases] == [("dish[1]/a.TCF", "a_nucleus.nii.gz")]


def test_brackets_that_name_no_folder_are_a_choice_of_letters(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"dish{n}/{n}{end}" for n in (1, 2, 3) for end in (".TCF", "_nucleus.nii.gz")))
    cases = find_cases(_data(tmp_path, "dish[12]/*.TCF", "dish[!3]/*_{organelle}.nii.gz"))
    assert [(c.name, c.masks["nucleus"].name) for c in cases] == [
        ("dish1/1.TCF", "1_nucleus.nii.gz"),
        ("dish2/2.TCF", "2_nucleus.nii.gz"),
    ]


def test_a_file_that_two_patterns_match_is_used_once(tmp_path: Path) -> None:
    _touch(tmp_path, "dish1/a.TCF", "dish1/b.TCF")
    patterns = ["dish1", "dish1/*.TCF", str(tmp_path / "dish1/a.TCF"), "dish1/../dish1/b.TCF"]
    assert [p.name for p in expand(patterns, tmp_path, "data.volumes")] == ["a.TCF", "b.TCF"]


def test_a_pattern_without_matches_is_refused_with_the_known_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.volumes: dish\*/\*\.TCF: no such file.*\.ome\.zarr"):
        expand("dish*/*.TCF", tmp_path, "data.volumes")


def test_only_known_suffixes_are_removed_from_stems() -> None:
    names = {"a.ome.tif": "a", "a.OME.TIFF": "a", "a.b.TCF": "a.b", "a.nii.gz": "a", "a.ome.zarr": "a", "a.v2": "a"}
    assert {name: stem_of(Path(name)) for name in names} == names


def test_dishes_with_the_same_name_in_two_folders_are_two_groups(tmp_path: Path) -> None:
    for line in ("HeLa", "A549"):
        _touch(tmp_path, f"{line}/dish1/a.TCF", f"{line}/dish1/a_nucleus.nii.gz")
    cases = find_cases(_data(tmp_path, "*/dish*/*.TCF", "*/dish*/*_{organelle}.nii.gz", group="dish"))
    assert [c.group for c in cases] == ["A549/dish1", "HeLa/dish1"]
    with pytest.raises(InputError, match=r"data\.group: plate: no folder"):
        find_cases(_data(tmp_path, "*/dish*/*.TCF", "*/dish*/*_{organelle}.nii.gz", group="plate"))


def _table(tmp_path: Path, text: str, encoding: str = "utf-8", **more: object) -> FolderData:
    _touch(tmp_path, "a.TCF", "b.TCF", "a_n.nii.gz", "b_all.nii.gz")
    (tmp_path / "t.csv").write_text(text, encoding=encoding)
    return FolderData(root=str(tmp_path), table="t.csv", **more)  # type: ignore[arg-type]


def test_a_table_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    text = "volume,nucleus,mask,group,line,split\na.TCF,a_n.nii.gz,,d1,HeLa,train\nb.TCF,,b_all.nii.gz,d2,A549,Test\n"
    a, b = find_cases(_table(tmp_path, text, "utf-8-sig"))
    assert (a.masks.keys(), a.label_file, a.group, a.cell_line, a.split) == ({"nucleus"}, None, "d1", "HeLa", "train")
    assert (b.masks, b.label_file, b.group, b.cell_line, b.split) == (
        {},
        tmp_path / "b_all.nii.gz",
        "d2",
        "A549",
        "test",
    )


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("file,nucleus\na.TCF,a_n.nii.gz\n", "no column 'volume'"),
        ("volume,nucleus\n", "no column 'volume'|no tomogram"),
        ("volume,nucleus\na.TCF,gone.nii.gz\n", "line 2: nucleus: no such file: .*gone"),
        ("volume,nucleus,split\na.TCF,a_n.nii.gz,training\n", "line 2: split: expected train, val or test"),
        ("volume,nucleus\n,a_n.nii.gz\n", "line 2: no volume named"),
        ("volume,nuclues\na.TCF,a_n.nii.gz\n", "column 'nuclues': did you mean nucleus"),
        ("volume,Nucleus,mask\na.TCF,a_n.nii.gz,a_n.nii.gz\n", "column 'Nucleus': did you mean nucleus"),
        ("volume,nucleus\na.TCF,a_n.nii.gz\n./a.TCF,a_n.nii.gz\n", "line 3: .*a.TCF is also in line 2; keep one"),
        ("volume,nucleus\na.TCF,a_n.nii.gz\nb.TCF,\n", "1 of 2 volumes have no mask: b.TCF"),
    ],
)
def test_errors_of_a_table_are_reported_with_their_line(tmp_path: Path, text: str, output: str) -> None:
    with pytest.raises(InputError, match=output):
        find_cases(_table(tmp_path, text))


def test_a_column_in_the_config_must_be_in_the_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.group: t\.csv has no column 'dish'; it has volume, nucleus"):
        find_cases(_table(tmp_path, "volume,nucleus\na.TCF,a_n.nii.gz\n", group="dish"))


def test_a_binary_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\x00\x01\x02\xff")
    with pytest.raises(InputError, match=r"data\.table: .*cannot be read"):
        find_cases(FolderData(root=str(tmp_path), table="t.csv"))
