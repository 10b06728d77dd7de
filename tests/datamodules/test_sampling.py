"""Patches are the same for any number of workers, and all ranks together use every index once."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from datamodules.cache import PreparedCase, store
from datamodules.sampling import EpochSampler, PatchDataset, PreparedVolumes, evaluation_indices
from transforms.intensity import rand_ri_jitter
from transforms.patches import foreground_centres, rand_organelle_patch


def _cases(folder: Path, count: int = 3) -> list[PreparedCase]:
    cases = []
    for n in range(count):
        rng = np.random.default_rng(n)
        mask = (rng.random((2, 8, 16, 16)) > 0.8).astype(np.uint8)
        centres = {f"centres_{k}": c for k, c in enumerate(foreground_centres(mask, 50))}
        store(
            folder / f"{n}.safetensors",
            {
                "image": (n + rng.random((1, 8, 16, 16), dtype=np.float32) / 2) / 4,  # case n begins at n / 4
                "mask": mask,
                "labelled": np.array([1, n % 2], np.uint8),
                "spacing_um": np.ones(3),
                **centres,
            },
        )
        cases.append(PreparedCase(folder / f"{n}.safetensors"))
    return cases


def _dataset(folder: Path, seed: int = 3) -> PatchDataset:
    transforms = [rand_organelle_patch((4, 8, 8), p_scale=0.5, p_rotate=0.5), *rand_ri_jitter("image", 0.002, 0.1)]
    return PatchDataset(_cases(folder), transforms, seed)


def _epochs(dataset: PatchDataset, workers: int, epochs: int = 2) -> list[torch.Tensor]:
    sampler = EpochSampler(12, batch_size=3)
    more = {"persistent_workers": True, "prefetch_factor": 2} if workers else {}
    loader = DataLoader(dataset, batch_size=3, sampler=sampler, num_workers=workers, **more)  # type: ignore[arg-type]
    seen = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        seen.append(torch.cat([batch["image"] for batch in loader]))
    return seen


def test_a_patch_depends_only_on_seed_epoch_and_index_for_any_number_of_workers(tmp_path: Path) -> None:
    alone = _epochs(_dataset(tmp_path), 0)
    for workers in (1, 2):
        for one, other in zip(alone, _epochs(_dataset(tmp_path), workers), strict=True):
            assert torch.equal(one, other), workers
    assert not torch.equal(alone[0], alone[1])
    assert not torch.equal(alone[0], _epochs(_dataset(tmp_path, seed=4), 0, 1)[0])


def test_a_patch_does_not_depend_on_the_patches_before_it(tmp_path: Path) -> None:
    forward, backward = _dataset(tmp_path), _dataset(tmp_path)
    keys = [(e, n) for e in (0, 5) for n in range(6)]
    first = {key: forward[key] for key in keys}
    for key in reversed(keys):
        again = backward[key]
        assert torch.equal(again["image"], first[key]["image"])
        assert torch.equal(again["mask"], first[key]["mask"])


def test_every_case_is_drawn_equally_often(tmp_path: Path) -> None:
    dataset = PatchDataset(_cases(tmp_path), [rand_organelle_patch((4, 8, 8))], 0)
    drawn = [int(4 * dataset[0, n]["image"].min()) for n in range(30)]
    assert [drawn.count(n) for n in range(3)] == [10, 10, 10]
    assert sorted(drawn[:3]) == [0, 1, 2]


def test_a_dataset_that_has_opened_its_files_can_be_pickled(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    before = dataset[0, 1]["image"]
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0, 1]["image"], before)


def test_a_sample_has_the_arrays_of_the_loss(tmp_path: Path) -> None:
    sample = _dataset(tmp_path)[0, 0]
    assert sample.keys() == {"image", "mask", "labelled"}
    assert (sample["image"].shape, sample["image"].dtype) == ((1, 4, 8, 8), torch.float32)
    assert (sample["mask"].shape, sample["mask"].dtype) == ((2, 4, 8, 8), torch.uint8)
    assert (sample["labelled"].shape, sample["labelled"].dtype) == ((2,), torch.bool)


@settings(deadline=None, max_examples=100)
@given(length=st.integers(1, 50), world=st.integers(1, 5), batch=st.integers(1, 4), epoch=st.integers(0, 3))
def test_ranks_divide_an_epoch_evenly(length: int, world: int, batch: int, epoch: int) -> None:
    samplers = [EpochSampler(length, rank, world, batch) for rank in range(world)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    parts = [list(sampler) for sampler in samplers]
    assert {len(part) for part in parts} == {len(samplers[0])}
    assert len(samplers[0]) % batch == 0
    together = sorted(key for part in parts for key in part)
    assert together == [(epoch, index) for index in range(len(together))]
    assert len(together) == max(world * batch, length - length % (world * batch))


def test_an_iteration_keeps_its_epoch() -> None:
    sampler = EpochSampler(4)
    begun = iter(sampler)
    first = next(begun)
    sampler.set_epoch(1)
    assert [first, *begun] == [(0, index) for index in range(4)]


@settings(deadline=None, max_examples=100)
@given(length=st.integers(0, 20), world=st.integers(1, 6))
def test_each_case_is_evaluated_once_and_no_rank_is_empty(length: int, world: int) -> None:
    parts = [list(evaluation_indices(length, rank, world)) for rank in range(world)]
    assert sorted(index for part in parts for index in part) == list(range(length))
    padded = [list(evaluation_indices(length, rank, world, pad=True)) for rank in range(world)]
    assert [[index for index in part if index < length] for part in padded] == parts
    assert all(bool(part) == (length > 0) for part in padded)


def test_a_volume_past_the_end_has_no_labels(tmp_path: Path) -> None:
    volumes = PreparedVolumes(_cases(tmp_path, 2))
    assert len(volumes) == 2
    assert volumes[1]["labelled"].tolist() == [True, True]
    assert volumes[3]["labelled"].tolist() == [False, False]
    assert volumes[3]["image"].shape == (1, 8, 16, 16)


@pytest.mark.parametrize("epoch", [0, 7])
def test_no_two_patches_of_an_epoch_are_the_same(tmp_path: Path, epoch: int) -> None:
    dataset = _dataset(tmp_path)
    patches = {dataset[epoch, n]["image"].numpy().tobytes() for n in range(20)}
    assert len(patches) == 20
