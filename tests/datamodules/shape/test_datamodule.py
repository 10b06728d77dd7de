"""The data module of the shape tasks: batches of cells from folders and from the simulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from cytovox.errors import InputError
from datamodules.config import SimulatedSet
from datamodules.shape.cases import ShapeCell
from datamodules.shape.config import ShapeFolderData, ShapeSimulatorData
from datamodules.shape.datamodule import ShapeDataModule
from datamodules.shape.dataset import ShapeDataset
from tests.datamodules.shape.write import write_shapes
from transforms.shape_augment import RandMirrorZd, rand_shape


def box(number: int) -> np.ndarray:
    obj = np.zeros((64, 64, 64), np.uint8)
    obj[20:50, 10 : 30 + number, 20:40] = 255
    return obj


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for kind in ("image", "mask", "obj"):
        (tmp_path / kind).mkdir()
    for number in range(12):
        obj = box(number)
        name = f"{'AB'[number % 2]}_{number:02d}.tif"
        tifffile.imwrite(tmp_path / "obj" / name, obj)
        tifffile.imwrite(tmp_path / "mask" / name, obj[32])
        tifffile.imwrite(tmp_path / "image" / name, obj[32] // 2)
    return tmp_path


def folder(root: Path, **more: object) -> ShapeFolderData:
    return ShapeFolderData(root=str(root), folds=3, batch_size=3, num_workers=0, **more)  # type: ignore[arg-type]


def simulator(**more: object) -> ShapeSimulatorData:
    few = {"train": SimulatedSet(count=5), "val": SimulatedSet(count=1, first_seed=50)}
    return ShapeSimulatorData(**few, test=SimulatedSet(count=2, first_seed=60), num_workers=0, batch_size=2, **more)  # type: ignore[arg-type]


def test_mask_and_object_agree_in_batches_from_a_folder(root: Path) -> None:
    data = ShapeDataModule(folder(root, val=0.25), seed=0)
    assert {split: len(cells) for split, cells in data.find().items()} == {"train": 6, "val": 2, "test": 4}
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 2
    for batch in batches:
        assert batch["image"].shape == batch["mask"].shape == (3, 1, 64, 64)
        assert batch["obj"].shape == (3, 1, 64, 64, 64)
        assert all(batch[key].dtype == torch.float32 for key in ("image", "mask", "obj"))
        assert torch.equal(batch["obj"][:, :, 32], batch["mask"])
    assert sorted(torch.cat([b["index"] for b in batches]).tolist()) == list(range(6))
    assert data.notes() == []


def test_validation_and_test_cells_are_unchanged(root: Path) -> None:
    data = ShapeDataModule(folder(root), seed=0)
    (val,) = data.val_dataloader()
    cells = data.find()["val"]
    for k, index in enumerate(val["index"].tolist()):
        number = int(cells[index].name[2:])
        assert np.array_equal(val["obj"][k, 0].numpy() * 255, box(number))
    names = [data.find()["test"][i].name for batch in data.test_dataloader() for i in batch["index"]]
    assert len(set(names)) == len(names) == 4


def test_a_sample_depends_only_on_seed_epoch_and_index(root: Path) -> None:
    cells = ShapeDataModule(folder(root), seed=0).find()["train"]
    one, other = (ShapeDataset(cells, rand_shape(), seed=7) for _ in range(2))
    later = one[(3, 1)]
    _ = other[(0, 0)], other[(3, 0)]
    again = other[(3, 1)]
    assert all(torch.equal(torch.as_tensor(later[k]), torch.as_tensor(again[k])) for k in later)
    assert not torch.equal(one[(4, 1)]["obj"], later["obj"])
    assert not torch.equal(ShapeDataset(cells, rand_shape(), seed=8)[(3, 1)]["image"], later["image"])


def test_samples_do_not_depend_on_the_number_of_workers(root: Path) -> None:
    config = folder(root)
    alone = [batch["obj"] for batch in ShapeDataModule(config, seed=0).train_dataloader()]
    config.num_workers = 2
    assert all(map(torch.equal, alone, [b["obj"] for b in ShapeDataModule(config, seed=0).train_dataloader()]))


def test_ranks_have_equally_many_cells(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tested: list[list[int]] = []
    trained: list[list[int]] = []
    for rank in range(3):
        data = ShapeDataModule(folder(root), seed=0)
        monkeypatch.setattr(data, "_rank_and_world", lambda rank=rank: (rank, 3))
        tested.append([int(i) for batch in data.test_dataloader() for i in batch["index"]])
        data.config.batch_size = 2
        trained.append([int(i) for batch in data.train_dataloader() for i in batch["index"]])
    assert [len(indices) for indices in tested] == [2, 2, 2]
    assert sorted(tested[0] + tested[1] + tested[2]) == [-1, -1, 0, 1, 2, 3]
    assert [len(indices) for indices in trained] == [2, 2, 2]
    assert len({*trained[0], *trained[1], *trained[2]}) == 6


def test_an_epoch_may_have_more_samples_than_cells(root: Path) -> None:
    data = ShapeDataModule(folder(root, cells_per_epoch=21), seed=0)
    drawn = torch.cat([batch["index"] for batch in data.train_dataloader()])
    counts = torch.bincount(drawn)
    assert (len(drawn), int(counts.max() - counts.min())) == (21, 0)


def test_a_limit_is_applied_and_other_splits_are_not_read(root: Path) -> None:
    data = ShapeDataModule(folder(root), seed=0, limit=2, splits=("test",))
    assert {split: len(cells) for split, cells in data.find().items()} == {"train": 0, "val": 0, "test": 2}
    with pytest.raises(InputError, match="no cell to train on"):
        data.setup("fit")
    with pytest.raises(InputError, match="no cell to test"):
        ShapeDataModule(ShapeFolderData(root=str(root), folds=0), seed=0).setup("test")


def test_given_cells_replace_those_of_the_config(root: Path) -> None:
    cells = ShapeDataModule(folder(root), seed=0).find()["train"]
    inner = ShapeDataModule(folder(root), seed=0, cells={"train": cells[:4], "test": cells[4:]})
    assert [len(found) for found in inner.find().values()] == [4, 0, len(cells) - 4]
    assert inner.val_dataloader() == []


def test_the_digest_depends_on_data_and_folds(root: Path) -> None:
    first = ShapeDataModule(folder(root), seed=0).digest()
    assert first == ShapeDataModule(folder(root), seed=1).digest()
    assert first != ShapeDataModule(folder(root, fold=1), seed=0).digest()
    obj = box(0)
    obj[5, 20, 30] = 255
    tifffile.imwrite(root / "obj" / "A_00.tif", obj)
    assert first != ShapeDataModule(folder(root), seed=0).digest()


def test_cells_are_simulated_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reported: list[tuple[str, int, int]] = []
    config = simulator(cache_dir=str(tmp_path))
    made = ShapeDataModule(config, seed=0, progress=lambda *step: reported.append(step)).find()
    assert {split: len(cells) for split, cells in made.items()} == {"train": 5, "val": 1, "test": 2}
    assert reported[-1] == ("simulating test cells", 2, 2)
    assert [cell.group for cell in made["train"]] == config.train.presets
    monkeypatch.setattr("datamodules.shape.simulated.simulate_shape", None)
    read = ShapeDataModule(config, seed=0).find()
    for old, new in zip(made["train"], read["train"], strict=True):
        assert old.name == new.name
        assert all(np.array_equal(getattr(old, k), getattr(new, k)) for k in ("image_YX", "mask_YX", "obj_ZYX"))
    assert len(list((tmp_path / "shapes").iterdir())) == 3


def test_a_damaged_cache_is_replaced(tmp_path: Path) -> None:
    config = simulator(cache_dir=str(tmp_path))
    first = ShapeDataModule(config, seed=0).digest()
    for path in (tmp_path / "shapes").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    assert ShapeDataModule(config, seed=0).digest() == first


def test_simulated_cells_are_not_flipped_along_z() -> None:
    data = ShapeDataModule(simulator(), seed=0)
    mirrors = [step for step in data.augmentation().transforms if isinstance(step, RandMirrorZd)]
    assert [mirror.prob for mirror in mirrors] == [0.0, 0.0]
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch["obj"][:, :, 32], batch["mask"])


def test_a_sample_without_an_object_has_image_and_mask_only() -> None:
    cell = ShapeCell("a", "", np.zeros((64, 64), np.float32), np.ones((64, 64), bool), None)
    data = ShapeDataModule(ShapeFolderData(num_workers=0), 0, cells={"test": [cell]})
    assert set(next(iter(data.test_dataloader()))) == {"image", "mask", "index"}


def test_written_cells_are_read_unchanged(tmp_path: Path) -> None:
    made = ShapeDataModule(simulator(), seed=0).find()["train"]
    assert len(write_shapes(made, tmp_path)) == 3 * len(made)
    read = ShapeDataModule(ShapeFolderData(root=str(tmp_path), folds=0, val=0, class_pattern=r"(.+)_\d+"), seed=0)
    for old, new in zip(sorted(made, key=lambda c: c.name), read.find()["train"], strict=True):
        assert (old.name, old.group) == (new.name, new.group)
        assert all(np.array_equal(getattr(old, k), getattr(new, k)) for k in ("image_YX", "mask_YX", "obj_ZYX"))
    assert read.notes() == []
