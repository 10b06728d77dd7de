import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from cytovox.errors import InputError
from cytovox.models.metadata import OrganelleMetadata, load_network, read_checkpoint
from cytovox.models.weights_file import KEY, write_weights

METADATA = OrganelleMetadata(
    task="organelle",
    model={"network": "x"},
    organelles=["nucleus", "lipid"],
    resample="grid",
    resample_spacing_um=[1.0, 1.0, 1.0],
    resample_grid=[8, 8, 8],
    ri_range=[1.3, 1.4],
    patch_size=[4] * 3,
)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 3, 3), nn.BatchNorm3d(3), nn.Conv3d(3, 2, 1))


def test_weights_and_metadata_are_read_back_bit_for_bit(tmp_path):
    given = network()
    given(torch.rand(2, 1, 5, 5, 5))  # the normalisation's running figures, and their integer count
    path = write_weights(tmp_path / "a.safetensors", given.state_dict(), dataclasses.asdict(METADATA))
    weights = read_checkpoint(path, "organelle", "predict.checkpoint")
    assert weights.metadata == METADATA
    fresh = network()
    load_network(fresh, weights, "predict.checkpoint")
    for name, tensor in given.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_file_is_read_by_the_safetensors_library_alone(tmp_path):
    path = write_weights(tmp_path / "a.safetensors", network().state_dict(), dataclasses.asdict(METADATA))
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()[KEY])["organelles"] == ["nucleus", "lipid"]
        assert file.get_tensor("0.weight").shape == (3, 1, 3, 3, 3)


def test_another_suffix_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match=r"expected a name that ends in \.safetensors"):
        write_weights(tmp_path / "a.bin", network().state_dict(), dataclasses.asdict(METADATA))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "cannot be read as a checkpoint"),
        (b"\x10" + b"\0" * 300, "cannot be read as a checkpoint"),
        ({}, "not a checkpoint of Cytovox"),
        ({KEY: "[1]"}, "not a checkpoint of Cytovox"),
        ({KEY: "{"}, "cannot be read as a checkpoint"),
        ({KEY: json.dumps({**dataclasses.asdict(METADATA), "task": "cells"})}, "a checkpoint of task cells"),
        ({KEY: json.dumps({"task": "organelle"})}, "of another version"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, expected):
    path = tmp_path / "a.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file({"0.weight": torch.zeros(1)}, path, metadata=content)
    with pytest.raises(InputError, match=expected) as error:
        read_checkpoint(path, "organelle", "predict.checkpoint")
    assert str(error.value).startswith(f"predict.checkpoint: {path}: ")
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = write_weights(tmp_path / "a.safetensors", network().state_dict(), dataclasses.asdict(METADATA))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        read_checkpoint(path, "organelle", "init_from")
