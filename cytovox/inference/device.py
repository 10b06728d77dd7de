"""Choice of the device, precision and batch size of a network, and whether this build of torch supports a GPU."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from cytovox.errors import InputError

#: Lightning's names of precisions, with the type that autocast computes in.
PRECISIONS: dict[str, torch.dtype | None] = {
    "32-true": None,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}
#: oneDNN's names of instruction sets that have no product of bfloat16.
_WITHOUT_BFLOAT16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}


def choose_precision(wanted: str, accelerator: str) -> str:
    """Return Lightning's name of a precision; any `wanted` but `auto` is returned unchanged.

    `auto` is bf16-mixed on GPUs with bfloat16 (compute capability 8 and up) and on CPUs with AMX or AVX512-BF16,
    16-mixed on older GPUs (V100), and else 32-true. `accelerator` is as of `uses_cuda`.
    """
    if wanted != "auto":
        return wanted
    if uses_cuda(accelerator):
        return "bf16-mixed" if torch.cuda.get_device_capability()[0] >= 8 else "16-mixed"
    on_cpu = str(accelerator).partition(":")[0] in ("auto", "cpu")
    return "bf16-mixed" if on_cpu and cpu_has_bfloat16() else "32-true"


def autocast(device: str, precision: str, cache: bool = True) -> AbstractContextManager:
    """Return the context in which a network computes in a precision, given by Lightning's name.

    Parameters
    ----------
    device : str
        Type of the device: cpu, cuda.
    precision : str
        One of `PRECISIONS`.
    cache : bool
        Keep cast weights until the context ends.

    Raises
    ------
    InputError
        Another precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device, dtype=dtype, cache_enabled=cache)


def uses_cuda(accelerator: str) -> bool:
    """Return whether a torch device (`cuda:1`) or an accelerator of Lightning (`auto`, `gpu`) is a CUDA device here."""
    return str(accelerator).partition(":")[0] in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 in hardware, and oneDNN may use it (`ONEDNN_MAX_CPU_ISA`)."""
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper() in _WITHOUT_BFLOAT16:
        return False
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def require_supported_gpu(accelerator: str) -> None:
    """Refuse a GPU that this build of torch has no code for.

    Raises
    ------
    InputError
        The message names the GPU, its architecture, and the build to install.
    """
    if not uses_cuda(accelerator) or torch.version.hip is not None:  # AMD's architectures have other names
        return
    major, minor = torch.cuda.get_device_capability()
    built = torch.cuda.get_arch_list()
    if any(_runs_on(arch, major, minor) for arch in built):
        return
    raise InputError(
        f"trainer.accelerator: this torch {torch.__version__} has no code for {torch.cuda.get_device_name()} "
        f"(sm_{major}{minor}; built for {', '.join(built)}); install a build that has, such as "
        "pip install torch --index-url https://download.pytorch.org/whl/cu126"
    )


def _runs_on(arch: str, major: int, minor: int) -> bool:
    """Return whether code of an architecture runs on a GPU.

    Binary code runs on the same major architecture with the same or a higher minor one, PTX on any newer one. With the
    suffix a (`sm_90a`) both run only on exactly that architecture, with the suffix f (`sm_100f`) only on its family.
    """
    kind, _, digits = arch.partition("_")
    bare = digits.rstrip("af")
    if kind not in ("sm", "compute") or len(bare) < 2 or not bare.isdigit():
        return False
    built = (int(bare[:-1]), int(bare[-1]))
    if digits.endswith("a"):
        return built == (major, minor)
    if kind == "compute" and bare == digits:
        return built <= (major, minor)
    return built[0] == major and built[1] <= minor


#: Windows or nuclei in one batch on a CUDA device; halved if memory is short.
BATCH_ON_CUDA = 32
#: Windows in one batch on any other device.
WINDOWS_ON_CPU = 1
#: Nuclei in one batch on any other device.
NUCLEI_ON_CPU = 4


def batch_size(wanted: int | str, accelerator: str, on_cpu: int = WINDOWS_ON_CPU) -> int:
    """Return the batch size that suits a device.

    Parameters
    ----------
    wanted : int or "auto"
        A number is returned unchanged.
    accelerator : str
        As of `uses_cuda`: `auto` is a CUDA device if there is one.
    on_cpu : int
        Value of `auto` on a device that is not a CUDA device.

    Returns
    -------
    int
        Windows or nuclei in one batch.
    """
    if wanted != "auto":
        return int(wanted)
    return BATCH_ON_CUDA if uses_cuda(accelerator) else on_cpu


def resolve_device(device: str) -> str:
    """Return the torch device of a name, after checking that it exists.

    Parameters
    ----------
    device : str
        `auto` (CUDA if there is a CUDA device, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises
    ------
    InputError
        No such device, or a GPU that this build of torch does not support.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise InputError(f"device {device!r}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or int(number or 0) >= count:
            raise InputError(f"device {device}: this machine has {count} CUDA devices; choose auto or cpu")
        require_supported_gpu("cuda")
    return device
