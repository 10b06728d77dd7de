"""Architecture search from the command line: results, reproducibility and errors."""

import csv
import json
import os
import shutil
import signal
import sys
import types

import pytest
import torch

from cytovox.networks.genotype import load_genotype
from experiments.config import load_config
from experiments.tasks import task_of
from lightning_modules.organelle import OrganelleModule
from lightning_modules.search import SearchModule

SMALL = [
    "data.shape=[24,48,48]", "data.spacing_um=[0.9,0.9,0.9]", "data.resample_spacing_um=[0.9,0.9,0.9]",
    "data.patch_size=[24,32,32]", "predict.stride=[24,32,32]", "model.width=2", "model.layers=2", "data.batch_size=1",
    "data.train.count=4", "data.val.count=1", "data.test.count=1", "data.patches_per_epoch=6", "data.num_workers=0",
    "trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1",
    "optimizer.warmup_steps=1", "search.warmup=0.3", "search.lr=0.1", "retrain={max_epochs: 1}",
    "trainer.log_every_n_steps=1", "search.candidates=3",
]  # fmt: skip


def state(run):
    return torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def searched(cli, tmp_path_factory):
    return cli("scnas_search_demo", *SMALL, f"runs_dir={tmp_path_factory.mktemp('search')}")


def test_a_search_writes_a_genotype_its_figure_and_a_retrained_network(searched):
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
    output = next(value for value in kept.values() if isinstance(value, dict) and "model" in value)["model"]
    assert load_genotype(output["genotype"]) == genotype
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Its operations cost" in page
    assert "It is the best of 4 candidates" in page
    assert "A step used 1 sample over 1 rank, at a learning rate of 0.002" in page
    own = json.loads((run / "retrained" / "metrics.json").read_text())
    assert metrics["retrained/dice_mean"] == own["val/dice_mean"]


