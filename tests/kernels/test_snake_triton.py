"""The Triton kernel: in Triton's interpreter everywhere, and compiled where there is a CUDA device."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from melisma.kernels import choice
from melisma.layers.activations import AntiAliased, SnakeBeta

pytest.importorskip("triton", reason="triton is not installed: pip install 'melisma[gpu]'")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_interpreted_kernel_equals_the_plain_code() -> None:
    cases = Path(__file__).with_name("snake_triton_cases.py")
    done = subprocess.run([sys.executable, str(cases)], capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith("all equal\n"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="triton compiles on Linux")
@pytest.mark.parametrize("name", ["_forward", "_backward"])
def test_kernels_compile_for_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To machine code of an H100, which needs none."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from melisma.kernels import snake_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(snake_triton, name)
    whole = {"channels": "i32", "time": "i32", "BLOCK": "constexpr"}
    source = ASTSource(kernel, {name: whole.get(name, "*fp32") for name in kernel.arg_names}, {"BLOCK": 512})
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=snake_triton.OPTIONS)
    assert len(made.asm["cubin"]) > 1000


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("time", [1, 2, 3, 5, 40, 600, 100_000])
def test_compiled_kernel_equals_the_plain_code(time: int) -> None:
    from snake_triton_cases import check, check_half

    check(time, "cuda")
    check_half("cuda")


@pytest.mark.gpu
@needs_gpu
def test_the_activation_takes_it_on_a_gpu() -> None:
    assert choice.gpu_snake().fast
    activation, x = AntiAliased(SnakeBeta(3)).requires_grad_(False), torch.randn(1, 3, 20)
    torch.testing.assert_close(activation.cuda()(x.cuda()).cpu(), activation.cpu().plain(x), rtol=0, atol=1e-5)
