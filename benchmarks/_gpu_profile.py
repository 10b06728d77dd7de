"""Part `profile`: which kernels take the time of a training step and of a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks._gpu_common import LAST, NotHere, autocast_of, products_in, seconds_of
from benchmarks._gpu_record import Recorder
from benchmarks._gpu_step import build_step

#: Kernels that are kept of each.
KERNELS = 12
#: What is profiled: its name, the config, and its layout.
SUBJECTS = (("organelle", "organelle", True), ("scnas", "organelle_choi", True), ("scnas", "organelle_choi", False))


def measure_profile(bench: Recorder) -> None:
    """A training step and a forward pass of the two networks in bfloat16."""
    for name, config, last in SUBJECTS:
        layout = "channels_last" if last else "contiguous"
        for what in ("step", "forward"):
            bench.measure(
                f"{name} {what} bfloat16 {layout}",
                partial(_profiled, bench, config, last, what),
                needs_s=8.0,
                kind="profile",
                config=config,
                precision="bfloat16",
                layout=layout,
                mode="eager",
            )


def _profiled(bench: Recorder, config: str, last: bool, what: str) -> dict[str, Any]:
    settings = bench.settings
    with products_in("bfloat16"):
        step = build_step(config, settings, "bfloat16", last)
        task: Callable[[], Any] = step
        if what == "forward":
            layout = LAST if last else torch.contiguous_format
            image_BCZYX = step.batch["image"].contiguous(memory_format=layout)

            def task() -> None:
                with torch.inference_mode(), autocast_of(settings.device, "bfloat16"):
                    step.module.network(image_BCZYX)

        for _ in range(1 if settings.quick else 4):
            task()
        seconds = seconds_of(task, settings.device)
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if settings.on_gpu else [])
        with profile(activities=activities) as profiler:
            seconds_of(task, settings.device)
    kernels = kernels_of(profiler.key_averages(), settings.on_gpu)
    if not kernels:
        raise NotHere("torch's profiler reports no kernels here")
    total = sum(kernel["ms"] for kernel in kernels)
    for kernel in kernels:
        kernel["share"] = kernel["ms"] / total if total else 0.0
    return {
        "median_ms": 1e3 * seconds,
        "kernels_ms": total,
        "launches": sum(kernel["calls"] for kernel in kernels),
        "device_busy": total / (1e3 * seconds),
        "kernels": kernels[:KERNELS],
    }


def kernels_of(averages: Any, on_gpu: bool) -> list[dict[str, Any]]:
    """Name, milliseconds and calls of each kernel, the longest first; without a GPU, of each operator of the CPU."""
    found = []
    for event in averages:
        if on_gpu and (event.device_type != DeviceType.CUDA or getattr(event, "is_user_annotation", False)):
            continue
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if microseconds > 0:
            found.append({"kernel": event.key, "ms": microseconds / 1e3, "calls": event.count})
    return sorted(found, key=lambda kernel: -kernel["ms"])
