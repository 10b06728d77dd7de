"""Test of simulated cells: data module, tables and figures."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from cytovox.inference.tiling import SlidingWindow
from cytovox.models.metadata import OrganelleMetadata
from cytovox.simulation import load
from datamodules.config import SimulatedSet, SimulatorData, data_errors, simulated_names
from datamodules.organelle import OrganelleDataModule
from lightning_modules.organelle import OrganelleModule
from training.results import draw_examples, write_table, write_test_tables
from training.rundir import RunFolder

ORGANELLES = ["membrane", "nucleus", "nucleolus", "lipid"]
METADATA = OrganelleMetadata(
    task="organelle",
    model={},
    organelles=ORGANELLES,
    resample="spacing_um",
    resample_spacing_um=[0.4] * 3,
    resample_grid=[8] * 3,
    ri_range=[1.33, 1.39],
    patch_size=[16, 32, 32],
)


class Thresholds(nn.Module):
    """One threshold of the index for each organelle."""

    def forward(self, image_BCZYX: torch.Tensor) -> torch.Tensor:
        levels = torch.tensor([0.2, 0.4, 0.6, 0.8])[:, None, None, None]
        return 100 * (image_BCZYX - levels)


def _config() -> SimulatorData:
    return SimulatorData(
        shape=[16, 32, 32], spacing_um=[0.6, 0.6, 0.6], patch_size=[8, 16, 16], num_workers=0, batch_size=1,
        resample_spacing_um=[0.6] * 3, train=SimulatedSet(["HeLa"], 1), val=SimulatedSet(["HeLa"], 1, first_seed=10),
        test=SimulatedSet(counts={"RAW264.7": 2, "HeLa": 1}, first_seed=20),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.simulated.cores", lambda: 1)


def test_tables_and_figures_of_a_test_agree_with_the_masks(tmp_path: Path) -> None:
    data, folder = OrganelleDataModule(_config(), seed=0), RunFolder(tmp_path)
    folder.require_writable()
    module = OrganelleModule(Thresholds(), METADATA, SlidingWindow((16, 32, 32), (8, 16, 16), pad_yx=(0, 0)))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                         default_root_dir=tmp_path)  # fmt: skip
    means = trainer.test(module, datamodule=data, verbose=False)[0]
    write_test_tables(module.scores, folder, ["no"] * 99)
    draw_examples(module, module.scores, list(data.find()["test"]), folder)

    def rows(name: str) -> list[dict[str, str]]:
        with (folder.tables / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    assert [(r["case"], r["group"]) for r in rows("test_cases")] == [
        ("RAW264.7_20", "RAW264.7"), ("RAW264.7_21", "RAW264.7"), ("HeLa_22", "HeLa"),
    ]  # fmt: skip
    assert [(r["group"], r["n"]) for r in rows("test_groups")] == [("RAW264.7", "2"), ("HeLa", "1")]
    assert [r["organelle"] for r in rows("test_windows")] == ORGANELLES
    membranes = [float(r["dice_membrane"]) for r in rows("test_cases")]
    assert np.mean(membranes) == pytest.approx(means["test/dice_membrane"], abs=1e-4)
    assert {p.stem for p in folder.figures.glob("*.png")} == {"test_best", "test_median", "test_worst"}
    assert (folder.figures / "test_median.glb").stat().st_size > 0


def test_simulated_cases_are_fully_labelled_and_named_by_seed() -> None:
    data = OrganelleDataModule(_config(), seed=0)
    case = data.find()["train"][0]
    raw, tomogram = case.load(), load(case.path)  # type: ignore[attr-defined]
    assert (case.name, case.cell_line, case.files) == ("HeLa_0", "HeLa", ())
    assert raw.labelled_K.all()
    for k, name in enumerate(ORGANELLES):
        np.testing.assert_array_equal(raw.masks_KZYX[k], tomogram.masks[name])
    assert data.digest() == OrganelleDataModule(_config(), seed=5).digest()
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (1, 1, 8, 16, 16)
    assert len(data.val_dataloader()) == 1
    assert data.notes() == []


def test_errors_of_simulated_data_name_their_keys() -> None:
    assert data_errors(_config()) == []
    bad = _config()
    bad.organelles, bad.noise_ri, bad.val.first_seed, bad.test.counts = ["golgi"], [2.0, 1.0], 0, {"CHO": 1}
    keys = [error.split(":")[0] for error in data_errors(bad)]
    assert keys == ["organelles", "noise_ri", "val.first_seed", "test.counts"]
    assert simulated_names(SimulatedSet(["A549", "HeLa"], 3, first_seed=5)) == [("A549", 5), ("HeLa", 6), ("A549", 7)]


def test_a_table_writes_nan_as_a_blank(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ["a", "b", "c"], [{"a": "x", "b": float("nan"), "c": 0.1234567}, {"a": "y"}])
    assert (tmp_path / "t.csv").read_text() == "a,b,c\nx,,0.12346\ny,,\n"
