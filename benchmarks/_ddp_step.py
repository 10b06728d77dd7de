"""A training step over ranks: ours through Lightning, and the loop that one writes by hand around the same parts."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # see benchmarks/__init__.py

import itertools

from benchmarks._common import Table, Watch, quiet_rounds, ratio, show_ratio
from benchmarks._train_loops import StepEnds
from experiments.build import build_data, build_for_training
from experiments.config import load_config
from experiments.progress import silence_lightning
from lightning_modules.organelle import MONITOR
from training.exact import ExactResume
from training.preemption import Preemption
from training.rundir import RunFolder
from training.signals import StopSignals
from training.trainer import build_trainer

#: Steps of a round, and first ones that do not count.
STEPS, SKIP = 14, 4
WORDS = ("trainer.precision=32-true", "trainer.enable_progress_bar=false", "trainer.ema=null", "data.num_workers=0",
         "data.train.count=4", "data.val.count=1", "data.batch_size=1", "trainer.max_time=null")  # fmt: skip
QUICK = ("data.shape=[24,32,32]", "data.spacing_um=[0.6,0.6,0.6]", "data.resample_spacing_um=[0.6,0.6,0.6]",
         "data.patch_size=[24,32,32]", "predict.stride=[24,32,32]")  # fmt: skip


def play(rank: int, world: int, rounds: int, quick: bool) -> dict[str, list[float]]:
    """Median seconds of a step of each way in each round, on this rank."""
    silence_lightning()
    torch.set_num_threads(1)
    per_epoch = STEPS * world
    words = [*WORDS, *(QUICK if quick else ()), f"trainer.devices={world}", f"data.patches_per_epoch={per_epoch}"]
    config = load_config("organelle_demo", [*words, "trainer.accelerator=cpu", "trainer.max_epochs=1"])
    config.trainer.strategy = "ddp"  # of one rank, too: the same wrapper
    config.trainer.limit_val_batches = 0
    data = build_data(config, None, False, ("fit",))
    found: dict[str, list[float]] = {"trainer": [], "bare": [], "bare, no gradients sent": []}
    for _ in range(rounds + 1):  # the first warms up
        found["trainer"].append(_through_lightning(config, data))
        found["bare"].append(_by_hand(config, data, sync=True))
        found["bare, no gradients sent"].append(_by_hand(config, data, sync=False))
    module: Any = build_for_training(config, start=False)
    numbers = [p.numel() for p in module.network.parameters()]
    with FlopCounterMode(display=False) as counter:
        module.network(torch.zeros(1, 1, *config.data.patch_size)).sum().backward()
    counts = {"gradient_bytes": [4.0 * sum(numbers)], "flop": [float(counter.get_total_flops())]}
    return {**{key: values[1:] for key, values in found.items()}, **counts}


def _median(ends: list[float]) -> float:
    steps = [after - before for before, after in itertools.pairwise(ends)]
    return statistics.median(steps[SKIP - 1 :])


def _through_lightning(config: Any, data: Any) -> float:
    pl.seed_everything(config.seed, verbose=False)
    ends = StepEnds()
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        extra: list[pl.Callback] = [ends, ExactResume(config.seed), Preemption(StopSignals(), run.last_checkpoint)]
        trainer = build_trainer(config.trainer, run, [], MONITOR, dry_run=False, extra=extra)
        trainer.fit(build_for_training(config, start=False), datamodule=data)
    return _median(ends.times)


def _by_hand(config: Any, data: Any, sync: bool) -> float:
    """The same network, loss, loader and DDP."""
    pl.seed_everything(config.seed, verbose=False)
    module: Any = build_for_training(config, start=False)
    network = DistributedDataParallel(module.network.train())
    optimizer = torch.optim.AdamW(network.parameters(), config.optimizer.lr)
    loader, ends = data.train_dataloader(), []
    for batch in loader:
        optimizer.zero_grad()
        with network.no_sync() if not sync else torch.enable_grad():
            total = module.loss(network(batch["image"]), batch["mask"], batch["labelled"]).sum()
            total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.trainer.gradient_clip_val)
        optimizer.step()
        ends.append(time.perf_counter())
    return _median(ends)


def ranks(world: int, rounds: int, quick: bool) -> dict[str, list[float]]:
    """What `world` processes measure together; of each round, the slowest rank's."""
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for rank in range(world):
            environment = {
                **os.environ, "OMP_NUM_THREADS": "1", "LOCAL_RANK": str(rank), "NODE_RANK": "0",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29600 + world),
            }  # fmt: skip
            words = [sys.executable, __file__, str(rank), str(world), str(rounds), str(int(quick)), folder]
            processes.append(subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL))
        assert all(process.wait() == 0 for process in processes)
        output = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(world)]
    return {key: [max(values) for values in zip(*(one[key] for one in output), strict=True)] for key in output[0]}


