"""What a config may say, and what is answered when it says something else."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cytovox.errors import InputError
from cytovox.networks.genotype import genotype_from_json, load_genotype
from experiments.compose import SELECTORS, compose, shipped_configs
from experiments.config import ConfigErrors, load_config, resolved
from experiments.schema import to_yaml
from experiments.tasks import TASKS, task_of
from experiments.tasks.base import TrainedTask


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def errors_of(path: Path, *words: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        load_config(path, words)
    return caught.value.errors


UNTRAINED = sorted(name for name, task in TASKS.items() if not isinstance(task, TrainedTask))
TRAINED = sorted(set(shipped_configs()) - set(UNTRAINED))


@pytest.mark.parametrize("name", TRAINED)
def test_every_shipped_config_is_valid(name):
    assert load_config(name).name == name


@pytest.mark.parametrize("name", UNTRAINED)
def test_every_shipped_config_without_training_is_valid_and_reads_back_as_itself(tmp_path, name):
    words = ["membrane=m.tif", "nucleus=n.tif", "out=o"] if name == "cells_from_masks" else []
    first = load_config(name, words)
    assert (first.name, first.task) == (name, name)
    again = load_config(write(tmp_path, to_yaml(resolved(first))))
    assert resolved(again) == resolved(first)


@pytest.mark.parametrize("name", TRAINED)
def test_a_resolved_config_reads_back_as_itself(tmp_path, name):
    first = resolved(load_config(name))
    again = resolved(load_config(write(tmp_path, to_yaml(first))))
    assert again == first


def test_the_command_line_wins_over_the_file():
    assert load_config("organelle_demo", ["trainer.max_epochs=3"]).trainer.max_epochs == 3


def test_a_misspelt_key_names_the_nearest(tmp_path):
    path = write(tmp_path, "task: organelle\ntrainer: {max_epoch: 3}\ndata: {source: simulator}\n")
    assert errors_of(path) == ["mine.yaml: trainer.max_epoch: no such key; did you mean trainer.max_epochs?"]


def test_a_key_in_the_wrong_group_is_reported_with_its_place(tmp_path):
    path = write(tmp_path, "data: {source: simulator}\ntrainer: {batch_size: 3}\n")
    assert errors_of(path) == ["mine.yaml: trainer.batch_size: no such key; did you mean data.batch_size?"]


def test_every_fault_is_reported_at_once(tmp_path):
    path = write(
        tmp_path,
        "nmae: x\ndata: {source: simulator, patch_size: big}\ntrainer: {max_epochs: soon}\n"
        "model: {network: residual_unett}\n",
    )
    errors = errors_of(path, "optimizer.lr=quick")
    assert len(errors) == 5
    text = "\n".join(errors)
    assert "nmae: no such key; did you mean name?" in text
    assert "data.patch_size: expected a list of a whole number, got 'big'" in text
    assert "trainer.max_epochs: expected a whole number or null, got 'soon'" in text
    assert "did you mean residual_unet?" in text
    assert "command line: optimizer.lr: expected a number, got 'quick'" in text


def test_a_wrong_choice_names_the_legal_ones(tmp_path):
    path = write(tmp_path, "data: {source: simulator}\npredict: {z: centre}\n")
    assert errors_of(path) == [
        "mine.yaml: predict.z: expected one of tile, center, middle, got 'centre'; did you mean center?"
    ]


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("data: {source: simulator, patch_size: [64, 100, 128]}", "data.patch_size: patch: 100 voxels along y"),
        ("data: {source: simulator, patch_size: [64, 128]}", "data.patch_size: expected three positive numbers"),
        ("data: {source: simulator}\nmodel: {network: scnas}\ndata: {}", "mine.yaml: line"),
        ("data: {source: simulator}\nstages: [fitt]", "did you mean fit?"),
        ("data: {source: simulator}\nstages: [predict]", "predict.inputs: nothing to predict"),
        ("data: {source: simulator}\ntrainer: {max_time: soon}", "trainer.max_time: expected DD:HH:MM:SS"),
        ("data: {source: simulator}\ntrainer: {precision: half}", "trainer.precision: expected one of"),
        ("data: {source: simulator}\noptimizer: {lr: -1}", "optimizer.lr: expected a positive number"),
        ("data: {source: simulator, ri_range: [1.39, 1.337]}", "data.ri_range: expected two refractive indices"),
        ("data: {source: simulator, train: {presets: [Hela]}}", "data.train.presets: expected some of"),
        ("data: {source: simulator, train: {first_seed: -1}}", "data.train.first_seed: expected 0 or more"),
        ("data: {source: simulator, shape: [4, 64, 64]}", "data.shape: shape (4, 64, 64): expected"),
        ("data: {source: simulator, spacing_um: [3, 3, 3]}", "data.spacing_um: spacing (3.0, 3.0, 3.0): expected"),
        ("data: {source: simulator, noise_ri: [0, 0.001]}", "data.noise_ri: noise_ri (0.0, 0.001): expected"),
        ("data: {source: simulator, noise_ri: [0.001]}", "data.noise_ri: expected two numbers"),
        ("data: {source: simulator}\nseed: -1", "seed: expected 0 to 4294967295, got -1"),
        ("data: {source: simulator}\nseed: 4294967296", "seed: expected 0 to 4294967295"),
        ("data: {source: simulator}\nmodel: {channels: [32, -1]}", "yaml: model.channels: [32, -1]: expected"),
        ("data: {source: simulator, medium_ri: 133.7}", "data.medium_ri: medium_ri 133.7: expected"),
        ("data: {source: simulator, medium_spread: -1}", "data.medium_spread: medium_spread -1.0: expected"),
        ("data: {source: simulator, ri_contrast: 1.5}", "data.ri_contrast: expected a number from 0 to below 1"),
        ("data: {source: simulator, test: {first_seed: 0}}", "is also in data.train"),
        ("data: {source: folder}", "data.volumes: no tomograms named"),
        ("data: {volumes: a, masks: b, split: {train: 0.9}}", "data.split: fractions must"),
        ("data: {source: simulator}\nschema_version: 9", "schema_version: this Cytovox reads version 1"),
        ("data: {source: simulator}\nname: a/b", "name: expected a name that can be a folder's"),
        (
            "data: {source: simulator}\nname: 'a\n\n  date'",
            r"that can be a folder's, got 'a\ndate'",
        ),
        ("data: {source: simulator}\nloss: {organelle_weights: [1, 2]}", "loss: organelle_weights"),
        ("data: {source: simulator}\npredict: {stride: [99, 99, 999]}", "predict: sliding window: stride"),
        ("data: {source: simulator}\nseed: ${oc.env:HOME}", "interpolations"),
        ("data: {volumes: 3, masks: b}", "data.volumes: expected text or a list of text, got 3"),
        ("data: {volumes: a, masks: b, split: {train: true}}", "data.split.train: expected a number or a list of text"),
        ("data: {source: simulator}\npredict: {inputs: {a: b}}", "predict.inputs: expected text or a list of text"),
        ("data: {source: simulator}\ntrainer: 3", "trainer: expected a group of keys"),
        ("data: {source: simulator}\nseed: true", "seed: expected a whole number, got true"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(tmp_path, text, output):
    with pytest.raises(InputError) as caught:
        load_config(write(tmp_path, text))
    assert output in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_time_is_a_text_and_no_number_to_the_base_of_sixty(tmp_path):
    path = write(tmp_path, "data: {source: simulator}\ntrainer: {max_time: 10:01:30:00}\nslurm:\n  time: 24:00:00\n")
    config = load_config(path)
    assert (config.trainer.max_time, config.slurm.time) == ("10:01:30:00", "24:00:00")
    for time in ("2:00:00", "24:00:00", "1-02:00:00", "90"):
        config = load_config(path, [f"slurm.time={time}", "trainer.max_time=0:01:30:00"])
        assert (config.trainer.max_time, config.slurm.time) == ("0:01:30:00", time)
    assert load_config(path, ["slurm={time: 3:30:00}"]).slurm.time == "3:30:00"
    assert load_config(write(tmp_path, to_yaml(resolved(config)))).trainer.max_time == "0:01:30:00"


def test_a_patch_that_the_network_cannot_take_names_a_legal_one(tmp_path):
    text = "data: {source: simulator, patch_size: [64, 128, 120]}\nmodel: {network: scnas}\n"
    (error,) = {f for f in errors_of(write(tmp_path, text)) if "patch_size" in f}
    assert "128" in error


def test_secrets_of_the_environment_do_not_reach_a_config(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_SECRET", "hunter2")
    path = write(tmp_path, "data: {source: simulator}\nlogging: {tags: ['${oc.env:MY_SECRET}']}\n")
    assert "hunter2" not in "".join(errors_of(path))


def test_bases_are_laid_below_the_file(tmp_path):
    write(tmp_path, "data: {source: simulator, batch_size: 7}\nseed: 4\n", "low.yaml")
    config = load_config(write(tmp_path, "base: [low.yaml]\nseed: 5\n"))
    assert (config.data.batch_size, config.seed) == (7, 5)


def test_a_circle_of_bases_is_refused(tmp_path):
    write(tmp_path, "base: [b.yaml]\n", "a.yaml")
    with pytest.raises(InputError, match=r"in a circle \(a.yaml -> b.yaml -> a.yaml\)"):
        load_config(write(tmp_path, "base: [a.yaml]\n", "b.yaml").parent / "a.yaml")


def test_a_fault_names_the_base_it_came_from(tmp_path):
    write(tmp_path, "data: {source: simulator}\ntrainer: {max_epochs: x}\n", "low.yaml")
    assert errors_of(write(tmp_path, "base: low.yaml\n"))[0].startswith("low.yaml: trainer.max_epochs")


def test_a_genotype_from_a_file_is_kept_with_the_run_itself(tmp_path):
    genotype = load_genotype("published").to_json()
    genotype["reduction"]["n0"] = [["conv_3", "s0"], ["conv_3", "s1"]]
    file = tmp_path / "found.json"
    file.write_text(json.dumps(genotype))
    config = load_config("organelle_choi", [f"model.genotype={file}"])
    saved, output = write(tmp_path, to_yaml(resolved(config))), task_of(config).metadata(config)
    file.unlink()
    again = load_config(saved)
    assert (
        load_genotype(again.model.genotype) == load_genotype(output.model["genotype"]) == genotype_from_json(genotype)
    )
    with pytest.raises(InputError, match="no such file"):
        load_config("organelle_choi", [f"model.genotype={file}"])


def test_another_branch_forgets_the_keys_of_the_first():
    config = load_config("organelle_demo", ["model.network=scnas", "data.patch_size=[48,48,48]"])
    assert not hasattr(config.model, "channels")


def test_a_stranger_s_config_cannot_name_a_class(tmp_path):
    path = write(tmp_path, "data: {source: simulator}\nmodel: {_target_: os.system, network: residual_unet}\n")
    assert "model._target_: no such key" in errors_of(path)[0]
    tagged = write(tmp_path, "name: !!python/object/apply:os.system ['true']\n", "evil.yaml")
    with pytest.raises(InputError, match="not readable as YAML"):
        load_config(tagged)


@pytest.mark.parametrize(
    ("word", "output"),
    [("lr", "expected key=value"), ("--lr=3", "keys have no dashes; write lr=3"), ("=3", "expected key=value")],
)
def test_words_that_are_no_overrides_are_answered(word, output):
    with pytest.raises(InputError, match=output):
        compose("organelle_demo", [word])


def test_an_unknown_config_names_the_nearest_shipped_one():
    with pytest.raises(InputError, match="did you mean organelle_demo"):
        load_config("organelle_dmeo")


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected `key: value` lines"):
        load_config(write(tmp_path, "- 1\n- 2\n"))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31), st.lists(st.sampled_from(["a", "b c", "ü", "null", "1"]), max_size=3))
def test_values_survive_the_way_through_yaml(tmp_path_factory, seed, tags):
    config = load_config("organelle_demo", [f"seed={seed}"])
    config.logging.tags = tags
    tree = yaml.safe_load(to_yaml(resolved(config)))
    path = write(tmp_path_factory.mktemp("yaml"), to_yaml(tree))
    again = load_config(path)
    assert (again.seed, again.logging.tags) == (seed, tags)


@pytest.mark.parametrize("value", ["*.TCF", "**/*.TCF"])
def test_a_glob_on_the_command_line_is_text_although_yaml_takes_a_star_for_an_alias(value):
    assert load_config("organelle", [f"data.volumes={value}"]).data.volumes == value
    assert load_config("organelle", [f"data.volumes=['{value}']"]).data.volumes == [value]


@pytest.mark.parametrize("task", list(TASKS))
def test_every_choice_of_a_branch_forgets_the_other_branch_s_keys(task):
    assert {group: choice.key for group, choice in TASKS[task].choices.items()}.items() <= SELECTORS.items()


def test_the_spacing_of_simulated_cells_is_not_that_of_a_folder(tmp_path):
    words = ["data.source=folder", f"data.root={tmp_path}", "data.volumes=*.TCF", "data.masks=*_{organelle}.nii.gz"]
    assert load_config("scnas_search", words).data.spacing_um is None
    output = load_config("scnas_search", ["data.spacing_um=[1,2,3]", *words])
    assert output.data.spacing_um == [1, 2, 3]
