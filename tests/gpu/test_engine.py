"""The inference engine on a GPU: the CPU's numbers, no waiting per window, CUDA graphs, and too little memory."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from cytovox.inference.predictor import DenseInferer
from cytovox.inference.regions import RegionSource
from cytovox.inference.tiling import SlidingWindow
from cytovox.inference.transfers import Transfers
from cytovox.io.regions import ArrayReader
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.preprocess.resampling import ResampleTo, resize_linear
from tests.gpu.conftest import DEVICE

SPACING = (0.2, 0.1, 0.1)
GRIDS = {"own": ResampleTo(grid=(48, 160, 160)), "finer": ResampleTo(grid=(60, 200, 190))}
cuda_only = pytest.mark.skipif(DEVICE == "cpu", reason="CUDA's own")


def ri_of(shape=(48, 160, 160)) -> np.ndarray:
    """Medium, and a smooth object in one half of the frame, so that some windows show medium only."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij")
    return (1.336 + 0.04 * np.exp(-4 * (z**2 + (y - 0.3) ** 2 + (x + 0.6) ** 2) * 3)).astype(np.float32)


def network_of(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv3d(1, 8, 3, padding=1), nn.InstanceNorm3d(8, affine=True), nn.LeakyReLU(), nn.Conv3d(8, 3, 1)]
    return nn.Sequential(*layers).eval()


def tiling_of(**more) -> SlidingWindow:
    return SlidingWindow(**({"window": (32, 64, 64), "stride": (16, 32, 32), "pad_yx": (32, 32)} | more))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    "options",
    [{}, {"channels_last": True}, {"flips": ("y", "x")}, {"layers": False}],
    ids=["plain", "channels_last", "flips", "bricks"],
)
def test_a_frame_is_the_cpus(device, exact_float32, grid, batch, options):
    both = [
        DenseInferer(
            [network_of(1), network_of(2)], GRIDS[grid], tiling_of(sw_batch_size=batch, skip_below=0.1), device=where,
            **options,
        )
        for where in ("cpu", device)
    ]  # fmt: skip
    expected, found = (inferer(ri_of(), SPACING) for inferer in both)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision_stays_near(device, exact_float32, precision, channels_last):
    expected = DenseInferer(network_of(), GRIDS["own"], tiling_of())(ri_of(), SPACING)
    inferer = DenseInferer(
        network_of(), GRIDS["own"], tiling_of(), device=device, precision=precision, channels_last=channels_last
    )
    found = inferer(ri_of(), SPACING)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.003 if precision == "16-mixed" else 0.02)


def test_tf32_does_not_reach_resampling(device):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        ri = np.random.default_rng(0).uniform(1.33, 1.40, (20, 70, 90)).astype(np.float32)
        source = RegionSource(ArrayReader(ri), (31, 60, 128), NormaliseRI(), (99, 99, 199), 1e9, torch.device(device))
        region = source.read((slice(0, 31), slice(0, 60), slice(0, 128))).cpu()
    finally:
        torch.set_float32_matmul_precision(before)
    whole = resize_linear(torch.from_numpy(NormaliseRI()(ri))[None], (31, 60, 128))
    torch.testing.assert_close(region, whole, atol=2e-6, rtol=0)


def test_boxes_that_are_kept_do_not_change(device):
    inferer = DenseInferer(network_of(), GRIDS["finer"], tiling_of(sw_batch_size=2), device=device, memory_gb=0.001)
    boxes = [(box, values, values.copy()) for box, values in inferer.boxes(ArrayReader(ri_of()), SPACING)]
    list(inferer.boxes(ArrayReader(ri_of()[::-1].copy()), SPACING))
    assert all(np.array_equal(values, before) for _, values, before in boxes)
    whole = inferer(ri_of(), SPACING)
    for box, values, _ in boxes:
        np.testing.assert_array_equal(values, whole[(slice(None), *box)])


