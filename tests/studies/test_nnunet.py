"""nnU-Net's side without nnU-Net: its data set, its trainer over time, its commands; ours end to end (slow)."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import types
from pathlib import Path

import nibabel
import numpy as np
import pytest

from cytovox.errors import InputError
from cytovox.organelles import ORGANELLES
from studies import nnunet

SMALL = (
    "data.shape=[32,64,64]", "data.patch_size=[16,32,32]", "model.channels=[8,16]", "data.num_workers=0",
    "trainer.enable_progress_bar=false",
)  # fmt: skip
COUNTS = ("--count", "2", "--val-count", "1", "--test-count", "2", "--batch", "1", "--device", "cpu")


def nested(rng):
    """Masks as an organelle set has them: the nucleolus in the nucleus, nucleus and lipid apart in the membrane."""
    membrane = rng.random((6, 7, 8)) > 0.3
    nucleus = membrane & (rng.random(membrane.shape) > 0.5)
    nucleolus = nucleus & (rng.random(membrane.shape) > 0.5)
    lipid = membrane & ~nucleus & (rng.random(membrane.shape) > 0.5)
    return np.stack([membrane, nucleus, nucleolus, lipid])


def test_labels_hold_the_masks_of_every_organelle():
    masks_KZYX = nested(np.random.default_rng(0))
    labels_ZYX = nnunet.labels_of(masks_KZYX.astype(np.uint8))
    assert set(np.unique(labels_ZYX)) == {0, 1, 2, 3, 4}
    assert np.array_equal(nnunet.regions_of(labels_ZYX), masks_KZYX)


def test_a_volume_is_written_x_first_as_nnunets_reader_expects(tmp_path):
    values_ZYX = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    nnunet.write_volume(tmp_path / "v.nii.gz", values_ZYX, (0.3, 0.2, 0.1))
    image = nibabel.load(tmp_path / "v.nii.gz")
    assert image.shape == (4, 3, 2)
    assert np.allclose(image.header.get_zooms(), (0.1, 0.2, 0.3))
    assert np.array_equal(nnunet.read_volume(tmp_path / "v.nii.gz"), values_ZYX)


def test_a_missing_nnunet_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nnunetv2" else real(name))
    assert nnunet.main(["--work", str(tmp_path / "work")]) == 2
    error = capsys.readouterr().err
    assert error == "nnunetv2: not installed; pip install 'nnunetv2>=2.8,<2.9', or give --ours-only\n"
    assert not (tmp_path / "work").exists()


@pytest.fixture
def fake_nnunet(tmp_path, monkeypatch):
    """A package with nnU-Net's three commands that writes its arguments and its variables, for child processes."""
    site = tmp_path / "site"
    body = (
        "import json, os, sys\n"
        "def {function}():\n"
        "    variables = {{k: v for k, v in os.environ.items() if k.startswith(('nnUNet_', 'CYTOVOX_NNUNET'))}}\n"
        "    print('Epoch 0\\nquiet\\ncytovox: ' + json.dumps([sys.argv[1:], variables]))\n"
        "    if '-tr' in sys.argv and os.environ['CYTOVOX_NNUNET_MINUTES'] == '13.0': raise RuntimeError('Error')\n"
    )
    for module, function in nnunet.COMMANDS.values():
        path = site.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body.format(function=function))
    for folder in [path for path in site.rglob("*") if path.is_dir()]:
        (folder / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(site))
    return site


def options(work: Path, minutes: float = 8.0) -> argparse.Namespace:
    (work / "nnunet").mkdir(parents=True, exist_ok=True)
    return argparse.Namespace(work=work, minutes=minutes, steps=None, device="cpu")


def test_a_command_of_nnunet_gets_its_folders_and_the_minutes(fake_nnunet, tmp_path, capsys):
    nnunet.call_nnunet("train", ["1", "3d_fullres", "0"], options(tmp_path))
    words, variables = json.loads((tmp_path / "nnunet" / "train.log").read_text().split("cytovox: ")[1])
    assert words == ["1", "3d_fullres", "0"]
    assert variables["nnUNet_raw"] == str(tmp_path / "nnunet" / "raw")
    assert variables["CYTOVOX_NNUNET_MINUTES"] == "8.0"
    assert variables["CYTOVOX_NNUNET_STEPS"] == ""
    assert (Path(variables["nnUNet_extTrainer"]) / "timed_trainer.py").is_file()
    out = capsys.readouterr().out
    assert "Epoch 0" in out
    assert "quiet" not in out


def test_a_command_of_nnunet_that_fails_names_its_log(fake_nnunet, tmp_path):
    with pytest.raises(InputError, match=r"nnU-Net: train failed with exit code 1; its output is in .*train\.log"):
        nnunet.call_nnunet("train", ["-tr", "x"], options(tmp_path, minutes=13.0))


