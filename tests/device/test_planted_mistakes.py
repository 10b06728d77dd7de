"""Mistakes that only a GPU would show are found by the device tests: each is planted, and the check has to fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import cytovox.diffusion.denoising
import cytovox.diffusion.noise
import cytovox.diffusion.processes
import cytovox.diffusion.samplers
import cytovox.diffusion.traits
import cytovox.inference.bricks
import cytovox.losses.centre_offsets
import cytovox.losses.segmentation
import cytovox.networks.architecture
import cytovox.networks.dispr_unet
import cytovox.networks.subpixel
import cytovox.preprocess.shape_fields
import lightning_modules.shape
import training.ema
from lightning_modules.cells import CellsModule
from lightning_modules.organelle import OrganelleModule
from tests.device.fake_device import DeviceMixError, Watch
from tests.device.test_tasks_on_a_device import check

Plant = Callable[[pytest.MonkeyPatch], None]
CPU = torch.device("cpu")


class Forgetful:
    """torch, but one of its functions makes tensors on the CPU whatever device it is given."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, key: str) -> Any:
        value = getattr(torch, key)
        if key != self.name:
            return value
        return lambda *args, **kwargs: value(*args, **{k: v for k, v in kwargs.items() if k != "device"})


def forget(module: ModuleType, function: str) -> Plant:
    """A tensor of this module is made on the CPU."""
    return lambda patch: patch.setattr(module, "torch", Forgetful(function))


def no_upload(module: ModuleType) -> Plant:
    """What this module makes on the CPU stays there."""
    return lambda patch: patch.setattr(module, "upload", lambda tensor, *_: tensor)


def blocking_upload(module: ModuleType) -> Plant:
    """What this module makes is made on the CPU, and copied so that the host waits."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module, "torch", Forgetful("randn"))
        patch.setattr(module, "upload", lambda tensor, device, dtype=None: tensor.to(device, dtype))

    return plant


def plain_attribute(patch: pytest.MonkeyPatch) -> None:
    """A tensor of the loss is no buffer, so it does not follow the module."""
    patch.setattr(
        cytovox.losses.segmentation.SegmentationLoss, "register_buffer",
        lambda self, name, value, persistent=True: setattr(self, name, value),
    )  # fmt: skip


def noise_on_cpu(patch: pytest.MonkeyPatch) -> None:
    """A sampler's noise stays on the CPU."""
    begin = cytovox.diffusion.noise.Draws.__init__

    def start(self: Any, *args: Any) -> None:
        begin(self, *args)
        self.device = CPU

    patch.setattr(cytovox.diffusion.noise.Draws, "__init__", start)


def average_on_cpu(patch: pytest.MonkeyPatch) -> None:
    """The average of the weights is made before they are moved."""
    kind = training.ema.ExponentialAverage
    patch.setattr(training.ema, "ExponentialAverage", lambda model, _, decay: kind(model, CPU, decay))


def matrices_on_cpu(patch: pytest.MonkeyPatch) -> None:
    """The matrices that decode a field are kept on the CPU."""
    make = cytovox.preprocess.shape_fields._finer_matrix
    patch.setattr(
        cytovox.preprocess.shape_fields, "_finer_matrix", lambda size, fine, _, blur=None: make(size, fine, CPU, blur)
    )


def embedding_on_cpu(patch: pytest.MonkeyPatch) -> None:
    """A network computes its time embedding on the CPU."""
    make = cytovox.networks.dispr_unet.get_timestep_embedding
    patch.setattr(cytovox.networks.dispr_unet, "get_timestep_embedding", lambda t_B, width: make(t_B.cpu(), width))


def condition_on_cpu(patch: pytest.MonkeyPatch) -> None:
    """A part of the network's input is new."""
    make = lightning_modules.shape.condition
    patch.setattr(lightning_modules.shape, "condition", lambda image, mask: make(image, torch.ones(mask.shape)))


def item_in_the_step(kind: Any) -> Plant:
    """The training step looks at its loss."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        step = kind.training_step

        def training_step(self: Any, batch: Any, batch_idx: int) -> torch.Tensor:
            loss: torch.Tensor = step(self, batch, batch_idx)
            assert loss.item() == loss.item(), "not a number"
            return loss

        patch.setattr(kind, "training_step", training_step)

    return plant


def count_on_the_device(patch: pytest.MonkeyPatch) -> None:
    """The average asks the device how many updates there were, as torch's does."""
    kind = training.ema.ExponentialAverage
    patch.setattr(kind, "updates", property(lambda self: int(self.n_averaged), lambda self, _: None), raising=False)


def read_one_by_one(patch: pytest.MonkeyPatch) -> None:
    """A search reads each of its choices apart."""
    patch.setattr(cytovox.networks.architecture, "_read", lambda tensors: [one.tolist() for one in tensors])


def look_at_the_time(patch: pytest.MonkeyPatch) -> None:
    """A sampler asks whether its time is 0."""
    velocity = cytovox.diffusion.samplers.velocity

    def looked(process: Any, t: torch.Tensor, estimate: Any) -> torch.Tensor:
        return velocity(process, t, estimate) if t > 0 else estimate.data_BCZYX

    patch.setattr(cytovox.diffusion.samplers, "velocity", looked)


#: Mistakes by what they are, and a run that meets them.
MISTAKES: dict[str, tuple[str, Plant]] = {
    "centre offsets: arange": ("cells_offsets", forget(cytovox.losses.centre_offsets, "arange")),
    "centre offsets: rand": ("cells_offsets", forget(cytovox.losses.centre_offsets, "rand")),
    "segmentation loss: weights": ("organelle", plain_attribute),
    "traits: arange": ("shape_regressor", forget(cytovox.diffusion.traits, "arange")),
    "denoising: noise": ("shape_flow", blocking_upload(cytovox.diffusion.denoising)),
    "process: table": ("shape_ddim", no_upload(cytovox.diffusion.processes)),
    "sampler: times": ("shape_ddim", no_upload(cytovox.diffusion.samplers)),
    "sampler: noise": ("shape_flow", noise_on_cpu),
    "shape field: matrices": ("shape_flow", matrices_on_cpu),
    "shape module: condition": ("shape_flow", condition_on_cpu),
    "network: eye": ("organelle", forget(cytovox.networks.subpixel, "eye")),
    "network: time": ("dispr", embedding_on_cpu),
    "architecture: eye": ("search_joint", forget(cytovox.networks.architecture, "eye")),
    "engine: sums": ("organelle", forget(cytovox.inference.bricks, "zeros")),
    "average: device": ("cells_offsets", average_on_cpu),
    "item in the organelle step": ("organelle", item_in_the_step(OrganelleModule)),
    "item in the cells step": ("cells_network", item_in_the_step(CellsModule)),
    "average: count": ("cells_offsets", count_on_the_device),
    "search: choices": ("search_joint", read_one_by_one),
    "sampler: look at the time": ("shape_flow", look_at_the_time),
}
#: Planted in every run of the tests; the others by `make test-all`.
QUICK = {"centre offsets: arange", "network: eye", "item in the organelle step", "average: count"}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MISTAKES]
)
def test_a_planted_mistake_is_found(name: str, tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    run, plant = MISTAKES[name]
    plant(monkeypatch)
    with pytest.raises((DeviceMixError, AssertionError), match=r"expected all tensors on one device|the host waits"):
        check(run, tmp_path, watch)
