"""The fake device itself: its numbers are right, it refuses what a GPU refuses, and it records what makes one wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.device.fake_device import DeviceMixError, FakeTensor, Watch, device, fake_device


def on(*values: float) -> torch.Tensor:
    return torch.tensor(values).to(device(), non_blocking=True)


def test_a_network_trains_to_the_same_weights_as_on_the_cpu(watch: Watch) -> None:
    def train(where: torch.device) -> list[torch.Tensor]:
        torch.manual_seed(1)
        network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.Flatten(), nn.Linear(256, 2))
        network.to(where)
        image = torch.rand(3, 1, 4, 4, 4).to(where)
        optimiser = torch.optim.AdamW(network.parameters())
        for _ in range(3):
            optimiser.zero_grad()
            network(image).square().mean().backward()
            optimiser.step()
        return [tensor.cpu() for tensor in network.state_dict().values()]

    before = len(watch.syncs)
    ours = train(device())
    assert {sync.kind for sync in watch.syncs[before:]} == {"upload", "to_cpu"}
    for one, other in zip(ours, train(torch.device("cpu")), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("inference", [False, True])
def test_tensors_of_two_devices_do_not_meet(watch: Watch, inference: bool) -> None:
    with torch.inference_mode(inference):
        ours, theirs = on(1.0, 2.0), torch.ones(2)
        for meet in (
            lambda: ours + theirs,
            lambda: torch.cat([ours, theirs]),
            lambda: torch.where(ours > 0, ours, theirs),
            lambda: ours @ theirs,
            lambda: torch.stack([ours[0], torch.tensor(1.0)]),
            lambda: nn.functional.mse_loss(ours, theirs),
            lambda: theirs[ours.long() - 1],
            lambda: nn.Linear(2, 1)(ours),
        ):
            with pytest.raises((DeviceMixError, RuntimeError)):
                meet()
        assert (ours * torch.tensor(2.0)).tolist() == [2, 4]  # without axes: a number, as CUDA takes it


WAITS: dict[str, tuple[str, Callable[[torch.Tensor], object]]] = {
    "item": ("item", lambda x: x[0].item()),
    "float": ("item", lambda x: float(x[0])),
    "if": ("item", lambda x: bool(x[0] > 0)),
    "index by a tensor without axes": ("item", lambda x: x[x[0].long()]),
    "tolist": ("to_cpu", lambda x: x.tolist()),
    "cpu": ("to_cpu", lambda x: x.cpu()),
    "nonzero": ("nonzero", lambda x: x.nonzero()),
    "mask": ("mask_index", lambda x: x[x > 1]),
    "masked_select": ("masked_select", lambda x: x.masked_select(x > 1)),
    "unique": ("unique", lambda x: x.unique()),
    "equal": ("equal", lambda x: torch.equal(x, x + 1)),
    "many in isin": ("isin", lambda x: torch.isin(x, torch.ones(50, device=x.device))),
    "tensor": ("upload", lambda x: torch.tensor([1.0], device=x.device)),
    "new_tensor": ("upload", lambda x: x.new_tensor([1.0])),
    "to": ("upload", lambda x: torch.ones(2).to(x.device)),
    "list of indices": ("upload", lambda x: x[[0, 1]]),
    "copy_": ("upload", lambda x: x.clone().copy_(torch.ones(2))),
}
FREE: dict[str, Callable[[torch.Tensor], object]] = {
    "arithmetic": lambda x: (x * 2 + 1).sum(),
    "masked fill": lambda x: x.clone().masked_fill_(x > 1, 0.0),
    "fill by a mask": lambda x: x.clone().__setitem__(x > 1, 0.0),
    "where": lambda x: torch.where(x > 1, x, 0.0),
    "slice": lambda x: x[1:],
    "gather": lambda x: x[x.long() - 1],
    "full": lambda x: torch.full((2,), 3.0, device=x.device),
    "not blocking": lambda x: torch.ones(2).to(x.device, non_blocking=True),
    "searchsorted": lambda x: torch.searchsorted(x, x),
    "few in isin": lambda x: torch.isin(x, torch.ones(2, device=x.device)),
}


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", WAITS)
def test_what_makes_the_host_wait_is_recorded(watch: Watch, name: str, inference: bool) -> None:
    kind, act = WAITS[name]
    with torch.inference_mode(inference):
        x = on(1.0, 2.0)
        act(x)
    assert [sync.kind for sync in watch.syncs] == [kind]
    assert watch.syncs[0].path.endswith("test_fake_device.py")


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("name", FREE)
def test_what_does_not_is_not(watch: Watch, name: str, inference: bool) -> None:
    with torch.inference_mode(inference):
        result = FREE[name](on(1.0, 2.0))
        assert result is None or isinstance(result, FakeTensor)
    assert watch.syncs == []


def test_numpy_wants_a_copy_on_the_cpu_first(watch: Watch) -> None:
    with pytest.raises(TypeError, match="copy it to the CPU"):
        on(1.0).numpy()
    assert on(1.0).cpu().numpy().tolist() == [1.0]


def test_autocast_computes_in_the_types_of_cuda(watch: Watch) -> None:
    layer, x = nn.Conv3d(1, 2, 1).to(device()), torch.rand(1, 1, 2, 2, 2).to(device())
    with torch.autocast(device().type, torch.float16):
        features = layer(x)
        assert features.dtype == torch.float16
        assert features.softmax(1).dtype == torch.float32
        with torch.autocast(device().type, enabled=False):
            assert layer(x).dtype == torch.float32


def test_there_is_no_device_outside_of_its_context() -> None:
    with fake_device():
        assert torch.accelerator.is_available()
        inside = torch.zeros(2, device=device())
    assert not torch.accelerator.is_available()
    assert type(torch.zeros(2)) is torch.Tensor
    assert type(inside.cpu()) is torch.Tensor
