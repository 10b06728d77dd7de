"""A device without enough memory: smaller batches, then sums in main memory, then an error of one line."""

import weakref
from math import inf

import numpy as np
import pytest
import torch
from torch import nn

import cytovox.inference.bricks
import cytovox.inference.predictor
from cytovox.errors import InputError
from cytovox.inference.bricks import BatchOutput
from cytovox.inference.predictor import DenseInferer
from cytovox.inference.regions import NativeGrid
from cytovox.inference.store import BrickStore
from cytovox.inference.tiling import SlidingWindow, WindowPass
from cytovox.inference.windows import TensorSource
from cytovox.io.regions import ArrayReader
from cytovox.preprocess.resampling import ResampleTo
from cytovox.segmentation.field import CellField
from cytovox.segmentation.networks import CentreOffsetCells, ConditionedCells


class Limited(nn.Module):
    """A network whose largest batch is limited, and which counts its windows."""

    def __init__(self, most: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.most, self.seen = nn.Conv3d(1, 2, 3, padding=1), most, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.seen.append(len(x))
        return self.layer(x)


@pytest.fixture(autouse=True)
def small_bricks(monkeypatch):
    for module in (cytovox.inference.bricks, cytovox.inference.predictor):
        monkeypatch.setattr(module, "BRICK", (2, 8, 8))


def tiling_of(batch: int) -> SlidingWindow:
    return SlidingWindow((4, 8, 8), (2, 4, 4), pad_yx=(0, 0), sw_batch_size=batch)


RI = np.random.default_rng(0).uniform(1.33, 1.40, (8, 20, 20)).astype(np.float32)
GRID = ResampleTo(grid=(6, 20, 18))


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("flips", [(), ("x",)])
def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_counts_once(layers, flips, capsys):
    expected = DenseInferer([Limited(9), Limited(9)], GRID, tiling_of(8), flips=flips, layers=layers)(RI, (1, 1, 1))
    first, second = Limited(9), Limited(2)  # the output of the first network is in the sums when the second one fails
    inferer = DenseInferer([first, second], GRID, tiling_of(8), flips=flips, layers=layers)
    np.testing.assert_allclose(inferer(RI, (1, 1, 1)), expected, atol=1e-6)
    notes = capsys.readouterr().err.splitlines()
    assert [note[:27] for note in notes] == ["note: a batch of 8 windows ", "note: a batch of 4 windows "]
    assert notes[1].endswith("batches of 2 from now on")
    first.seen.clear()
    np.testing.assert_allclose(inferer(RI, (1, 1, 1)), expected, atol=1e-6)
    assert set(first.seen) == {2}  # remembered
    assert capsys.readouterr().err == ""


def test_another_inferer_with_the_same_windows_uses_the_lowered_batch_size(capsys):
    tiling = tiling_of(4)
    DenseInferer(Limited(2), GRID, tiling, layers=True)(RI, (1, 1, 1))
    again = Limited(4)
    DenseInferer(again, GRID, tiling, layers=True)(RI, (1, 1, 1))
    assert max(again.seen) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_only_the_windows_of_the_batch_are_computed_again():
    network = Limited(2)
    tiling = tiling_of(4)
    windows = len(tiling.windows((6, 20, 18)))
    DenseInferer(network, GRID, tiling, layers=True)(RI, (1, 1, 1))
    assert sum(network.seen) == windows


@pytest.mark.parametrize("failing", [2, 3])
def test_sums_that_could_not_be_allocated_count_no_window_twice(failing, monkeypatch, capsys):
    """A window meets two layers here: the second one's allocation fails when the first one may have been added to."""
    expected = DenseInferer(Limited(9), GRID, tiling_of(2), layers=True)(RI, (1, 1, 1))
    put, calls = BrickStore.put, iter(range(1, 99))

    def fails(store, key, brick):
        if next(calls) == failing:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        put(store, key, brick)

    monkeypatch.setattr(BrickStore, "put", fails)
    found = DenseInferer(Limited(9), GRID, tiling_of(2), layers=True)(RI, (1, 1, 1))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("failing", ["add", "own grid"])
def test_sums_that_do_not_fit_are_kept_in_main_memory_and_each_box_comes_once(failing, monkeypatch, capsys):
    expected = DenseInferer(Limited(9), GRID, tiling_of(1), layers=True)(RI, (1, 1, 1))
    kind, name = (WindowPass, "_add_view") if failing == "add" else (NativeGrid, "take")
    calls, original = iter(range(10**6)), getattr(kind, name)

    def fails(self, *args):
        on_device = self.layers if failing == "add" else self.device is not None
        if on_device and next(calls) >= 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, *args)

    monkeypatch.setattr(kind, name, fails)
    inferer = DenseInferer(Limited(9), GRID, tiling_of(2), layers=True)
    result, times = np.full((2, *RI.shape), np.nan, np.float32), np.zeros(RI.shape, int)

    for box, values in inferer.boxes(ArrayReader(RI), (1, 1, 1)):
        result[(slice(None), *box)] = values
        times[box] += 1
    assert (times == 1).all()
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert capsys.readouterr().err.splitlines() == [
        "note: a batch of 2 windows does not fit into the device's memory: batches of 1 from now on",
        "note: one window and the sums do not fit into the device's memory: windows are summed up on the host",
    ]
    np.testing.assert_allclose(inferer(RI, (1, 1, 1)), expected, atol=1e-6)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("layers", [False, True])
