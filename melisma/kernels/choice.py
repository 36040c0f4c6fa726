"""Which kernel a computation takes on this machine, and why: decided once, on the first question.

``melisma info --system`` prints what stands here.
"""

import importlib.util
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from melisma.kernels import amx


@dataclass(frozen=True)
class Choice:
    """A decision.

    Attributes:
        path: the name of what is taken.
        fast: whether that is the fast one.
        why: in words.
    """

    path: str
    fast: bool
    why: str


_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain(wanted: bool = True) -> Iterator[None]:
    """Within this block nothing takes a kernel: what they are compared with, in tests and in ``melisma bench``."""
    token = _plain.set(wanted)
    try:
        yield
    finally:
        _plain.reset(token)


def kernels_allowed() -> bool:
    """Whether kernels may be taken at all: not within :func:`plain`, and not while a graph is traced."""
    return not (_plain.get() or torch.compiler.is_compiling() or torch.jit.is_tracing())


def holds_values(like: Tensor) -> bool:
    """Whether a compiled loop can read this: float32 on the CPU, something in it, and no gradient asked for."""
    return (
        type(like) is Tensor
        and like.numel() > 0
        and like.device.type == "cpu"
        and like.dtype == torch.float32
        and not (like.requires_grad and torch.is_grad_enabled())
    )


@lru_cache(maxsize=1)
def cpu_features() -> tuple[str, ...]:
    """What torch finds in the CPU that matters here, such as ``avx512`` and ``amx``."""
    tests: dict[str, str] = {
        "avx2": "_is_avx2_supported",
        "avx512": "_is_avx512_supported",
        "avx512-vnni": "_is_vnni_supported",
        "avx512-bf16": "_is_avx512_bf16_supported",
        "amx": "_is_amx_tile_supported",
    }
    # Torch's names for these begin with an underscore: one that is gone is a feature that is not used.
    missing: Callable[[], bool] = lambda: False  # noqa: E731
    return tuple(name for name, test in tests.items() if getattr(torch.cpu, test, missing)())


def cpu_name() -> str:
    """The CPU as its maker calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def convolutions() -> Choice:
    """How the convolutions of a network that is only listened to are computed on a CPU."""
    if not torch.backends.mkldnn.is_available():
        return Choice("torch", False, "this torch was built without oneDNN")
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_convolution_pointwise_")
    lacking = [name for name in names if not hasattr(torch.ops.mkldnn, name)]
    if lacking:
        return Choice("torch", False, f"torch {torch.__version__} has no mkldnn.{lacking[0]}")
    return Choice("onednn-tiles", True, "oneDNN with packed weights, channels last, in tiles of time side by side")


@lru_cache(maxsize=1)
def short_convolutions() -> Choice:
    """How a stream's convolutions over a few samples are computed; fast where not by the packed weights of all."""
    if not convolutions().fast:
        return convolutions()
    if "avx512" in cpu_features():
        return Choice("onednn", False, "oneDNN with the same packed weights")
    return Choice("matrices", True, "one product each; without AVX-512 oneDNN packs its weights anew for most lengths")


@lru_cache(maxsize=1)
def bfloat16_convolutions() -> Choice:
    """How convolutions are computed in bfloat16, which oneDNN refuses on CPUs that could do it slowly at best."""
    if not convolutions().fast:
        return convolutions()
    try:
        weight = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16)
        torch.ops.mkldnn._reorder_convolution_weight(weight, [0, 0], [1, 1], [1, 1], 1, [1, 1, 1, 1])
    except RuntimeError as error:
        return Choice("torch", False, str(error).splitlines()[0])
    return convolutions()


@lru_cache(maxsize=1)
def filtering() -> Choice:
    """How the convolutions of residual blocks are computed in float32."""
    lacking = _numba("")
    if not lacking.fast:
        return lacking
    if not {"avx2", "avx512"} & set(cpu_features()):
        return Choice("onednn-tiles", False, "this CPU has neither AVX2 nor AVX-512")
    return Choice("winograd", True, "minimal filtering: 2 to 4 multiplications where kernels have 3 to 11 taps")


