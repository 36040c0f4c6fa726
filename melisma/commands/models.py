"""``melisma info`` and ``melisma convert``: what a checkpoint is, and writing it as ours."""

from pathlib import Path

from melisma.errors import MelismaError
from melisma.inference.files import check_output
from melisma.inference.streaming import latency_in_words
from melisma.inference.vocoder import ANALYTIC, load, model_path
from melisma.interop.describe import describe, in_lines


def info(model: str) -> None:
    """Print what a checkpoint is and whether it can be trusted."""
    if model == ANALYTIC:
        print("analytic: the spectral generator without weights; signal processing only, nothing to trust")
        vocoder = load(ANALYTIC)
        print(f"mel: {vocoder.mel}")
        print(f"stream: {latency_in_words(vocoder.generator)}")
        return
    path = model_path(model)
    print(f"{path}:")
    print(_described(path))


def _described(path: Path) -> str:
    if path.suffix == ".onnx":
        from melisma.export.reader import OnnxModel, describe_graph

        return in_lines(describe_graph(OnnxModel.open(path)))
    if path.suffix == ".oudep":
        from melisma.export.openutau import describe_package, read_package

        return in_lines(describe_package(read_package(path)))
    return describe(path, lambda loaded: {"stream": latency_in_words(loaded.generator)})


def system() -> None:
    """Print what this machine is, which kernels it takes, and why."""
    import torch

    from melisma.kernels import choice

    print(f"torch {torch.__version__} on {torch.get_num_threads()} threads")
    print(f"CPU: {choice.cpu_name()}; of use here: {', '.join(choice.cpu_features()) or 'nothing'}")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(f"CUDA device: {gpu}")
    for what, chosen in choice.choices().items():
        print(f"{what}: {chosen.path} ({chosen.why})")


def convert(source: Path, target: Path) -> None:
    """Write any checkpoint that melisma reads as a safetensors file of its own."""
    if target.suffix != ".safetensors":
        raise MelismaError(f"{target}: melisma's own models are .safetensors files; name it so")
    check_output(target)
    from melisma.interop import load_checkpoint, save_checkpoint

    loaded = load_checkpoint(model_path(source))
    save_checkpoint(loaded, target)
    print(f"{target}: {loaded.kind}, {target.stat().st_size / 1e6:.1f} MB")