def test_a_window_that_does_not_fit_ends_in_one_line(layers, tmp_path):
    inferer = DenseInferer(Limited(0), GRID, tiling_of(4), layers=layers, scratch=tmp_path, memory_gb=0)
    with pytest.raises(InputError, match="choose a smaller window") as caught:
        inferer(RI, (1, 1, 1))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_sliding_window_alone_uses_smaller_batches_too(capsys):
    image = torch.rand((2, 1, 8, 20, 20))
    network = Limited(9)
    expected = tiling_of(4)(image, network)
    network.most = 1
    torch.testing.assert_close(tiling_of(4)(image, network), expected, atol=1e-6, rtol=0)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_sums_of_a_failed_attempt_are_not_kept(monkeypatch):
    image, tiling = torch.rand((1, 8, 20, 20)), tiling_of(1)
    expected = tiling(image[None], wave)[0]
    calls, add = iter(range(99)), WindowPass._add_view

    def fails(self, *args):
        if next(calls) == 20:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        add(self, *args)

    monkeypatch.setattr(WindowPass, "_add_view", fails)
    found = torch.full((1, 8, 20, 20), torch.nan)
    with BrickStore(inf) as store:
        for box, values in tiling.stream(
            TensorSource(image), lambda w: iter([BatchOutput(wave(w))]), store, layers=True
        ):
            found[(slice(None), *box)] = values
        assert store.in_memory == 0
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def wave(windows: torch.Tensor) -> torch.Tensor:
    """Depends on a voxel's place in its window, so that a window that counts twice shows."""
    return windows * torch.linspace(0.2, 0.8, windows[0, 0].numel()).view(windows.shape[2:])


def test_the_failed_batch_is_freed_before_the_next_attempt():
    """A reference to the failed batch would keep its memory."""
    alive = []

    class Output(torch.Tensor):
        pass

    class Fails(nn.Module):
        def forward(self, x):
            if len(x) == 1:
                alive.append(sum(isinstance(ref(), Output) for ref in outputs))
                return x
            output = x.clone().as_subclass(Output)
            outputs.append(weakref.ref(output))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    outputs: list = []
    with BrickStore(inf) as store:
        list(
            tiling_of(2).stream(
                TensorSource(torch.rand((1, 4, 8, 12))),
                lambda windows: iter([BatchOutput(Fails()(windows))]),
                store,
                layers=True,
            )
        )
    assert alive == [0, 0]


SHAPE = (8, 16, 16)


def cells_of(nuclei: int) -> CellField:
    nucleus = np.zeros(SHAPE, np.int32)
    for k in range(nuclei):
        nucleus[2:6, 2:6, 4 * k : 4 * k + 2] = k + 1
    return CellField(np.ones(SHAPE, bool), nucleus > 0, (1, 1, 1), np.full(SHAPE, 1.35, np.float32), nucleus)


class OfNuclei(Limited):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.seen.append(len(x))
        return x[:, 2:3] - 0.5 * x[:, 3:4] - 0.25


def test_nuclei_go_through_the_network_in_smaller_batches(capsys):
    field = cells_of(4)
    expected = ConditionedCells(OfNuclei(4), ResampleTo(grid=SHAPE))(field).cells_ZYX
    assert len(np.unique(expected)) == 5
    network, progress = OfNuclei(1), []
    finder = ConditionedCells(network, ResampleTo(grid=SHAPE), progress=lambda *n: progress.append(n))
    np.testing.assert_array_equal(finder(field).cells_ZYX, expected)
    assert network.seen == [1] * 4
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(capsys.readouterr().err.splitlines()) == 2
    network.most = 0
    with pytest.raises(InputError, match="one nucleus at a time"):
        finder(field)


class Whole(nn.Module):
    """Does not fit with a whole field."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if x.shape[2:] == SHAPE:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return x


def test_a_field_that_does_not_fit_is_cut_into_windows(capsys):
    network = Whole()
    tiling = SlidingWindow((8, 8, 8), (4, 4, 4), pad_yx=(0, 0))
    finder = CentreOffsetCells(network, ResampleTo(grid=SHAPE), tiling=tiling)
    found, spacing_um = finder.offsets_um(cells_of(2))
    plain, _ = CentreOffsetCells(nn.Identity(), ResampleTo(grid=SHAPE), tiling=tiling).offsets_um(cells_of(2))
    np.testing.assert_allclose(found, plain, atol=1e-5)
    assert network.calls == 1 + 9
    finder.offsets_um(cells_of(2))
    assert network.calls == 1 + 9 + 9
    assert len(capsys.readouterr().err.splitlines()) == 1