#: All-reduce bandwidths, bytes a second a node, that the model of larger clusters takes for granted.
WIRES = {"100 Gb/s InfiniBand, 80 % of it": 10e9, "10 Gb/s Ethernet, 80 % of it": 1e9}


def step_tables(arguments: argparse.Namespace, watch: Watch) -> tuple[list[Table], dict[str, Any], dict[str, Any]]:
    """Overhead of the trainer, weak scaling, and the model of step times on larger clusters."""
    found: dict[int, dict[str, list[float]]] = {}

    def once() -> dict[int, dict[str, list[float]]]:
        return {world: ranks(world, 1, arguments.quick) for world in (1, 2)}

    for result in quiet_rounds(arguments, watch, once):
        for world, values in result.items():
            for key, numbers in values.items():
                found.setdefault(world, {}).setdefault(key, []).extend(numbers)
    ratios, rows = {}, []
    for world, values in found.items():
        cost = ratio(values["trainer"], values["bare"])
        sent = ratio(values["bare"], values["bare, no gradients sent"])
        ratios[f"trainer over bare, {world} ranks"] = cost
        ratios[f"gradients sent over not, {world} ranks"] = sent
        rows.append([str(world), *(f"{1e3 * statistics.median(values[key]):.0f}" for key in _SHOWN), show_ratio(cost),
                     show_ratio(sent)])  # fmt: skip
    weak = ratio(found[2]["bare"], found[1]["bare"])
    ratios["weak scaling, 2 ranks over 1"] = weak
    heads = ["ranks", "trainer (ms)", "by hand (ms)", "not sent (ms)", "trainer over by hand", "sent over not"]
    tables = [Table("A step of organelle_demo over ranks, one core each, gloo", heads, rows)]
    tables.append(Table("Weak scaling", ["", "ratio"], [["a step on 2 ranks over one on 1 rank", show_ratio(weak)]]))
    tables.append(_model(found[1]["gradient_bytes"][0], found[1]["flop"][0]))
    return tables, {str(world): values for world, values in found.items()}, ratios


_SHOWN = ("trainer", "bare", "bare, no gradients sent")


#: What a V100 is taken to do of a 3D network's FLOP a second, in mixed precision: a tenth of its peak.
V100 = 12e12


def _model(own_bytes: float, own_flop: float) -> Table:
    """A ring all-reduce sends 2 (N - 1) / N of the gradients through each of N nodes' wires.

    What a step takes lies between the longer of computing and sending (all of it hidden behind backward) and their
    sum (nothing hidden). One patch a GPU.
    """
    nodes, rows = 4, []
    for name, size, flop in (("organelle_demo", own_bytes, own_flop), ("ScNAS 12/8/3", 4 * 12.99e6, 3 * 127e9)):
        for wire, bandwidth in WIRES.items():
            compute, sent = 1e3 * flop / V100, 1e3 * 2 * (nodes - 1) / nodes * size / bandwidth
            low, high = max(compute, sent), compute + sent
            rows.append([name, f"{flop / 1e9:.0f}", f"{compute:.1f}", f"{size / 1e6:.1f}", wire, f"{sent:.1f}",
                         f"{low:.1f} to {high:.1f}"])  # fmt: skip
    heads = ["network", "GFLOP a patch, both ways", "computing (ms)", "gradients (MB)", "wires", "sending (ms)", "step"]
    return Table(
        "A model, not a measurement: 4 nodes of 8 V100, each taken to do 12 TFLOP/s, one patch a GPU", heads, rows
    )


def main() -> None:
    """One rank."""
    rank, world, rounds, quick = map(int, sys.argv[1:5])
    found = play(rank, world, rounds, bool(quick))
    (Path(sys.argv[5]) / f"{rank}.json").write_text(json.dumps(found))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
