"""Arithmetic of a plan with known results, valid patch sizes, and peaks of memory."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric.accelerators import CUDAAccelerator
from lightning_fabric.utilities import device_parser

from cytovox.errors import InputError
from cytovox.inference.predictor import DenseInferer
from cytovox.inference.tiling import SlidingWindow
from cytovox.losses.segmentation import LOSSES
from cytovox.models.metadata import OrganelleMetadata
from cytovox.networks import network_config
from cytovox.networks.residual_unet import ResidualUNetConfig
from cytovox.networks.scnas import ScNASConfig
from cytovox.preprocess.resampling import ResampleTo
from datamodules.config import SimulatedSet, SimulatorData
from datamodules.organelle import OrganelleDataModule
from experiments.planning import inference as plan_inference
from experiments.planning import machine as plan_machine
from experiments.planning.card import _ranks as card_ranks
from experiments.planning.data import Share, all_cases, find_prepared, requests_of
from experiments.planning.duration import EpochPlan, FitTimes, limited, plan_epoch, plan_run
from experiments.planning.inference import crop_of, time_windows
from experiments.planning.machine import _cgroup_limits, local_ranks, one_device
from experiments.planning.measure import affordable, explain_memory_error, is_out_of_memory
from experiments.planning.patch_sizes import (
    MemoryModel,
    Work,
    advice,
    axis_sizes,
    candidates,
    count_work,
    smaller_patch,
    too_large,
)
from lightning_modules.optim import Adam
from lightning_modules.organelle import MONITOR, OrganelleModule
from training.fit_metrics import MemoryWatch, PeakMemory, fit_metrics, private_bytes
from training.rundir import RunFolder
from training.trainer import EarlyStop, TrainerConfig, build_trainer

MB = 2**20


def _epoch(**more: int) -> EpochPlan:
    return EpochPlan(**{"batches": 100, "steps": 100, "global_batch": 4, "volumes": 5, **more})


# steps, ranks, limits


def test_an_epoch_of_400_patches_in_batches_of_4_is_100_steps():
    assert plan_epoch(400, 4, TrainerConfig(), 1, 5) == EpochPlan(100, 100, 4, 5)


def test_ranks_share_an_epoch_and_its_validation_volumes():
    assert plan_epoch(403, 4, TrainerConfig(), 3, 5) == EpochPlan(batches=33, steps=33, global_batch=12, volumes=2)


def test_accumulated_batches_are_one_step_and_the_last_step_takes_what_is_left():
    found = plan_epoch(100, 1, TrainerConfig(accumulate_grad_batches=8), 2, 0)
    assert (found.batches, found.steps, found.global_batch) == (50, 7, 16)


def test_the_steps_of_an_epoch_match_the_loader():
    config = SimulatorData(patches_per_epoch=403, batch_size=4)
    for ranks in (1, 2, 3, 500):
        module = OrganelleDataModule(config, 0)
        module.trainer = SimpleNamespace(global_rank=0, world_size=ranks)
        module.prepared = {"train": [None]}
        expected = len(module.train_dataloader())
        assert plan_epoch(403, 4, TrainerConfig(), ranks, 1).batches == expected


@pytest.mark.parametrize(("limit", "expected"), [(None, 40), (10, 10), (99, 40), (0.5, 20), (1.0, 40), (1, 1), (0, 0)])
def test_a_limit_is_a_count_or_a_fraction(limit, expected):
    assert limited(40, limit) == expected


# how long, and what ends it


def test_a_run_of_ten_epochs_is_ten_times_its_parts():
    times = FitTimes(batch=0.5, startup=3.0, epoch_start=1.0, volume=2.0, checkpoint=0.25)
    found = plan_run(_epoch(), times, TrainerConfig(max_epochs=10))
    assert found.epoch_seconds == pytest.approx(1 + 50 + 10 + 0.25)
    assert found.seconds == pytest.approx(3 + 10 * 61.25)
    assert (found.epochs, found.steps, found.ends_by, found.at_most) == (10, 1000, "max_epochs", False)


def test_a_validation_every_third_epoch_happens_three_times_in_ten_epochs():
    times = FitTimes(batch=0.5, volume=2.0)
    found = plan_run(_epoch(), times, TrainerConfig(max_epochs=10, check_val_every_n_epoch=3))
    assert found.seconds == pytest.approx(10 * 50 + 3 * 10)


def test_max_steps_ends_a_run_within_an_epoch():
    found = plan_run(_epoch(), FitTimes(batch=1.0, volume=2.0), TrainerConfig(max_epochs=300, max_steps=250))
    assert (found.epochs, found.steps, found.ends_by) == (2.5, 250, "max_steps")
    assert found.seconds == pytest.approx(250 + 2 * 10)


def test_max_time_ends_a_run_and_reduces_its_epochs():
    trainer = TrainerConfig(max_epochs=300, max_time="00:00:10:00")
    found = plan_run(_epoch(), FitTimes(batch=1.0, volume=4.0, startup=7.0), trainer)
    assert (found.ends_by, found.seconds) == ("max_time", 607.0)
    assert found.epochs == pytest.approx(5.0)
    assert found.steps == 500


def test_max_time_that_is_not_reached_changes_nothing():
    trainer = TrainerConfig(max_epochs=2, max_time="01:00:00:00")
    found = plan_run(_epoch(), FitTimes(batch=1.0), trainer)
    assert (found.ends_by, found.seconds) == ("max_epochs", 200)


def test_min_epochs_outlast_max_time():
    trainer = TrainerConfig(max_epochs=300, min_epochs=20, max_time="00:00:10:00")
    found = plan_run(_epoch(), FitTimes(batch=1.0), trainer)
    assert (found.epochs, found.seconds) == (20, 2000)


def test_a_run_without_limits_has_no_end():
    found = plan_run(_epoch(), FitTimes(batch=1.0), TrainerConfig(max_epochs=-1))
    assert (found.seconds, found.ends_by) == (math.inf, "nothing")


def test_a_time_limit_alone_ends_a_run():
    found = plan_run(_epoch(), FitTimes(batch=1.0), TrainerConfig(max_epochs=None, max_time="00:00:05:00"))
    assert (found.epochs, found.seconds) == (3.0, 300.0)


def test_early_stopping_makes_it_at_most():
    assert plan_run(_epoch(), FitTimes(batch=1.0), TrainerConfig(early_stopping=EarlyStop())).at_most


def test_a_run_of_no_epoch_takes_no_time():
    assert plan_run(_epoch(), FitTimes(batch=1.0), TrainerConfig(max_epochs=0)).seconds == 0


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.001, 100), (0.1, 50), (0.3, 17), (1.0, 13), (10.0, 4), (200.0, 2)]
)
def test_more_batches_are_measured_if_they_are_short(seconds, expected):
    assert affordable(seconds) == expected


def test_whole_steps_are_measured_where_batches_are_accumulated():
    assert affordable(1.0, accumulate=8) == 16


def test_missing_volumes_are_divided_over_workers():
    assert Share(missing=5, total=9, seconds=2.0, workers=2).all_seconds == 6.0


# patches

NETWORKS = [
    ResidualUNetConfig(),
    ResidualUNetConfig(channels=[16, 16]),
    ResidualUNetConfig(channels=[16, 16, 16], strides=[1, 2, 2]),
    ScNASConfig(),
    ScNASConfig(layers=4),
]


@settings(deadline=None, max_examples=60)
@given(network=st.sampled_from(NETWORKS), axis=st.integers(0, 2), size=st.integers(1, 300))
def test_legal_sizes_of_an_axis_are_those_that_the_network_accepts(network, axis, size):
    patch = [4 * network.divisor[a] for a in range(3)]
    found = axis_sizes(size, network.divisor[axis], network.minimum[axis])

    def accepted(n: int) -> bool:
        return network.errors((*patch[:axis], n, *patch[axis + 1 :])) == []

    assert found == [n for n in range(found[0], found[-1] + 1) if accepted(n)]
    assert len(found) >= 3
    nearest = min((n for n in range(1, 400) if accepted(n)), key=lambda n: abs(n - size))
    assert nearest in found


@pytest.mark.parametrize("network", NETWORKS)
def test_every_candidate_is_accepted_and_the_patch_itself_is_among_them(network):
    patch = tuple(max(4 * d, m) for d, m in zip(network.divisor, network.minimum, strict=True))
    found = candidates(patch, network)
    assert patch in found
    assert len(found) >= 3
    assert all(network.errors(candidate) == [] for candidate in found)
    assert [math.prod(c) for c in found] == sorted(math.prod(c) for c in found)


def test_the_next_smaller_patch_of_the_smallest_is_none():
    network = ScNASConfig()
    assert smaller_patch((96, 96, 96), network) == (64, 64, 64)
    assert smaller_patch((48, 48, 48), network) is None


def test_the_work_of_a_step_is_counted_without_computing_it():
    network = network_config("scnas")()
    before = psutil.Process().memory_info().rss
    work = count_work(network, (64, 128, 128), 1, 4)
    assert work.parameters == sum(p.numel() for p in network.build(1, 4).parameters())
    assert work.parameters == pytest.approx(12.99e6, rel=1e-3)
    # 127 GFLOP forward; backward is twice that, less the gradient of the image
    assert work.flop == pytest.approx(3 * 127e9, rel=0.02)
    assert work.saved_bytes > 1e9
    # none of them was allocated
    assert psutil.Process().memory_info().rss - before < 0.2e9


def test_work_and_features_grow_with_the_batch_and_16_bits_keep_less():
    network = ResidualUNetConfig(channels=[8, 16])
    one, two = (count_work(network, (16, 32, 32), n, 4) for n in (1, 2))
    assert two.flop == pytest.approx(2 * one.flop, rel=0.1)
    assert two.saved_bytes == pytest.approx(2 * one.saved_bytes, rel=0.1)
    assert count_work(network, (16, 32, 32), 2, 4, mixed=True).saved_bytes < two.saved_bytes


class _Undecided(ResidualUNetConfig):
    """A network whose control flow depends on values."""

    def build(self, in_channels: int, out_channels: int) -> torch.nn.Module:
        class Net(torch.nn.Conv3d):
            def forward(self, input: torch.Tensor) -> torch.Tensor:
                return super().forward(input if float(input.mean()) >= 0 else -input)

        return Net(in_channels, out_channels, 1)


def test_a_network_that_cannot_be_traced_still_has_its_parameters_counted():
    work = count_work(_Undecided(), (16, 32, 32), 1, 4)
    assert (work.parameters, work.flop, work.saved_bytes) == (8, None, None)
    assert not too_large(work, 1.0)


def test_memory_scales_with_voxels_and_the_largest_batch_leaves_a_tenth_free():
    model = MemoryModel.measured(peak_bytes=5e9, fixed_bytes=1e9, patch_ZYX=(10, 10, 10), batch=4)
    assert model.peak((10, 10, 10), 4) == 5e9
    assert model.peak((20, 10, 10), 4) == 9e9
    assert model.largest_batch((10, 10, 10), 10e9) == 8  # (9 - 1) / 1
    assert model.largest_batch((20, 20, 20), 5e9) == 0


def test_advice_names_the_batch_that_fits_and_keeps_the_step_the_same():
    network, work = ResidualUNetConfig(), Work(1, 1, 8_000_000_000)
    output = advice(network, (64, 128, 128), 8, 4e9, work)
    assert output == "try data.batch_size=3 (and trainer.accumulate_grad_batches=3)"
    assert advice(network, (64, 128, 128), 8, 4e9) == "try data.batch_size=4 (and trainer.accumulate_grad_batches=2)"


def test_advice_for_a_batch_of_one_is_a_smaller_legal_patch_or_a_smaller_network():
    network = ScNASConfig()
    output = advice(network, (64, 128, 128), 1, 1e9)
    assert output == "try data.patch_size=[48,96,96]"
    assert network.errors((48, 96, 96)) == []
    assert "smaller network" in advice(network, (48, 48, 48), 1, 1e9)


# memory


def wait_until(true: Callable[[], bool], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_peak_of_this_process_excludes_earlier_memory():
    watch = MemoryWatch()
    watch.start()
    block = np.ones(100 * MB, np.uint8)
    wait_until(lambda: watch.own_bytes - watch.start_bytes > 95 * MB)
    del block
    watch.stop()
    assert 95 * MB < watch.own_bytes - watch.start_bytes < 150 * MB
    watch.stop()


def _hold(ready, over) -> None:
    block = np.ones(60 * MB, np.uint8)
    ready.set()
    over.wait()
    del block


def test_a_child_counts_with_its_own_memory_only():
    context = multiprocessing.get_context("fork" if hasattr(psutil.Process(), "uids") else "spawn")
    ready, over = context.Event(), context.Event()
    child = context.Process(target=_hold, args=(ready, over))
    child.start()
    assert ready.wait(600)
    watch = MemoryWatch()
    watch.start()
    watch.stop()
    over.set()
    child.join()
    assert 55 * MB < watch.loaders_bytes < 200 * MB
    assert private_bytes(psutil.Process()) > 0


def test_prefetched_batches_are_at_most_those_of_an_epoch():
    memory = PeakMemory()
    memory.batch_bytes, memory.loaders = 10, 8
    assert memory.waiting_bytes(100) == 90
    assert memory.waiting_bytes(3) == 40
    memory.loaders = 0
    assert memory.waiting_bytes(100) == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    ],
)
def test_the_error_of_a_full_memory_has_advice(error):
    assert is_out_of_memory(error)
    with pytest.raises(InputError, match="try less"), explain_memory_error(lambda: "try less"):
        raise error


def test_another_error_is_not_changed():
    with pytest.raises(RuntimeError, match="shapes"), explain_memory_error(lambda: "try less"):
        raise RuntimeError("shapes do not match")


# machine


def test_a_control_group_bounds_the_memory_in_both_versions(tmp_path: Path):
    own = tmp_path / "cgroup"
    for number, (line, folder, name) in enumerate(
        [
            ("4:memory:/slurm/job_1", "memory/slurm", "memory.limit_in_bytes"),
            ("0::/slurm/job_1", "slurm/job_1", "memory.max"),
        ]
    ):
        root = tmp_path / str(number)
        (root / folder).mkdir(parents=True)
        (root / folder / name).write_text("4096\n")
        own.write_text(f"9:cpu:/\n{line}\n")
        assert list(_cgroup_limits(own, root)) == [4096]
    (root / folder / name).write_text("max\n")
    assert list(_cgroup_limits(own, root)) == []
    assert list(_cgroup_limits(tmp_path / "none", root)) == []


@pytest.mark.parametrize(
    ("devices", "gpus", "named", "first"),
    [
        ("auto", [0, 1, 2, 3], 1, 1),
        (-1, [0, 1, 2, 3], 1, 1),
        ("-1", [0, 1, 2, 3], 1, 1),
        (2, [0, 1], 2, 1),
        ("3", [0, 1, 2], 3, 1),
        ("1,", [1], 1, "1,"),
        ("0,1", [0, 1], 2, "0,"),
        ("2, 3", [2, 3], 2, "2,"),
    ],
)
def test_devices_are_counted_as_lightning_counts_them(monkeypatch, devices, gpus, named, first):
    monkeypatch.setattr(plan_machine, "uses_cuda", lambda _: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(device_parser, "_get_all_available_gpus", lambda **_: [0, 1, 2, 3])
    lightning = -1 if devices == "auto" else devices  # CUDAAccelerator.auto_device_count is the number of GPUs
    assert CUDAAccelerator.parse_devices(lightning) == gpus
    config = TrainerConfig(devices=devices, num_nodes=3)
    assert local_ranks(config) == len(gpus)
    assert card_ranks(config) == 3 * named  # the machine with the card is not known: "auto" and -1 count as one device
    assert one_device(config) == first
    assert CUDAAccelerator.parse_devices(first) == [gpus[0] if "," in str(devices) else 0]


@pytest.mark.parametrize("devices", ["two", "0,x"])
def test_devices_that_are_no_numbers_are_refused_in_one_line(devices):
    with pytest.raises(InputError, match=f"trainer.devices: expected .* got '{devices}'"):
        local_ranks(TrainerConfig(devices=devices))


# data


def _simulated(tmp_path: Path) -> SimulatorData:
    sets = {"train": 2, "val": 1, "test": 1}
    more = {split: SimulatedSet(["HeLa"], n, {}, 100 * i) for i, (split, n) in enumerate(sets.items())}
    return SimulatorData(
        shape=[16, 32, 32], spacing_um=[0.6] * 3, resample_spacing_um=[0.6] * 3, cache_dir=str(tmp_path), **more
    )


def test_planned_cases_are_those_that_the_run_will_make(tmp_path: Path):
    config = _simulated(tmp_path)
    planned = all_cases(config, 0)
    assert not (tmp_path / "simulated").exists()
    assert {k: len(v) for k, v in requests_of(config).items()} == {"train": 2, "val": 1, "test": 1}
    data = OrganelleDataModule(config, 0)
    assert data.find() == planned
    wanted = [*planned["train"], *planned["val"]]
    assert find_prepared(wanted, config)[0] == 3
    data.setup("fit")
    missing, shapes = find_prepared(wanted, config)
    assert (missing, len(shapes)) == (0, 3)


def test_cases_beyond_the_time_limit_are_extrapolated(tmp_path: Path):
    config = _simulated(tmp_path)
    cases = all_cases(config, 0)["train"] * 10
    assert find_prepared(cases, config, look_s=0.0)[0] in (0, 20)


# what a run notes of itself


def test_metrics_of_a_fit_include_memory_and_time(tmp_path: Path):
    config = _simulated(tmp_path / "cache")
    config.patch_size, config.batch_size, config.patches_per_epoch, config.num_workers = [8, 8, 8], 1, 3, 0
    metadata = OrganelleMetadata(
        task="organelle",
        model={"network": "x"},
        organelles=config.organelles,
        resample="spacing_um",
        resample_spacing_um=[0.6] * 3,
        resample_grid=[8] * 3,
        ri_range=[1.3, 1.4],
        patch_size=[8] * 3,
    )
    tiling = SlidingWindow(window=(8, 8, 8), stride=(8, 8, 8), pad_yx=(0, 0))
    loss = LOSSES["dice_bce"]().build()
    module = OrganelleModule(torch.nn.Conv3d(1, 4, 3, padding=1), metadata, tiling, loss, Adam(schedule="constant"))
    trainer = TrainerConfig(max_epochs=2, accelerator="cpu", devices=1, enable_progress_bar=False)
    lightning = build_trainer(trainer, RunFolder(tmp_path / "run"), [], MONITOR, dry_run=False)
    assert "fit/batch_seconds" not in fit_metrics(lightning)
    lightning.fit(module, datamodule=OrganelleDataModule(config, 0))
    found = fit_metrics(lightning)
    assert 0 < found["fit/batch_seconds"] < found["fit/epoch_seconds"] < 60
    assert 0 < found["fit/start_memory_mb"] <= found["fit/peak_memory_mb"] < 10_000


# windows


@pytest.mark.parametrize("resample", [ResampleTo(spacing_um=(0.5, 0.5, 0.5)), ResampleTo(grid=(32, 128, 128))])
def test_a_crop_has_few_windows_and_the_voxel_size_of_the_whole(resample):
    tiling = SlidingWindow(window=(16, 16, 16), stride=(8, 8, 8), pad_yx=(0, 0))
    ri_ZYX = np.random.default_rng(0).normal(1.34, 0.01, (40, 160, 160)).astype(np.float32)
    crop = crop_of(ri_ZYX, (0.4, 0.4, 0.4), resample, tiling)
    assert crop.windows <= 40
    assert np.array_equal(crop.ri_ZYX, ri_ZYX[crop.box])
    if resample.spacing_um is not None:
        assert crop.resample.spacing_um == pytest.approx(resample.spacing_um, rel=0.02)
    else:
        assert crop.resample.spacing_um == pytest.approx((0.5, 0.5, 0.5))


def test_a_crop_has_several_batches_of_windows():
    tiling = SlidingWindow(window=(16, 16, 16), stride=(8, 8, 8), pad_yx=(0, 0), sw_batch_size=32)
    ri_ZYX = np.full((40, 160, 160), 1.34, np.float32)
    crop = crop_of(ri_ZYX, (0.5, 0.5, 0.5), ResampleTo(spacing_um=(0.5, 0.5, 0.5)), tiling)
    assert 40 < crop.windows <= 4 * 32


@pytest.mark.parametrize(("compile", "passes"), [("none", 1), ("default", 2)])
def test_the_first_pass_of_a_compiled_network_is_not_the_one_that_is_timed(monkeypatch, compile, passes):
    monkeypatch.setattr(plan_inference, "AIM_S", -1.0)  # every pass is a long one
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: network)
    tiling = SlidingWindow(window=(8, 8, 8), stride=(8, 8, 8), pad_yx=(0, 0))
    crop = crop_of(np.full((8, 8, 8), 1.34, np.float32), (1, 1, 1), ResampleTo(spacing_um=(1.0, 1.0, 1.0)), tiling)
    calls: list[int] = []
    network = torch.nn.Conv3d(1, 2, 1)
    network.register_forward_hook(lambda *_: calls.append(1))
    inferer = DenseInferer(network, crop.resample, tiling, compile=compile)
    time_windows(crop, inferer)
    assert len(calls) == passes


def test_a_small_tomogram_is_not_cut():
    tiling = SlidingWindow(window=(16, 16, 16), stride=(8, 8, 8), pad_yx=(0, 0))
    ri_ZYX = np.full((16, 24, 24), 1.34, np.float32)
    crop = crop_of(ri_ZYX, (0.5, 0.5, 0.5), ResampleTo(spacing_um=(0.5, 0.5, 0.5)), tiling)
    assert crop.ri_ZYX.shape == ri_ZYX.shape
    assert crop.windows == 4


def test_the_config_of_the_measured_fit_differs_only_in_its_length():
    from experiments.planning.measure import short_config

    run = TrainerConfig(max_steps=9, max_time="00:00:00:01", devices=4, strategy="ddp", gradient_clip_val=1.0)
    short = short_config(run, 2, 1)
    changed = {f.name for f in dataclasses.fields(run) if getattr(run, f.name) != getattr(short, f.name)}
    assert changed == {
        "max_epochs", "max_steps", "max_time", "devices", "strategy", "limit_val_batches", "limit_test_batches",
        "enable_progress_bar",
    }  # fmt: skip
