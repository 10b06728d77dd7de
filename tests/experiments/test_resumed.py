"""Every key that is changed on resume acts, or is refused with the reason."""

from __future__ import annotations

import json

import pytest
import yaml

from experiments.config import load_config, resolved
from experiments.errors import ConfigErrors
from experiments.resumed import PER_CALL, changed_keys, resumption
from experiments.schema import STAGES
from tests.experiments.folders import numbers, steps
from training.rundir import RunFolder


def test_a_longer_training_goes_on_and_is_recorded(copied, cli):
    before = len(steps(copied))
    answer = cli(f"resume={copied}", "trainer.max_epochs=3")
    assert answer.code == 0, answer.err
    assert numbers(copied)["fit/epochs"] == 3
    assert len(steps(copied)) == before * 3 // 2
    assert yaml.safe_load((copied / "config.yaml").read_text())["trainer"]["max_epochs"] == 3
    assert yaml.safe_load((copied / "config_1.yaml").read_text())["trainer"]["max_epochs"] == 2
    assert json.loads((copied / "status.json").read_text())["stages_done"] == ["fit", "test", "predict"]
    assert "nothing is left to do" in cli(f"resume={copied}").out


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("trainer.max_epochs=2", None),
        ("trainer.max_epochs=1", "has trained 2 epochs"),
        ("trainer.max_steps=1", "has trained 2 epochs"),
        ("optimizer.lr=0.5", "start a new run with init_from="),
        ("loss.name=dice_focal", "start a new run with init_from="),
        ("trainer.gradient_clip_val=1.0", "has an effect in training only"),
        ("name=other", "a run keeps its own"),
        ("runs_dir=elsewhere", "a run keeps its own"),
        ("stages=[fit] seed=4", "a training that has begun keeps its own"),
        ("stages=[test] predict.format=nifti", "has an effect in predict only, which this call does not run"),
        ("stages=[predict] trainer.limit_test_batches=1", "has an effect in test only, which this call does not run"),
        ("stages=[test] trainer.max_epochs=9", "stages has no fit"),
    ],
)
def test_what_cannot_act_is_refused(trained, cli, word, reason):
    answer = cli(f"resume={trained.run}", *word.split(), "--check")
    if reason is None:
        assert answer.code == 0, answer.err
        return
    assert answer.code == 2
    assert any(line.startswith(f"{word.split()[-1].partition('=')[0]}: ") and reason in line for line in answer.errors)


def test_a_config_file_beside_resume_must_be_the_runs_own(trained, tiny, cli, tmp_path):
    assert cli(tiny, f"resume={trained.run}", "--check").code == 0
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({**yaml.safe_load(tiny.read_text()), "optimizer": {"name": "adam", "lr": 0.5}}))
    answer = cli(other, f"resume={trained.run}", "--check")
    assert answer.code == 2
    assert "differs from" in answer.err
    assert "optimizer.lr" in answer.err


def leaves(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def with_changed(tree, key):
    head, _, rest = key.partition(".")
    return {**tree, head: with_changed(tree[head], rest) if rest else object()}


def test_every_key_in_turn_acts_or_is_refused(trained):
    """None is accepted and then does nothing: it changes the stages, is recorded, or acts in a stage that is done."""
    folder = RunFolder(trained.run)
    kept = resolved(load_config(folder.path / "config.yaml"))
    for key in leaves(kept):
        if key.split(".")[0] in PER_CALL or key in ("trainer.max_epochs", "trainer.max_steps"):
            continue
        asked = with_changed(kept, key)
        assert changed_keys(kept, asked) == [key]
        try:
            found = resumption(folder, kept, asked, named=False)
        except ConfigErrors as refused:
            named = [error.split(":")[0] for error in refused.errors]
            if named != [key]:
                pytest.fail(f"{key}: {named}")
        else:
            assert found.stages, f"{key} is accepted, and nothing is done"
            assert set(found.stages) <= set(STAGES)
            assert key.startswith("predict") or found.recorded == [key]
