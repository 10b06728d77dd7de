"""Parts `inference`, `published` and `memory`: whole tomograms through our engine and through MONAI's."""

from __future__ import annotations

import copy
import dataclasses
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from torch import nn

from benchmarks._gpu_common import (
    LIGHTNING,
    NotHere,
    Settings,
    layout_word,
    log_lines,
    one_line,
    products_in,
    seconds_of,
)
from benchmarks._gpu_forward import forward_records
from benchmarks._gpu_modes import in_mode
from benchmarks._gpu_record import Candidate, Recorder
from cytovox.inference.predictor import DenseInferer, probability_predictor
from cytovox.inference.tiling import SlidingWindow
from cytovox.inference.windows import window_weight
from cytovox.io.regions import Shape
from cytovox.models.metadata import load_network, read_checkpoint
from cytovox.networks import network_config
from cytovox.networks.weights import shipped_weights
from cytovox.preprocess.intensity import NormaliseRI
from cytovox.preprocess.resampling import ResampleTo
from cytovox.simulation.tomogram import simulate

#: Voxels of the tomogram, and of a quick run's.
TOMOGRAM, QUICK = (128, 512, 512), (24, 48, 64)
#: Voxels of the simulated field that the tomogram is made of, by mirroring it.
FIELD, QUICK_FIELD = (64, 128, 128), (32, 64, 64)
#: As `predict.skip_below` has it by default.
SKIP = 0.1
#: Window and step of the published network, as experiments/configs/organelle_choi.yaml has them.
PUBLISHED = ((64, 128, 128), (64, 64, 64))
#: Seconds that must be left before something is compiled.
COMPILE_S = 50.0
#: What the option `compile` of our engine is called in each mode.
ENGINE_MODES = {"compile": "default", "graph": "cuda_graphs"}


@dataclass(frozen=True)
class Variant:
    """How a tomogram is predicted."""

    engine: str
    """`ours` or `MONAI`."""
    precision: str = "bfloat16"
    channels_last: bool = True
    mode: str = "eager"
    batch: int = 8
    skip_below: float | None = None
    """Ours only: windows of nothing but medium are not computed."""
    stitch: str | None = None
    """`device` or `host`; None leaves it to the engine."""

    @property
    def name(self) -> str:
        """Of the record."""
        words = [self.engine, self.precision, layout_word(self.channels_last), self.mode, f"b{self.batch}"]
        words += [f"skip {self.skip_below}"] if self.skip_below is not None else []
        words += [f"stitch on {self.stitch}"] if self.stitch else []
        return " ".join(words)

    @property
    def labels(self) -> dict[str, Any]:
        """Of the record."""
        return {
            "kind": "tomogram", "engine": self.engine, "precision": self.precision,
            "layout": layout_word(self.channels_last), "mode": self.mode, "batch": self.batch,
            "skip_below": self.skip_below, "stitch": self.stitch,
        }  # fmt: skip


@dataclass
class Subject:
    """What is predicted, by which network, in which windows."""

    network: nn.Module
    normalise: NormaliseRI
    spacing_um: tuple[float, float, float]
    window: Shape
    stride: Shape
    ri_ZYX: np.ndarray
    reference: np.ndarray | None = None
    """Probabilities (K, Z, Y, X) in float32, without TF32."""


def tomogram(settings: Settings, spacing_um: tuple[float, float, float]) -> np.ndarray:
    """Refractive index of simulated cells, float32 (Z, Y, X): one field, mirrored until the volume is full."""
    shape, own = (QUICK, QUICK_FIELD) if settings.quick else (TOMOGRAM, FIELD)
    field_ZYX = simulate("HeLa", 3, own, spacing_um).ri_ZYX
    missing = [(0, max(0, n - m)) for n, m in zip(shape, own, strict=True)]
    return np.ascontiguousarray(np.pad(field_ZYX, missing, mode="symmetric")[tuple(slice(n) for n in shape)])


