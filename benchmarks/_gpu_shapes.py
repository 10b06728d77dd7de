"""Part `shapes`: shapes a second of the shipped model of red blood cells, and an evaluation of DISPR's network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch

from benchmarks._gpu_batches import shape_batch
from benchmarks._gpu_common import LIGHTNING, autocast_of, products_in, repeated, seconds_of, spread
from benchmarks._gpu_modes import compiled
from benchmarks._gpu_record import Recorder
from benchmarks._gpu_step import config_of
from cytovox.inference.device_memory import DeviceLimits
from cytovox.models.metadata import read_checkpoint
from cytovox.models.shape import condition, samples_at_once
from cytovox.networks.weights import shipped_weights
from experiments.build import build_for_training, build_from_weights
from experiments.config import load_config

#: Samples of a cell.
SAMPLES = 16
PRECISIONS = ("bfloat16", "float16", "tf32", "float32")
BATCHES, DISPR_BATCHES = (8, 1, 4, 16, 32, 64, 128), (1, 4, 8)
#: Steps of DISPR's sampler.
STEPS = 1000
COMPILE_S = 40.0


def measure_shapes(bench: Recorder) -> None:
    """The shipped model by precision and batch, through its own path and the sampler alone; then DISPR's network."""
    weights = read_checkpoint(shipped_weights()["shape_rbc"], "shape", "weights")
    module: Any = build_from_weights(load_config("shape_rbc"), [weights])
    module = module.to(bench.settings.device).eval()
    quick = bench.settings.quick
    for precision in PRECISIONS[:1] if quick else PRECISIONS:
        _whole(bench, module, precision, None)
    for batch in (4,) if quick else (4, 8):
        _whole(bench, module, "bfloat16", batch)
    for batch in (2,) if quick else BATCHES:
        _sampler(bench, module, "bfloat16", batch)
    for precision in () if quick else PRECISIONS[1:]:
        _sampler(bench, module, precision, BATCHES[0])
    for precision in PRECISIONS[:1] if quick else PRECISIONS[:3]:
        for batch in DISPR_BATCHES[:1] if quick else DISPR_BATCHES:
            _evaluation(bench, precision, batch, "eager")
    _evaluation(bench, "bfloat16", 1, "compile")


@contextlib.contextmanager
def drawn_at_once(module: Any, batch: int | None) -> Iterator[None]:
    """Have the module draw so many samples at once; None leaves its own number."""
    with mock.patch.object(module, "limits", batch and DeviceLimits(batch)):
        yield


def _whole(bench: Recorder, module: Any, precision: str, batch: int | None) -> None:
    """From an image to all shapes of a cell and their mean, as test and prediction do it."""
    settings = bench.settings
    module.trainer = None
    cell = shape_batch(1, settings.device)

    def task() -> dict[str, Any]:
        def predict() -> None:
            with torch.inference_mode(), autocast_of(settings.device, precision):
                module.shapes(cell["image"][0], cell["mask"][0], 0, SAMPLES)

        with products_in(precision), drawn_at_once(module, batch):
            timed = spread(repeated(predict, settings))
        return {**timed, "shapes_per_s": SAMPLES / (timed["median_ms"] / 1e3)}

    at_once = samples_at_once(torch.device(settings.device)) if batch is None else batch
    bench.measure(
        f"a cell of {SAMPLES} samples {precision} {f'b{batch}' if batch else 'as it comes'}",
        task,
        kind="whole",
        config="shape_rbc",
        precision=precision,
        mode="eager",
        batch=at_once,
    )


def _sampler(bench: Recorder, module: Any, precision: str, batch: int) -> None:
    """Fields of many conditions at once: the sampler without views, decoding and the copy to main memory."""
    settings = bench.settings
    cells = shape_batch(batch, settings.device)
    condition_BCYX = condition(cells["image"], cells["mask"])

    def task() -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)

        def draw() -> None:
            with torch.inference_mode(), autocast_of(settings.device, precision):
                module.draw(condition_BCYX, generator)

        with products_in(precision):
            timed = spread(repeated(draw, settings))
        return {**timed, "shapes_per_s": batch / (timed["median_ms"] / 1e3)}

    bench.measure(
        f"sampler alone {precision} b{batch}", task, kind="sampler", config="shape_rbc", precision=precision,
        mode="eager", batch=batch,
    )  # fmt: skip


def _evaluation(bench: Recorder, precision: str, batch: int, mode: str) -> None:
    """One evaluation of DISPR's network, of which a sample takes a thousand."""
    bench.measure(
        f"dispr evaluation {precision} {mode} b{batch}",
        lambda: _dispr(bench, precision, batch, mode),
        needs_s=COMPILE_S if mode == "compile" else 6.0,
        kind="evaluation",
        config="shape_dispr",
        precision=precision,
        mode=mode,
        batch=batch,
    )


def _dispr(bench: Recorder, precision: str, batch: int, mode: str) -> dict[str, Any]:
    settings = bench.settings
    config = config_of("shape_dispr", settings)
    module: Any = build_for_training(config, start=False).to(settings.device).eval()
    network: Callable[..., Any] = module.network if mode == "eager" else compiled(module.network, mode, settings)
    cells = shape_batch(batch, settings.device)
    condition_BCYX = condition(cells["image"], cells["mask"])
    x_BCZYX = torch.randn(batch, 1, 64, 64, 64, device=settings.device)
    t_B = torch.full((batch,), 500.0, device=settings.device)

    def evaluate() -> None:
        with torch.inference_mode(), autocast_of(settings.device, precision):
            network(x_BCZYX, t_B, condition_BCYX)

    with products_in(precision):
        opening = seconds_of(evaluate, settings.device)
        timed = spread(repeated(evaluate, settings))
    each = timed["median_ms"] / batch
    return {**timed, "first_call_s": opening, "ms_a_sample": each, "seconds_a_shape": STEPS * each / 1e3}


assert set(PRECISIONS) <= set(LIGHTNING)
