"""A search from the command line: what it finds, that it finds it again, and what it refuses."""

import json
import os
import signal

import pytest
import torch

from lightning_modules.search import SearchModule
from networks.genotype import load_genotype

SMALL = [
    "data.shape=[24,48,48]", "data.spacing_um=[0.9,0.9,0.9]", "data.resample_spacing_um=[0.9,0.9,0.9]",
    "data.patch_size=[24,32,32]", "predict.stride=[24,32,32]", "model.width=2", "model.layers=2", "data.batch_size=1",
    "data.train.count=4", "data.val.count=1", "data.test.count=1", "data.patches_per_epoch=6", "data.num_workers=0",
    "trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1",
    "optimizer.warmup_steps=1", "search.warmup=0.3", "search.lr=0.1", "retrain={max_epochs: 1}",
]  # fmt: skip


def state(run):
    return torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def searched(cli, tmp_path_factory):
    return cli("scnas_search_demo", *SMALL, f"runs_dir={tmp_path_factory.mktemp('search')}")


def test_a_search_leaves_a_genotype_its_picture_and_a_network_trained_with_it(searched):
    run = searched.run
    genotype = load_genotype(str(run / "genotype.json"))
    assert json.loads((run / "genotype.json").read_text())["reference"] == "searched by scnas_search_demo"
    assert (run / "figures" / "genotype.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 < metrics["search/entropy"] < 1
    assert 0 <= metrics["test/dice_mean"] <= 1
    again = json.loads((run / "retrained" / "status.json").read_text())
    assert again["stages_done"] == ["fit", "test"]
    text = (run / "retrained" / "config.yaml").read_text()
    assert "task: organelle" in text
    kept = torch.load(run / "retrained" / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    told = next(value for value in kept.values() if isinstance(value, dict) and "model" in value)["model"]
    assert load_genotype(told["genotype"]) == genotype
    assert "Its operations cost" in (run / "report.html").read_text(encoding="utf-8")


def test_the_architecture_has_learnt_and_the_same_seed_learns_the_same(searched, cli, tmp_path):
    first = state(searched.run)
    logits = {key: value for key, value in first.items() if "architecture" in key}
    assert logits
    assert any(value.any() for value in logits.values())
    second = state(cli("scnas_search_demo", *SMALL, f"runs_dir={tmp_path}", "stages=[fit]").run)
    other = state(cli("scnas_search_demo", *SMALL, f"runs_dir={tmp_path}", "stages=[fit]", "seed=2").run)
    assert all(torch.equal(second[key], value) for key, value in first.items())
    assert not all(torch.equal(other[key], value) for key, value in logits.items())


def test_a_search_that_is_stopped_goes_on_and_comes_to_the_same(searched, cli, tmp_path, monkeypatch):
    plain, seen = SearchModule.training_step, []

    def stopping(self, batch, index):
        seen.append(index)
        if len(seen) == 9:  # the third batch of the second epoch: the architecture is learning
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(self, batch, index)

    monkeypatch.setattr(SearchModule, "training_step", stopping)
    words = [*SMALL, f"runs_dir={tmp_path}", "stages=[fit]"]
    assert cli("scnas_search_demo", *words).code == 75
    (run,) = (tmp_path / "scnas_search_demo").iterdir()
    assert not (run / "genotype.json").exists()
    again = cli(f"resume={run}").run
    assert len(seen) == 12
    assert all(torch.equal(state(again)[key], value) for key, value in state(searched.run).items())


def test_a_joint_search_learns_both_from_one_volume(cli, tmp_path):
    run = cli("scnas_search_demo", *SMALL, f"runs_dir={tmp_path}", "stages=[fit]", "search.joint=true",
              "data.train.count=1").run  # fmt: skip
    assert any(value.any() for key, value in state(run).items() if "architecture" in key)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search.operations=[conv_3,identiti]"], "search.operations: expected some of identity"),
        (["search.operations=[conv_3]"], "expected two at least"),
        (["data.patch_size=[24,33,32]"], "33 voxels along y: expected a multiple of 2, at least 6; use 32 or 34"),
        (["model.checkpointing=true"], "model.checkpointing: not with task search"),
        (["stages=[test]"], "test trains what a search has found"),
        (["stages=[fit,predict]", "predict.inputs=[x.TCF]"], "a search predicts nothing"),
        (["data.train.count=1"], "expected two at least, since weights and architecture learn from separate halves"),
        (["retrain={layers: 3}"], "layers: 3: expected an even number"),
        (["search.cost={target: 0}"], "cost.target: expected a number above 0"),
    ],
)
def test_what_cannot_be_searched_is_said_in_a_line(cli, tmp_path, words, said):
    answer = cli("scnas_search_demo", *SMALL, f"runs_dir={tmp_path}", *words)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_a_search_is_not_gone_on_with_in_another_space(searched, cli):
    answer = cli(f"resume={searched.run}", "stages=[fit]", "search.operations=[conv_3,identity]")
    assert answer.code == 2
    assert "make model: the same" in answer.err or "another space" in answer.err
