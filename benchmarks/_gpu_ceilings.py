"""Part `ceilings`: measured peak rates of the card, and those of its datasheet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks._gpu_common import LAST, PRECISIONS, layout_word, products_in, repeated, spread
from benchmarks._gpu_record import Recorder

#: Channels in and out of the convolutions, and the size of their images.
CONVOLUTIONS, IMAGE = (16, 32, 64, 128), (4, 32, 64, 64)


def measure_ceilings(bench: Recorder) -> None:
    """Copies, matrix products, 3x3x3 convolutions, transfers, and the cost of starting a kernel."""
    _copy(bench)
    for precision in PRECISIONS:
        bench.measure(f"matmul {precision}", _bound(_matmul, bench, precision), kind="step", precision=precision)
    for precision, last in (("bfloat16", True), ("bfloat16", False), ("float16", True)):
        for channels in CONVOLUTIONS:
            bench.measure(
                f"conv3d {channels} {precision} {layout_word(last)}",
                _bound(_convolution, bench, precision, channels, last),
                kind="step",
                precision=precision,
                layout=layout_word(last),
            )
    for pinned in (True, False):
        for upload in (True, False):
            name = f"{'upload' if upload else 'download'} {'pinned' if pinned else 'pageable'}"
            bench.measure(name, _bound(_transfer, bench, pinned, upload))
    bench.measure("kernel start", _bound(_start, bench))


def _bound(task: Callable[..., dict[str, Any]], *arguments: Any) -> Callable[[], dict[str, Any]]:
    return lambda: task(*arguments)


def _copy(bench: Recorder) -> None:
    def task() -> dict[str, Any]:
        source = torch.rand((1 << 20 if bench.settings.quick else 1 << 30) // 4, device=bench.settings.device)
        target = torch.empty_like(source)
        timed = spread(repeated(lambda: target.copy_(source), bench.settings))
        rate = 2 * source.nbytes / (timed["median_ms"] / 1e3)
        return {**timed, "rate_of": "copy", "rate": rate, "gb_per_s": rate / 1e9}

    bench.measure("copy on the device", task)


def _matmul(bench: Recorder, precision: str) -> dict[str, Any]:
    dtype = PRECISIONS[precision][0] or torch.float32
    edge = 256 if bench.settings.quick else 8192
    a, b = (torch.randn(edge, edge, device=bench.settings.device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with products_in(precision):
        timed = spread(repeated(lambda: torch.mm(a, b, out=out), bench.settings))
    rate = 2.0 * edge**3 / (timed["median_ms"] / 1e3)
    return {**timed, "edge": edge, "rate_of": precision, "rate": rate, "tflop_per_s": rate / 1e12}


def _convolution(bench: Recorder, precision: str, channels: int, last: bool) -> dict[str, Any]:
    batch, z, y, x = (1, 8, 8, 8) if bench.settings.quick else IMAGE
    dtype, device = PRECISIONS[precision][0], bench.settings.device
    layout = LAST if last else torch.contiguous_format
    image = torch.randn(batch, channels, z, y, x, device=device, dtype=dtype).contiguous(memory_format=layout)
    weight = torch.randn(channels, channels, 3, 3, 3, device=device, dtype=dtype).contiguous(memory_format=layout)
    with products_in(precision), torch.inference_mode():
        timed = spread(repeated(lambda: F.conv3d(image, weight, padding=1), bench.settings))
    flop = 2.0 * 27 * channels * image.numel()
    return {**timed, "tflop_per_s": flop / (timed["median_ms"] / 1e3) / 1e12}


def _transfer(bench: Recorder, pinned: bool, upload: bool) -> dict[str, Any]:
    size = (1 << 20 if bench.settings.quick else 1 << 27) // 4
    host = torch.rand(size, pin_memory=pinned and bench.settings.on_gpu)
    device = torch.rand(size, device=bench.settings.device)
    target, source = (device, host) if upload else (host, device)
    timed = spread(repeated(lambda: target.copy_(source, non_blocking=True), bench.settings))
    return {**timed, "gb_per_s": host.nbytes / (timed["median_ms"] / 1e3) / 1e9}


def _start(bench: Recorder) -> dict[str, Any]:
    """Microseconds from kernel to kernel where each does next to nothing."""
    one, calls = torch.ones(1, device=bench.settings.device), 10 if bench.settings.quick else 1000

    def task() -> None:
        for _ in range(calls):
            one.mul_(1.0)

    timed = spread(repeated(task, bench.settings))
    return {**timed, "us_each": 1e3 * timed["median_ms"] / calls}
