"""An error that the user can fix is reported in one line, with exit code 2, and leaves no partial files."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from cytovox.io import read_mask, read_volume, write_nifti, write_tcf

Spoil = Callable[[Path, str], None]


def refused(answer, *output: str, count: int = 1) -> list[str]:
    """The lines of a refusal: as many as there are errors, and no traceback."""
    assert answer.code == 2, answer.err
    assert "Traceback" not in answer.err + answer.out
    assert len(answer.errors) == count, answer.err
    for text in output:
        assert any(text in line for line in answer.errors), answer.err
    return answer.errors


def nothing_half_written(*folders: Path) -> None:
    for folder in folders:
        left = [p for p in folder.rglob("*") if ".part" in p.name or p.suffix == ".tmp"]
        assert not left


# what can be wrong with a tomogram


def truncate(folder: Path, name: str) -> None:
    path = folder / f"{name}.TCF"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder: Path, name: str) -> None:
    (folder / f"{name}.TCF").write_bytes(b"")


def fill_with_text(folder: Path, name: str) -> None:
    (folder / f"{name}.TCF").write_bytes(b"not a tomogram\n" * 500)


def drop_3d(folder: Path, name: str) -> None:
    with h5py.File(folder / f"{name}.TCF", "a") as file:
        del file["Data/3D"]


def link_outside(folder: Path, name: str) -> None:
    with h5py.File(folder / f"{name}.TCF", "a") as file:
        del file["Data/3D"]
        file["Data/3D"] = h5py.ExternalLink(str(folder / "HeLa-00002.TCF"), "/Data/3D")


def put_nan(folder: Path, name: str) -> None:
    volume = read_volume(folder / f"{name}.TCF")
    ri_ZYX = volume.frame().copy()
    ri_ZYX[3, 4, 5] = np.nan
    write_tcf(folder / f"{name}.TCF", ri_ZYX, volume.spacing_um, 1.337, encoding="float")


TOMOGRAMS = [
    pytest.param(truncate, "truncated", id="truncated"),
    pytest.param(empty, "empty", id="empty"),
    pytest.param(fill_with_text, "HDF5", id="not HDF5"),
    pytest.param(drop_3d, "no tomogram (Data/3D)", id="without 3D data"),
    pytest.param(link_outside, "link", id="external link"),
    pytest.param(put_nan, "NaN or infinite", id="NaN"),
]


# what can be wrong with its masks


def no_mask(folder: Path, name: str) -> None:
    for path in folder.glob(f"{name}_*.nii.gz"):
        path.unlink()


def other_shape(folder: Path, name: str) -> None:
    path = folder / f"{name}_nucleus.nii.gz"
    mask = read_mask(path)
    write_nifti(path, mask.labels_ZYX[:, 1:].astype(np.uint8), mask.spacing_um)


def other_spacing(folder: Path, name: str) -> None:
    path = folder / f"{name}_nucleus.nii.gz"
    write_nifti(path, read_mask(path).labels_ZYX.astype(np.uint8), (0.6, 0.3, 0.3))


def several_labels(folder: Path, name: str) -> None:
    path = folder / f"{name}_nucleus.nii.gz"
    labels = read_mask(path).labels_ZYX.astype(np.uint8)
    labels[0, 0, :3] = (1, 2, 3)
    write_nifti(path, labels, (0.6, 0.6, 0.6))


MASKS = [
    pytest.param(no_mask, "1 of 3 volumes have no mask", id="no mask"),
    pytest.param(other_shape, "mask of shape (16, 31, 32)", id="other shape"),
    pytest.param(other_spacing, "voxel size (0.6, 0.3, 0.3)", id="other spacing"),
    pytest.param(several_labels, "3 different labels", id="labels"),
]


@pytest.mark.parametrize("case", ["HeLa-00001", "HeLa-00003"], ids=["to train on", "to test on"])
@pytest.mark.parametrize(("spoil", "expected"), TOMOGRAMS + MASKS)
def test_a_broken_file_is_found_before_the_training(tmp_path, cells, folder_config, cli, spoil: Spoil, expected, case):
    folder = Path(shutil.copytree(cells, tmp_path / "cells"))
    spoil(folder, case)
    config = folder_config(folder)
    refused(cli(config), expected, case)
    assert not (config.parent / "runs").exists()
    nothing_half_written(tmp_path, Path(os.environ["CYTOVOX_CACHE"]))


@pytest.mark.parametrize(("spoil", "expected"), TOMOGRAMS[:-1])
def test_a_broken_file_to_predict_is_found_before_anything_is_written(
    tmp_path, cells, tiny, trained, cli, spoil: Spoil, expected
):
    folder = Path(shutil.copytree(cells, tmp_path / "cells"))
    spoil(folder, "HeLa-00001")
    runs = tmp_path / "runs"
    words = ["stages=[predict]", f"predict.inputs=[{folder}/*.TCF]", f"predict.checkpoint={trained.run}"]
    refused(cli(tiny, *words, f"runs_dir={runs}"), expected, "HeLa-00001.TCF")
    assert not runs.exists()


def test_every_broken_file_to_predict_is_named(tmp_path, cells, tiny, trained, cli):
    folder = Path(shutil.copytree(cells, tmp_path / "cells"))
    empty(folder, "HeLa-00001")
    drop_3d(folder, "HeLa-00003")
    answer = cli(tiny, "stages=[predict]", f"predict.inputs={folder}", f"predict.checkpoint={trained.run}")
    # the simulator's true index lies there as OME-TIFF, too, and would share the name of no other output
    refused(answer, "HeLa-00001.TCF", "HeLa-00003.TCF", count=2)


def test_one_bad_file_does_not_stop_the_others(tmp_path, cells, tiny, trained, cli):
    folder = Path(shutil.copytree(cells, tmp_path / "cells"))
    put_nan(folder, "HeLa-00002")
    runs = tmp_path / "runs"
    words = ["stages=[predict]", f"predict.inputs=[{folder}/*.TCF]", f"predict.checkpoint={trained.run}"]
    all_files = sorted(p.stem for p in folder.glob("*.TCF"))
    answer = cli(tiny, *words, f"runs_dir={runs}")
    refused(answer, "NaN or infinite", f"1 of {len(all_files)} files could not be predicted", count=2)
    expected = [f"{name}.ome.tif" for name in all_files if name != "HeLa-00002"]
    assert sorted(p.name for p in runs.rglob("*.ome.tif")) == expected
    nothing_half_written(runs)


# configs


def test_every_fault_of_the_command_line_is_reported_at_once(tmp_path, tiny, cli):
    runs = tmp_path / "runs"
    words = ["trainer.max_epoch=3", "trainer.max_steps=soon", "data.patch_size=7", "modle=3", f"runs_dir={runs}"]
    refused(
        cli(tiny, *words),
        "command line: trainer.max_epoch: no such key; did you mean trainer.max_epochs?",
        "command line: trainer.max_steps: expected a whole number, got 'soon'",
        "command line: data.patch_size: expected a list of a whole number, got 7",
        "command line: modle: no such key; did you mean model?",
        count=4,
    )
    assert not runs.exists()


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["data.patch_size=[16,32,33]"], "33 voxels along x"),
        (["data.patch_size=[16,0,32]"], "expected three positive numbers"),
        (["model={network: scnas}"], "data.patch_size: "),
        (["predict.window=[16,32,31]"], "predict.window: "),
        (["predict.inputs=3", "stages=[predict]"], "predict.inputs: expected"),
        (["data.volumes={a: 1}", "data.source=folder"], "data.volumes: "),
    ],
)
def test_sizes_and_types_that_cannot_work_are_refused(tiny, cli, words, output):
    errors = refused_all(cli(tiny, *words))
    assert any(output in line for line in errors)


def refused_all(answer) -> list[str]:
    assert answer.code == 2
    assert "Traceback" not in answer.err
    return answer.errors


@pytest.mark.parametrize("words", [[], ["--nothing"], ["no_such_config"], ["resume=nowhere"], ["trainer.max_epochs=3"]])
def test_a_command_line_without_a_config_is_answered(cli, words):
    refused(cli(*words))


def test_a_test_set_of_nothing_is_found_before_the_training(tmp_path, tiny, cli):
    refused(cli(tiny, "data.test.count=0", f"runs_dir={tmp_path / 'runs'}"), "no volume to test on")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("word", ["trainer.strategy=ddq", "trainer.accelerator=mps", "trainer.devices=0"])
def test_devices_that_are_not_there_leave_no_run(tmp_path, tiny, cli, word):
    refused(cli(tiny, word, f"runs_dir={tmp_path / 'runs'}"), "trainer")
    assert not [p for p in (tmp_path / "runs").rglob("*") if p.is_file()]


def test_a_part_of_an_epoch_that_is_less_than_a_batch_is_reported_in_one_line(tmp_path, tiny, cli):
    answer = cli(tiny, "trainer.limit_train_batches=0.001", f"runs_dir={tmp_path / 'runs'}")
    refused(answer, "trainer: You requested to check 0.001 of the `train_dataloader`")


# checkpoints


@pytest.fixture
def spoilt(tmp_path, trained) -> Callable[[str], Path]:
    """A checkpoint with something wrong."""

    def make(how: str) -> Path:
        path = tmp_path / f"{how}.ckpt"
        shutil.copy(trained.run / "checkpoints" / "best.ckpt", path)
        if how == "truncated":
            path.write_bytes(path.read_bytes()[:1000])
        elif how == "empty":
            path.write_bytes(b"")
        else:
            content = torch.load(path, weights_only=True)
            if how == "cells":
                content["cytovox"]["task"] = "cells"
            else:
                del content["cytovox"]
            torch.save(content, path)
        return path

    return make


CHECKPOINTS = [
    ("cells", "a checkpoint of task cells, but this config's task is organelle"),
    ("truncated", "cannot be read as a checkpoint"),
    ("empty", "cannot be read as a checkpoint"),
    ("foreign", "not a checkpoint of Cytovox"),
]


@pytest.mark.parametrize(("how", "expected"), CHECKPOINTS)
@pytest.mark.parametrize("key", ["init_from", "predict.checkpoint"])
def test_a_checkpoint_that_cannot_be_used_is_refused_before_anything_is_written(
    tmp_path, tiny, cells, cli, spoilt, key, how, expected
):
    runs = tmp_path / "runs"
    stages = "[predict]" if key == "predict.checkpoint" else "[fit]"
    words = [f"stages={stages}", f"{key}={spoilt(how)}", f"predict.inputs=[{cells}/*.TCF]", f"runs_dir={runs}"]
    refused(cli(tiny, *words), expected)
    assert not runs.exists()


def test_a_checkpoint_of_another_network_is_refused(tmp_path, tiny, trained, cli):
    words = [f"init_from={trained.run}", "model.channels=[8,24]", f"runs_dir={tmp_path / 'runs'}"]
    refused(cli(tiny, *words), "this config's differs at")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("predict.stride=[32,64,64]", "predict: sliding window: stride: [32, 64, 64]"),
        ("predict.window=[17,32,32]", "predict.window: the network of "),
    ],
)
def test_windows_that_the_weights_cannot_take_begin_no_run(tmp_path, trained, cells, cli, word, expected):
    # legal for the network of the config, which is not that of the weights
    model = "model={network: residual_unet, channels: [8], strides: [1], strides_z: [1]}"
    words = ["stages=[predict]", f"predict.inputs=[{cells}/HeLa-00001.TCF]", f"predict.checkpoint={trained.run}"]
    answer = cli("organelle_demo", *words, model, word, "logging.wandb=disabled", f"runs_dir={tmp_path / 'runs'}")
    refused(answer, expected)
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_of_other_organelles_is_not_scored(tmp_path, tiny, trained, cli):
    words = [f"init_from={trained.run}", "stages=[test]", "data.organelles=[membrane, nucleus, lipid, nucleolus]"]
    refused(
        cli(tiny, *words, f"runs_dir={tmp_path / 'runs'}"), "the weights predict membrane, nucleus, nucleolus, lipid"
    )


def test_a_run_whose_last_checkpoint_is_truncated_is_not_resumed(tmp_path, trained, cli):
    run = Path(shutil.copytree(trained.run, tmp_path / "run"))
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    refused(cli(f"resume={run}", "stages=[fit]"), "last.ckpt: cannot be read as a checkpoint")


def test_no_weights_at_all_get_advice_what_to_do(tmp_path, tiny, cells, cli, monkeypatch):
    monkeypatch.setattr("experiments.weights.shipped_weights", dict)
    words = ["stages=[predict]", f"predict.inputs=[{cells}/*.TCF]", f"runs_dir={tmp_path / 'runs'}"]
    refused(cli(tiny, *words), "no earlier run", "predict.checkpoint=RUN_FOLDER")


def test_a_dry_run_does_not_train_over_a_run(trained, cli):
    before = (trained.run / "checkpoints" / "last.ckpt").read_bytes()
    refused(cli(f"resume={trained.run}", "--dry-run"), "not with --dry-run")
    assert (trained.run / "checkpoints" / "last.ckpt").read_bytes() == before


# disks and folders


@pytest.mark.parametrize("below", ["", "runs", "runs/deeper"])
def test_a_run_folder_below_a_file_is_refused_before_anything_is_computed(tmp_path, tiny, cli, below):
    file = tmp_path / "taken"
    file.write_text("mine")
    answer = cli(tiny, f"runs_dir={file / below}")
    refused(answer, "runs_dir: ", "choose another with runs_dir=")
    assert answer.err.count("\n") == 1
    assert file.read_text() == "mine"


def test_a_file_where_the_run_s_name_would_be_is_refused(tmp_path, tiny, cli):
    (tmp_path / "tiny").write_text("mine")
    refused(cli(tiny, f"runs_dir={tmp_path}"), "runs_dir: ")
    assert (tmp_path / "tiny").read_text() == "mine"


def no_space_for(monkeypatch, name: str) -> None:
    replace = os.replace

    def full(source, target, **more):
        if name in str(target):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return replace(source, target, **more)

    monkeypatch.setattr(os, "replace", full)


def test_a_full_disk_of_the_cache_is_reported_and_begins_no_run(tmp_path, cells, folder_config, cli, monkeypatch):
    config = folder_config(cells)
    no_space_for(monkeypatch, ".safetensors")
    refused(cli(config, f"data.cache_dir={tmp_path / 'cache'}"), "no space left")
    assert not (config.parent / "runs").exists()
    nothing_half_written(tmp_path / "cache")


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "test_cases.csv", "report.html"])
def test_a_full_disk_in_the_middle_of_a_run_is_reported_once(tmp_path, tiny, cli, monkeypatch, name):
    no_space_for(monkeypatch, name)
    refused(cli(tiny, f"runs_dir={tmp_path / 'runs'}", "trainer.max_epochs=1"), "no space left")
    nothing_half_written(tmp_path / "runs")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_really_full_is_reported_in_one_line(tiny, cli, small_disk):
    refused(cli(tiny, f"runs_dir={small_disk}"), "no space left")
    nothing_half_written(small_disk)


def test_a_cache_on_a_full_disk_is_reported_in_one_line(tmp_path, cells, folder_config, cli, small_disk):
    config = folder_config(cells)
    (small_disk / "filling").write_bytes(bytes(340_000))
    refused(cli(config, f"data.cache_dir={small_disk}", f"runs_dir={tmp_path / 'runs'}"), "no space left")
    assert not (tmp_path / "runs").exists()
    nothing_half_written(small_disk)


def test_simulating_onto_a_full_disk_is_reported_in_one_line(tmp_path, tiny, cli, small_disk):
    (small_disk / "filling").write_bytes(bytes(390_000))
    refused(cli(tiny, f"data.cache_dir={small_disk}", f"runs_dir={tmp_path / 'runs'}"), "no space left")
    nothing_half_written(small_disk)