def shipped_subject(settings: Settings) -> Subject:
    """The shipped weights of organelles, on their own grid and in their own windows, half a window apart."""
    weights = read_checkpoint(shipped_weights()["organelle"], "organelle", "weights")
    metadata = weights.metadata
    options = dict(metadata.model)
    network = network_config(str(options.pop("network")))(**options).build(1, len(metadata.organelles))
    load_network(network, weights, "weights")
    z, y, x = (24, 32, 32) if settings.quick else (int(n) for n in metadata.patch_size)
    dz, dy, dx = (float(s) for s in metadata.resample_spacing_um)
    ri_ZYX = tomogram(settings, (dz, dy, dx))
    normalise = NormaliseRI(*metadata.ri_range)
    return Subject(network.eval(), normalise, (dz, dy, dx), (z, y, x), (z // 2, y // 2, x // 2), ri_ZYX)


def published_subject(settings: Settings) -> Subject:
    """The published network with random weights, in its windows."""
    torch.manual_seed(0)
    options = {"width": 2, "layers": 4} if settings.quick else {}
    network = network_config("scnas")(**options).build(1, 4).eval()
    window, stride = ((24, 32, 32), (24, 32, 32)) if settings.quick else PUBLISHED
    spacing_um = (0.3, 0.3, 0.3)
    return Subject(network, NormaliseRI(), spacing_um, window, stride, tomogram(settings, spacing_um))


def engine_options() -> list[str]:
    """Names of the options of our engine: what it offers beyond a network, a grid and windows."""
    return sorted(option.name for option in dataclasses.fields(DenseInferer) if option.init)


def predictor(way: Variant, subject: Subject, settings: Settings) -> Callable[[], np.ndarray]:
    """A call that predicts the tomogram, to probabilities (K, Z, Y, X) in main memory.

    Raises
    ------
    NotHere
        The engine does not offer what the way asks for.
    """
    network = copy.deepcopy(subject.network).to(settings.device)
    if way.channels_last:
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    make = _ours if way.engine == "ours" else _monai
    call = make(way, network, subject, settings)

    def predict() -> np.ndarray:
        with products_in(way.precision):
            return call()

    return predict


def _ours(way: Variant, network: nn.Module, subject: Subject, settings: Settings) -> Callable[[], np.ndarray]:
    more: dict[str, Any] = {}
    if way.mode == "graph" and not settings.on_gpu:
        raise NotHere("CUDA graphs need a CUDA device")
    if way.mode != "eager" and "compile" in engine_options() and not settings.quick:
        more["compile"] = ENGINE_MODES[way.mode]
    elif way.mode != "eager":  # an engine without that option is given a network that is compiled already
        network = in_mode(network, way.mode, way.batch, settings)
    if way.stitch is not None:
        if "layers" not in engine_options():
            raise NotHere("the engine has one way of stitching")
        more["layers"] = way.stitch == "device"
    tiling = SlidingWindow(
        subject.window, subject.stride, pad_yx=(0, 0), sw_batch_size=way.batch, skip_below=way.skip_below
    )
    inferer = DenseInferer(
        network,
        resample=ResampleTo.chosen("spacing_um", list(subject.spacing_um), []),
        tiling=tiling,
        normalise=subject.normalise,
        device=settings.device,
        precision=LIGHTNING[way.precision],
        channels_last=way.channels_last,
        **more,
    )
    return lambda: inferer(subject.ri_ZYX, subject.spacing_um)


def _monai(way: Variant, network: nn.Module, subject: Subject, settings: Settings) -> Callable[[], np.ndarray]:
    """MONAI's engine with our weight of a window's voxels, so that both blend alike."""
    predict = probability_predictor(in_mode(network, way.mode, way.batch, settings), LIGHTNING[way.precision])
    layout = torch.channels_last_3d if way.channels_last else torch.contiguous_format
    stitch = "cpu" if way.stitch == "host" else settings.device
    overlap = [1 - step / size for size, step in zip(subject.window, subject.stride, strict=True)]
    inferer = SlidingWindowInferer(subject.window, way.batch, overlap, sw_device=settings.device, device=stitch)
    inferer.roi_weight_map = window_weight(subject.window, "spline").to(stitch)

    def call() -> np.ndarray:
        with torch.inference_mode():
            image_BCZYX = torch.from_numpy(subject.normalise(subject.ri_ZYX))[None, None].to(stitch)
            found = inferer(image_BCZYX, lambda seen: predict(seen.contiguous(memory_format=layout)))
        assert isinstance(found, torch.Tensor)
        return found[0].cpu().numpy()

    return call


def candidate(way: Variant, subject: Subject, settings: Settings) -> Candidate:
    """A way as something to be timed; its record has its agreement with float32, too."""

    def figures(seconds: float, result: np.ndarray) -> dict[str, Any]:
        return {"seconds_a_tomogram": seconds, **agreement(result, subject.reference)}

    needs = COMPILE_S if way.mode in ("compile", "reduce-overhead") else 12.0
    return Candidate(way.name, lambda: predictor(way, subject, settings), way.labels, figures, needs)


def agreement(result_KZYX: np.ndarray, reference_KZYX: np.ndarray | None) -> dict[str, Any]:
    """Largest difference of probabilities, and the Dice of the masks at 0.5, from a reference.

    Returns
    -------
    dict
        `most` and `dice` (a list, one an organelle; None where both masks are empty); empty without a reference.
    """
    if reference_KZYX is None:
        return {}
    dice: list[float | None] = []
    most = 0.0
    for one, other in zip(result_KZYX, reference_KZYX, strict=True):
        a, b = torch.from_numpy(one), torch.from_numpy(other)
        most = max(most, float((a - b).abs().max()))
        mine, theirs = a >= 0.5, b >= 0.5
        both = int(mine.sum()) + int(theirs.sum())
        dice.append(2 * int((mine & theirs).sum()) / both if both else None)
    return {"most": most, "dice": dice}


def inference_groups() -> Iterator[list[Variant]]:
    """Ways that are compared with each other, the most telling first."""
    precisions = ("bfloat16", "float16", "tf32", "float32")
    yield [
        Variant(engine, precision, channels_last=precision in ("bfloat16", "float16"))
        for precision in precisions
        for engine in ("ours", "MONAI")
    ]
    yield [Variant(engine, mode="graph") for engine in ("ours", "MONAI")]
    yield [Variant("ours", batch=batch) for batch in (1, 2, 4, 16, 32)] + [
        Variant("MONAI", batch=batch) for batch in (1, 4, 32)
    ]
    yield [Variant("ours", skip_below=SKIP), Variant("ours", "float16", mode="graph")]
    yield [Variant(engine, stitch="host") for engine in ("ours", "MONAI")]
    yield [
        Variant(engine, precision, channels_last=False) for precision in precisions[:2] for engine in ("ours", "MONAI")
    ]
    yield [Variant("ours", precision, channels_last=True) for precision in precisions[2:]]
    yield [Variant(engine, mode="compile") for engine in ("ours", "MONAI")]


def measure_inference(bench: Recorder) -> None:
    """The shipped weights: the network alone, then a tomogram through both engines."""
    settings = bench.settings
    subject = shipped_subject(settings)
    bench.measure("engine", lambda: {"options": engine_options(), "windows": _windows(subject)}, kind="engine")
    forward_records(bench, subject.network, subject.window, batches=(8, 1, 4, 16, 32), quick_batch=2)
    bench.say("reference in float32")
    subject.reference = predictor(Variant("ours", "float32", channels_last=False, batch=4), subject, settings)()
    _play(bench, subject, inference_groups(), rounds=3)


def measure_published(bench: Recorder) -> None:
    """The published network: the network alone, then a tomogram in its windows."""
    subject = published_subject(bench.settings)
    forward_records(bench, subject.network, subject.window, batches=(4, 1, 8), quick_batch=1, every_precision=False)
    groups = [
        [Variant(engine, "bfloat16", channels_last=last, batch=4) for last in (False, True)] for engine in ("ours",)
    ]
    groups += [[Variant("ours", "float16", batch=4), Variant("MONAI", "bfloat16", batch=4)]]
    _play(bench, subject, iter(groups), rounds=3)


def _windows(subject: Subject) -> int:
    tiling = SlidingWindow(subject.window, subject.stride, pad_yx=(0, 0))
    return len(tiling.windows(subject.ri_ZYX.shape))


def _play(bench: Recorder, subject: Subject, groups: Iterator[list[Variant]], rounds: int) -> None:
    for group in groups:
        group = [dataclasses.replace(way, batch=min(way.batch, 2)) for way in group] if bench.settings.quick else group
        candidates = [candidate(way, subject, bench.settings) for way in group]
        bench.interleave(candidates, budget_s=max(3.0, bench.left_s / 6), most=rounds)


def measure_memory(bench: Recorder) -> None:
    """The engine with a batch of windows that does not fit into the memory it is allowed."""
    bench.measure("limited memory", lambda: _limited(bench), needs_s=10.0, kind="memory")


def _limited(bench: Recorder) -> dict[str, Any]:
    """Predict with 512 windows a batch in 4 GB, and collect what the engine reports."""
    settings = bench.settings
    if not settings.on_gpu:
        raise NotHere("the memory of a process can be limited on a CUDA device only")
    subject = shipped_subject(settings)
    free = predictor(Variant("ours", batch=8), subject, settings)
    expected = free()
    del free
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 4e9 / total))
    try:
        errors = io.StringIO()
        with warnings.catch_warnings(record=True) as caught, log_lines() as lines, redirect_stderr(errors):
            warnings.simplefilter("always")
            call, result = predictor(Variant("ours", batch=512), subject, settings), []
            try:
                seconds = seconds_of(lambda: result.append(call()), settings.device)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                return {"finished": False, "engine_error": one_line(error), "limit_mb": 4000}
        lines += [str(warning.message).splitlines()[0] for warning in caught] + errors.getvalue().splitlines()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return {
        "finished": True,
        "limit_mb": 4000,
        "seconds_a_tomogram": seconds,
        "reported": [line for line in lines if "memory" in line.lower()][:8],
        **agreement(result[0], expected),
    }