@lru_cache(maxsize=1)
def tiles() -> Choice:
    """How convolutions are computed in bfloat16 where the CPU multiplies tiles."""
    for needed in (_numba(""), convolutions()):  # what does not fit tiles is oneDNN's
        if not needed.fast:
            return needed
    if "amx" not in cpu_features():
        return Choice("onednn-tiles", False, "this CPU has no amx")
    if not _compiled_with("amx-tile", "amx-bf16", "avx512f", "avx512bf16"):
        return Choice("onednn-tiles", False, "numba does not compile for the amx of this CPU")
    if not amx.permitted():
        return Choice("onednn-tiles", False, "the system does not let this process use amx")
    return Choice("amx", True, "tiles of 16 samples by 16 outputs in registers, channels last")


def _compiled_with(*features: str) -> bool:
    """Whether numba's compiler may use these: LLVM would end the process over one that it does not know of."""
    from numba.core import registry

    known = registry.cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return all(f"+{feature}" in known for feature in features)


def _numba(how: str) -> Choice:
    if importlib.util.find_spec("numba") is None:
        return Choice("torch", False, "numba is not installed: pip install numba")
    return Choice("numba", True, f"{how}, compiled on the first call and kept")


@lru_cache(maxsize=1)
def backbone() -> Choice:
    """How the backbone of a spectral generator is computed on a CPU."""
    if tiles().fast:
        return Choice("amx", True, "float32 as two numbers of bfloat16 each, three of their four products in tiles")
    return _numba("float32 in vectors")


@lru_cache(maxsize=1)
def snake() -> Choice:
    """How the anti-aliased snake is computed on a CPU."""
    return _numba("one pass")


@lru_cache(maxsize=1)
def projection() -> Choice:
    """How the rounds of mel projection are computed on a CPU."""
    return _numba("sixteen frames side by side")


@lru_cache(maxsize=1)
def excitation() -> Choice:
    """How pulse trains and counted noise are made, and recordings read through a warp, on a CPU."""
    return _numba("one pass")


@lru_cache(maxsize=1)
def gpu_snake() -> Choice:
    """How it is computed on a CUDA device."""
    if not torch.cuda.is_available():
        return Choice("none", False, "no CUDA device is available")
    if importlib.util.find_spec("triton") is None:
        return Choice("torch", False, "triton is not installed: pip install triton")
    return Choice("triton", True, "one pass, compiled on the first call and kept")


def bfloat16_instructions() -> tuple[str, ...]:
    """What this CPU has for products in bfloat16."""
    return tuple(name for name in ("amx", "avx512-bf16") if name in cpu_features())


@lru_cache(maxsize=1)
def half_precision() -> Choice:
    """How residual blocks are computed where no more is asked of them than what bfloat16 keeps."""
    if tiles().fast:
        return tiles()
    found = bfloat16_instructions()
    if "amx" not in found and filtering().fast:
        return Choice("winograd", True, "minimal filtering in tiles so large that float32 rounds as less than bfloat16")
    if not found:
        return Choice("torch", False, "this CPU has no instructions for bfloat16 (amx or avx512-bf16)")
    if not bfloat16_convolutions().fast:
        return bfloat16_convolutions()
    return Choice("onednn-tiles", True, f"this CPU has {' and '.join(found)}")


@lru_cache(maxsize=1)
def bfloat16() -> Choice:
    """Whether ``precision="auto"`` means bfloat16 on a CPU."""
    if not half_precision().fast:
        return Choice("float32", False, half_precision().why)
    if half_precision().path == "winograd":
        return Choice("float32", False, "minimal filtering is exact to float32 for a third more time")
    if half_precision().path == "amx":
        return Choice(
            "float32", False, "bfloat16 takes two fifths of the time, but streams would differ from the whole"
        )
    return Choice("bfloat16", True, half_precision().why)


def choices() -> dict[str, Choice]:
    """All of them, by what they are about."""
    return {
        "convolutions": convolutions(),
        "convolutions of few samples": short_convolutions(),
        "float32 residual blocks": filtering(),
        "bfloat16 residual blocks": half_precision(),
        "backbones": backbone(),
        "snake": snake(),
        "mel projection": projection(),
        "pulses, noise and warps": excitation(),
        "snake on a GPU": gpu_snake(),
        "precision auto": bfloat16(),
    }
