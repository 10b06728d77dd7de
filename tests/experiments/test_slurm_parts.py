"""The shipped partial configs for nodes of eight V100, on top of the shipped configs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.compose import compose, shipped_configs, shipped_parts
from experiments.config import load_config
from experiments.tasks import TASKS, known_keys
from experiments.tasks.base import TrainedTask
from tests.experiments.test_shipped_configs import SMALLER

PARTS = {"slurm/8xV100": (1, 16), "slurm/4x8xV100": (4, 64)}
BASES = ["organelle", "organelle_choi", "shape_dispr"]
#: What each shipped config must set to be laid under the parts, as docs/cluster.md says: nothing where it is not here.
SET = {
    "organelle_demo": ("trainer.global_batch=32", "trainer.global_batch=128"),
    **dict.fromkeys(
        ("shape_demo", "shape_flow", "shape_nuclei", "shape_rbc", "shapr"),
        ("trainer.global_batch=64", "trainer.global_batch=256"),
    ),
    **dict.fromkeys(("scnas_search", "scnas_search_demo"), ("trainer.global_batch=null",) * 2),
}
TRAININGS = [
    name
    for name in shipped_configs()
    if isinstance(TASKS[compose(name, [], known_keys).values.get("task", "organelle")], TrainedTask)
]
#: One process, and sizes that a test can wait for.
ALONE = [
    "trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=1", "trainer.strategy=auto",
    "data.batch_size=1", "data.num_workers=0", "logging.wandb=disabled",
]  # fmt: skip


def _write(folder: Path, base: str, part: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"base: [{base}, {part}]\nname: mine\n")
    return path


def test_all_shipped_parts_are_tested_and_none_is_a_config() -> None:
    assert sorted(PARTS) == sorted(shipped_parts())
    assert not set(PARTS) & set(shipped_configs())


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_sets_precision_batch_rate_and_nodes(tmp_path: Path, base: str, part: str) -> None:
    nodes, batch = PARTS[part]
    config, plain = load_config(_write(tmp_path, base, part)), load_config(base)
    trainer = config.trainer
    assert (trainer.precision, trainer.devices, trainer.num_nodes, trainer.global_batch) == (
        "16-mixed",
        8,
        nodes,
        batch,
    )
    assert (config.slurm.nodes, config.slurm.gpus_per_node) == (nodes, 8)
    assert trainer.global_batch % (config.data.batch_size * 8 * nodes) == 0
    assert (config.optimizer.lr_scale, config.optimizer.schedule) == ("sqrt", "cosine")
    assert config.optimizer.warmup_steps > 0
    assert (config.optimizer.lr, config.optimizer.name) == (plain.optimizer.lr, plain.optimizer.name)
    assert dataclasses.asdict(config.model) == dataclasses.asdict(plain.model)


@pytest.mark.parametrize("base", TRAININGS)
@pytest.mark.parametrize("part", PARTS)
def test_every_training_is_accepted_or_refused_before_the_job(tmp_path: Path, cli: Any, base: str, part: str) -> None:
    config = _write(tmp_path, base, part)
    words = ["--submit", "--dry-run", f"runs_dir={tmp_path / 'runs'}", "logging.wandb=disabled"]
    answer = cli(config, *words)
    if base not in SET:
        assert answer.code == 0, answer.err
        return
    assert (answer.code, len(answer.errors)) == (2, 1), answer.err
    assert "global_batch: " in answer.errors[0]
    assert answer.out == ""
    answer = cli(config, *words, SET[base][list(PARTS).index(part)])
    assert answer.code == 0, answer.err
    if not base.startswith("scnas"):
        assert cli(config, *words, "data.batch_size=1").code == 0


def test_configs_that_need_an_option_are_trainings() -> None:
    assert set(SET) < set(TRAININGS)
    assert {"cells_network", "organelle", "shape_dispr"} < set(TRAININGS) - set(SET)


@pytest.mark.parametrize("words", [["trainer.global_batch=6", "trainer.devices=2"],
                                   ["trainer.global_batch=6", "trainer.num_nodes=2"]])  # fmt: skip
def test_check_refuses_a_global_batch_that_does_not_divide(tiny: Path, cli: Any, words: list[str]) -> None:
    answer = cli(tiny, "--check", *words)
    assert answer.code == 2
    assert answer.errors == [
        "trainer.global_batch: expected a multiple of 4 (2 samples per batch on 2 ranks), got 6; change it, "
        "data.batch_size or the number of devices"
    ]
    for fits in (["trainer.global_batch=8"], ["stages=[test]"], ["trainer.devices=auto", "trainer.num_nodes=1"]):
        assert "trainer.global_batch" not in cli(tiny, "--check", *words, *fits).err


def test_submit_divides_the_global_batch_by_the_ranks_of_the_job(tiny: Path, tmp_path: Path, cli: Any) -> None:
    words = ["--submit", "--dry-run", "trainer.global_batch=12", "slurm.nodes=2", f"runs_dir={tmp_path}"]
    assert cli(tiny, *words, "slurm.gpus_per_node=3").code == 0
    answer = cli(tiny, *words, "slurm.gpus_per_node=4")
    assert (answer.code, len(answer.errors)) == (2, 1)
    assert "expected a multiple of 16 (2 samples per batch on 8 ranks), got 12" in answer.errors[0]


def test_a_part_alone_is_refused(cli: Any) -> None:
    answer = cli("slurm/8xV100", "--check")
    assert (answer.code, answer.errors) == (
        2,
        ["slurm/8xV100: part of a config: name it in base: of your own, such as base: [organelle, slurm/8xV100]"],
    )


@pytest.mark.parametrize(("base", "part"), [("organelle", "slurm/8xV100"), ("organelle", "slurm/4x8xV100")])
def test_a_part_runs_one_step_in_16_mixed(tmp_path: Path, cells: Path, cli: Any, base: str, part: str) -> None:
    config = _write(tmp_path, base, part)
    words = [*SMALLER[base], *ALONE, "model.channels=[8,16]", f"data.root={cells}", f"runs_dir={tmp_path / 'runs'}"]
    checked = cli(config, "--check", *words)
    assert checked.code == 0, checked.err
    answer = cli(config, "--dry-run", *words, "stages=[fit]")
    assert json.loads((answer.run / "metrics.json").read_text())["fit/steps"] == 1
    assert answer.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("base", ["organelle_choi", "shape_dispr"])
def test_larger_networks_run_one_step(tmp_path: Path, shape_folder: Path, cli: Any, base: str) -> None:
    words = [*SMALLER[base], *ALONE, "stages=[fit]", f"runs_dir={tmp_path / 'runs'}"]
    if base == "shape_dispr":
        # float16 takes a CPU minutes here
        words += [f"data.root={shape_folder}", "data.class_pattern=(.+)_\\d+", "trainer.precision=32-true"]
    else:
        words = [word for word in words if "accumulate" not in word] + ["model.width=2"]
    answer = cli(_write(tmp_path, base, "slurm/8xV100"), "--dry-run", *words)
    assert json.loads((answer.run / "metrics.json").read_text())["fit/steps"] == 1


def test_the_learning_rate_is_scaled_by_the_batch(tmp_path: Path, tiny: Path, cli: Any) -> None:
    words = ["trainer.global_batch=8", "optimizer.lr_scale=sqrt", "stages=[fit]", "trainer.max_epochs=1"]
    answer = cli(tiny, *words, f"runs_dir={tmp_path}")
    metrics = json.loads((answer.run / "metrics.json").read_text())
    assert (metrics["fit/global_batch"], metrics["fit/lr"]) == (8, pytest.approx(0.02))
    assert "a step: 8 samples (1 ranks, 4 batches of 2); learning rate 0.02, 0.01 scaled (sqrt)" in answer.out
    rows = (answer.run / "metrics.csv").read_text().splitlines()
    rate = rows[0].split(",").index("lr-Adam")
    assert {float(row.split(",")[rate]) for row in rows[1:] if row.split(",")[rate]} == {0.02}


@pytest.mark.parametrize("part", PARTS)
def test_the_job_requests_the_nodes_and_gpus_of_the_part(tmp_path: Path, cells: Path, cli: Any, part: str) -> None:
    config = _write(tmp_path, "organelle", part)
    answer = cli(config, "--submit", "--dry-run", f"data.root={cells}", f"runs_dir={tmp_path / 'runs'}",
                 "logging.wandb=disabled")  # fmt: skip
    assert answer.code == 0, answer.err
    assert f"#SBATCH --nodes={PARTS[part][0]}" in answer.out
    assert "#SBATCH --gres=gpu:8" in answer.out
    assert "#SBATCH --ntasks-per-node=8" in answer.out
