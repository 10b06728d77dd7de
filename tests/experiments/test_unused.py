"""Keys without effect: refused in a sweep, noted by --check; and each rule is true of what the run builds."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.shape.datamodule import ShapeDataModule
from experiments.compose import compose, shipped_configs
from experiments.config import load_config
from experiments.errors import ConfigErrors
from experiments.sweep import main
from experiments.sweeps.sweep_file import read_sweep
from experiments.tasks import known_keys
from experiments.unused import (
    NEUTRAL,
    OF_THE_TEST,
    SWITCHED_OFF,
    sweep_rules,
    unused_keys,
    unused_notes,
    without_effect,
)
from lightning_modules.optim import learning_rate_scale

SHAPE = "shape_demo"
COMMAND = ["${env}", "python", "-m", "experiments.run"]


def refused(write_sweep: Any, config: str, parameters: dict[str, Any], metric: str, *fixed: str) -> list[str]:
    path = write_sweep(
        method="random", parameters=parameters, metric={"name": metric, "goal": "maximize"},
        command=[*COMMAND, config, *fixed, "${args_no_hyphens}"],
    )  # fmt: skip
    try:
        read_sweep(path)
    except ConfigErrors as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    ("config", "key", "values", "why"),
    [
        (SHAPE, "data.elastic_probability", [0.0, 0.5], "data.elastic is 0"),
        (SHAPE, "predict.samples", [5, 10], "only the test and predictions"),
        (SHAPE, "traits.thickness", [0.1, 0.2], "mean shape"),
        (SHAPE, "data.num_workers", [0, 1], "changes no number"),
        ("shape_flow", "process.std", [1.0, 2.0], ""),
        ("organelle_demo", "data.resample_grid", [[64, 64, 64], [32, 64, 64]], "data.resample is spacing_um"),
        ("cells_network", "data.foreground", [0.5, 1.0], "whole field"),
        ("cells", "seeds.min_volume_um3", [10.0, 20.0], "only the test"),
    ],
)
def test_a_swept_key_without_effect_is_one_line(write_sweep, config, key, values, why) -> None:
    lines = refused(write_sweep, config, {key: {"values": values}}, "val/x")
    if not why:
        assert lines == []
        return
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"sweep.yaml: parameters.{key}: has no effect: ")
    assert why in lines[0]


def test_check_of_a_sweep_ends_with_2(write_sweep, capsys) -> None:
    path = write_sweep(
        parameters={"data.elastic_probability": {"values": [0.0, 0.5]}}, metric={"name": "val/iou"},
        command=[*COMMAND, SHAPE, "${args_no_hyphens}"],
    )  # fmt: skip
    assert main([str(path), "--check"]) == 2
    assert "has no effect: data.elastic is 0" in capsys.readouterr().err


def test_what_another_swept_parameter_switches_on_is_used(write_sweep) -> None:
    both = {"data.elastic": {"values": [0.0, 2.0]}, "data.elastic_probability": {"values": [0.3, 0.6]}}
    assert refused(write_sweep, SHAPE, both, "val/iou") == []


def test_keys_of_the_test_are_used_where_the_test_is_what_counts(write_sweep) -> None:
    parameters = {"predict.samples": {"values": [5, 10]}, "traits.thickness": {"min": 0.1, "max": 0.3}}
    assert refused(write_sweep, SHAPE, parameters, "test/iou_error") == []
    assert len(refused(write_sweep, SHAPE, parameters, "val/iou")) == 2


def test_a_key_that_the_command_sets_again_is_refused(write_sweep) -> None:
    path = write_sweep(
        method="random", parameters={"optimizer.lr": {"values": [0.1, 0.2]}},
        command=[*COMMAND, "organelle_demo", "${args_no_hyphens}", "optimizer.lr=0.001"],
    )  # fmt: skip
    with pytest.raises(
        ConfigErrors, match=r"parameters\.optimizer\.lr: has no effect: its values give one and the same"
    ):
        read_sweep(path)


def test_a_constant_is_no_search(write_sweep) -> None:
    parameters = {"runs_dir": {"value": "elsewhere"}, "seed": {"values": [1, 2]}}
    assert refused(write_sweep, SHAPE, parameters, "val/iou") == []


def test_check_notes_what_another_key_switches_off(cli, tmp_path) -> None:
    answer = cli(
        "shape_demo", "--check", "data.elastic_probability=0.7", "optimizer.power=2.0", "data.train.count=1",
        "data.val.count=0", "data.test.count=0", "logging.wandb=disabled", f"runs_dir={tmp_path}",
    )  # fmt: skip
    notes = [line for line in answer.err.splitlines() if "has no effect" in line]
    assert notes == [
        "note: command line: data.elastic_probability: has no effect: data.elastic is 0: no cell is deformed",
        "note: command line: optimizer.power: has no effect: only optimizer.schedule: poly reads it",
    ]


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_no_shipped_config_sets_a_key_that_does_nothing(name: str) -> None:
    composed = compose(name, (), known_keys)
    if composed.values.get("task") in ("analyze", "cells_from_masks"):
        return
    assert unused_notes(composed, load_config(name)) == []


def test_every_rule_names_keys_that_there_are() -> None:
    untrained = ("analyze", "cells_from_masks")
    configs = [load_config(name) for name in shipped_configs() if compose(name).values.get("task") not in untrained]
    configs.append(load_config("shape_flow", ["loss={name: data_mse}", "preconditioning={name: data}"]))
    for rule in (*SWITCHED_OFF, NEUTRAL, *OF_THE_TEST):
        for key in rule.keys:
            assert any(_there(config, key.removesuffix(".")) for config in configs), key


def _there(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not hasattr(config, part):
            return False
        config = getattr(config, part)
    return True


def test_a_key_is_found_by_its_group() -> None:
    unused = unused_keys(load_config(SHAPE), sweep_rules("val/iou"))
    assert without_effect("slurm.nodes", unused)
    assert without_effect("data.test.count", unused)
    assert without_effect("data.elastic_probability", unused)
    assert without_effect("data.elastic", unused) is None
    assert without_effect("seed", unused) is None
    assert without_effect("names", unused) is None


def test_the_rules_of_augmentation_are_true() -> None:
    """With the key switched off, its value changes no sample; with it on, it does."""

    def drawn(**data: Any) -> torch.Tensor:
        config = load_config(SHAPE, [f"data.{key}={value}" for key, value in data.items()])
        augment = ShapeDataModule(config.data, 0).augmentation()
        augment.set_random_state(3)
        obj = torch.zeros(1, 64, 64, 64)
        obj[:, 20:40, 20:44, 24:40] = 1
        return augment({"image": obj[:, 32], "mask": obj[:, 32], "obj": obj})["obj"]

    assert torch.equal(drawn(elastic=0.0, elastic_probability=0.0), drawn(elastic=0.0, elastic_probability=1.0))
    assert torch.equal(drawn(elastic=0.5, elastic_probability=0.0), drawn(elastic=3.0, elastic_probability=0.0))
    assert not torch.equal(drawn(elastic=0.5, elastic_probability=1.0), drawn(elastic=3.0, elastic_probability=1.0))


@pytest.mark.parametrize("schedule", ["cosine", "poly", "constant"])
def test_the_rules_of_the_schedule_are_true(schedule: str) -> None:
    base = load_config("organelle_demo").optimizer
    config = load_config("organelle_demo", [f"optimizer.schedule={schedule}"])
    unused = {key for key in unused_keys(config) if key.startswith("optimizer.")}
    for key, value in {"factor": 0.5, "patience": 3, "power": 3.0, "lr_min_ratio": 0.5}.items():
        one = dataclasses.replace(base, schedule=schedule, warmup_steps=0)
        other = dataclasses.replace(one, **{key: value})
        rates = [[learning_rate_scale(c, 50)(step) for step in range(50)] for c in (one, other)]
        assert np.array_equal(*rates) == (f"optimizer.{key}" in unused)