def test_the_genotype_is_the_best_of_the_candidates_within_the_cost(searched):
    with (searched.run / "tables" / "candidates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    (chosen,) = [row for row in rows if row["chosen"] == "1"]
    assert float(chosen["dice_mean"]) == max(float(row["dice_mean"]) for row in rows)
    metrics = json.loads((searched.run / "metrics.json").read_text())
    assert metrics["search/dice_derived"] == pytest.approx(float(chosen["dice_mean"]), rel=1e-5)
    assert metrics["search/cost_derived"] == pytest.approx(float(chosen["cost"]), rel=1e-5)
    assert all(float(row["cost"]) <= metrics["search/cost_published"] for row in rows)  # target: 1.0


def test_the_entropy_decreases(searched):
    with (searched.run / "metrics.csv").open(newline="") as file:
        found = [float(row["search/entropy"]) for row in csv.DictReader(file) if row.get("search/entropy")]
    assert len(found) == 2
    assert 1 > found[0] > found[1] + 0.01


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torch has no gloo launcher of this kind on Windows")
def test_two_ranks_find_and_train_the_same_network(tmp_path, command):
    words = ["trainer.devices=2", "trainer.strategy=ddp", f"runs_dir={tmp_path}"]
    answer = command("scnas_search_demo", *SMALL, *words, cwd=tmp_path, timeout=1800)
    assert answer.errors == []
    metrics = json.loads((answer.run / "metrics.json").read_text())
    assert metrics["search/entropy"] < 1
    assert metrics["test/cases"] == 1
    again = json.loads((answer.run / "retrained" / "status.json").read_text())
    assert (again["status"], again["stages_done"]) == ("finished", ["fit", "test"])


@pytest.mark.slow
def test_the_architecture_is_trained_and_reproducible(searched, cli, tmp_path):
    first = state(searched.run)
    logits = {key: value for key, value in first.items() if "architecture" in key}
    assert logits
    assert any(value.any() for value in logits.values())
    second = state(cli("scnas_search_demo", *SMALL, f"runs_dir={tmp_path}", "stages=[fit]").run)
    other = state(cli("scnas_search_demo", *SMALL, f"runs_dir={tmp_path}", "stages=[fit]", "seed=2").run)
    assert all(torch.equal(second[key], value) for key, value in first.items())
    assert not all(torch.equal(other[key], value) for key, value in logits.items())


@pytest.mark.slow
def test_a_resumed_search_equals_an_uninterrupted_one(searched, cli, tmp_path, monkeypatch):
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


@pytest.mark.slow
def test_the_retraining_is_equal_in_a_separate_process_and_after_a_stop(searched, cli, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(searched.run, run)
    shutil.rmtree(run / "retrained")
    plain, seen = OrganelleModule.training_step, []

    def stopping(self, batch, index):
        seen.append(index)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(self, batch, index)

    monkeypatch.setattr(OrganelleModule, "training_step", stopping)
    answer = cli(f"resume={run}", "stages=[test]")
    assert answer.code == 75
    assert answer.err.count("resume=") == 1
    assert f"resume={run}\n" in answer.err
    assert cli(f"resume={run}", "stages=[test]").code == 0
    assert len(seen) == 6
    mine, theirs = state(run / "retrained"), state(searched.run / "retrained")
    assert all(torch.equal(mine[key], value) for key, value in theirs.items())
    kept = (run / "retrained" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    again = cli(f"resume={run}", "stages=[test]")  # asked for again: scored again, and not trained
    assert again.code == 0
    assert (run / "retrained" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == kept


def test_another_genotype_is_retrained_and_the_earlier_training_is_renamed(searched, cli, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(searched.run, run)
    published = load_genotype("published")
    (run / "genotype.json").write_text(json.dumps(published.to_json()))
    answer = cli(f"resume={run}", "stages=[test]")
    assert answer.code == 0
    assert "retrained-1" in answer.err
    output = load_config(run / "retrained" / "config.yaml", []).model
    assert load_genotype(output.genotype) == published
    first = (searched.run / "retrained" / "metrics.json").read_text()
    assert (run / "retrained-1" / "metrics.json").read_text() == first


def test_a_search_with_a_latency_cost(cli, tmp_path):
    words = [f"runs_dir={tmp_path}", "stages=[fit]", "trainer.max_epochs=1"]
    run = cli("scnas_search_demo", *SMALL, *words, "search.cost={measure: latency_ms, target: 0.5}").run
    costs = state(run)["cost_reduction"]
    assert (costs[:, :-1] > 0).all()  # but for 'none'
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["search/cost_published"] > 0
    answer = cli(f"resume={run}", "stages=[fit]", "search.cost.measure=gflop", "trainer.max_epochs=2")
    assert answer.code == 2
    assert answer.errors == ["search.cost.measure: cannot resume: the checkpoint's cost differs: latency_ms "
                             "there, gflop here; make them the same, or start a new search"]  # fmt: skip


@pytest.mark.parametrize("schedule", ["plateau", "cosine", "constant"])
def test_no_schedule_changes_the_learning_rate_of_the_architecture(schedule):
    config = load_config("scnas_search_demo", [*SMALL, f"optimizer.schedule={schedule}", "optimizer.patience=0",
                                               "optimizer.warmup_steps=0"])  # fmt: skip
    module = task_of(config).for_training(config, None)
    module._trainer = types.SimpleNamespace(estimated_stepping_batches=4)
    found = module.configure_optimizers()
    optimizer, scheduler = found["optimizer"], found["lr_scheduler"]["scheduler"]
    for _ in range(4):
        optimizer.step()
        scheduler.step(*([0.0] if schedule == "plateau" else []))
    weights, architecture = optimizer.param_groups
    assert architecture["lr"] == config.search.lr
    assert (weights["lr"] < config.optimizer.lr) == (schedule != "constant")


@pytest.mark.slow
def test_a_search_resumed_at_its_end_uses_the_averaged_weights(cli, tmp_path):
    words = [f"runs_dir={tmp_path}", "stages=[fit]", "trainer.ema={decay: 0.9}"]
    run = cli("scnas_search_demo", *SMALL, *words).run
    table, genotype = run / "tables" / "candidates.csv", run / "genotype.json"
    first = (table.read_text(), genotype.read_text())
    table.unlink()
    genotype.unlink()
    assert cli(f"resume={run}", "stages=[fit]").code == 0
    assert (table.read_text(), genotype.read_text()) == first


def test_without_validation_the_most_likely_network_within_the_cost_is_chosen(cli, tmp_path):
    words = [f"runs_dir={tmp_path}", "stages=[fit]", "data.val.count=0", "trainer.max_epochs=1", "search.warmup=0"]
    run = cli("scnas_search_demo", *SMALL, *words).run
    assert load_genotype(str(run / "genotype.json"))
    assert "search/dice_derived" not in json.loads((run / "metrics.json").read_text())


def test_a_joint_search_trains_on_one_volume(cli, tmp_path):
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
        (["retrain={multiplier: 2}"], "retrain.multiplier: expected the search's 3 or more"),
        (["retrain={layers: 4}", "predict.window=[24,32,30]"], "predict.window: 30 voxels along x"),
        (["trainer.max_time=00:00:10:00"], "trainer.max_time: not with task search"),
        (["trainer.early_stopping={patience: 3}"], "trainer.early_stopping: not with task search"),
        (["trainer.global_batch=4"], "global_batch: not with task search"),
        (["--plan"], "--plan: not for task search"),
        (["search.candidates=-1"], "search.candidates: expected 0 or more"),
        (["search.cost={target: 0}"], "cost.target: expected a number above 0"),
    ],
)
def test_an_invalid_search_is_reported_in_one_line(cli, tmp_path, words, said):
    answer = cli("scnas_search_demo", *SMALL, f"runs_dir={tmp_path}", *words)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not list(tmp_path.iterdir())


def test_a_search_is_not_resumed_in_another_search_space(searched, cli):
    answer = cli(f"resume={searched.run}", "stages=[fit]", "search.operations=[conv_3,identity]")
    assert answer.code == 2
    assert answer.errors[-1].startswith("search.operations: cannot resume: the checkpoint's search space differs")
    assert all(error.startswith("note: ") for error in answer.errors[:-1])
