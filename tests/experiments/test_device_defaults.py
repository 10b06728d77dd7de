"""Options whose default follows the device: batches of windows and nuclei, and how networks are compiled."""

import pytest
import torch

from cytovox.inference import device
from cytovox.inference.device import batch_size
from cytovox.models import cells as cell_models
from cytovox.models.metadata import read_checkpoint
from cytovox.segmentation.field import SeedRule
from experiments.config import ConfigErrors, load_config, resolved
from experiments.tasks import device_defaults, task_of
from experiments.tasks.analyze.config import AnalyzeConfig
from experiments.tasks.analyze.predictors import cell_weights, organelle_model, organelle_weights
from experiments.tasks.analyze.task import run_path
from experiments.tasks.organelle.config import tiling

WINDOWS = ("organelle", "organelle_choi", "organelle_finetune", "organelle_weights", "scnas_search")
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@pytest.fixture(params=[False, True], ids=["cpu", "cuda"])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a CUDA device would be used: only what chooses the defaults believes it."""
    for module in (device, device_defaults):
        monkeypatch.setattr(module, "uses_cuda", lambda accelerator: request.param and accelerator != "cpu")
    return request.param


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_of_shipped_configs_follow_the_device_and_are_recorded_as_auto(name, cuda):
    config = load_config(name)
    assert tiling(config, config.data.patch_size).sw_batch_size == (32 if cuda else 1)
    assert resolved(config)["predict"]["batch_size"] == "auto"
    config = load_config(name, ["trainer.accelerator=cpu"])
    assert tiling(config, config.data.patch_size).sw_batch_size == 1


@pytest.mark.parametrize("name", ["organelle_demo", "scnas_search_demo"])
def test_a_number_is_the_number_on_any_device(name, cuda):
    config = load_config(name)
    assert tiling(config, config.data.patch_size).sw_batch_size == 8
    assert batch_size(5, "auto") == 5


@pytest.mark.parametrize("task", ["organelle", "cells"])
@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("many", "expected a whole number or auto, got 'many'"),
        ("1.5", "expected a whole number or auto, got 1.5"),
        ("true", "expected a whole number or auto, got True"),
        ("null", "expected a whole number or auto, got null"),
        ("0", "expected auto, 1 or more, got 0"),
    ],
)
def test_other_batch_sizes_are_refused_in_one_line(task, value, output):
    with pytest.raises(ConfigErrors) as caught:
        load_config(task, [f"predict.batch_size={value}"])
    assert [error.partition("predict.batch_size: ")[2] for error in caught.value.errors] == [output]


@pytest.mark.parametrize(
    ("more", "expected"), [([], {False: (4, 1), True: (32, 32)}), (["predict.batch_size=3"], None)]
)
def test_nuclei_and_windows_of_the_cells_task_follow_the_device(cuda, more, expected):
    config = load_config("cells", ["model.channels=[4,8]", *more])
    module = task_of(config).for_training(config, None)
    assert (module.limits.batch, module.tiling.sw_batch_size) == ((3, 3) if expected is None else expected[cuda])


def test_a_batch_of_nuclei_that_did_not_fit_is_not_tried_again_with_the_next_field():
    config = load_config("cells_network", ["model.channels=[4,8]", "trainer.accelerator=cpu"])
    module = task_of(config).for_training(config, None)
    assert module.finder().limits.batch == 4
    module.finder().limits.halve_batch(4, "nuclei")
    assert module.finder().limits.batch == 2


def shipped_finder(method):
    weights = read_checkpoint(cell_weights(method, None), "cells", "cell_weights")
    return cell_models.CellModel(weights, rule=SeedRule(), key="cell_weights").finder


def test_batches_of_an_analysis_follow_the_device(cuda, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cell_models, "resolve_device", lambda name: "cuda" if cuda else "cpu")
    offsets, network = (shipped_finder(method) for method in ("offsets", "network"))
    assert offsets.tiling.sw_batch_size == (32 if cuda else 1)
    assert network.limits.batch == (32 if cuda else 4)


@pytest.mark.parametrize("method", ["offsets", "network"])
def test_cell_finders_compute_in_float32_on_every_device(cuda, monkeypatch, method):
    monkeypatch.setattr(cell_models, "resolve_device", lambda name: "cuda" if cuda else "cpu")
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: True)
    found = shipped_finder(method)
    assert (found.device, found.precision) == ("cuda" if cuda else "cpu", "32-true")


def test_compilation_reaches_the_pipelines_network(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for mode in ("none", "default"):
        inferer = organelle_model(organelle_weights("organelle"), mode).inferer
        assert (inferer.tiling.sw_batch_size, inferer.compile) == (1, mode)


@without_cuda
@pytest.mark.parametrize(
    ("accelerator", "why"), [("cpu", "trainer.accelerator is cpu"), ("auto", "this machine has none")]
)
@pytest.mark.parametrize("flag", ["--check", "--dry-run"])
def test_cuda_graphs_without_a_cuda_device_are_refused_before_anything_is_written(cli, tiny, accelerator, why, flag):
    before = sorted(tiny.parent.rglob("*"))
    answer = cli(tiny, flag, "predict.compile=cuda_graphs", f"trainer.accelerator={accelerator}")
    assert answer.code == 2
    assert len(answer.errors) == 1
    assert f"predict.compile: cuda_graphs needs a CUDA device, but {why}; choose none or default" in answer.errors[0]
    assert sorted(tiny.parent.rglob("*")) == before


def test_cuda_graphs_are_accepted_where_a_cuda_device_would_be_used(cuda):
    config = load_config("organelle", ["predict.compile=cuda_graphs"])
    check = task_of(config).require_device
    if cuda:
        check(config)
    else:
        with pytest.raises(device_defaults.InputError, match="this machine has none"):
            check(config)


@without_cuda
def test_an_analysis_refuses_cuda_graphs_without_a_cuda_device(cli, cells, tmp_path):
    answer = cli("analyze", f"inputs=[{cells}/*.TCF]", f"out={tmp_path / 'run'}", "compile=cuda_graphs")
    assert (answer.code, len(answer.errors)) == (2, 1)
    assert answer.errors[0].startswith("compile: cuda_graphs needs a CUDA device, but this machine has none")
    assert not (tmp_path / "run").exists()


def test_compilation_of_an_analysis_that_predicts_nothing_is_refused():
    with pytest.raises(ConfigErrors) as caught:
        load_config("analyze", ["compile=default", "organelles=m_{organelle}.tif"])
    assert len(caught.value.errors) == 1
    assert "compile: applies to the network that predicts organelles" in caught.value.errors[0]


def test_an_analysis_keeps_its_folder_when_the_network_is_compiled(tmp_path):
    folders = {run_path(AnalyzeConfig(runs_dir=str(tmp_path), compile=how)) for how in ("none", "default")}
    assert len(folders) == 1
    assert folders != {run_path(AnalyzeConfig(runs_dir=str(tmp_path), border="include"))}