def test_nnunet_plans_trains_and_predicts_with_one_trainer_and_one_split(fake_nnunet, tmp_path):
    work = tmp_path / "nnunet"
    arguments = options(tmp_path)
    (work / "cases.json").write_text(json.dumps({"train": ["a", "b"], "val": ["c"], "test": ["d"]}))
    nnunet.run_nnunet(arguments)
    splits = json.loads((work / "preprocessed" / nnunet.DATASET / "splits_final.json").read_text())
    assert splits == [{"train": ["a", "b"], "val": ["c"]}]
    words = {name: json.loads((work / f"{name}.log").read_text().split("cytovox: ")[1])[0] for name in nnunet.COMMANDS}
    assert words["plan"][:6] == ["-d", "1", "-pl", "nnUNetPlannerResEncM", "-c", "3d_fullres"]
    assert words["train"] == ["1", "3d_fullres", "0", "-tr", "TimedTrainer", "-p", nnunet.PLANS, "-device", "cpu"]
    predict = dict(zip(words["predict"][:-1:2], words["predict"][1::2], strict=True))
    assert (predict["-tr"], predict["-p"], predict["-f"]) == ("TimedTrainer", nnunet.PLANS, "0")


class FakeTrainer:
    """What of nnU-Net's trainer `TimedTrainer` uses."""

    num_iterations_per_epoch, initial_lr = 3, 0.01

    def __init__(self):
        self.rates, self.calls = [], []
        self.optimizer = types.SimpleNamespace(param_groups=[{"lr": None}])
        self.dataloader_train = self.dataloader_val = iter(range(1000))

    def train_step(self, batch):
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        return {"loss": batch}

    def validation_step(self, batch):
        return {"loss": batch}

    def __getattr__(self, name):
        if not name.startswith(("on_", "print_to")):
            raise AttributeError(name)
        return lambda *values: self.calls.append((name, *values))


@pytest.fixture
def timed_trainer(monkeypatch):
    """`TimedTrainer` over `FakeTrainer`."""
    parts = ["nnunetv2", "training", "nnUNetTrainer", "nnUNetTrainer"]
    for depth in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:depth]), types.ModuleType(".".join(parts[:depth])))
    sys.modules[".".join(parts)].nnUNetTrainer = FakeTrainer
    path = Path(nnunet.__file__).with_name("nnunet_trainers") / "timed_trainer.py"
    spec = importlib.util.spec_from_file_location("timed_trainer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TimedTrainer()


def test_the_schedule_of_nnunet_runs_over_the_steps(timed_trainer, monkeypatch):
    monkeypatch.setenv("CYTOVOX_NNUNET_MINUTES", "60")
    monkeypatch.setenv("CYTOVOX_NNUNET_STEPS", "8")
    timed_trainer.run_training()
    assert timed_trainer.rates == pytest.approx([0.01 * (1 - k / 8) ** 0.9 for k in range(8)], rel=1e-4)
    names = [call[0] for call in timed_trainer.calls]
    assert (names[0], names[-1]) == ("on_train_start", "on_train_end")
    assert names.count("on_epoch_end") == names.count("on_validation_epoch_end") == 3
    epochs = [len(call[1]) for call in timed_trainer.calls if call[0] == "on_train_epoch_end"]
    assert epochs == [3, 3, 2]
    assert any("cytovox: 8 steps" in str(call) for call in timed_trainer.calls)


def test_the_training_of_nnunet_ends_with_the_time(timed_trainer, monkeypatch):
    clock = iter(range(0, 10_000, 10))  # every look at the clock is ten seconds later
    fake = types.SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setitem(type(timed_trainer).run_training.__globals__, "time", fake)
    monkeypatch.setenv("CYTOVOX_NNUNET_MINUTES", "2")
    timed_trainer.run_training()
    assert 8 <= len(timed_trainer.rates) <= 13
    assert timed_trainer.rates[-1] < 0.25 * timed_trainer.initial_lr


@pytest.mark.slow
def test_ours_is_trained_and_scored_on_the_data_written_for_nnunet(tmp_path):
    assert nnunet.main(["--work", str(tmp_path), "--ours-only", "--steps", "2", *COUNTS, *SMALL]) == 0
    raw = tmp_path / "nnunet" / "raw" / nnunet.DATASET
    about = json.loads((raw / "dataset.json").read_text())
    # nnU-Net pairs the regions, in the order of the file, with regions_class_order
    assert list(about["labels"]) == ["background", *ORGANELLES]
    assert (about["regions_class_order"], about["numTraining"]) == ([1, 2, 3, 4], 3)
    assert len(list((raw / "imagesTr").iterdir())) == len(list((raw / "labelsTr").iterdir())) == 3
    assert len(list((raw / "imagesTs").iterdir())) == 2
    cases = json.loads((tmp_path / "nnunet" / "cases.json").read_text())
    assert cases["voxels_lost_as_labels"] == 0
    result = json.loads((tmp_path / "nnunet.json").read_text())
    assert 0 <= result["dice"]["ours"]["mean"][0] <= 1
    # predictions equal to the truth score 1
    (tmp_path / "nnunet" / "predicted").mkdir()
    for name in cases["test"]:
        (tmp_path / "nnunet" / "predicted" / f"{name}.nii.gz").write_bytes(
            (raw / f"labelsTs/{name}.nii.gz").read_bytes()
        )
    assert nnunet.main(["--work", str(tmp_path), "--part", "score", "--steps", "2", *COUNTS, *SMALL]) == 0
    result = json.loads((tmp_path / "nnunet.json").read_text())
    assert result["dice"]["nnU-Net"]["mean"][0] == 1
    assert result["dice"]["ours minus nnU-Net"][2] < 0
