"""Outputs of `init_from` belong to organelles by their names, whatever their number and order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cytovox.models.metadata import OrganelleMetadata, Weights, load_network
from cytovox.networks.registry import network_config
from experiments.tasks.organelle.outputs import match_outputs

FOUR = ["membrane", "nucleus", "nucleolus", "lipid"]


def weights_of(network, organelles) -> Weights:
    metadata = OrganelleMetadata(
        task="organelle", model={}, organelles=organelles, resample="grid", resample_spacing_um=[1.0] * 3,
        resample_grid=[8] * 3, ri_range=[1.33, 1.39], patch_size=[8] * 3,
    )  # fmt: skip
    return Weights(Path("w.ckpt"), metadata, network.state_dict())


@pytest.fixture(params=["residual_unet", "scnas"])
def build(request):
    options = {"residual_unet": {"channels": [4, 8]}, "scnas": {"width": 4, "layers": 2, "multiplier": 2}}
    return network_config(request.param)(**options[request.param]).build


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (FOUR, ""),
        (["lipid", "membrane", "nucleolus", "nucleus"], "taken by name"),
        (["lipid", "nucleus"], "left out: membrane, nucleolus"),
        (["mitochondria", "nucleus", "membrane", "lipid", "nucleolus"], "new and untrained: mitochondria"),
        (["vacuole"], "new and untrained: vacuole"),
    ],
)
def test_each_output_keeps_its_name(build, wanted, said):
    torch.manual_seed(0)
    old, new = build(1, 4).eval(), build(1, len(wanted)).eval()
    matched, notes = match_outputs(weights_of(old, FOUR), new, build, wanted)
    assert said in "".join(notes)
    fresh = {name: value.clone() for name, value in new.state_dict().items()}
    load_network(new, matched, "init_from")
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        before, after = old(image), new(image)
    for at, name in enumerate(wanted):
        if name in FOUR:
            torch.testing.assert_close(after[:, at], before[:, FOUR.index(name)])
    heads = [name for name, value in fresh.items() if value.shape[:1] == (len(wanted),) and name.startswith("head")]
    assert heads
    for head in heads:
        rows = [at for at, name in enumerate(wanted) if name not in FOUR]
        torch.testing.assert_close(new.state_dict()[head][rows], fresh[head][rows])