@cuda_only
def test_copies_are_complete_though_the_device_is_busy(device):
    transfers = Transfers(torch.device(device))
    busy = torch.rand((4096, 4096), device=device)
    downloads = []
    for k in range(20):
        values = torch.full((1 << 20,), float(k))
        there = transfers.upload(values)
        values.fill_(-1)  # it is the caller's again
        for _ in range(3):
            busy = busy @ busy.T / 4096
        downloads.append(transfers.download(there + 1))
        del there
    assert [set(download.wait().unique().tolist()) for download in downloads] == [{k + 1.0} for k in range(20)]
    assert all(download.ready() and download.host.is_pinned() for download in downloads)


def waits_of(inferer: DenseInferer, ri: np.ndarray) -> int:
    """How often the host waited for the device by an operation that needs its result."""
    inferer(ri, SPACING)  # the first call allocates
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            inferer(ri, SPACING)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


@cuda_only
@pytest.mark.parametrize("skip_below", [None, 0.1])
@pytest.mark.parametrize("grid", GRIDS)
def test_the_host_does_not_wait_for_windows(device, skip_below, grid):
    few, many = (
        waits_of(
            DenseInferer(network_of(), GRIDS[grid], tiling_of(stride=stride, skip_below=skip_below), device=device),
            ri_of(),
        )
        for stride in [(16, 64, 64), (16, 16, 16)]
    )
    assert few == many <= 13  # a frame's tables: six axes of taps, two each, and the weight


@cuda_only
@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_cuda_graphs_give_the_same(device, precision):
    options = {"device": device, "precision": precision, "channels_last": True, "flips": ("x",)}
    networks = [network_of(1), network_of(2)]
    plain = DenseInferer(networks, GRIDS["own"], tiling_of(sw_batch_size=4), **options)
    graphs = DenseInferer(networks, GRIDS["own"], tiling_of(sw_batch_size=4), compile="cuda_graphs", **options)
    for ri in (ri_of(), ri_of()[:, ::-1].copy()):
        np.testing.assert_allclose(graphs(ri, SPACING), plain(ri, SPACING), atol=1e-3)
    with torch.no_grad():
        for network in networks:
            network[3].bias += 1  # in place: the graph reads the new value
    changed = graphs(ri, SPACING)
    np.testing.assert_allclose(changed, plain(ri, SPACING), atol=1e-3)
    for network in networks:
        network.to("cpu").to(device)  # elsewhere: it is recorded anew
    np.testing.assert_allclose(graphs(ri, SPACING), changed, atol=1e-3)


class Hungry(nn.Module):
    """A network that needs a GiB a window."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network_of()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scratch = torch.empty((len(x), 1 << 28), device=x.device)
        return self.inner(x) + 0 * scratch[0, 0].fill_(0)


@cuda_only
@pytest.mark.parametrize("compile", ["none", "cuda_graphs"])
def test_memory_that_does_not_suffice_makes_batches_smaller(device, capsys, compile):
    expected = DenseInferer(network_of(), GRIDS["own"], tiling_of(), device=device)(ri_of(), SPACING)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + 3.5 * 2**30) / total)
    try:
        inferer = DenseInferer(Hungry(), GRIDS["own"], tiling_of(sw_batch_size=8), device=device, compile=compile)
        found = inferer(ri_of(), SPACING)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    notes = capsys.readouterr().err.splitlines()
    assert notes[0].startswith("note: a batch of 8 windows does not fit")
    assert len(notes) in (2, 3)  # batches of 2, or of 1 where a graph's own memory comes on top


@cuda_only
def test_sums_that_do_not_fit_are_kept_in_main_memory(device, capsys):
    ri = ri_of((64, 512, 512))
    grid = ResampleTo(grid=(64, 512, 512))
    tiling = {"pad_yx": (0, 0)}
    wide = nn.Conv3d(1, 24, 1)  # 24 channels: 0.8 GB of sums a layer
    expected = DenseInferer(wide, grid, tiling_of(**tiling), device=device)(ri, SPACING)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + 1.0 * 2**30) / total)
    try:
        found = DenseInferer(wide, grid, tiling_of(**tiling), device=device, memory_gb=8)(ri, SPACING)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert capsys.readouterr().err.splitlines()[-1].endswith("windows are summed up on the host")
